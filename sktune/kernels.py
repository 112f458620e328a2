"""Training steps of one small net, compiled by Numba: an epoch in a call, all its numbers in a core's cache.

Tables of a step lie feature by feature, ``(width, rows)``: vectors of the processor run over the rows, whatever the
width. They are padded to whole vectors, and the padding never reaches a parameter. Parameters, gradients and moments
are flat ``(P,)`` and lie as torch has them, each weight ``(H, F)``.
"""

import math
from typing import NamedTuple

import numpy as np
from llvmlite import binding, ir
from numba import njit, types
from numba.extending import intrinsic

from sktune.randomness import DROPOUT

# Links of a chain, rules of optimizers, losses. A link is three integers: its kind, and of a linear layer the places
# of weight and bias, the latter negative where there is none; of dropout its number. Two numbers belong to it.
LINEAR, DROPOUT_LAYER, RELU, LEAKY_RELU, ELU, SILU, TANH, SIGMOID = range(8)
SGD, ADAM, RMSPROP, ADAGRAD = range(4)
CROSS_ENTROPY, SQUARED_ERROR = range(2)

_BYTES = 64  # of a vector, be it one of the processor's or several
_SUMS = 8 if binding.get_host_cpu_features().get("avx512f") else 4  # vectors that its registers hold at once
# Infinite numbers and NaN keep their meaning: a net that diverges is seen to.
_OPTIONS = {"nogil": True, "error_model": "numpy"}
_compiled = njit(fastmath={"contract"}, **_OPTIONS)
_kept = njit(fastmath={"contract"}, cache=True, **_OPTIONS)
_compiled_sum = njit(fastmath={"contract", "reassoc", "nsz"}, **_OPTIONS)  # in any order
_INDEX, _LANE = ir.IntType(64), ir.IntType(32)


