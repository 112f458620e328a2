"""Scores of resampled rows, from the responses that a model has given to all rows."""

import time
import warnings
from functools import partial
from numbers import Number

import numpy as np
from sklearn.metrics import check_scoring
from sklearn.pipeline import Pipeline
from sklearn.utils import get_tags

from sktune.evaluation.label_metrics import IrregularError
from sktune.evaluation.scorers import prepare_metric, read_scorer, scorers_by_metric
from sktune.evaluation.sealing import count_rows, take_params, take_rows
from sktune.evaluation.searches import routing_enabled

RESPONSES = (
    "predict",
    "predict_proba",
    "predict_log_proba",
    "decision_function",
    "score_samples",
    "transform",
)


def by_metric(value):
    """Return a dict by metric as it is, and any other value as that of the metric ``"score"``."""
    return value if isinstance(value, dict) else {"score": value}


def call_scorer(scorer, model, X, y, params):
    """Return the score as a float, or a dict of floats."""
    score = scorer(model, X, **params) if y is None else scorer(model, X, y, **params)
    if isinstance(score, dict):
        return {name: float(value) for name, value in score.items()}
    return float(score)


def draw_rows(n_rows, groups, n_resamples, seed):
    """Yield row positions drawn with replacement: single rows, or all rows of drawn groups.

    Nothing is yielded if there is only one row or group.
    """
    rng = np.random.default_rng(seed)
    rows_of_groups = None if groups is None else _split_by_group(groups)
    n_units = n_rows if groups is None else len(rows_of_groups)
    if n_units < 2:
        return
    for _ in range(n_resamples):
        drawn = rng.integers(n_units, size=n_units)
        if groups is None:
            yield drawn
        else:
            yield np.concatenate([rows_of_groups[unit] for unit in drawn])


def _split_by_group(groups):
    """Return the row positions of each group."""
    _, codes = np.unique(np.asarray(groups), return_inverse=True)
    ends = np.cumsum(np.bincount(codes))[:-1]
    return np.split(np.argsort(codes, kind="stable"), ends)


def percentile_interval(draws, confidence_level):
    """Return the ends of the percentile interval; (nan, nan) if most draws are undefined."""
    defined = [draw for draw in draws if not np.isnan(draw)]
    if not defined or 2 * len(defined) < len(draws):
        return (np.nan, np.nan)
    shares = [(1 - confidence_level) / 2, (1 + confidence_level) / 2]
    with np.errstate(invalid="ignore"):
        ends = np.quantile(defined, shares)
    if np.isnan(ends).any():
        # Between infinite scores no interpolation is possible.
        ends = np.quantile(defined, shares, method="nearest")
    return tuple(ends.tolist())


class Resampler:
    """Scores resamples of rows by the responses that a model has given to all of them.

    Parameters
    ----------
    model : estimator object
        Fitted.
    X, y : table of shape (n_rows, n_features), and array-like of shape (n_rows, ...) or None
    scoring : str, callable, list, tuple, set, dict or None
    scorer : callable
        What scikit-learn made of `scoring`.
    params : dict
        What the scorer gets beside X and y.
    kept : dict of str -> array-like of shape (n_rows, ...)
        The responses, by the name of the method.
    scores : dict of str -> float
        The score of all rows, by metric.
    """

    def __init__(self, model, X, y, scoring, scorer, params, kept, scores):
        self.model = model
        self.X = X
        self.y = y
        self.scorer = scorer
        self.params = params
        self.kept = kept
        self.scores = scores
        self.scorers = scorers_by_metric(model, scoring, scores)
        self.metrics = self._prepare_metrics()

    def _prepare_metrics(self):
        """Return the prepared metrics that agree with the scorer on all rows, by name."""
        all_rows = np.arange(count_rows(self.X))
        prepared = {}
        for name, scorer in self.scorers.items():
            metric = prepare_metric(self.model, scorer, self.y, self.kept, self.params)
            if metric is not None and _agree(_compute(metric, all_rows), self.scores[name]):
                prepared[name] = metric
        return prepared

    def score_all(self, resamples, clock):
        """Return the scores of resamples, in lists by metric.

        Parameters
        ----------
        resamples : iterable of ndarray of int
            Row positions.
        clock : Clock
            Measures the calls of the scorer.
        """
        draws = {name: [] for name in self.scores}
        # The score of all rows has already issued the warnings that matter.
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            for number, rows in enumerate(resamples):
                if number == 0 and self.metrics:
                    self._drop_disagreeing(rows)
                for name, value in self._score(rows, clock).items():
                    draws[name].append(value)
        clock.warn()
        return draws

    def _drop_disagreeing(self, rows):
        """Drop the prepared metrics that differ from the scorer on a resample.

        Another version of scikit-learn may compute a metric differently.
        """
        for name in list(self.metrics):
            value = _compute(self.metrics[name], rows)
            if value is not None and not _agree(value, self._ask_scorer(rows, [name])[name]):
                del self.metrics[name]

    def _score(self, rows, clock):
        """Return the score of one resample for each metric."""
        scores = {name: _compute(metric, rows) for name, metric in self.metrics.items()}
        missing = [name for name in self.scores if scores.get(name) is None]
        if missing:
            with clock:
                scores |= self._ask_scorer(rows, missing)
        return scores

    def _ask_scorer(self, rows, names):
        """Return the scores of some metrics by the scorer itself; nan where it fails."""
        kept = {name: take_rows(response, rows) for name, response in self.kept.items()}
        params = take_params(self.params, count_rows(self.X), rows)
        scorers = {name: self.scorers.get(name) for name in names}
        # A scorer made by make_scorer passes X to the model only, which has its responses.
        needs_X = any(read_scorer(scorer) is None for scorer in scorers.values())
        X = take_rows(self.X, rows) if needs_X else _UnreadRows()
        y = take_rows(self.y, rows)
        scorer = self._combine(scorers)
        try:
            score = call_scorer(scorer, ResponseView(self.model, X, kept), X, y, params)
        except Exception:
            # The scorer worked on all rows, and is undefined on these, such as without a class.
            return dict.fromkeys(names, np.nan)
        scores = by_metric(score)
        return {name: scores[name] for name in names}

    def _combine(self, scorers):
        """Return a scorer of some metrics, or that of all of them if they cannot be separated."""
        is_all = self.scores.keys() == scorers.keys()
        # With routing, the scorers of a dict may get different parameters.
        if routing_enabled() or is_all or None in scorers.values():
            return self.scorer
        return check_scoring(self.model, scoring=scorers)


