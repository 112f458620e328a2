"""Training steps of one small net, compiled by Numba: an epoch in one call, from a core's cache.

Tables of a step lie feature by feature, ``(width, rows)``: vectors of the processor run over the
rows, whatever the width. They are padded to whole vectors, and the padding never reaches a
parameter. Parameters, gradients and moments are flat ``(P,)`` and lie as torch has them, each
weight ``(n_outputs, n_inputs)``.

The net comes as two tables. `links` (n_links, N_COLUMNS) holds integers, which
:mod:`sktune.engine.compiled.opcodes` describes. `settings` (n_links, 2) holds floating numbers: the
limit and the scale of dropout, what parametrizes an activation and 0, a factor and an offset, the
factors of a sum, or eps and the momentum of a normalisation.
"""

import math

import numpy as np
from numba import njit

from sktune.engine.compiled.criteria.classes import cross_entropy, find_epsilon
from sktune.engine.compiled.criteria.numbers import compare_numbers
from sktune.engine.compiled.gradients.clipping import clip
from sktune.engine.compiled.opcodes import (
    ABSOLUTE_ERROR,
    BINARY_CROSS_ENTROPY,
    CROSS_ENTROPY,
    FIRST_CLIP,
    FIRST_OPERATION,
    HUBER,
    MEAN,
    N_PENALIZED,
    NO_SLOT,
    OPCODE,
    OUT,
    POISSON,
    PROBABILITY_NLL,
    SLOT,
    SMOOTH_ABSOLUTE_ERROR,
    SQUARED_ERROR,
    SUM,
    WEIGHT,
    WEIGHTED_MEAN,
    WIDTH,
)
from sktune.engine.compiled.operations.choosing import apply_operation, trace_operation
from sktune.engine.compiled.operations.layers import apply_layers
from sktune.engine.compiled.operations.workspace import gather, make_workspace, padded
from sktune.engine.compiled.updates import (
    ADADELTA,
    ADAGRAD,
    ADAM,
    ADAMAX,
    NADAM,
    RADAM,
    RMSPROP,
    SGD,
    update,
)
from sktune.engine.compiled.vectors import OPTIONS, cast, compiled, inlined

# What a program reads from this module.
__all__ = [
    "ABSOLUTE_ERROR",
    "ADADELTA",
    "ADAGRAD",
    "ADAM",
    "ADAMAX",
    "BINARY_CROSS_ENTROPY",
    "CROSS_ENTROPY",
    "HUBER",
    "NADAM",
    "POISSON",
    "PROBABILITY_NLL",
    "RADAM",
    "RMSPROP",
    "SGD",
    "SMOOTH_ABSOLUTE_ERROR",
    "SQUARED_ERROR",
    "train_steps",
]

_kept = njit(fastmath={"contract"}, cache=True, **OPTIONS)
# A sum that is taken in any order.
_sum = njit(fastmath={"contract", "reassoc", "nsz"}, **OPTIONS)


@inlined
def _forward(links, settings, flat, state, space, n, n_rows, step):
    """Compute the outputs of a batch; return the number of outputs.

    `n_rows` is the number of rows, and n the same with padding. `step` is (seed of the fit, epoch,
    batch).
    """
    n_links = len(links)
    width = 0
    link = 0
    while link < n_links:
        apply_operation(links[link], settings[link], flat, state, space, n, n_rows)
        width = links[link, WIDTH]
        table = links[link, OUT]
        # The layers up to the next operation.
        link += 1
        first = link
        while link < n_links and links[link, OPCODE] < FIRST_OPERATION:
            link += 1
        if link > first:
            apply_layers(links[first:link], settings[first:link], space, table, width, n, step)
    return width