class _Code:
    """What the functions below that speak to the compiler itself have in common."""

    def __init__(self, context, builder, signature, args):
        self.builder, self.args = builder, []
        for kind, value in zip(signature.args, args, strict=True):
            is_array = isinstance(kind, types.Array)
            self.args.append(context.make_array(kind)(context, builder, value).data if is_array else value)
        self.number = self.args[0].type.pointee
        self.size = 4 if isinstance(self.number, ir.FloatType) else 8
        self.vector = ir.VectorType(self.number, _BYTES // self.size)

    def at(self, pointer, *offset):
        """Return a pointer moved by the product of some integers."""
        product = offset[0]
        for factor in offset[1:]:
            product = self.builder.mul(product, factor)
        return self.builder.gep(pointer, [product])

    def load(self, pointer):
        """Load a vector, which may lie anywhere."""
        return self.builder.load(self.builder.bitcast(pointer, self.vector.as_pointer()), align=self.size)

    def store(self, vector, pointer):
        """Store a vector."""
        self.builder.store(vector, self.builder.bitcast(pointer, self.vector.as_pointer()), align=self.size)

    def spread(self, pointer):
        """Load a number into all places of a vector."""
        nothing = ir.Constant(self.vector, ir.Undefined)
        first = self.builder.insert_element(nothing, self.builder.load(pointer), _LANE(0))
        return self.shuffle(first, nothing, [0] * self.vector.count)

    def shuffle(self, one, other, places):
        """Return a vector of numbers that two hold, at these places of the one and then the other."""
        return self.builder.shuffle_vector(one, other, ir.Constant(ir.VectorType(_LANE, len(places)), places))


def _make_tile(n):
    """Make a function that computes n rows and a vector's columns of a product ``a @ b``, plus a bias per row.

    ``c[i, :] = bias[i] + sum over k of a[i, k] * b[k, :]``. Every table comes with the steps from row to row, and
    `a` also with that from column to column.
    """

    @intrinsic
    def tile(context, c, c_row, a, a_row, a_column, b, b_row, n_products, bias, bias_row):
        def generate(context, builder, signature, args):
            code = _Code(context, builder, signature, args)
            c, c_row, a, a_row, a_column, b, b_row, n_products, bias, bias_row = code.args
            before = [code.spread(code.at(bias, bias_row, _INDEX(i))) for i in range(n)]
            entry, loop, after = builder.block, builder.append_basic_block(), builder.append_basic_block()
            builder.branch(loop)
            builder.position_at_end(loop)
            k, a_here, b_here = builder.phi(_INDEX), builder.phi(a.type), builder.phi(b.type)
            sums, columns = [builder.phi(code.vector) for _ in range(n)], code.load(b_here)
            products = [
                builder.fmul(code.spread(code.at(a_here, a_row, _INDEX(i))), columns, flags=["contract"])
                for i in range(n)
            ]
            added = [builder.fadd(p, s, flags=["contract"]) for p, s in zip(products, sums, strict=True)]
            next_k = builder.add(k, _INDEX(1))
            moves = [(k, _INDEX(0), next_k), (a_here, a, code.at(a_here, a_column)), (b_here, b, code.at(b_here, b_row))]
            for variable, first, then in [*moves, *zip(sums, before, added, strict=True)]:
                variable.add_incoming(first, entry)
                variable.add_incoming(then, loop)
            builder.cbranch(builder.icmp_signed("<", next_k, n_products), loop, after)
            builder.position_at_end(after)
            for i in range(n):
                code.store(added[i], code.at(c, c_row, _INDEX(i)))
            return context.get_dummy_value()

        return types.void(c, c_row, a, a_row, a_column, b, b_row, n_products, bias, bias_row), generate

    return tile


_tile_of_many, _tile_of_two, _tile_of_one = map(_make_tile, (_SUMS, 2, 1))


@intrinsic
def _flip(context, a, a_row, b, b_row):
    """Write a square of as many rows as a vector has numbers, transposed: perfect shuffles of its two halves."""

    def generate(context, builder, signature, args):
        code = _Code(context, builder, signature, args)
        a, a_row, b, b_row = code.args
        n = code.vector.count
        rows = [code.load(code.at(a, a_row, _INDEX(i))) for i in range(n)]
        by_turns = [place for i in range(n) for place in (i, n + i)]
        for _ in range(n.bit_length() - 1):
            pairs = zip(rows[: n // 2], rows[n // 2 :], strict=True)
            rows = [code.shuffle(*pair, half) for pair in pairs for half in (by_turns[:n], by_turns[n:])]
        for i in range(n):
            code.store(rows[i], code.at(b, b_row, _INDEX(i)))
        return context.get_dummy_value()

    return types.void(a, a_row, b, b_row), generate


@intrinsic
def _power_of_2(context, n, like):
    """Return ``2.0**n`` for an integer n, from its bits; 0 far below."""

    def generate(context, builder, signature, args):
        number = context.get_value_type(like)
        bits, bias, place = (32, 127, 23) if isinstance(number, ir.FloatType) else (64, 1023, 52)
        integer = ir.IntType(bits)
        exponent = builder.add(builder.fptosi(args[0], integer), integer(bias))
        return builder.bitcast(builder.shl(exponent, integer(place)), number)

    return like(like, like), generate


@intrinsic
def _like(context, value, like):
    """Return a number in the type of another one: Python's own are of 64 bits."""
    return like(value, like), lambda context, builder, sig, args: context.cast(builder, args[0], value, like)


@_compiled
def _multiply(c, c_row, a, a_row, a_column, b, b_row, shape, bias, bias_row):
    """Write products of `shape` (rows, columns, products); `c` and `b` have room for whole vectors of columns."""
    n_rows, n_columns, n_products = shape
    for j in range(0, n_columns, _BYTES // c.itemsize):
        i = 0
        while i < n_rows:
            here, left, start = c[i * c_row + j :], a[i * a_row :], bias[i * bias_row :]
            if i + _SUMS <= n_rows:
                _tile_of_many(here, c_row, left, a_row, a_column, b[j:], b_row, n_products, start, bias_row)
                i += _SUMS
            elif i + 2 <= n_rows:
                _tile_of_two(here, c_row, left, a_row, a_column, b[j:], b_row, n_products, start, bias_row)
                i += 2
            else:
                _tile_of_one(here, c_row, left, a_row, a_column, b[j:], b_row, n_products, start, bias_row)
                i += 1


@_compiled
def _transpose(a, a_row, b, b_row, n_rows, n_columns):
    """Write `b`, the transposed `a`; both have room for whole vectors."""
    n = _BYTES // a.itemsize
    for i in range(0, n_rows, n):
        for j in range(0, n_columns, n):
            _flip(a[i * a_row + j :], a_row, b[j * b_row + i :], b_row)


@_compiled
def _exponential(x, most):
    """Return ``exp(x)`` as ``s + s * r``, of a power of 2 and a small number; x is clipped to ``[-most, most]``."""
    x = -most if x < -most else (most if x > most else x)
    n = np.floor(x * _like(1 / math.log(2), x) + _like(0.5, x))
    rest = (x - n * _like(0.693359375, x)) + n * _like(0.693359375 - math.log(2), x)
    series = _like(1.0, x)
    for k in range(13, 1, -1):
        series = _like(1.0, x) + rest * series * _like(1.0 / k, x)
    return _power_of_2(n, x), rest * series


@_compiled
def _most(numbers):
    """Return a bound within which exponentials stay finite and normal."""
    return _like(80.0 if numbers.itemsize == 4 else 700.0, numbers[0])


@_compiled
def _activate(kind, option, out, slope):
    """Apply an activation in place, and multiply `slope` by its derivative there."""
    zero, one, option, most = _like(0.0, out[0]), _like(1.0, out[0]), _like(option, out[0]), _most(out)
    if kind == RELU:
        for i in range(len(out)):
            slope[i] *= zero if out[i] <= 0 else one
            out[i] = zero if out[i] <= 0 else out[i]
    elif kind == LEAKY_RELU:
        for i in range(len(out)):
            factor = option if out[i] <= 0 else one
            slope[i] *= factor
            out[i] *= factor
    elif kind == ELU:
        for i in range(len(out)):
            scale, rest = _exponential(out[i], most)
            low = option * ((scale - one) + scale * rest)
            slope[i] *= low + option if out[i] <= 0 else one
            out[i] = low if out[i] <= 0 else out[i]
    elif kind == TANH:
        for i in range(len(out)):
            scale, rest = _exponential(out[i] + out[i], most)
            less = (scale - one) + scale * rest
            out[i] = less / (less + one + one)
            slope[i] *= one - out[i] * out[i]
    else:
        for i in range(len(out)):
            scale, rest = _exponential(-out[i], most)
            share = one / (one + (scale + scale * rest))
            slope[i] *= share * (one - share) if kind == SIGMOID else share * (one + out[i] * (one - share))
            out[i] = share if kind == SIGMOID else share * out[i]


@_compiled
def _mix(state, value):
    """Take an integer into a hash, as :func:`sktune.randomness.mix` does."""
    state = state + np.uint64(0x9E3779B97F4A7C15) + np.uint64(value)
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return state ^ (state >> np.uint64(31))


@_compiled
def _mask_key(seed, epoch, batch, layer):
    """Return two words of 32 bits, as :func:`sktune.randomness.mask_key` does for the first call of a layer."""
    key = _mix(_mix(np.uint64(0), seed), DROPOUT)
    key = _mix(_mix(_mix(_mix(key, epoch), batch), layer), 0)
    return np.uint32(key & np.uint64(0xFFFFFFFF)), np.uint32(key >> np.uint64(32))


@_compiled
def _drop(key, limit, scale, space, out, slope, width, n):
    """Silence numbers in a table (width, n) in place, and multiply `slope` alike.

    Number i of the transposed table takes half of the bits of counter i // 2.
    """
    zero, scale = _like(0.0, out[0]), _like(scale, out[0])
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
                factor = scale if np.int32(np.uint32(bits[i] << np.uint32(shift))) >= limit else zero
                here[i] *= factor
                there[i] *= factor


@_compiled_sum
def _scale_and_sum(numbers, factors):
    """Multiply numbers (n,) by factors in place; return their sum."""
    total = _like(0.0, numbers[0])
    for i in range(len(numbers)):
        numbers[i] *= factors[i]
        total += numbers[i]
    return total


@_compiled
def _cross_entropy(outputs, row, n_classes, classes, weight, n_rows, top, total):
    """Return the mean loss of rows whose classes these are, and write the gradient over the outputs."""
    n, most, zero, mean = len(top), _most(top), _like(0.0, top[0]), _like(1 / n_rows, top[0])
    for i in range(n):
        top[i], total[i] = outputs[i], zero
    for c in range(1, n_classes):
        logits = outputs[c * row : c * row + n]
        for i in range(n):
            top[i] = top[i] if logits[i] <= top[i] else logits[i]
    picked = zero
    for i in range(n_rows):
        picked += weight[i] * (outputs[int(classes[i]) * row + i] - top[i])
    for c in range(n_classes):
        logits = outputs[c * row : c * row + n]
        for i in range(n):
            scale, rest = _exponential(logits[i] - top[i], most)
            logits[i] = scale + scale * rest
            total[i] += logits[i]
    loss = -picked
    for i in range(n_rows):
        loss += weight[i] * _like(math.log(total[i]), top[0])
        total[i] = weight[i] * mean / total[i]
    for i in range(n_rows, n):
        total[i] = zero
    for c in range(n_classes):
        logits = outputs[c * row : c * row + n]
        for i in range(n):
            logits[i] *= total[i]
    for i in range(n_rows):
        outputs[int(classes[i]) * row + i] -= weight[i] * mean
    return loss * mean


@_compiled
def _compute_loss(loss, space, outputs, width, n_rows, n):
    """Return the mean loss of a batch, and write its gradient over the outputs."""
    if loss == CROSS_ENTROPY:
        top, total = space.sums[0, :n], space.sums[1, :n]
        return _cross_entropy(outputs, space.row, width, space.target, space.weight, n_rows, top, total)
    return _squared_error(outputs, space.row, width, space.target, space.weight, n_rows, n)


@_compiled
def _squared_error(outputs, row, n_outputs, target, weight, n_rows, n):
    """Return the mean loss of rows with these targets, and write the gradient over the outputs."""
    loss, zero, share = _like(0.0, target[0]), _like(0.0, target[0]), _like(1 / (n_rows * n_outputs), target[0])
    for c in range(n_outputs):
        here = outputs[c * row : c * row + n]
        for i in range(n_rows):
            error = here[i] - target[i * n_outputs + c]
            loss += weight[i] * error * error
            here[i] = (error + error) * weight[i] * share
        for i in range(n_rows, n):
            here[i] = zero
    return loss * share


class Space(NamedTuple):
    """What the steps of an epoch write to: tables of features by rows, `row` numbers from feature to feature."""

    row: int
    tables: np.ndarray  # (T, ...), the inputs and each linear layer's outputs
    slopes: np.ndarray  # (T, ...), derivatives of what follows on that layer
    gradients: np.ndarray  # (2, ...), of a layer's outputs, and of those before
    wide_row: int  # numbers from row to row of what lies row by row
    wide: np.ndarray  # (rows, features), a table transposed
    product: np.ndarray  # (outputs, features), a weight's gradient
    zero: np.ndarray  # (1,)
    target: np.ndarray  # (rows * targets,)
    weight: np.ndarray  # (rows,)
    sums: np.ndarray  # (2, rows)


@_compiled
def _padded(n, numbers):
    """Return n, filled up to whole vectors of numbers."""
    return -(-n // (_BYTES // numbers.itemsize)) * (_BYTES // numbers.itemsize)


@_compiled
def _row_length(n, numbers):
    """Return an odd number of vectors: powers of 2 between rows would let them drive each other out of the cache."""
    n_vectors = _padded(n, numbers) * numbers.itemsize // _BYTES
    return (n_vectors + 1 - n_vectors % 2) * _BYTES // numbers.itemsize


@_compiled
def _make_space(links, n_features, n_targets, n_rows, like):
    widest, n_tables = n_features, 1
    for link in range(len(links)):
        if links[link, 0] == LINEAR:
            widest, n_tables = max(widest, links[link, 1]), n_tables + 1
    row, wide_row, height = _row_length(n_rows, like), _row_length(widest, like), _padded(widest, like)
    n, zero = _padded(n_rows, like), _like(0.0, like[0])
    tables, slopes = np.full((n_tables, height * row), zero), np.full((n_tables, height * row), _like(1.0, zero))
    gradients = np.full((2, height * row), zero)
    wide, product = np.full(n * wide_row, zero), np.full(height * wide_row, zero)
    target, weight, sums = np.full(n * n_targets, zero), np.full(n, zero), np.full((2, n), zero)
    return Space(row, tables, slopes, gradients, wide_row, wide, product, np.full(1, zero), target, weight, sums)


@_compiled
def _gather(space, X, target, weight, rows, n):
    """Take the rows of a batch, and as many rows of zeros as fill it up to n."""
    n_features, n_targets, zero = X.shape[1], target.shape[1], _like(0.0, X[0, 0])
    for i in range(n):
        place = space.wide[i * space.wide_row : i * space.wide_row + n_features]
        if i >= len(rows):
            for j in range(n_features):
                place[j] = zero
            continue
        row = X[rows[i]]
        for j in range(n_features):
            place[j] = row[j]
        for j in range(n_targets):
            space.target[i * n_targets + j] = target[rows[i], j]
        space.weight[i] = weight[rows[i]]
    _transpose(space.wide, space.wide_row, space.tables[0], space.row, n, _padded(n_features, X))


@_compiled
def _forward(links, numbers, flat, space, width, n, key):
    """Compute the outputs of n rows in training; return the number of the table where they are, and their width.

    `key` are seed of the fit, epoch and batch.
    """
    row, table, first, n_links = space.row, 0, 0, len(links)
    while True:
        last = first
        while last < n_links and links[last, 0] != LINEAR:
            last += 1
        if last > first:
            _pass_between(links[first:last], numbers[first:last], space, table, width, n, key)
        if last == n_links:
            return table, width
        _, outputs, weight, bias = links[last]
        start, bias_row = (flat[bias:], 1) if bias >= 0 else (space.zero, 0)
        shape = (outputs, n, width)
        _multiply(space.tables[table + 1], row, flat[weight:], width, 1, space.tables[table], row, shape, start, bias_row)
        table, first, width = table + 1, last + 1, outputs


@_compiled
def _pass_between(links, numbers, space, table, width, n, key):
    """Apply what stands between two linear layers, feature by feature."""
    out, slope = space.tables[table, : width * space.row], space.slopes[table, : width * space.row]
    one = _like(1.0, out[0])
    for i in range(len(slope)):
        slope[i] = one
    for i in range(len(links)):
        if links[i, 0] == DROPOUT_LAYER:
            mask_key = _mask_key(key[0], key[1], key[2], links[i, 1])
            _drop(mask_key, np.int32(numbers[i, 0] * 65536), numbers[i, 1], space, out, slope, width, n)
        else:
            _activate(links[i, 0], numbers[i, 0], out, slope)


@_compiled
def _backward(links, flat, gradient, space, n_features, n, n_rows):
    """Write the gradients of all parameters, from that of the outputs, which has taken their place."""
    row, table, side = space.row, len(space.tables) - 1, 0
    above = space.tables[table]
    for link in range(len(links) - 1, -1, -1):
        kind, outputs, weight, bias = links[link]
        if kind != LINEAR:
            continue
        width = n_features
        for before in range(link):
            width = links[before, 1] if links[before, 0] == LINEAR else width
        for feature in range(outputs):
            here = slice(feature * row, feature * row + n)
            total = _scale_and_sum(above[here], space.slopes[table, here])
            if bias >= 0:
                gradient[bias + feature] = total
        table -= 1
        _transpose(space.tables[table], row, space.wide, space.wide_row, _padded(width, flat), n)
        _multiply_exactly(gradient[weight:], above, row, outputs, width, n_rows, space)
        if table:
            below = space.gradients[side]
            _multiply(below, row, flat[weight:], 1, width, above, row, (width, n, outputs), space.zero, 0)
            above, side = below, 1 - side


@_compiled
def _multiply_exactly(gradient, above, row, outputs, width, n_rows, space):
    """Write a weight's gradient (outputs, width), from that of a layer's outputs and its inputs, row by row."""
    shape = (outputs, width, n_rows)
    if _padded(width, gradient) == width:
        _multiply(gradient, width, above, row, 1, space.wide, space.wide_row, shape, space.zero, 0)
        return
    _multiply(space.product, space.wide_row, above, row, 1, space.wide, space.wide_row, shape, space.zero, 0)
    for i in range(outputs):
        row_of = gradient[i * width : (i + 1) * width]
        for j in range(width):
            row_of[j] = space.product[i * space.wide_row + j]


@_compiled_sum
def _penalize(links, flat, gradient, n_features, l1, l2):
    """Add the gradient of the penalties on all weights; return the penalties."""
    absolute, squares, width = _like(0.0, flat[0]), _like(0.0, flat[0]), n_features
    for link in range(len(links)):
        kind, outputs, weight, _ = links[link]
        if kind == LINEAR:
            w, g = flat[weight : weight + outputs * width], gradient[weight : weight + outputs * width]
            for i in range(len(w)):
                absolute += abs(w[i])
                squares += w[i] * w[i]
                g[i] += l1 * np.sign(w[i]) + (l2 + l2) * w[i]
            width = outputs
    return (l1 * absolute if l1 > 0 else l1) + (l2 * squares if l2 > 0 else l2)


@_compiled
def _update(rule, options, rate, t, p, g, first, second):
    """Take step t, from 1, of an optimizer, as :mod:`torch.optim` does; its `options` are as in :data:`RULES`."""
    zero, one, decay = _like(0.0, p[0]), _like(1.0, p[0]), _like(options[0], p[0])
    a, b, c = _like(options[2], p[0]), _like(options[3], p[0]), _like(options[4], p[0])
    if options[1]:
        keep, decay = one - _like(rate * options[0], p[0]), zero
        for i in range(len(p)):
            p[i] *= keep
    elif decay:
        for i in range(len(p)):
            g[i] += decay * p[i]
    if rule == ADAM:
        step = _like(rate / (1 - options[2] ** t), p[0])
        root = _like(1 / math.sqrt(1 - options[3] ** t), p[0])
        for i in range(len(p)):
            first[i] += (g[i] - first[i]) * (one - a)
            second[i] = second[i] * b + g[i] * g[i] * (one - b)
            p[i] -= step * first[i] / (math.sqrt(second[i]) * root + c)
    elif rule == SGD:
        fresh, rate = one - (b if t > 1 and a != 0 else zero), _like(rate, p[0])
        for i in range(len(p)):
            first[i] = first[i] * a + g[i] * fresh
            p[i] -= rate * (g[i] + a * first[i] if c else first[i])
    elif rule == RMSPROP:
        rate = _like(rate, p[0])
        for i in range(len(p)):
            second[i] = second[i] * a + g[i] * g[i] * (one - a)
            first[i] = first[i] * b + g[i] / (math.sqrt(second[i]) + c)
            p[i] -= rate * first[i]
    else:
        rate = _like(rate / (1 + (t - 1) * options[2]), p[0])
        for i in range(len(p)):
            first[i] += g[i] * g[i]
            p[i] -= rate * g[i] / (math.sqrt(first[i]) + b)


@_kept
def train_steps(links, numbers, loss, rule, options, flat, first, second, t, data, order, sizes, rates, place):
    """Train a net by steps in place; return their losses, which end with the first that is not finite.

    `options` are the optimizer's, l1 and l2 behind them; `first` and `second` its state after `t` steps; `data` are X,
    target and weight; `order` are the rows that the batches of these `sizes` take; `place` are the seed of the fit,
    the epoch and the number of the first batch.
    """
    (X, target, weight), (seed, epoch, batch) = data, place
    n_features, gradient, losses, start = X.shape[1], np.empty_like(flat), np.empty(len(sizes)), 0
    space = _make_space(links, n_features, target.shape[1], sizes.max(), flat)
    l1, l2 = _like(options[-2], flat[0]), _like(options[-1], flat[0])
    for step in range(len(sizes)):
        rows, n = order[start : start + sizes[step]], _padded(sizes[step], flat)
        start += sizes[step]
        _gather(space, X, target, weight, rows, n)
        table, width = _forward(links, numbers, flat, space, n_features, n, (seed, epoch, batch + step))
        losses[step] = _compute_loss(loss, space, space.tables[table], width, len(rows), n)
        _backward(links, flat, gradient, space, n_features, n, len(rows))
        if l1 > 0 or l2 > 0:
            losses[step] += _penalize(links, flat, gradient, n_features, l1, l2)
        _update(rule, options, rates[step], t + step + 1, flat, gradient, first, second)
        if not math.isfinite(losses[step]):
            return losses[: step + 1]
    return losses
