"""Products of tables, tile by tile."""

import triton
import triton.language as tl


@triton.jit
def multiply(
    a,
    a_row,
    a_inner,
    rows,
    n_rows,
    b,
    b_inner,
    b_column,
    columns,
    n_columns,
    n_inner,
    INNER: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Return a tile of a product ``a @ b``.

    Parameters
    ----------
    a, b : pointer
    a_row, a_inner, b_inner, b_column : int
        How far apart the elements are in memory, by the two axes of each table.
    rows, columns : block of int
        Where the tile stands in the product, which has `n_rows` and `n_columns`.
    n_inner : int
        The length of the axis that is summed over, `INNER` numbers at once.
    PRECISION : str
        How factors of float32 are multiplied: as ``tl.dot`` takes it.
    """
    dtype: tl.constexpr = a.dtype.element_ty
    total = tl.zeros((rows.shape[0], columns.shape[0]), dtype)
    for start in range(0, n_inner, INNER):
        inner = start + tl.arange(0, INNER)
        is_row = (rows[:, None] < n_rows) & (inner[None, :] < n_inner)
        left = tl.load(a + rows[:, None] * a_row + inner[None, :] * a_inner, is_row, other=0.0)
        is_column = (inner[:, None] < n_inner) & (columns[None, :] < n_columns)
        at = b + inner[:, None] * b_inner + columns[None, :] * b_column
        right = tl.load(at, is_column, other=0.0)
        total = tl.dot(left, right, total, input_precision=PRECISION, out_dtype=dtype)
    return total


@triton.jit
def sum_rows(a, n_rows, columns, n_columns, ROWS: tl.constexpr):
    """Return the sums of some columns of a table (n_rows, n_columns)."""
    dtype: tl.constexpr = a.dtype.element_ty
    total = tl.zeros((columns.shape[0],), dtype)
    for start in range(0, n_rows, ROWS):
        rows = start + tl.arange(0, ROWS)
        is_there = (rows[:, None] < n_rows) & (columns[None, :] < n_columns)
        part = tl.load(a + rows[:, None] * n_columns + columns[None, :], is_there, other=0.0)
        total += tl.sum(part, 0)
    return total
