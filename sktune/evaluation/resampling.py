"""Metrics of many resamples of the same rows, from terms that are computed once for each row.

A scorer checks its input anew each time, which takes longer than the metric itself. The functions here do the
arithmetic of scikit-learn's metrics on rows that have been checked;
``tests/evaluation/test_resampling.py`` compares each of them with its scorer. What is not here is
left to the scorer.
"""

from functools import partial

import numpy as np
from sklearn import metrics
from sklearn.base import ClassifierMixin, RegressorMixin

from sktune.bridge.seam import read_scorer

_OWN_ACCURACY = (
    "sktune.estimators.classifier",
    "NeuralNetClassifier.score",
)  # which warns of labels that were not seen in fit

_MISSING = "the metric must have rows of each kind that it needs, the resample lacks some"


class IrregularError(ValueError):
    """A resample lacks what the metric needs, such as a class: the scorer itself has to say what that means."""


def _read_score_method(model):
    """Return what :func:`read_scorer` returns, of a model's ``score`` method."""
    method = getattr(type(model), "score", None)
    own = (getattr(method, "__module__", None), getattr(method, "__qualname__", None))
    if method is ClassifierMixin.score or own == _OWN_ACCURACY:
        return metrics.accuracy_score, {}, 1, ("predict",)
    if method is RegressorMixin.score:
        return metrics.r2_score, {}, 1, ("predict",)
    return None


def prepare_metric(model, scorer, y, responses, params):
    """Return a function of row positions that computes what a scorer would return for these rows; None if unknown.

    Parameters
    ----------
    model : estimator object
        The fitted model. Its ``score`` method is meant where `scorer` is None.
    scorer : callable or None
    y : array-like of shape (n_rows, ...)
    responses : dict of str -> array-like of shape (n_rows, ...)
        What the model has answered, by the name of the method.
    params : dict
        What the scorer is called with; nothing but ``sample_weight`` is known here.

    Returns
    -------
    score : callable or None
        ``score(rows)`` returns a float, or raises :class:`IrregularError`.
    """
    found = _read_score_method(model) if scorer is None else read_scorer(scorer)
    weight = params.get("sample_weight")
    if found is None or y is None or params.keys() - {"sample_weight"}:
        return None
    metric, options, sign, names = found
    response = next((responses[name] for name in names if name in responses), None)
    prepare = _METRICS.get(metric)
    if response is None or prepare is None:
        return None
    weight = None if weight is None else np.asarray(weight, dtype=np.float64)
    try:
        score = prepare(np.asarray(y), np.asarray(response), weight, **options)
    except (TypeError, ValueError):  # options, labels or shapes that are not known here
        return None
    return None if score is None else lambda rows: sign * float(score(rows))


def _average(terms, weight, rows):
    """Return the mean over some rows of terms (n_rows, ...), as scikit-learn's metrics take it."""
    return np.average(terms[rows], axis=0, weights=None if weight is None else weight[rows])


def _encode(y, predicted):
    """Return the labels (n_labels,) of two columns, and the numbers of theirs; raise if they are no columns."""
    if y.ndim != 1 or predicted.shape != y.shape or "f" in (y.dtype.kind, predicted.dtype.kind):
        raise ValueError("labels must be columns of one label each")
    labels, codes = np.unique(np.concatenate([y, predicted]), return_inverse=True)
    return labels, codes[: len(y)], codes[len(y) :]


def _prepare_accuracy(y, predicted, weight):
    _, true, found = _encode(y, predicted)
    return partial(_average, true == found, weight)


def _sum_by_label(codes, n_labels, weight, rows):
    return np.bincount(
        codes[rows], None if weight is None else weight[rows], minlength=n_labels
    ).astype(np.float64)


