"""How many threads torch computes with, and how it treats denormal numbers."""

import math
import threading
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn.parameter import is_lazy

# The least number of products that several threads share: some 0.4 ms of one core.
_LEAST_TO_DIVIDE = 1 << 23
# Layers that use their weights at each place of an image.
_CONVOLUTIONS = (
    nn.Conv1d,
    nn.Conv2d,
    nn.Conv3d,
    nn.ConvTranspose1d,
    nn.ConvTranspose2d,
    nn.ConvTranspose3d,
)
# Layers that tell that a module uses its weights at each step of a sequence.
_OF_SEQUENCES = (nn.RNNBase, nn.RNNCellBase, nn.MultiheadAttention)


def few_threads(module, n_rows, row_shape=()):
    """Return a context in which one thread computes if there is little to compute.

    Parameters
    ----------
    module : nn.Module
    n_rows : int
        How many rows are computed at once.
    row_shape : tuple of int
        The shape of a row; ``()`` if it is not known.
    """
    return limited_threads(1) if needs_one_thread(module, n_rows, row_shape) else nullcontext()


def needs_one_thread(module, n_rows, row_shape=()):
    """Tell whether a step of a module with `n_rows` rows is too little for several threads.

    On busy cores they would only wait for each other.
    """
    return n_rows * _estimate_products(module, row_shape) < _LEAST_TO_DIVIDE


def _estimate_products(module, row_shape):
    """Return about how many products of two numbers the outputs of a row need.

    A weight is used once for a row, but that of a convolution at each place of an image, and those
    of a module with recurrent layers or attention at each step of a sequence.
    """
    parts = list(module.modules())
    n_parameters = _count_parameters(module.parameters())
    if any(isinstance(part, _OF_SEQUENCES) for part in parts):
        return n_parameters * max(row_shape, default=1)
    convolutions = [part for part in parts if isinstance(part, _CONVOLUTIONS)]
    of_convolutions = {id(p): p for part in convolutions for p in part.parameters(recurse=False)}
    n_of_convolutions = _count_parameters(of_convolutions.values())
    # Behind a pooling of 2 x 2, an image has a quarter of its places.
    n_places = max(1, _count_places(row_shape) // 4)
    return n_parameters + n_of_convolutions * (n_places - 1)


def _count_parameters(parameters):
    # A lazy parameter has no size before the first batch.
    return sum(p.numel() for p in parameters if not is_lazy(p))


def _count_places(row_shape):
    """Return the places of an image (channels, ...), or of a table that a module views as one."""
    return math.prod(row_shape[1:] if len(row_shape) > 1 else row_shape)


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
