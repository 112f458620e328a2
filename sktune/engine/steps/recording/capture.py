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
        # the allocator may go on asking the graph whether it is captured: it must be there
        self.graph = None

    def note(self, error, graph):
        """Keep the first line of what an error says, and the graph whose capture has failed."""
        lines = str(error).splitlines() or [type(error).__name__]
        self.reason = f"a recording has failed: {lines[0]}"
        self.graph = graph


FAILURES = Failures()


class Memory:
    """The memory of all recordings of a group, one after the other.

    torch gives a pool up as soon as no graph uses it: the last ones stay until there are others.
    """

    def __init__(self):
        self.pool = None
        self.graphs = []

    def open(self):
        """Return the pool."""
        if self.pool is None:
            self.pool = torch.cuda.graph_pool_handle()
        return self.pool

    def hand_on(self, graphs):
        """Let go of the graphs before, whose memory others have now."""
        self.graphs = graphs


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
    torch.OutOfMemoryError
        If the device is full. Recordings of less may succeed.
    """
    with _RECORDING:
        if FAILURES.reason:
            raise RecordingError(FAILURES.reason)
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.device(device):
                _record(graph, compute, pool)
        except Exception as error:
            if isinstance(error, torch.OutOfMemoryError) and not FAILURES.reason:
                raise
            FAILURES.note(error, graph)
            raise RecordingError(FAILURES.reason) from error
    return graph


def _record(graph, compute, pool):
    """Let a graph capture what a function computes; whatever happens, the capture ends."""
    # `torch.cuda.graph` would synchronize the device, so that all other groups wait. Other threads
    # may go on with what a capture of theirs would forbid.
    try:
        graph.capture_begin(pool=pool, capture_error_mode="thread_local")
        compute()
    except BaseException:
        # an interrupt, too: else the stream would go on capturing
        if torch.cuda.is_current_stream_capturing():
            _abandon(graph)
        raise
    graph.capture_end()


def _abandon(graph):
    """End a capture that is of no use; what was raised before is what matters."""
    try:
        graph.capture_end()
    except RuntimeError as error:
        FAILURES.note(error, graph)
