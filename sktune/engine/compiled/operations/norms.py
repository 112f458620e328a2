"""Batch and layer normalisation of the compiled kernels."""

import math

from sktune.engine.compiled.opcodes import (
    BIAS,
    FLOW_A,
    IS_FIRST_BIAS,
    IS_FIRST_WEIGHT,
    N_INPUTS,
    N_POSITIONS,
    NOTHING,
    OPTION,
    OUT,
    POSITION,
    SLOT_A,
    WEIGHT,
    WRITTEN,
    A,
)
from sktune.engine.compiled.vectors.code import compiled
from sktune.engine.compiled.vectors.scalars import cast
from sktune.engine.compiled.vectors.sums import (
    add_products_of_distances,
    add_products_of_scaled_distances,
    add_squares_of_distances,
    add_up,
)


@compiled
def apply_batch_norm(link, options, flat, state, space, n, n_rows):
    """Normalize each channel over its places and the rows of the batch (Ioffe and Szegedy 2015).

    That is their algorithm 1. A channel of a table is a feature, with a single place. `options` are
    eps and the momentum, negative for an average over all steps.
    """
    one = cast(1.0, flat[0])
    n_places = link[N_POSITIONS]
    n_channels = link[N_INPUTS] // n_places
    count = n_places * n_rows
    momentum = cast(options[1], one)
    running = state[link[POSITION] :]
    if link[OPTION] == 1:
        running[2 * n_channels] += one
        if options[1] < 0:
            momentum = one / running[2 * n_channels]
    for channel in range(n_channels):
        start = channel * n_places * space.stride
        x = space.tables[link[A], start:]
        y = space.tables[link[OUT], start:]
        total = cast(0.0, one)
        for place in range(n_places):
            total += add_up((x[place * space.stride :],), (), n_rows)
        mean = total / cast(count, one)
        squares = cast(0.0, one)
        for place in range(n_places):
            column = x[place * space.stride :]
            squares += add_squares_of_distances((column,), (mean,), n_rows)
        inverse = one / math.sqrt(squares / cast(count, one) + cast(options[0], one))
        space.moments[link[OUT], 0, channel] = mean
        space.moments[link[OUT], 1, channel] = inverse
        factor = inverse if link[WEIGHT] < 0 else inverse * flat[link[WEIGHT] + channel]
        offset = cast(0.0, one) if link[BIAS] < 0 else flat[link[BIAS] + channel]
        for place in range(n_places):
            part = slice(place * space.stride, place * space.stride + n)
            _write_normalized(x[part], y[part], mean, factor, offset)
        if link[OPTION] == 1:
            variance = squares / cast(count - 1, one)
            running[channel] += momentum * (mean - running[channel])
            running[n_channels + channel] += momentum * (variance - running[n_channels + channel])


@compiled
def _write_normalized(x, y, mean, factor, offset):
    for i in range(len(x)):
        y[i] = (x[i] - mean) * factor + offset


