"""Ctrl-C ends a search with the candidates that are complete."""

import os
import signal
import threading

import joblib
import numpy as np
import pytest
from parity import RAGGED, X, assert_same_scores, y
from sklearn.base import clone
from sklearn.model_selection import cross_validate
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import sktune
from sktune import NeuralNetClassifier
from sktune.engine import group

NET = NeuralNetClassifier(module__hidden=(8,), batch_size=16, max_epochs=2, random_state=0)
WARNING = "the search was interrupted, .* candidates (are|is) complete"


@pytest.fixture(autouse=True)
def _hears_interrupts():
    # processes of pytest-xdist ignore them
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


class Impatient:
    """Sends Ctrl-C to this process in the epoch of a number."""

    def __init__(self, monkeypatch, n_epochs):
        self.n_left = n_epochs
        close_epoch = group.Group._close_epoch

        def close(*args):
            self.n_left -= 1
            if self.n_left == 0:
                os.kill(os.getpid(), signal.SIGINT)
            return close_epoch(*args)

        monkeypatch.setattr(group.Group, "_close_epoch", close)


def make_searches():
    # candidates that take longer, one lane at a time, are complete later
    space = {"max_epochs": [2, 3, 4, 50], "lr": [0.01]}
    options = {"cv": RAGGED, "n_jobs": 1}
    drawn = {**options, "random_state": 0}
    pipeline = make_pipeline(StandardScaler(), NET)
    named = {"neuralnetclassifier__max_epochs": [2, 3, 50]}
    stages = [("epochs", {"max_epochs": [2, 3]}), ("all", {"max_epochs": [4, 50]})]
    return {
        "grid": sktune.GridSearchCV(NET, space, **options),
        "pipeline": sktune.GridSearchCV(pipeline, named, **options),
        "ensemble": sktune.GridSearchCV(NET, space, ensemble="greedy", **options),
        "random": sktune.RandomizedSearchCV(NET, space, n_iter=4, **drawn),
        "rounds": sktune.RandomizedSearchCV(NET, space, n_iter=4, timeout=1000, **drawn),
        "bayes": sktune.BayesSearchCV(NET, space, n_iter=5, batch_size=5, **drawn),
        "staged": sktune.StagedSearch(NET, stages, sampler="grid", narrow=1.0, **drawn),
        "two metrics": sktune.GridSearchCV(
            NET, space, scoring=["accuracy", "neg_log_loss"], refit="accuracy", **options
        ),
    }


@pytest.mark.parametrize("kind", make_searches())
def test_a_search_ends_with_what_is_complete(kind, monkeypatch):
    whole = make_searches()[kind].fit(X, y)
    assert whole.interrupted_ is False
    search = make_searches()[kind]
    with monkeypatch.context() as patch:
        Impatient(patch, 15)
        with pytest.warns(UserWarning, match=WARNING):
            search.fit(X, y)

    assert search.interrupted_ is True
    assert search.fusion_.is_interrupted
    results = search.cv_results_
    n_found = len(results["params"])
    assert 0 < n_found < len(whole.cv_results_["params"])
    assert sorted(results["rank_test_accuracy" if "two" in kind else "rank_test_score"])[0] == 1
    for n, params in enumerate(results["params"]):
        position = whole.cv_results_["params"].index(params)
        for column in results:
            if column.startswith("split"):
                assert results[column][n] == whole.cv_results_[column][position]
    np.testing.assert_array_equal(search.predict(X).shape, y.shape)
    reasons = {fit["reason"] for fit in search.fusion_.alone}
    assert reasons <= {"the search was interrupted"}
    if kind == "ensemble":
        assert search.ensemble_weights_.shape == (n_found,)
    # the next one is whole again
    assert_same_scores(whole, search.fit(X, y), tolerance=0)
    assert search.interrupted_ is False


@pytest.mark.parametrize("kind", ["grid", "rounds", "staged"])
def test_without_a_complete_candidate_there_is_an_interrupt(kind, monkeypatch):
    search = make_searches()[kind]
    Impatient(monkeypatch, 1)
    with pytest.raises(KeyboardInterrupt, match="^$"):
        search.fit(X, y)
    assert not hasattr(search, "cv_results_")


