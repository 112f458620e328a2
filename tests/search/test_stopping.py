import numpy as np
import pytest
from scipy.stats import loguniform, uniform
from sklearn import model_selection
from sklearn.datasets import make_classification
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import ShuffleSplit

from sktune import BayesSearchCV, NeuralNetClassifier, RandomizedSearchCV
from sktune.search.rounds.stopping import Deadline, StoppingRule, corrected_standard_error
from sktune.search.samplers.distributions import Space

X, y = make_classification(60, n_features=4, random_state=0)
SPACE = Space({"lr": loguniform(1e-5, 1), "decay": uniform(0, 1)})
NET = NeuralNetClassifier(max_epochs=3, random_state=0)


def score_folds(params, rng, noise=0.01, ridge=-2.5):
    """Return the scores of five folds: the best is where lr and decay are in balance."""
    across = np.log10(params["lr"]) - ridge + 2 * params["decay"]
    along = params["decay"] - 0.7
    return 0.9 - 0.05 * across**2 - 0.1 * along**2 + noise * rng.standard_normal(5)


def test_standard_error_is_nadeaus_and_bengios():
    # by hand: the variance of 1, 2, 3 is 1, and 1/3 + 1/2 = 5/6
    assert corrected_standard_error([1, 2, 3], n_train=20, n_test=10) == pytest.approx(
        np.sqrt(5 / 6)
    )


