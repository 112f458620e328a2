"""Stages that are searched in rounds: rules for stopping, timeouts, conditional spaces."""

import numpy as np
import pytest
from scipy.stats import loguniform, uniform
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.datasets import make_classification
from sklearn.exceptions import FitFailedWarning
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler

from sktune import NeuralNetClassifier, StagedSearch
from sktune.search.rounds.stopping import Deadline
from sktune.search.samplers.batches import BatchSampler
from sktune.search.samplers.distributions import Space

X, y = make_classification(60, n_features=4, flip_y=0.2, random_state=0)
NET = NeuralNetClassifier(module__hidden=(6,), max_epochs=4, random_state=0)
KINDS = [
    {"model": [LogisticRegression()], "model__C": loguniform(1e-3, 1e3)},
    {"model": [GaussianNB()], "model__var_smoothing": loguniform(1e-12, 1e-3)},
]


@pytest.mark.parametrize("sampler", ["random", "gp"])
def test_each_sampled_stage_stops_by_itself(sampler):
    noise = np.random.default_rng(0).integers(0, 2, 60)
    stages = [
        ("first", {"var_smoothing": loguniform(1e-12, 1e-3)}),
        ("grid", {"priors": 15 * [None]}),
        ("all", None),
    ]
    search = StagedSearch(
        GaussianNB(),
        stages,
        n_iter=30,
        sampler={"first": sampler, "grid": "grid", "all": sampler},
        cv=3,
        stop="auto",
        random_state=0,
    ).fit(X, noise)

    reasons = [stage["stop_reason"] for stage in search.stages_]
    assert reasons[1].startswith("another 10 candidates are expected to gain")
    assert reasons[2] == "all 15 candidates are evaluated"
    assert search.stages_[1]["n_candidates"] < 30
    assert search.stop_reason_ == "all 3 stages are evaluated"


class LateDeadline(Deadline):
    """Its time is over once so many epochs have been heard of."""

    n_epochs = 0
    n_most = 10

    @property
    def is_over(self):
        return self.n_epochs >= self.n_most

    def on_epoch(self, event):
        self.n_epochs += 1
        super().on_epoch(event)


@pytest.mark.parametrize("sampler", ["random", "gp"])
def test_timeout_ends_the_whole_search(sampler, monkeypatch):
    monkeypatch.setattr("sktune.search.rounds.session.Deadline", LateDeadline)
    stages = [("alpha", {"lr": loguniform(1e-4, 1e-1)}), ("all", None)]
    search = StagedSearch(
        NET, stages, n_iter=6, sampler=sampler, cv=2, timeout=500.0, random_state=0, n_jobs=1
    ).fit(X, y)

    # rounds of four epochs: the baseline, two candidates, and two that have not come to their end
    assert search.cv_results_["stage"].tolist() == ["baseline", "alpha", "alpha"]
    assert [stage["n_candidates"] for stage in search.stages_] == [1, 2]
    assert search.stop_reason_ == (
        "the timeout of 500.0 s is over in stage 'alpha', 3 candidates are complete"
    )
    assert len(search.best_estimator_.history) == 4


@pytest.mark.parametrize("sampler", ["random", "tpe", "gp"])
def test_a_stage_may_have_several_spaces(sampler):
    if sampler == "tpe":
        pytest.importorskip("optuna")
    pipeline = Pipeline([("scale", StandardScaler()), ("model", LogisticRegression())])
    stages = [("kind", KINDS), ("scale", {"scale__with_mean": [True, False]}), ("all", None)]
    search = StagedSearch(
        pipeline, stages, n_iter=12, sampler=sampler, cv=2, random_state=0, error_score="raise"
    ).fit(X, y)

    kinds = set()
    for params in search.cv_results_["params"][1:]:
        if "model" in params:
            kinds.add(type(params["model"]).__name__)
            own = "model__C" if isinstance(params["model"], LogisticRegression) else "model__var"
            assert all(name[: len(own)] == own for name in params if name.startswith("model__"))
    assert kinds == {"LogisticRegression", "GaussianNB"}
    last = search.stages_[-1]["space"]
    best = search.stages_[2]["best_params"]
    for part in last:
        # the part in which the best candidate lies is narrowed, and the other one is not
        (name,) = (name for name in part if name.startswith("model__"))
        is_narrowed = "Narrowed" in type(part[name]).__name__
        assert is_narrowed == (isinstance(best.get("model"), type(part["model"][0])))


