"""Streams of a GPU: each belongs to one piece of work, and lasts as long as the process."""

import threading
from contextlib import contextmanager

import torch

# Streams that nobody computes on now, by device. torch has 32 for each device and hands them out in
# turn: who makes a new one for each piece of work shares it with somebody else in the end.
_free = {}
_lock = threading.Lock()
# For each thread: the streams that it computes on, by device.
_own = threading.local()


class OwnStream:
    """A stream of a GPU that nobody else computes on, until it is given back.

    Parameters
    ----------
    device : torch.device
        Its work begins when that is done which this thread has launched there before.
    """

    def __init__(self, device):
        self.index = torch.cuda.current_device() if device.index is None else device.index
        self.stream = _take(self.index)
        # what was launched before is to be there
        self.stream.wait_stream(torch.cuda.current_stream(self.index))

    @contextmanager
    def current(self):
        """Let this thread compute on the stream in a block."""
        own = vars(_own).setdefault("streams", {})
        outer = own.get(self.index)
        own[self.index] = self.stream
        try:
            with torch.cuda.stream(self.stream):
                yield
        finally:
            del own[self.index]
            if outer is not None:
                own[self.index] = outer

    def give_back(self):
        """Wait until its work is done, and let others compute on it."""
        try:
            self.stream.synchronize()
        finally:
            with _lock:
                _free[self.index].append(self.stream)


@contextmanager
def own_stream(device):
    """On a GPU, compute beside what others compute; elsewhere this is nothing.

    A thread that computes on a stream of its own already stays there. The work of the block is done
    at its end.

    Parameters
    ----------
    device : torch.device
    """
    if device.type != "cuda":
        yield
        return
    index = torch.cuda.current_device() if device.index is None else device.index
    if index in vars(_own).get("streams", {}):
        yield
        return
    stream = OwnStream(device)
    try:
        with stream.current():
            yield
    finally:
        stream.give_back()


def _take(index):
    """Return a stream of a device that nobody else computes on."""
    with _lock:
        free = _free.setdefault(index, [])
        return free.pop() if free else torch.cuda.Stream(index)
