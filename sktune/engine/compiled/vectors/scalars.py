"""Operations on numbers, which LLVM turns into those on vectors where a loop applies them."""

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from sktune.engine.compiled.vectors.code import build_multiply_add, compiled


@intrinsic
def multiply_add(context, a, b, c):
    """Return ``a * b + c``, rounded once if the processor can, in the type of the first number."""

    def generate(context, builder, signature, args):
        return build_multiply_add(builder, *args)

    return a(a, a, a), generate


@intrinsic
def choose(context, condition, one, other):
    """Return one of two numbers, both of which are computed: an ``if`` may become a branch."""

    def generate(context, builder, signature, args):
        return builder.select(*args)

    return one(types.boolean, one, one), generate


@intrinsic
def split_off_whole(context, x):
    """Return the whole number n next to x, and ``2.0**n``, which must be a normal number.

    A number is added for which the sum has no digits behind the point: the last bits of the sum
    are those of n, up to a constant.
    """

    def generate(context, builder, signature, args):
        scalar = context.get_value_type(x)
        # The bits of a number, the bias of its exponent, and the bits of its fraction (IEEE 754).
        if isinstance(scalar, ir.FloatType):
            n_bits, bias, n_fraction_bits = 32, 127, 23
        else:
            n_bits, bias, n_fraction_bits = 64, 1023, 52
        integer = ir.IntType(n_bits)
        shift = ir.Constant(scalar, 1.5 * 2.0**n_fraction_bits)
        total = builder.fadd(args[0], shift)
        exponent = builder.add(builder.bitcast(total, integer), integer(bias))
        power = builder.bitcast(builder.shl(exponent, integer(n_fraction_bits)), scalar)
        parts = [builder.fsub(total, shift), power]
        return context.make_tuple(builder, signature.return_type, parts)

    return types.UniTuple(x, 2)(x), generate


@intrinsic
def cast(context, value, like):
    """Return a number in the type of another one: Python's own have 64 bits."""

    def generate(context, builder, signature, args):
        return context.cast(builder, args[0], value, like)

    return like(value, like), generate


@compiled
def as_computed(x):
    """Return ``x + 0``, which is x, but for the sign of 0.

    Where a number is chosen that stands there already, LLVM would write some places of a vector
    only, for which AMD's processors need several times as long as for all of them.
    """
    return x + cast(0.0, x)
