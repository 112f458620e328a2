"""Steps recorded once and then replayed: on a GPU, to launch the kernels of a small step takes longer than they do."""

import threading
from contextlib import suppress

import torch

from sktune.engine.steps.chain import once

FEWEST_STEPS = 50  # for which it pays to record one
_WARM = 2  # steps that run as they are before one is recorded: libraries set themselves up in them
_recording = threading.Lock()  # a process can record one graph at a time


def can_capture(lane):
    """Tell whether steps of a lane, and of those like it, can be recorded where they are computed."""
    return next(lane.module.parameters()).is_cuda and lane.masks_follow_from_seeds


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
