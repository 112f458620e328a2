"""Streams of a GPU: one for each worker, for as long as the process lives."""

import threading
from contextlib import contextmanager

import torch

# Streams that no worker computes on now, by device. torch has 32 for each device and hands them
# out in turn: who makes a new one for each piece of work shares it with somebody else in the end.
_free = {}
_lock = threading.Lock()
# For each thread: the streams that it computes on, by device.
_own = threading.local()


@contextmanager
def own_stream(device, after=None):
    """On a GPU, compute beside what other threads compute; elsewhere this is nothing.

    A thread that is within such a block already stays on its stream. The work of the block is done
    at its end.

    Parameters
    ----------
    device : torch.device
    after : torch.cuda.Stream, default=None
        The stream whose work is to be done first; None is the current one of this thread.
    """
    if device.type != "cuda":
        yield
        return
    index = torch.cuda.current_device() if device.index is None else device.index
    own = vars(_own).setdefault("streams", {})
    if index in own:
        yield
        return
    stream = _take(index)
    own[index] = stream
    # what was launched before is to be there
    stream.wait_stream(torch.cuda.current_stream(index) if after is None else after)
    try:
        with torch.cuda.stream(stream):
            yield
    finally:
        del own[index]
        try:
            stream.synchronize()
        finally:
            with _lock:
                _free[index].append(stream)


def _take(index):
    """Return a stream of a device that no other worker computes on."""
    with _lock:
        free = _free.setdefault(index, [])
        return free.pop() if free else torch.cuda.Stream(index)
