"""Training steps of one small net, compiled by Numba: an epoch in one call, from a core's cache.

Tables of a step lie feature by feature, ``(width, rows)``: vectors of the processor run over the
rows, whatever the width. They are padded to whole vectors, and the padding never reaches a
parameter. Parameters, gradients and moments are flat ``(P,)`` and lie as torch has them, each
weight ``(n_outputs, n_inputs)``.

The chain of layers comes as two tables. `links` (n_links, 5) holds integers, which
:mod:`sktune.engine.compiled.opcodes` describes. `settings` (n_links, 2) holds floating numbers: the
limit and the scale of dropout, or what parametrizes an activation and 0.
"""

import math
from typing import NamedTuple

import numpy as np
from numba import njit

from sktune.engine.compiled.activations import activate
from sktune.engine.compiled.criteria.classes import cross_entropy, find_epsilon
from sktune.engine.compiled.criteria.numbers import compare_numbers
from sktune.engine.compiled.dropout import drop, find_mask_key
from sktune.engine.compiled.opcodes import (
    ABSOLUTE_ERROR,
    BIAS,
    BINARY_CROSS_ENTROPY,
    CROSS_ENTROPY,
    DROPOUT_CALL,
    DROPOUT_INDEX,
    DROPOUT_LAYER,
    ELU,
    GELU,
    HUBER,
    LEAKY_RELU,
    LINEAR,
    N_INPUTS,
    N_OUTPUTS,
    OPCODE,
    POISSON,
    PROBABILITY_NLL,
    RELU,
    SIGMOID,
    SILU,
    SMOOTH_ABSOLUTE_ERROR,
    SQUARED_ERROR,
    TANH,
    WEIGHT,
)
from sktune.engine.compiled.updates import ADAGRAD, ADAM, RMSPROP, SGD, update
from sktune.engine.compiled.vectors import (
    BYTES,
    OPTIONS,
    cast,
    compiled,
    copy,
    multiply,
    transpose,
)

# What a program reads from this module.
__all__ = [
    "ABSOLUTE_ERROR",
    "ADAGRAD",
    "ADAM",
    "BINARY_CROSS_ENTROPY",
    "CROSS_ENTROPY",
    "DROPOUT_LAYER",
    "ELU",
    "GELU",
    "HUBER",
    "LEAKY_RELU",
    "LINEAR",
    "POISSON",
    "PROBABILITY_NLL",
    "RELU",
    "RMSPROP",
    "SGD",
    "SIGMOID",
    "SILU",
    "SMOOTH_ABSOLUTE_ERROR",
    "SQUARED_ERROR",
    "TANH",
    "train_steps",
]

_kept = njit(fastmath={"contract"}, cache=True, **OPTIONS)
# A sum that is taken in any order.
_sum = njit(fastmath={"contract", "reassoc", "nsz"}, **OPTIONS)


class Workspace(NamedTuple):
    """The tables that the steps of an epoch write to.

    Those of features by rows have `stride` numbers from one feature to the next; those of rows by
    features have `row_stride` numbers from one row to the next. T is 1 plus the number of linear
    layers.
    """

    stride: int
    # (T, width, rows): the inputs, and the outputs of each linear layer; those of the last one are
    # replaced by the gradient of the loss
    tables: np.ndarray
    # (T, width, rows): derivatives of the activations and dropout that follow each linear layer
    slopes: np.ndarray
    # (2, width, rows): the gradients of two layers, by turns
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


