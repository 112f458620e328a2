"""Exponential and logarithm of the compiled kernels, which the processor computes by vectors."""

import math

from sktune.engine.compiled.activations.polynomials import make_polynomial
from sktune.engine.compiled.vectors.code import compiled
from sktune.engine.compiled.vectors.scalars import cast, choose, multiply_add, split_off_whole

# The largest x, in float32 and in float64, for which exp(x) and exp(-x) are finite and normal.
_LARGEST_EXPONENTS = (80.0, 700.0)
# log(2) in two parts, of which the first has so few digits that its products are exact
# (Cody and Waite 1980).
_LOG_2_HIGH = 0.693359375
_LOG_2_LOW = -2.121944400546905827679e-4


def _list_exponential_terms(degree):
    """Return the coefficients of the Taylor series of (exp(x) - 1) / x, the highest first."""
    return [1 / math.factorial(k) for k in range(degree, 0, -1)]


def _list_logarithm_terms(n_terms):
    """Return the coefficients of 2 artanh(s) / s in powers of s**2, the highest first."""
    return [2 / (2 * k + 1) for k in range(n_terms - 1, -1, -1)]


# Enough terms for float32, and for float64: within half of log(2), and for s up to 1/3.
_exponential_series = make_polynomial(_list_exponential_terms(7), _list_exponential_terms(13))
_logarithm_series = make_polynomial(_list_logarithm_terms(8), _list_logarithm_terms(18))


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
    x = choose(x < -largest, -largest, x)
    x = choose(x > largest, largest, x)
    # x = n log(2) + remainder
    n, scale = split_off_whole(x * cast(1 / math.log(2), x))
    remainder = multiply_add(n, cast(-_LOG_2_HIGH, x), x)
    remainder = multiply_add(n, cast(-_LOG_2_LOW, x), remainder)
    return scale, remainder * _exponential_series(remainder)


@compiled
def logarithm_of_1_plus(x):
    """Return log(1 + x) for x between 0 and 1.

    It is 2 artanh(s) for s = x / (2 + x), which is at most 1/3: a series in powers of s**2.
    """
    s = x / (cast(2.0, x) + x)
    return s * _logarithm_series(s * s)
