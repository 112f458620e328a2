"""scikit-learn's tasks: the estimator that each fits, with its parameters and its rows.

scikit-learn runs each cross-validation as joblib tasks. Which fits a task will make follows from
the arguments of the task, which are read here by name. A task whose arguments are not as expected
runs as it would run without sktune.
"""

import inspect
from dataclasses import dataclass

import numpy as np
from sklearn.base import clone
from sklearn.model_selection import _validation, check_cv
from sklearn.pipeline import Pipeline
from sklearn.utils.metaestimators import _safe_split
from sklearn.utils.validation import _check_method_params

FIT_FUNCTIONS = {
    _validation._fit_and_score,
    _validation._fit_and_predict,
    _validation._permutation_test_score,
}


@dataclass
class PlannedFit:
    """A fit that a task will make: ``estimator.fit(X, y, **params)``.

    Parameters
    ----------
    estimator : estimator
        Its parameters are set to those of the candidate.
    X, y : object
        The training rows.
    params : dict
        The arguments of `fit` beside the rows.
    key : tuple
        It is equal for fits on the same rows.
    whole : object
        The table that X was taken from.
    train : ndarray
        The numbers of the rows of `whole` that X holds.
    test : ndarray or None
        The numbers of the rows that will be predicted; None if they are not known.
    whole_y : object
        The targets that y was taken from.
    context : CallbackContext or None
        What scikit-learn tells callbacks by, from 1.9.
    caller : object
        The search that the task is a part of; None if it is not known.
    """

    estimator: object
    X: object
    y: object
    params: dict
    key: tuple
    whole: object
    train: object
    test: object
    whole_y: object = None
    context: object = None
    caller: object = None


class Task:
    """A task of a call of a Parallel.

    Parameters
    ----------
    item : tuple of (callable, tuple, dict)
        The function, its positional arguments and its keyword arguments, as joblib holds them.

    Attributes
    ----------
    call : tuple of (callable, tuple, dict)
        What the task is run by. The arguments change where a part of the work is done beforehand.
    arguments : dict
        The arguments by their names; empty where the task fits no estimator.
    """

    def __init__(self, item):
        self.call = item
        self.arguments = {}
        function, args, kwargs = item
        if is_fit(item):
            signature = inspect.signature(_unwrap(function))
            self.arguments = signature.bind(*args, **kwargs).arguments

    @property
    def place(self):
        """Return the numbers of candidate and split, each None if the task does not know it."""
        candidate, split = self.progress
        return (candidate[0] if candidate else None, split[0] if split else None)

    @property
    def progress(self):
        """Return (number, count) of the candidate and of the split, each None if not known."""
        names = ("candidate_progress", "split_progress")
        return tuple(self.arguments.get(name) for name in names)

    @property
    def last_step(self):
        """Return the estimator that the task fits or, of a pipeline, its last step.

        A candidate's parameters may replace the last step: then the new one is returned. None if
        the task fits nothing, or does not say what.
        """
        estimator = self.arguments.get("estimator")
        parameters = self.arguments.get("parameters") or {}
        if not isinstance(estimator, Pipeline):
            return estimator
        try:
            name, last = parameters.get("steps", estimator.steps)[-1]
            return parameters.get(name, last)
        except (TypeError, ValueError, IndexError):
            # the pipeline has no steps: the task itself will raise the error
            return None

    @property
    def estimator(self):
        """Return the estimator that the task fits, with the candidate's parameters set, or None.

        The parameters are set at the first call. The task then has none left to set.
        """
        estimator = self.arguments.get("estimator")
        parameters = self.arguments.get("parameters")
        if parameters and estimator is not None and not isinstance(parameters, _SetParameters):
            parameters = _SetParameters(clone(parameters, safe=False))
            estimator.set_params(**parameters)
            # from here on the parameters are needed only where they are printed or returned
            is_printed = self.arguments.get("verbose", 0) > 1
            is_needed = is_printed or self.arguments.get("return_parameters")
            self._change(parameters=parameters if is_needed else None)
        return estimator

    def planned_fits(self, known):
        """Yield the fits that the task will make, each a :class:`PlannedFit`.

        The task splits the rows before each fit. Whoever iterates here does the same in the same
        order if each fit is prepared before the next one is asked for.

        Parameters
        ----------
        known : dict
            It keeps the rows of each split, for this task and others.
        """
        estimator = self.estimator
        X = self.arguments["X"]
        y = self.arguments["y"]
        fit_params = self.arguments.get("fit_params")
        for train, test in self._splits(X, y):
            key = (id(X), id(y), id(train), id(fit_params))
            if key not in known:
                indices = np.asarray(train)
                X_train, y_train = _safe_split(estimator, X, y, indices)
                params = _check_method_params(X, params=fit_params or {}, indices=indices)
                # `train` is kept so that no other array gets its id
                known[key] = (X_train, y_train, params, train)
            X_train, y_train, params, _ = known[key]
            yield PlannedFit(
                estimator=estimator,
                X=X_train,
                y=y_train,
                params=params,
                key=key,
                whole=X,
                train=_row_numbers(train),
                test=_row_numbers(test),
                whole_y=y,
                context=self.arguments.get("callback_ctx"),
                caller=self.arguments.get("caller"),
            )

    def _splits(self, X, y):
        """Yield the training and the test rows of each split; the latter are None if unknown."""
        if "train" in self.arguments:
            yield self.arguments["train"], self.arguments.get("test")
            return
        splits = []
        split_params = self.arguments.get("split_params") or {}
        for split in self.arguments["cv"].split(X, y, **split_params):
            splits.append(split)
            yield split
        # a splitter may be random: the task has to find the splits that were planned
        self._change(cv=check_cv(splits), split_params={})

    def replace_context(self, context):
        """Have the task tell callbacks by another context."""
        self._change(callback_ctx=context)

    def _change(self, **arguments):
        """Give the task other arguments."""
        self.arguments.update(arguments)
        self.call = (self.call[0], (), self.arguments)


def is_fit(item):
    """Tell whether scikit-learn fits an estimator in a task, (function, args, kwargs)."""
    try:
        return _unwrap(item[0]) in FIT_FUNCTIONS
    except TypeError:
        # a function that cannot be hashed
        return False


def _unwrap(function):
    """Return the function within scikit-learn's wrapper, which carries its settings."""
    return getattr(function, "function", function)


def _row_numbers(rows):
    """Return the numbers of rows that are given by their numbers or by a mask; None for None."""
    if rows is None:
        return None
    rows = np.asarray(rows)
    return np.flatnonzero(rows) if rows.dtype == bool else rows


class _SetParameters(dict):
    """Parameters that the estimator has been given already.

    A task clones its parameters and sets the clone; the clone of these is empty.
    """

    def __sklearn_clone__(self):
        return {}


def read_tasks(items):
    """Return the tasks of a call, each a :class:`Task`, of the items that joblib was given.

    If several tasks fit the same estimator, only the first one is read: the parameters of the
    others can be set only when the first one is done.
    """
    tasks = [Task(item) for item in items]
    estimators = set()
    for task in tasks:
        estimator = task.arguments.get("estimator")
        if id(estimator) in estimators:
            task.arguments = {}
        estimators.add(id(estimator))
    return tasks


def run_task(task, seconds):
    """Run a task and return its result.

    `seconds` is how long the training took before the task began. It is added to the fit time that
    the task reports.
    """
    function, args, kwargs = task.call
    result = function(*args, **kwargs)
    if seconds and isinstance(result, dict) and "fit_time" in result:
        result["fit_time"] += seconds
    return result
