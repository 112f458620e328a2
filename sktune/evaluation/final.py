"""The scores beside those of a search: of its estimator as given, and of the best model.

The former is cross-validated; the latter is computed once, on the sealed rows.
"""

import warnings
from collections.abc import Mapping

import numpy as np
from sklearn.exceptions import FitFailedWarning
from sklearn.metrics import check_scoring

from sktune.bridge.seam import route_params
from sktune.evaluation.bootstrap import (
    Clock,
    Resampler,
    ResponseView,
    by_metric,
    call_scorer,
    draw_rows,
    percentile_interval,
)
from sktune.evaluation.sealing import count_rows
from sktune.evaluation.searches import find_best, pass_to_last, scorer_params, search_as_given
from sktune.search.ensembles.scoring import find_scorer

# Seconds in calls of a scorer above which the bootstrap warns.
_PATIENCE = 10.0


def score_baseline(search, X, y, params):
    """Return the mean score of a search's estimator as given, on the splits of the search.

    Parameters
    ----------
    search : estimator object
        A fitted search, or a Pipeline ending in one.
    X, y : table and column searched on
    params : dict
        What ``search.fit`` got beside X and y.

    Returns
    -------
    score : float, or dict of float by metric
        nan, with a FitFailedWarning, if the estimator cannot be fitted.
    """
    core, X, params = pass_to_last(search, X, params)
    try:
        results = search_as_given(core).fit(X, y, **params).cv_results_
    except ValueError as error:
        if getattr(core, "error_score", None) == "raise":
            raise
        warnings.warn(f"no baseline score: {error}", FitFailedWarning, stacklevel=2)
        return _collapse({metric: np.nan for metric in _list_metrics(core)})
    return _collapse({name: float(results[f"mean_test_{name}"][0]) for name in _names_in(results)})


def _names_in(results):
    """Return the names of the metrics in ``cv_results_``."""
    prefix = "mean_test_"
    return [name.removeprefix(prefix) for name in results if name.startswith(prefix)]


def _list_metrics(core):
    """Return the names of a search's metrics."""
    names = _names_in(getattr(core, "cv_results_", {}))
    if names:
        return names
    scoring = getattr(core, "scoring", None)
    is_multiple = isinstance(scoring, (Mapping, list, tuple, set, frozenset))
    return list(scoring) if is_multiple else ["score"]


def _collapse(scores):
    """Return the score of a single metric as a number, and several scores as they are."""
    return scores["score"] if scores.keys() == {"score"} else scores


def score_sealed(search, X, y, params, **settings):
    """Return the attributes of HoldoutSearch that follow from the sealed rows.

    Parameters
    ----------
    search : estimator object
        A fitted search, or a Pipeline ending in one.
    X, y : the sealed rows
    params : dict
        What ``search.fit`` got beside X and y, at the sealed rows.
    **settings
        Further arguments of :func:`evaluate_once`.

    Returns
    -------
    attributes : dict
        ``test_score_``, ``test_interval_`` and ``optimism_``; of a search with an ensemble also
        ``ensemble_test_score_`` and ``ensemble_test_interval_``.
    """
    core, X, params = pass_to_last(search, X, params)
    score, interval = evaluate_once(
        core.best_estimator_,
        X,
        y,
        scoring=getattr(core, "scoring", None),
        params=scorer_params(core, params),
        **settings,
    )
    optimism = {}
    for name, value in by_metric(score).items():
        optimism[name] = find_best(core, "mean", name) - value
    if not isinstance(score, dict):
        optimism = optimism["score"]
    found = {"test_score_": score, "test_interval_": interval, "optimism_": optimism}
    if hasattr(core, "ensemble_"):
        found |= _score_ensemble(core, X, y, params, settings)
    return found


def _score_ensemble(core, X, y, params, settings):
    """Return score and interval of the ensemble of a search, by the metric that chose it."""
    scorer = find_scorer(core)
    _, score_params = route_params(core, scorer, params)
    scoring = None if core.scoring is None else scorer
    score, interval = evaluate_once(
        core.ensemble_, X, y, scoring=scoring, params=score_params, **settings
    )
    if isinstance(score, dict):
        score = score[core.refit]
        interval = interval[core.refit]
    return {"ensemble_test_score_": score, "ensemble_test_interval_": interval}


def evaluate_once(
    model, X, y, *, scoring, params, groups, n_resamples, confidence_level, seed, patience=_PATIENCE
):
    """Score a fitted model on rows that it has never seen, with a bootstrap interval.

    The responses of the model to `X` are kept, and resampled with the rows by the percentile
    bootstrap (Efron and Tibshirani 1993, chapter 13). With `groups`, whole groups are resampled
    (Davison and Hinkley 1997, section 3.8).

    Common metrics are computed from terms of the rows. Any other scorer is called for each
    resample, at most `n_resamples` times.

    Parameters
    ----------
    model : estimator object
        Fitted.
    X, y : table of shape (n_rows, n_features), and array-like of shape (n_rows, ...) or None
    scoring : str, callable, list, tuple, set, dict or None
        As scikit-learn takes it.
    params : dict
        What the scorer gets beside X and y.
    groups : array-like of shape (n_rows,) or None
    n_resamples : int
    confidence_level : float
    seed : int
        Of the bootstrap.
    patience : float, default=10.0
        Seconds. If the calls of the scorer take longer altogether, a UserWarning is issued.

    Returns
    -------
    score : float, or dict of float by metric
    interval : tuple (low, high), or dict of tuples by metric
        (nan, nan) where the metric is undefined on most resamples, where there is only one row or
        group, or where the scorer needs more of the model than its responses.
    """
    scorer = check_scoring(model, scoring)
    if scoring is None:
        # The score of a Pipeline is that of its last step.
        model, X, params = pass_to_last(model, X, params, "score")
    kept = {}
    score = call_scorer(scorer, ResponseView(model, X, kept, may_ask=True), X, y, params)
    scores = by_metric(score)
    draws = {name: [] for name in scores}
    # A scorer that asked for no response used something else, which no resample can repeat.
    if kept:
        resampler = Resampler(model, X, y, scoring, scorer, params, kept, scores)
        resamples = draw_rows(count_rows(X), groups, n_resamples, seed)
        draws = resampler.score_all(resamples, Clock(patience))
    intervals = {name: percentile_interval(draws[name], confidence_level) for name in scores}
    if isinstance(score, dict):
        return score, intervals
    return score, intervals["score"]
