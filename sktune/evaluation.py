"""The one evaluation on sealed rows, and an interval around it."""

import warnings
from dataclasses import dataclass
from functools import partial
from numbers import Number

import numpy as np
from sklearn.metrics import check_scoring
from sklearn.pipeline import Pipeline
from sklearn.utils import get_tags

from sktune.indexing import count_rows, take_params, take_rows

__all__ = ["Evaluation", "evaluate_once"]

RESPONSES = (
    "predict",
    "predict_proba",
    "predict_log_proba",
    "decision_function",
    "score_samples",
    "transform",
)
# With fewer than this share of the resamples defined, an interval would say more than is known.
MIN_DEFINED = 0.5


@dataclass(frozen=True)
class Evaluation:
    """What was found on the sealed rows: a number and an interval, or dicts of them by metric."""

    score: float | dict
    interval: tuple | dict


def evaluate_once(model, X, y, *, scoring, params, groups, n_resamples, confidence_level, seed):
    """Score a fitted model on rows it has never seen, calling it once, and put an interval around.

    The responses of the model to `X` are kept and resampled with the rows, by the percentile
    bootstrap (Efron and Tibshirani 1993, chapter 13); with `groups`, whole groups are resampled
    (Davison and Hinkley 1997, section 3.8). The model itself never sees a resample.

    Parameters
    ----------
    model : fitted estimator
    X, y
        The sealed rows.
    scoring : str, callable, list, tuple, dict or None
        As in scikit-learn's searches.
    params : dict
        Passed to the scorer, such as ``sample_weight``.
    groups : array-like of shape (n_samples,) or None
    n_resamples : int
    confidence_level : float
    seed : int
        Of the resamples.

    Returns
    -------
    Evaluation
        The interval is (nan, nan) where the metric is undefined on most resamples, where there is
        but one row or group, or where the scorer needs more of the model than its responses.
    """
    scorer = check_scoring(model, scoring)
    answers = _Answers(model, X)
    score = _call_scorer(scorer, answers, X, y, params)
    n_rows = count_rows(X)
    scores = _by_metric(score)
    try:
        draws = [
            _score_resample(scorer, answers, X, y, take_params(params, n_rows, rows), rows, scores)
            for rows in _draw_rows(n_rows, groups, n_resamples, np.random.default_rng(seed))
        ]
    except _NoAnswerError:
        draws = []
    intervals = {name: _percentile_interval([draw[name] for draw in draws], confidence_level) for name in scores}
    if not isinstance(score, dict):
        return Evaluation(scores[None], intervals[None])
    return Evaluation(scores, intervals)


def _by_metric(score):
    return {name: float(s) for name, s in (score if isinstance(score, dict) else {None: score}).items()}


def _call_scorer(scorer, model, X, y, params):
    return scorer(model, X, **params) if y is None else scorer(model, X, y, **params)


def _draw_rows(n_rows, groups, n_resamples, rng):
    """Yield row positions drawn with replacement, by rows or by whole groups."""
    if groups is None:
        units = np.arange(n_rows)[:, None]
    else:
        _, codes = np.unique(np.asarray(groups), return_inverse=True)
        units = [np.flatnonzero(codes == code) for code in range(codes.max() + 1)]
    if len(units) < 2:
        return
    for _ in range(n_resamples):
        yield np.concatenate([units[i] for i in rng.integers(len(units), size=len(units))])


def _score_resample(scorer, answers, X, y, params, rows, scores):
    X_drawn = take_rows(X, rows)
    view = _Answers(answers, X_drawn, rows)
    with warnings.catch_warnings():
        # Whatever is worth a warning was warned of when all rows were scored.
        warnings.simplefilter("ignore")
        try:
            return _by_metric(_call_scorer(scorer, view, X_drawn, take_rows(y, rows), params))
        except _NoAnswerError:
            raise
        except Exception:
            # The metric worked on all rows: it is undefined on these, say for want of a class.
            return dict.fromkeys(scores, np.nan)


def _percentile_interval(draws, confidence_level):
    draws = np.asarray(draws, dtype=float)
    defined = draws[~np.isnan(draws)]
    if not len(draws) or len(defined) < MIN_DEFINED * len(draws):
        return (np.nan, np.nan)
    tail = (1 - confidence_level) / 2
    low, high = np.quantile(defined, [tail, 1 - tail])
    return (float(low), float(high))


class _NoAnswerError(Exception):
    """A scorer asked for more than the responses that were kept."""


class _Answers:
    """A fitted model as scorers see it, whose responses are computed once for known rows.

    With `rows` it is a view of another one: it answers by position and never asks the model.
    """

    def __init__(self, model, X, rows=None):
        self._model = model
        self._X = X
        self._rows = rows
        self._kept = {}

    def __sklearn_tags__(self):
        return get_tags(self._model)

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        value = getattr(self._model, name)
        if name in RESPONSES:
            return self._responder(name)
        # A view must not lead a scorer to the model by a detour, such as a step of a pipeline.
        if self._rows is not None and not isinstance(value, (np.ndarray, Number, str)):
            raise _NoAnswerError(name)
        return value

    def _responder(self, name):
        def respond(X):
            if X is self._X:
                return self._answer(name)
            if self._rows is not None:
                raise _NoAnswerError(name)
            return getattr(self._model, name)(X)

        respond.__name__ = name  # scikit-learn's scorers go by it
        return respond

    def _answer(self, name):
        if name not in self._kept:
            if self._rows is None:
                self._kept[name] = getattr(self._model, name)(self._X)
            else:
                self._kept[name] = take_rows(self._model._recall(name), self._rows)
        return self._kept[name]

    def _recall(self, name):
        if name not in self._kept:
            raise _NoAnswerError(name)
        return self._kept[name]

    def score(self, X, y=None, **params):
        """Score as the model itself does, with the responses from here."""
        if self._rows is None:
            return _call_scorer(_score_of, self._stand_in(self._model), X, y, params)
        if not self._model._kept:  # it has scored by other means than its responses
            raise _NoAnswerError("score")
        final = self._model._model
        while isinstance(final, Pipeline):
            final = final.steps[-1][1]
        return _call_scorer(_score_of, self._stand_in(final), X, y, params)

    def _stand_in(self, model):
        """Return a shallow copy of a model, or of a Pipeline's last step, that responds from here."""
        if isinstance(model, Pipeline):
            *before, (name, last) = model.steps
            return Pipeline([*before, (name, self._stand_in(last))])
        copy = object.__new__(type(model))
        vars(copy).update(vars(model))
        for name in RESPONSES:
            if hasattr(model, name):
                vars(copy)[name] = partial(self._respond_for, model, name)
        return copy

    def _respond_for(self, model, name, X):
        if self._rows is not None:
            return self._answer(name)
        if count_rows(X) != count_rows(self._X):
            return getattr(model, name)(X)
        if name not in self._kept:
            self._kept[name] = getattr(model, name)(X)
        return self._kept[name]


def _score_of(model, *data, **params):
    return model.score(*data, **params)
