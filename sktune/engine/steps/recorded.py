"""Steps recorded once and then replayed by a GPU.

To launch the GPU's kernels of a small step takes longer than the kernels do: a CUDA graph launches
those of many steps at once. The order of the rows, the learning rates and the keys of the dropout
masks are sent before each replay; all else follows on the device.
"""

from contextlib import contextmanager

import torch
from scipy import sparse

from sktune.engine.lanes import join
from sktune.engine.steps.recording.capture import FAILURES, RecordingError, capture
from sktune.engine.steps.recording.masks import NotedCalls
from sktune.engine.steps.recording.plan import EpochPlan, Run
from sktune.engine.steps.recording.run import RecordedRun, Table
from sktune.engine.steps.stacked import StackedSteps
from sktune.runtime.gpu.streams import own_stream
from sktune.runtime.gpu.transfers import fetch, send

# The fewest steps for which it pays to record some.
FEWEST_STEPS = 50


def find_recording_blocker(spec):
    """Return why steps of a fit cannot be recorded where they are computed."""
    if not next(spec.module.module.parameters()).is_cuda:
        return "steps are recorded on a GPU only"
    if any(spec.dropout) and not spec.sampling.has_seeded_masks:
        return "its dropout masks do not follow from its seed"
    return FAILURES.reason


class RecordedSteps(StackedSteps):
    """Stacked steps that a GPU replays from a recording: one launch in place of many.

    Lanes that are done are computed on, at a learning rate of 0, until half of them are: then the
    others are recorded anew.
    """

    name = "recorded"

    def blocker(self, specs, tables, options):
        """Return why the steps cannot be recorded."""
        if any(spec.augmentation is not None for spec in specs):
            return "its rows are augmented"
        return find_recording_blocker(specs[0]) or super().blocker(specs, tables, options)

    def prepare(self, lanes, options):
        """Stack the tensors of the lanes, and be ready to record."""
        super().prepare(lanes, options)
        self.n_epochs_done = lanes[0].state.epoch
        # where `net` holds the lanes that are not done, and all lanes that it holds
        self.rows = list(range(len(lanes)))
        self.members = list(lanes)
        self.has_recorded = False
        self.reason = ""
        self.recorder = None
        self._open_recorder()

    def held(self, positions):
        """Return where `net` holds the lanes at some positions."""
        return [self.rows[position] for position in positions]

    def state(self, position):
        """Return copies of a lane's weights and of its optimizer's state, each a dict by name."""
        return super().state(self.rows[position])

    def told(self):
        """Return how the steps were taken, and why they were not recorded."""
        if self.has_recorded:
            return RecordedSteps.name, {}
        return StackedSteps.name, {RecordedSteps.name: self.reason}

    def select(self, positions):
        """Go on with the lanes at some positions only."""
        self.rows = self.held(positions)
        self.lanes = [self.lanes[position] for position in positions]
        is_half_empty = 2 * len(self.rows) <= len(self.net)
        if self.recorder is not None and not is_half_empty:
            return
        self.lanes, kept = self.members, self.rows
        super().select(kept)
        self.members = self.lanes
        self.rows = list(range(len(self.members)))
        self._open_recorder()

    def _open_recorder(self):
        """Be ready to record the steps of the lanes, or note why they are not."""
        self.recorder = None
        n_steps = []
        for lane in self.members:
            n_epochs = lane.spec.n_epochs - self.n_epochs_done
            n_steps.append(n_epochs * len(lane.batches.sizes))
        if FAILURES.reason:
            self.reason = FAILURES.reason
        elif min(n_steps) < FEWEST_STEPS:
            self.reason = f"it takes too few steps to record them, fewer than {FEWEST_STEPS}"
        elif any(sparse.issparse(lane.rows.X) for lane in self.members):
            self.reason = "its table is sparse"
        else:
            self.recorder = Recorder(self)

    def run_epoch(self, epoch, rates):
        """Train all lanes for an epoch; return the losses (L, n_steps)."""
        self.n_epochs_done = epoch + 1
        if self.recorder is not None and not self.recorder.runs:
            self._record(epoch)
        if self.recorder is None:
            return super().run_epoch(epoch, rates)
        every = [[0.0]] * len(self.members)
        for row, lane_rates in zip(self.rows, rates, strict=True):
            every[row] = lane_rates
        losses = self.recorder.run_epoch(
            epoch, every, dict(zip(self.rows, self.lanes, strict=True))
        )
        return losses[self.rows, : max(map(len, rates))]

    def _record(self, epoch):
        """Record the steps of an epoch; if that fails, nothing has been computed or drawn."""
        generators = [lane.generator for lane in self.members if lane.generator is not None]
        states = [generator.get_state() for generator in generators]
        try:
            self.recorder.record(epoch)
            self.has_recorded = True
        except RecordingError as error:
            for generator, state in zip(generators, states, strict=True):
                generator.set_state(state)
            self.recorder = None
            self.reason = str(error)


