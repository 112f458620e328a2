"""scikit-learn's callbacks hear of the rounds and stages of searches, and of what is within."""

import pickle

import numpy as np
import pytest
from parity import X, y
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from told_callbacks import Noting, Propagated, needs_callbacks

from sktune import (
    BayesSearchCV,
    GridSearchCV,
    NeuralNetClassifier,
    RandomizedSearchCV,
    StagedSearch,
)

pytestmark = needs_callbacks

N_EPOCHS = 2
NET = NeuralNetClassifier(module__hidden=4, max_epochs=N_EPOCHS, random_state=0, device="cpu")
SPACE = {"lr": [1e-4, 1e-3, 1e-2]}
STAGES = [("alpha", SPACE), ("epochs", {"batch_size": [16, 32]})]

SEARCHES = {
    "grid": lambda net: GridSearchCV(net, SPACE, cv=2),
    "random": lambda net: RandomizedSearchCV(net, SPACE, n_iter=2, cv=2, random_state=0),
    "stopping": lambda net: RandomizedSearchCV(
        net, SPACE, n_iter=3, cv=2, random_state=0, timeout=600
    ),
    "bayes": lambda net: BayesSearchCV(net, SPACE, n_iter=3, batch_size=2, cv=2, random_state=0),
    "staged": lambda net: StagedSearch(net, STAGES, sampler="grid", cv=2, random_state=0),
}


def count(noting, hook, name):
    return noting.names(hook).count(name)


@pytest.mark.parametrize("kind", SEARCHES)
def test_callbacks_hear_of_all_fits_and_leave_the_results(kind):
    plain = SEARCHES[kind](clone(NET)).fit(X, y)
    noting = Propagated()
    told = SEARCHES[kind](clone(NET)).set_callbacks(noting).fit(X, y)

    for name in ("mean_test_score", "std_test_score", "rank_test_score"):
        np.testing.assert_array_equal(told.cv_results_[name], plain.cv_results_[name])
    assert told.best_params_ == plain.best_params_
    np.testing.assert_array_equal(told.predict_proba(X), plain.predict_proba(X))
    assert not told.fusion_.alone
    # those of the splits, and the refit
    n_fits = 2 * len(told.cv_results_["params"]) + 1
    assert count(noting, "end", "epoch") == n_fits * N_EPOCHS
    for name in ("epoch", "fit", "search", "round"):
        assert count(noting, "begin", name) == count(noting, "end", name)
    assert noting.names("setup", "teardown") == ["fit", "fit"]


@pytest.mark.parametrize("kind", SEARCHES)
def test_callbacks_that_are_not_handed_on_hear_of_the_search_alone(kind):
    noting = Noting()
    told = SEARCHES[kind](clone(NET)).set_callbacks(noting).fit(X, y)

    n_fits = 2 * len(told.cv_results_["params"])
    assert count(noting, "end", "candidate-split-evaluation") == n_fits
    assert count(noting, "end", "refit-with-best-params") == 1
    assert {name for _, name, _ in noting.calls} == {type(told).__name__}


def test_stages_are_tasks_of_the_search():
    noting = Noting()
    SEARCHES["staged"](clone(NET)).set_callbacks(noting).fit(X, y)

    paths = [path for hook, _, path in noting.calls if hook == "end"]
    stages = [path[-1][0] for path in paths if len(path) == 3]
    assert stages == ["stage-baseline", "stage-alpha", "stage-epochs"]
    evaluations = [path for path in paths if path[-1][0] == "candidate-split-evaluation"]
    per_stage = [sum(path[2][1] == number for path in evaluations) for number in range(3)]
    assert per_stage == [2, 6, 4]


def test_rounds_of_a_bayesian_stage_are_tasks_of_the_stage():
    pytest.importorskip("optuna", reason="a Bayesian stage needs optuna")
    noting = Noting()
    search = StagedSearch(clone(NET), STAGES[:1], sampler="tpe", n_iter=3, cv=2, random_state=0)
    search.set_callbacks(noting).fit(X, y)

    paths = [path for hook, _, path in noting.calls if hook == "end"]
    assert {path[2][0] for path in paths if path[-1][0] == "round"} == {"stage-alpha"}
    n_evaluations = sum(path[-1][0] == "candidate-split-evaluation" for path in paths)
    assert n_evaluations == 2 * len(search.cv_results_["params"])


@pytest.mark.parametrize("kind", SEARCHES)
def test_fitted_search_keeps_callbacks_and_can_be_pickled(kind):
    noting = Noting()
    search = SEARCHES[kind](clone(NET)).set_callbacks(noting).fit(X, y)
    copied = pickle.loads(pickle.dumps(search))

    assert clone(search)._skl_callbacks == [noting]
    np.testing.assert_array_equal(copied.predict(X), search.predict(X))


@pytest.mark.parametrize("kind", ["staged", "stopping"])
def test_other_estimators_hear_as_well(kind):
    searches = {
        "staged": StagedSearch(LogisticRegression(), [("C", {"C": [0.1, 1.0]})], cv=2),
        "stopping": RandomizedSearchCV(
            LogisticRegression(), {"C": [0.1, 1.0]}, n_iter=2, cv=2, timeout=600
        ),
    }
    noting = Propagated()
    search = searches[kind].set_callbacks(noting).fit(X, y)

    n_fits = 2 * len(search.cv_results_["params"]) + 1
    names = [name for hook, name, path in noting.calls if hook == "end" and path[-1][0] == "fit"]
    assert names.count("LogisticRegression") == n_fits


@pytest.mark.parametrize("kind", SEARCHES)
def test_callbacks_are_torn_down_where_the_search_fails(kind):
    def score(net, X, y):
        raise RuntimeError("no score")

    noting = Propagated()
    search = SEARCHES[kind](clone(NET)).set_params(scoring=score, error_score="raise")
    with pytest.raises(RuntimeError, match="no score"):
        search.set_callbacks(noting).fit(X, y)

    assert noting.names("setup", "teardown") == ["fit", "fit"]


def test_ensembles_are_those_without_callbacks():
    plain = GridSearchCV(NET, SPACE, cv=2, ensemble="folds").fit(X, y)
    told = GridSearchCV(NET, SPACE, cv=2, ensemble="folds").set_callbacks(Propagated()).fit(X, y)

    np.testing.assert_array_equal(told.predict_proba(X), plain.predict_proba(X))


@pytest.mark.parametrize("kind", SEARCHES)
def test_progress_bar_of_scikit_learn(kind, capsys):
    pytest.importorskip("rich", reason="scikit-learn's ProgressBar needs rich")
    from sklearn.callback import ProgressBar

    search = SEARCHES[kind](clone(NET)).set_callbacks(ProgressBar()).fit(X, y)

    shown = capsys.readouterr().out
    assert f"{type(search).__name__} - search" in shown
    assert "| NeuralNetClassifier - fit" in shown
