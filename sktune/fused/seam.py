"""Where scikit-learn's and joblib's private names are bound; nowhere else are they used.

scikit-learn runs each cross-validation as joblib tasks. Which fits a task will make can be told from its
arguments, which are read here by name. ``tests/test_seams.py`` fails when a name moves; a task that does not
read as expected simply runs as it would have run.
"""

import inspect
from dataclasses import dataclass

import joblib
import numpy as np
from joblib.parallel import FallbackToBackend, get_active_backend
from sklearn.base import clone
from sklearn.model_selection import _validation, check_cv
from sklearn.utils.metaestimators import _safe_split
from sklearn.utils.validation import _check_method_params

__all__ = ["FallbackToBackend", "PlannedFit", "Task", "fused_tasks", "read_tasks", "run_tasks"]

FIT_FUNCTIONS = {_validation._fit_and_score, _validation._fit_and_predict, _validation._permutation_test_score}


@dataclass
class PlannedFit:
    """A fit that a task will make: ``estimator.fit(X, y, **params)``, X being the rows `train` of the `whole` table.

    The key is equal for fits on the same rows. The rows `test` will be predicted; None if that is not known.
    """

    estimator: object
    X: object
    y: object
    params: dict
    key: tuple
    whole: object
    train: object
    test: object


class Task:
    """One call of a joblib task, made of what joblib holds: (function, args, kwargs)."""

    def __init__(self, item):
        self.call, self.arguments = item, {}
        function, args, kwargs = item
        function = getattr(function, "function", function)  # scikit-learn wraps it with its settings
        if function in FIT_FUNCTIONS:
            self.arguments = inspect.signature(function).bind(*args, **kwargs).arguments

    @property
    def place(self):
        """Return the numbers of candidate and split, as far as the task knows them."""
        candidate, split = (self.arguments.get(f"{name}_progress") for name in ("candidate", "split"))
        return (candidate[0] if candidate else None, split[0] if split else None)

    @property
    def estimator(self):
        """Return the estimator that the task fits, its candidate's parameters set, or None."""
        estimator = self.arguments.get("estimator")
        parameters = self.arguments.get("parameters")
        if parameters and estimator is not None and not isinstance(parameters, _AsSet):
            as_set = _AsSet(clone(parameters, safe=False))
            estimator.set_params(**as_set)
            self._change(parameters=as_set)
        return estimator

    def planned_fits(self, known):
        """Return the fits that the task will make; `known` remembers the rows of each split."""
        estimator, X, y = (self.estimator, self.arguments["X"], self.arguments["y"])
        fits = []
        for train, test in self._splits(X, y):
            fit_params = self.arguments.get("fit_params") or {}
            key = (id(X), id(y), id(train), id(self.arguments.get("fit_params")))
            if key not in known:  # the indices are kept so that no other array gets their id
                rows = _safe_split(estimator, X, y, train)
                known[key] = (*rows, _check_method_params(X, params=fit_params, indices=train), train)
            X_train, y_train, params, _ = known[key]
            fits.append(PlannedFit(estimator, X_train, y_train, params, key, X, _numbers(train), _numbers(test)))
        return fits

    def _splits(self, X, y):
        if "train" in self.arguments:
            return [(self.arguments["train"], self.arguments.get("test"))]
        splits = list(self.arguments["cv"].split(X, y, **(self.arguments.get("split_params") or {})))
        self._change(cv=check_cv(splits), split_params={})  # a splitter may be random: keep what was planned
        return splits

    def _change(self, **arguments):
        self.arguments.update(arguments)
        self.call = (self.call[0], (), self.arguments)


def _numbers(rows):
    """Return the numbers of rows that are told by number or by mask; None is none."""
    return rows if rows is None else np.flatnonzero(rows) if np.asarray(rows).dtype == bool else np.asarray(rows)


class _AsSet(dict):
    """Parameters that an estimator holds: of what the task clones, to set it once more, nothing is left to set."""

    def __sklearn_clone__(self):
        return {}


def fused_tasks(n_jobs, **options):
    """Return a context in which one search is fused; what is not runs where ``Parallel(n_jobs)`` would have run it.

    Within a context of ours its options hold.
    """
    backend, active_n_jobs = get_active_backend()
    options = getattr(backend, "options", {}) | options
    outer = getattr(backend, "outer", (backend, active_n_jobs))  # within a context of ours: what that one has
    if outer and n_jobs is not None:
        outer = (outer[0], n_jobs)
    return joblib.parallel_config("sktune", outer=outer, **options)


def read_tasks(batch, estimators):
    """Return the tasks of what joblib hands to a backend's ``submit``.

    `estimators` takes the ids of those that the tasks fit: a fit of another task's estimator cannot be told beforehand.
    """
    tasks = [Task(item) for item in batch.items]
    for task in tasks:
        estimator = task.arguments.get("estimator")
        if id(estimator) in estimators:
            task.arguments = {}
        estimators.add(id(estimator))
    return tasks


def run_tasks(batch, tasks, seconds):
    """Run a batch; add to each fit time that it reports the `seconds` of training that it did not see itself."""
    batch.items = [task.call for task in tasks]
    results = batch()
    for result, extra in zip(results, seconds, strict=True):
        if extra and isinstance(result, dict) and "fit_time" in result:
            result["fit_time"] += extra
    return results
