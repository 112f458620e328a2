"""The time that the compiled steps of a search spend on each of their stages.

No timer can run between two stages of a compiled step. So each stage is repeated alone, in a
compiled loop, on nets, rows and batches that the search has trained. The time of such a net's steps
in the search is divided in proportion to the times of the stages.
"""

from __future__ import annotations

from collections import Counter
from contextlib import contextmanager
from time import perf_counter

import numpy as np
from numba import njit

from sktune.engine.compiled import kernels

STAGES = ("gathering batches", "forward", "loss", "backward", "optimizer")
# How long a stage is repeated. The fastest of five such series counts.
_SECONDS = 0.02


@njit(nogil=True)
def _repeat_gather(n, space, X, rows, padded):
    for _ in range(n):
        kernels.gather(space, X, rows, padded)


@njit(nogil=True)
def _repeat_forward(n, links, calls, numbers, flat, state, space, padded, n_rows):
    for i in range(n):
        kernels._forward(links, calls, numbers, flat, state, space, padded, n_rows, (0, 0, i))


@njit(nogil=True)
def _repeat_loss(n, flat, loss, loss_options, space, width, target, weight, rows, padded):
    for _ in range(n):
        kernels.call_loss(loss, (flat, loss_options, space, width, target, weight, rows, padded))


@njit(nogil=True)
def _repeat_backward(n, links, calls, numbers, flat, gradient, space, padded, n_rows):
    for _ in range(n):
        kernels._backward(links, calls, numbers, flat, gradient, space, padded, n_rows)


@njit(nogil=True)
def _repeat_update(n, rule, options, flat, gradient, first, second, third):
    for _ in range(n):
        kernels.call_update(rule, (flat, options, 1e-9, 1000, gradient, first, second, third))


class Recorder:
    """A replacement of ``kernels.train_steps`` that measures it and keeps some of its arguments.

    They are kept for the first net of each number of parameters and each batch size.
    """

    def __init__(self, train_steps):
        self.train_steps = train_steps
        self.seconds = Counter()
        self.calls = {}

    def __call__(self, *args):
        n_parameters = len(args[6])
        n_rows_of_batch = int(args[16][0])
        key = (n_parameters, n_rows_of_batch)
        if key not in self.calls:
            self.calls[key] = [arg.copy() if isinstance(arg, np.ndarray) else arg for arg in args]
        began = perf_counter()
        losses = self.train_steps(*args)
        self.seconds[key] += perf_counter() - began
        return losses

    def split(self):
        """Return the seconds of each stage in all calls."""
        found = Counter()
        for key, args in self.calls.items():
            own = dict(zip(STAGES, _time_stages(*args), strict=True))
            for stage, seconds in own.items():
                found[stage] += self.seconds[key] * seconds / sum(own.values())
        return found


@contextmanager
def recording():
    """Record the calls of compiled steps."""
    recorder = Recorder(kernels.train_steps)
    kernels.train_steps = recorder
    try:
        yield recorder
    finally:
        kernels.train_steps = recorder.train_steps


def _time_stages(
    links,
    calls,
    numbers,
    of_step,
    loss_options,
    options,
    flat,
    gradient,
    state,
    first,
    second,
    third,
    space,
    t,
    data,
    order,
    sizes,
    rates,
    place,
):
    """Yield the seconds of each stage of one step."""
    X, *outcomes = data
    loss, rule, *_ = of_step
    n_rows = int(sizes[0])
    rows = order[:n_rows]
    padded = int(kernels.padded(n_rows, flat))
    last_operation = links[links[:, kernels.OPCODE] >= kernels.FIRST_OPERATION][-1]
    width = int(last_operation[kernels.WIDTH])
    space = kernels.make_workspace(links, n_rows, flat.dtype, space.products)
    yield _time(_repeat_gather, space, X, rows, padded)
    yield _time(_repeat_forward, links, calls, numbers, flat, state, space, padded, n_rows)
    yield _time(_repeat_loss, flat, loss, loss_options, space, width, *outcomes, rows, padded)
    # The repeated loss has overwritten the gradient of the outputs.
    space.tables[-1] = 1e-3
    yield _time(_repeat_backward, links, calls, numbers, flat, gradient, space, padded, n_rows)
    yield _time(_repeat_update, rule, options, flat, gradient, first, second, third)


def _time(repeat, *args):
    repeat(1, *args)
    n = 1
    seconds = 0.0
    while seconds < _SECONDS:
        n *= 2
        began = perf_counter()
        repeat(n, *args)
        seconds = perf_counter() - began
    best = seconds
    for _ in range(4):
        began = perf_counter()
        repeat(n, *args)
        best = min(best, perf_counter() - began)
    return best / n
