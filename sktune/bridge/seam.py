"""Where scikit-learn's and joblib's private names are bound; nowhere else are they used.

scikit-learn runs each cross-validation as joblib tasks. Which fits a task will make can be told from its
arguments, which are read here by name. ``tests/bridge/test_seam.py`` fails when a name moves; a task that does not
read as expected simply runs as it would have run.

joblib tells a backend of a call before the tasks of the call can be seen. So each call is begun with one job, which
joblib computes in ``Parallel._get_sequential_output``: :func:`intercept` takes its place, sees the tasks, and either
returns results of its own or has the same ``Parallel`` begin anew with another backend (:func:`pass_on`).
"""

import inspect
import warnings
from contextlib import contextmanager
from dataclasses import dataclass

import joblib
import numpy as np
from joblib.parallel import FallbackToBackend, default_parallel_config, get_active_backend
from joblib.parallel import _backend as _in_thread
from sklearn import get_config, metrics
from sklearn.base import clone
from sklearn.model_selection import _validation, check_cv
from sklearn.pipeline import Pipeline
from sklearn.utils.metadata_routing import process_routing
from sklearn.utils.metaestimators import _safe_split
from sklearn.utils.parallel import Parallel, delayed
from sklearn.utils.validation import _check_method_params

__all__ = [
    "FallbackToBackend",
    "PlannedFit",
    "Task",
    "chosen_backend",
    "fit_together",
    "fused_tasks",
    "get_active_backend",
    "intercept",
    "is_fit",
    "other_backend",
    "pass_on",
    "read_scorer",
    "read_tasks",
    "route_params",
    "run_in_turn",
    "run_task",
    "take_split",
    "take_test_rows",
]

_OPENS_ITSELF = (
    0  # false, as joblib reads it, and yet another thing than the False that joblib sets
)
FIT_FUNCTIONS = {
    _validation._fit_and_score,
    _validation._fit_and_predict,
    _validation._permutation_test_score,
}


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
        if is_fit(item):
            self.arguments = inspect.signature(_unwrap(function)).bind(*args, **kwargs).arguments

    @property
    def place(self):
        """Return the numbers of candidate and split, as far as the task knows them."""
        candidate, split = (
            self.arguments.get(f"{name}_progress") for name in ("candidate", "split")
        )
        return (candidate[0] if candidate else None, split[0] if split else None)

    @property
    def last_step(self):
        """Return the estimator that the task fits or, of a pipeline, its last step, as the parameters will set it.

        None if the task fits nothing, or does not say what.
        """
        estimator, parameters = (
            self.arguments.get("estimator"),
            self.arguments.get("parameters") or {},
        )
        if not isinstance(estimator, Pipeline):
            return estimator
        try:
            name, last = parameters.get("steps", estimator.steps)[-1]
            return parameters.get(name, last)
        except (TypeError, ValueError, IndexError):  # no steps: the task will say so
            return None

    @property
    def estimator(self):
        """Return the estimator that the task fits, its candidate's parameters set, or None.

        They are set once: the task finds nothing left to set.
        """
        estimator = self.arguments.get("estimator")
        parameters = self.arguments.get("parameters")
        if parameters and estimator is not None and not isinstance(parameters, _AsSet):
            as_set = _AsSet(clone(parameters, safe=False))
            estimator.set_params(**as_set)
            # the parameters themselves are only told, in what is printed or returned
            is_told = self.arguments.get("verbose", 0) > 1 or self.arguments.get(
                "return_parameters"
            )
            self._change(parameters=as_set if is_told else None)
        return estimator

    def planned_fits(self, known):
        """Yield the fits that the task will make; `known` remembers the rows of each split.

        The task splits rows and fits in turn, and so does whoever takes these one by one.
        """
        estimator, X, y = (self.estimator, self.arguments["X"], self.arguments["y"])
        for train, test in self._splits(X, y):
            fit_params = self.arguments.get("fit_params") or {}
            key = (id(X), id(y), id(train), id(self.arguments.get("fit_params")))
            if key not in known:  # the indices are kept so that no other array gets their id
                indices = np.asarray(train)
                rows = _safe_split(estimator, X, y, indices)
                known[key] = (
                    *rows,
                    _check_method_params(X, params=fit_params, indices=indices),
                    train,
                )
            X_train, y_train, params, _ = known[key]
            yield PlannedFit(
                estimator, X_train, y_train, params, key, X, _numbers(train), _numbers(test)
            )

    def _splits(self, X, y):
        if "train" in self.arguments:
            yield self.arguments["train"], self.arguments.get("test")
            return
        splits = []
        for split in self.arguments["cv"].split(X, y, **(self.arguments.get("split_params") or {})):
            splits.append(split)
            yield split
        self._change(
            cv=check_cv(splits), split_params={}
        )  # a splitter may be random: keep what was planned

    def _change(self, **arguments):
        self.arguments.update(arguments)
        self.call = (self.call[0], (), self.arguments)


