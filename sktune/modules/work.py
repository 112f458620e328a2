"""How much a module computes for a row, and whether that is enough for several threads."""

import math
from contextlib import nullcontext

from torch import nn
from torch.nn.parameter import is_lazy

from sktune.runtime.threads import limited_threads

# The least number of products that several threads share: some 0.4 ms of one core.
_LEAST_TO_DIVIDE = 1 << 23
# Layers that tell that a module uses its weights at each step of a sequence.
_OF_SEQUENCES = (nn.RNNBase, nn.RNNCellBase, nn.MultiheadAttention)
_CONVOLUTIONS = (
    nn.Conv1d,
    nn.Conv2d,
    nn.Conv3d,
    nn.ConvTranspose1d,
    nn.ConvTranspose2d,
    nn.ConvTranspose3d,
)


def find_convolutions(module):
    """Return the convolutions of a module, each once."""
    return [part for part in module.modules() if isinstance(part, _CONVOLUTIONS)]


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
    n_parameters = _count_parameters(module.parameters())
    if any(isinstance(part, _OF_SEQUENCES) for part in module.modules()):
        return n_parameters * max(row_shape, default=1)
    convolutions = find_convolutions(module)
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
