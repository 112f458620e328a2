"""What stands beside a search's own scores: that of its estimator as given, and the one on sealed rows."""

import time
import warnings
from collections.abc import Mapping
from functools import partial
from numbers import Number

import numpy as np
import sklearn
from sklearn.exceptions import FitFailedWarning
from sklearn.metrics import check_scoring, get_scorer
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import Pipeline
from sklearn.utils import get_tags
from sklearn.utils.metadata_routing import process_routing

from sktune.bridge.seam import read_scorer, route_params
from sktune.evaluation.resampling import IrregularError, prepare_metric
from sktune.evaluation.sealing import count_rows, take_params, take_rows
from sktune.search.ensembles.scoring import find_scorer

RESPONSES = (
    "predict",
    "predict_proba",
    "predict_log_proba",
    "decision_function",
    "score_samples",
    "transform",
)
_PATIENCE = 10.0  # seconds of calls of a scorer, from which on it is told that they take long


def routing_enabled():
    """Whether scikit-learn routes metadata by request."""
    return sklearn.get_config()["enable_metadata_routing"]


def find_core(search):
    """Return the search itself, from inside its Pipeline if it has one, and the prefix of its parameters there."""
    prefix = ""
    while isinstance(search, Pipeline):
        name, search = search.steps[-1]
        prefix += f"{name}__"
    return search, prefix


def pass_to_last(model, X, params, method="fit"):
    """Return the last step of a fitted Pipeline, and what of the rows and the parameters of `method` reaches it."""
    while isinstance(model, Pipeline):
        name, last = model.steps[-1]
        X = model[:-1].transform(X) if len(model.steps) > 1 else X
        if routing_enabled():
            params = dict(process_routing(model, method, **params)[name][method]) if params else {}
        elif method == "fit":
            params = {
                key.removeprefix(f"{name}__"): v
                for key, v in params.items()
                if key.startswith(f"{name}__")
            }
        model = last
    return model, X, params


def search_as_given(core):
    """Return a grid of one empty candidate: splits, scoring and routing are those of any search."""
    names = ("scoring", "cv", "n_jobs", "error_score")
    settings = {name: getattr(core, name) for name in names if hasattr(core, name)}
    return GridSearchCV(core.estimator, {}, refit=False, **settings)


def scorer_params(core, params):
    """Return what a search passes to its scorer when its ``fit`` gets `params`."""
    # Private, but versions of scikit-learn differ in the answer: tests/evaluation/test_final.py
    # compares it with a search.
    return dict(search_as_given(core)._get_routed_params_for_fit(params).scorer.score)


def split_params(search, params):
    """Return what the ``cv`` of a search, maybe in a Pipeline, gets beside X and y when ``fit`` gets `params`."""
    core, prefix = find_core(search)
    if prefix and routing_enabled():
        return {}  # what a Pipeline routes cannot be told before it is fitted
    of_core = {
        name.removeprefix(prefix): value
        for name, value in params.items()
        if name.startswith(prefix)
    }
    # Private: see scorer_params.
    return dict(search_as_given(core)._get_routed_params_for_fit(of_core).splitter.split)


def find_best(core, statistic, metric):
    """Return the mean or std over the folds of the best candidate of a fitted search; nan if it does not tell."""
    results, best = getattr(core, "cv_results_", {}), getattr(core, "best_index_", None)
    values = results.get(f"{statistic}_test_{metric}") if hasattr(results, "get") else None
    if values is not None and best is not None:
        return float(values[best])
    is_best_score = statistic == "mean" and metric == "score"
    return float(getattr(core, "best_score_", np.nan)) if is_best_score else np.nan


def score_baseline(search, X, y, params):
    """Return the mean score on a fitted search's splits of its estimator as given; nan, with a warning, of no fit."""
    core, X, params = pass_to_last(search, X, params)
    try:
        results = search_as_given(core).fit(X, y, **params).cv_results_
    except ValueError as error:
        if getattr(core, "error_score", None) == "raise":
            raise
        warnings.warn(f"no baseline score: {error}", FitFailedWarning, stacklevel=2)
        results = {f"mean_test_{metric}": [np.nan] for metric in _list_metrics(core)}
    is_mean = [name for name in results if name.startswith("mean_test_")]
    means = {name.removeprefix("mean_test_"): float(results[name][0]) for name in is_mean}
    return means["score"] if means.keys() == {"score"} else means


def _list_metrics(core):
    """Return the names of a search's metrics."""
    results = getattr(core, "cv_results_", {})
    of_results = [
        name.removeprefix("mean_test_") for name in results if name.startswith("mean_test_")
    ]
    scoring = getattr(core, "scoring", None)
    is_several = isinstance(scoring, (Mapping, list, tuple, set, frozenset))
    return of_results or (list(scoring) if is_several else ["score"])


