"""Linear layers of the compiled kernels."""

import numpy as np

from sktune.engine.compiled.opcodes import (
    ADDED,
    BIAS,
    FLOW_A,
    IS_FIRST_BIAS,
    IS_FIRST_WEIGHT,
    N_INPUTS,
    N_OUTPUTS,
    NOTHING,
    OPTION,
    OUT,
    SLOT_A,
    WEIGHT,
    A,
)
from sktune.engine.compiled.operations.workspace import padded
from sktune.engine.compiled.vectors import (
    compiled,
    copy,
    inlined,
    multiply,
    scale_and_add_up,
    transpose,
)


@compiled
def apply_linear(link, flat, space, n):
    """Compute the outputs of a linear layer for n rows."""
    n_inputs = link[N_INPUTS]
    n_outputs = link[N_OUTPUTS]
    # not literal numbers, for which Numba would compile one more product
    one = np.int64(1)
    bias = space.zero
    bias_stride = np.int64(0)
    if link[BIAS] >= 0:
        bias = flat[link[BIAS] :]
        bias_stride = one
    # (H, F) @ (F, n) -> (H, n)
    multiply(
        space.tables[link[OUT]],
        space.stride,
        flat[link[WEIGHT] :],
        n_inputs,
        one,
        space.tables[link[A]],
        space.stride,
        (n_outputs, n, n_inputs),
        bias,
        bias_stride,
    )


@inlined
def _scale_features(above, slope, stride, n_rows, gradient, n_outputs, is_first):
    """Multiply a gradient by derivatives, and write its sum over the rows for each feature."""
    for feature in range(n_outputs):
        batch = slice(feature * stride, feature * stride + n_rows)
        total = scale_and_add_up((above[batch], slope[batch]), (), n_rows)
        if len(gradient) > 0:
            if is_first:
                gradient[feature] = total
            else:
                gradient[feature] += total


@compiled
def trace_linear(link, flat, gradient, space, above, n, n_rows):
    """Write the gradients of a linear layer.

    `above` is that of the value behind the layers that follow in place.
    """
    stride = space.stride
    n_inputs = link[N_INPUTS]
    n_outputs = link[N_OUTPUTS]
    weight = link[WEIGHT]

    # From the gradient of what follows to that of the layer's outputs, whose sum over the rows is
    # the gradient of the bias.
    slope = space.slopes[link[OUT]]
    bias = gradient[link[BIAS] :] if link[BIAS] >= 0 else gradient[:0]
    _scale_features(above, slope, stride, n_rows, bias, n_outputs, link[IS_FIRST_BIAS] == 1)

    # The gradient of the weight: (H, n) @ (n, F) -> (H, F). The inputs of the net lie row by row in
    # the workspace already, where no layer has changed them.
    has_rows = link[OPTION] == 1
    inputs = space.inputs if has_rows else space.transposed
    if not has_rows:
        transpose(
            space.tables[link[A]], stride, inputs, space.row_stride, padded(n_inputs, flat), n
        )
    shape = (n_outputs, n_inputs, n_rows)
    is_first = link[IS_FIRST_WEIGHT] == 1
    _multiply_exactly(gradient[weight:], above, inputs, shape, space, is_first)

    # The gradient of the layer's inputs: (F, H) @ (H, n) -> (F, n).
    if link[FLOW_A] != NOTHING:
        one = np.int64(1)
        zero = np.int64(0)
        below = space.gradients[link[SLOT_A]]
        summand = space.gradients[-1] if link[FLOW_A] == ADDED else below
        shape = (n_inputs, n, n_outputs)
        multiply(
            summand, stride, flat[weight:], one, n_inputs, above, stride, shape, space.zero, zero
        )
        if link[FLOW_A] == ADDED:
            for i in range(n_inputs * stride):
                below[i] += summand[i]


@inlined
def _multiply_exactly(gradient, above, inputs, shape, space, is_first):
    """Write the gradient of a weight, and nothing behind it, where other gradients lie.

    Parameters
    ----------
    gradient : ndarray
        That of the weight, (n_outputs, n_inputs), and of what follows.
    above : ndarray (n_outputs, n_rows)
        The gradient of the layer's outputs.
    inputs : ndarray (n_rows, n_inputs)
    shape : tuple of int
        (n_outputs, n_inputs, n_rows).
    space : Workspace
    is_first : bool
        Whether the gradient is written; else it is added to what is there.
    """
    n_outputs, n_inputs, _ = shape
    stride = space.stride
    row_stride = space.row_stride
    one = np.int64(1)
    zero = np.int64(0)
    if is_first and padded(n_inputs, gradient) == n_inputs:
        multiply(
            gradient, n_inputs, above, stride, one, inputs, row_stride, shape, space.zero, zero
        )
        return
    # Products are written in whole vectors: their padding must not reach the gradients.
    product = space.product
    multiply(product, row_stride, above, stride, one, inputs, row_stride, shape, space.zero, zero)
    for i in range(n_outputs):
        if is_first:
            copy(gradient[i * n_inputs :], product[i * row_stride :], n_inputs)
        else:
            for j in range(n_inputs):
                gradient[i * n_inputs + j] += product[i * row_stride + j]
