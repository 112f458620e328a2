"""The models of a search's folds: what was trained for the scores, kept for an ensemble."""

import numpy as np
from joblib import Parallel, delayed
from sklearn.base import clone
from sklearn.utils import _safe_indexing
from sklearn.utils.validation import _check_method_params


class FoldModels:
    """Keeps the model of each candidate and split, and its predictions for the test rows.

    The backend hands over what it has trained. What is trained elsewhere, such as a classical model
    in another process, is not among it; :meth:`fit_missing` trains it again.

    Parameters
    ----------
    method : {"predict_proba", "predict"}
        What predicts.

    Attributes
    ----------
    models : dict
        Fitted estimators, by candidate and split.
    predictions : dict
        Predictions for the test rows, float32, by candidate and split.
    arguments : dict
        The arguments of scikit-learn's tasks: ``X``, ``y``, ``fit_params`` and others.
    splits : list of (ndarray, ndarray)
        The numbers of the training and of the test rows of each split.
    """

    def __init__(self, method):
        self.method = method
        self.models = {}
        self.predictions = {}
        self.arguments = {}
        self._splits = {}
        self._n_earlier = 0
        self._n_candidates = 0

    @property
    def splits(self):
        """The numbers of the training and of the test rows of each split."""
        return [self._splits[split] for split in sorted(self._splits)]

    def begin_call(self, tasks):
        """Take note that another round of candidates begins, numbered from 0 again."""
        self._n_earlier = self._n_candidates
        for task in tasks:
            candidate, split = task.place
            if candidate is None or split is None:
                continue
            self._n_candidates = max(self._n_candidates, self._n_earlier + candidate + 1)
            if split not in self._splits:
                self.arguments = task.arguments
                train = number_rows(task.arguments["train"])
                self._splits[split] = (train, number_rows(task.arguments["test"]))

    def keep(self, task):
        """Keep the model that a task has fitted."""
        candidate, split = task.place
        if candidate is not None and split is not None:
            self._keep(self._n_earlier + candidate, split, task.arguments["estimator"])

    def _keep(self, candidate, split, estimator):
        _, test = self._splits[split]
        rows = _safe_indexing(self.arguments["X"], test)
        predicted = getattr(estimator, self.method)(rows)
        self.models[candidate, split] = estimator
        self.predictions[candidate, split] = np.asarray(predicted, dtype=np.float32)

    def fit_missing(self, estimator, candidates, n_jobs):
        """Fit the models that have not been handed over.

        Parameters
        ----------
        estimator : estimator
        candidates : dict of dict
            The parameters of each candidate whose models are wanted, by its number.
        n_jobs : int or None
            How many models are fitted at once, as in joblib.
        """
        X = self.arguments["X"]
        y = self.arguments["y"]
        fit_params = self.arguments.get("fit_params") or {}
        missing = [
            (candidate, split)
            for candidate in candidates
            for split in self._splits
            if (candidate, split) not in self.models
        ]
        models = Parallel(n_jobs=n_jobs)(
            delayed(_fit)(
                estimator, candidates[candidate], X, y, fit_params, self._splits[split][0]
            )
            for candidate, split in missing
        )
        for (candidate, split), model in zip(missing, models, strict=True):
            self._keep(candidate, split, model)


def number_rows(rows):
    """Return rows that are given by their numbers or by a mask by their numbers."""
    rows = np.asarray(rows)
    return np.flatnonzero(rows) if rows.dtype == bool else rows


def _fit(estimator, params, X, y, fit_params, rows):
    """Return a copy of an estimator with a candidate's parameters, fitted to some rows."""
    model = clone(estimator).set_params(**clone(params, safe=False))
    fit_params = _check_method_params(X, params=fit_params, indices=rows)
    y_train = None if y is None else _safe_indexing(y, rows)
    return model.fit(_safe_indexing(X, rows), y_train, **fit_params)


def average_predictions(models, candidates, n_rows):
    """Return the out-of-fold predictions of candidates.

    A row that is a test row of several splits gets the mean of its predictions.

    Parameters
    ----------
    models : FoldModels
    candidates : list of int
    n_rows : int

    Returns
    -------
    predictions : ndarray (n_candidates, n_rows, n_outputs) of float32
        NaN for rows that are a test row of no split.
    """
    splits = models.splits
    counts = np.zeros(n_rows)
    for _, test in splits:
        np.add.at(counts, test, 1)
    example = models.predictions[candidates[0], 0]
    n_outputs = 1 if example.ndim == 1 else example.shape[1]
    sums = np.zeros((len(candidates), n_rows, n_outputs), dtype=np.float32)
    for position, candidate in enumerate(candidates):
        for split, (_, test) in enumerate(splits):
            predicted = models.predictions[candidate, split].reshape(len(test), n_outputs)
            np.add.at(sums[position], test, predicted)
    with np.errstate(invalid="ignore"):
        return sums / counts.astype(np.float32)[None, :, None]