def score_sealed(search, X, y, params, **settings):
    """Return what :class:`~sktune.HoldoutSearch` says of a fitted search after calling its model on sealed rows."""
    core, X, given = pass_to_last(search, X, params)
    params = scorer_params(core, given)
    scoring = getattr(core, "scoring", None)
    score, interval = evaluate_once(
        core.best_estimator_, X, y, scoring=scoring, params=params, **settings
    )
    optimism = {
        name: find_best(core, "mean", name) - value for name, value in by_metric(score).items()
    }
    optimism = optimism if isinstance(score, dict) else optimism["score"]
    found = {"test_score_": score, "test_interval_": interval, "optimism_": optimism}
    if hasattr(core, "ensemble_"):
        found |= _score_ensemble(core, X, y, given, settings)
    return found


def _score_ensemble(core, X, y, params, settings):
    """Return score and interval of the ensemble of a search, by the one metric that it was chosen by."""
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
    """Return the score of a fitted model on rows it has never seen and its interval, or dicts of them by metric.

    The responses of the model to `X` are kept and resampled with the rows, by the percentile bootstrap (Efron and
    Tibshirani 1993, chapter 13); with `groups`, whole groups are resampled (Davison and Hinkley 1997, section 3.8).
    The interval is (nan, nan) where the metric is undefined on most resamples, where there is but one row or group,
    or where the scorer needs more of the model than its responses.

    Common metrics are computed from terms of the rows; any other scorer is called for each resample, at most
    `n_resamples` times. Where that is about to take more than `patience` seconds, a warning says so.
    """
    scorer = check_scoring(model, scoring)
    if scoring is None:  # then a Pipeline has the score of its last step
        model, X, params = pass_to_last(model, X, params, "score")
    kept = {}
    score = _call_scorer(scorer, _View(model, X, kept, may_ask=True), X, y, params)
    scores = by_metric(score)
    draws = {name: [] for name in scores}
    # A scorer that has asked for no response has scored by other means, which no resample can repeat.
    if kept:
        resampler = _Resampler(model, X, y, scoring, scorer, params, kept, scores)
        draws = resampler.score_all(
            _draw_rows(count_rows(X), groups, n_resamples, seed), _Clock(patience)
        )
    intervals = {name: _percentile_interval(draws[name], confidence_level) for name in scores}
    return (score, intervals) if isinstance(score, dict) else (score, intervals["score"])


def by_metric(found):
    """Return what was found by metric, as scikit-learn's ``cv_results_`` name them, also of a single one."""
    return found if isinstance(found, dict) else {"score": found}


def _call_scorer(scorer, model, X, y, params):
    score = scorer(model, X, **params) if y is None else scorer(model, X, y, **params)
    return (
        {name: float(value) for name, value in score.items()}
        if isinstance(score, dict)
        else float(score)
    )


def _draw_rows(n_rows, groups, n_resamples, seed):
    """Yield row positions drawn with replacement, by rows or by whole groups."""
    rng = np.random.default_rng(seed)
    if groups is not None:
        _, codes = np.unique(np.asarray(groups), return_inverse=True)
        units = np.split(np.argsort(codes, kind="stable"), np.cumsum(np.bincount(codes))[:-1])
    n_units = n_rows if groups is None else len(units)
    for _ in range(n_resamples if n_units > 1 else 0):
        drawn = rng.integers(n_units, size=n_units)
        yield drawn if groups is None else np.concatenate([units[i] for i in drawn])


class _Resampler:
    """Scores resamples of rows by the responses that a model has given to all of them."""

    def __init__(self, model, X, y, scoring, scorer, params, kept, scores):
        self.model, self.X, self.y = model, X, y
        self.scorer, self.params, self.kept, self.scores = scorer, params, kept, scores
        self.scorers = _scorers_by_metric(model, scoring, scores)
        self.metrics = self._find_metrics()

    def _find_metrics(self):
        """Return a function of rows for each metric that is known, and that says of all rows what the scorer said."""
        rows, found = np.arange(count_rows(self.X)), {}
        for name, scorer in self.scorers.items():
            metric = prepare_metric(self.model, scorer, self.y, self.kept, self.params)
            if metric is not None and _agree(_compute(metric, rows), self.scores[name]):
                found[name] = metric
        return found

    def score_all(self, resamples, clock):
        """Return the scores of resamples, in lists by metric; the `clock` measures the calls of scorers."""
        draws = {name: [] for name in self.scores}
        # Whatever is worth a warning was warned of when all rows were scored.
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            for number, rows in enumerate(resamples):
                if number == 0 and self.metrics:
                    self._compare(rows)
                for name, value in self._score(rows, clock).items():
                    draws[name].append(value)
        clock.warn()
        return draws

    def _compare(self, rows):
        """Leave to the scorer what it scores otherwise, should another version of it do so."""
        for name in list(self.metrics):
            found = _compute(self.metrics[name], rows)
            if found is not None and not _agree(found, self._ask_scorer(rows, [name])[name]):
                del self.metrics[name]

    def _score(self, rows, clock):
        found = {name: _compute(metric, rows) for name, metric in self.metrics.items()}
        missing = [name for name in self.scores if found.get(name) is None]
        if missing:
            with clock:
                found |= self._ask_scorer(rows, missing)
        return found

    def _ask_scorer(self, rows, names):
        """Return the scores of some metrics by the scorer itself; nan where they are not defined."""
        kept = {name: take_rows(response, rows) for name, response in self.kept.items()}
        params = take_params(self.params, count_rows(self.X), rows)
        scorers = {name: self.scorers.get(name) for name in names}
        is_blind = all(read_scorer(scorer) is not None for scorer in scorers.values())
        X = _Unread() if is_blind else take_rows(self.X, rows)
        y = take_rows(self.y, rows)
        if routing_enabled() or self.scores.keys() == set(names) or None in scorers.values():
            ask = self.scorer
        else:  # without routing each gets the same parameters
            ask = check_scoring(self.model, scoring=scorers)
        try:
            scores = by_metric(_call_scorer(ask, _View(self.model, X, kept), X, y, params))
        except (
            Exception
        ):  # it worked on all rows, and is undefined on these: for want of a class, say
            return dict.fromkeys(names, np.nan)
        return {name: scores[name] for name in names}


