"""Loading of the compiled kernels, where Numba is there and works.

Numba compiles the kernels when they are first used, and keeps them on disk.
"""

import warnings
from functools import cache
from importlib.util import find_spec

import numpy as np
from torch import nn

from sktune.engine.compiled.opcodes import FIRST_CLIP
from sktune.engine.compiled.reading.graph import GraphReader
from sktune.modules.tracing.links import Link, open_links


@cache
def load_kernels(dtype):
    """Return the module of the kernels, compiled for a type; None where Numba cannot do it."""
    if find_spec("numba") is None:
        return None
    try:
        from sktune.engine.compiled import kernels

        _try_step(kernels, dtype)
    # whatever happens, for instance in a Numba that does not fit this Python or NumPy
    except Exception as error:
        cause = f"{type(error).__name__}: {error}"
        warnings.warn(
            f"Numba cannot be used, and networks train without it: {cause}",
            RuntimeWarning,
            stacklevel=2,
        )
        return None
    return kernels


def _try_step(kernels, dtype):
    """Take a step of linear regression by SGD, whose outcome is known; raise if it is another."""
    X = np.array([[1, 0], [0, 2], [1, 1]], dtype)
    target = X[:, :1].copy()
    weight = np.ones(3, dtype)
    # two weights and a bias
    flat = np.zeros(3, dtype)
    module = nn.Linear(2, 1, device="meta")
    graph = GraphReader(module, open_links(module, (Link("", None, (0,)),)), 2).read()
    losses = kernels.train_steps(
        graph.links,
        graph.settings,
        kernels.SQUARED_ERROR,
        # the mean, and no option
        np.zeros(2),
        kernels.SGD,
        # all options of SGD, l1 and l2
        np.zeros(FIRST_CLIP + 2),
        flat,
        np.zeros_like(flat),
        flat[:0],
        np.zeros_like(flat),
        flat[:0],
        flat[:0],
        0,
        (X, target, weight),
        np.arange(3),
        np.array([3]),
        np.array([0.3]),
        (0, 0, 0),
    )
    if not np.allclose(losses, 2 / 3) or not np.allclose(flat, [0.4, 0.2, 0.4]):
        raise ArithmeticError(f"its code makes {flat.tolist()} of a step to [0.4, 0.2, 0.4]")
