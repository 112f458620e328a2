"""Losses of the compiled kernels that compare outputs with targets number by number.

To add one, write its two lines as a function like ``_squared``, and give it an opcode, a case of
``_compare_column`` and an entry in :mod:`sktune.engine.compiled.criteria.reading`.
"""

import math

import numpy as np

from sktune.engine.compiled.activations.exponentials import (
    exponential,
    find_largest_exponent,
    logarithm_of_1_plus,
)
from sktune.engine.compiled.opcodes import (
    ABSOLUTE_ERROR,
    BINARY_CROSS_ENTROPY,
    HUBER,
    POISSON,
    SMOOTH_ABSOLUTE_ERROR,
    SQUARED_ERROR,
)
from sktune.engine.compiled.vectors.code import compiled, inlined
from sktune.engine.compiled.vectors.scalars import cast, choose, multiply_add


@inlined
def compare_numbers(opcode, options, outputs, stride, target, weight, rows, share):
    """Return the loss of rows with targets in columns; replace the outputs by its gradient.

    Parameters
    ----------
    opcode : int
    options : ndarray of float (1,) or (n_outputs,)
        What parametrizes the loss: delta, beta, or the weight of positive targets, which each
        column may have for itself.
    outputs : ndarray
        They lie feature by feature, `stride` numbers apart.
    stride : int
    target : ndarray (n_all, n_outputs)
    weight : ndarray (n_all,)
    rows : ndarray of int (n_rows,)
    share : float
        What the losses of the rows are multiplied by before they are summed up.
    """
    n_outputs = target.shape[1]
    loss = cast(0.0, outputs[0])
    share = cast(share, outputs[0])
    for c in range(n_outputs):
        option = cast(options[c % len(options)], outputs[0])
        values = outputs[c * stride : c * stride + len(rows)]
        loss += _compare_column(opcode, option, values, target[:, c], weight, rows, share)
    return loss * share


@inlined
def _compare_column(opcode, option, values, target, weight, rows, share):
    """Return the sum of the losses of a column, and write its gradient times share."""
    if opcode == SQUARED_ERROR:
        return _squared(values, target, weight, rows, share)
    if opcode == ABSOLUTE_ERROR:
        return _absolute(values, target, weight, rows, share)
    if opcode == HUBER:
        return _huber(option, values, target, weight, rows, share)
    if opcode == SMOOTH_ABSOLUTE_ERROR:
        # Huber's loss divided by its delta
        one = cast(1.0, option)
        return _huber(option, values, target, weight, rows, share / option) * (one / option)
    if opcode == BINARY_CROSS_ENTROPY:
        return _binary(option, values, target, weight, rows, share)
    if opcode == POISSON:
        return _poisson(values, target, weight, rows, share)
    raise ValueError("a criterion's opcode must be one of sktune.engine.compiled.opcodes")


@compiled
def _squared(values, target, weight, rows, share):
    loss = cast(0.0, share)
    for i in range(len(rows)):
        error = values[i] - target[rows[i]]
        loss += weight[rows[i]] * error * error
        values[i] = (error + error) * weight[rows[i]] * share
    return loss


@compiled
def _absolute(values, target, weight, rows, share):
    loss = cast(0.0, share)
    for i in range(len(rows)):
        error = values[i] - target[rows[i]]
        loss += weight[rows[i]] * abs(error)
        values[i] = np.sign(error) * weight[rows[i]] * share
    return loss


@compiled
def _huber(delta, values, target, weight, rows, share):
    """Compute the loss of Huber (1964): squares up to delta, and straight lines beyond."""
    half = cast(0.5, share)
    loss = cast(0.0, share)
    for i in range(len(rows)):
        error = values[i] - target[rows[i]]
        size = abs(error)
        is_small = size < delta
        row_loss = half * error * error if is_small else delta * (size - half * delta)
        slope = error if is_small else delta * np.sign(error)
        loss += weight[rows[i]] * row_loss
        values[i] = slope * weight[rows[i]] * share
    return loss


@compiled
def _binary(positive, values, target, weight, rows, share):
    """Compute the cross entropy of a probability whose logit is the output."""
    zero = cast(0.0, share)
    one = cast(1.0, share)
    loss = zero
    largest = find_largest_exponent(values)
    # exp(-abs(x)), and log(1 + exp(-x)) without overflow. LLVM makes vectors of a loop that adds
    # nothing up.
    lows = np.empty_like(values)
    softpluses = np.empty_like(values)
    for i in range(len(values)):
        x = values[i]
        scale, rest = exponential(-abs(x), largest)
        low = multiply_add(scale, rest, scale)
        lows[i] = low
        softpluses[i] = logarithm_of_1_plus(low) + choose(x < zero, -x, zero)
    for i in range(len(rows)):
        x = values[i]
        low = lows[i]
        t = target[rows[i]]
        # the probability of 0
        opposite = choose(x < zero, one, low) / (one + low)
        factor = one + (positive - one) * t
        loss += weight[rows[i]] * ((one - t) * x + factor * softpluses[i])
        values[i] = ((one - t) - factor * opposite) * weight[rows[i]] * share
    return loss


@compiled
def _poisson(values, target, weight, rows, share):
    """Compute the likelihood of counts, the logarithms of whose means are the outputs."""
    loss = cast(0.0, share)
    for i in range(len(rows)):
        x = values[i]
        t = target[rows[i]]
        mean = cast(math.exp(x), share)
        loss += weight[rows[i]] * (mean - t * x)
        values[i] = (mean - t) * weight[rows[i]] * share
    return loss
