"""The scores that matter: of the best candidate, of the baseline, on the sealed rows."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from sklearn.base import clone
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import Pipeline

from sktune.inspection.records import list_metrics, read_scorer, read_search
from sktune.inspection.records.parameters import format_value


@dataclass(frozen=True)
class Score:
    """A mean score.

    Parameters
    ----------
    mean : float
    error : float
        Its standard error over the splits; nan where it is not known.
    source : str
        Where it comes from.
    """

    mean: float
    error: float
    source: str

    def __str__(self):
        if not np.isfinite(self.error):
            return format_score(self.mean)
        return f"{format_score(self.mean)} ± {format_score(self.error)}"


@dataclass(frozen=True)
class SealedTest:
    """What the sealed rows have shown, as texts.

    Parameters
    ----------
    score, interval, optimism : str
    n_rows : int
    """

    score: str
    interval: str
    optimism: str
    n_rows: int


def format_score(value):
    """Return a score with four digits after the point, or four significant ones.

    Examples
    --------
    >>> from sktune.inspection.report.results import format_score
    >>> format_score(0.97777), format_score(-123456.0), format_score(float("nan"))
    ('0.9778', '-1.235e+05', 'nan')
    """
    if value == 0 or 1e-3 <= abs(value) < 1e4:
        return f"{value:.4f}"
    return f"{value:.4g}"


def read_best(record):
    """Return the Score of the chosen candidate; None if it has none."""
    best = record.best_index
    if best is None or not np.isfinite(record.mean_scores[best]):
        return None
    error = record.standard_errors[best]
    return Score(record.mean_scores[best], error, f"candidate {best}")


def list_other_scores(record, search):
    """Return the scores of the chosen candidate by all other metrics: list of (name, Score)."""
    if record.best_index is None:
        return []
    scores = []
    for metric in list_metrics(search):
        if metric == record.metric:
            continue
        other = replace(read_search(search, metric), best_index=record.best_index)
        score = read_best(other)
        if score is not None:
            scores.append((other.scoring, score))
    return scores


def list_best_parameters(record):
    """Return the parameters of the chosen candidate: list of (name, value, the estimator's own)."""
    if record.best_index is None:
        return []
    own = _own_settings(record)
    rows = []
    for name, value in record.params[record.best_index].items():
        before = format_value(own[name]) if name in own else "not set"
        rows.append((name, format_value(value), before))
    return rows


def find_baseline(record, search, X=None, y=None):
    """Return the Score of the estimator's own settings; None if it is not known.

    It is read from the search where this has it: from a HoldoutSearch, or from the candidate with
    these very settings. Otherwise it is computed on `X` and `y`, where these are given.
    """
    own = _own_settings(record)
    for number, params in enumerate(record.params):
        is_own = own and all(_is_same(own.get(name, record), params[name]) for name in params)
        if is_own and record.is_final[number]:
            error = record.standard_errors[number]
            return Score(record.mean_scores[number], error, f"candidate {number}")
    if hasattr(search, "baseline_score_"):
        mean = _of_metric(search.baseline_score_, record.metric)
        return Score(mean, np.nan, "the same splits")
    if X is None or record.search is None:
        return None
    return _compute_baseline(record, search, X, y)


def read_sealed_test(record, search):
    """Return the SealedTest of a HoldoutSearch; None for another search."""
    names = ("test_score_", "test_interval_", "optimism_")
    if not all(hasattr(search, name) for name in names):
        return None
    score, interval, optimism = (_of_metric(getattr(search, n), record.metric) for n in names)
    low, high = interval
    level = getattr(search, "confidence_level", None)
    text = f"{format_score(low)} to {format_score(high)}" if np.isfinite(low) else "no interval"
    if level is not None and np.isfinite(low):
        text += f" ({level * 100:g} % interval)"
    n_rows = len(getattr(search, "test_indices_", ()))
    return SealedTest(format_score(score), text, f"{optimism:+.4f}", n_rows)


def _own_settings(record):
    """Return the parameters of the estimator as it was given; empty if it is not known."""
    if not hasattr(record.estimator, "get_params"):
        return {}
    return clone(record.estimator).get_params()


def _is_same(value, other):
    """Tell whether two settings are equal; arrays and the like are only if they are one object."""
    if value is other:
        return True
    simple = (bool, int, float, str, tuple, np.generic)
    return isinstance(value, simple) and isinstance(other, simple) and value == other


def _of_metric(value, metric):
    return value[metric] if isinstance(value, Mapping) else value


def _compute_baseline(record, search, X, y):
    core = record.search
    if isinstance(search, Pipeline) and len(search.steps) > 1:
        X = search[:-1].transform(X)
    scoring = read_scorer(core, record.metric)
    scores = cross_val_score(clone(record.estimator), X, y, cv=core.cv, scoring=scoring)
    error = scores.std(ddof=1) / np.sqrt(len(scores)) if len(scores) > 1 else np.nan
    return Score(float(scores.mean()), float(error), "computed for this report")
