"""Searches that draw from the distributions of Optuna."""

import numpy as np
import pytest
from scipy.stats import uniform
from sklearn.datasets import make_classification
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import ParameterSampler
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import Pipeline

from sktune import HalvingRandomSearchCV, HyperbandSearchCV, NeuralNetClassifier, RandomizedSearchCV
from sktune.search.samplers.drawing import make_drawable

optuna = pytest.importorskip("optuna")
Categorical = optuna.distributions.CategoricalDistribution
Float = optuna.distributions.FloatDistribution
Int = optuna.distributions.IntDistribution

X, y = make_classification(60, n_features=4, random_state=0)
KINDS = [
    {
        "model": [LogisticRegression()],
        "model__C": Float(1e-3, 1e3, log=True),
        "model__fit_intercept": Categorical([True, False]),
    },
    {"model": [GaussianNB()], "model__var_smoothing": Float(0.0, 0.5, step=0.25)},
]
EITHER = Pipeline([("model", GaussianNB())])


def draw(distribution, n=3000):
    space = make_drawable({"x": distribution, "other": uniform()})
    return np.array([params["x"] for params in ParameterSampler(space, n, random_state=0)])


def test_floats():
    even = draw(Float(2.0, 4.0))
    logarithmic = draw(Float(1e-4, 1e2, log=True))
    steps = draw(Float(0.0, 1.0, step=0.25))

    assert 2 <= even.min() < 2.05 < 2.95 < np.median(even) < 3.05 < 3.95 < even.max() <= 4
    assert -1.3 < np.median(np.log10(logarithmic)) < -0.7
    values, counts = np.unique(steps, return_counts=True)
    assert values.tolist() == [0.0, 0.25, 0.5, 0.75, 1.0]
    # the ends are as likely as what is between
    assert counts.min() > 500


def test_ints_and_categories():
    values, counts = np.unique(draw(Int(1, 9, step=4)), return_counts=True)
    halves = draw(Int(1, 1000, log=True)) < 32

    assert values.tolist() == [1, 5, 9]
    assert counts.min() > 900
    # of log(1000.5 / 0.5), log(31.5 / 0.5)
    assert 0.52 < halves.mean() < 0.57
    assert set(draw(Categorical(["a", None, 3]))) == {"a", None, 3}
    (params,) = ParameterSampler(make_drawable({"x": Int(1, 9)}), 1, random_state=0)
    assert type(params["x"]) is int


def test_what_is_no_distribution_of_optunas_is_left():
    space = [{"a": (values := uniform()), "b": (1, 2)}]

    assert make_drawable(space) == space
    assert make_drawable(space)[0]["a"] is values
    assert make_drawable("no space") == "no space"


def test_a_random_search_draws_from_several_spaces():
    options = {"n_iter": 12, "cv": 2, "random_state": 0, "error_score": "raise"}
    search = RandomizedSearchCV(EITHER, KINDS, **options).fit(X, y)
    in_rounds = RandomizedSearchCV(EITHER, KINDS, timeout=1000.0, **options).fit(X, y)

    drawn = search.cv_results_["params"]
    assert list(map(str, drawn)) == list(map(str, in_rounds.cv_results_["params"]))
    bayes = [params for params in drawn if "model__var_smoothing" in params]
    assert {params["model__var_smoothing"] for params in bayes} <= {0.0, 0.25, 0.5}
    others = [params for params in drawn if params not in bayes]
    assert {params["model__fit_intercept"] for params in others} == {True, False}
    stopped = RandomizedSearchCV(EITHER, KINDS, stop="auto", **options).fit(X, y)
    assert stopped.stop_reason_


@pytest.mark.parametrize("kind", [HalvingRandomSearchCV, HyperbandSearchCV])
def test_searches_in_rungs_draw(kind):
    space = {"lr": Float(1e-4, 1e-2, log=True), "batch_size": Int(8, 24, step=8)}
    net = NeuralNetClassifier(module__hidden=(4,), max_epochs=4, random_state=0)
    search = kind(net, space, factor=2, cv=2, random_state=0).fit(X, y)

    results = search.cv_results_
    # the first one is the net as it is
    n_drawn = int((results["iter"] == 0).sum()) - 1
    drawn = results["params"][1 : n_drawn + 1]
    assert len(drawn) >= 3
    assert all(1e-4 <= params["lr"] <= 1e-2 for params in drawn)
    assert {params["batch_size"] for params in drawn} <= {8, 16, 24}


def test_few_categories_are_each_drawn_once():
    space = {"var_smoothing": Categorical([1e-9, 1e-3, 1.0])}
    search = HalvingRandomSearchCV(
        GaussianNB(), space, n_candidates=9, resource="n_samples", cv=2, random_state=0
    ).fit(X, y)

    # the estimator as it is, and two of the three
    assert search.n_candidates_[0] <= 4
    with pytest.warns(UserWarning, match="smaller than n_iter=9"):
        search = RandomizedSearchCV(GaussianNB(), space, n_iter=9, cv=2).fit(X, y)
    assert sorted(p["var_smoothing"] for p in search.cv_results_["params"]) == [1e-9, 1e-3, 1.0]


def test_unknown_distributions_are_refused():
    Odd = type("Odd", (), {"__module__": "optuna.distributions"})

    with pytest.raises(ValueError, match="must be a FloatDistribution, IntDistribution or"):
        RandomizedSearchCV(GaussianNB(), {"var_smoothing": Odd()}).fit(X, y)
