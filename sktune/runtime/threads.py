"""How many threads torch computes with, and how it treats the smallest numbers."""

import threading
from contextlib import contextmanager, nullcontext

import torch
from torch.nn.parameter import is_lazy

_LEAST_TO_DIVIDE = 1 << 23  # rows x parameters: some 0.4 ms of one core


def few_threads(module, n_rows):
    """Compute with one thread what is too little to divide.

    On busy cores several threads would only wait for each other.
    """
    return limited_threads(1) if needs_one_thread(module, n_rows) else nullcontext()


def needs_one_thread(module, n_rows):
    """Tell whether a step of a module with so many rows is too little to divide."""
    # a lazy parameter has no size before the first batch
    n_parameters = sum(p.numel() for p in module.parameters() if not is_lazy(p))
    return n_rows * n_parameters < _LEAST_TO_DIVIDE


_limited = threading.local()  # the limit within which a thread computes
_limits = {
    "n": 0,
    "before": 1,
}  # how many limits there are, and torch's setting before the first of them
_limits_lock = threading.Lock()


@contextmanager
def limited_threads(n_threads):
    """Let torch compute with some threads.

    The setting is a thread's own, but what was last set anywhere is what new threads begin with: it is put back to
    what it was before any thread was within a limit.
    """
    outer, setting = (
        getattr(_limited, "n_threads", None),
        torch.get_num_threads(),
    )  # a new thread's begins when asked
    with _limits_lock:
        if not _limits["n"]:
            _limits["before"] = setting
        _limits["n"] += 1
    _limited.n_threads = n_threads
    torch.set_num_threads(n_threads)
    try:
        yield
    finally:
        with _limits_lock:
            _limits["n"] -= 1
        _limited.n_threads = outer
        torch.set_num_threads(outer or _limits["before"])


@contextmanager
def flushed_denormals():
    """Let this thread take numbers below the normal ones for 0: it computes with them many times as slowly.

    Moments of weights whose gradients have ceased fade into them, and stay there.
    """
    was_flushed = not torch.full((), torch.finfo(torch.float32).tiny).div(2)
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(was_flushed)