class _Unread:
    """Stands for rows that a scorer only hands on to the model."""


class _Clock:
    """Measures how long scorers take, for a warning if they take long: it is used as a context around each call."""

    def __init__(self, patience):
        self.patience = patience
        self.seconds = self.began = 0.0
        self.n_calls = 0

    def __enter__(self):
        self.began = time.perf_counter()

    def __exit__(self, *error):
        self.seconds += time.perf_counter() - self.began
        self.n_calls += 1

    def warn(self):
        """Warn if it was long."""
        if self.seconds > self.patience:
            message = (
                f"the bootstrap called the scorer {self.n_calls} times, which took {self.seconds:.0f} s: a smaller "
                "n_resamples is quicker, and so are scikit-learn's common metrics, which are computed without a scorer"
            )
            warnings.warn(message, UserWarning, stacklevel=6)


def _scorers_by_metric(model, scoring, scores):
    """Return the scorer of each metric, as far as they can be told; None is the model's own ``score``."""
    if isinstance(scoring, Mapping):
        return {name: check_scoring(model, scorer) for name, scorer in scoring.items()}
    if isinstance(scoring, (list, tuple, set, frozenset)):
        return {name: get_scorer(name) for name in scoring}
    if scores.keys() != {"score"}:  # of a callable that returns a dict
        return {}
    return {"score": None if scoring is None else check_scoring(model, scoring)}


def _compute(metric, rows):
    """Return a metric of some rows; None if the scorer is to say what it is."""
    try:
        return metric(rows)
    except (IrregularError, ZeroDivisionError):
        return None


def _agree(found, expected):
    # Sums of float32 differ by their order, of which versions of scikit-learn have others.
    return found is not None and np.isclose(found, expected, rtol=1e-6, atol=1e-9, equal_nan=True)


def _percentile_interval(draws, confidence_level):
    defined = [draw for draw in draws if not np.isnan(draw)]
    if not defined or 2 * len(defined) < len(draws):  # an interval would say more than is known
        return (np.nan, np.nan)
    shares = [(1 - confidence_level) / 2, (1 + confidence_level) / 2]
    with np.errstate(invalid="ignore"):
        found = np.quantile(defined, shares)
    if np.isnan(found).any():  # between infinite scores there is nothing to interpolate
        found = np.quantile(defined, shares, method="nearest")
    return tuple(found.tolist())


class _View:
    """A fitted model as scorers see it: asked once for each response to `X`; on a resample, not even that."""

    def __init__(self, model, X, kept, may_ask=False):
        self._model, self._X, self._kept, self._may_ask = model, X, kept, may_ask

    def __sklearn_tags__(self):
        return get_tags(self._model)

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        value = getattr(self._model, name)
        if name in RESPONSES:
            respond = partial(self._respond, name)
            respond.__name__ = name  # scikit-learn's scorers go by it
            return respond
        if name == "score" and not isinstance(
            self._model, Pipeline
        ):  # a Pipeline would ask its steps
            copy = object.__new__(type(self._model))
            vars(copy).update(
                vars(self._model),
                **{n: getattr(self, n) for n in RESPONSES if hasattr(self._model, n)},
            )
            return copy.score
        return value if isinstance(value, (np.ndarray, Number, str)) else self._ask(name)

    def _respond(self, name, X, **options):
        if X is not self._X or options:
            return self._ask(name)(X, **options)
        if name not in self._kept:
            self._kept[name] = self._ask(name)(X)
        return self._kept[name]

    def _ask(self, name):
        if not self._may_ask:  # not an AttributeError, by which a scorer might look for another way
            raise RuntimeError(
                f"a resample must be scored by the responses kept, the scorer asks for {name}"
            )
        return getattr(self._model, name)
