"""The tables that compiled steps write to.

Those of features by rows have `stride` numbers from one feature to the next, and are padded to
whole vectors. The padding holds finite numbers, which never reach a parameter.
"""

from typing import NamedTuple

import numpy as np

from sktune.engine.compiled.opcodes import (
    FIRST_OPERATION,
    LINEAR,
    N_OUTPUTS,
    OPCODE,
    OUT,
    SLOT,
    WIDTH,
)
from sktune.engine.compiled.vectors import BYTES, cast, compiled, copy, transpose


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


@compiled
def padded(n, values):
    """Return n, filled up to whole vectors of the type of an array."""
    per_vector = BYTES // values.itemsize
    return -(-n // per_vector) * per_vector


@compiled
def _find_stride(n, values):
    """Return the least stride for n numbers that is an odd number of vectors.

    Rows whose distance is a power of 2 would drive each other out of the cache.
    """
    n_vectors = padded(n, values) * values.itemsize // BYTES
    n_vectors += 1 - n_vectors % 2
    return n_vectors * BYTES // values.itemsize


@compiled
def make_workspace(links, n_rows, like):
    """Return the workspace of batches of at most `n_rows`, in the type of the array `like`."""
    n_tables = 1
    n_gradients = 1
    most_outputs = 0
    widest = 0
    for link in range(len(links)):
        if links[link, OPCODE] >= FIRST_OPERATION:
            widest = max(widest, links[link, WIDTH])
            n_tables = max(n_tables, links[link, OUT] + 1)
            n_gradients = max(n_gradients, links[link, SLOT] + 2)
        if links[link, OPCODE] == LINEAR:
            most_outputs = max(most_outputs, links[link, N_OUTPUTS])
    n = padded(n_rows, like)
    stride = _find_stride(n_rows, like)
    row_stride = _find_stride(widest, like)
    table_size = padded(widest, like) * stride

    # Padding must hold finite numbers.
    zero = cast(0.0, like[0])
    one = cast(1.0, like[0])
    return Workspace(
        stride,
        np.full((n_tables, table_size), zero),
        np.full((n_tables, table_size), one),
        np.full((n_gradients, table_size), zero),
        row_stride,
        np.full(n * row_stride, zero),
        np.full(n * row_stride, zero),
        np.empty(most_outputs * row_stride, like.dtype),
        np.full(1, zero),
        np.full((2, n), zero),
        np.full((n_tables, 2, max(n, widest)), zero),
    )


@compiled
def gather(space, X, rows, n):
    """Copy the rows of a batch into the workspace, and transpose them; n is their padded number."""
    n_features = X.shape[1]
    for i in range(len(rows)):
        copy(space.inputs[i * space.row_stride :], X[rows[i]], n_features)
    # (n, F) -> (F, n)
    transpose(
        space.inputs, space.row_stride, space.tables[0], space.stride, n, padded(n_features, X)
    )


@compiled
def find_gradient(space, slot, value):
    """Return the table of the gradient of a value."""
    return space.tables[value] if slot < 0 else space.gradients[slot]
