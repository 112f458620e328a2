"""The criterion of a batch, by its opcode."""

from sktune.engine.compiled.criteria.classes import cross_entropy, find_epsilon
from sktune.engine.compiled.criteria.numbers import compare_numbers
from sktune.engine.compiled.opcodes import (
    CROSS_ENTROPY,
    MEAN,
    PROBABILITY_NLL,
    SUM,
    WEIGHTED_MEAN,
)
from sktune.engine.compiled.vectors.code import compiled, inlined
from sktune.engine.compiled.vectors.scalars import cast


@inlined
def compute_loss(loss, loss_options, space, n_outputs, target, weight, rows, n):
    """Return the loss of a batch, and replace the outputs by its gradient."""
    outputs = space.tables[-1]
    share = _find_share(loss_options[0], weight, rows)
    # two comparisons with a constant, which Numba decides before it compiles
    if loss == CROSS_ENTROPY or loss == PROBABILITY_NLL:  # noqa: PLR1714, SIM109
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
            loss_options[2:],
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
