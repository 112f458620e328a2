"""Criteria: the loss of a batch, and the gradient of the outputs."""

import triton
import triton.language as tl

from sktune.engine.compiled import opcodes

CROSS_ENTROPY = tl.constexpr(opcodes.CROSS_ENTROPY)
SQUARED_ERROR = tl.constexpr(opcodes.SQUARED_ERROR)
ABSOLUTE_ERROR = tl.constexpr(opcodes.ABSOLUTE_ERROR)
HUBER = tl.constexpr(opcodes.HUBER)
SMOOTH_ABSOLUTE_ERROR = tl.constexpr(opcodes.SMOOTH_ABSOLUTE_ERROR)
BINARY_CROSS_ENTROPY = tl.constexpr(opcodes.BINARY_CROSS_ENTROPY)
POISSON = tl.constexpr(opcodes.POISSON)


@triton.jit
def _compare_classes(outputs, classes, columns, n_columns, smoothing):
    """Return the cross entropies of rows (R,), and their gradient (R, C).

    With smoothing (Szegedy et al. 2016, section 7) it is that share of the mean over all classes.
    """
    is_class = columns[None, :] < n_columns
    logits = tl.where(is_class, outputs, float("-inf"))
    largest = tl.max(logits, 1)
    powers = tl.exp(logits - largest[:, None])
    total = tl.sum(powers, 1)
    logs = outputs - (largest + tl.log(total))[:, None]
    is_own = columns[None, :] == classes[:, None]
    share = tl.where(is_own, 1 - smoothing, 0.0).to(outputs.dtype) + smoothing / n_columns
    share = tl.where(is_class, share, 0.0)
    # a share of 0 has no loss, whatever its logarithm
    losses = -tl.sum(tl.where(share == 0, 0.0, share * logs), 1)
    return losses, powers / total[:, None] - share


@triton.jit
def _compare_numbers(outputs, targets, option, LOSS: tl.constexpr):
    """Return the losses of numbers, and their derivatives."""
    error = outputs - targets
    size = tl.abs(error)
    sign = tl.where(error > 0, 1.0, tl.where(error < 0, -1.0, error)).to(outputs.dtype)
    if LOSS == SQUARED_ERROR:
        losses = error * error
        slopes = 2 * error
    elif LOSS == ABSOLUTE_ERROR:
        losses = size
        slopes = sign
    elif LOSS == HUBER:
        # Huber 1964: squares up to the option, and straight lines beyond
        is_small = size < option
        losses = tl.where(is_small, 0.5 * error * error, option * (size - 0.5 * option))
        slopes = tl.where(is_small, error, option * sign)
    elif LOSS == SMOOTH_ABSOLUTE_ERROR:
        is_small = size < option
        losses = tl.where(is_small, 0.5 * error * error / option, size - 0.5 * option)
        slopes = tl.where(is_small, error / option, sign)
    elif LOSS == BINARY_CROSS_ENTROPY:
        # the option is the weight of positive targets
        low = tl.exp(-tl.abs(outputs))
        softplus = tl.log(1 + low) + tl.where(outputs < 0, -outputs, 0.0)
        # the probability of 0
        opposite = tl.where(outputs < 0, 1.0, low) / (1 + low)
        factor = 1 + (option - 1) * targets
        losses = (1 - targets) * outputs + factor * softplus
        slopes = (1 - targets) - factor * opposite
    else:
        tl.static_assert(LOSS == POISSON)
        mean = tl.exp(outputs)
        losses = mean - targets * outputs
        slopes = mean - targets
    return losses, slopes


@triton.jit
def compare(
    outputs_at,
    slopes_at,
    n_rows,
    n_columns,
    order,
    target,
    weight,
    option,
    LOSS: tl.constexpr,
    WEIGHTED: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """Return the mean loss of a batch; multiply the slopes of the outputs by its gradient.

    Parameters
    ----------
    outputs_at, slopes_at : pointer
        Tables (n_rows, n_columns).
    order : pointer
        Where the rows of the batch are among all targets.
    target : pointer
        Classes (N,), or numbers (N, n_columns).
    weight : pointer
        Of all rows (N,), if they are `WEIGHTED`.
    option : pointer
        To what parametrizes the criterion.
    ROWS : int
        How many rows are compared at once.
    COLUMNS : int
        A power of 2, at least `n_columns`.
    """
    dtype: tl.constexpr = outputs_at.dtype.element_ty
    columns = tl.arange(0, COLUMNS)
    option = tl.load(option)
    one = tl.full((), 1.0, dtype)
    total = tl.zeros((ROWS,), dtype)
    for start in range(0, n_rows, ROWS):
        rows = start + tl.arange(0, ROWS)
        is_row = rows < n_rows
        is_there = is_row[:, None] & (columns[None, :] < n_columns)
        at = rows[:, None] * n_columns + columns[None, :]
        outputs = tl.load(outputs_at + at, is_there, other=0.0)
        places = tl.load(order + rows, is_row, other=0).to(tl.int64)
        if LOSS == CROSS_ENTROPY:
            classes = tl.load(target + places, is_row, other=0)
            losses, slopes = _compare_classes(outputs, classes, columns, n_columns, option)
            share = one / n_rows
        else:
            targets_at = target + places[:, None] * n_columns + columns[None, :]
            targets = tl.load(targets_at, is_there, other=0.0).to(dtype)
            found, slopes = _compare_numbers(outputs, targets, option, LOSS)
            losses = tl.sum(tl.where(is_there, found, 0.0), 1)
            share = one / (n_rows * n_columns)
        factor = tl.where(is_row, share, 0.0)
        if WEIGHTED:
            factor = factor * tl.load(weight + places, is_row, other=0.0).to(dtype)
        total += tl.where(is_row, losses * factor, 0.0)
        before = tl.load(slopes_at + at, is_there, other=0.0)
        tl.store(slopes_at + at, before * slopes * factor[:, None], is_there)
    return tl.sum(total, 0)
