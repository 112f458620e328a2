"""What the scores of the candidates tell."""

import numpy as np
from sklearn.base import is_classifier

from sktune.inspection.advice.context import least_significant
from sktune.inspection.advice.finding import Finding
from sktune.inspection.records.parameters import format_value

# So large a share of failed candidates wastes the search.
FAILED_SHARE = 0.1
# Rules of thumb. Of 60 random candidates, one is among the best 5 % with a probability of 95 %
# (1 - 0.95**60), for any number of parameters. 10 for each parameter is a rule for computer
# experiments (Loeppky et al. 2009); below 3, a search is hardly one.
PER_PARAMETER = 10
LEAST_PER_PARAMETER = 3
# Training scores between 0 and 1 that are so much above the test scores, ...
OVERFIT_GAP = 0.1
# ... by so many standard errors.
OVERFIT_ERRORS = 3
# The metrics of which 1 is the best, and a difference of a tenth is large.
_RATES = ("f1", "precision", "recall", "jaccard")
_AVERAGES = ("", "_macro", "_micro", "_weighted", "_samples")
SHARES = (
    *("accuracy", "balanced_accuracy", "average_precision", "matthews_corrcoef", "r2", "R²"),
    *("roc_auc", "roc_auc_ovr", "roc_auc_ovo", "roc_auc_ovr_weighted", "roc_auc_ovo_weighted"),
    *(rate + average for rate in _RATES for average in _AVERAGES),
)
PENALTIES = ("optimizer__weight_decay", "module__dropout", "l1", "l2", "alpha")
NADEAU = "Nadeau and Bengio 2003, Inference for the generalization error"


def find_failed_fits(context):
    """Count the fits that failed, and with what parameters."""
    record = context.record
    is_failed = ~np.isfinite(record.scores) & ~record.is_spared
    candidates = np.flatnonzero(is_failed.any(axis=1))
    if len(candidates) == 0:
        return None
    severity = "note"
    if len(candidates) >= FAILED_SHARE * record.n_candidates:
        severity = "warning"
    if is_failed.all():
        severity = "problem"
    first = record.params[candidates[0]].items()
    first = ", ".join(f"{name}={format_value(value)}" for name, value in first) or "no parameters"
    return Finding(
        code="failed-fits",
        severity=severity,
        title="Fits failed",
        text=f"{is_failed.sum()} of {(~record.is_spared).sum()} fits have no finite score, in "
        f"{len(candidates)} of {record.n_candidates} candidates{_where(record, candidates)}; the "
        f"first has {first}.",
        action="Set error_score='raise' to see why, or leave these values out of the space.",
        numbers={"n_failed": int(is_failed.sum()), "candidates": candidates.tolist()},
    )


def _where(record, candidates):
    """Return the ranges of numbers that all failed candidates have and few others do."""
    texts = []
    for parameter in record.parameters.values():
        if not parameter.is_number or not parameter.is_set[candidates].all():
            continue
        low, high = parameter.numbers[candidates].min(), parameter.numbers[candidates].max()
        is_within = (parameter.numbers >= low) & (parameter.numbers <= high)
        # at least two of three within the range have failed
        if len(candidates) < record.n_candidates and 3 * len(candidates) >= 2 * is_within.sum():
            texts.append(f"{parameter.name} from {low:.3g} to {high:.3g}")
    return f", at {' and '.join(texts)}" if texts else ""


def find_few_candidates(context):
    """Look for fewer candidates than the number of tuned parameters needs."""
    record = context.record
    n_parameters = len(record.parameters)
    # a candidate of a search by halving is in several rungs
    n_candidates = len(np.unique(record.tracks)) if record.rungs is not None else len(record.params)
    spaces = [parameter.space for parameter in record.parameters.values()]
    are_distributions = any(hasattr(space, "ppf") for space in spaces)
    n_combinations = np.prod([parameter.n_distinct for parameter in record.parameters.values()])
    if not are_distributions and n_candidates >= n_combinations:
        # a grid has tried all that it was given
        return None
    if n_candidates >= PER_PARAMETER * n_parameters:
        return None
    severity = "note"
    if n_candidates < LEAST_PER_PARAMETER * n_parameters:
        severity = "warning"
    return Finding(
        code="few-candidates",
        severity=severity,
        title="Few candidates",
        text=f"{n_candidates} candidates were tried for {n_parameters} tuned parameter(s).",
        action=f"Try at least {PER_PARAMETER * n_parameters}.",
        reference="Bergstra and Bengio 2012, Random search for hyper-parameter optimization",
        numbers={"n_candidates": n_candidates, "n_parameters": n_parameters},
    )


