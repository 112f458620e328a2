"""The table of all rules, and what each needs."""

from collections.abc import Callable
from dataclasses import dataclass

from sktune.inspection.advice import curve_rules, data_rules, score_rules, space_rules


@dataclass(frozen=True)
class Rule:
    """A check of one kind.

    Parameters
    ----------
    code : str
        The code of its findings.
    check : callable
        Takes a Context and returns a Finding or None.
    needs : tuple of str
        Keys of NEEDS.
    """

    code: str
    check: Callable
    needs: tuple = ()


RULES = [
    Rule("lr-too-small", curve_rules.find_lr_too_small, ("curves",)),
    Rule("lr-too-large", curve_rules.find_lr_too_large, ("curves",)),
    Rule("diverged", curve_rules.find_diverged, ("curves",)),
    Rule("still-improving", curve_rules.find_still_improving, ("curves",)),
    Rule("stopped-early", curve_rules.find_stopped_early, ("curves",)),
    Rule("overfits-late", curve_rules.find_rising_validation_loss, ("curves", "validation")),
    Rule("loss-gap", curve_rules.find_loss_gap, ("curves", "validation")),
    Rule("noisy-batches", curve_rules.find_noisy_batches, ("curves",)),
    Rule("failed-fits", score_rules.find_failed_fits, ("search",)),
    Rule("few-candidates", score_rules.find_few_candidates, ("search",)),
    Rule("fold-noise", score_rules.find_fold_noise, ("search", "best", "splits")),
    Rule("overfits", score_rules.find_score_gap, ("search", "best", "train scores", "share")),
    Rule("underfits", score_rules.find_underfit, ("search", "best", "y", "dummy")),
    Rule("best-at-edge", space_rules.find_best_at_edge, ("search", "best", "splits")),
    Rule("fixed-parameters", space_rules.find_fixed, ("search", "net")),
    Rule("tuned-apart", space_rules.find_tuned_apart, ("search",)),
    Rule("batch-size-alone", space_rules.find_batch_size_alone, ("search", "net")),
    Rule("unscaled", data_rules.find_unscaled, ("X",)),
    Rule("full-batches", data_rules.find_full_batches, ("net", "X")),
    Rule("unbalanced", data_rules.find_unbalanced, ("search", "y")),
    Rule(
        "boosting-better",
        data_rules.find_boosting_better,
        ("search", "best", "splits", "X", "y", "compare", "same folds"),
    ),
    Rule("optimism", score_rules.find_optimism, ("search", "holdout")),
]

# By name: whether a context has it, and what is said where it has not.
NEEDS = {
    "search": (lambda c: c.record is not None, "needs a search"),
    "best": (lambda c: c.best is not None, "no candidate has a score"),
    "net": (lambda c: c.net is not None, "needs a network"),
    "curves": (
        lambda c: c.curves is not None,
        "no curves because no network was trained in a group",
    ),
    "validation": (
        lambda c: c.curves is not None and c.curves.has_validation,
        "no losses on validation rows",
    ),
    "same folds": (
        data_rules.has_same_folds,
        "needs the search itself, numeric X and one column y, and folds without groups",
    ),
    "dummy": (
        lambda c: score_rules.dummy_score(c.record.scorer, c.y, c.estimator) is not None,
        "the score of a constant prediction is not known",
    ),
    "share": (
        lambda c: c.record.scorer in score_rules.SHARES,
        "needs a metric of which 1 is the best",
    ),
    "X": (lambda c: c.X is not None, "needs X"),
    "y": (lambda c: c.y is not None, "needs y"),
    "train scores": (
        lambda c: c.record is not None and c.record.train_scores is not None,
        "needs return_train_score=True",
    ),
    "splits": (lambda c: c.record is not None and c.record.n_splits > 1, "needs several splits"),
    "holdout": (lambda c: hasattr(c.outer, "optimism_"), "needs a HoldoutSearch"),
    "compare": (lambda c: c.compare, "needs compare=True"),
}


def find_missing(rule, context):
    """Return why a rule cannot be checked; None if it can."""
    for need in rule.needs:
        has_it, reason = NEEDS[need]
        if not has_it(context):
            return reason
    return None
