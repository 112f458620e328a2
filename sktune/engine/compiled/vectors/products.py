"""Products of tables, computed in tiles of sums that stay in the registers of the processor."""

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from sktune.engine.compiled.vectors.code import (
    BYTES,
    TILE_ROWS,
    TILE_VECTORS,
    Code,
    build_multiply_add,
    inlined,
)

_INDEX = ir.IntType(64)


class Tile:
    """Sums of products ``lefts[i] * rights[j]``: a vector for each i and j.

    Parameters
    ----------
    code : Code
    starts : list of list of vector
        What the sums begin with, by i and j.
    """

    def __init__(self, code, starts):
        self.builder = code.builder
        # LLVM keeps these variables in registers.
        self.sums = [[cgutils.alloca_once_value(self.builder, x) for x in row] for row in starts]

    def add(self, lefts, rights):
        """Add a product to each sum."""
        for left, row in zip(lefts, self.sums, strict=True):
            for right, total in zip(rights, row, strict=True):
                before = self.builder.load(total)
                self.builder.store(build_multiply_add(self.builder, left, right, before), total)

    def read(self):
        """Return the sums with their places: (i, j, vector)."""
        found = []
        for i, row in enumerate(self.sums):
            found += [(i, j, self.builder.load(total)) for j, total in enumerate(row)]
        return found


def make_tile(n_rows, n_vectors, find_operands):
    """Make a function that computes some rows and vectors of columns of a product, plus a bias.

    ``c[i, j] = bias[i] + sum over k of a[i, k] * b[k, j]``, from row i and column j on. The
    function takes the tables (c, c_row, a, a_row, b, bias, bias_row, n_products, *walk), i and j.

    Parameters
    ----------
    n_rows, n_vectors : int
    find_operands : callable
        ``find_operands(code, a, b, walk, k)`` returns pointers to ``a[0, k]`` and ``b[k, 0]``,
        where a and b begin with the tile.
    """

    @intrinsic
    def tile(context, tables, i, j):
        def generate(context, builder, signature, args):
            code = Code(context, builder, signature, args)
            c, c_row, a, a_row, b, bias, bias_row, n, *walk, first, column = code.args
            c = code.move(code.move(c, first, c_row), column)
            a = code.move(a, first, a_row)
            b = code.move(b, column)
            bias = code.move(bias, first, bias_row)
            biases = [code.broadcast(code.move(bias, bias_row, _INDEX(i))) for i in range(n_rows)]
            sums = Tile(code, [[x] * n_vectors for x in biases])
            with cgutils.for_range(builder, n, intp=_INDEX) as loop:
                a_k, b_k = find_operands(code, a, b, walk, loop.index)
                columns = [code.load(code.step(b_k, j)) for j in range(n_vectors)]
                factors = [code.broadcast(code.move(a_k, a_row, _INDEX(i))) for i in range(n_rows)]
                sums.add(factors, columns)
            for i, j, total in sums.read():
                code.store(total, code.step(code.move(c, c_row, _INDEX(i)), j))
            return context.get_dummy_value()

        return types.void(tables, i, j), generate

    return tile


def _find_by_strides(code, a, b, walk, k):
    a_column, b_row = walk
    return code.move(a, a_column, k), code.move(b, b_row, k)


_tile_of_many = make_tile(TILE_ROWS, TILE_VECTORS, _find_by_strides)
_tile_of_two = make_tile(2, TILE_VECTORS, _find_by_strides)
_tile_of_one = make_tile(1, TILE_VECTORS, _find_by_strides)
_narrow_tile_of_many = make_tile(TILE_ROWS, 1, _find_by_strides)
_narrow_tile_of_two = make_tile(2, 1, _find_by_strides)
_narrow_tile_of_one = make_tile(1, 1, _find_by_strides)


@inlined
def multiply(c, c_row, a, a_row, a_column, b, b_row, shape, bias, bias_row):
    """Write ``c = a @ b + bias``, with a bias per row.

    Parameters
    ----------
    c : ndarray (n_rows, n_columns)
        Its rows, like those of `b`, must have room for whole vectors.
    c_row : int
        The stride from row to row.
    a : ndarray (n_rows, n_products)
    a_row, a_column : int
        Its strides; a transposed table has them exchanged.
    b : ndarray (n_products, n_columns)
    b_row : int
    shape : tuple of int
        (n_rows, n_columns, n_products).
    bias : ndarray (n_rows,) or (1,)
    bias_row : int
        1, or 0 if all rows have the same bias.
    """
    n_rows, n_columns, n_products = shape
    tables = (c, c_row, a, a_row, b, bias, bias_row, n_products, a_column, b_row)
    one_vector = BYTES // c.itemsize
    i = 0
    while i < n_rows:
        j = 0
        has_many = i + TILE_ROWS <= n_rows
        has_two = i + 2 <= n_rows
        while j < n_columns:
            if j + (TILE_VECTORS - 1) * one_vector < n_columns:
                if has_many:
                    _tile_of_many(tables, i, j)
                elif has_two:
                    _tile_of_two(tables, i, j)
                else:
                    _tile_of_one(tables, i, j)
                j += TILE_VECTORS * one_vector
            else:
                if has_many:
                    _narrow_tile_of_many(tables, i, j)
                elif has_two:
                    _narrow_tile_of_two(tables, i, j)
                else:
                    _narrow_tile_of_one(tables, i, j)
                j += one_vector
        if has_many:
            i += TILE_ROWS
        else:
            i += 2 if has_two else 1