def find_fold_noise(context):
    """Look for candidates that cannot be told from the best."""
    record = context.record
    means = record.mean_scores
    is_other = np.isfinite(means) & (np.arange(len(means)) != context.best)
    # earlier rungs of a search by halving have scores by fewer resources
    others = np.flatnonzero(is_other & record.is_final)
    if len(others) < 2:
        return None
    least = least_significant(record.scores, context.best, others)
    is_close = means[context.best] - means[others] <= least
    if is_close.mean() < 0.5:
        return None
    count, noise = int(is_close.sum()), float(np.median(least))
    return Finding(
        code="fold-noise",
        severity="note",
        title="The folds differ more than the candidates",
        text=f"{count} of {len(others)} other candidates cannot be told from the best: only a "
        f"difference of about {noise:.3g} would be significant.",
        action="Use repeated cross-validation, or refit='one_standard_error'.",
        reference=NADEAU,
        numbers={"n_close": count, "n_others": len(others), "least_significant": noise},
    )


def find_score_gap(context):
    """Look for training scores far above test scores."""
    record = context.record
    train = record.train_scores[context.best].mean()
    test = record.mean_scores[context.best]
    error = record.standard_errors[context.best]
    gap = train - test
    if not gap > OVERFIT_GAP or (np.isfinite(error) and gap < OVERFIT_ERRORS * error):
        return None
    # A search that varies a penalty has weighed the gap against underfitting. Trees that are grown
    # fully fit their training rows by design.
    is_weighed = any(context.find_tuned(name) is not None for name in PENALTIES)
    return Finding(
        code="overfits",
        severity="note" if is_weighed or context.net is None else "warning",
        title="The best candidate overfits",
        text=f"Its {record.scoring} is {train:.3f} on training rows and {test:.3f} on test rows.",
        action="Try more weight decay λ or dropout, a smaller model, or more data.",
        numbers={"train_score": float(train), "test_score": float(test), "gap": float(gap)},
    )


def find_underfit(context):
    """Look for a best candidate that is no better than one that ignores X."""
    record = context.record
    dummy = dummy_score(record.scorer, context.y, context.estimator)
    score = record.mean_scores[context.best]
    error = record.standard_errors[context.best]
    error = error if np.isfinite(error) else 0.0
    if score - dummy > 2 * error:
        return None
    train = ""
    if record.train_scores is not None:
        train = f" (on training rows {record.train_scores[context.best].mean():.3g})"
    return Finding(
        code="underfits",
        severity="problem",
        title="No candidate is better than a constant prediction",
        text=f"The best {record.scoring} is {score:.3g} ± {error:.2g}{train}, that of a constant "
        f"prediction {dummy:.3g}.",
        action="Try a larger learning rate, more epochs, a larger model, or look at the data.",
        numbers={"score": float(score), "standard_error": float(error), "dummy": float(dummy)},
    )


def dummy_score(scoring, y, estimator=None):
    """Return the score of the best constant prediction; None if that is not known.

    Parameters
    ----------
    scoring : str
    y : array-like of shape (n_rows,)
    estimator : estimator object or None
        With a metric of classifiers only, it does not matter.
    """
    y = np.asarray(y)
    if y.ndim != 1 or len(y) == 0:
        return None
    if scoring in ("accuracy", "balanced_accuracy"):
        counts = np.unique(y, return_counts=True)[1]
        return counts.max() / len(y) if scoring == "accuracy" else 1 / len(counts)
    if scoring == "roc_auc":
        return 0.5
    if scoring in ("r2", "R²"):
        return 0.0
    if scoring == "neg_log_loss":
        shares = np.unique(y, return_counts=True)[1] / len(y)
        return float((shares * np.log(shares)).sum())
    is_class = estimator is not None and is_classifier(estimator)
    if is_class or not np.issubdtype(y.dtype, np.number):
        return None
    errors = {
        "neg_mean_squared_error": y.var(),
        "neg_root_mean_squared_error": y.std(),
        "neg_mean_absolute_error": np.abs(y - np.median(y)).mean(),
    }
    return -float(errors[scoring]) if scoring in errors else None


def find_optimism(context):
    """Look for a best score above the interval of the test score."""
    tuned = context.outer
    metric = context.record.metric
    test, optimism = _of(tuned.test_score_, metric), _of(tuned.optimism_, metric)
    low, high = _of(tuned.test_interval_, metric)
    if not test + optimism > high:
        return None
    return Finding(
        code="optimism",
        severity="warning",
        title="The search is optimistic",
        text=f"Its best score is {test + optimism:.4g}; the test score is {test:.4g} with an "
        f"interval from {low:.4g} to {high:.4g}.",
        action="Report the test score; use more folds or fewer candidates, and look for leaks.",
        reference="Cawley and Talbot 2010, On over-fitting in model selection",
        numbers={"test_score": test, "low": low, "high": high, "optimism": optimism},
    )


def _of(value, metric):
    """Return the value of a metric, where there is one for each."""
    return value[metric] if isinstance(value, dict) else value
