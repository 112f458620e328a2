"""Greedy selection of an ensemble, with replacement (Caruana et al. 2004, section 2.1).

"Ensemble selection from libraries of models", ICML 2004. What each candidate predicts out of fold
is all that the selection needs: no model is trained or asked again.
"""

import numpy as np
from sklearn import metrics

_N_STEPS = 50
# After so many additions that did not improve the average, no more are tried.
_PATIENCE = 10


def select_greedily(predictions, score_each, n_steps=_N_STEPS):
    """Return how often each candidate is chosen, divided by the number of choices.

    Beginning with nothing, add the candidate whose addition gives the best score of the average,
    whether or not it has been added before. Of all these ensembles the best one is taken, and of
    equal ones the smallest. It ends early after 10 additions without an improvement.

    Parameters
    ----------
    predictions : list of ndarray of shape (n_candidates, n_test_rows, ...)
        Out of fold, for each split.
    score_each : callable
        ``score_each(split, averages)`` returns the score of each of the averages, an ndarray like
        the predictions of that split; greater is better.
    n_steps : int, default=50
        How many candidates are added.

    Returns
    -------
    weights : ndarray of shape (n_candidates,)
        Their sum is 1.

    Examples
    --------
    >>> import numpy as np
    >>> y = np.zeros(2)
    >>> predictions = [np.array([[1.0, 0.0], [-1.0, 0.0], [3.0, 3.0]])]
    >>> select_greedily(predictions, lambda split, means: -((means - y) ** 2).mean(axis=1))
    array([0.5, 0.5, 0. ])
    """
    totals = [np.zeros_like(part[0]) for part in predictions]
    chosen = []
    scores = []
    for n_chosen in range(1, n_steps + 1):
        of_splits = [
            score_each(split, (total + part) / n_chosen)
            for split, (total, part) in enumerate(zip(totals, predictions, strict=True))
        ]
        # a candidate that cannot be scored is never chosen
        means = np.nan_to_num(np.mean(of_splits, axis=0), nan=-np.inf)
        best = int(np.argmax(means))
        chosen.append(best)
        scores.append(means[best])
        totals = [total + part[best] for total, part in zip(totals, predictions, strict=True)]
        if n_chosen - int(np.argmax(scores)) > _PATIENCE:
            break
    # the first of equal prefixes
    n_best = int(np.argmax(scores)) + 1
    return np.bincount(chosen[:n_best], minlength=len(predictions[0])) / n_best


def find_score_of_many(metric, options, y, weight, is_classifier):
    """Return how a metric scores many averages at once; None for a metric that is not known here.

    Parameters
    ----------
    metric : callable
        A metric of :mod:`sklearn.metrics`.
    options : dict
        What it is called with.
    y : ndarray of shape (n_rows,)
        Of a classifier, the numbers of the classes.
    weight : ndarray of shape (n_rows,) or None
    is_classifier : bool

    Returns
    -------
    score : callable or None
        Takes averages of shape (n_averages, n_rows, ...), and returns an ndarray of their scores by
        the metric.
    """
    known = _OF_CLASSES if is_classifier else _OF_NUMBERS
    if options or metric not in known or (not is_classifier and y.ndim > 1):
        return None
    return lambda averages: known[metric](y, averages, weight)


def _log_loss(y, averages, weight):
    # (N, B, C) -> (N, B)
    of_true = np.take_along_axis(averages, y[np.newaxis, :, np.newaxis], axis=2)[..., 0]
    eps = np.finfo(averages.dtype).eps
    return -np.average(np.log(np.clip(of_true, eps, 1 - eps)), axis=1, weights=weight)


def _accuracy(y, averages, weight):
    return np.average(averages.argmax(axis=2) == y, axis=1, weights=weight)


def _squared_error(y, averages, weight):
    return np.average((averages - y) ** 2, axis=1, weights=weight)


def _root_squared_error(y, averages, weight):
    return np.sqrt(_squared_error(y, averages, weight))


def _absolute_error(y, averages, weight):
    return np.average(np.abs(averages - y), axis=1, weights=weight)


def _r2(y, averages, weight):
    mean = np.average(y, weights=weight)
    variance = np.average((y - mean) ** 2, weights=weight)
    if variance == 0:
        # the scorer itself would say what R² of equal targets means: no choice follows from it
        return np.zeros(len(averages))
    return 1 - _squared_error(y, averages, weight) / variance


_OF_CLASSES = {
    metrics.log_loss: _log_loss,
    metrics.accuracy_score: _accuracy,
}
_OF_NUMBERS = {
    metrics.mean_squared_error: _squared_error,
    metrics.root_mean_squared_error: _root_squared_error,
    metrics.mean_absolute_error: _absolute_error,
    metrics.r2_score: _r2,
}
