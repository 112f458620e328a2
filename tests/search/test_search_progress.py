"""One bar over a whole search, however many rounds or stages it has."""

import re
import threading

import joblib
import numpy as np
import pytest
from parity import X, y
from scipy.stats import loguniform
from sklearn import model_selection
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sktune import (
    BayesSearchCV,
    GridSearchCV,
    NeuralNetClassifier,
    RandomizedSearchCV,
    StagedSearch,
)

N_EPOCHS = 3
NET = NeuralNetClassifier(module__hidden=4, max_epochs=N_EPOCHS, random_state=0)
SPACE = {"lr": loguniform(1e-4, 1e-1)}
STAGES = [("alpha", SPACE), ("more epochs", {"max_epochs": [2, 4]})]


def bayes(net=NET, **params):
    return BayesSearchCV(net, SPACE, n_iter=6, batch_size=2, cv=2, random_state=0, **params)


def staged(net=NET, **params):
    return StagedSearch(net, STAGES, n_iter=3, cv=2, random_state=0, **params)


def stopping(net=NET, **params):
    options = {"stop": "auto", "cv": 2, "random_state": 0, **params}
    return RandomizedSearchCV(net, SPACE, n_iter=9, **options)


def grid(net=NET, **params):
    return GridSearchCV(net, {"lr": [1e-3, 1e-2]}, cv=2, **params)


SEARCHES = {"bayes": bayes, "staged": staged, "stopping": stopping, "grid": grid}


def read_bars(err):
    """Return the lines that were shown, one for each state of a bar."""
    return [line for line in err.replace("\r", "\n").splitlines() if line.strip()]


@pytest.fixture(autouse=True)
def _wide_terminal(monkeypatch):
    """Bars are cut at the width of the terminal, which workers of pytest-xdist inherit."""
    monkeypatch.setenv("COLUMNS", "300")


def read_count(line):
    """Return the number done and the total of a line."""
    done, total = re.search(r"(\d+)/(\d+) ", line).groups()
    return int(done), int(total)


def count_epochs(search):
    """Return the epochs of all fits that were trained together."""
    return len(search.fusion_.curves)


@pytest.mark.parametrize("kind", SEARCHES)
def test_one_bar_counts_the_epochs_of_all_fits(kind, capsys):
    search = SEARCHES[kind](verbose=1).fit(X, y)

    err = capsys.readouterr().err
    # a second bar would begin a line of its own
    assert err.count("\n") == 1
    n_epochs = count_epochs(search)
    assert n_epochs > 0
    assert read_count(read_bars(err)[-1]) == (n_epochs, n_epochs)


@pytest.mark.parametrize("kind", SEARCHES)
def test_quiet_search_prints_nothing_and_starts_no_thread(kind, capsys):
    before = set(threading.enumerate())
    SEARCHES[kind]().fit(X, y)

    assert capsys.readouterr() == ("", "")
    assert set(threading.enumerate()) <= before


@pytest.mark.parametrize("kind", SEARCHES)
def test_bar_shows_the_best_score(kind, capsys):
    search = SEARCHES[kind](verbose=1).fit(X, y)

    assert f"best_score={search.best_score_:.4g}" in read_bars(capsys.readouterr().err)[-1]


def test_bar_shows_the_score_that_guides(capsys):
    scoring = ["accuracy", "neg_log_loss"]
    search = bayes(verbose=1, scoring=scoring, refit="neg_log_loss").fit(X, y)

    assert f"best_score={search.best_score_:.4g}" in read_bars(capsys.readouterr().err)[-1]


def test_bar_names_the_round(capsys):
    bayes(verbose=1).fit(X, y)

    assert "round 3" in read_bars(capsys.readouterr().err)[-1]


def test_bar_names_the_stage(capsys):
    staged(verbose=1).fit(X, y)

    assert "stage 'more epochs'" in read_bars(capsys.readouterr().err)[-1]


@pytest.mark.parametrize("kind", ["bayes", "staged"])
def test_fits_that_are_trained_alone_advance_the_bar(kind, capsys):
    # a train_split is a reason to train alone
    alone = NeuralNetClassifier(
        module__hidden=4,
        max_epochs=N_EPOCHS,
        random_state=0,
        train_split=lambda dataset, y=None, **kwargs: (dataset, None),
    )
    search = SEARCHES[kind](alone, verbose=1).fit(X, y)

    n_fits = 2 * len(search.cv_results_["params"])
    assert len(search.fusion_.alone) == n_fits
    done, total = read_count(read_bars(capsys.readouterr().err)[-1])
    assert done == total
    epochs = [params.get("max_epochs", N_EPOCHS) for params in search.cv_results_["params"]]
    assert done == 2 * sum(epochs)


