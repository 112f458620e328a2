"""What a timeout leaves of a search: no fit begins after it, and whole candidates come first."""

import pickle

import joblib
import numpy as np
import pytest
from scipy.stats import loguniform, uniform
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.datasets import make_classification
from skorch.callbacks import GradientNormClipping

from sktune import BayesSearchCV, NeuralNetClassifier, RandomizedSearchCV, StagedSearch
from sktune.bridge.seam import is_skipped, let_begin_until
from sktune.bridge.seam.tasks import FIT_FUNCTIONS
from sktune.search.rounds.evaluation import Rounds
from sktune.search.rounds.stopping import Deadline

X, y = make_classification(60, n_features=4, flip_y=0.2, random_state=0)
NET = NeuralNetClassifier(module__hidden=(6,), max_epochs=1, random_state=0)
RATES = {"lr": loguniform(1e-4, 1e-1)}


class Clock:
    """A clock that stands still unless somebody lets it go on."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


CLOCK = Clock()


@pytest.fixture
def clock(monkeypatch):
    """Let searches have a clock that goes on by a second with each fit that is counted."""
    CLOCK.now = 0.0
    monkeypatch.setattr("sktune.search.rounds.stopping.monotonic", CLOCK)
    monkeypatch.setattr("sktune.bridge.seam.skipping.time", CLOCK)
    return CLOCK


class Slow(ClassifierMixin, BaseEstimator):
    """A fit takes a second."""

    def __init__(self, number=0.5):
        self.number = number

    def fit(self, X, y):
        CLOCK.now += 1
        self.classes_ = np.unique(y)
        return self

    def predict(self, X):
        return np.full(len(X), self.classes_[0])

    def predict_proba(self, X):
        return np.full((len(X), 2), [self.number, 1 - self.number])


SEARCHES = {
    "random": (RandomizedSearchCV, {"number": uniform()}),
    "gp": (BayesSearchCV, {"number": uniform()}),
    "staged": (StagedSearch, [("number", {"number": uniform()}), ("all", None)]),
}


def make_search(kind, estimator, n_iter=100, **options):
    cls, space = SEARCHES[kind]
    if kind == "gp":
        pytest.importorskip("optuna")
        options["sampler"] = "gp"
    settings = {"cv": 3, "random_state": 0, "n_iter": n_iter, **options}
    return cls(estimator, space, **settings)


@pytest.mark.parametrize("scoring", [None, ["neg_log_loss", "accuracy"]])
@pytest.mark.parametrize("kind", SEARCHES)
def test_no_classical_fit_begins_after_it(kind, scoring, clock):
    refit = "accuracy" if scoring else True
    search = make_search(kind, Slow(), timeout=7.5, scoring=scoring, refit=refit)
    search.fit(X, y)

    # two candidates on three splits, two further fits, and the refit
    assert clock.now == 9
    assert len(search.cv_results_["params"]) == 2
    assert "the timeout of 7.5 s is over" in search.stop_reason_
    assert "2 candidates are complete" in search.stop_reason_
    assert search.best_estimator_.classes_.tolist() == [0, 1]


def test_ensembles_are_of_what_is_complete(clock):
    search = make_search(
        "random", Slow(), timeout=7.5, ensemble="greedy", scoring="neg_log_loss"
    ).fit(X, y)

    assert len(search.ensemble_weights_) == 2
    assert search.oof_predictions_.shape == (2, 60, 2)


def test_nothing_complete_is_an_error(clock):
    with pytest.raises(ValueError, match="timeout must leave the time .*got timeout=1.5"):
        make_search("random", Slow(), timeout=1.5, return_train_score=True).fit(X, y)

    assert clock.now == 2


class SlowCallback(GradientNormClipping):
    """A fit takes a second. A callback for each batch keeps a net out of groups."""

    def on_train_begin(self, net, **kwargs):
        CLOCK.now += 1


def test_no_net_is_trained_alone_after_it(clock):
    net = NeuralNetClassifier(module__hidden=(6,), max_epochs=1, callbacks=[SlowCallback(1.0)])
    search = RandomizedSearchCV(net, RATES, n_iter=9, cv=2, timeout=4.5, random_state=0, n_jobs=1)
    search.fit(X, y)

    # the round has three candidates, of which the last one has one fit; and there is the refit
    assert clock.now == 6
    assert len(search.cv_results_["params"]) == 2
    last = [fit for fit in search.fusion_.alone if fit["candidate"] == 2]
    assert [fit["reason"].endswith("it was not begun") for fit in last] == [False, True]


class LateDeadline(Deadline):
    """Its time is over once three epochs have been heard of."""

    n_epochs = 0

    @property
    def is_over(self):
        return self.n_epochs >= 3

    def on_epoch(self, event):
        self.n_epochs += 1
        super().on_epoch(event)


def test_whole_candidates_are_trained_first(monkeypatch):
    monkeypatch.setattr("sktune.search.rounds.session.Deadline", LateDeadline)
    search = RandomizedSearchCV(
        NET, RATES, n_iter=48, cv=3, timeout=500.0, random_state=0, n_jobs=1
    ).fit(X, y)

    # a round has 16 candidates, and the groups of its first 8 are the first three
    assert [group["lanes"] for group in search.fusion_.groups] == [8, 8, 8]
    assert len(search.cv_results_["params"]) == 8
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    reasons = {fit["reason"] for fit in search.fusion_.alone}
    assert reasons == {"the timeout of 500.0 s is over, it was not begun"}
    assert len(search.fusion_.alone) == 8 * 3


def test_rounds_are_as_short_as_the_time_that_is_left(clock, monkeypatch):
    monkeypatch.setattr("sktune.search.rounds.evaluation.monotonic", clock)
    evaluate = Rounds.evaluate
    sizes = []

    def note(self, candidates):
        sizes.append(len(candidates))
        return evaluate(self, candidates)

    monkeypatch.setattr(Rounds, "evaluate", note)
    # a round has as many candidates as keep twelve jobs busy, as long as there is time
    search = make_search("random", Slow(), timeout=20.5, n_jobs=12)
    with joblib.parallel_config("threading"):
        search.fit(X, y)

    # four candidates take twelve seconds, and what is left is enough for two
    assert sizes[:2] == [4, 2]


def test_tasks_can_be_pickled_and_others_are_left_alone():
    fit = next(iter(FIT_FUNCTIONS))
    item = (fit, (), {})
    function, _, _ = pickle.loads(pickle.dumps(let_begin_until(item, 5.0)))

    assert function.function is fit
    assert let_begin_until((len, ([],), {}), 5.0) == (len, ([],), {})
    assert not is_skipped({"test_scores": 1.0})
