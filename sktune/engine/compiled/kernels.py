"""Training steps of one small net, compiled by Numba: an epoch in a call, all its numbers in a core's cache.

Tables of a step lie feature by feature, ``(width, rows)``: vectors of the processor run over the rows, whatever the
width. They are padded to whole vectors, and the padding never reaches a parameter. Parameters, gradients and moments
are flat ``(P,)`` and lie as torch has them, each weight ``(H, F)``.
"""

import math
from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.polynomial import chebyshev
from scipy.special import erfcx

from sktune.engine.compiled.vectors import (
    BYTES,
    OPTIONS,
    cast,
    compiled,
    copy,
    multiply,
    power_of_2,
    transpose,
)
from sktune.runtime.seeds import DROPOUT

# Links of a chain, rules of optimizers, losses. A link is five integers: its kind, and of a linear layer inputs,
# outputs, and the places of weight and bias, negative where there is none; of dropout its number. It has two numbers:
# the limit and the scale of dropout, or what an activation is parametrized by.
LINEAR, DROPOUT_LAYER, RELU, LEAKY_RELU, ELU, GELU, TANH, SIGMOID, SILU = range(9)
SGD, ADAM = range(2)
CROSS_ENTROPY, SQUARED_ERROR = range(2)

_MOST = 80.0, 700.0  # whose exponentials are finite and normal, in float32 and float64
# The normal distribution's tail beyond x >= 0 over its density there, over t = 3 / (3 + x): a series in 2 t - 1.
_NODES = chebyshev.chebpts1(22)
_RATIOS = math.sqrt(math.pi / 2) * erfcx((6 / (_NODES + 1) - 3) / math.sqrt(2)) / ((_NODES + 1) / 2)
_MILLS = tuple(chebyshev.cheb2poly(chebyshev.chebfit(_NODES, _RATIOS, 21))[::-1].tolist())
_kept = njit(fastmath={"contract"}, cache=True, **OPTIONS)
_sum = njit(fastmath={"contract", "reassoc", "nsz"}, **OPTIONS)  # in any order


@compiled
def _exponential(x, most):
    """Return ``exp(x)`` as ``s + s * r``, of a power of 2 and a small number; x is clipped to ``[-most, most]``."""
    x = -most if x < -most else (most if x > most else x)
    n = np.floor(x * cast(1 / math.log(2), x) + cast(0.5, x))
    rest = (x - n * cast(0.693359375, x)) + n * cast(0.693359375 - math.log(2), x)
    series = cast(1.0, x)
    for k in range(13, 1, -1):
        series = cast(1.0, x) + rest * series * cast(1.0 / k, x)
    return power_of_2(n, x), rest * series


@compiled
def _mills_ratio(x):
    """Return the normal distribution's tail beyond x >= 0, divided by its density there."""
    t = cast(3.0, x) / (cast(3.0, x) + x)
    series = cast(0.0, x)
    for k in range(len(_MILLS)):
        series = series * (t + t - cast(1.0, x)) + cast(_MILLS[k], x)
    return t * series


