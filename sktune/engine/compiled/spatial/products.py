"""The products that a convolution consists of, as vector instructions.

The functions called ``generate`` write code of LLVM: see :mod:`sktune.engine.compiled.vectors`.
"""

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from sktune.engine.compiled.vectors.code import (
    BYTES,
    TILE_ROWS,
    TILE_VECTORS,
    Code,
    inlined,
)
from sktune.engine.compiled.vectors.products import Tile, make_tile

_INDEX = ir.IntType(64)


def _find_by_lists(code, a, b, walk, k):
    a_at, b_at = walk
    in_a = code.builder.load(code.move(a_at, k))
    in_b = code.builder.load(code.move(b_at, k))
    return code.move(a, in_a), code.move(b, in_b)


_tile_of_many = make_tile(TILE_ROWS, TILE_VECTORS, _find_by_lists)
_tile_of_four = make_tile(4, TILE_VECTORS, _find_by_lists)
_tile_of_one = make_tile(1, TILE_VECTORS, _find_by_lists)
_narrow_tile_of_many = make_tile(TILE_ROWS, 1, _find_by_lists)
_narrow_tile_of_four = make_tile(4, 1, _find_by_lists)
_narrow_tile_of_one = make_tile(1, 1, _find_by_lists)


@inlined
def multiply_gathered(
    c, c_row, a, a_row, b, a_at, b_at, n_products, n_rows, n_columns, bias, bias_row
):
    """Write ``c[i, j] = bias[i] + sum over k of a[i, a_at[k]] * b[b_at[k], j]``.

    Parameters
    ----------
    c : ndarray (n_rows, n_columns)
        Its rows, like those of `b`, must have room for whole vectors.
    c_row : int
        The stride from row to row.
    a : ndarray
    a_row : int
    b : ndarray
    a_at, b_at : ndarray of int
        Where the numbers of a row of `a`, and the rows of `b`, begin that are multiplied.
    n_products : int
        Their number.
    n_rows, n_columns : int
    bias : ndarray (n_rows,) or (1,)
    bias_row : int
        1, or 0 if all rows have the same bias.
    """
    tables = (c, c_row, a, a_row, b, bias, bias_row, n_products, a_at, b_at)
    one_vector = BYTES // c.itemsize
    j = 0
    while j < n_columns:
        is_wide = j + (TILE_VECTORS - 1) * one_vector < n_columns
        i = 0
        while i < n_rows:
            left = n_rows - i
            # eight rows are two tiles of four, where a tile of many has six
            if left >= TILE_ROWS and (left != 8 or TILE_ROWS == 8):
                if is_wide:
                    _tile_of_many(tables, i, j)
                else:
                    _narrow_tile_of_many(tables, i, j)
                i += TILE_ROWS
            elif left >= 4:
                if is_wide:
                    _tile_of_four(tables, i, j)
                else:
                    _narrow_tile_of_four(tables, i, j)
                i += 4
            else:
                if is_wide:
                    _tile_of_one(tables, i, j)
                else:
                    _narrow_tile_of_one(tables, i, j)
                i += 1
        j += (TILE_VECTORS if is_wide else 1) * one_vector


# The rows and columns of a tile of sums over places, and the bytes of a vector of it: as many sums
# as the registers hold beside what they are made of.
TILE_OUTPUTS, _DOT_BYTES = (4, 64) if TILE_VECTORS == 2 else (3, 32)
# The rows of a tile of a single column.
LONG_COLUMN = 8


def _make_dots(n_rows, n_columns):
    """Make a function that adds a tile of sums over places: see :func:`add_places`."""

    @intrinsic
    def add_dots(context, tables, j):
        def generate(context, builder, signature, args):
            code = Code(context, builder, signature, args)
            c, c_row, c_column, a, a_row, a_place, b, b_row, b_place, n_places, n, j = code.args
            code.vector = ir.VectorType(code.vector.element, _DOT_BYTES // code.itemsize)
            b = code.move(b, j, b_row)
            c = code.move(c, j, c_column)
            sums = Tile(code, [[ir.Constant(code.vector, None)] * n_columns] * n_rows)
            # sums[i, j] += a[i, place, r] * b[j, place, r]
            step = _INDEX(code.vector.count)
            with cgutils.for_range(builder, n_places, intp=_INDEX) as over_places:
                a_of_place = code.move(a, a_place, over_places.index)
                b_of_place = code.move(b, b_place, over_places.index)
                with cgutils.for_range_slice(builder, _INDEX(0), n, step, _INDEX) as (r, _):
                    a_r = code.move(a_of_place, r)
                    b_r = code.move(b_of_place, r)
                    lefts = [code.load(code.move(a_r, a_row, _INDEX(i))) for i in range(n_rows)]
                    rights = [code.load(code.move(b_r, b_row, _INDEX(j))) for j in range(n_columns)]
                    sums.add(lefts, rights)

            for i, j, total in sums.read():
                place = code.move(code.move(c, c_row, _INDEX(i)), c_column, _INDEX(j))
                before = builder.load(place)
                builder.store(builder.fadd(before, code.fold(total)), place)
            return context.get_dummy_value()

        return types.void(tables, j), generate

    return add_dots


_dots_of_many = _make_dots(TILE_OUTPUTS, TILE_OUTPUTS)
_dots_of_column = _make_dots(TILE_OUTPUTS, 1)
_dots_of_long_column = _make_dots(LONG_COLUMN, 1)
_dots_of_one = _make_dots(1, 1)


@inlined
def add_places(c, c_row, c_column, a, a_row, a_place, b, b_row, b_place, shape):
    """Add to ``c[i, j]`` the sum over places and r of ``a[i, place, r] * b[j, place, r]``.

    Parameters
    ----------
    c : ndarray (n_rows, n_columns)
    c_row, c_column : int
        Its strides.
    a, b : ndarray
    a_row, a_place, b_row, b_place : int
        Their strides from row to row and from place to place.
    shape : tuple of int
        (n_rows, n_columns, n_places, n): the rows are LONG_COLUMN, or TILE_OUTPUTS at most, and n
        is a number of whole vectors.
    """
    n_rows, n_columns, n_places, n = shape
    if n_rows == LONG_COLUMN:
        tables = (c, c_row, c_column, a, a_row, a_place, b, b_row, b_place, n_places, n)
        for j in range(n_columns):
            _dots_of_long_column(tables, j)
        return
    if n_rows == TILE_OUTPUTS:
        tables = (c, c_row, c_column, a, a_row, a_place, b, b_row, b_place, n_places, n)
        j = 0
        while j < n_columns:
            if j + TILE_OUTPUTS <= n_columns:
                _dots_of_many(tables, j)
                j += TILE_OUTPUTS
            else:
                _dots_of_column(tables, j)
                j += 1
        return
    for i in range(n_rows):
        c_i = c[i * c_row :]
        a_i = a[i * a_row :]
        tables = (c_i, c_row, c_column, a_i, a_row, a_place, b, b_row, b_place, n_places, n)
        for j in range(n_columns):
            _dots_of_one(tables, j)
