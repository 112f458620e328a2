"""Tables that are copied and transposed."""

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from sktune.engine.compiled.vectors.code import BYTES, Code, inlined

_INDEX = ir.IntType(64)


@intrinsic
def copy(context, target, source, n):
    """Copy n values from the beginning of one array to that of another."""

    def generate(context, builder, signature, args):
        target, source, n = Code(context, builder, signature, args).args
        itemsize = context.get_abi_sizeof(target.type.pointee)
        cgutils.raw_memcpy(builder, target, source, n, itemsize)
        return context.get_dummy_value()

    return types.void(target, source, n), generate


@intrinsic
def _transpose_square(context, a, a_row, b, b_row):
    """Write a transposed square, of as many rows as a vector has values.

    Rows 0 and n / 2, 1 and n / 2 + 1, ... are interleaved; after log2(n) such rounds, each value
    stands where row and column are exchanged.
    """

    def generate(context, builder, signature, args):
        code = Code(context, builder, signature, args)
        a, a_row, b, b_row = code.args
        n = code.vector.count
        rows = [code.load(code.move(a, a_row, _INDEX(i))) for i in range(n)]
        # Of two vectors: 0, n, 1, n + 1, ...
        interleaved = [position for i in range(n) for position in (i, n + i)]
        n_rounds = n.bit_length() - 1
        for _ in range(n_rounds):
            mixed = []
            for upper, lower in zip(rows[: n // 2], rows[n // 2 :], strict=True):
                mixed.append(code.shuffle(upper, lower, interleaved[:n]))
                mixed.append(code.shuffle(upper, lower, interleaved[n:]))
            rows = mixed
        for i in range(n):
            code.store(rows[i], code.move(b, b_row, _INDEX(i)))
        return context.get_dummy_value()

    return types.void(a, a_row, b, b_row), generate


@inlined
def transpose(a, a_row, b, b_row, n_rows, n_columns):
    """Write `b`, the transposed `a` (n_rows, n_columns); both have room for whole vectors."""
    n = BYTES // a.itemsize
    for i in range(0, n_rows, n):
        for j in range(0, n_columns, n):
            _transpose_square(a[i * a_row + j :], a_row, b[j * b_row + i :], b_row)
