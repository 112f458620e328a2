"""Steps recorded once and then replayed by a GPU.

To launch the GPU's kernels of a small step takes longer than the kernels do: a CUDA graph launches
all of them at once.
"""

import threading
from contextlib import suppress
from dataclasses import dataclass

import torch

from sktune.engine.lanes import Part
from sktune.engine.steps.chain import without_copies
from sktune.engine.steps.stacked import StackedSteps

# The fewest steps for which it pays to record one.
FEWEST_STEPS = 50
# Steps that are taken as usual before one is recorded: libraries set themselves up in them.
_N_WARMUP_STEPS = 2
# A process can record one graph at a time.
_RECORDING = threading.Lock()


@dataclass
class Recording:
    """A recorded step, and the tensors that it reads and writes each time.

    Parameters
    ----------
    graph : torch.cuda.CUDAGraph
    inputs : list of Tensor or None
    dropout_numbers : list of tuple
        Each dropout layer of the chain, with the random numbers of its masks.
    result : Tensor
    """

    graph: object
    inputs: list
    dropout_numbers: list
    result: object

    def replay(self, tensors, step):
        """Take a step with other tensors; return the result, which the next replay overwrites."""
        for held, given in zip(self.inputs, tensors, strict=True):
            if held is not None:
                without_copies(held).copy_(without_copies(given))
        for link, numbers in self.dropout_numbers:
            numbers.copy_(link.numbers(tensors[0], step))
        self.graph.replay()
        return self.result


class CapturedSteps:
    """The steps of a chain in all lanes of a group, recorded in CUDA graphs.

    A recorded step computes in the same memory each time: batches, learning rates and the random
    numbers of masks are copied to where it reads them.

    Parameters
    ----------
    chain : Chain
    """

    def __init__(self, chain):
        self.chain = chain
        # By the key of a step: how often it was asked for, and its recording, None if it failed.
        self.n_calls = {}
        self.recordings = {}

    def take(self, compute, update, tensors, step):
        """Return what ``compute(tensors, step)`` returns; the next step may overwrite it.

        Parameters
        ----------
        compute : callable
            It must do the same operations for the same `update` and tensors of the same shapes.
        update : callable
            The optimizer's, from :meth:`StackedOptimizer.choose_update`.
        tensors : tuple of Tensor (L, B, ...) or None
        step : tuple of int
            (epoch, batch).
        """
        layouts = [None if t is None else (t.shape, t.stride()) for t in tensors]
        key = (update, *layouts)
        self.n_calls[key] = self.n_calls.get(key, 0) + 1
        if self.n_calls[key] <= _N_WARMUP_STEPS:
            return compute(tensors, step)
        if key not in self.recordings:
            self.recordings[key] = None
            # A step that cannot be recorded has changed nothing, and is computed as usual.
            with suppress(Exception), _RECORDING:
                self.recordings[key] = self._record(compute, tensors, step)
        recording = self.recordings[key]
        if recording is None:
            return compute(tensors, step)
        return recording.replay(tensors, step)

    def _record(self, compute, tensors, step):
        """Return the recording of a step, which is not taken by that."""
        inputs = [None if t is None else without_copies(t).clone().expand(t.shape) for t in tensors]
        dropout_numbers = [
            (link, link.numbers(tensors[0], step).clone()) for link in self.chain.dropouts
        ]
        try:
            for link, numbers in dropout_numbers:
                link.masks.held = numbers
            graph, result = _capture(compute, inputs, step, tensors[0].device)
        finally:
            for link, _ in dropout_numbers:
                link.masks.held = None
        return Recording(graph, inputs, dropout_numbers, result)


def _capture(compute, inputs, step, device):
    """Return a CUDA graph of ``compute(inputs, step)``, and the tensor that it writes."""
    graph = torch.cuda.CUDAGraph()
    stream = torch.cuda.Stream(device)
    current = torch.cuda.current_stream(device)
    stream.wait_stream(current)
    # `torch.cuda.graph` would synchronize the device, so that all other groups wait.
    with torch.cuda.stream(stream):
        graph.capture_begin(capture_error_mode="thread_local")
        try:
            result = compute(inputs, step)
        finally:
            graph.capture_end()
    current.wait_stream(stream)
    return graph, result


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
        """Stack the tensors of the lanes, and be ready to record."""
        super().prepare(lanes, options)
        self.n_epochs_done = lanes[0].state.epoch
        self._open_recorder()

    def select(self, positions):
        """Go on with the lanes at some positions only; their steps are recorded anew."""
        super().select(positions)
        self._open_recorder()

    def _open_recorder(self):
        n_steps = []
        for lane in self.lanes:
            n_epochs = lane.spec.n_epochs - self.n_epochs_done
            n_steps.append(n_epochs * len(lane.batches.sizes))
        is_worthwhile = self.net.chain and min(n_steps) >= FEWEST_STEPS
        self.recorder = CapturedSteps(self.net.chain) if is_worthwhile else None

    def run_epoch(self, epoch, rates):
        """Train all lanes for an epoch; return the losses (L, n_steps)."""
        losses = super().run_epoch(epoch, rates)
        self.n_epochs_done = epoch + 1
        return losses

    def _take_step(self, part, step, rates):
        """Take a step in all lanes; return their losses (L,)."""

        def compute(tensors, step):
            *batch, rates = tensors
            return StackedSteps._take_step(self, Part(None, *batch), step, rates)

        tensors = (part.X, part.target, part.weight, part.other, part.other_weight, rates)
        is_table = part.X.ndim == 3  # (L, B, F)
        if self.recorder is None or not is_table:
            return compute(tensors, step)
        update = self.optimizer.choose_update(self.net.flat)
        return self.recorder.take(compute, update, tensors, step)
