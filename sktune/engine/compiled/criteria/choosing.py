"""The criterion of a batch, by its opcode."""

from sktune.engine.compiled.criteria.classes import cross_entropy, find_epsilon
from sktune.engine.compiled.criteria.numbers import compare_numbers
from sktune.engine.compiled.opcodes import CROSS_ENTROPY, PROBABILITY_NLL
from sktune.engine.compiled.vectors import cast, inlined


@inlined
def compute_loss(loss, loss_option, space, n_outputs, target, weight, rows, n):
    """Return the mean loss of a batch, and replace the outputs by its gradient."""
    outputs = space.tables[-1]
    # two comparisons with a constant, which Numba decides before it compiles
    if loss == CROSS_ENTROPY or loss == PROBABILITY_NLL:  # noqa: PLR1714, SIM109
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
