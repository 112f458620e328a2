"""CUDA graphs: operations that a GPU records once and then launches all at once."""

import threading

import torch

# One thread of a process records at a time.
_RECORDING = threading.Lock()


class RecordingError(RuntimeError):
    """Operations could not be recorded."""


class Failures:
    """What kept this process from recording: after one failure it does not try again.

    A capture that fails may leave torch's allocator in the state of capturing.
    """

    def __init__(self):
        self.reason = ""

    def note(self, error):
        """Keep the first line of what an error says."""
        lines = str(error).splitlines() or [type(error).__name__]
        self.reason = f"a recording has failed: {lines[0]}"


FAILURES = Failures()


def capture(compute, device, pool):
    """Return a CUDA graph of what a function computes on the current stream of a device.

    The device computes nothing while it records: the first replay does.

    Parameters
    ----------
    compute : callable
        It must not wait for the device.
    device : torch.device
        Its current stream must not be the default one.
    pool : tuple
        From ``torch.cuda.graph_pool_handle()``: where the graph has its memory.

    Raises
    ------
    RecordingError
        If the operations cannot be recorded.
    """
    with _RECORDING:
        if FAILURES.reason:
            raise RecordingError(FAILURES.reason)
        graph = torch.cuda.CUDAGraph()
        try:
            # `torch.cuda.graph` would synchronize the device, so that all other groups wait.
            with torch.cuda.device(device):
                graph.capture_begin(pool=pool, capture_error_mode="thread_local")
                try:
                    compute()
                finally:
                    graph.capture_end()
        except Exception as error:
            FAILURES.note(error)
            raise RecordingError(FAILURES.reason) from error
    return graph
