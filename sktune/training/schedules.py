"""Learning-rate schedules: factors on ``lr`` as pure functions of the progress.

A schedule takes the time ``t`` in epochs since the call of ``fit`` or ``partial_fit`` began (a float
or an array: it grows by ``1 / n_batches`` with each step) and the number of epochs planned, and
returns the factor by which the learning rate is multiplied. It has no state, so a resumed or a fused
fit meets the same values. A call that goes on from earlier weights starts its schedule anew.
"""

import inspect
import math
from numbers import Real

import numpy as np

from sktune.runtime.names import check_name


def constant(t, max_epochs):
    """Return 1."""
    return np.ones_like(t)


def step(t, max_epochs, step_size=10, gamma=0.1):
    """Return ``gamma ** floor(t / step_size)``; `step_size` in epochs."""
    return gamma ** np.floor(t / step_size)


def exponential(t, max_epochs, gamma=0.95):
    """Return ``gamma ** t``."""
    return gamma**t


def time(t, max_epochs, k=0.1):
    """Return ``1 / (1 + k t)``; `k` per epoch."""
    return 1 / (1 + k * t)


def cosine(t, max_epochs, final=0.0):
    """Return half a cosine from 1 down to `final` (Loshchilov and Hutter 2017, eq. 5, one cycle)."""
    return final + (1 - final) * (1 + np.cos(np.pi * t / max_epochs)) / 2


def one_cycle(t, max_epochs, pct_start=0.3, div_factor=25.0, final_div_factor=1e4):
    """Return a rise from ``1 / div_factor`` to 1 over `pct_start` of the fit, then a fall (Smith 2018).

    Both are half cosines; the fall ends at ``1 / (div_factor * final_div_factor)``, as in torch.
    """
    progress = t / max_epochs
    first, last = 1 / div_factor, 1 / (div_factor * final_div_factor)
    rise = first + (1 - first) * (1 - np.cos(np.pi * progress / pct_start)) / 2
    fall = last + (1 - last) * (1 + np.cos(np.pi * (progress - pct_start) / (1 - pct_start))) / 2
    return np.where(progress < pct_start, rise, fall)


SCHEDULES = {f.__name__: f for f in (constant, step, exponential, time, cosine, one_cycle)}

_POSITIVE = (lambda v: 0 < v < math.inf, "a positive number")
_NOT_NEGATIVE = (lambda v: 0 <= v < math.inf, "a non-negative number")
_BOUNDS = dict.fromkeys(["step_size", "gamma", "div_factor", "final_div_factor"], _POSITIVE)
_BOUNDS["pct_start"] = (lambda v: 0 < v < 1, "between 0 and 1")
_WARMUP_START = 0.01  # the first step must move the weights, too


def lr_factors(schedule, t, max_epochs, warmup=0.0, **params):
    """Return the factors on the learning rate at the times `t`, an array shaped like it.

    `schedule` is a name among ``SCHEDULES``, or a function ``f(t, max_epochs, **params)`` of an array of times. These
    are epochs since the fit began; beyond `max_epochs` the last value holds. Over `warmup` epochs the factor is raised
    linearly from 1 % to its full value.

    Examples
    --------
    >>> lr_factors("step", [0, 4, 5, 10], max_epochs=20, step_size=5, gamma=0.5)
    array([1.  , 1.  , 0.5 , 0.25])
    >>> lr_factors("cosine", [0.0, 2.0, 4.0], max_epochs=4, warmup=2).round(3)
    array([0.01, 0.5 , 0.  ])
    """
    if not callable(schedule):
        check_name("lr_schedule", schedule, SCHEDULES)
        known = [*inspect.signature(SCHEDULES[schedule]).parameters][2:] + ["warmup"]
        for name, value in {"warmup": warmup, **params}.items():
            check_name(f"a parameter of lr_schedule={schedule!r}", name, known)
            holds, bound = _BOUNDS.get(name, _NOT_NEGATIVE)
            if not isinstance(value, Real) or not holds(value):
                raise ValueError(
                    f"lr_schedule__{name} must be {bound}, got lr_schedule__{name}={value!r}"
                )
        schedule = SCHEDULES[schedule]
    t = np.minimum(np.asarray(t, dtype=float), max_epochs)
    factors = np.broadcast_to(schedule(t, max_epochs, **params), t.shape)
    if warmup > 0:
        factors = factors * np.minimum(1.0, _WARMUP_START + (1 - _WARMUP_START) * t / warmup)
    return factors
