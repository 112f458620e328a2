"""Polynomials of the compiled kernels, whose coefficients are constants of the code."""

from llvmlite import ir
from numba.extending import intrinsic

from sktune.engine.compiled.vectors.code import build_multiply_add


def make_polynomial(of_float32, of_float64):
    """Make a function ``evaluate(x)`` of a polynomial.

    The steps are written one by one: of a loop over coefficients, LLVM may make no vectors.

    Parameters
    ----------
    of_float32, of_float64 : sequence of float
        The coefficients for each type of x, that of the highest power first.
    """

    @intrinsic
    def evaluate(context, x):
        def generate(context, builder, signature, args):
            scalar = context.get_value_type(x)
            is_single = isinstance(scalar, ir.FloatType)
            highest, *others = [
                ir.Constant(scalar, number) for number in (of_float32 if is_single else of_float64)
            ]
            # Horner's scheme
            total = highest
            for number in others:
                total = build_multiply_add(builder, total, args[0], number)
            return total

        return x(x), generate

    return evaluate
