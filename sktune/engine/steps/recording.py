"""Steps that a GPU replays."""

from sktune.engine.lanes import Part
from sktune.engine.steps.recorded import FEWEST_STEPS, CapturedSteps
from sktune.engine.steps.stacked import StackedSteps


def find_recording_blocker(spec):
    """Return why steps of a fit cannot be recorded where they are computed."""
    if not next(spec.module.module.parameters()).is_cuda:
        return "steps are recorded on a GPU only"
    if not spec.sampling.has_seeded_masks:
        return "its dropout masks do not follow from its seed"
    return ""


class RecordedSteps(StackedSteps):
    """Stacked steps that a GPU replays from a recording: one launch in place of many."""

    name = "recorded"

    def blocker(self, specs, tables, options):
        """Return why the steps cannot be recorded."""
        return find_recording_blocker(specs[0]) or super().blocker(specs, tables, options)

    def prepare(self, lanes, options):
        """Stack the numbers of the lanes, and be ready to record."""
        super().prepare(lanes, options)
        self.n_taken = lanes[0].state.epoch
        self._open_recorder()

    def select(self, positions):
        """Go on with the lanes at some positions only; their steps are recorded anew."""
        super().select(positions)
        self._open_recorder()

    def _open_recorder(self):
        n_steps = [
            (lane.spec.n_epochs - self.n_taken) * len(lane.batches.sizes) for lane in self.lanes
        ]
        is_worthwhile = self.net.chain and min(n_steps) >= FEWEST_STEPS
        self.recorder = CapturedSteps(self.net.chain) if is_worthwhile else None

    def run_epoch(self, epoch, rates):
        """Train all lanes for an epoch; return the losses (L, n_steps)."""
        losses = super().run_epoch(epoch, rates)
        self.n_taken = epoch + 1
        return losses

    def _take_step(self, part, step, rates):
        """Take a step in all lanes; return their losses (L,)."""

        def compute(tensors, step):
            *batch, rates = tensors
            return StackedSteps._take_step(self, Part(None, *batch), step, rates)

        tensors = (part.X, part.target, part.weight, rates)
        if self.recorder is None or part.X.ndim != 3:
            return compute(tensors, step)
        rule = self.optimizer.choose_rule(self.net.flat)
        return self.recorder.take(compute, rule, tensors, step)