@compiled
def _compute_loss(loss, loss_options, space, n_outputs, target, weight, rows, n):
    """Return the loss of a batch, and replace the outputs by its gradient."""
    outputs = space.tables[-1]
    share = _find_share(loss_options[0], weight, rows)
    if loss in (CROSS_ENTROPY, PROBABILITY_NLL):
        eps = find_epsilon(outputs) if loss == PROBABILITY_NLL else cast(0.0, outputs[0])
        smoothing = cast(loss_options[1], outputs[0])
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
            cast(share, outputs[0]),
        )
    own = loss_options[1:]
    if loss_options[0] == MEAN:
        share /= n_outputs
    return compare_numbers(loss, own, outputs, space.stride, target, weight, rows, share)


@compiled
def _find_share(reduction, weight, rows):
    """Return by what the losses of rows are multiplied before they are summed up."""
    if reduction == SUM:
        return 1.0
    if reduction == WEIGHTED_MEAN:
        total = 0.0
        for row in rows:
            total += weight[row]
        return 1 / total
    return 1 / len(rows)


@inlined
def _backward(links, settings, flat, gradient, space, n, n_rows):
    """Write the gradients of all parameters, from that of the outputs in the last table."""
    has_layers = False
    for link in range(len(links) - 1, -1, -1):
        if links[link, OPCODE] < FIRST_OPERATION:
            has_layers = True
        else:
            if links[link, SLOT] != NO_SLOT:
                trace_operation(
                    links[link], settings[link], has_layers, flat, gradient, space, n, n_rows
                )
            has_layers = False


@_sum
def _penalize(links, flat, gradient, l1, l2):
    """Add the gradient of the penalties on all weights; return the penalties."""
    absolute = cast(0.0, flat[0])
    squares = cast(0.0, flat[0])
    for link in range(len(links)):
        if links[link, OPCODE] >= FIRST_OPERATION and links[link, N_PENALIZED] > 0:
            start = links[link, WEIGHT]
            stop = start + links[link, N_PENALIZED]
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
    loss_options,
    rule,
    options,
    flat,
    gradient,
    state,
    first,
    second,
    third,
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
    links : ndarray of int (n_links, N_COLUMNS)
        The operations and layers.
    settings : ndarray of float (n_links, 2)
        Their settings.
    loss : int
        The opcode of the loss.
    loss_options : ndarray of float
        How the losses of rows become one, and what parametrizes the loss.
    rule : int
        The opcode of the optimizer.
    options : ndarray of float
        Those of the optimizer, two numbers for each turn of clipping, and l1 and l2.
    flat : ndarray (P,)
        The parameters.
    gradient : ndarray (P,)
        It gets the gradient of the last step.
    state : ndarray (S,)
        What layers keep beside their parameters: of each batch normalisation, means, variances and
        the number of steps.
    first, second, third : ndarray (P,)
        The state of the optimizer after `t` steps.
    t : int
    data : tuple of ndarray
        X, target and weight. The target of a row may be two classes: see
        :func:`~sktune.engine.compiled.criteria.classes.cross_entropy`.
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
    l1 = cast(options[-2], flat[0])
    l2 = cast(options[-1], flat[0])
    space = make_workspace(links, sizes.max(), flat)
    losses = np.empty(len(sizes))
    row = 0
    for i in range(len(sizes)):
        rows = order[row : row + sizes[i]]
        n = padded(len(rows), flat)
        row += len(rows)
        gather(space, X, rows, n)
        step = (seed, epoch, first_batch + i)
        n_outputs = _forward(links, settings, flat, state, space, n, len(rows), step)
        losses[i] = _compute_loss(loss, loss_options, space, n_outputs, target, weight, rows, n)
        _backward(links, settings, flat, gradient, space, n, len(rows))
        if l1 > 0 or l2 > 0:
            losses[i] += _penalize(links, flat, gradient, l1, l2)
        if len(options) > FIRST_CLIP + 2:
            clip(options[FIRST_CLIP:-2], gradient)
        update(rule, options, rates[i], t + i + 1, flat, gradient, first, second, third)
        if not math.isfinite(losses[i]):
            return losses[: i + 1]
    return losses