def test_other_estimators_are_counted_by_fits(capsys):
    search = StagedSearch(
        LogisticRegression(), [("C", {"C": [0.1, 1.0]})], sampler="grid", cv=2, verbose=1
    ).fit(X, y)

    err = capsys.readouterr().err
    n_fits = 2 * len(search.cv_results_["params"])
    assert err.count("\n") == 1
    assert read_count(read_bars(err)[-1]) == (n_fits, n_fits)
    assert f"best_score={search.best_score_:.4g}" in read_bars(err)[-1]


def test_pipelines_and_other_estimators_in_one_search(capsys):
    pipeline = make_pipeline(StandardScaler(), NET)
    grid = {"neuralnetclassifier": [NET, LogisticRegression()]}
    GridSearchCV(pipeline, grid, cv=2, verbose=1).fit(X, y)

    n_done = 2 * N_EPOCHS + 2
    assert read_count(read_bars(capsys.readouterr().err)[-1]) == (n_done, n_done)


def test_fits_that_stop_early_leave_the_total(capsys):
    net = NeuralNetClassifier(
        module__hidden=4, max_epochs=30, random_state=0, early_stopping=True, n_iter_no_change=1
    )
    search = grid(net.set_params(lr=0.5), verbose=1).fit(X, y)

    n_epochs = count_epochs(search)
    assert n_epochs < 4 * 30
    assert read_count(read_bars(capsys.readouterr().err)[-1]) == (n_epochs, n_epochs)


def test_search_that_stops_early_leaves_its_total(capsys):
    search = stopping(verbose=1, timeout=1e-3)
    with pytest.raises(ValueError, match="timeout must leave the time for one round"):
        search.fit(X, y)

    assert capsys.readouterr().err.count("\n") == 1


def test_fits_that_fail_are_counted(capsys):
    search = grid(verbose=1, error_score=0.0)
    search.param_grid = {"lr": [1e-3, 1e30]}
    with pytest.warns(model_selection._validation.FitFailedWarning, match="2 fits failed"):
        search.fit(X, y)

    done, total = read_count(read_bars(capsys.readouterr().err)[-1])
    assert done == total


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
@pytest.mark.parametrize("kind", SEARCHES)
def test_bar_ends_where_the_search_is_broken_off(kind, error, capsys):
    def score(net, X, y):
        raise error("no score")

    search = SEARCHES[kind](verbose=1, scoring=score, error_score="raise")
    with pytest.raises(error, match="no score"):
        search.fit(X, y)

    err = capsys.readouterr().err
    assert err.endswith("\n")
    assert err.count("\n") == 1
    # nothing of the search goes on to hold the bar
    assert not any(name in vars(search) for name in ("_progress", "_session", "_report"))


@pytest.mark.parametrize("n_jobs", [1, 3])
def test_groups_in_threads_count_together(n_jobs, capsys):
    search = RandomizedSearchCV(
        NET, SPACE, n_iter=12, cv=2, random_state=0, n_jobs=n_jobs, verbose=1
    )
    with joblib.parallel_config("sktune", max_lanes=4, n_jobs=n_jobs):
        search.fit(X, y)

    assert len(search.fusion_.groups) > 1
    assert read_count(read_bars(capsys.readouterr().err)[-1]) == (24 * N_EPOCHS, 24 * N_EPOCHS)


def test_scikit_learns_halving_search_has_one_bar(capsys):
    from sklearn.experimental import enable_halving_search_cv  # noqa: F401
    from sklearn.model_selection import HalvingRandomSearchCV

    search = HalvingRandomSearchCV(NET, SPACE, n_candidates=4, cv=2, random_state=0, factor=2)
    with joblib.parallel_config("sktune", progress=True):
        search.fit(X, y)

    err = capsys.readouterr().err
    n_epochs = 2 * N_EPOCHS * len(search.cv_results_["params"])
    assert err.count("\n") == 1
    assert read_count(read_bars(err)[-1]) == (n_epochs, n_epochs)


def test_few_lines_where_there_is_no_terminal(capsys):
    bayes(verbose=1).fit(X, y)

    # the first and the last state, and one for each of three rounds at most
    assert len(read_bars(capsys.readouterr().err)) <= 5


def test_results_are_those_of_a_quiet_search(capsys):
    for make in SEARCHES.values():
        shown, quiet = make(verbose=1).fit(X, y), make().fit(X, y)
        np.testing.assert_array_equal(
            shown.cv_results_["mean_test_score"], quiet.cv_results_["mean_test_score"]
        )
