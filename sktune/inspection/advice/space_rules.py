"""What the space of a search tells: its edges, and what it leaves out."""

import numpy as np
from scipy import stats

from sktune.inspection.advice.context import ends_in, least_significant
from sktune.inspection.advice.finding import Finding

# The outer tenth of a distribution at either end is its edge.
EDGE = 0.1
# Fewer candidates inside show nothing, and so do fewer values of a list.
LEAST_INNER = 3
LEAST_VALUES = 3
# What Bengio (2012, section 3) and Goodfellow et al. (2016, section 11.4) tune first, with the
# severity of leaving it fixed: "the learning rate is perhaps the most important".
WORTH_TUNING = {
    "lr": "warning",
    "optimizer__weight_decay": "note",
    "batch_size": "note",
    "module__dropout": "note",
}
RATES = ("lr", "learning_rate_init", "learning_rate")
PENALTIES = ("optimizer__weight_decay", "alpha", "l2")


def find_best_at_edge(context):
    """Look for a best value at the edge of its range, and clearly better than those inside."""
    found = []
    for parameter in context.record.parameters.values():
        side = _find_side(context, parameter)
        if side is not None:
            found.append((parameter, side))
    if not found:
        return None
    texts = [f"{p.label}={p.numbers[context.best]:.3g} is at the {side} end" for p, side in found]
    return Finding(
        code="best-at-edge",
        severity="warning",
        title="The best value is at the edge of its range",
        text=f"In the best candidate, {'; '.join(texts)}, and clearly better than values inside.",
        action=_advise_to_extend(found),
        reference="Bengio 2012, section 3.3",
        numbers={p.name: float(p.numbers[context.best]) for p, _ in found},
    )


def _advise_to_extend(found):
    """Return what to do about parameters whose best values are at the edge: list of pairs."""
    action = "Extend the range beyond that end."
    if any(ends_in(p.name, "batch_size") and side == "upper" for p, side in found):
        action += " sktune.find_max_batch_size tells which batches fit into memory."
    return action


def _find_side(context, parameter):
    """Return the end of the range that the best value lies at; None if it lies inside."""
    if not parameter.is_number or not parameter.is_set[context.best]:
        return None
    positions = _find_positions(parameter)
    if positions is None:
        return None
    here = positions[context.best]
    is_inner = (positions >= EDGE) & (positions <= 1 - EDGE)
    if not (here < EDGE or here > 1 - EDGE):
        return None
    side = "lower" if here < EDGE else "upper"
    if _is_natural_end(parameter, side):
        return None
    record = context.record
    inner = np.flatnonzero(is_inner & np.isfinite(record.mean_scores) & record.is_final)
    if len(inner) < (LEAST_INNER if hasattr(parameter.space, "cdf") else 1):
        return None
    gains = record.mean_scores[context.best] - record.mean_scores[inner]
    least = least_significant(record.scores, context.best, inner)
    # nan, with a single split, is no evidence
    return side if (gains > least).all() else None


def _find_positions(parameter):
    """Return where each value lies in its range, from 0 to 1; None if there is no range.

    It is the distribution's own probability of less, or the place among the ordered values.
    """
    numbers = parameter.numbers
    if hasattr(parameter.space, "cdf"):
        # many candidates have equal numbers, and a distribution may take one at a time only
        distinct, places = np.unique(numbers, return_inverse=True)
        return _find_probabilities(parameter.space, distinct)[places]
    values = np.unique(numbers[np.isfinite(numbers)])
    if len(values) < LEAST_VALUES:
        return None
    if parameter.space is None:
        # candidates of an unknown range: the ends are those of its scale
        return _scale_positions(numbers, parameter.scale)
    places = np.searchsorted(values, numbers).astype(float)
    return np.where(np.isfinite(numbers), places / (len(values) - 1), np.nan)


def _find_probabilities(space, numbers):
    """Return a distribution's probability of less than each number: ndarray of float."""
    if isinstance(getattr(space, "dist", None), stats.rv_continuous | stats.rv_discrete):
        return space.cdf(numbers)
    return np.array([float(space.cdf(number)) for number in numbers])


