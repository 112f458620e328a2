"""The tables that compiled steps write to.

Those of features by rows have `stride` numbers from one feature to the next, and are padded to
whole vectors. The padding holds finite numbers, which never reach a parameter.
"""

from typing import NamedTuple

import numpy as np

from sktune.engine.compiled.entries.products import Products, call_transpose
from sktune.engine.compiled.opcodes import (
    FIRST_OPERATION,
    LINEAR,
    N_OUTPUTS,
    OPCODE,
    OUT,
    SLOT,
    WIDTH,
)
from sktune.engine.compiled.vectors.code import BYTES, inlined
from sktune.engine.compiled.vectors.tables import copy


class Workspace(NamedTuple):
    """The tables that the steps of an epoch write to.

    Those of features by rows have `stride` numbers from one feature to the next; those of rows by
    features have `row_stride` numbers from one row to the next. T is the number of values, G that
    of the gradients that are kept at once, plus 1.
    """

    stride: int
    # (T, width, rows): the values; the last one is replaced by the gradient of the loss
    tables: np.ndarray
    # (T, width, rows): derivatives of the activations and dropout in place on each value
    slopes: np.ndarray
    # (G, width, rows): gradients of values; the last is of no value, but a summand of one
    gradients: np.ndarray
    row_stride: int
    # (rows, features): the inputs, as the data hold them
    inputs: np.ndarray
    # (rows, width): a transposed table
    transposed: np.ndarray
    # (n_outputs, n_inputs): the gradient of a weight
    product: np.ndarray
    # (1,)
    zero: np.ndarray
    # (2, rows)
    sums: np.ndarray
    # (T, 2, rows or width): the mean of each row or feature, and the inverse of its deviation
    moments: np.ndarray
    # the addresses of what operations call
    products: Products


@inlined
def padded(n, values):
    """Return n, filled up to whole vectors of the type of an array."""
    per_vector = BYTES // values.itemsize
    return -(-n // per_vector) * per_vector


def find_stride(n, values):
    """Return the least stride for n numbers that is an odd number of vectors.

    Rows whose distance is a power of 2 would drive each other out of the cache.
    """
    per_vector = BYTES // values.itemsize
    n_vectors = -(-n // per_vector)
    n_vectors += 1 - n_vectors % 2
    return n_vectors * per_vector


def make_workspace(links, n_rows, dtype, products):
    """Return the workspace of batches of at most `n_rows`, for numbers of some type.

    `products` are the :class:`Products` of this type.
    """
    operations = links[links[:, OPCODE] >= FIRST_OPERATION]
    outputs = operations[operations[:, OPCODE] == LINEAR][:, N_OUTPUTS]
    n_tables = operations[:, OUT].max() + 1
    n_gradients = max(operations[:, SLOT].max() + 2, 1)
    widest = operations[:, WIDTH].max()
    like = np.zeros(1, dtype)
    n = padded.py_func(n_rows, like)
    stride = find_stride(n_rows, like)
    row_stride = find_stride(widest, like)
    table_size = padded.py_func(widest, like) * stride
    # the memory of what no value needs is never touched
    slopes = np.zeros((n_tables, table_size), dtype)
    for operation in operations:
        slopes[operation[OUT], : operation[WIDTH] * stride] = 1
    # Padding must hold finite numbers.
    return Workspace(
        stride,
        np.zeros((n_tables, table_size), dtype),
        slopes,
        np.zeros((n_gradients, table_size), dtype),
        row_stride,
        np.zeros(n * row_stride, dtype),
        np.zeros(n * row_stride, dtype),
        np.zeros(outputs.max(initial=0) * row_stride, dtype),
        like,
        np.zeros((2, n), dtype),
        np.zeros((n_tables, 2, max(n, widest)), dtype),
        products,
    )


def open_workspace(dtype):
    """Return a workspace of no rows, which has the types of all workspaces of its dtype."""
    flat = np.zeros(0, dtype)
    tables = np.zeros((0, 0), dtype)
    moments = np.zeros((0, 0, 0), dtype)
    return Workspace(
        0, tables, tables, tables, 0, flat, flat, flat, flat, tables, moments, Products()
    )


@inlined
def gather(space, X, rows, n):
    """Copy the rows of a batch into the workspace, and transpose them; n is their padded number."""
    n_features = X.shape[1]
    for i in range(len(rows)):
        copy(space.inputs[i * space.row_stride :], X[rows[i]], n_features)
    # (n, F) -> (F, n)
    n_padded = padded(n_features, X)
    call_transpose(
        space.products.transpose,
        (space.inputs, space.row_stride, space.tables[0], space.stride, n, n_padded),
    )


@inlined
def find_gradient(space, slot, value):
    """Return the table of the gradient of a value."""
    return space.tables[value] if slot < 0 else space.gradients[slot]
