"""Exponential and logarithm of the compiled kernels, which the processor computes by vectors."""

import math

import numpy as np

from sktune.engine.compiled.vectors import cast, compiled, power_of_2

# The largest x, in float32 and in float64, for which exp(x) and exp(-x) are finite and normal.
_LARGEST_EXPONENTS = (80.0, 700.0)
# The degree of the Taylor series of exp: enough for float64 within half of log(2).
_DEGREE = 13
# log(2) in two parts, of which the first has so few digits that its products are exact
# (Cody and Waite 1980).
_LOG_2_HIGH = 0.693359375
_LOG_2_LOW = math.log(2) - _LOG_2_HIGH
# The terms of the series of the logarithm: enough for float64.
_N_TERMS = 18


@compiled
def find_largest_exponent(values):
    """Return the largest x for which `exponential` is exact, in the type of an array."""
    return cast(_LARGEST_EXPONENTS[values.itemsize // 8], values[0])


@compiled
def exponential(x, largest):
    """Return exp(x) as two numbers, `scale` and `rest`: it is ``scale + rest * scale``.

    `scale` is a power of 2. x is clipped to ``[-largest, largest]``. That the two parts come apart
    lets a caller subtract 1 without cancellation.
    """
    if x < -largest:
        x = -largest
    elif x > largest:
        x = largest
    # x = n log(2) + remainder
    n = np.floor(x * cast(1 / math.log(2), x) + cast(0.5, x))
    remainder = (x - n * cast(_LOG_2_HIGH, x)) - n * cast(_LOG_2_LOW, x)
    # Horner's scheme; the last factor follows in the return value.
    series = cast(1.0, x)
    for k in range(_DEGREE, 1, -1):
        series = cast(1.0, x) + remainder * series * cast(1.0 / k, x)
    return power_of_2(n, x), remainder * series


@compiled
def logarithm_of_1_plus(x):
    """Return log(1 + x) for x between 0 and 1.

    It is 2 artanh(s) for s = x / (2 + x), which is at most 1/3: a series in powers of s**2.
    """
    s = x / (cast(2.0, x) + x)
    square = s * s
    series = cast(0.0, x)
    for k in range(_N_TERMS - 1, -1, -1):
        series = series * square + cast(2.0 / (2 * k + 1), x)
    return s * series
