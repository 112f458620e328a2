"""The time of a compiled step on one core over that of a step by torch on several threads."""

from time import perf_counter

import numpy as np
import torch
from torch import nn

from sktune.engine.compiled.loading import bind_trial_step

# The widths of the layer that is measured, and the rows of its batch: some 50 ms in all.
WIDTHS = (384, 1024)
_N_ROWS = 128
# The fastest of so many steps counts.
_N_STEPS = 4


def measure_ratios(kernels, dtype):
    """Return the time of a compiled step over that of one of torch, by the width of a layer.

    The step is linear regression by Adam. torch takes as many threads as it is set to.

    Parameters
    ----------
    kernels : module
        From :func:`~sktune.engine.compiled.loading.load_kernels`.
    dtype : numpy.dtype

    Returns
    -------
    ratios : dict of float by int
    """
    ratios = {}
    for width in WIDTHS:
        X = np.zeros((_N_ROWS, width), dtype)
        ratios[width] = time_compiled(kernels, X) / time_torch(X)
    return ratios


def time_compiled(kernels, X):
    """Return the seconds of a compiled step on a batch X (B, F), of as many outputs."""
    return _time(_make_compiled_step(kernels, X))


def time_torch(X):
    """Return the seconds of the same step by torch, on the threads that it is set to."""
    return _time(_make_torch_step(torch.as_tensor(X)))


def _time(step):
    """Return the seconds of the fastest of some calls, after one that warms up."""
    step()
    seconds = []
    for _ in range(_N_STEPS):
        began = perf_counter()
        step()
        seconds.append(perf_counter() - began)
    return min(seconds)


def _make_compiled_step(kernels, X):
    width = X.shape[1]
    flat, gradient = np.zeros((2, width * width + width), X.dtype)
    return bind_trial_step(kernels, X, X, flat, gradient, 0.0)


def _make_torch_step(X):
    layer = nn.Linear(X.shape[1], X.shape[1], dtype=X.dtype)
    optimizer = torch.optim.Adam(layer.parameters(), lr=0.0, fused=True)

    def step():
        optimizer.zero_grad()
        nn.functional.mse_loss(layer(X), X).backward()
        optimizer.step()

    return step