@pytest.mark.parametrize("kind", ["bayes", "staged"])
def test_what_earlier_rounds_have_found_is_not_lost(kind, monkeypatch):
    search = make_searches()[kind]
    net = clone(NET).set_params(max_epochs=3)
    if kind == "bayes":
        search.set_params(estimator=net, batch_size=1, param_distributions={"lr": [0.01, 0.1, 1.0]})
    else:
        search.set_params(estimator=net, stages=[("lr", {"lr": [0.1, 0.2]})])
    with monkeypatch.context() as patch:
        Impatient(patch, 4)
        with pytest.warns(UserWarning, match="none of its last . candidates is complete"):
            search.fit(X, y)

    assert search.interrupted_
    assert len(search.cv_results_["params"]) == 1
    assert len(search.predict(X)) == len(y)


def test_an_interrupt_while_tasks_are_scored(monkeypatch):
    scored = []

    def score(net, X, y):
        scored.append(net)
        if len(scored) == 6:
            raise KeyboardInterrupt
        return net.score(X, y)

    search = sktune.GridSearchCV(NET, {"lr": [0.01, 0.02, 0.05, 0.1]}, cv=RAGGED, scoring=score)
    with pytest.warns(UserWarning, match="2 of its last 4 candidates"):
        search.fit(X, y)
    assert [params["lr"] for params in search.cv_results_["params"]] == [0.01, 0.02]


def score_equally(net, X, y):
    return 1.0


@pytest.mark.parametrize(("n_epochs", "found"), [(51, []), (53, [2]), (65, [2, 3, 4])])
def test_a_race_ends_with_what_is_complete(n_epochs, found, monkeypatch):
    # first split: 50 epochs for all; second split: 2 of the leader, then 50 for the others
    search = make_searches()["grid"].set_params(racing=True, scoring=score_equally)
    Impatient(monkeypatch, n_epochs)
    if not found:
        with pytest.raises(KeyboardInterrupt, match="^$"):
            search.fit(X, y)
        return
    with pytest.warns(UserWarning, match=f"{len(found)} of its last 4 candidates") as caught:
        search.fit(X, y)

    assert len(caught) == 1
    assert search.interrupted_
    assert [params["max_epochs"] for params in search.cv_results_["params"]] == found
    assert search.cv_results_["n_splits_run"].tolist() == [2] * len(found)
    assert search.cv_results_["mean_test_score"].tolist() == [1.0] * len(found)


def test_scikit_learns_own_tools_are_interrupted_as_always(monkeypatch):
    Impatient(monkeypatch, 1)
    with joblib.parallel_config("sktune"), pytest.raises(KeyboardInterrupt, match="^$"):
        cross_validate(NET, X, y)


def test_several_threads_stop_at_once(monkeypatch):
    n_threads = threading.active_count()
    nets = {"max_epochs": [2, 100_000], "batch_size": [8, 16, 32]}
    search = sktune.GridSearchCV(NET, nets, cv=RAGGED, n_jobs=2)
    Impatient(monkeypatch, 60)
    with pytest.warns(UserWarning, match=WARNING):
        search.fit(X, y)
    assert search.interrupted_
    assert {params["max_epochs"] for params in search.cv_results_["params"]} == {2}
    assert threading.active_count() == n_threads


def test_an_interrupted_search_is_resumed_from_its_cache(tmp_path, monkeypatch):
    search = make_searches()["grid"].set_params(cache=tmp_path)
    with monkeypatch.context() as patch:
        Impatient(patch, 15)
        with pytest.warns(UserWarning, match=WARNING):
            search.fit(X, y)
    n_found = len(search.cv_results_["params"])
    search.fit(X, y)

    assert search.fusion_.sharing.n_known_fits >= 2 * n_found
    assert_same_scores(make_searches()["grid"].fit(X, y), search, tolerance=0)
