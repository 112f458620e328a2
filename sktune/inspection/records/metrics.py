"""The metrics of a search: which there are, which is the main one, and who computes them."""

from collections.abc import Mapping
from functools import partial

from sklearn.base import is_classifier, is_regressor

from sktune.inspection.records.searches import find_search


def list_metrics(search):
    """Return the names of the metrics that a search, or its results, has: list of str."""
    core = find_search(search)
    return names_of_metrics(core if isinstance(core, Mapping) else core.cv_results_)


def find_main_metric(search):
    """Return the metric that a search refits by; of several without such a one, the first."""
    core = find_search(search)
    known = list_metrics(core)
    return _find_refitted(core, known) or known[0]


def names_of_metrics(results):
    """Return the names of the metrics in a ``cv_results_``."""
    start = "mean_test_"
    return [name.removeprefix(start) for name in results if str(name).startswith(start)]


def _find_refitted(search, known):
    """Return which of several metrics a search refits by; None if it is not known."""
    refit = getattr(search, "refit", None)
    # of OneStandardError, which is a callable
    refit = getattr(refit, "metric", refit)
    return refit if isinstance(refit, str) and refit in known else None


def choose_metric(results, search, metric):
    """Return the name of the metric to read."""
    known = names_of_metrics(results)
    if metric is not None:
        if metric not in known:
            raise ValueError(f"metric must be one of {sorted(known)}, got {metric!r}")
        return metric
    if len(known) == 1:
        return known[0]
    refitted = _find_refitted(search, known)
    if refitted is not None:
        return refitted
    raise ValueError(f"metric must be given where there are several, one of {sorted(known)}")


def read_scorer(search, metric):
    """Return what scores by one metric of a fitted search: a callable of (estimator, X, y)."""
    scorer = search.scorer_
    if isinstance(scorer, Mapping):
        return scorer[metric]
    return partial(_score_by, scorer, metric)


def _score_by(scorer, metric, estimator, X, y=None):
    """Return the score by one metric, of a scorer that may return a dict of several."""
    score = scorer(estimator, X, y)
    return score[metric] if isinstance(score, Mapping) else score


def name_scoring(search, metric):
    """Return how the metric is called in texts."""
    scoring = getattr(search, "scoring", None)
    if metric != "score":
        return metric
    if isinstance(scoring, str):
        return scoring
    if scoring is None and search is not None:
        # the estimator's own `score`
        if is_classifier(search.estimator):
            return "accuracy"
        if is_regressor(search.estimator):
            return "R²"
    return "score"


def name_scorer(search, metric):
    """Return the name of scikit-learn's scorer behind a metric; ``""`` if there is none."""
    scoring = getattr(search, "scoring", None)
    if isinstance(scoring, Mapping):
        # what is called accuracy may be another function
        return scoring[metric] if isinstance(scoring.get(metric), str) else ""
    name = name_scoring(search, metric)
    return "" if name == "score" else name
