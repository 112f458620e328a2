"""What a search passes on, and what it found: with scikit-learn's searches, alone or in a Pipeline.

A *core* is the search itself, without the Pipeline that it may be the last step of.
"""

from copy import copy

import numpy as np
import sklearn
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import Pipeline
from sklearn.utils.metadata_routing import process_routing

from sktune.engine.store.caching import open_cache


def routing_enabled():
    """Tell whether scikit-learn routes metadata by request."""
    return sklearn.get_config()["enable_metadata_routing"]


def find_core(search):
    """Return the search itself, and the prefix of its parameters in the Pipeline around it."""
    prefix = ""
    while isinstance(search, Pipeline):
        name, search = search.steps[-1]
        prefix += f"{name}__"
    return search, prefix


def best_model(search):
    """Return the best estimator of a fitted search, with the fitted steps before it."""
    if not isinstance(search, Pipeline):
        return search.best_estimator_
    *before, (name, last) = search.steps
    return Pipeline([*before, (name, best_model(last))])


def pass_to_last(model, X, params, method="fit"):
    """Return the last step of a fitted Pipeline, and what it gets when a method is called.

    Parameters
    ----------
    model : estimator object
        A fitted estimator; if it is no Pipeline, everything is returned unchanged.
    X : table of shape (n_rows, n_features)
    params : dict
        What `method` of the Pipeline gets beside X and y.
    method : {"fit", "score"}, default="fit"

    Returns
    -------
    model : estimator object
    X : table of shape (n_rows, ...)
        Transformed by the steps before the last one.
    params : dict
        The parameters that reach the last step.
    """
    while isinstance(model, Pipeline):
        name, last = model.steps[-1]
        if len(model.steps) > 1:
            X = model[:-1].transform(X)
        if routing_enabled():
            params = dict(process_routing(model, method, **params)[name][method]) if params else {}
        elif method == "fit":
            params = _strip_prefix(params, f"{name}__")
        model = last
    return model, X, params


def _strip_prefix(params, prefix):
    """Return the parameters whose names begin with a prefix, by their names without it."""
    return {
        name.removeprefix(prefix): value
        for name, value in params.items()
        if name.startswith(prefix)
    }


def search_as_given(core):
    """Return a grid search of the estimator as given: one candidate without any parameter.

    Its splits, scoring and routing are those of the search.
    """
    names = ("scoring", "cv", "n_jobs", "error_score")
    settings = {name: getattr(core, name) for name in names if hasattr(core, name)}
    return GridSearchCV(core.estimator, {}, refit=False, **settings)


def open_cache_of(core):
    """Return the options by which other fits use the cache of a search; none if it has none."""
    if getattr(core, "cache", None) is None or not hasattr(core, "checkpoint_interval"):
        return {}
    return {"store": open_cache(core.cache, core.cache_limit, core.checkpoint_interval)}


def scorer_params(core, params):
    """Return what a search passes to its scorer when its ``fit`` gets `params`."""
    # Private, but versions of scikit-learn differ in the answer: tests/evaluation/test_final.py
    # compares it with a search.
    return dict(search_as_given(core)._get_routed_params_for_fit(params).scorer.score)


def split_params(search, params):
    """Return what the ``cv`` of a search gets beside X and y when ``fit`` gets `params`.

    Parameters
    ----------
    search : estimator object
        A search, or a Pipeline ending in one.
    params : dict
    """
    core, prefix = find_core(search)
    if prefix and routing_enabled():
        # An unfitted Pipeline does not tell what it will route to its last step.
        return {}
    params = _strip_prefix(params, prefix)
    # Private: see scorer_params.
    return dict(search_as_given(core)._get_routed_params_for_fit(params).splitter.split)


def seed_splits(cv, seed):
    """Set the seed of a random splitter that has none, so that each call makes the same splits."""
    is_random = getattr(cv, "shuffle", True)
    random_state = getattr(cv, "random_state", 0)
    has_seed = random_state is not None and not isinstance(random_state, np.random.RandomState)
    if is_random and not has_seed:
        cv.random_state = int(seed)


def find_best(core, statistic, metric):
    """Return a statistic of the best candidate's scores over the folds.

    Parameters
    ----------
    core : estimator object
        A fitted search.
    statistic : {"mean", "std"}
    metric : str
        Its name in ``cv_results_``; ``"score"`` for a single metric.

    Returns
    -------
    value : float
        nan if the search does not tell it.
    """
    results = getattr(core, "cv_results_", {})
    best = getattr(core, "best_index_", None)
    values = results.get(f"{statistic}_test_{metric}") if hasattr(results, "get") else None
    if values is not None and best is not None:
        return float(values[best])
    if statistic == "mean" and metric == "score":
        return float(getattr(core, "best_score_", np.nan))
    return np.nan


def without_ensemble(search):
    """Return a fitted search, maybe in a Pipeline, that answers with its single best model."""
    if isinstance(search, Pipeline):
        *before, (name, last) = search.steps
        return Pipeline([*before, (name, without_ensemble(last))])
    search = copy(search)
    vars(search).pop("ensemble_", None)
    return search
