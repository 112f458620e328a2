"""Activations that bend: those that are made of exponentials."""

import math

from numpy.polynomial import chebyshev
from scipy.special import erfcx

from sktune.engine.compiled.activations.exponentials import (
    exponential,
    find_largest_exponent,
    logarithm_of_1_plus,
)
from sktune.engine.compiled.activations.polynomials import make_polynomial
from sktune.engine.compiled.vectors.code import compiled
from sktune.engine.compiled.vectors.scalars import as_computed, cast, choose, multiply_add


def _fit_mills_ratio(degree):
    """Return the coefficients of a series of Mills' ratio of the normal distribution.

    The ratio is the tail beyond x >= 0 divided by the density at x; the series, of the ratio over
    t = 3 / (3 + x), is in powers of 2 t - 1, the highest first.
    """
    nodes = chebyshev.chebpts1(degree + 1)
    t = (nodes + 1) / 2
    ratios = math.sqrt(math.pi / 2) * erfcx((3 / t - 3) / math.sqrt(2)) / t
    return chebyshev.cheb2poly(chebyshev.chebfit(nodes, ratios, degree))[::-1].tolist()


# Enough terms for float32, and for float64.
_mills_series = make_polynomial(_fit_mills_ratio(11), _fit_mills_ratio(21))


@compiled
def _mills_ratio(x):
    """Return the normal distribution's tail beyond x >= 0, divided by its density at x."""
    t = cast(3.0, x) / (cast(3.0, x) + x)
    return t * _mills_series(t + t - cast(1.0, x))


@compiled
def apply_elu(alpha, values, slope):
    """Apply alpha (exp(x) - 1) to the numbers below 0."""
    one = cast(1.0, values[0])
    zero = cast(0.0, one)
    largest = find_largest_exponent(values)
    for i in range(len(values)):
        x = values[i]
        is_low = x <= zero
        scale, rest = exponential(x, largest)
        # exp(x) - 1
        low = alpha * multiply_add(scale, rest, scale - one)
        slope[i] *= choose(is_low, alpha * multiply_add(scale, rest, scale), one)
        values[i] = choose(is_low, low, as_computed(x))


@compiled
def apply_tanh(values, slope):
    """Apply the hyperbolic tangent."""
    one = cast(1.0, values[0])
    largest = find_largest_exponent(values)
    for i in range(len(values)):
        # tanh(x) = (exp(2 x) - 1) / (exp(2 x) + 1)
        scale, rest = exponential(values[i] + values[i], largest)
        numerator = multiply_add(scale, rest, scale - one)
        tanh = numerator / (numerator + one + one)
        slope[i] *= multiply_add(-tanh, tanh, one)
        values[i] = tanh


@compiled
def apply_gelu(values, slope):
    """Apply x times the normal distribution's function (Hendrycks and Gimpel 2016)."""
    one = cast(1.0, values[0])
    zero = cast(0.0, one)
    largest = find_largest_exponent(values)
    for i in range(len(values)):
        x = values[i]
        # The normal distribution's density at x, its tail beyond abs(x), and its cumulative
        # distribution function at x.
        scale, rest = exponential(cast(-0.5, one) * x * x, largest)
        density = multiply_add(scale, rest, scale) * cast(math.sqrt(0.5 / math.pi), one)
        tail = density * _mills_ratio(abs(x))
        cumulative = choose(x < zero, tail, one - tail)
        slope[i] *= multiply_add(x, density, cumulative)
        values[i] = x * cumulative


@compiled
def apply_sigmoid(values, slope):
    """Apply 1 / (1 + exp(-x))."""
    one = cast(1.0, values[0])
    largest = find_largest_exponent(values)
    for i in range(len(values)):
        scale, rest = exponential(-values[i], largest)
        sigmoid = one / (one + multiply_add(scale, rest, scale))
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
        sigmoid = one / (one + multiply_add(scale, rest, scale))
        slope[i] *= sigmoid * multiply_add(x, one - sigmoid, one)
        values[i] = sigmoid * x


@compiled
def apply_mish(values, slope):
    """Apply x tanh(log(1 + exp(x))) (Misra 2019)."""
    one = cast(1.0, values[0])
    zero = cast(0.0, one)
    two = cast(2.0, one)
    largest = find_largest_exponent(values)
    for i in range(len(values)):
        x = values[i]
        scale, rest = exponential(-abs(x), largest)
        # exp(-|x|)
        small = multiply_add(scale, rest, scale)
        # tanh(log(1 + exp(x))) = n / (n + 2) for n = exp(x) (exp(x) + 2), without large numbers
        top = choose(x > zero, multiply_add(two, small, one), small * (small + two))
        bottom = top + choose(x > zero, two * small * small, two)
        tanh = top / bottom
        sigmoid = choose(x > zero, one, small) / (one + small)
        slope[i] *= multiply_add(x * multiply_add(-tanh, tanh, one), sigmoid, tanh)
        values[i] = x * tanh


@compiled
def apply_softplus(beta, threshold, values, slope):
    """Apply log(1 + exp(beta x)) / beta; x where beta x is above a threshold."""
    one = cast(1.0, values[0])
    zero = cast(0.0, one)
    largest = find_largest_exponent(values)
    for i in range(len(values)):
        y = values[i]
        x = beta * y
        scale, rest = exponential(-abs(x), largest)
        # exp(-|x|)
        small = multiply_add(scale, rest, scale)
        sigmoid = choose(x < zero, small, one) / (one + small)
        total = choose(x < zero, zero, x) + logarithm_of_1_plus(small)
        is_high = x > threshold
        slope[i] *= choose(is_high, one, sigmoid)
        values[i] = choose(is_high, as_computed(y), total / beta)