@compiled
def _padded(n, values):
    """Return n, filled up to whole vectors of the type of an array."""
    per_vector = BYTES // values.itemsize
    return -(-n // per_vector) * per_vector


@compiled
def _find_stride(n, values):
    """Return the least stride for n numbers that is an odd number of vectors.

    Rows whose distance is a power of 2 would drive each other out of the cache.
    """
    n_vectors = _padded(n, values) * values.itemsize // BYTES
    n_vectors += 1 - n_vectors % 2
    return n_vectors * BYTES // values.itemsize


@compiled
def _make_workspace(links, n_features, n_rows, like):
    """Return the workspace of batches of at most `n_rows`, in the type of the array `like`."""
    n_tables = 1
    most_outputs = 0
    for link in range(len(links)):
        if links[link, OPCODE] == LINEAR:
            most_outputs = max(most_outputs, links[link, N_OUTPUTS])
            n_tables += 1
    widest = max(n_features, most_outputs)
    n = _padded(n_rows, like)
    stride = _find_stride(n_rows, like)
    row_stride = _find_stride(widest, like)
    table_size = _padded(widest, like) * stride

    # Padding must hold finite numbers.
    zero = cast(0.0, like[0])
    one = cast(1.0, like[0])
    return Workspace(
        stride,
        np.full((n_tables, table_size), zero),
        np.full((n_tables, table_size), one),
        np.full((2, table_size), zero),
        row_stride,
        np.full(n * row_stride, zero),
        np.full(n * row_stride, zero),
        np.empty(most_outputs * row_stride, like.dtype),
        np.full(1, zero),
        np.full((2, n), zero),
    )


@compiled
def _gather(space, X, rows, n):
    """Copy the rows of a batch into the workspace, and transpose them; n is their padded number."""
    n_features = X.shape[1]
    for i in range(len(rows)):
        copy(space.inputs[i * space.row_stride :], X[rows[i]], n_features)
    # (n, F) -> (F, n)
    transpose(
        space.inputs, space.row_stride, space.tables[0], space.stride, n, _padded(n_features, X)
    )


@compiled
def _forward(links, settings, flat, space, width, n, step):
    """Compute the outputs of n rows of some width; return the number of outputs.

    `step` is (seed of the fit, epoch, batch).
    """
    n_links = len(links)
    table = 0
    # The first of the activations and dropout layers since the last linear layer.
    first = 0
    for link in range(n_links):
        if links[link, OPCODE] == LINEAR:
            if link > first:
                _apply_between(
                    links[first:link], settings[first:link], space, table, width, n, step
                )
            _apply_linear(links[link], flat, space, table, n)
            table += 1
            first = link + 1
            width = links[link, N_OUTPUTS]
    if n_links > first:
        _apply_between(links[first:], settings[first:], space, table, width, n, step)
    return width


@compiled
def _apply_linear(link, flat, space, table, n):
    """Compute the outputs of a linear layer from a table, and write them to the next one."""
    n_inputs = link[N_INPUTS]
    n_outputs = link[N_OUTPUTS]
    bias = space.zero
    bias_stride = 0
    if link[BIAS] >= 0:
        bias = flat[link[BIAS] :]
        bias_stride = 1
    # (H, F) @ (F, n) -> (H, n)
    multiply(
        space.tables[table + 1],
        space.stride,
        flat[link[WEIGHT] :],
        n_inputs,
        1,
        space.tables[table],
        space.stride,
        (n_outputs, n, n_inputs),
        bias,
        bias_stride,
    )


@compiled
def _apply_between(links, settings, space, table, width, n, step):
    """Apply the layers between two linear layers in place, and write their derivatives."""
    values = space.tables[table, : width * space.stride]
    slope = space.slopes[table, : width * space.stride]
    one = cast(1.0, values[0])
    for i in range(len(slope)):
        slope[i] = one
    for i in range(len(links)):
        if links[i, OPCODE] == DROPOUT_LAYER:
            seed, epoch, batch = step
            key = find_mask_key(seed, epoch, batch, links[i, DROPOUT_INDEX], links[i, DROPOUT_CALL])
            # The random numbers are the upper halves of 32 bits.
            limit = np.int32(settings[i, 0] * 65536)
            drop(key, limit, settings[i, 1], space, values, slope, width, n)
        else:
            activate(links[i, OPCODE], settings[i, 0], values, slope)


@compiled
def _compute_loss(loss, loss_option, space, n_outputs, target, weight, rows, n):
    """Return the mean loss of a batch, and replace the outputs by its gradient."""
    outputs = space.tables[-1]
    if loss in (CROSS_ENTROPY, PROBABILITY_NLL):
        eps = find_epsilon(outputs) if loss == PROBABILITY_NLL else cast(0.0, outputs[0])
        smoothing = cast(loss_option, outputs[0])
        largest_logit = space.sums[0, :n]
        total = space.sums[1, :n]
        return cross_entropy(
            outputs,
            space.stride,
            n_outputs,
            target,
            weight,
            rows,
            largest_logit,
            total,
            eps,
            smoothing,
        )
    return compare_numbers(loss, loss_option, outputs, space.stride, target, weight, rows)


@_sum
def _scale_and_sum(values, factors):
    """Multiply values (n,) by factors in place; return their sum."""
    total = cast(0.0, values[0])
    for i in range(len(values)):
        values[i] *= factors[i]
        total += values[i]
    return total


@compiled
def _backward(links, flat, gradient, space, n, n_rows):
    """Write the gradients of all parameters, from that of the outputs in the last table."""
    stride = space.stride
    table = len(space.tables) - 1
    above = space.tables[table]
    side = 0
    for link in range(len(links) - 1, -1, -1):
        if links[link, OPCODE] != LINEAR:
            continue
        n_inputs = links[link, N_INPUTS]
        n_outputs = links[link, N_OUTPUTS]
        weight = links[link, WEIGHT]
        bias = links[link, BIAS]

        # From the gradient of what follows to that of the layer's outputs, whose sum over the rows
        # is the gradient of the bias.
        for feature in range(n_outputs):
            batch = slice(feature * stride, feature * stride + n_rows)
            total = _scale_and_sum(above[batch], space.slopes[table, batch])
            if bias >= 0:
                gradient[bias + feature] = total

        # The gradient of the weight: (H, n) @ (n, F) -> (H, F). The first layer's inputs lie row by
        # row in the workspace already, if nothing stands before it.
        table -= 1
        inputs = space.inputs if link == 0 else space.transposed
        if link > 0:
            transpose(
                space.tables[table], stride, inputs, space.row_stride, _padded(n_inputs, flat), n
            )
        shape = (n_outputs, n_inputs, n_rows)
        _multiply_exactly(gradient[weight:], above, inputs, shape, space)

        # The gradient of the layer's inputs: (F, H) @ (H, n) -> (F, n).
        if table > 0:
            below = space.gradients[side]
            shape = (n_inputs, n, n_outputs)
            multiply(below, stride, flat[weight:], 1, n_inputs, above, stride, shape, space.zero, 0)
            above = below
            side = 1 - side


@compiled
def _multiply_exactly(gradient, above, inputs, shape, space):
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
    """
    n_outputs, n_inputs, _ = shape
    stride = space.stride
    row_stride = space.row_stride
    if _padded(n_inputs, gradient) == n_inputs:
        multiply(gradient, n_inputs, above, stride, 1, inputs, row_stride, shape, space.zero, 0)
        return
    # Products are written in whole vectors: their padding must not reach the gradients.
    product = space.product
    multiply(product, row_stride, above, stride, 1, inputs, row_stride, shape, space.zero, 0)
    for i in range(n_outputs):
        copy(gradient[i * n_inputs :], product[i * row_stride :], n_inputs)


@_sum
def _penalize(links, flat, gradient, l1, l2):
    """Add the gradient of the penalties on all weights; return the penalties."""
    absolute = cast(0.0, flat[0])
    squares = cast(0.0, flat[0])
    for link in range(len(links)):
        if links[link, OPCODE] == LINEAR:
            start = links[link, WEIGHT]
            stop = start + links[link, N_OUTPUTS] * links[link, N_INPUTS]
            w = flat[start:stop]
            g = gradient[start:stop]
            for i in range(len(w)):
                absolute += abs(w[i])
                squares += w[i] * w[i]
                g[i] += l1 * np.sign(w[i]) + (l2 + l2) * w[i]
    # Where a penalty is 0, its sum may be infinite.
    l1_penalty = l1 * absolute if l1 > 0 else l1
    l2_penalty = l2 * squares if l2 > 0 else l2
    return l1_penalty + l2_penalty


@_kept
def train_steps(
    links,
    settings,
    loss,
    loss_option,
    rule,
    options,
    flat,
    gradient,
    first,
    second,
    t,
    data,
    order,
    sizes,
    rates,
    start,
):
    """Train a net by steps in place.

    Parameters
    ----------
    links : ndarray of int (n_links, 5)
        The layers.
    settings : ndarray of float (n_links, 2)
        Their settings.
    loss : int
        The opcode of the loss.
    loss_option : float
        What parametrizes the loss, 0 where nothing does.
    rule : int
        The opcode of the optimizer.
    options : ndarray of float
        Those of the optimizer, then l1 and l2.
    flat : ndarray (P,)
        The parameters.
    gradient : ndarray (P,)
        It gets the gradient of the last step.
    first, second : ndarray (P,)
        The state of the optimizer after `t` steps.
    t : int
    data : tuple of ndarray
        X, target and weight.
    order : ndarray of int
        The rows that the batches take, one batch after the other.
    sizes : ndarray of int (n_steps,)
        The sizes of the batches.
    rates : ndarray of float (n_steps,)
        The learning rates.
    start : tuple of int
        The seed of the fit, the epoch and the number of the first batch.

    Returns
    -------
    losses : ndarray (n_steps,)
        They end with the first that is not finite.
    """
    X, target, weight = data
    seed, epoch, first_batch = start
    n_features = X.shape[1]
    l1 = cast(options[-2], flat[0])
    l2 = cast(options[-1], flat[0])
    space = _make_workspace(links, n_features, sizes.max(), flat)
    losses = np.empty(len(sizes))
    row = 0
    for i in range(len(sizes)):
        rows = order[row : row + sizes[i]]
        n = _padded(len(rows), flat)
        row += len(rows)
        _gather(space, X, rows, n)
        step = (seed, epoch, first_batch + i)
        n_outputs = _forward(links, settings, flat, space, n_features, n, step)
        losses[i] = _compute_loss(loss, loss_option, space, n_outputs, target, weight, rows, n)
        _backward(links, flat, gradient, space, n, len(rows))
        if l1 > 0 or l2 > 0:
            losses[i] += _penalize(links, flat, gradient, l1, l2)
        update(rule, options, rates[i], t + i + 1, flat, gradient, first, second)
        if not math.isfinite(losses[i]):
            return losses[: i + 1]
    return losses
