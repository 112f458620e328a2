import pickle
import threading
import warnings

import joblib
import numpy as np
import pytest
from joblib.parallel import get_active_backend
from scipy.stats import loguniform
from sklearn import model_selection
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.datasets import make_classification
from sklearn.exceptions import FitFailedWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import KFold, cross_val_score
from sklearn.naive_bayes import GaussianNB
from sklearn.utils.estimator_checks import check_estimator

from sktune.search import GridSearchCV, RandomizedSearchCV

X, y = make_classification(60, n_features=4, random_state=0)
GRID = {"C": [0.01, 1.0, 100.0]}
PAIRS = [
    (GridSearchCV, model_selection.GridSearchCV, {"param_grid": GRID}),
    (
        RandomizedSearchCV,
        model_selection.RandomizedSearchCV,
        {"param_distributions": {"C": loguniform(1e-3, 1e3)}, "n_iter": 4, "random_state": 0},
    ),
]
BACKENDS = [("loky", None), ("loky", 1), ("loky", 2), ("threading", 2), ("multiprocessing", 2)]


class Nested(ClassifierMixin, BaseEstimator):
    """Runs joblib tasks of its own, and records the backend that they would get."""

    def __init__(self, C=1.0):
        self.C = C

    def fit(self, X, y):
        self.classes_ = np.unique(y)
        self.backend_ = type(get_active_backend()[0]).__name__
        joblib.Parallel(n_jobs=2, prefer="threads")(joblib.delayed(abs)(i) for i in range(40))
        return self

    def predict(self, X):
        return np.full(len(X), self.classes_[0])


class Failing(Nested):
    def fit(self, X, y):
        if self.C == 1.0:
            raise RuntimeError("no fit for C=1")
        return super().fit(X, y)


def results_without_times(search):
    return {name: v for name, v in search.cv_results_.items() if not name.endswith("_time")}


def assert_same_results(search, reference):
    ours, theirs = results_without_times(search), results_without_times(reference)
    assert ours.keys() == theirs.keys()
    for name in ours:
        np.testing.assert_array_equal(ours[name], theirs[name], err_msg=name)
    assert search.best_params_ == reference.best_params_
    np.testing.assert_array_equal(search.predict(X), reference.predict(X))


@pytest.mark.parametrize(("ours", "theirs", "params"), PAIRS)
@pytest.mark.parametrize(("backend", "n_jobs"), BACKENDS)
def test_results_are_scikit_learns_own(ours, theirs, params, backend, n_jobs, capsys):
    # A shuffled cv without a seed: an additional split would change the results.
    def fit(cls, **more):
        cv = KFold(3, shuffle=True, random_state=np.random.RandomState(0))
        return cls(LogisticRegression(), cv=cv, return_train_score=True, **params, **more).fit(X, y)

    with joblib.parallel_config(backend, n_jobs=n_jobs):
        search = fit(ours, verbose=1)

    assert_same_results(search, fit(theirs))
    n_fits = 3 * len(search.cv_results_["params"])
    assert f"{n_fits}/{n_fits}" in capsys.readouterr().err


@pytest.mark.parametrize("verbose", [0, 1, 2, 3])
def test_prints_what_scikit_learn_prints_and_a_bar(verbose, capsys):
    outputs = []
    for cls in (GridSearchCV, model_selection.GridSearchCV):
        cls(LogisticRegression(), GRID, verbose=verbose).fit(X, y)
        outputs.append(capsys.readouterr())

    (out, err), (expected, _) = outputs
    assert len(out.splitlines()) == len(expected.splitlines())
    assert bool(err) == (verbose > 0)
    assert ("15/15" in err) == (verbose > 0)


@pytest.mark.parametrize(
    ("space", "n_iter", "n_candidates"),
    [(GRID, 2, 2), ([GRID, {"tol": [0.1]}], 4, 4), (GRID, 3, 3), ({"C": loguniform(1, 2)}, 5, 5)],
)
def test_bar_counts_the_candidates_drawn(space, n_iter, n_candidates, capsys):
    RandomizedSearchCV(LogisticRegression(), space, n_iter=n_iter, cv=2, verbose=1).fit(X, y)

    assert f"{2 * n_candidates}/{2 * n_candidates}" in capsys.readouterr().err


def test_bar_counts_lists_that_are_used_up(capsys):
    search = RandomizedSearchCV(LogisticRegression(), GRID, n_iter=10, cv=2, verbose=1)

    with pytest.warns(UserWarning, match="smaller than n_iter"):
        search.fit(X, y)

    assert "6/6" in capsys.readouterr().err


