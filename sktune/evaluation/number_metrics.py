"""Metrics of probabilities, decision values and predicted numbers, prepared for many resamples.

Each ``prepare_...`` function takes the targets, the responses and the sample weights (or None) of
all rows, and the options of the metric of the same name in :mod:`sklearn.metrics`. It returns a
function of row positions, or None where it does not know the options. It raises a ValueError where
it does not know such targets or responses.
"""

from functools import partial

import numpy as np

from sktune.evaluation.label_metrics import IrregularError, average_rows, sum_by_label


def prepare_log_loss(y, response, weight):
    """Prepare ``log_loss``."""
    codes, probabilities = _encode_by_class(y, response)
    eps = np.finfo(probabilities.dtype).eps
    logarithms = np.log(np.clip(probabilities, eps, 1 - eps))
    losses = -logarithms[np.arange(len(codes)), codes]
    return _require_all_classes(codes, partial(average_rows, losses, weight))


def prepare_brier(y, response, weight):
    """Prepare ``brier_score_loss``."""
    codes, probabilities = _encode_by_class(y, response)
    n_classes = probabilities.shape[1]
    is_class = np.eye(n_classes, dtype=probabilities.dtype)[codes]
    # scikit-learn takes the square of the positive class alone where there are two classes.
    scale = 0.5 if n_classes == 2 else 1.0
    squares = ((is_class - probabilities) ** 2).sum(axis=1)
    return _require_all_classes(codes, lambda rows: scale * average_rows(squares, weight, rows))


def prepare_roc_auc(y, response, weight, average="macro", multi_class="raise"):
    """Prepare ``roc_auc_score``: of two classes, or of each class against the others."""
    if average not in ("macro", "weighted"):
        return None
    classes, codes = np.unique(y, return_inverse=True)
    if y.ndim != 1:
        return None
    if len(classes) == 2:
        scores = response[:, 1] if response.ndim == 2 else response
        return _Curve(codes == 1, scores, weight).compute_area
    if multi_class != "ovr" or response.shape != (len(y), len(classes)):
        return None
    curves = [_Curve(codes == number, scores, weight) for number, scores in enumerate(response.T)]

    def score(rows):
        class_weights = None
        if average == "weighted":
            class_weights = sum_by_label(codes, len(classes), weight, rows)
        areas = [curve.compute_area(rows) for curve in curves]
        return np.average(areas, weights=class_weights)

    return _require_all_classes(codes, score)


def prepare_mean_of(of_errors, after_mean, y, predicted, weight):
    """Prepare a mean over rows of a function of the errors.

    Parameters
    ----------
    of_errors : callable
        Applied to the errors (n_rows, n_outputs) before the mean, such as ``np.square``.
    after_mean : callable
        Applied to the means (n_outputs,), such as ``np.sqrt``.
    """
    y, predicted = _as_columns(y, predicted)
    terms = of_errors(y - predicted)
    return lambda rows: np.average(after_mean(average_rows(terms, weight, rows)))


def prepare_r2(y, predicted, weight):
    """Prepare ``r2_score``."""
    y, predicted = _as_columns(y, predicted)
    squares = (y - predicted) ** 2

    def score(rows):
        if len(rows) < 2:
            raise IrregularError
        factors = 1.0 if weight is None else weight[rows, np.newaxis]
        deviations = y[rows] - average_rows(y, weight, rows)
        residual = (factors * squares[rows]).sum(axis=0, dtype=np.float64)
        total = (factors * deviations**2).sum(axis=0, dtype=np.float64)
        if not total.all():
            raise IrregularError
        return np.average(1 - residual / total)

    return score


class _Curve:
    """The ROC curve of one class against the others, for rows that are ranked once."""

    def __init__(self, is_positive, scores, weight):
        thresholds, self.ranks = np.unique(scores, return_inverse=True)
        if weight is None:
            weight = np.ones(len(scores))
        self.n_ranks = len(thresholds)
        self.positive = np.where(is_positive, weight, 0.0)
        self.negative = np.where(is_positive, 0.0, weight)

    def compute_area(self, rows):
        """Return the area under the curve of some rows.

        It is the share of pairs (positive, negative) that the scores put in order, where a tie
        counts as half a pair (Hanley and McNeil 1982).
        """
        ranks = self.ranks[rows]
        positive = np.bincount(ranks, self.positive[rows], minlength=self.n_ranks)
        negative = np.bincount(ranks, self.negative[rows], minlength=self.n_ranks)
        n_pairs = positive.sum() * negative.sum()
        if not n_pairs:
            raise IrregularError
        negative_below = np.cumsum(negative) - negative / 2
        return positive @ negative_below / n_pairs


def _encode_by_class(y, response):
    """Return the class number of each row, and probabilities (n_rows, n_classes)."""
    classes, codes = np.unique(y, return_inverse=True)
    if y.ndim != 1 or len(response) != len(y) or response.dtype.kind != "f" or response.ndim != 2:
        raise ValueError("probabilities must have a row for each label")
    if response.shape[1] != len(classes) or len(classes) < 2:
        raise ValueError("probabilities must have a column for each class")
    if len(classes) == 2:
        # A scorer of scikit-learn takes the second column only, and derives the first from it.
        response = np.column_stack((1 - response[:, 1], response[:, 1]))
    return codes, response


def _require_all_classes(codes, score):
    """Return `score` with a check that a resample has all classes."""
    n_classes = codes.max() + 1

    def checked(rows):
        if not np.bincount(codes[rows], minlength=n_classes).all():
            raise IrregularError
        return score(rows)

    return checked


def _as_columns(y, predicted):
    """Return targets and predictions as tables (n_rows, n_outputs)."""
    if y.dtype.kind not in "biuf" or predicted.dtype.kind not in "biuf":
        raise ValueError("targets must be numbers")
    y = y.reshape(len(y), -1)
    predicted = predicted.reshape(len(predicted), -1)
    if y.shape != predicted.shape:
        raise ValueError("targets and predictions must have the same shape")
    return y, predicted
