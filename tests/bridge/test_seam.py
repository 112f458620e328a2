"""Private names of scikit-learn and joblib that are used: each test says what has moved."""

import inspect

import joblib
import numpy as np
import pytest
from joblib.parallel import ParallelBackendBase, default_parallel_config
from joblib.parallel import _backend as in_thread
from parity import X, y
from sklearn.model_selection import GridSearchCV, _validation, cross_validate
from sklearn.utils import parallel
from sklearn.utils.metaestimators import _safe_split
from sklearn.utils.validation import _check_method_params

from sktune import NeuralNetClassifier
from sktune.bridge import backend
from sktune.bridge.seam import FIT_FUNCTIONS, Task, read_tasks, run_task
from sktune.engine.report import FusionReport

NET = NeuralNetClassifier(max_epochs=1, random_state=0)
READ = {
    "_fit_and_score": (
        "estimator",
        "X",
        "y",
        "train",
        "parameters",
        "fit_params",
        "split_progress",
        "candidate_progress",
    ),
    "_fit_and_predict": ("estimator", "X", "y", "train", "fit_params"),
    "_permutation_test_score": ("estimator", "X", "y", "cv", "split_params", "fit_params"),
}


@pytest.mark.parametrize("name", READ)
def test_scikit_learns_tasks_have_the_arguments_that_are_read(name):
    function = getattr(_validation, name, None)
    assert function in FIT_FUNCTIONS, f"sklearn.model_selection._validation.{name} has moved"

    missing = set(READ[name]) - set(inspect.signature(function).parameters)
    assert not missing, f"{name} no longer takes {sorted(missing)}"


def test_scikit_learns_wrapper_tells_its_function():
    wrapped, _, _ = parallel.delayed(abs)(1)
    assert wrapped.function is abs, (
        "sklearn.utils.parallel._FuncWrapper no longer tells its `function`"
    )


def test_joblib_begins_a_call_of_one_job_where_it_is_intercepted():
    def take(tasks):
        yield "begun"
        yield from (function(*args) for function, args, _ in tasks)

    for call in (joblib.Parallel(n_jobs=1), joblib.Parallel(n_jobs=1, return_as="generator")):
        call._get_sequential_output = take
        found = call(joblib.delayed(abs)(-n) for n in range(3))
        assert [*found] == [0, 1, 2], (
            "joblib.Parallel._get_sequential_output is no longer what computes a call"
        )


def test_joblibs_parallel_has_the_attributes_that_a_call_is_begun_anew_with():
    call = joblib.Parallel(n_jobs=1)
    names = {"_backend", "_managed_backend", "_running", "n_jobs", "timeout", "verbose"}
    missing = names - vars(call).keys()
    assert not missing, f"joblib.Parallel no longer has {missing}"

    with joblib.parallel_config("threading"):
        chosen = type(in_thread.config["backend"]).__name__
    assert chosen == "ThreadingBackend", "joblib keeps its settings elsewhere"
    assert "backend" in default_parallel_config, "joblib keeps its settings elsewhere"


def test_joblibs_backends_have_the_methods_that_are_overridden():
    for name in ("configure", "effective_n_jobs", "terminate", "get_nested_backend"):
        assert hasattr(ParallelBackendBase, name), f"joblib's backends no longer have `{name}`"


def test_scikit_learn_takes_rows_as_is_read():
    rows = np.array([1, 3])
    X_train, y_train = _safe_split(NET, X, y, rows)
    np.testing.assert_array_equal(X_train, X[rows], err_msg="_safe_split takes other rows")
    np.testing.assert_array_equal(y_train, y[rows], err_msg="_safe_split takes other rows")
    params = _check_method_params(X, params={"sample_weight": y, "note": "all"}, indices=rows)
    assert params["note"] == "all", "_check_method_params changes what is not per row"
    np.testing.assert_array_equal(
        params["sample_weight"], y[rows], err_msg="_check_method_params takes other rows"
    )


def test_tasks_are_read_as_scikit_learn_makes_them(monkeypatch):
    tasks = []

    def read_and_keep(items):
        found = read_tasks(items)
        tasks.extend(found)
        return found

    monkeypatch.setattr(backend, "read_tasks", read_and_keep)
    with joblib.parallel_config("sktune"):
        GridSearchCV(NET, {"lr": [0.1, 0.2]}, cv=3, refit=False).fit(X, y)

    assert [task.place for task in tasks] == [(c, s) for c in range(2) for s in range(3)]
    assert [task.estimator.lr for task in tasks] == [0.1] * 3 + [0.2] * 3
    known = {}
    fits = [fit for task in tasks for fit in task.planned_fits(known)]
    assert len(known) == 3, "the candidates of a fold no longer share its indices"
    assert fits[0].X is fits[3].X
    assert fits[0].X is not fits[1].X


def test_what_is_no_fit_is_not_read():
    task = Task((abs, (1,), {}))

    assert task.place == (None, None)
    with pytest.raises(KeyError, match="X"):
        next(task.planned_fits({}))


def test_arguments_that_do_not_bind_leave_a_search_as_it_was(monkeypatch):
    def moved(self, known):
        raise TypeError("missing a required argument: 'X'")

    monkeypatch.setattr(Task, "planned_fits", moved)
    expected = cross_validate(NET, X, y, cv=3)
    report = FusionReport()
    with joblib.parallel_config("sktune", report=report):
        found = cross_validate(NET, X, y, cv=3)

    np.testing.assert_array_equal(found["test_score"], expected["test_score"])
    assert "its task cannot be read" in report.alone[0]["reason"]


def test_the_time_of_training_is_added_to_what_a_task_reports():
    one, other = read_tasks([joblib.delayed(dict)(fit_time=1.0), joblib.delayed(abs)(-1)])

    assert run_task(one, 0.5) == {"fit_time": 1.5}
    assert run_task(other, 2.0) == 1


def test_other_users_of_joblib_are_served_as_ever():
    with joblib.parallel_config("sktune"):
        squares = joblib.Parallel()(joblib.delayed(pow)(n, 2) for n in range(20))
        assert squares == [n**2 for n in range(20)]
        with pytest.raises(ZeroDivisionError, match="by zero"):
            joblib.Parallel()(joblib.delayed(divmod)(1, 0) for _ in range(2))
        assert joblib.Parallel(n_jobs=2)(joblib.delayed(abs)(-n) for n in range(3)) == [0, 1, 2]
        assert joblib.Parallel()([]) == []