def test_kinds_of_models_may_return_in_a_later_stage():
    pipeline = Pipeline([("model", LogisticRegression())])
    later = [
        {"model": [LogisticRegression()], "model__fit_intercept": [True, False]},
        {"model": [GaussianNB()], "model__var_smoothing": [1e-9, 1e-6]},
    ]
    search = StagedSearch(
        pipeline,
        [("first", KINDS), ("second", later)],
        n_iter=8,
        sampler="random",
        cv=2,
        random_state=0,
        error_score="raise",
    ).fit(X, y)

    assert [stage["n_candidates"] for stage in search.stages_] == [1, 8, 4]


@pytest.mark.parametrize("sampler", ["random", "tpe"])
def test_a_stage_takes_optunas_distributions(sampler):
    distributions = pytest.importorskip("optuna").distributions
    space = {
        "C": distributions.FloatDistribution(1e-3, 1e3, log=True),
        "max_iter": distributions.IntDistribution(200, 300, step=50),
        "fit_intercept": distributions.CategoricalDistribution((True, False)),
    }
    search = StagedSearch(
        LogisticRegression(),
        [("first", space), ("all", None)],
        n_iter=8,
        sampler=sampler,
        narrow=0.25,
        cv=2,
        random_state=0,
    ).fit(X, y)

    drawn = search.cv_results_["params"][1:]
    assert {type(params["max_iter"]) for params in drawn} == {int}
    assert {params["max_iter"] for params in drawn} <= {200, 250, 300}
    assert len({params["C"] for params in drawn[:8]}) == 8
    later = [params["C"] for params in drawn[8:]]
    assert np.log10(max(later)) - np.log10(min(later)) <= 6 * 0.25 + 1e-9


class Failing(ClassifierMixin, BaseEstimator):
    """Fails where its number is negative."""

    def __init__(self, number=0.0):
        self.number = number

    def fit(self, X, y):
        if self.number < 0:
            raise ValueError("the number is negative")
        self.classes_ = np.unique(y)
        return self

    def predict(self, X):
        return np.full(len(X), self.classes_[int(self.number > 0.5)])


def test_a_stage_that_fails_does_not_end_the_search():
    stages = [("bad", {"number": uniform(-2, 1)}), ("good", {"number": [0.3, 0.7]})]
    search = StagedSearch(Failing(), stages, n_iter=2, cv=2, random_state=0)
    with (
        pytest.warns(FitFailedWarning, match="the number is negative"),
        pytest.warns(UserWarning, match="non-finite"),
    ):
        search.fit(X, y)

    assert search.cv_results_["stage"].tolist() == ["baseline", *2 * ["bad"], *2 * ["good"]]
    assert np.isnan(search.cv_results_["mean_test_score"]).tolist() == [
        False,
        True,
        True,
        False,
        False,
    ]
    assert search.stages_[1]["best_params"] == {}


def test_stages_of_the_gaussian_process_need_no_optuna(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "optuna", None)
    stages = [("one", {"C": loguniform(1e-3, 1e3)})]

    search = StagedSearch(LogisticRegression(), stages, sampler="gp", n_iter=3, cv=2).fit(X, y)
    assert len(search.cv_results_["params"]) == 4
    with pytest.raises(ImportError, match="^StagedSearch with stage 'one' needs Optuna: pip"):
        search.set_params(sampler="tpe").fit(X, y)


class Stubborn:
    """A sampler that asks for the first values of a space again and again."""

    def __init__(self, space):
        self.space = space
        self.told = []

    def ask(self, n):
        return self.space.list_points()[:n]

    def tell(self, points, scores):
        self.told += zip(points, scores, strict=True)


def test_a_sampler_is_told_of_what_it_asks_for_once_more():
    space = Space({"a": [1, 2, 3, 4]})
    points = space.list_points()
    batches = BatchSampler("gp", space, seed=0)
    batches.sampler = Stubborn(space)
    batches.add(points[0])

    first = batches.ask(2)
    assert len(set(first) | {points[0]}) == 3
    assert batches.n_left == 1
    batches.tell([points[0], *first], [0.1, 0.2, np.inf])
    told = dict(batches.sampler.told)
    assert told[points[0]] == 0.1
    # both of those that it has asked for were known by then
    assert batches.sampler.told[3:] == [(points[0], 0.1), (points[1], told[points[1]])]
    assert np.isnan(told[first[1]])
