"""The model of each candidate and split, and its predictions, kept while a search runs."""

from dataclasses import dataclass

import numpy as np

from sktune.bridge.fits import net_of
from sktune.bridge.install import forget_optimizer
from sktune.bridge.seam import Task, is_fit, is_lost, is_skipped, take_test_rows

_KEPT = "sktune_fold_model"


@dataclass
class FoldModel:
    """A model that a search has fitted to the training rows of a split.

    Attributes
    ----------
    estimator : estimator object or None
    predictions : ndarray of shape (n_test_rows,) or (n_test_rows, n_outputs), or None
        Of the test rows of the split.
    reason : str
        Why there are none, in words; empty if there are.
    """

    estimator: object = None
    predictions: np.ndarray | None = None
    reason: str = ""


class KeepingFit:
    """The function of a task, which also returns the model that it fits, and its predictions.

    It runs wherever the task runs, also in another process.

    Parameters
    ----------
    call : callable
        What scikit-learn has made the function of the task.
    method : {"predict_proba", "predict"}
        What predicts.
    """

    def __init__(self, call, method):
        self.call = call
        self.method = method

    @property
    def function(self):
        """scikit-learn's function, by which a task is known to be a fit."""
        return getattr(self.call, "function", self.call)

    def __call__(self, *args, **kwargs):
        """Run the task; its result has one more entry, a FoldModel or None."""
        task = Task((self.call, args, kwargs))
        result = self.call(*args, **kwargs, return_estimator=True)
        estimator = result.pop("estimator")
        result[_KEPT] = None
        if result["fit_error"] is None:
            result[_KEPT] = self._keep(estimator, take_test_rows(task))
        return result

    def _keep(self, estimator, X_test):
        """Return what is kept of a fitted model."""
        if not hasattr(estimator, self.method):
            return FoldModel(reason=f"{type(net_of(estimator)).__name__} has no {self.method}")
        predictions = np.asarray(getattr(estimator, self.method)(X_test))
        # a member predicts; nothing goes on training it
        forget_optimizer(estimator)
        return FoldModel(estimator, predictions)


class FoldModels:
    """Keeps the fold models of one search; it is the `keeper` of the joblib backend.

    Parameters
    ----------
    method : {"predict_proba", "predict"}
        What the ensemble averages.

    Attributes
    ----------
    models : list of FoldModel or None
        In scikit-learn's order: all splits of the first candidate, then those of the next. None
        stands for a fit that failed, was not begun before a timeout, or was spared by a race.
    tests : list of ndarray of int
        The test rows of each of them.
    """

    def __init__(self, method):
        self.method = method
        self.models = []
        self.tests = []

    def wrap(self, item):
        """Return a task, (function, args, kwargs), whose result brings its model."""
        if not is_fit(item):
            return item
        self.tests.append(np.asarray(Task(item).arguments["test"]))
        function, args, kwargs = item
        return KeepingFit(function, self.method), args, kwargs

    def receive(self, result):
        """Take the model out of the result of a task."""
        if is_skipped(result) or is_lost(result):
            self.models.append(None)
        elif isinstance(result, dict) and _KEPT in result:
            self.models.append(result.pop(_KEPT))

    def drop(self, candidates, n_splits):
        """Forget the models of some candidates, which are not among the results of the search."""
        dropped = set(candidates)
        kept = [n for n in range(len(self.models)) if n // n_splits not in dropped]
        self.models = [self.models[n] for n in kept]
        self.tests = [self.tests[n] for n in kept]

    def forget(self, candidates, n_splits):
        """Free the models of some candidates, which will be no members."""
        for candidate in candidates:
            self.models[candidate * n_splits : (candidate + 1) * n_splits] = [None] * n_splits

    def arrange(self, n_splits, candidates=None):
        """Return the models of each candidate, one for each split, and the test rows of the splits.

        Parameters
        ----------
        n_splits : int
        candidates : sequence of int or None
            Those that may be members; others have no models. None is all.

        Raises
        ------
        ValueError
            If candidates were tried on different splits, whose predictions cannot be averaged.
        """
        n_candidates = len(self.models) // n_splits
        candidates = range(n_candidates) if candidates is None else candidates
        by_candidate = [[None] * n_splits for _ in range(n_candidates)]
        tests = None
        for candidate in candidates:
            part = slice(candidate * n_splits, (candidate + 1) * n_splits)
            found = self.tests[part]
            tests = found if tests is None else tests
            if not all(map(np.array_equal, found, tests)):
                raise ValueError(
                    "an ensemble needs all candidates to be tried on the same splits, "
                    f"candidate {candidate} was tried on others; give cv an integer random_state"
                )
            by_candidate[candidate] = self.models[part]
        return by_candidate, tests
