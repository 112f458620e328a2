"""Reading any search, or its ``cv_results_`` alone, into a record."""

from collections.abc import Mapping

import numpy as np
from sklearn.base import clone

from sktune.inspection.records.curves import CurveTable
from sktune.inspection.records.metrics import choose_metric, name_scorer, name_scoring
from sktune.inspection.records.parameters import make_parameter
from sktune.inspection.records.rungs import find_final, name_resource, read_resources
from sktune.inspection.records.search_record import SearchRecord
from sktune.inspection.records.searches import SPACES, find_search


def read_search(search, metric=None):
    """Read a fitted search, or its results, into a SearchRecord.

    Parameters
    ----------
    search : estimator object, dict or DataFrame
        A fitted search of sktune's or scikit-learn's, a :class:`sktune.HoldoutSearch`, a Pipeline
        that ends in one of these, or a ``cv_results_``.
    metric : str, default=None
        Which score to read where there are several; None is the one that the search refits by.

    Returns
    -------
    record : SearchRecord

    Raises
    ------
    NotFittedError
        If the search is not fitted.
    TypeError
        If it is no search.
    ValueError
        If the metric is not in the results, or is not given and there are several.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn.model_selection import GridSearchCV
    >>> from sktune.inspection.records import read_search
    >>> X, y = load_iris(return_X_y=True)
    >>> model = LogisticRegression(max_iter=1000)
    >>> record = read_search(GridSearchCV(model, {"C": [0.01, 0.1, 1.0]}).fit(X, y))
    >>> record.n_candidates, record.n_splits, record.best_index
    (3, 5, 2)
    >>> record.parameters["C"].scale, record.parameters["C"].numbers.tolist()
    ('log', [0.01, 0.1, 1.0])
    """
    core = find_search(search)
    results = core if isinstance(core, Mapping) else core.cv_results_
    search = None if results is core else core
    metric = choose_metric(results, search, metric)
    scores = _read_scores(results, "test", metric)
    params = _read_params(results)
    # scikit-learn keeps train scores only where they were asked for
    has_train_scores = f"mean_train_{metric}" in results
    rungs = _read_column(results, "iter", int)
    brackets = _read_column(results, "bracket", object)
    if brackets is not None and len(set(brackets.tolist())) == 1:
        # a single one needs no name
        brackets = None
    is_final = find_final(rungs, brackets, len(params))
    return SearchRecord(
        params=params,
        scores=scores,
        metric=metric,
        scoring=name_scoring(search, metric),
        scorer=name_scorer(search, metric),
        train_scores=_read_scores(results, "train", metric) if has_train_scores else None,
        fit_seconds=_read_column(results, "mean_fit_time", float),
        best_index=_find_best(search, scores, metric, is_final),
        stages=_read_column(results, "stage", object),
        rungs=rungs,
        resources=read_resources(results, search, rungs),
        resource=name_resource(search),
        brackets=brackets,
        curves=_read_curves(search, len(params), scores.shape[1]),
        parameters=_read_parameters(params, search),
        estimator=getattr(search, "estimator", None),
        search=search,
        n_splits_run=_read_column(results, "n_splits_run", int),
    )


def _read_scores(results, part, metric):
    """Return the scores by candidate and split: ndarray of shape (n_candidates, n_splits)."""
    columns = []
    while f"split{len(columns)}_{part}_{metric}" in results:
        columns.append(results[f"split{len(columns)}_{part}_{metric}"])
    if not columns:
        columns = [results[f"mean_{part}_{metric}"]]
    # a masked score is one that was not computed
    return np.column_stack([np.ma.filled(np.ma.asarray(c, dtype=float), np.nan) for c in columns])


def _read_column(results, name, dtype):
    """Return a column of the results as an array; None if it is missing."""
    return np.asarray(results[name], dtype=dtype) if name in results else None


def _read_params(results):
    """Return the parameters of each candidate: a list of dict.

    They come from the columns ``param_x`` where ``params`` is missing or is text, as in a file.
    """
    if "params" in results and all(isinstance(params, Mapping) for params in results["params"]):
        return [dict(params) for params in results["params"]]
    start = "param_"
    names = [name for name in results if str(name).startswith(start)]
    columns = {name.removeprefix(start): np.ma.asarray(results[name]) for name in names}
    n_candidates = len(next(iter(columns.values())))
    params = [{} for _ in range(n_candidates)]
    for name, column in columns.items():
        is_masked = np.ma.getmaskarray(column)
        for candidate, value, masked in zip(params, column.data, is_masked, strict=True):
            # a file has an empty field, which is read as nan, where a candidate does not set it
            is_missing = masked or (isinstance(value, float) and np.isnan(value))
            if not is_missing:
                candidate[name] = value
    return params


def _find_best(search, scores, metric, is_final):
    """Return the candidate that the search has chosen, or the best by its mean score.

    Scores of earlier rungs are of fits with fewer resources: they do not count.
    """
    chosen = getattr(search, "best_index_", None)
    refit = getattr(search, "refit", None)
    # the search has chosen by another metric
    is_other = isinstance(refit, str) and metric not in ("score", refit)
    if chosen is not None and not (is_other and refit != "one_standard_error"):
        return int(chosen)
    means = np.where(is_final, scores.mean(axis=1), np.nan)
    return None if np.isnan(means).all() else int(np.nanargmax(means))


def _read_curves(search, n_candidates, n_splits):
    """Return the curves of the networks that were trained in groups; None if there are none."""
    report = getattr(search, "fusion_", None)
    curves = getattr(report, "curves", None)
    if curves is None or len(curves) == 0:
        return None
    return CurveTable.from_columns(curves.columns, n_candidates, n_splits)


def _read_parameters(params, search):
    """Return what the candidates differ in: a dict of Parameter by name."""
    own = _read_own_values(search)
    names = dict.fromkeys(name for candidate in params for name in candidate)
    spaces = _read_spaces(search)
    found = {}
    for name in names:
        values = [candidate.get(name, own.get(name)) for candidate in params]
        is_set = [name in candidate or name in own for candidate in params]
        parameter = make_parameter(name, values, is_set, spaces.get(name))
        if parameter.is_varied:
            found[name] = parameter
    return found


def _read_own_values(search):
    """Return the parameters of the estimator that a search tunes, by name."""
    estimator = getattr(search, "estimator", None)
    if not hasattr(estimator, "get_params"):
        return {}
    return clone(estimator).get_params()


def _read_spaces(search):
    """Return the list or distribution of each parameter that has one only, by name."""
    parts = []
    for attribute in SPACES:
        given = getattr(search, attribute, None)
        if given is not None:
            parts = [given] if isinstance(given, Mapping) else list(given)
    # of a search in stages: the last stage has the parameters of all
    parts += [stage["space"] for stage in getattr(search, "stages_", []) if stage["space"]]
    spaces = {}
    for part in parts:
        for name, values in part.items():
            spaces.setdefault(name, values)
    return spaces
