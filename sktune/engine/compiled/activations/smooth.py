"""Activations that bend: those that are made of exponentials."""

import math

from numpy.polynomial import chebyshev
from scipy.special import erfcx

from sktune.engine.compiled.activations.exponentials import (
    exponential,
    find_largest_exponent,
    logarithm_of_1_plus,
)
from sktune.engine.compiled.vectors import cast, compiled

# Mills' ratio of the normal distribution, its tail beyond x >= 0 divided by its density at x, as a
# Chebyshev series in 2 t - 1, where t = 3 / (3 + x).
_NODES = chebyshev.chebpts1(22)
_T = (_NODES + 1) / 2
_RATIOS = math.sqrt(math.pi / 2) * erfcx((3 / _T - 3) / math.sqrt(2)) / _T
# Coefficients of powers of 2 t - 1, the highest first.
_MILLS = tuple(chebyshev.cheb2poly(chebyshev.chebfit(_NODES, _RATIOS, 21))[::-1].tolist())


@compiled
def _mills_ratio(x):
    """Return the normal distribution's tail beyond x >= 0, divided by its density at x."""
    t = cast(3.0, x) / (cast(3.0, x) + x)
    series = cast(0.0, x)
    for k in range(len(_MILLS)):
        series = series * (t + t - cast(1.0, x)) + cast(_MILLS[k], x)
    return t * series


@compiled
def apply_elu(alpha, values, slope):
    """Apply alpha (exp(x) - 1) to the numbers below 0."""
    one = cast(1.0, values[0])
    largest = find_largest_exponent(values)
    for i in range(len(values)):
        is_low = values[i] <= 0
        scale, rest = exponential(values[i], largest)
        # exp(x) - 1
        low = alpha * ((scale - one) + scale * rest)
        slope[i] *= alpha * (scale + scale * rest) if is_low else one
        values[i] = low if is_low else values[i]


@compiled
def apply_tanh(values, slope):
    """Apply the hyperbolic tangent."""
    one = cast(1.0, values[0])
    largest = find_largest_exponent(values)
    for i in range(len(values)):
        # tanh(x) = (exp(2 x) - 1) / (exp(2 x) + 1)
        scale, rest = exponential(values[i] + values[i], largest)
        numerator = (scale - one) + scale * rest
        values[i] = numerator / (numerator + one + one)
        slope[i] *= one - values[i] * values[i]


@compiled
def apply_gelu(values, slope):
    """Apply x times the normal distribution's function (Hendrycks and Gimpel 2016)."""
    one = cast(1.0, values[0])
    largest = find_largest_exponent(values)
    for i in range(len(values)):
        x = values[i]
        # The normal distribution's density at x, its tail beyond abs(x), and its cumulative
        # distribution function at x.
        scale, rest = exponential(cast(-0.5, one) * x * x, largest)
        density = (scale + scale * rest) * cast(math.sqrt(0.5 / math.pi), one)
        tail = density * _mills_ratio(-x if x < 0 else x)
        cumulative = tail if x < 0 else one - tail
        slope[i] *= cumulative + x * density
        values[i] = x * cumulative


@compiled
def apply_sigmoid(values, slope):
    """Apply 1 / (1 + exp(-x))."""
    one = cast(1.0, values[0])
    largest = find_largest_exponent(values)
    for i in range(len(values)):
        scale, rest = exponential(-values[i], largest)
        sigmoid = one / (one + (scale + scale * rest))
        slope[i] *= sigmoid * (one - sigmoid)
        values[i] = sigmoid


@compiled
def apply_silu(values, slope):
    """Apply x / (1 + exp(-x))."""
    one = cast(1.0, values[0])
    largest = find_largest_exponent(values)
    for i in range(len(values)):
        x = values[i]
        scale, rest = exponential(-x, largest)
        sigmoid = one / (one + (scale + scale * rest))
        slope[i] *= sigmoid * (one + x * (one - sigmoid))
        values[i] = sigmoid * x


@compiled
def apply_mish(values, slope):
    """Apply x tanh(log(1 + exp(x))) (Misra 2019)."""
    one = cast(1.0, values[0])
    two = cast(2.0, one)
    largest = find_largest_exponent(values)
    for i in range(len(values)):
        x = values[i]
        scale, rest = exponential(-x if x > 0 else x, largest)
        # exp(-|x|)
        small = scale + scale * rest
        # tanh(log(1 + exp(x))) = n / (n + 2) for n = exp(x) (exp(x) + 2), without large numbers
        top = one + two * small if x > 0 else small * (small + two)
        bottom = top + (two * small * small if x > 0 else two)
        tanh = top / bottom
        sigmoid = (one if x > 0 else small) / (one + small)
        slope[i] *= tanh + x * (one - tanh * tanh) * sigmoid
        values[i] = x * tanh


@compiled
def apply_softplus(beta, threshold, values, slope):
    """Apply log(1 + exp(beta x)) / beta; x where beta x is above a threshold."""
    one = cast(1.0, values[0])
    zero = cast(0.0, one)
    largest = find_largest_exponent(values)
    for i in range(len(values)):
        x = beta * values[i]
        scale, rest = exponential(-x if x > 0 else x, largest)
        # exp(-|x|)
        small = scale + scale * rest
        sigmoid = (small if x < 0 else one) / (one + small)
        total = (zero if x < 0 else x) + logarithm_of_1_plus(small)
        is_high = x > threshold
        slope[i] *= one if is_high else sigmoid
        values[i] = values[i] if is_high else total / beta