@compiled
def trace_batch_norm(link, flat, gradient, space, above, n, n_rows):
    """Write the gradients of a batch normalisation."""
    one = cast(1.0, flat[0])
    n_places = link[N_POSITIONS]
    share = one / cast(n_places * n_rows, one)
    for channel in range(link[N_INPUTS] // n_places):
        start = channel * n_places * space.stride
        x = space.tables[link[A], start:]
        g = above[start:]
        mean = space.moments[link[OUT], 0, channel]
        inverse = space.moments[link[OUT], 1, channel]
        total = cast(0.0, one)
        product = cast(0.0, one)
        for place in range(n_places):
            column = slice(place * space.stride, place * space.stride + n)
            total += add_up((g[column],), (), n_rows)
            product += add_products_of_distances((g[column], x[column]), (mean,), n_rows)
        product *= inverse
        weight = _write_affine(link, flat, gradient, channel, product, total)
        if link[FLOW_A] != NOTHING:
            below = space.gradients[link[SLOT_A], start:]
            # dx = w / s (g - mean(g) - x^ mean(g x^)), where x^ = (x - m) / s
            numbers = (mean, weight * inverse, total * share, product * share * inverse)
            for place in range(n_places):
                part = slice(place * space.stride, place * space.stride + n)
                _trace_normalized(x[part], g[part], below[part], numbers, link[FLOW_A] == WRITTEN)


@compiled
def _trace_normalized(x, g, below, numbers, is_written):
    mean, factor, offset, slope = numbers
    if is_written:
        for i in range(len(x)):
            below[i] = factor * (g[i] - offset - (x[i] - mean) * slope)
    else:
        for i in range(len(x)):
            below[i] += factor * (g[i] - offset - (x[i] - mean) * slope)


@compiled
def _write_affine(link, flat, gradient, feature, product, total):
    """Write the gradients of a feature's weight and bias; return the weight."""
    zero = cast(0.0, flat[0])
    if link[BIAS] >= 0:
        position = link[BIAS] + feature
        gradient[position] = total + (zero if link[IS_FIRST_BIAS] else gradient[position])
    if link[WEIGHT] < 0:
        return cast(1.0, flat[0])
    position = link[WEIGHT] + feature
    gradient[position] = product + (zero if link[IS_FIRST_WEIGHT] else gradient[position])
    return flat[position]


@compiled
def apply_layer_norm(link, options, flat, space, n):
    """Normalize each row over its features (Ba et al. 2016, eq. 4)."""
    one = cast(1.0, flat[0])
    stride = space.stride
    width = link[N_INPUTS]
    share = one / cast(width, one)
    x = space.tables[link[A]]
    y = space.tables[link[OUT]]
    means = space.moments[link[OUT], 0, :n]
    inverses = space.moments[link[OUT], 1, :n]
    for i in range(n):
        means[i] = cast(0.0, one)
        inverses[i] = cast(0.0, one)
    for feature in range(width):
        column = x[feature * stride : feature * stride + n]
        for i in range(n):
            means[i] += column[i] * share
    for feature in range(width):
        column = x[feature * stride : feature * stride + n]
        for i in range(n):
            inverses[i] += (column[i] - means[i]) * (column[i] - means[i]) * share
    for i in range(n):
        inverses[i] = one / math.sqrt(inverses[i] + cast(options[0], one))
    for feature in range(width):
        column = x[feature * stride : feature * stride + n]
        target = y[feature * stride : feature * stride + n]
        factor = one if link[WEIGHT] < 0 else flat[link[WEIGHT] + feature]
        offset = cast(0.0, one) if link[BIAS] < 0 else flat[link[BIAS] + feature]
        for i in range(n):
            target[i] = (column[i] - means[i]) * inverses[i] * factor + offset


@compiled
def trace_layer_norm(link, flat, gradient, space, above, n, n_rows):
    """Write the gradients of a layer normalisation."""
    one = cast(1.0, flat[0])
    stride = space.stride
    width = link[N_INPUTS]
    share = one / cast(width, one)
    x = space.tables[link[A]]
    means = space.moments[link[OUT], 0, :n]
    inverses = space.moments[link[OUT], 1, :n]
    totals = space.sums[0, :n]
    products = space.sums[1, :n]
    for i in range(n):
        totals[i] = cast(0.0, one)
        products[i] = cast(0.0, one)
    for feature in range(width):
        part = slice(feature * stride, feature * stride + n)
        column = x[part]
        g = above[part]
        product = add_products_of_scaled_distances((g, column, means, inverses), (), n_rows)
        weight = _write_affine(link, flat, gradient, feature, product, add_up((g,), (), n_rows))
        for i in range(n):
            totals[i] += weight * g[i]
            products[i] += weight * g[i] * (column[i] - means[i]) * inverses[i]
    if link[FLOW_A] == NOTHING:
        return
    for i in range(n):
        totals[i] *= share
        products[i] *= share
    for feature in range(width):
        part = slice(feature * stride, feature * stride + n)
        column = x[part]
        g = above[part]
        below = space.gradients[link[SLOT_A], part]
        weight = one if link[WEIGHT] < 0 else flat[link[WEIGHT] + feature]
        # dx = 1 / s (w g - mean(w g) - x^ mean(w g x^)), where x^ = (x - m) / s
        if link[FLOW_A] == WRITTEN:
            for i in range(n):
                normal = (column[i] - means[i]) * inverses[i]
                below[i] = inverses[i] * (weight * g[i] - totals[i] - normal * products[i])
        else:
            for i in range(n):
                normal = (column[i] - means[i]) * inverses[i]
                below[i] += inverses[i] * (weight * g[i] - totals[i] - normal * products[i])