def _compute(metric, rows):
    """Return a prepared metric of some rows; None if only the scorer can tell it."""
    try:
        return metric(rows)
    except (IrregularError, ZeroDivisionError):
        return None


def _agree(value, expected):
    """Tell whether a score is as expected, up to the rounding of sums of float32.

    The order of the sums differs between versions of scikit-learn.
    """
    return value is not None and np.isclose(value, expected, rtol=1e-6, atol=1e-9, equal_nan=True)


class _UnreadRows:
    """Stands for rows that a scorer passes to the model without reading them."""


class Clock:
    """Measures how long the calls of a scorer take: a context around each of them.

    Parameters
    ----------
    patience : float
        Seconds above which :meth:`warn` warns.
    """

    def __init__(self, patience):
        self.patience = patience
        self.seconds = 0.0
        self.began = 0.0
        self.n_calls = 0

    def __enter__(self):
        self.began = time.perf_counter()

    def __exit__(self, *error):
        self.seconds += time.perf_counter() - self.began
        self.n_calls += 1

    def warn(self):
        """Warn if all calls together took longer than `patience`."""
        if self.seconds <= self.patience:
            return
        message = (
            f"the bootstrap called the scorer {self.n_calls} times, "
            f"which took {self.seconds:.0f} s: a smaller n_resamples is quicker, and so are "
            "scikit-learn's common metrics, which are computed without a scorer"
        )
        # At the line that calls HoldoutSearch.fit.
        warnings.warn(message, UserWarning, stacklevel=6)


class ResponseView:
    """A fitted model, as a scorer sees it, whose responses to X are kept.

    The model is asked once for each response to all rows. On a resample it is not asked at all.

    Parameters
    ----------
    model : estimator object
        Fitted.
    X : table of shape (n_rows, n_features)
    kept : dict of str -> array-like of shape (n_rows, ...)
        The responses to X, by the name of the method; new ones are added.
    may_ask : bool, default=False
        Whether the model may be asked for what is not kept. Otherwise that is a RuntimeError.
    """

    def __init__(self, model, X, kept, may_ask=False):
        self._model = model
        self._X = X
        self._kept = kept
        self._may_ask = may_ask

    def __sklearn_tags__(self):
        return get_tags(self._model)

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        value = getattr(self._model, name)
        if name in RESPONSES:
            respond = partial(self._respond, name)
            # scikit-learn's scorers read the name of the method that they call.
            respond.__name__ = name
            return respond
        # The score method of a Pipeline would call the steps, whose responses are not kept.
        if name == "score" and not isinstance(self._model, Pipeline):
            return self._copy_with_responses().score
        return value if isinstance(value, (np.ndarray, Number, str)) else self._ask(name)

    def _copy_with_responses(self):
        """Return a copy of the model whose response methods are those of this view."""
        copy = object.__new__(type(self._model))
        names = [name for name in RESPONSES if hasattr(self._model, name)]
        responses = {name: getattr(self, name) for name in names}
        vars(copy).update(vars(self._model), **responses)
        return copy

    def _respond(self, name, X, **options):
        if X is not self._X or options:
            return self._ask(name)(X, **options)
        if name not in self._kept:
            self._kept[name] = self._ask(name)(X)
        return self._kept[name]

    def _ask(self, name):
        if not self._may_ask:
            # Not an AttributeError: a scorer might then try another method.
            raise RuntimeError(
                f"a resample must be scored by the responses kept, the scorer asks for {name}"
            )
        return getattr(self._model, name)
