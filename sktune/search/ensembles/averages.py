"""An estimator that averages the predictions of others."""

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin, clone, is_classifier
from sklearn.utils import get_tags
from sklearn.utils.validation import _num_samples, check_is_fitted

from sktune.runtime.versions import RemembersVersions
from sktune.search.ensembles.stacked_nets import stack_alike

# One pass through all networks saves time where rows are few. Beyond so many on a CPU the networks
# one by one are as fast or faster: 60 of them took 39 ms stacked and 60 ms one by one for 20 rows,
# 70 and 73 ms for 360 rows, 229 and 96 ms for 1,797 rows.
_MOST_STACKED_ROWS = 256


class _Average(RemembersVersions, BaseEstimator):
    """What averages of classifiers and of regressors share."""

    def __init__(self, members, weights=None):
        self.members = members
        self.weights = weights

    def fit(self, X, y, **fit_params):
        """Fit a copy of each member to the rows, and return self."""
        self.members_ = [clone(member).fit(X, y, **fit_params) for member in self.members]
        self._take_attributes(self.members_[0])
        return self

    def _take_attributes(self, source):
        for name in ("classes_", "n_features_in_", "feature_names_in_"):
            if hasattr(source, name):
                setattr(self, name, getattr(source, name))

    def _average(self, X):
        """Return the weighted mean of what the members predict."""
        check_is_fitted(self)
        weights = np.ones(len(self.members_)) if self.weights is None else np.asarray(self.weights)
        weights = weights / weights.sum()
        models = zip(self.members_, weights, strict=True)
        if _num_samples(X) <= _MOST_STACKED_ROWS:
            models = stack_alike(self.members_, weights)
        total = 0.0
        for model, weight in models:
            # a Python number keeps the type of the predictions
            total = total + float(weight) * self._predict_one(model, X)
        return total

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags = get_tags(self.members[0]).input_tags
        return tags


class AverageClassifier(ClassifierMixin, _Average):
    """Average the probabilities that classifiers predict.

    Parameters
    ----------
    members : list of classifiers
    weights : array-like of shape (n_members,), default=None
        Only their ratios matter; None weighs all members alike.

    Attributes
    ----------
    members_ : list of fitted classifiers
        In ``search.ensemble_`` they are the `members` themselves, which the search has fitted.
    classes_ : ndarray of shape (n_classes,)
    """

    def predict_proba(self, X):
        """Return the averaged probabilities: an ndarray of shape (n_rows, n_classes)."""
        # metrics refuse what rounding has put above 1
        return np.minimum(self._average(X), 1)

    def predict_log_proba(self, X):
        """Return the logarithms of :meth:`predict_proba`: -inf where a probability is 0."""
        with np.errstate(divide="ignore"):
            return np.log(self.predict_proba(X))

    def predict(self, X):
        """Return the most probable class of each row: an ndarray of shape (n_rows,)."""
        return self.classes_[self.predict_proba(X).argmax(axis=1)]

    def _predict_one(self, model, X):
        return align_columns(model.predict_proba(X), model.classes_, self.classes_)


class AverageRegressor(RegressorMixin, _Average):
    """Average the predictions of regressors.

    Parameters
    ----------
    members : list of regressors
    weights : array-like of shape (n_members,), default=None
        Only their ratios matter; None weighs all members alike.

    Attributes
    ----------
    members_ : list of fitted regressors
        In ``search.ensemble_`` they are the `members` themselves, which the search has fitted.
    """

    def predict(self, X):
        """Return the averaged predictions: an ndarray of shape (n_rows,) or (n_rows, n_outputs)."""
        return self._average(X)

    def _predict_one(self, model, X):
        return model.predict(X)


def average_fitted(members, weights, like):
    """Return the average of fitted models; `like` is a model that is fitted to all rows."""
    kind = AverageClassifier if is_classifier(like) else AverageRegressor
    average = kind(members, weights)
    average.members_ = members
    average._take_attributes(like)
    return average


def align_columns(probabilities, found, classes):
    """Return probabilities with a column for each of the `classes`; those not `found` have 0.

    Parameters
    ----------
    probabilities : ndarray of shape (n_rows, n_found)
    found, classes : ndarray of shape (n_found,) and (n_classes,)
        `classes` is sorted, and has all that were found in training.
    """
    if np.array_equal(found, classes):
        return probabilities
    aligned = np.zeros((len(probabilities), len(classes)), probabilities.dtype)
    aligned[:, np.searchsorted(classes, found)] = probabilities
    return aligned
