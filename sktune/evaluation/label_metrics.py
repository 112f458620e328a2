"""Metrics that compare predicted labels with true ones, prepared for many resamples of the rows.

Each ``prepare_...`` function takes the true labels, the predictions and the sample weights (or
None) of all rows, and the options of the metric of the same name in :mod:`sklearn.metrics`. It
returns a function of row positions, or None where it does not know the options. It raises a
ValueError where it does not know such labels.
"""

from functools import partial

import numpy as np


class IrregularError(ValueError):
    """A resample lacks what the metric needs, such as a class. Only the scorer can score it."""

    def __init__(self):
        super().__init__(
            "the metric must have rows of each kind that it needs, the resample lacks some"
        )


def average_rows(terms, weight, rows):
    """Return the weighted mean of terms (n_rows, ...) over some rows, as in scikit-learn."""
    weights = None if weight is None else weight[rows]
    return np.average(terms[rows], axis=0, weights=weights)


def sum_by_label(codes, n_labels, weight, rows):
    """Return the sums of weights (n_labels,) over some rows, by the label number of each row."""
    weights = None if weight is None else weight[rows]
    sums = np.bincount(codes[rows], weights, minlength=n_labels)
    return sums.astype(np.float64)


def prepare_accuracy(y, predicted, weight):
    """Prepare ``accuracy_score``."""
    _, true_codes, predicted_codes = _encode(y, predicted)
    is_hit = true_codes == predicted_codes
    return partial(average_rows, is_hit, weight)


def prepare_balanced_accuracy(y, predicted, weight, adjusted=False):
    """Prepare ``balanced_accuracy_score``."""
    counts = _Counts(y, predicted, weight)

    def score(rows):
        true, _, hits = counts.sum_weights(rows)
        recalls = hits[true > 0] / true[true > 0]
        if not len(recalls):
            raise IrregularError
        if not adjusted:
            return recalls.mean()
        if len(recalls) == 1:
            return np.nan
        chance = 1 / len(recalls)
        return (recalls.mean() - chance) / (1 - chance)

    return score


def prepare_by_class(
    of_sums,
    y,
    predicted,
    weight,
    average="binary",
    pos_label=1,
    labels=None,
    zero_division="warn",
):
    """Prepare a metric of each class, and its average over the classes.

    Parameters
    ----------
    of_sums : callable
        ``of_sums(true, predicted, hits)`` returns the metric of each class from the sums of
        :meth:`_Counts.sum_weights`.
    """
    is_known = average in ("binary", "micro", "macro", "weighted") and labels is None
    if not is_known or not (zero_division == "warn" or zero_division == 0):
        return None
    counts = _Counts(y, predicted, weight)
    positive = np.flatnonzero(counts.labels == pos_label)
    if average == "binary" and (len(counts.labels) > 2 or len(positive) != 1):
        return None

    def score(rows):
        sums = counts.sum_weights(rows)
        if average == "binary":
            return of_sums(*(by_label[positive] for by_label in sums))[0]
        if average == "micro":
            return of_sums(*(by_label.sum(keepdims=True) for by_label in sums))[0]
        if average == "macro":
            return of_sums(*sums)[counts.are_present(rows)].mean()
        true = sums[0]
        if not true.any():
            raise IrregularError
        return np.average(of_sums(*sums), weights=true)

    return score


def compute_precision(true, predicted, hits):
    """Return the precision of each class."""
    return _divide(hits, predicted)


def compute_recall(true, predicted, hits):
    """Return the recall of each class."""
    return _divide(hits, true)


def compute_f_beta(true, predicted, hits, beta=1.0):
    """Return the F score of each class."""
    return _divide((1 + beta**2) * hits, beta**2 * true + predicted)


def prepare_f_beta(y, predicted, weight, beta, **options):
    """Prepare ``fbeta_score``."""
    return prepare_by_class(partial(compute_f_beta, beta=beta), y, predicted, weight, **options)


class _Counts:
    """Sums of weights by label: of the true labels, the predicted labels, and the hits."""

    def __init__(self, y, predicted, weight):
        self.labels, self.true_codes, self.predicted_codes = _encode(y, predicted)
        self.weight = weight
        is_hit = self.true_codes == self.predicted_codes
        # Wrong predictions are counted under a further number, which is dropped afterwards.
        self.hit_codes = np.where(is_hit, self.true_codes, len(self.labels))

    def sum_weights(self, rows):
        """Return three arrays (n_labels,): the sums for true labels, predicted labels and hits."""
        n_labels = len(self.labels)
        true = sum_by_label(self.true_codes, n_labels, self.weight, rows)
        predicted = sum_by_label(self.predicted_codes, n_labels, self.weight, rows)
        hits = sum_by_label(self.hit_codes, n_labels + 1, self.weight, rows)[:-1]
        return true, predicted, hits

    def are_present(self, rows):
        """Tell for each label whether some row has it or is predicted to, whatever its weight."""
        n_labels = len(self.labels)
        n_true = np.bincount(self.true_codes[rows], minlength=n_labels)
        n_predicted = np.bincount(self.predicted_codes[rows], minlength=n_labels)
        return n_true + n_predicted > 0


def _encode(y, predicted):
    """Return the labels (n_labels,) of both columns, and their numbers in each column."""
    has_floats = "f" in (y.dtype.kind, predicted.dtype.kind)
    if y.ndim != 1 or predicted.shape != y.shape or has_floats:
        raise ValueError("labels must be columns of one label each")
    labels, codes = np.unique(np.concatenate([y, predicted]), return_inverse=True)
    return labels, codes[: len(y)], codes[len(y) :]


def _divide(numerator, denominator):
    """Return quotients, and 0 where the denominator is 0."""
    quotients = np.zeros_like(numerator)
    return np.divide(numerator, denominator, out=quotients, where=denominator != 0)