@pytest.mark.parametrize("n_jobs", [None, 2])
def test_tasks_find_the_backend_that_they_would_have_found(n_jobs):
    backends = []
    for cls in (GridSearchCV, model_selection.GridSearchCV):
        scoring = {"backend": lambda net, X, y: float(net.backend_ == "ThreadingBackend")}
        search = cls(Nested(), {"C": [1, 2]}, scoring=scoring, refit="backend", verbose=1, cv=2)
        with joblib.parallel_config("threading", n_jobs=n_jobs):
            search.fit(X, y)
        backends.append(search.cv_results_["mean_test_backend"].tolist())

    assert backends[0] == backends[1]


def test_tasks_within_tasks_are_not_counted(capsys):
    GridSearchCV(Nested(), {"C": [1, 2]}, cv=2, verbose=1).fit(X, y)

    bars = [line for line in capsys.readouterr().err.replace("\r", "\n").splitlines() if line]
    assert "4/4" in bars[-1]
    assert not any("/40" in bar for bar in bars)


@pytest.mark.parametrize("verbose", [0, 1])
def test_joblib_is_left_as_it_was(verbose):
    with joblib.parallel_config("threading", n_jobs=3):
        backend = get_active_backend()
        GridSearchCV(LogisticRegression(), GRID, verbose=verbose).fit(X, y)
        assert get_active_backend() == backend

        with pytest.raises(ValueError, match="inconsistent numbers of samples"):
            GridSearchCV(LogisticRegression(), GRID, verbose=verbose).fit(X, y[:-1])
        assert get_active_backend() == backend


@pytest.mark.parametrize("n_jobs", [None, 2])
def test_threads_are_used_where_joblib_would_use_them(n_jobs, capsys):
    def in_main_thread(model, X, y):
        return float(threading.current_thread() is threading.main_thread())

    found = []
    for cls in (GridSearchCV, model_selection.GridSearchCV):
        search = cls(GaussianNB(), {}, scoring=in_main_thread, n_jobs=n_jobs, cv=4, verbose=1)
        with joblib.parallel_config(require="sharedmem", n_jobs=2):
            found.append(search.fit(X, y).cv_results_["mean_test_score"].tolist())

    assert found[0] == found[1] == [float(n_jobs is None)]
    assert "4/4" in capsys.readouterr().err


def test_a_failing_fit_is_scored_as_ever(capsys):
    search = GridSearchCV(Failing(), {"C": [1.0, 2.0]}, cv=2, verbose=1)

    with (
        pytest.warns(FitFailedWarning, match="no fit for C=1"),
        pytest.warns(UserWarning, match="non-finite"),
    ):
        search.fit(X, y)

    assert np.isnan(search.cv_results_["mean_test_score"]).tolist() == [True, False]
    assert "4/4" in capsys.readouterr().err

    with pytest.raises(RuntimeError, match="no fit for C=1"):
        clone(search).set_params(error_score="raise").fit(X, y)


def test_passes_scikit_learns_estimator_checks():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # some checks warn on purpose
        check_estimator(GridSearchCV(GaussianNB(), {"var_smoothing": [1e-9]}, cv=2))


@pytest.mark.parametrize(("ours", "theirs", "params"), PAIRS)
def test_is_an_ordinary_estimator(ours, theirs, params):
    search = ours(LogisticRegression(), verbose=1, **params)

    added = {"ensemble", "ensemble_refit", "max_oof_mb"}
    added |= {"cache", "cache_limit", "checkpoint_interval", "racing"}
    if ours is RandomizedSearchCV:
        added |= {"stop", "patience", "tol", "timeout"}
    names = theirs(LogisticRegression(), **params).get_params().keys()
    assert clone(search).get_params().keys() == names | added
    assert repr(search).startswith(ours.__name__)
    fitted = pickle.loads(pickle.dumps(search.fit(X, y)))
    np.testing.assert_array_equal(fitted.predict(X), search.predict(X))
    for each in (search, clone(search)):
        assert "LogisticRegression" in each._repr_html_()
    assert cross_val_score(search, X, y, cv=2, n_jobs=2).shape == (2,)


def test_the_names_taken_from_joblib_are_where_they_were():
    from joblib.parallel import FallbackToBackend, Parallel

    assert issubclass(FallbackToBackend, Exception)
    parallel = Parallel(n_jobs=1)
    parallel(joblib.delayed(abs)(i) for i in range(3))
    assert parallel.n_completed_tasks == 3
