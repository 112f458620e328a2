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

from sktune.engine.compiled.entries.parts import (
    SOURCES,
    call_apply,
    call_clip,
    call_layer,
    call_loss,
    call_penalty,
    call_trace,
    call_update,
    load_part,
)
from sktune.engine.compiled.entries.products import Products
from sktune.engine.compiled.opcodes import (
    ABSOLUTE_ERROR,
    BINARY_CROSS_ENTROPY,
    CROSS_ENTROPY,
    FIRST_CLIP,
    FIRST_OPERATION,
    HUBER,
    NO_SLOT,
    OPCODE,
    OUT,
    POISSON,
    PROBABILITY_NLL,
    SLOT,
    SMOOTH_ABSOLUTE_ERROR,
    SQUARED_ERROR,
    WIDTH,
)
from sktune.engine.compiled.operations.workspace import gather, make_workspace, padded
from sktune.engine.compiled.updates import (
    ADADELTA,
    ADAGRAD,
    ADAM,
    ADAMAX,
    AMSGRAD,
    CENTERED_RMSPROP,
    NADAM,
    RADAM,
    RMSPROP,
    SGD,
)
from sktune.engine.compiled.vectors.code import FASTMATH, OPTIONS, inlined
from sktune.engine.compiled.vectors.scalars import cast

# What a program reads from this module.
__all__ = [
    "ABSOLUTE_ERROR",
    "ADADELTA",
    "ADAGRAD",
    "ADAM",
    "ADAMAX",
    "AMSGRAD",
    "BINARY_CROSS_ENTROPY",
    "CENTERED_RMSPROP",
    "CROSS_ENTROPY",
    "HUBER",
    "NADAM",
    "POISSON",
    "PROBABILITY_NLL",
    "Products",
    "RADAM",
    "RMSPROP",
    "SGD",
    "SMOOTH_ABSOLUTE_ERROR",
    "SQUARED_ERROR",
    "load_part",
    "make_workspace",
    "train_steps",
]

_kept = njit(fastmath=FASTMATH, cache=True, **OPTIONS)


@inlined
def _forward(links, calls, settings, flat, state, space, n, n_rows, step):
    """Compute the outputs of a batch; return the number of outputs.

    `n_rows` is the number of rows, and n the same with padding. `step` is (seed of the fit, epoch,
    batch).
    """
    width = 0
    table = 0
    has_slope = False
    for link in range(len(links)):
        address = calls[link, 0]
        if links[link, OPCODE] >= FIRST_OPERATION:
            if address != 0:
                call_apply(address, (flat, links[link], settings[link], state, space, n, n_rows))
            width = links[link, WIDTH]
            table = links[link, OUT]
            has_slope = False
        else:
            # A layer in place on what the operation before it has written.
            if not has_slope:
                slope = space.slopes[table, : width * space.stride]
                for i in range(len(slope)):
                    slope[i] = cast(1.0, slope[0])
                has_slope = True
            call_layer(address, (flat, links[link], settings[link], space, table, width, n, step))
    return width


@inlined
def _backward(links, calls, settings, flat, gradient, space, n, n_rows):
    """Write the gradients of all parameters, from that of the outputs in the last table."""
    has_layers = False
    for link in range(len(links) - 1, -1, -1):
        if links[link, OPCODE] < FIRST_OPERATION:
            has_layers = True
        else:
            if links[link, SLOT] != NO_SLOT:
                call_trace(
                    calls[link, 1],
                    (flat, links[link], settings[link], has_layers, gradient, space, n, n_rows),
                )
            has_layers = False


def _keep(sources):
    """Return the steps as a function that Numba keeps on disk until one of the sources changes."""

    @_kept
    def train_steps(
        links,
        calls,
        settings,
        of_step,
        loss_options,
        options,
        flat,
        gradient,
        state,
        first,
        second,
        third,
        space,
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
        calls : ndarray of int (n_links, 2)
            The addresses of their parts, forward and backward; 0 where there is nothing to do.
        settings : ndarray of float (n_links, 2)
            Their settings.
        of_step : tuple of int
            The addresses of the loss, of the optimizer, of the penalties and of clipping.
        loss_options : ndarray of float
            How the losses of rows become one, and what parametrizes the loss.
        options : ndarray of float
            Those of the optimizer, two numbers for each turn of clipping, and l1 and l2.
        flat : ndarray (P,)
            The parameters.
        gradient : ndarray (P,)
            It gets the gradient of the last step.
        state : ndarray (S,)
            What layers keep beside their parameters: of each batch normalisation, means, variances
            and the number of steps.
        first, second, third : ndarray (P,)
            The state of the optimizer after `t` steps.
        space : Workspace
            For the largest of the batches, or larger ones.
        t : int
        data : tuple of ndarray
            X, target and weight. The target of a row may be several numbers: see
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
        _ = sources
        X, target, weight = data
        loss, rule, penalty, clip = of_step
        seed, epoch, first_batch = start
        l1 = cast(options[-2], flat[0])
        l2 = cast(options[-1], flat[0])
        losses = np.empty(len(sizes))
        row = 0
        for i in range(len(sizes)):
            rows = order[row : row + sizes[i]]
            n = padded(len(rows), flat)
            row += len(rows)
            gather(space, X, rows, n)
            step = (seed, epoch, first_batch + i)
            n_outputs = _forward(links, calls, settings, flat, state, space, n, len(rows), step)
            losses[i] = call_loss(
                loss, (flat, loss_options, space, n_outputs, target, weight, rows, n)
            )
            _backward(links, calls, settings, flat, gradient, space, n, len(rows))
            if l1 > 0 or l2 > 0:
                losses[i] += call_penalty(penalty, (flat, links, gradient, l1, l2))
            if len(options) > FIRST_CLIP + 2:
                call_clip(clip, (flat, options[FIRST_CLIP:-2], gradient))
            call_update(rule, (flat, options, rates[i], t + i + 1, gradient, first, second, third))
            if not math.isfinite(losses[i]):
                return losses[: i + 1]
        return losses

    return train_steps


train_steps = _keep(SOURCES)
