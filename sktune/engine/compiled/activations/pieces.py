"""Activations that consist of pieces: lines for the most part, and none of them an exponential."""

from sktune.engine.compiled.vectors.code import compiled
from sktune.engine.compiled.vectors.scalars import as_computed, cast, choose


@compiled
def apply_relu(values, slope):
    """Put 0 where numbers are below 0."""
    zero = cast(0.0, values[0])
    one = cast(1.0, values[0])
    for i in range(len(values)):
        x = values[i]
        # NaN is not low: it must remain NaN.
        is_low = x <= zero
        values[i] = choose(is_low, zero, as_computed(x))
        slope[i] *= choose(is_low, zero, one)


@compiled
def apply_leaky_relu(negative_slope, values, slope):
    """Multiply the numbers below 0 by a slope."""
    zero = cast(0.0, values[0])
    one = cast(1.0, values[0])
    for i in range(len(values)):
        x = values[i]
        is_low = x <= zero
        values[i] = choose(is_low, negative_slope * x, as_computed(x))
        slope[i] *= choose(is_low, negative_slope, one)


@compiled
def keep_between(borders, outer, at_low, slope_at_borders, values, slope):
    """Keep the numbers between two borders, and replace the others.

    Parameters
    ----------
    borders : tuple of 2 float
        If the first is above the second, numbers between them are above the second.
    outer : tuple of 2 float
        What replaces the numbers below, and those above; their derivative is 0.
    at_low : float
        What replaces the lower border.
    slope_at_borders : float
        The derivative at both borders.
    values, slope : ndarray (n,)
    """
    zero = cast(0.0, values[0])
    one = cast(1.0, values[0])
    low, high = borders
    to_low, to_high = outer
    for i in range(len(values)):
        x = values[i]
        # NaN is neither of all these
        y = choose(x == low, at_low, x)
        y = choose(x < low, to_low, y)
        values[i] = choose(x > high, to_high, y)
        factor = choose(x == low, slope_at_borders, one)
        factor = choose(x == high, slope_at_borders, factor)
        factor = choose(x < low, zero, factor)
        slope[i] *= choose(x > high, zero, factor)


@compiled
def keep_beyond(borders, added, values, slope):
    """Move the numbers beyond two borders; the others become 0, and so does their derivative.

    Parameters
    ----------
    borders : tuple of 2 float
    added : tuple of 2 float
        What is added to the numbers below, and to those above.
    values, slope : ndarray (n,)
    """
    zero = cast(0.0, values[0])
    one = cast(1.0, values[0])
    low, high = borders
    to_low, to_high = added
    for i in range(len(values)):
        x = values[i]
        # NaN stays NaN
        y = choose(x != x, x, zero)
        y = choose(x < low, x + to_low, y)
        values[i] = choose(x > high, x + to_high, y)
        factor = choose(x != x, one, zero)
        factor = choose(x < low, one, factor)
        slope[i] *= choose(x > high, one, factor)


@compiled
def apply_softsign(values, slope):
    """Apply x / (1 + |x|)."""
    one = cast(1.0, values[0])
    for i in range(len(values)):
        factor = one / (one + abs(values[i]))
        slope[i] *= factor * factor
        values[i] *= factor