@pytest.mark.parametrize("is_adaptive", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_stops_at_once_on_noise(is_adaptive, seed):
    rng = np.random.RandomState(seed)
    points = SPACE.draw(30, rng)
    scores = 0.5 + 0.03 * rng.standard_normal((30, 5))

    rule = StoppingRule(SPACE, tol=0.25, patience=1, is_adaptive=is_adaptive, seed=seed)

    assert "the folds cannot tell" in rule.check(points, scores, 80, 20, 30)


@pytest.mark.parametrize("seed", range(5))
def test_goes_on_where_the_ridge_is_not_reached(seed):
    rng = np.random.RandomState(seed)
    # only candidates far from the ridge, where lr is too large
    beside = Space({"lr": loguniform(1e-2, 1), "decay": uniform(0.3, 0.7)})
    far = [SPACE.find_point(beside.params_at(point)) for point in beside.draw(15, rng)]
    scores = np.array([score_folds(SPACE.params_at(point), rng) for point in far])

    rule = StoppingRule(SPACE, tol=0.25, patience=1, is_adaptive=True, seed=seed)

    assert rule.check(far, scores, 80, 20, 30) == ""


@pytest.mark.parametrize("is_adaptive", [False, True])
def test_a_round_of_one_looks_ahead_as_far_as_one_of_ten(is_adaptive):
    """A classical model has rounds of one candidate, which alone is hardly ever worth its time."""
    rng = np.random.RandomState(2)
    points = SPACE.draw(12, rng)
    scores = [score_folds(SPACE.params_at(point), rng, noise=0.002) for point in points]

    found = {}
    for n_next in (1, 10):
        rule = StoppingRule(SPACE, tol=0.25, patience=1, is_adaptive=is_adaptive, seed=0)
        found[n_next] = (rule.check(points, scores, 80, 20, n_next), rule.n_in_a_row)

    assert found[1] == found[10] == ("", 0)


def test_stops_on_the_ridge():
    rng = np.random.RandomState(0)
    points = SPACE.draw(300, rng)
    scores = np.array([score_folds(SPACE.params_at(point), rng) for point in points])

    rule = StoppingRule(SPACE, tol=0.25, patience=1, is_adaptive=True, seed=0)

    assert rule.check(points, scores, 80, 20, 30)


def test_patience_counts_checks_in_a_row():
    rng = np.random.RandomState(0)
    points = SPACE.draw(30, rng)
    scores = 0.5 + 0.03 * rng.standard_normal((30, 5))
    rule = StoppingRule(SPACE, tol=0.25, patience=2, is_adaptive=False, seed=0)

    assert rule.check(points, scores, 80, 20, 30) == ""
    assert rule.check(points, scores, 80, 20, 30)


def test_few_or_equal_scores():
    rule = StoppingRule(SPACE, tol=0.25, patience=1, is_adaptive=False, seed=0)
    points = SPACE.draw(30, np.random.RandomState(0))

    assert rule.check(points[:9], np.ones((9, 5)), 80, 20, 30) == ""
    assert "gain 0" in rule.check(points, np.ones((30, 5)), 80, 20, 30)


@pytest.mark.parametrize("cls", [BayesSearchCV, RandomizedSearchCV])
def test_search_on_noise_stops_at_the_first_check(cls):
    space = {"lr": loguniform(1e-4, 1e-1), "module__dropout": uniform(0, 0.5)}
    n_candidates = []
    for seed in range(6):
        rng = np.random.RandomState(seed)
        noise = rng.normal(size=(120, 3))
        labels = rng.randint(2, size=120)
        cv = ShuffleSplit(4, test_size=0.2, random_state=seed)
        search = cls(NET, space, n_iter=45, cv=cv, stop="auto", random_state=seed)
        search.fit(noise, labels)
        n_candidates.append(len(search.cv_results_["params"]))

    # the rule tests at a level of 1 %, and scores on one set of splits are not independent
    assert n_candidates.count(15) >= 5
    assert search.stop_reason_.startswith("another 15 candidates are expected to gain")


def test_rounds_of_random_search_are_the_same_candidates_on_the_same_splits():
    space = {"lr": loguniform(1e-4, 1e-1)}
    params = {"n_iter": 7, "cv": 2, "random_state": 0}
    whole = model_selection.RandomizedSearchCV(NET, space, **params).fit(X, y)
    search = RandomizedSearchCV(NET, space, timeout=600, **params).fit(X, y)

    assert search.cv_results_["params"] == whole.cv_results_["params"]
    np.testing.assert_allclose(
        search.cv_results_["mean_test_score"], whole.cv_results_["mean_test_score"]
    )
    assert search.stop_reason_ == "all 7 candidates are evaluated"
    assert len(search.fusion_.groups) >= 3


class LateDeadline(Deadline):
    """Its time is over once so many epochs have been heard of."""

    n_epochs = 0

    @property
    def is_over(self):
        return self.n_epochs > 6

    def on_epoch(self, event):
        self.n_epochs += 1
        super().on_epoch(event)


@pytest.mark.parametrize("cls", [BayesSearchCV, RandomizedSearchCV])
def test_timeout_returns_what_is_complete(cls, monkeypatch):
    monkeypatch.setattr("sktune.search.rounds.session.Deadline", LateDeadline)
    space = {"lr": loguniform(1e-4, 1e-1)}
    net = NeuralNetClassifier(max_epochs=4, random_state=0)
    search = cls(net, space, n_iter=12, cv=2, timeout=500.0, random_state=0, n_jobs=1).fit(X, y)

    # a round is a group of four epochs: the second one ends with its third epoch
    assert len(search.cv_results_["params"]) == 4
    assert search.stop_reason_ == "the timeout of 500.0 s is over, 4 candidates are complete"
    assert {stop["candidate"] for stop in search.fusion_.stopped} == {4, 5, 6, 7}
    assert len(search.best_estimator_.history) == 4


@pytest.mark.parametrize("cls", [BayesSearchCV, RandomizedSearchCV])
def test_timeout_ends_within_an_epoch(cls):
    net = NeuralNetClassifier(max_epochs=10**6, random_state=0)
    search = cls(net, {"lr": loguniform(1e-4, 1e-1)}, n_iter=4, cv=2, timeout=0.5)

    with pytest.raises(ValueError, match="timeout must leave the time .*got timeout=0.5"):
        search.fit(X, y)


def test_stop_is_refused_with_one_split():
    cv = ShuffleSplit(1, random_state=0)
    search = RandomizedSearchCV(LogisticRegression(), {"C": uniform(1, 2)}, cv=cv, stop="auto")

    with pytest.raises(ValueError, match="must have at least 2 splits .*got 1"):
        search.fit(X, y)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"timeout": -1}, "timeout must be a number above 0, got timeout=-1"),
        ({"stop": True}, "stop must be 'auto' or None, got stop=True"),
    ],
)
def test_random_search_names_bad_arguments(params, message):
    search = RandomizedSearchCV(LogisticRegression(), {"C": uniform(1, 2)}, **params)

    with pytest.raises(ValueError, match=message):
        search.fit(X, y)