def _scale_positions(numbers, scale):
    """Return where numbers lie between the smallest and the largest, on a scale."""
    if scale == "log":
        smallest = numbers[numbers > 0].min()
        numbers = np.log(np.maximum(numbers, smallest))
    low, high = np.nanmin(numbers), np.nanmax(numbers)
    return (numbers - low) / (high - low)


def _is_natural_end(parameter, side):
    """Tell whether a range cannot be extended: below zero, or a share above 1."""
    numbers = parameter.numbers
    if hasattr(parameter.space, "ppf"):
        low, high = (float(parameter.space.ppf(share)) for share in (0.0, 1.0))
    else:
        low, high = np.nanmin(numbers), np.nanmax(numbers)
    if side == "lower":
        # counts, such as of layers or rows, begin with 1
        are_counts = all(float(number).is_integer() for number in numbers[np.isfinite(numbers)])
        return low == 0 or (are_counts and low <= 1)
    return high == 1 and parameter.scale == "linear"


def find_fixed(context):
    """Look for parameters of a network that are worth tuning and are fixed."""
    tuned = {full for params in context.record.params for full in params}
    fixed = [name for name in WORTH_TUNING if not any(ends_in(full, name) for full in tuned)]
    if not _takes_dropout(context.net) and "module__dropout" in fixed:
        fixed.remove("module__dropout")
    if not fixed:
        return None
    is_serious = any(WORTH_TUNING[name] == "warning" for name in fixed)
    return Finding(
        code="fixed-parameters",
        severity="warning" if is_serious else "note",
        title="Parameters worth tuning are fixed",
        text=f"The search does not vary {', '.join(fixed)}.",
        action="Add them to the space; sktune.default_space(net) has ranges.",
        reference="Goodfellow et al. 2016, Deep learning, section 11.4",
        numbers={"fixed": fixed},
    )


def _takes_dropout(net):
    """Tell whether the network's module has a parameter called dropout."""
    module = getattr(net, "module", None)
    code = getattr(getattr(module, "__init__", None), "__code__", None)
    return code is not None and "dropout" in code.co_varnames[: code.co_argcount + 20]


def find_tuned_apart(context):
    """Look for a learning rate and a penalty that no part of the search varies together."""
    rates = _parts_that_vary(context.record, RATES)
    penalties = _parts_that_vary(context.record, PENALTIES)
    if not rates or not penalties or rates & penalties:
        return None
    return Finding(
        code="tuned-apart",
        severity="warning",
        title="α and λ are tuned apart",
        text="No part of the search varies the learning rate and the penalty together: "
        f"{_list(rates)} vary the first, {_list(penalties)} the second.",
        action="Add a part that varies both, since the best λ depends on α.",
        reference="Loshchilov and Hutter 2019, Decoupled weight decay regularization, figure 2",
        numbers={"rates": sorted(rates), "penalties": sorted(penalties)},
    )


def _parts_that_vary(record, names):
    """Return the stages, or sets of parameters in a list of spaces, that vary one of the names."""
    if record.stages is not None:
        parts = [str(stage) for stage in record.stages]
    else:
        parts = [" + ".join(sorted(params)) for params in record.params]
    values = {}
    for part, params in zip(parts, record.params, strict=True):
        for full, value in params.items():
            if any(ends_in(full, name) for name in names):
                values.setdefault((part, full), set()).add(str(value))
    return {part for (part, _), different in values.items() if len(different) > 1}


def _list(parts):
    return ", ".join(repr(part) for part in sorted(parts))


def find_batch_size_alone(context):
    """Look for a batch size that is tuned while the learning rate is fixed."""
    if context.find_tuned("batch_size") is None or context.find_tuned("lr") is not None:
        return None
    if context.value_of("lr_scaling") is not None:
        return None
    return Finding(
        code="batch-size-alone",
        severity="note",
        title="The batch size is tuned at a fixed learning rate",
        text=f"With lr={context.value_of('lr')} for all sizes, the best size is the one that has "
        "the noise that this rate needs.",
        action="Tune lr as well, or set lr_scaling='linear'.",
        reference="Goyal et al. 2017, Accurate, large minibatch SGD; Smith and Le 2018",
        numbers={"lr": context.value_of("lr")},
    )