def is_fit(item):
    """Tell whether a task, (function, args, kwargs), is one in which scikit-learn fits an estimator."""
    try:
        return _unwrap(item[0]) in FIT_FUNCTIONS
    except TypeError:  # a function that cannot be hashed
        return False


def _unwrap(function):
    return getattr(function, "function", function)  # scikit-learn wraps it with its settings


def _numbers(rows):
    """Return the numbers of rows that are told by number or by mask; None is none."""
    return (
        rows
        if rows is None
        else np.flatnonzero(rows)
        if np.asarray(rows).dtype == bool
        else np.asarray(rows)
    )


class _AsSet(dict):
    """Parameters that an estimator holds: of what the task clones, to set it once more, nothing is left to set."""

    def __sklearn_clone__(self):
        return {}


def fused_tasks(**options):
    """Return a context in which one search is fused; all else runs as it would have run without the context.

    Within a context of ours its options hold.
    """
    options = getattr(chosen_backend(), "options", {}) | options
    # where shared memory is required, joblib may begin with another number of jobs than the context tells
    _, n_jobs = get_active_backend()
    if n_jobs is not None:
        options["n_jobs"] = n_jobs
    return joblib.parallel_config("sktune", serves_one=True, **options)


def read_tasks(items):
    """Return the tasks of a call, of the items that joblib was given.

    A fit of an estimator that an earlier task fits, too, cannot be told beforehand.
    """
    tasks, estimators = [Task(item) for item in items], set()
    for task in tasks:
        estimator = task.arguments.get("estimator")
        if id(estimator) in estimators:
            task.arguments = {}
        estimators.add(id(estimator))
    return tasks


def run_task(task, seconds):
    """Run a task; add to the fit time that it reports the `seconds` of training that it did not see itself."""
    function, args, kwargs = task.call
    result = function(*args, **kwargs)
    if seconds and isinstance(result, dict) and "fit_time" in result:
        result["fit_time"] += seconds
    return result


def chosen_backend():
    """Return the backend that a context around has chosen; if there is none, what joblib has in its place."""
    return getattr(_in_thread, "config", default_parallel_config)["backend"]


@contextmanager
def other_backend(backend):
    """Let calls find `backend`, which :func:`chosen_backend` returned elsewhere, and all other settings as they are."""
    config = getattr(_in_thread, "config", default_parallel_config)
    _in_thread.config = {**config, "backend": backend}
    try:
        yield
    finally:
        _in_thread.config = config


def intercept(parallel, take):
    """Let ``take(tasks)`` be asked for the results of the calls of a Parallel that has one job.

    It is a generator, whose first yield, of None, tells that the work has begun.
    """
    parallel._get_sequential_output = take