class _Counts:
    """Sums of weights for each label: of its rows, of those predicted so, and of those rightly predicted so."""

    def __init__(self, y, predicted, weight):
        self.labels, self.true, self.found = _encode(y, predicted)
        self.weight = weight
        n_labels = len(self.labels)
        self.hits = np.where(
            self.true == self.found, self.true, n_labels
        )  # the last one is for errors

    def of(self, rows):
        n_labels = len(self.labels)
        true = _sum_by_label(self.true, n_labels, self.weight, rows)
        found = _sum_by_label(self.found, n_labels, self.weight, rows)
        hits = _sum_by_label(self.hits, n_labels + 1, self.weight, rows)[:-1]
        return true, found, hits

    def are_there(self, rows):
        """Return whether each label is among the rows' own or predicted ones, whatever they weigh."""
        n_labels = len(self.labels)
        return (
            np.bincount(self.true[rows], minlength=n_labels)
            + np.bincount(self.found[rows], minlength=n_labels)
        ) > 0


def _prepare_balanced_accuracy(y, predicted, weight, adjusted=False):
    counts = _Counts(y, predicted, weight)

    def score(rows):
        true, _, hits = counts.of(rows)
        recalls = hits[true > 0] / true[true > 0]
        if not len(recalls):
            raise IrregularError(_MISSING)
        if not adjusted:
            return recalls.mean()
        chance = 1 / len(recalls)
        return (recalls.mean() - chance) / (1 - chance) if len(recalls) > 1 else np.nan

    return score


def _divide(numerator, denominator):
    """Return quotients, and 0 where nothing is divided by nothing."""
    return np.divide(numerator, denominator, out=np.zeros_like(numerator), where=denominator != 0)


def _precision(true, found, hits):
    return _divide(hits, found)


def _recall(true, found, hits):
    return _divide(hits, true)


def _f_beta(true, found, hits, beta=1.0):
    return _divide((1 + beta**2) * hits, beta**2 * true + found)


def _prepare_by_class(
    of_counts,
    y,
    predicted,
    weight,
    average="binary",
    pos_label=1,
    labels=None,
    zero_division="warn",
):
    """Prepare a metric of each class and its average; `of_counts` takes the sums of :class:`_Counts`."""
    is_known = average in ("binary", "micro", "macro", "weighted") and labels is None
    if not is_known or not (zero_division == "warn" or zero_division == 0):
        return None
    counts = _Counts(y, predicted, weight)
    positive = np.flatnonzero(counts.labels == pos_label)
    if average == "binary" and (len(counts.labels) > 2 or len(positive) != 1):
        return None

    def score(rows):
        sums = counts.of(rows)
        if average == "binary":
            return of_counts(*(of_labels[positive] for of_labels in sums))[0]
        if average == "micro":
            return of_counts(*(of_labels.sum(keepdims=True) for of_labels in sums))[0]
        if average == "macro":
            return of_counts(*sums)[counts.are_there(rows)].mean()
        if not sums[0].any():
            raise IrregularError(_MISSING)
        return np.average(of_counts(*sums), weights=sums[0])

    return score


def _prepare_f_beta(y, predicted, weight, beta, **options):
    return _prepare_by_class(partial(_f_beta, beta=beta), y, predicted, weight, **options)


def _by_class(y, response):
    """Return the number of each row's class, and probabilities (n_rows, n_classes)."""
    classes, codes = np.unique(y, return_inverse=True)
    if y.ndim != 1 or len(response) != len(y) or response.dtype.kind != "f" or response.ndim != 2:
        raise ValueError("probabilities must have a row for each label")
    if response.shape[1] != len(classes) or len(classes) < 2:
        raise ValueError("probabilities must have a column for each class")
    if len(classes) == 2:  # a scorer asks for those of one class
        response = np.column_stack((1 - response[:, 1], response[:, 1]))
    return codes, response


def _where_all_classes_are(codes, score):
    """Return `score`, for resamples with all classes."""
    n_classes = codes.max() + 1

    def checked(rows):
        if not np.bincount(codes[rows], minlength=n_classes).all():
            raise IrregularError(_MISSING)
        return score(rows)

    return checked


def _prepare_log_loss(y, response, weight):
    codes, response = _by_class(y, response)
    eps = np.finfo(response.dtype).eps
    losses = -np.log(np.clip(response, eps, 1 - eps))[np.arange(len(codes)), codes]
    return _where_all_classes_are(codes, partial(_average, losses, weight))


def _prepare_brier(y, response, weight):
    codes, response = _by_class(y, response)
    is_class = np.eye(response.shape[1], dtype=response.dtype)[codes]
    scale = 0.5 if response.shape[1] == 2 else 1.0
    squares = ((is_class - response) ** 2).sum(axis=1)
    score = partial(_average, squares, weight)
    return _where_all_classes_are(codes, lambda rows: scale * score(rows))


