"""Linear layers of the compiled kernels."""

from sktune.engine.compiled.entries.products import call_multiply, call_transpose
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
from sktune.engine.compiled.vectors.code import compiled, inlined
from sktune.engine.compiled.vectors.sums import scale_and_add_up
from sktune.engine.compiled.vectors.tables import copy


@compiled
def apply_linear(link, flat, space, n):
    """Compute the outputs of a linear layer for n rows."""
    n_inputs = link[N_INPUTS]
    n_outputs = link[N_OUTPUTS]
    outputs = space.tables[link[OUT]]
    inputs = space.tables[link[A]]
    weight = flat[link[WEIGHT] :]
    bias = space.zero
    bias_stride = 0
    if link[BIAS] >= 0:
        bias = flat[link[BIAS] :]
        bias_stride = 1
    # (H, F) @ (F, n) -> (H, n)
    stride = space.stride
    shape = (n_outputs, n, n_inputs)
    call_multiply(
        space.products.multiply,
        (outputs, stride, weight, n_inputs, 1, inputs, stride, shape, bias, bias_stride),
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
        n_rows_of_table = padded(n_inputs, flat)
        call_transpose(
            space.products.transpose,
            (space.tables[link[A]], stride, inputs, space.row_stride, n_rows_of_table, n),
        )
    shape = (n_outputs, n_inputs, n_rows)
    is_first = link[IS_FIRST_WEIGHT] == 1
    _multiply_exactly(gradient[weight:], above, inputs, shape, space, is_first)

    # The gradient of the layer's inputs: (F, H) @ (H, n) -> (F, n).
    if link[FLOW_A] != NOTHING:
        below = space.gradients[link[SLOT_A]]
        summand = space.gradients[-1] if link[FLOW_A] == ADDED else below
        shape = (n_inputs, n, n_outputs)
        call_multiply(
            space.products.multiply,
            (summand, stride, flat[weight:], 1, n_inputs, above, stride, shape, space.zero, 0),
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
    if is_first and padded(n_inputs, gradient) == n_inputs:
        call_multiply(
            space.products.multiply,
            (gradient, n_inputs, above, stride, 1, inputs, row_stride, shape, space.zero, 0),
        )
        return
    # Products are written in whole vectors: their padding must not reach the gradients.
    product = space.product
    call_multiply(
        space.products.multiply,
        (product, row_stride, above, stride, 1, inputs, row_stride, shape, space.zero, 0),
    )
    for i in range(n_outputs):
        if is_first:
            copy(gradient[i * n_inputs :], product[i * row_stride :], n_inputs)
        else:
            for j in range(n_inputs):
                gradient[i * n_inputs + j] += product[i * row_stride + j]