@compiled
def _activate(kind, option, out, slope):
    """Apply an activation in place, and multiply `slope` by its derivative there."""
    zero, one, option = cast(0.0, out[0]), cast(1.0, out[0]), cast(option, out[0])
    most = cast(_MOST[out.itemsize // 8], zero)
    if kind in (RELU, LEAKY_RELU):
        for i in range(len(out)):
            is_low = out[i] <= 0
            slope[i] *= option if is_low else one
            out[i] = (zero if kind == RELU else option * out[i]) if is_low else out[i]
    elif kind == ELU:
        for i in range(len(out)):
            scale, rest = _exponential(out[i], most)
            low = option * ((scale - one) + scale * rest)
            slope[i] *= option * (scale + scale * rest) if out[i] <= 0 else one
            out[i] = low if out[i] <= 0 else out[i]
    elif kind == TANH:
        for i in range(len(out)):
            scale, rest = _exponential(out[i] + out[i], most)
            less = (scale - one) + scale * rest
            out[i] = less / (less + one + one)
            slope[i] *= one - out[i] * out[i]
    elif kind == GELU:
        for i in range(len(out)):
            scale, rest = _exponential(cast(-0.5, one) * out[i] * out[i], most)
            bell, x = (scale + scale * rest) * cast(math.sqrt(0.5 / math.pi), one), out[i]
            tail = bell * _mills_ratio(-x if x < 0 else x)
            share = tail if x < 0 else one - tail
            slope[i] *= share + x * bell
            out[i] = x * share
    else:
        for i in range(len(out)):
            scale, rest = _exponential(-out[i], most)
            share = one / (one + (scale + scale * rest))
            slope[i] *= (
                share * (one - share) if kind == SIGMOID else share * (one + out[i] * (one - share))
            )
            out[i] = share if kind == SIGMOID else share * out[i]


@compiled
def _mix(state, value):
    """Take an integer into a hash, as :func:`sktune.runtime.seeds.mix` does."""
    state = state + np.uint64(0x9E3779B97F4A7C15) + np.uint64(value)
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return state ^ (state >> np.uint64(31))


@compiled
def _mask_key(seed, epoch, batch, layer):
    """Return two words of 32 bits, as :func:`sktune.runtime.seeds.mask_key` does for the first call of a layer."""
    key = _mix(_mix(np.uint64(0), seed), DROPOUT)
    key = _mix(_mix(_mix(_mix(key, epoch), batch), layer), 0)
    return np.uint32(key & np.uint64(0xFFFFFFFF)), np.uint32(key >> np.uint64(32))


@compiled
def _drop(key, limit, scale, space, out, slope, width, n):
    """Silence numbers in a table (width, n) in place, and multiply `slope` alike.

    Number i of the transposed table takes half of the bits of counter i // 2.
    """
    zero, scale = cast(0.0, out[0]), cast(scale, out[0])
    bits = np.empty(n, np.uint32)
    low, high = np.uint32(0), np.uint32(16)
    for feature in range(width):
        here, there = out[feature * space.row :][:n], slope[feature * space.row :][:n]
        if width % 2 or feature % 2 == 0:
            for i in range(n):
                x = np.uint32(np.uint32(np.uint32(i * width + feature) >> np.uint32(1)) + key[0])
                x = np.uint32(x ^ (x >> np.uint32(16)))
                x = np.uint32(x * np.uint32(0x7FEB352D))
                x = np.uint32(x ^ (x >> np.uint32(15)))
                x = np.uint32((x ^ key[1]) * np.uint32(0x846CA68B))
                bits[i] = np.uint32(x ^ (x >> np.uint32(16)))
        if width % 2 == 0:
            shift = high if feature % 2 == 0 else low
            for i in range(n):
                factor = scale if np.int32(np.uint32(bits[i] << shift)) >= limit else zero
                here[i] *= factor
                there[i] *= factor
        else:
            for i in range(n):
                shift = np.uint32(np.uint32(i * width + feature + 1) & np.uint32(1)) << np.uint32(4)
                factor = (
                    scale if np.int32(np.uint32(bits[i] << np.uint32(shift))) >= limit else zero
                )
                here[i] *= factor
                there[i] *= factor


@_sum
def _scale_and_sum(numbers, factors):
    """Multiply numbers (n,) by factors in place; return their sum."""
    total = cast(0.0, numbers[0])
    for i in range(len(numbers)):
        numbers[i] *= factors[i]
        total += numbers[i]
    return total


@compiled
def _cross_entropy(outputs, row, n_classes, target, weight, rows, top, total):
    """Return the mean loss of rows whose targets are classes, and write the gradient over the outputs."""
    n, zero, mean = len(top), cast(0.0, top[0]), cast(1 / len(rows), top[0])
    most = cast(_MOST[top.itemsize // 8], zero)
    for i in range(n):
        top[i], total[i] = outputs[i], zero
    for c in range(1, n_classes):
        logits = outputs[c * row : c * row + n]
        for i in range(n):
            top[i] = top[i] if logits[i] <= top[i] else logits[i]
    loss = zero
    for i in range(len(rows)):
        loss += weight[rows[i]] * (top[i] - outputs[int(target[rows[i], 0]) * row + i])
    for c in range(n_classes):
        logits = outputs[c * row : c * row + n]
        for i in range(n):
            scale, rest = _exponential(logits[i] - top[i], most)
            logits[i] = scale + scale * rest
            total[i] += logits[i]
    for i in range(len(rows)):
        loss += weight[rows[i]] * cast(math.log(total[i]), zero)
        total[i] = weight[rows[i]] * mean / total[i]
    for c in range(n_classes):
        logits = outputs[c * row : c * row + n]
        for i in range(n):
            logits[i] *= total[i]
    for i in range(len(rows)):
        outputs[int(target[rows[i], 0]) * row + i] -= weight[rows[i]] * mean
    return loss * mean


@compiled
def _squared_error(outputs, row, target, weight, rows):
    """Return the mean loss of rows with these targets, and write the gradient over the outputs."""
    n_outputs = target.shape[1]
    loss, share = cast(0.0, outputs[0]), cast(1 / (len(rows) * n_outputs), outputs[0])
    for c in range(n_outputs):
        here = outputs[c * row : c * row + len(rows)]
        for i in range(len(rows)):
            error = here[i] - target[rows[i], c]
            loss += weight[rows[i]] * error * error
            here[i] = (error + error) * weight[rows[i]] * share
    return loss * share


@compiled
def _compute_loss(loss, space, width, target, weight, rows, n):
    """Return the mean loss of a batch, and write its gradient over the outputs."""
    if loss == CROSS_ENTROPY:
        sums = space.sums[0, :n], space.sums[1, :n]
        return _cross_entropy(space.tables[-1], space.row, width, target, weight, rows, *sums)
    return _squared_error(space.tables[-1], space.row, target, weight, rows)


class Space(NamedTuple):
    """What the steps of an epoch write to: tables of features by rows, `row` numbers from feature to feature."""

    row: int
    tables: np.ndarray  # (T, ...), the inputs and each linear layer's outputs
    slopes: np.ndarray  # (T, ...), derivatives of what follows on that layer
    gradients: np.ndarray  # (2, ...), of a layer's outputs, and of those before
    wide_row: int  # numbers from row to row of what lies row by row
    inputs: np.ndarray  # (rows, features), as they come
    wide: np.ndarray  # (rows, features), a table transposed
    product: np.ndarray  # (outputs, features), a weight's gradient
    zero: np.ndarray  # (1,)
    sums: np.ndarray  # (2, rows)


@compiled
def _padded(n, numbers):
    """Return n, filled up to whole vectors of numbers."""
    return -(-n // (BYTES // numbers.itemsize)) * (BYTES // numbers.itemsize)


@compiled
def _row_length(n, numbers):
    """Return an odd number of vectors: powers of 2 between rows would let them drive each other out of the cache."""
    n_vectors = _padded(n, numbers) * numbers.itemsize // BYTES
    return (n_vectors + 1 - n_vectors % 2) * BYTES // numbers.itemsize


@compiled
def _make_space(links, n_features, n_rows, like):
    n_tables, n_outputs = 1, 0
    for link in range(len(links)):
        if links[link, 0] == LINEAR:
            n_outputs, n_tables = max(n_outputs, links[link, 2]), n_tables + 1
    widest = max(n_features, n_outputs)
    row, wide_row, height = (
        _row_length(n_rows, like),
        _row_length(widest, like),
        _padded(widest, like),
    )
    n, zero, one = _padded(n_rows, like), cast(0.0, like[0]), cast(1.0, like[0])
    tables, slopes = np.full((n_tables, height * row), zero), np.full((n_tables, height * row), one)
    gradients, sums = np.full((2, height * row), zero), np.full((2, n), zero)
    inputs, wide = np.full(n * wide_row, zero), np.full(n * wide_row, zero)
    product = np.empty(n_outputs * wide_row, like.dtype)
    return Space(
        row, tables, slopes, gradients, wide_row, inputs, wide, product, np.full(1, zero), sums
    )


@compiled
def _gather(space, X, rows, n):
    """Take the rows of a batch; up to n, others may follow."""
    for i in range(len(rows)):
        copy(space.inputs[i * space.wide_row :], X[rows[i]], X.shape[1])
    transpose(space.inputs, space.wide_row, space.tables[0], space.row, n, _padded(X.shape[1], X))


@compiled
def _forward(links, numbers, flat, space, width, n, key):
    """Compute the outputs of n rows, and return how many; `key` are seed of the fit, epoch and batch."""
    row, table, first, n_links = space.row, 0, 0, len(links)
    while True:
        last = first
        while last < n_links and links[last, 0] != LINEAR:
            last += 1
        if last > first:
            _pass_between(links[first:last], numbers[first:last], space, table, width, n, key)
        if last == n_links:
            return width
        _, _, outputs, weight, bias = links[last]
        start, bias_row = (flat[bias:], 1) if bias >= 0 else (space.zero, 0)
        shape = (outputs, n, width)
        multiply(
            space.tables[table + 1],
            row,
            flat[weight:],
            width,
            1,
            space.tables[table],
            row,
            shape,
            start,
            bias_row,
        )
        table, first, width = table + 1, last + 1, outputs


@compiled
def _pass_between(links, numbers, space, table, width, n, key):
    """Apply what stands between two linear layers, and write its derivatives."""
    out, slope = space.tables[table, : width * space.row], space.slopes[table, : width * space.row]
    one = cast(1.0, out[0])
    for i in range(len(slope)):
        slope[i] = one
    for i in range(len(links)):
        if links[i, 0] == DROPOUT_LAYER:
            mask_key = _mask_key(key[0], key[1], key[2], links[i, 1])
            _drop(
                mask_key,
                np.int32(numbers[i, 0] * 65536),
                numbers[i, 1],
                space,
                out,
                slope,
                width,
                n,
            )
        else:
            _activate(links[i, 0], numbers[i, 0], out, slope)


@compiled
def _backward(links, flat, gradient, space, n, n_rows):
    """Write the gradients of all parameters, from that of the outputs, which has taken their place."""
    row, table, side = space.row, len(space.tables) - 1, 0
    above = space.tables[table]
    for link in range(len(links) - 1, -1, -1):
        kind, width, outputs, weight, bias = links[link]
        if kind != LINEAR:
            continue
        for feature in range(outputs):
            here = slice(feature * row, feature * row + n_rows)
            total = _scale_and_sum(above[here], space.slopes[table, here])
            if bias >= 0:
                gradient[bias + feature] = total
        table -= 1
        wide = space.inputs if link == 0 else space.wide
        if link:
            transpose(space.tables[table], row, wide, space.wide_row, _padded(width, flat), n)
        _multiply_exactly(gradient[weight:], above, row, wide, (outputs, width, n_rows), space)
        if table:
            below = space.gradients[side]
            multiply(
                below, row, flat[weight:], 1, width, above, row, (width, n, outputs), space.zero, 0
            )
            above, side = below, 1 - side


@compiled
def _multiply_exactly(gradient, above, row, wide, shape, space):
    """Write a weight's gradient (outputs, width), from that of a layer's outputs and its inputs, row by row."""
    outputs, width, _ = shape
    if _padded(width, gradient) == width:
        multiply(gradient, width, above, row, 1, wide, space.wide_row, shape, space.zero, 0)
        return
    multiply(
        space.product, space.wide_row, above, row, 1, wide, space.wide_row, shape, space.zero, 0
    )
    for i in range(outputs):
        copy(gradient[i * width :], space.product[i * space.wide_row :], width)


@_sum
def _penalize(links, flat, gradient, l1, l2):
    """Add the gradient of the penalties on all weights; return the penalties."""
    absolute, squares = cast(0.0, flat[0]), cast(0.0, flat[0])
    for link in range(len(links)):
        kind, width, outputs, weight, _ = links[link]
        if kind == LINEAR:
            w, g = (
                flat[weight : weight + outputs * width],
                gradient[weight : weight + outputs * width],
            )
            for i in range(len(w)):
                absolute += abs(w[i])
                squares += w[i] * w[i]
                g[i] += l1 * np.sign(w[i]) + (l2 + l2) * w[i]
    return (l1 * absolute if l1 > 0 else l1) + (l2 * squares if l2 > 0 else l2)


@compiled
def _update(rule, options, rate, t, p, g, first, second):
    """Take step t, from 1, of an optimizer, as :mod:`torch.optim` does.

    `options` are weight decay, whether it is decoupled from the gradient, and three numbers of the rule's.
    """
    zero, one, like = cast(0.0, p[0]), cast(1.0, p[0]), p[0]
    a, b, c = cast(options[2], like), cast(options[3], like), cast(options[4], like)
    fresh_a, fresh_b = cast(1 - options[2], like), cast(1 - options[3], like)
    keep = cast(1 - rate * options[0], like) if options[1] else one
    decay = zero if options[1] else cast(options[0], like)
    if rule == ADAM:
        step, root = (
            cast(rate / (1 - options[2] ** t), like),
            cast(1 / math.sqrt(1 - options[3] ** t), like),
        )
        for i in range(len(p)):
            x = g[i] + decay * p[i]
            mean, square = first[i] + (x - first[i]) * fresh_a, second[i] * b + x * x * fresh_b
            first[i], second[i] = mean, square
            p[i] = p[i] * keep - step * mean / (math.sqrt(square) * root + c)
    else:
        fresh, step = fresh_b if t > 1 and a != 0 else one, cast(rate, like)
        for i in range(len(p)):
            x = g[i] + decay * p[i]
            first[i] = first[i] * a + x * fresh
            p[i] -= step * (x + a * first[i] if c else first[i])


@_kept
def train_steps(
    links, numbers, loss, rule, options, flat, gradient, first, second, t, data, order, sizes, rates, place
):  # fmt: skip
    """Train a net by steps in place; return their losses, which end with the first that is not finite.

    `options` are the optimizer's, l1 and l2 behind them; `gradient` gets that of the last step; `first` and `second`
    are the state after `t` steps; `data` are X, target and weight; `order` are the rows that the batches of these
    `sizes` take; `place` are the seed of the fit, the epoch and the number of the first batch.
    """
    (X, target, weight), (seed, epoch, batch) = data, place
    n_features, losses, start = X.shape[1], np.empty(len(sizes)), 0
    space = _make_space(links, n_features, sizes.max(), flat)
    l1, l2 = cast(options[-2], flat[0]), cast(options[-1], flat[0])
    for step in range(len(sizes)):
        rows, n = order[start : start + sizes[step]], _padded(sizes[step], flat)
        start += sizes[step]
        _gather(space, X, rows, n)
        width = _forward(links, numbers, flat, space, n_features, n, (seed, epoch, batch + step))
        losses[step] = _compute_loss(loss, space, width, target, weight, rows, n)
        _backward(links, flat, gradient, space, n, len(rows))
        if l1 > 0 or l2 > 0:
            losses[step] += _penalize(links, flat, gradient, l1, l2)
        _update(rule, options, rates[step], t + step + 1, flat, gradient, first, second)
        if not math.isfinite(losses[step]):
            return losses[: step + 1]
    return losses
