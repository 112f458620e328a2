"""The recordings of an epoch of a group: how they are made, and replayed."""

from contextlib import contextmanager, suppress
from dataclasses import replace
from weakref import proxy

import torch

from sktune.engine.lanes import join
from sktune.engine.steps.recording.capture import RecordingError, capture
from sktune.engine.steps.recording.masks import NotedCalls
from sktune.engine.steps.recording.plan import EpochPlan, Run
from sktune.engine.steps.recording.run import RecordedRun, Table
from sktune.engine.steps.recording.validation import RecordedValidation
from sktune.runtime.gpu.streams import own_stream
from sktune.runtime.gpu.transfers import send


class Recorder:
    """Records the steps of an epoch, in runs, and replays them.

    Parameters
    ----------
    backend : RecordedSteps
        Its lanes, net and optimizer stay the same ones.
    """

    def __init__(self, backend):
        # it has the recorder: in a circle, memory of the device would wait for Python's collector
        self.backend = proxy(backend)
        # a layer may look at all rows of a batch: only those of a chain are known not to
        self.pads = bool(backend.net.chain) and backend.members[0].rows.X.ndim == 2
        self.plan = EpochPlan(backend.members, self.pads)
        self.table = None
        self.runs = {}
        # None before the first validation, and where it cannot be recorded
        self.validation = None
        self.can_validate = self.pads
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
            first = Run(0, 1, int(self.plan.most[0]), 0, self.plan.is_ragged(0))
            calls = self._try_step(epoch, first)
            self.plan.divide(self._count_bytes(calls))
            self._try_others(epoch, first)
            pool = backend.memory.open()
            runs = {}
            for run in self.plan.runs:
                if run.kind not in runs:
                    recorded = RecordedRun(backend, run, self.plan, self.table, calls)
                    with self._holding(recorded.masks):
                        recorded.graph = capture(recorded.compute, device, pool)
                    runs[run.kind] = recorded
        self.runs = runs
        backend.memory.hand_on([recorded.graph for recorded in runs.values()])
        return list(calls)

    def _try_others(self, epoch, first):
        """Try a step of each size that the first did not have: libraries choose kernels by it."""
        tried = {(first.n_rows, first.is_ragged)}
        for run in self.plan.runs:
            if (run.n_rows, run.is_ragged) not in tried:
                tried.add((run.n_rows, run.is_ragged))
                self._try_step(epoch, replace(run, n_steps=1))

    def _try_step(self, epoch, run):
        """Take a step and undo it: libraries set themselves up in the first.

        Return the calls of dropout layers in it, with the numbers that each needs for a row.
        """
        backend = self.backend
        changed = [backend.net.flat, *backend.net.buffers.values(), *backend.optimizer.tensors()]
        saved = [tensor.clone() for tensor in changed]
        tried = RecordedRun(backend, run, self.plan, self.table, ())
        rates = torch.zeros(run.first + 1, len(backend.net), 1)
        tried.send(epoch, run, self.plan.orders(epoch), rates)
        noted = NotedCalls()
        try:
            with self._holding(noted):
                tried.compute()
        except torch.OutOfMemoryError:
            raise
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
        masks = backend.net.masks_by_index
        n_outputs = backend.members[0].spec.n_outputs or 1
        n_bytes = n_lanes * (backend.net.flat.element_size() * n_outputs + 16)
        for (layer, _), width in calls.items():
            # two tensors of int32 for two numbers each, while they are hashed
            n_bytes += 4 * width * len(masks[layer].distinct_seeds)
        return n_bytes

    @contextmanager
    def _holding(self, numbers):
        """Let the dropout layers take their random numbers from an object in a block."""
        net = self.backend.net
        links = net.chain.dropouts if net.chain else ()
        masks = [*net.masks_by_index.values(), *(link.masks for link in links)]
        for one in masks:
            one.held = numbers
        try:
            yield
        finally:
            for one in masks:
                one.held = None

    def launch_validation(self):
        """Launch the validation of all lanes; return None if that cannot be recorded."""
        if self.validation is None and self.can_validate:
            self.can_validate = False
            with suppress(RecordingError):
                validation = RecordedValidation(self.backend, self.plan, self.table)
                validation.record(self.backend.memory.open())
                self.backend.memory.graphs.append(validation.graph)
                self.validation = validation
        return None if self.validation is None else self.validation.launch()

    def launch_epoch(self, epoch, rates, alive):
        """Launch the steps of an epoch; return their losses, a Tensor (n_steps, L).

        `rates` are those of each lane's steps; `alive` are the rows of lanes that are not done.
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
        return losses

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
