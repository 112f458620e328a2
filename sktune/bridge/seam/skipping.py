"""Fits that are not begun: the time of their search is over, or their candidate cannot win."""

from time import time

import numpy as np

from sktune.bridge.seam.tasks import Task, is_fit

_SKIPPED = "sktune_skipped"
_LOST = "sktune_lost"


class TimedFit:
    """The function of a task, which fits only if a moment is not past when the task begins.

    It runs wherever the task runs, also in another process or on another machine.

    Parameters
    ----------
    call : callable
        What scikit-learn, or a keeper of models, has made the function of the task.
    end : float
        The moment, as :func:`time.time` tells it.
    """

    def __init__(self, call, end):
        self.call = call
        self.end = end

    @property
    def function(self):
        """scikit-learn's function, by which a task is known to be a fit."""
        return getattr(self.call, "function", self.call)

    def __call__(self, *args, **kwargs):
        """Run the task, or return what stands for its result."""
        if time() >= self.end:
            return make_skipped_result(Task((self.call, args, kwargs)))
        return self.call(*args, **kwargs)


def let_begin_until(item, n_seconds):
    """Return a task, (function, args, kwargs), that does not fit once some seconds have passed."""
    if not is_fit(item):
        return item
    function, args, kwargs = item
    return TimedFit(function, time() + n_seconds), args, kwargs


def make_skipped_result(task=None, row=None):
    """Return the result of a task that has not fitted: it has no error, and scores of NaN.

    Parameters
    ----------
    task : Task or None
    row : dict or None
        The result of another task, which tells what there is of scores in place of `task`.
    """
    if row is not None:
        return {_SKIPPED: True, **_make_empty(row, 0.0)}
    result = {
        _SKIPPED: True,
        "fit_error": None,
        "test_scores": np.nan,
        "n_test_samples": 0,
        "fit_time": 0.0,
        "score_time": 0.0,
    }
    if task.arguments.get("return_train_score"):
        result["train_scores"] = np.nan
    return result


def make_lost_result(row):
    """Return the result of a task that is not run, as its candidate has lost a race.

    `row` is the result of a task that has not failed.
    """
    return {_LOST: True, **_make_empty(row, np.nan)}


def _make_empty(row, seconds):
    """Return a result like another one, with scores of NaN."""
    result = {"fit_error": None, "n_test_samples": 0, "fit_time": seconds, "score_time": seconds}
    for name in ("test_scores", "train_scores"):
        if isinstance(row.get(name), dict):
            result[name] = dict.fromkeys(row[name], np.nan)
        elif name in row:
            result[name] = np.nan
    return result


def is_skipped(result):
    """Tell whether a task was not begun any more, as the time was over."""
    return isinstance(result, dict) and _SKIPPED in result


def is_lost(result):
    """Tell whether a task was not run, as its candidate had lost a race."""
    return isinstance(result, dict) and _LOST in result
