"""The time of a compiled step on one core over that of a step by torch on several threads."""

from time import perf_counter

import numpy as np
import torch
from torch import nn

from sktune.engine.compiled.loading import bind_trial_step
from sktune.engine.compiled.reading.keeping import read_graph

# Of tables: the widths of the layer that is measured, and the rows of its batch, some 50 ms in all.
WIDTHS = (384, 1024)
_N_ROWS = 128
# Of images: their height and width with the channels of the second convolution, and the rows.
SHAPES = ((16, 16), (28, 32))
_N_IMAGES = 32
# The fastest of so many steps counts, or of fewer if they take longer than so many seconds: on busy
# cores torch's threads wait long for each other.
_N_STEPS = 4
_MOST_SECONDS = 0.5


def measure_ratios(kernels, dtype, kind):
    """Return the time of a compiled step over that of one of torch, by the greatest width.

    The step is regression by Adam. torch takes as many threads as it is set to.

    Parameters
    ----------
    kernels : module
        From :func:`~sktune.engine.compiled.loading.load_kernels`.
    dtype : numpy.dtype
    kind : str
        ``"tables"`` measures a linear layer, ``"images"`` two convolutions.

    Returns
    -------
    ratios : dict of float by int
        By the numbers of a row in the largest value.
    """
    ratios = {}
    torch_dtype = torch.from_numpy(np.zeros(0, dtype)).dtype
    for module, X in _MAKERS[kind]():
        # without values at random, which would be drawn from torch's global generator
        module = module.to(torch_dtype).to_empty(device="cpu")
        for p in module.parameters():
            nn.init.zeros_(p)
        X = X.to(torch_dtype)
        graph = read_graph(module, X)
        compiled = _make_compiled_step(kernels, graph, module, X)
        ratios[graph.widest] = _time(compiled) / _time(_make_torch_step(module, X))
    return ratios


def _make_tables():
    """Yield layers of several widths, without values, and their rows."""
    for width in WIDTHS:
        layer = nn.Linear(width, width, device="meta")
        yield nn.Sequential(layer), torch.zeros(_N_ROWS, width)


def _make_images():
    """Yield pairs of convolutions for several sizes, without values, and their images."""
    for size, channels in SHAPES:
        first = nn.Conv2d(1, channels // 2, 3, padding=1, device="meta")
        second = nn.Conv2d(channels // 2, channels, 3, padding=1, device="meta")
        module = nn.Sequential(first, nn.ReLU(), second, nn.Flatten())
        yield module, torch.zeros(_N_IMAGES, 1, size, size)


_MAKERS = {"tables": _make_tables, "images": _make_images}


def _time(step):
    """Return the seconds of the fastest of some calls, after one that warms up."""
    step()
    seconds = []
    while len(seconds) < _N_STEPS and sum(seconds) < _MOST_SECONDS:
        began = perf_counter()
        step()
        seconds.append(perf_counter() - began)
    return min(seconds)


def _make_compiled_step(kernels, graph, module, X):
    flat = nn.utils.parameters_to_vector(module.parameters()).detach().numpy()
    rows = X.flatten(1).numpy()
    target = np.zeros((len(rows), graph.n_outputs), rows.dtype)
    return bind_trial_step(kernels, graph, rows, target, flat, np.zeros_like(flat), 0.0)


def _make_torch_step(module, X):
    target = torch.zeros_like(module(X))
    optimizer = torch.optim.Adam(module.parameters(), lr=0.0, fused=True)

    def step():
        optimizer.zero_grad()
        nn.functional.mse_loss(module(X), target).backward()
        optimizer.step()

    return step
