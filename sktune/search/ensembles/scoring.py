"""The scorer of a search, applied to predictions that are known."""

from collections.abc import Mapping

import numpy as np
import skorch
from sklearn import metrics
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.metrics import check_scoring
from sklearn.pipeline import Pipeline

from sktune.bridge.seam import read_scorer
from sktune.estimators.classifier import NeuralNetClassifier
from sktune.search.ensembles.greedy import find_score_of_many

# What an ensemble can be asked for.
RESPONSES = {"classifier": ("predict", "predict_proba"), "regressor": ("predict",)}

# By how much a mean of probabilities may be above 1.
_ROUNDING = 1e-4

_KNOWN_SCORES = (
    ClassifierMixin.score,
    RegressorMixin.score,
    NeuralNetClassifier.score,
    skorch.NeuralNetClassifier.score,
    skorch.NeuralNetRegressor.score,
)


class KnownClassifier(ClassifierMixin, BaseEstimator):
    """A fitted classifier that answers with what it was given, whatever the rows are."""

    def __init__(self, probabilities, classes):
        self.probabilities = probabilities
        self.classes_ = classes

    def predict_proba(self, X):
        """Return the known probabilities."""
        return self.probabilities

    def predict(self, X):
        """Return the most probable classes."""
        return self.classes_[self.probabilities.argmax(axis=1)]


class KnownRegressor(RegressorMixin, BaseEstimator):
    """A fitted regressor that answers with what it was given, whatever the rows are."""

    def __init__(self, predictions):
        self.predictions = predictions
        self.is_fitted_ = True

    def predict(self, X):
        """Return the known predictions."""
        return self.predictions


def find_scorer(search):
    """Return the scorer by which a search chooses. A function of the user's may return a dict.

    Raises
    ------
    ValueError
        If there is no single metric to choose by.
    """
    scoring = search.scoring
    if scoring is None or isinstance(scoring, str) or callable(scoring):
        return check_scoring(search.estimator, scoring)
    if not isinstance(search.refit, str) or search.refit not in scoring:
        raise ValueError(
            "an ensemble needs one metric: refit must name one of several, "
            f"got refit={search.refit!r}"
        )
    chosen = scoring[search.refit] if isinstance(scoring, Mapping) else search.refit
    return check_scoring(search.estimator, chosen)


def check_scorer(search, scorer, kind):
    """Refuse a scorer that needs what an ensemble of this kind does not have.

    Parameters
    ----------
    search : estimator object
    scorer : callable
        What a function of the user's asks for cannot be told before it is called.
    kind : {"classifier", "regressor"}
    """
    if search.scoring is None:
        last = search.estimator
        while isinstance(last, Pipeline):
            last = last.steps[-1][1]
        if type(last).score not in _KNOWN_SCORES:
            raise ValueError(
                "scoring must be given for an ensemble, since "
                f"{type(last).__name__} has a score method of its own"
            )
        return
    read = read_scorer(scorer)
    if read is None:
        return
    responses = read[3]
    if not any(name in RESPONSES[kind] for name in responses):
        raise ValueError(
            f"the scoring of an ensemble must need only {' or '.join(RESPONSES[kind])}, "
            f"{scorer!r} needs {' or '.join(responses)}"
        )


class SplitScorer:
    """Scores averages of predictions for the test rows of one split.

    Parameters
    ----------
    scorer : callable
    X, y : table and array-like
        The test rows.
    params : dict
        What the scorer gets beside them.
    classes : ndarray of shape (n_classes,) or None
        Of a classifier.
    metric : str or bool
        Which entry counts where the scorer returns a dict.
    is_own_score : bool
        Whether the scorer calls the ``score`` of a model.
    """

    def __init__(self, scorer, X, y, params, *, classes=None, metric=None, is_own_score=False):
        self.scorer = scorer
        self.X = X
        self.y = y
        self.params = params
        self.classes = classes
        self.metric = metric
        self.is_own_score = is_own_score
        self.known = self._find_known()

    def score(self, average):
        """Return what the scorer says of an average: an ndarray of shape (n_rows, ...)."""
        model = KnownRegressor(average)
        if self.classes is not None:
            # metrics refuse what rounding has put above 1; margins are no probabilities
            is_rounded = (average > 1) & (average < 1 + _ROUNDING)
            model = KnownClassifier(np.where(is_rounded, 1, average), self.classes)
        score = self.scorer(model, self.X, self.y, **self.params)
        return score[self.metric] if isinstance(score, dict) else score

    def score_each(self, averages):
        """Return the scores of averages (n_averages, n_rows, ...); greater is better."""
        if self.known is not None:
            sign, score = self.known
            return sign * score(averages)
        return np.array([self.score(average) for average in averages])

    def _find_known(self):
        """Return the sign of a metric, and what computes it of many averages at once, or None."""
        is_classifier = self.classes is not None
        read = read_scorer(self.scorer)
        if self.is_own_score:
            metric = metrics.accuracy_score if is_classifier else metrics.r2_score
            read = (metric, {}, 1, ("predict",))
        if read is None or not self.params.keys() <= {"sample_weight"}:
            return None
        metric, options, sign, (response, *_) = read
        if response != ("predict_proba" if metric is metrics.log_loss else "predict"):
            return None
        y = np.asarray(self.y)
        if is_classifier:
            y = np.searchsorted(self.classes, y)
        weight = self.params.get("sample_weight")
        score = find_score_of_many(metric, options, y, weight, is_classifier)
        return None if score is None else (sign, score)
