"""Activations that consist of pieces: lines for the most part, and none of them an exponential."""

from sktune.engine.compiled.vectors import cast, compiled


@compiled
def apply_relu(values, slope):
    """Put 0 where numbers are below 0."""
    zero = cast(0.0, values[0])
    one = cast(1.0, values[0])
    for i in range(len(values)):
        # NaN is not low: it must remain NaN.
        is_low = values[i] <= 0
        slope[i] *= zero if is_low else one
        values[i] = zero if is_low else values[i]


@compiled
def apply_leaky_relu(negative_slope, values, slope):
    """Multiply the numbers below 0 by a slope."""
    one = cast(1.0, values[0])
    for i in range(len(values)):
        is_low = values[i] <= 0
        slope[i] *= negative_slope if is_low else one
        values[i] = negative_slope * values[i] if is_low else values[i]


@compiled
def apply_pieces(borders, is_inclusive, keeps_middle, added, values, slope):
    """Keep the numbers between two borders, or those beyond them, and move the outer ones.

    The others become 0, and so does their derivative.

    Parameters
    ----------
    borders : tuple of 2 float
    is_inclusive : bool
        Whether the borders belong to the outer pieces.
    keeps_middle : bool
        Whether the numbers between the borders stay, and not those beyond.
    added : tuple of 2 float
        What is then added to the numbers below, and to those above.
    values, slope : ndarray (n,)
    """
    zero = cast(0.0, values[0])
    one = cast(1.0, values[0])
    low, high = borders
    to_low, to_high = added
    for i in range(len(values)):
        x = values[i]
        is_low = x < low or (is_inclusive and x == low)
        is_high = x > high or (is_inclusive and x == high)
        # NaN stays NaN
        is_kept = (is_low or is_high) != keeps_middle or x != x
        slope[i] *= one if is_kept else zero
        outer = to_low if is_low else zero
        values[i] = (x if is_kept else zero) + (to_high if is_high else outer)


@compiled
def apply_softsign(values, slope):
    """Apply x / (1 + |x|)."""
    one = cast(1.0, values[0])
    for i in range(len(values)):
        factor = one / (one + (-values[i] if values[i] < 0 else values[i]))
        slope[i] *= factor * factor
        values[i] *= factor
