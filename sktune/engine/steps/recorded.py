"""Steps recorded once and then replayed: on a GPU, to launch the kernels of a small step takes longer than they do."""

import threading
from contextlib import suppress

import torch

from sktune.engine.lanes import Part
from sktune.engine.steps.chain import once
from sktune.engine.steps.stacked import StackedSteps

FEWEST_STEPS = 50  # for which it pays to record one
_WARM = 2  # steps that run as they are before one is recorded: libraries set themselves up in them
_recording = threading.Lock()  # a process can record one graph at a time


class CapturedSteps:
    """The steps of a chain in all lanes of a group, recorded in a CUDA graph for each kind of them.

    A recorded step computes in the same memory each time: batches, rates and the numbers of masks are copied to where
    it reads them.
    """

    def __init__(self, chain):
        self.chain, self.n_runs, self.recorded = chain, {}, {}

    def take(self, step, kind, tensors, place):
        """Do ``step(tensors, place)`` and return what it returns, which the next one may overwrite.

        Steps of one `kind` and of tensors of the same shapes are the same operations. The tensors are (L, B, ...), or
        None where one is not needed; `place` is (epoch, batch).
        """
        kind = (
            kind,
            *(None if tensor is None else (tensor.shape, tensor.stride()) for tensor in tensors),
        )
        self.n_runs[kind] = self.n_runs.get(kind, 0) + 1
        if self.n_runs[kind] <= _WARM:
            return step(tensors, place)
        if kind not in self.recorded:
            self.recorded[kind] = None
            with (
                suppress(Exception),
                _recording,
            ):  # nothing has changed then: the steps are taken as they are
                self.recorded[kind] = self._record(step, tensors, place)
        if self.recorded[kind] is None:
            return step(tensors, place)
        graph, inputs, held, result = self.recorded[kind]
        for ours, theirs in zip(inputs, tensors, strict=True):
            if ours is not None:
                once(ours).copy_(once(theirs))
        for link, numbers in held:
            numbers.copy_(link.numbers(tensors[0], place))
        graph.replay()
        return result

    def _record(self, step, tensors, place):
        """Return a recorded step, which has not been taken, with the tensors that it reads and the one it writes."""
        inputs = [None if t is None else once(t).clone().expand(t.shape) for t in tensors]
        held = [(link, link.numbers(tensors[0], place).clone()) for link in self.chain.dropouts]
        graph, device = torch.cuda.CUDAGraph(), tensors[0].device
        side, current = torch.cuda.Stream(device), torch.cuda.current_stream(device)
        side.wait_stream(current)
        try:
            for link, numbers in held:
                link.masks.held = numbers
            with torch.cuda.stream(side):  # torch.cuda.graph would have all other groups wait
                graph.capture_begin(capture_error_mode="thread_local")
                try:
                    result = step(inputs, place)
                finally:
                    graph.capture_end()
        finally:
            for link, _ in held:
                link.masks.held = None
        current.wait_stream(side)
        return graph, inputs, held, result


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
        update = self.optimizer.choose_update(self.net.flat)
        return self.recorder.take(compute, update, tensors, step)
