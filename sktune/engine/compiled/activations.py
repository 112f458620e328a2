"""Activations of the compiled kernels, each with its derivative.

Each function works in place on a table of any layout: it replaces the `values` by the outputs of
the activation, and multiplies `slope` by the derivatives. Padding is computed along with the rest.
"""

import math

import numpy as np
from numpy.polynomial import chebyshev
from scipy.special import erfcx

from sktune.engine.compiled.opcodes import ELU, GELU, LEAKY_RELU, RELU, SIGMOID, SILU, TANH
from sktune.engine.compiled.vectors import cast, compiled, inlined, power_of_2

# The largest x, in float32 and in float64, for which exp(x) and exp(-x) are finite and normal.
_LARGEST_EXPONENTS = (80.0, 700.0)
# The degree of the Taylor series of exp: enough for float64 within half of log(2).
_DEGREE = 13
# log(2) in two parts, of which the first has so few digits that its products are exact
# (Cody and Waite 1980).
_LOG_2_HIGH = 0.693359375
_LOG_2_LOW = math.log(2) - _LOG_2_HIGH

# Mills' ratio of the normal distribution, its tail beyond x >= 0 divided by its density at x, as a
# Chebyshev series in 2 t - 1, where t = 3 / (3 + x).
_NODES = chebyshev.chebpts1(22)
_T = (_NODES + 1) / 2
_RATIOS = math.sqrt(math.pi / 2) * erfcx((3 / _T - 3) / math.sqrt(2)) / _T
# Coefficients of powers of 2 t - 1, the highest first.
_MILLS = tuple(chebyshev.cheb2poly(chebyshev.chebfit(_NODES, _RATIOS, 21))[::-1].tolist())


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
def _mills_ratio(x):
    """Return the normal distribution's tail beyond x >= 0, divided by its density at x."""
    t = cast(3.0, x) / (cast(3.0, x) + x)
    series = cast(0.0, x)
    for k in range(len(_MILLS)):
        series = series * (t + t - cast(1.0, x)) + cast(_MILLS[k], x)
    return t * series


@compiled
def _apply_relu(values, slope):
    zero = cast(0.0, values[0])
    one = cast(1.0, values[0])
    for i in range(len(values)):
        # NaN is not low: it must remain NaN.
        is_low = values[i] <= 0
        slope[i] *= zero if is_low else one
        values[i] = zero if is_low else values[i]


@compiled
def _apply_leaky_relu(negative_slope, values, slope):
    one = cast(1.0, values[0])
    for i in range(len(values)):
        is_low = values[i] <= 0
        slope[i] *= negative_slope if is_low else one
        values[i] = negative_slope * values[i] if is_low else values[i]


@compiled
def _apply_elu(alpha, values, slope):
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
def _apply_tanh(values, slope):
    one = cast(1.0, values[0])
    largest = find_largest_exponent(values)
    for i in range(len(values)):
        # tanh(x) = (exp(2 x) - 1) / (exp(2 x) + 1)
        scale, rest = exponential(values[i] + values[i], largest)
        numerator = (scale - one) + scale * rest
        values[i] = numerator / (numerator + one + one)
        slope[i] *= one - values[i] * values[i]


@compiled
def _apply_gelu(values, slope):
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
def _apply_sigmoid(values, slope):
    one = cast(1.0, values[0])
    largest = find_largest_exponent(values)
    for i in range(len(values)):
        scale, rest = exponential(-values[i], largest)
        sigmoid = one / (one + (scale + scale * rest))
        slope[i] *= sigmoid * (one - sigmoid)
        values[i] = sigmoid


@compiled
def _apply_silu(values, slope):
    one = cast(1.0, values[0])
    largest = find_largest_exponent(values)
    for i in range(len(values)):
        x = values[i]
        scale, rest = exponential(-x, largest)
        sigmoid = one / (one + (scale + scale * rest))
        slope[i] *= sigmoid * (one + x * (one - sigmoid))
        values[i] = sigmoid * x


@inlined
def activate(opcode, option, values, slope):
    """Apply an activation in place, and multiply `slope` by its derivatives.

    Parameters
    ----------
    opcode : int
    option : float
        What parametrizes the activation: the slope of a leaky ReLU, or alpha of an ELU.
    values, slope : ndarray (n,)
    """
    option = cast(option, values[0])
    if opcode == RELU:
        _apply_relu(values, slope)
    elif opcode == LEAKY_RELU:
        _apply_leaky_relu(option, values, slope)
    elif opcode == ELU:
        _apply_elu(option, values, slope)
    elif opcode == GELU:
        _apply_gelu(values, slope)
    elif opcode == TANH:
        _apply_tanh(values, slope)
    elif opcode == SIGMOID:
        _apply_sigmoid(values, slope)
    elif opcode == SILU:
        _apply_silu(values, slope)
    else:
        raise ValueError("a layer's opcode must be one of sktune.engine.compiled.opcodes")
