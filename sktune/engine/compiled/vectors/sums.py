"""Sums over arrays, always taken in the same order."""

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from sktune.engine.compiled.vectors.code import Code

_INDEX = ir.IntType(64)


def _make_sum(find_term, *, is_wide=False, is_kept=False):
    """Make a function ``add_up(arrays, numbers, n)``: the sum of a term over the first n places.

    The order of the additions is always the same. One that LLVM is free to choose depends on what
    is compiled beside it, so that code from the disk would give other numbers than new code.

    Parameters
    ----------
    find_term : callable
        ``find_term(builder, values, numbers)`` returns the term: of the values of the arrays at a
        place, and of numbers that are the same at all places. All may be vectors.
    is_wide : bool
        Whether terms and sum are of float64.
    is_kept : bool
        Whether the terms are written into the first array.
    """

    @intrinsic
    def add_up(context, arrays, numbers, n):
        def generate(context, builder, signature, args):
            code = Code(context, builder, signature, args)
            *values, n = code.args
            pointers, scalars = values[: len(arrays)], values[len(arrays) :]
            scalar = ir.DoubleType() if is_wide else code.vector.element
            vector = ir.VectorType(scalar, code.vector.count)

            def add_term(total, place, load, store, kind, numbers):
                places = [builder.gep(pointer, [place]) for pointer in pointers]
                found = [load(place) for place in places]
                if is_wide and code.vector.element != scalar:
                    found = [builder.fpext(value, kind) for value in found]
                term = find_term(builder, found, numbers)
                if is_kept:
                    store(term, places[0])
                builder.store(builder.fadd(builder.load(total), term), total)

            step = _INDEX(vector.count)
            n_whole = builder.mul(builder.sdiv(n, step), step)
            total = cgutils.alloca_once_value(builder, ir.Constant(vector, None))
            repeated = [code.repeat(number) for number in scalars]
            with cgutils.for_range_slice(builder, _INDEX(0), n_whole, step, _INDEX) as (i, _):
                add_term(total, i, code.load, code.store, vector, repeated)
            rest = cgutils.alloca_once_value(builder, code.fold(builder.load(total)))
            with cgutils.for_range_slice(builder, n_whole, n, _INDEX(1), _INDEX) as (i, _):
                add_term(rest, i, builder.load, builder.store, scalar, scalars)
            return builder.load(rest)

        result = types.float64 if is_wide else arrays[0].dtype
        return result(arrays, numbers, n), generate

    return add_up


def _take_size(builder, values, numbers):
    (x,) = values
    is_negative = builder.fcmp_ordered("<", x, ir.Constant(x.type, None))
    return builder.select(is_negative, builder.fneg(x), x)


def _take_square(builder, values, numbers):
    (x,) = values
    return builder.fmul(x, x)


def _take_square_of_distance(builder, values, numbers):
    (x,), (mean,) = values, numbers
    distance = builder.fsub(x, mean)
    return builder.fmul(distance, distance)


def _take_product_of_distance(builder, values, numbers):
    (g, x), (mean,) = values, numbers
    return builder.fmul(g, builder.fsub(x, mean))


def _take_product_of_scaled_distance(builder, values, numbers):
    g, x, mean, scale = values
    return builder.fmul(builder.fmul(g, builder.fsub(x, mean)), scale)


def _take_product(builder, values, numbers):
    return builder.fmul(*values)


add_up = _make_sum(lambda builder, values, numbers: values[0])
# the first array is multiplied by the second one in place
scale_and_add_up = _make_sum(_take_product, is_kept=True)
add_sizes = _make_sum(_take_size)
add_squares = _make_sum(_take_square)
add_wide_sizes = _make_sum(_take_size, is_wide=True)
add_wide_squares = _make_sum(_take_square, is_wide=True)
# of (x - mean)
add_squares_of_distances = _make_sum(_take_square_of_distance)
# of g * (x - mean)
add_products_of_distances = _make_sum(_take_product_of_distance)
# of g * (x - mean) * scale, with a mean and a scale for each place
add_products_of_scaled_distances = _make_sum(_take_product_of_scaled_distance)
