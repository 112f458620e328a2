"""What is computed of the rows of a window, as vector instructions.

The functions called ``generate`` write code of LLVM: see :mod:`sktune.engine.compiled.vectors`. The
rows of a window begin at some places of a table, in an array `starts` of int; there are `n_parts`
of them, and n numbers of each are read, in whole vectors.
"""

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from sktune.engine.compiled.vectors.code import Code

_INDEX = ir.IntType(64)


def _for_vectors(code, n):
    """Loop over the places at which vectors of n numbers begin."""
    return cgutils.for_range_slice(code.builder, _INDEX(0), n, _INDEX(code.vector.count), _INDEX)


def _find_largest(code, table, starts, n_parts):
    """Return the vector of the largest numbers of some rows; NaN is larger than any number."""
    builder = code.builder
    first = code.load(code.move(table, builder.load(starts)))
    largest = cgutils.alloca_once(builder, code.vector)
    builder.store(first, largest)
    with cgutils.for_range(builder, n_parts, intp=_INDEX) as loop:
        x = code.load(code.move(table, builder.load(code.move(starts, loop.index))))
        before = builder.load(largest)
        is_larger = builder.fcmp_ordered(">", x, before)
        is_nan = builder.fcmp_unordered("uno", x, x)
        builder.store(builder.select(builder.or_(is_larger, is_nan), x, before), largest)
    return builder.load(largest)


@intrinsic
def take_largest(context, target, table, starts, n_parts, n):
    """Write the largest of the numbers of a window."""

    def generate(context, builder, signature, args):
        code = Code(context, builder, signature, args)
        target, table, starts, n_parts, n = code.args
        with _for_vectors(code, n) as (at, _):
            largest = _find_largest(code, code.move(table, at), starts, n_parts)
            code.store(largest, code.move(target, at))
        return context.get_dummy_value()

    return types.void(target, table, starts, n_parts, n), generate


@intrinsic
def give_to_largest(context, below, above, table, starts, n_parts, n):
    """Add what is above to the gradient of the first of the numbers of a window that are largest.

    The gradients `below` lie as the table does.
    """

    def generate(context, builder, signature, args):
        code = Code(context, builder, signature, args)
        below, above, table, starts, n_parts, n = code.args
        nothing = ir.Constant(code.vector, None)
        with _for_vectors(code, n) as (at, _):
            table_at = code.move(table, at)
            below_at = code.move(below, at)
            largest = _find_largest(code, table_at, starts, n_parts)
            left = cgutils.alloca_once(builder, code.vector)
            builder.store(code.load(code.move(above, at)), left)
            with cgutils.for_range(builder, n_parts, intp=_INDEX) as loop:
                start = builder.load(code.move(starts, loop.index))
                x = code.load(code.move(table_at, start))
                is_largest = builder.fcmp_ordered("==", x, largest)
                given = builder.select(is_largest, builder.load(left), nothing)
                place = code.move(below_at, start)
                code.store(builder.fadd(code.load(place), given), place)
                builder.store(builder.select(is_largest, nothing, builder.load(left)), left)
        return context.get_dummy_value()

    return types.void(below, above, table, starts, n_parts, n), generate


@intrinsic
def take_average(context, target, table, starts, n_parts, divisor, n):
    """Write the sum of the numbers of a window over a divisor."""

    def generate(context, builder, signature, args):
        code = Code(context, builder, signature, args)
        target, table, starts, n_parts, divisor, n = code.args
        divisors = code.repeat(divisor)
        nothing = ir.Constant(code.vector, None)
        total = cgutils.alloca_once(builder, code.vector)
        with _for_vectors(code, n) as (at, _):
            table_at = code.move(table, at)
            builder.store(nothing, total)
            with cgutils.for_range(builder, n_parts, intp=_INDEX) as loop:
                start = builder.load(code.move(starts, loop.index))
                x = code.load(code.move(table_at, start))
                builder.store(builder.fadd(builder.load(total), x), total)
            code.store(builder.fdiv(builder.load(total), divisors), code.move(target, at))
        return context.get_dummy_value()

    return types.void(target, table, starts, n_parts, divisor, n), generate


@intrinsic
def give_to_all(context, below, above, starts, n_parts, divisor, n):
    """Add what is above, over a divisor, to the gradient of each of the numbers of a window."""

    def generate(context, builder, signature, args):
        code = Code(context, builder, signature, args)
        below, above, starts, n_parts, divisor, n = code.args
        divisors = code.repeat(divisor)
        with _for_vectors(code, n) as (at, _):
            below_at = code.move(below, at)
            share = builder.fdiv(code.load(code.move(above, at)), divisors)
            with cgutils.for_range(builder, n_parts, intp=_INDEX) as loop:
                start = builder.load(code.move(starts, loop.index))
                place = code.move(below_at, start)
                code.store(builder.fadd(code.load(place), share), place)
        return context.get_dummy_value()

    return types.void(below, above, starts, n_parts, divisor, n), generate
