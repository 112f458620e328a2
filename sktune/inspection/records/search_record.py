"""Reading any search, or its ``cv_results_`` alone, into one form."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from sklearn.base import clone, is_classifier, is_regressor
from sklearn.pipeline import Pipeline
from sklearn.utils.validation import check_is_fitted

from sktune.inspection.records.curves import CurveTable
from sktune.inspection.records.parameters import make_parameter

# Attributes of searches that hold their space.
_SPACES = ("param_distributions", "param_grid", "search_spaces")


@dataclass(frozen=True)
class SearchRecord:
    """What a search has tried and found.

    Parameters
    ----------
    params : list of dict
        The parameters that each candidate sets, of length n_candidates.
    scores : ndarray of shape (n_candidates, n_splits)
        Test scores by split, greater is better; nan for a failed fit. A search that does not keep
        them by split has one column, the mean scores.
    metric : str
        The name of the metric in ``cv_results_``; ``"score"`` where there is one only.
    scoring : str
        How the metric is called in texts, such as ``"accuracy"``.
    scorer : str
        The name of scikit-learn's scorer, or ``""`` where the metric is another or unknown. It is
        not `scoring` where a search has its own names, as in ``scoring={"a": "accuracy"}``.
    train_scores : ndarray of shape (n_candidates, n_splits), or None
        With ``return_train_score=True`` only.
    fit_seconds : ndarray of shape (n_candidates,), or None
        The mean time of a candidate's fits.
    best_index : int or None
        The candidate that the search has chosen; else the one of the best mean score; None if no
        candidate has a score.
    stages : ndarray of str of shape (n_candidates,), or None
        The stages of a search in stages.
    rungs : ndarray of int of shape (n_candidates,), or None
        The iterations of a search by halving.
    curves : CurveTable or None
        None where no network was trained in a group.
    parameters : dict of Parameter
        What the candidates differ in, by name, with the most important known ones first.
    estimator : estimator object or None
        What was tuned, unfitted.
    search : estimator object or None
        The fitted search itself.
    """

    params: list
    scores: np.ndarray
    metric: str
    scoring: str
    scorer: str
    train_scores: np.ndarray | None
    fit_seconds: np.ndarray | None
    best_index: int | None
    stages: np.ndarray | None
    rungs: np.ndarray | None
    curves: CurveTable | None
    parameters: dict = field(default_factory=dict)
    estimator: object = None
    search: object = None

    @property
    def n_candidates(self):
        """How many candidates there are."""
        return len(self.params)

    @property
    def n_splits(self):
        """How many splits there are."""
        return self.scores.shape[1]

    @property
    def mean_scores(self):
        """The mean score of each candidate; nan if one of its fits failed."""
        return self.scores.mean(axis=1)

    @property
    def standard_errors(self):
        """The standard error of each mean score over the splits; nan with a single split.

        It is that of independent scores, ``std(ddof=1) / sqrt(n_splits)``. Splits of one data set
        share their rows, so that the true one is larger (Nadeau and Bengio 2003).
        """
        if self.n_splits < 2:
            return np.full(self.n_candidates, np.nan)
        return self.scores.std(axis=1, ddof=1) / np.sqrt(self.n_splits)

    def find_parameter(self, name):
        """Return a Parameter by its name, or by the end of its name if there is one such only.

        Raises
        ------
        ValueError
            If the search has not varied it.
        """
        if name in self.parameters:
            return self.parameters[name]
        ends = [full for full in self.parameters if full.endswith(f"__{name}")]
        if len(ends) == 1:
            return self.parameters[ends[0]]
        raise ValueError(
            f"the parameter must be one that the search varies, {sorted(self.parameters)}, "
            f"got {name!r}"
        )


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
    metric = _choose_metric(results, search, metric)
    scores = _read_scores(results, "test", metric)
    params = _read_params(results)
    # scikit-learn keeps train scores only where they were asked for
    has_train_scores = f"mean_train_{metric}" in results
    return SearchRecord(
        params=params,
        scores=scores,
        metric=metric,
        scoring=_name_scoring(search, metric),
        scorer=_name_scorer(search, metric),
        train_scores=_read_scores(results, "train", metric) if has_train_scores else None,
        fit_seconds=_read_column(results, "mean_fit_time", float),
        best_index=_find_best(search, scores, metric),
        stages=_read_column(results, "stage", object),
        rungs=_read_column(results, "iter", int),
        curves=_read_curves(search, len(params), scores.shape[1]),
        parameters=_read_parameters(params, search),
        estimator=getattr(search, "estimator", None),
        search=search,
    )


def find_search(search):
    """Return the search within a HoldoutSearch or a Pipeline, or results as a mapping.

    Raises
    ------
    NotFittedError, TypeError
        See :func:`read_search`.
    """
    if isinstance(search, Mapping):
        _check_results(search)
        return search
    if hasattr(search, "columns") and hasattr(search, "to_dict"):
        return find_search({name: search[name].to_numpy() for name in search.columns})
    while True:
        if isinstance(search, Pipeline):
            search = search.steps[-1][1]
        elif hasattr(search, "search") and hasattr(search, "test_size"):
            # a HoldoutSearch
            check_is_fitted(search, "search_")
            search = search.search_
        else:
            break
    if not hasattr(search, "fit") or not _is_search(search):
        raise TypeError(
            "search must be a search with cv_results_, such as GridSearchCV, or its cv_results_, "
            f"got {type(search).__name__}"
        )
    check_is_fitted(search, "cv_results_")
    return search


def _is_search(search):
    """Tell whether an estimator has, or will have, ``cv_results_``."""
    if hasattr(search, "cv_results_"):
        return True
    return hasattr(search, "estimator") and any(hasattr(search, name) for name in (*_SPACES, "cv"))


def _check_results(results):
    """Raise unless a mapping is a ``cv_results_``."""
    if "params" not in results and not any(str(name).startswith("param_") for name in results):
        raise TypeError(
            "search must be a search with cv_results_, such as GridSearchCV, or its cv_results_, "
            f"got a mapping with the keys {sorted(map(str, results))}"
        )


def list_metrics(search):
    """Return the names of the metrics that a search, or its results, has: list of str."""
    core = find_search(search)
    return _list_metrics(core if isinstance(core, Mapping) else core.cv_results_)


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


def find_main_metric(search):
    """Return the metric that a search refits by; of several without such a one, the first."""
    core = find_search(search)
    known = list_metrics(core)
    return _find_refitted(core, known) or known[0]


def _list_metrics(results):
    start = "mean_test_"
    return [name.removeprefix(start) for name in results if str(name).startswith(start)]


def _find_refitted(search, known):
    """Return which of several metrics a search refits by; None if it is not known."""
    refit = getattr(search, "refit", None)
    # of OneStandardError, which is a callable
    refit = getattr(refit, "metric", refit)
    return refit if isinstance(refit, str) and refit in known else None


def _choose_metric(results, search, metric):
    """Return the name of the metric to read."""
    known = _list_metrics(results)
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


def _name_scoring(search, metric):
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


def _name_scorer(search, metric):
    """Return the name of scikit-learn's scorer behind a metric; ``""`` if there is none."""
    scoring = getattr(search, "scoring", None)
    if isinstance(scoring, Mapping):
        # what is called accuracy may be another function
        return scoring[metric] if isinstance(scoring.get(metric), str) else ""
    name = _name_scoring(search, metric)
    return "" if name == "score" else name


def _find_best(search, scores, metric):
    """Return the candidate that the search has chosen, or the best by its mean score."""
    chosen = getattr(search, "best_index_", None)
    refit = getattr(search, "refit", None)
    # the search has chosen by another metric
    is_other = isinstance(refit, str) and metric not in ("score", refit)
    if chosen is not None and not (is_other and refit != "one_standard_error"):
        return int(chosen)
    means = scores.mean(axis=1)
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
        if parameter.n_distinct > 1 or not parameter.is_set.all():
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
    for attribute in _SPACES:
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