class _Curve:
    """The area under the ROC curve of one class against the others, for rows whose order is known."""

    def __init__(self, is_positive, scores, weight):
        thresholds, self.ranks = np.unique(scores, return_inverse=True)
        weight = np.ones(len(scores)) if weight is None else weight
        self.n_ranks = len(thresholds)
        self.positive = np.where(is_positive, weight, 0.0)
        self.negative = np.where(is_positive, 0.0, weight)

    def area(self, rows):
        """Return the share of pairs that are in order; a tie is half of one (Hanley and McNeil 1982)."""
        ranks = self.ranks[rows]
        positive = np.bincount(ranks, self.positive[rows], minlength=self.n_ranks)
        negative = np.bincount(ranks, self.negative[rows], minlength=self.n_ranks)
        below = np.cumsum(negative) - negative / 2
        n_pairs = positive.sum() * negative.sum()
        if not n_pairs:
            raise IrregularError(_MISSING)
        return positive @ below / n_pairs


def _prepare_roc_auc(y, response, weight, average="macro", multi_class="raise"):
    if average not in ("macro", "weighted"):
        return None
    classes, codes = np.unique(y, return_inverse=True)
    if y.ndim != 1:
        return None
    if len(classes) == 2:
        scores = response[:, 1] if response.ndim == 2 else response
        return _Curve(codes == 1, scores, weight).area
    if multi_class != "ovr" or response.shape != (len(y), len(classes)):
        return None
    curves = [_Curve(codes == number, scores, weight) for number, scores in enumerate(response.T)]

    def score(rows):
        shares = _sum_by_label(codes, len(classes), weight, rows) if average == "weighted" else None
        return np.average([curve.area(rows) for curve in curves], weights=shares)

    return _where_all_classes_are(codes, score)


def _columns(y, predicted):
    """Return targets and predictions as tables (n_rows, n_outputs)."""
    if y.dtype.kind not in "biuf" or predicted.dtype.kind not in "biuf":
        raise ValueError("targets must be numbers")
    y, predicted = y.reshape(len(y), -1), predicted.reshape(len(predicted), -1)
    if y.shape != predicted.shape:
        raise ValueError("targets and predictions must have the same shape")
    return y, predicted


def _prepare_mean_of(of_errors, after_mean, y, predicted, weight):
    y, predicted = _columns(y, predicted)
    terms = of_errors(y - predicted)
    return lambda rows: np.average(after_mean(_average(terms, weight, rows)))


def _prepare_r2(y, predicted, weight):
    y, predicted = _columns(y, predicted)
    squares = (y - predicted) ** 2

    def score(rows):
        if len(rows) < 2:
            raise IrregularError(_MISSING)
        factors = 1.0 if weight is None else weight[rows, np.newaxis]
        deviations = y[rows] - _average(y, weight, rows)
        residual = (factors * squares[rows]).sum(axis=0, dtype=np.float64)
        total = (factors * deviations**2).sum(axis=0, dtype=np.float64)
        if not total.all():
            raise IrregularError(_MISSING)
        return np.average(1 - residual / total)

    return score


def _itself(values):
    return values


_METRICS = {
    metrics.accuracy_score: _prepare_accuracy,
    metrics.balanced_accuracy_score: _prepare_balanced_accuracy,
    metrics.precision_score: partial(_prepare_by_class, _precision),
    metrics.recall_score: partial(_prepare_by_class, _recall),
    metrics.f1_score: partial(_prepare_by_class, _f_beta),
    metrics.fbeta_score: _prepare_f_beta,
    metrics.log_loss: _prepare_log_loss,
    metrics.brier_score_loss: _prepare_brier,
    metrics.roc_auc_score: _prepare_roc_auc,
    metrics.mean_squared_error: partial(_prepare_mean_of, np.square, _itself),
    metrics.root_mean_squared_error: partial(_prepare_mean_of, np.square, np.sqrt),
    metrics.mean_absolute_error: partial(_prepare_mean_of, np.abs, _itself),
    metrics.r2_score: _prepare_r2,
}
