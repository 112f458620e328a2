"""A search on its own or as the last step of a Pipeline: what both have in common."""

import warnings
from inspect import signature

import numpy as np
import sklearn
from sklearn.exceptions import FitFailedWarning
from sklearn.metrics import check_scoring
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import Pipeline
from sklearn.utils.metadata_routing import process_routing

__all__ = [
    "best_model",
    "core_params",
    "core_search",
    "cv_score",
    "routing_enabled",
    "score_baseline",
    "scorer_params",
    "search_prefix",
    "seed_splits",
]


def routing_enabled():
    """Whether scikit-learn routes metadata by request."""
    return sklearn.get_config()["enable_metadata_routing"]


def core_search(search):
    """Return the search itself, from inside its Pipeline if it has one."""
    while isinstance(search, Pipeline):
        search = search.steps[-1][1]
    return search


def search_prefix(search):
    """Return the prefix of the core search's parameters, such as ``"search__"``."""
    prefix = ""
    while isinstance(search, Pipeline):
        name, search = search.steps[-1]
        prefix += f"{name}__"
    return prefix


def best_model(search):
    """Return the best estimator of a fitted search, with the fitted steps before it."""
    if not isinstance(search, Pipeline):
        return search.best_estimator_
    *before, (name, last) = search.steps
    return Pipeline([*before, (name, best_model(last))])


def core_params(search, params):
    """Return the part of the ``fit`` parameters that reaches the core search."""
    if not routing_enabled():
        prefix = search_prefix(search)
        return {name.removeprefix(prefix): value for name, value in params.items() if name.startswith(prefix)}
    while isinstance(search, Pipeline):
        name, last = search.steps[-1]
        params = dict(process_routing(search, "fit", **params)[name].fit) if params else {}
        search = last
    return params


def scorer_params(core, params):
    """Return what the core search passes to its scorer when its ``fit`` gets `params`."""
    if routing_enabled():
        return dict(process_routing(core, "fit", **params).scorer.score) if params else {}
    weight = params.get("sample_weight")
    # Without routing, searches score with weights since scikit-learn 1.9.
    if weight is None or tuple(map(int, sklearn.__version__.split(".")[:2])) < (1, 9):
        return {}
    return {"sample_weight": weight} if _takes_weights(core) else {}


def _takes_weights(core):
    scorer = check_scoring(core.estimator, core.scoring)
    # scikit-learn asks the same private question of its scorers, and of a plain function its
    # arguments. tests/test_inner_search.py fails when the answers differ.
    asked = getattr(scorer, "_accept_sample_weight", None)
    return asked() if asked else "sample_weight" in signature(scorer).parameters


def seed_splits(core, seed):
    """Give a random ``cv`` without a fixed seed this one, so that it splits alike each time."""
    cv = core.cv
    is_random = hasattr(cv, "split") and getattr(cv, "shuffle", True)
    if is_random and isinstance(getattr(cv, "random_state", 0), (type(None), np.random.RandomState)):
        cv.random_state = int(seed)


def cv_score(core, index, metric="score"):
    """Return a candidate's mean and standard deviation over the folds."""
    return tuple(float(core.cv_results_[f"{of}_test_{metric}"][index]) for of in ("mean", "std"))


def score_baseline(search, X, y, params):
    """Cross-validate the estimator of a fitted search as it was given, on the search's splits.

    Parameters
    ----------
    search : fitted search, or Pipeline that ends in one
    X, y
        The rows that it was fitted on.
    params : dict
        The ``fit`` parameters of the core search.

    Returns
    -------
    float or dict
        The mean score, by metric if there are several; nan if every fit failed, with a warning.
    """
    while isinstance(search, Pipeline):
        if len(search.steps) > 1:
            X = search[:-1].transform(X)
        search = search.steps[-1][1]
    # A grid of one empty candidate: splits, scoring and routing are those of any search.
    settings = {name: getattr(search, name) for name in ("scoring", "cv", "n_jobs", "error_score")}
    baseline = GridSearchCV(search.estimator, {}, refit=False, **settings)
    try:
        baseline.fit(X, y, **params)
    except ValueError as error:
        if search.error_score == "raise":
            raise
        warnings.warn(f"no baseline score: {error}", FitFailedWarning, stacklevel=2)
        metrics = search.scorer_ if getattr(search, "multimetric_", False) else None
        return dict.fromkeys(metrics, np.nan) if isinstance(metrics, dict) else np.nan
    means = {
        name.removeprefix("mean_test_"): float(values[0])
        for name, values in baseline.cv_results_.items()
        if name.startswith("mean_test_")
    }
    return means if baseline.multimetric_ else means["score"]
