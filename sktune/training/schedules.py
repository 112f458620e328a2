"""Learning-rate schedules: factors on ``lr`` as pure functions of the progress.

A schedule is a function ``f(t, max_epochs, **params)``. It takes the time ``t`` in epochs since the
call of ``fit`` or ``partial_fit`` began (a float or an array: it grows by ``1 / n_batches`` with
each step) and the number of epochs planned, and returns the factor by which the learning rate is
multiplied. It has no state, so a resumed or a fused fit gets the same values. A call that goes on
from earlier weights starts its schedule anew.

Fits that differ in `max_epochs` only are one training if their schedule does not look at the number
of epochs: see :func:`looks_at_max_epochs`.
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
    """Return half a cosine from 1 to `final` (Loshchilov and Hutter 2017, eq. 5, one cycle)."""
    return final + (1 - final) * (1 + np.cos(np.pi * t / max_epochs)) / 2


def one_cycle(t, max_epochs, pct_start=0.3, div_factor=25.0, final_div_factor=1e4):
    """Return a rise from ``1 / div_factor`` to 1, then a fall (Smith 2018).

    The rise takes the share `pct_start` of the fit. Both are half cosines; the fall ends at
    ``1 / (div_factor * final_div_factor)``, as in torch.
    """
    progress = t / max_epochs
    first = 1 / div_factor
    last = 1 / (div_factor * final_div_factor)
    rise = first + (1 - first) * (1 - np.cos(np.pi * progress / pct_start)) / 2
    fall = last + (1 - last) * (1 + np.cos(np.pi * (progress - pct_start) / (1 - pct_start))) / 2
    return np.where(progress < pct_start, rise, fall)


SCHEDULES = {f.__name__: f for f in (constant, step, exponential, time, cosine, one_cycle)}
# They give the same factors whatever number of epochs is planned.
_OF_TIME_ALONE = {"constant", "step", "exponential", "time"}

# What must hold for a value, and how an error says it.
_POSITIVE = (lambda v: 0 < v < math.inf, "a positive number")
_NOT_NEGATIVE = (lambda v: 0 <= v < math.inf, "a non-negative number")
_SHARE = (lambda v: 0 < v < 1, "between 0 and 1")
# Where a parameter is not listed, it must not be negative.
_BOUNDS = {
    "step_size": _POSITIVE,
    "gamma": _POSITIVE,
    "div_factor": _POSITIVE,
    "final_div_factor": _POSITIVE,
    "pct_start": _SHARE,
}
# The factor at the beginning of a warmup: above 0, so that the first step moves the weights.
_WARMUP_START = 0.01


def lr_factors(schedule, t, max_epochs, warmup=0.0, **params):
    """Return the factors on the learning rate at some times.

    Parameters
    ----------
    schedule : str or callable
        A name among ``SCHEDULES``, or a function ``f(t, max_epochs, **params)`` of an array of
        times.
    t : array-like of float
        Times in epochs since the fit began. The value at `max_epochs` holds beyond it.
    max_epochs : int
        The number of epochs planned.
    warmup : float, default=0.0
        Over so many epochs, the factor is raised linearly from 1 % to its full value.
    **params
        Parameters of the schedule.

    Returns
    -------
    factors : ndarray
        Of the shape of `t`.

    Raises
    ------
    ValueError
        If a name is not known, or a parameter of a named schedule is out of its range.

    Examples
    --------
    >>> lr_factors("step", [0, 4, 5, 10], max_epochs=20, step_size=5, gamma=0.5)
    array([1.  , 1.  , 0.5 , 0.25])
    >>> lr_factors("cosine", [0.0, 2.0, 4.0], max_epochs=4, warmup=2).round(3)
    array([0.01, 0.5 , 0.  ])
    """
    if callable(schedule):
        compute = schedule
    else:
        _check_schedule(schedule, {"warmup": warmup, **params})
        compute = SCHEDULES[schedule]
    times = np.minimum(np.asarray(t, dtype=float), max_epochs)
    factors = np.broadcast_to(compute(times, max_epochs, **params), times.shape)
    if warmup > 0:
        raised = _WARMUP_START + (1 - _WARMUP_START) * times / warmup
        factors = factors * np.minimum(1.0, raised)
    return factors


def looks_at_max_epochs(schedule):
    """Tell whether the factors of a schedule depend on the number of epochs planned.

    A function of the user's does, unless it says otherwise by an attribute
    ``looks_at_max_epochs = False``.

    Parameters
    ----------
    schedule : str or callable

    Examples
    --------
    >>> looks_at_max_epochs("exponential"), looks_at_max_epochs("cosine")
    (False, True)
    """
    if callable(schedule):
        return bool(getattr(schedule, "looks_at_max_epochs", True))
    return schedule not in _OF_TIME_ALONE


def _check_schedule(schedule, params):
    """Check the name of a schedule, and the names and values of its parameters."""
    check_name("lr_schedule", schedule, SCHEDULES)
    # After the time and the number of epochs.
    own_names = list(inspect.signature(SCHEDULES[schedule]).parameters)[2:]
    for name, value in params.items():
        check_name(f"a parameter of lr_schedule={schedule!r}", name, [*own_names, "warmup"])
        is_in_bounds, requirement = _BOUNDS.get(name, _NOT_NEGATIVE)
        if not isinstance(value, Real) or not is_in_bounds(value):
            raise ValueError(
                f"lr_schedule__{name} must be {requirement}, got lr_schedule__{name}={value!r}"
            )
