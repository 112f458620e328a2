"""How many threads torch computes with, and how it treats denormal numbers."""

import threading
from contextlib import contextmanager
from dataclasses import dataclass

import torch


@dataclass
class _Limits:
    """The contexts of :func:`limited_threads` that are open, in all threads."""

    n_open: int = 0
    # torch's number of threads before the first of them was opened.
    n_threads_before: int = 1


_limits = _Limits()
_limits_lock = threading.Lock()
# For each thread: the limit of its innermost open context.
_innermost = threading.local()


@contextmanager
def limited_threads(n_threads):
    """Let torch compute with `n_threads` threads in a block.

    torch keeps the number for each thread, but a new thread starts with the number that was set
    last by any other. So the end of a block restores what was set before any block was open.
    """
    outer = getattr(_innermost, "n_threads", None)
    # In a new thread, this call is also what makes torch adopt a number for it.
    setting = torch.get_num_threads()
    with _limits_lock:
        if _limits.n_open == 0:
            _limits.n_threads_before = setting
        _limits.n_open += 1
    _innermost.n_threads = n_threads
    torch.set_num_threads(n_threads)
    try:
        yield
    finally:
        with _limits_lock:
            _limits.n_open -= 1
        _innermost.n_threads = outer
        torch.set_num_threads(outer or _limits.n_threads_before)


@contextmanager
def flushed_denormals():
    """Let this thread take denormal numbers for 0 in a block.

    A processor computes many times as slowly with them, and the optimizer's moments of a weight
    whose gradient has vanished decay into them, and stay there.
    """
    was_flushed = not torch.full((), torch.finfo(torch.float32).tiny).div(2)
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(was_flushed)
