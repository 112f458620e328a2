"""What ensembles of a search need of scikit-learn's private names."""

import warnings

import numpy as np
from sklearn import get_config, metrics
from sklearn.model_selection import _validation
from sklearn.utils.metadata_routing import process_routing
from sklearn.utils.metaestimators import _safe_split
from sklearn.utils.parallel import Parallel, delayed
from sklearn.utils.validation import _check_method_params

from sktune.bridge.seam.parallel import fused_tasks


def route_params(search, scorer, params):
    """Return what the ``fit`` of a search hands to its estimator, and to one of its scorers.

    Parameters
    ----------
    search : estimator object
        Of scikit-learn's classes.
    scorer : callable
        That of the metric named by ``search.refit``, or the only one.
    params : dict
        What ``search.fit`` was given.

    Returns
    -------
    fit_params, score_params : dict
    """
    with warnings.catch_warnings():
        # the search itself has warned of weights that its scorers do not take
        warnings.simplefilter("ignore")
        routed = search._get_routed_params_for_fit(params)
    fit_params = dict(routed.estimator.fit)
    score_params = dict(routed.scorer.score)
    is_one = search.scoring is None or isinstance(search.scoring, str) or callable(search.scoring)
    if is_one or not score_params:
        return fit_params, score_params
    if get_config()["enable_metadata_routing"]:
        scorers, _ = search._get_scorers()
        score_params = dict(process_routing(scorers, "score", **score_params)[search.refit].score)
    elif not scorer._accept_sample_weight():
        score_params.pop("sample_weight", None)
    return fit_params, score_params


def take_test_rows(task):
    """Return the test rows of a task that fits an estimator on a split, as its scorer gets them."""
    arguments = task.arguments
    rows = (arguments["test"], arguments["train"])
    X_test, _ = _safe_split(arguments["estimator"], arguments["X"], arguments["y"], *rows)
    return X_test


def take_split(estimator, X, y, params, rows):
    """Return some rows of X and y, and of the parameters that have an entry for each row."""
    X_part, y_part = _safe_split(estimator, X, y, rows)
    return X_part, y_part, _check_method_params(X, params=params, indices=rows)


def fit_together(estimators, X, y, fit_params, n_jobs):
    """Fit each estimator to all rows, in one call of joblib; return them in the same order."""
    rows = np.arange(len(y))
    options = {
        "train": rows,
        # something must be scored: the score is not used
        "test": rows[:1],
        "scorer": _score_nothing,
        "parameters": None,
        "fit_params": fit_params,
        "score_params": None,
        "verbose": 0,
        "error_score": "raise",
        "return_estimator": True,
    }
    with fused_tasks():
        fit = delayed(_validation._fit_and_score)
        results = Parallel(n_jobs=n_jobs)(fit(model, X, y, **options) for model in estimators)
    return [result["estimator"] for result in results]


def _score_nothing(estimator, X, y):
    return 0.0


def read_scorer(scorer):
    """Return what a scorer made by ``make_scorer`` computes.

    Parameters
    ----------
    scorer : callable

    Returns
    -------
    parts : tuple or None
        The metric, its options, the sign of the score, and the names of the response methods;
        None for any other scorer.
    """
    # These attributes are private, but nothing public tells what a scorer computes.
    # tests/evaluation/test_scorers.py fails when they move.
    names = ("_score_func", "_kwargs", "_sign", "_response_method")
    if not isinstance(scorer, type(metrics.make_scorer(metrics.accuracy_score))):
        return None
    if not all(hasattr(scorer, name) for name in names):
        return None
    metric, options, sign, responses = (getattr(scorer, name) for name in names)
    responses = (responses,) if isinstance(responses, str) else tuple(responses)
    return metric, dict(options), sign, responses