class Recorder:
    """Records the steps of an epoch, in runs, and replays them.

    Parameters
    ----------
    backend : RecordedSteps
        Its lanes, net and optimizer stay the same ones.
    """

    def __init__(self, backend):
        self.backend = backend
        # a layer may look at all rows of a batch: only those of a chain are known not to
        self.pads = bool(backend.net.chain) and backend.members[0].rows.X.ndim == 2
        self.plan = EpochPlan(backend.members, self.pads)
        self.table = None
        self.runs = {}
        self.update = None
        backend.optimizer.may_fuse = not self.plan.has_more_steps

    def record(self, epoch):
        """Record all kinds of runs of an epoch, which are not computed by that.

        Return the calls of dropout layers in a step, each (layer, call).

        Raises
        ------
        RecordingError
            If a run cannot be recorded. Nothing has changed then.
        """
        backend = self.backend
        device = backend.net.flat.device
        self.table = Table(self.plan.streams)
        self.update = backend.optimizer.choose_update(backend.net.flat)
        with own_stream(device):
            calls = self._try_step(epoch)
            self.plan.divide(self._count_bytes(calls))
            pool = torch.cuda.graph_pool_handle()
            runs = {}
            for run in self.plan.runs:
                if run.kind not in runs:
                    recorded = RecordedRun(backend, run, self.plan, self.table, calls)
                    with self._holding(recorded.masks):
                        recorded.graph = capture(recorded.compute, device, pool)
                    runs[run.kind] = recorded
        self.runs = runs
        return list(calls)

    def _try_step(self, epoch):
        """Take a step and undo it: libraries set themselves up in the first.

        Return the calls of dropout layers in it, with the numbers that each needs for a row.
        """
        backend = self.backend
        run = Run(0, 1, int(self.plan.most[0]), 0, self.plan.is_ragged(0))
        changed = [backend.net.flat, *backend.net.buffers.values(), *backend.optimizer.tensors()]
        saved = [tensor.clone() for tensor in changed]
        tried = RecordedRun(backend, run, self.plan, self.table, ())
        rates = torch.zeros(1, len(backend.net), 1)
        tried.send(epoch, run, self.plan.orders(epoch), rates)
        noted = NotedCalls()
        try:
            with self._holding(noted):
                tried.compute()
        except Exception as error:
            raise RecordingError(f"a step fails before it is recorded: {error}") from error
        finally:
            for tensor, before in zip(changed, saved, strict=True):
                tensor.detach().copy_(before)
        return {call: n // run.n_rows for call, n in noted.widths.items()}

    def _count_bytes(self, calls):
        """Return how much memory a row takes in the recording of many steps."""
        backend = self.backend
        n_lanes = len(backend.net)
        n_outputs = backend.members[0].spec.n_outputs or 1
        n_bytes = n_lanes * (backend.net.flat.element_size() * n_outputs + 16)
        for (layer, _), width in calls.items():
            # two tensors of int32 for two numbers each, while they are hashed
            n_bytes += 4 * width * len(backend.net.masks[layer].distinct_seeds)
        return n_bytes

    @contextmanager
    def _holding(self, numbers):
        """Let the dropout layers take their random numbers from an object in a block."""
        net = self.backend.net
        links = net.chain.dropouts if net.chain else ()
        masks = [*net.masks, *(link.masks for link in links)]
        for one in masks:
            one.held = numbers
        try:
            yield
        finally:
            for one in masks:
                one.held = None

    def run_epoch(self, epoch, rates, alive):
        """Take the steps of an epoch; return the losses (L, n_steps).

        `rates` are those of each lane's steps; `alive` are the lanes that are not done, by row.
        """
        plan = self.plan
        device = self.backend.net.flat.device
        padded = [lane + lane[-1:] * (plan.n_steps - len(lane)) for lane in rates]
        rates = torch.tensor(padded, dtype=torch.float64).T.unsqueeze(2)  # (n_steps, L, 1)
        orders = plan.orders(epoch)
        losses = torch.zeros(
            rates.shape[:2], dtype=self.backend.column_dtype, device=device
        )  # (n_steps, L)
        runs = {run.first: run for run in plan.runs}
        for step in sorted([*runs, *plan.apart]):
            self.backend.options.check()
            if step in runs:
                run = runs[step]
                recorded = self.runs[run.kind]
                recorded.send(epoch, run, orders, rates)
                recorded.graph.replay()
                losses[step : step + run.n_steps].copy_(recorded.losses)
            else:
                self._take_apart(epoch, step, rates[step], losses[step], alive)
        if plan.apart and self.backend.optimizer.choose_update(self.backend.net.flat) is not (
            self.update
        ):
            self.runs = {}
        return fetch([losses])[0].T.double().numpy()

    def _take_apart(self, epoch, step, rates, losses, alive):
        """Take a step that is not recorded, in those of the lanes that take it."""
        streams = []
        by_length = {}
        for number, rows in enumerate(self.plan.positions):
            lane = self.plan.streams[number]
            sizes = lane.batches.sizes
            rows = [row for row in rows if row in alive]
            if not rows or step >= len(sizes):
                continue
            start = sum(sizes[:step])
            order = self.plan.order_of(number, epoch)[start : start + sizes[step]]
            by_length.setdefault(sizes[step], {})[len(streams)] = lane.rows.take(order)
            streams.append(rows)
        rates = send(rates, losses.device, losses.dtype)
        for batches in by_length.values():
            part = join(batches, streams, {})
            self.backend._take_part_step(part, (epoch, step), rates, losses)
