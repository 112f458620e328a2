"""Steps recorded once and then replayed by a GPU.

To launch the GPU's kernels of a small step takes longer than the kernels do: a CUDA graph launches
those of many steps at once. The order of the rows, the learning rates and the keys of the dropout
masks are sent before each replay; all else follows on the device.
"""

from functools import partial

import torch
from scipy import sparse

from sktune.engine.steps.recording.capture import FAILURES, Memory, RecordingError
from sktune.engine.steps.recording.recorder import Recorder
from sktune.engine.steps.stacked import StackedSteps
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
        self.memory = Memory()
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
        return self.begin_epoch(epoch, rates)()

    def begin_epoch(self, epoch, rates):
        """Launch the steps of an epoch; return a function that waits for their losses."""
        self.n_epochs_done = epoch + 1
        if self.recorder is not None and not self.recorder.runs:
            self._record(epoch)
        if self.recorder is None:
            losses = super().run_epoch(epoch, rates)
            return lambda: losses
        every = [[0.0]] * len(self.members)
        for row, lane_rates in zip(self.rows, rates, strict=True):
            every[row] = lane_rates
        launched = self.recorder.launch_epoch(epoch, every, set(self.rows))
        return partial(self._read, launched, list(self.rows), max(map(len, rates)))

    def launch_validation(self):
        """Launch the validation of all lanes, if it can be recorded."""
        if self.recorder is None or self.members[0].spec.rows.valid is None:
            return None
        found = self.recorder.launch_validation()
        if found is None or len(self.rows) == len(self.members):
            return found
        return found[:, send(self.rows, found.device, torch.long)]

    @staticmethod
    def _read(launched, rows, n_steps):
        """Return the losses (L, n_steps) of the lanes that are not done."""
        (losses,) = fetch([launched])
        return losses.T.double().numpy()[rows, :n_steps]

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