def pass_on(parallel, tasks, backend, n_jobs):
    """Have a call computed by another backend, after all, and nothing else changed: a generator of the results.

    It serves in the place that :func:`intercept` made, which it makes again in the end.
    """
    take, own, is_managed = (
        parallel._get_sequential_output,
        parallel._backend,
        parallel._managed_backend,
    )
    del parallel._get_sequential_output
    parallel._backend, parallel.n_jobs = backend, n_jobs
    # it begins anew, and opens and closes the backend by itself, also within a ``with`` block of the Parallel's
    parallel._running, parallel._managed_backend = False, _OPENS_ITSELF
    try:
        outputs = joblib.Parallel.__call__(parallel, tasks)
        yield
        yield from outputs
    finally:
        parallel._backend, parallel._get_sequential_output = own, take
        if (
            parallel._managed_backend is _OPENS_ITSELF
        ):  # else the block has ended before its results were taken
            parallel._managed_backend = is_managed


def run_in_turn(parallel, tasks):
    """Have a call computed in this thread, task by task: a generator like that of :func:`pass_on`."""
    take = parallel._get_sequential_output
    del parallel._get_sequential_output
    try:
        yield from parallel._get_sequential_output(tasks)
    finally:
        parallel._get_sequential_output = take


def route_params(search, scorer, params):
    """Return what the ``fit`` of a search hands to its estimator, and to one of its scorers.

    Parameters
    ----------
    search : estimator object
        Of scikit-learn's classes.
    scorer : callable
        That of the metric named by ``search.refit``, or the only one.
    params : dict
        What ``search.fit`` was given.

    Returns
    -------
    fit_params, score_params : dict
    """
    with warnings.catch_warnings():
        # the search itself has warned of weights that its scorers do not take
        warnings.simplefilter("ignore")
        routed = search._get_routed_params_for_fit(params)
    fit_params = dict(routed.estimator.fit)
    score_params = dict(routed.scorer.score)
    is_one = search.scoring is None or isinstance(search.scoring, str) or callable(search.scoring)
    if is_one or not score_params:
        return fit_params, score_params
    if get_config()["enable_metadata_routing"]:
        scorers, _ = search._get_scorers()
        score_params = dict(process_routing(scorers, "score", **score_params)[search.refit].score)
    elif not scorer._accept_sample_weight():
        score_params.pop("sample_weight", None)
    return fit_params, score_params


def take_test_rows(task):
    """Return the test rows of a task that fits one estimator on one split, as its scorer gets them."""
    arguments = task.arguments
    rows = (arguments["test"], arguments["train"])
    X_test, _ = _safe_split(arguments["estimator"], arguments["X"], arguments["y"], *rows)
    return X_test


def take_split(estimator, X, y, params, rows):
    """Return some rows of X and y, and of the parameters that have an entry for each row."""
    X_part, y_part = _safe_split(estimator, X, y, rows)
    return X_part, y_part, _check_method_params(X, params=params, indices=rows)


def fit_together(estimators, X, y, fit_params, n_jobs):
    """Fit each estimator to all rows, in one call of joblib; return the fitted ones in that order."""
    rows = np.arange(len(y))
    options = {
        "train": rows,
        # something must be scored: the score is not used
        "test": rows[:1],
        "scorer": _score_nothing,
        "parameters": None,
        "fit_params": fit_params,
        "score_params": None,
        "verbose": 0,
        "error_score": "raise",
        "return_estimator": True,
    }
    with fused_tasks():
        fit = delayed(_validation._fit_and_score)
        results = Parallel(n_jobs=n_jobs)(fit(model, X, y, **options) for model in estimators)
    return [result["estimator"] for result in results]


def _score_nothing(estimator, X, y):
    return 0.0


def read_scorer(scorer):
    """Return what ``make_scorer`` has made a scorer of; None for any other scorer.

    It is a tuple of metric, options, sign and the names of the responses, the first of which a
    model has is used.
    """
    # Private, and nothing public tells what a scorer computes.
    # tests/evaluation/test_resampling.py fails when they move.
    names = ("_score_func", "_kwargs", "_sign", "_response_method")
    if not isinstance(scorer, type(metrics.make_scorer(metrics.accuracy_score))):
        return None
    if not all(hasattr(scorer, name) for name in names):
        return None
    metric, options, sign, responses = (getattr(scorer, name) for name in names)
    responses = (responses,) if isinstance(responses, str) else tuple(responses)
    return metric, dict(options), sign, responses
