"""Halving and Hyperband: scikit-learn's results, and epochs that are not trained twice."""

import joblib
import numpy as np
import pytest
from parity import X, X_reg, y, y_reg
from scipy.stats import loguniform
from sklearn import model_selection
from sklearn.base import BaseEstimator, clone
from sklearn.exceptions import FitFailedWarning
from sklearn.experimental import enable_halving_search_cv  # noqa: F401
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import GroupKFold, KFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sktune import (
    HalvingGridSearchCV,
    HalvingRandomSearchCV,
    HyperbandSearchCV,
    NeuralNetClassifier,
    NeuralNetRegressor,
)
from sktune.inspection import HalvingDisplay
from sktune.search.halving.brackets import BracketRun
from sktune.search.rounds.stopping import Deadline

NET = NeuralNetClassifier(
    module__hidden=(8,), max_epochs=9, batch_size=16, random_state=0, verbose=0
)
NET_REG = NeuralNetRegressor(
    module__hidden=(8,), max_epochs=9, batch_size=16, random_state=0, verbose=0
)
GRID = {"lr": [1e-4, 1e-3, 1e-2], "module__dropout": [0.0, 0.2, 0.4]}
SPACE = {"lr": loguniform(1e-4, 1e-1), "module__dropout": [0.0, 0.3]}
CV = KFold(3, shuffle=True, random_state=0)


def assert_scores_are_those_from_scratch(search, net, X, y, n_checked=4):
    """Compare evaluations, first and last ones, with plain cross-validation."""
    results = search.cv_results_
    rows = list(range(len(results["params"])))
    for row in rows[: n_checked // 2] + rows[-n_checked // 2 :]:
        plain = cross_val_score(clone(net).set_params(**results["params"][row]), X, y, cv=CV)
        found = [results[f"split{split}_test_score"][row] for split in range(3)]
        np.testing.assert_allclose(found, plain, rtol=1e-6)


@pytest.fixture(scope="module")
def halving():
    return HalvingGridSearchCV(NET, GRID, cv=CV).fit(X, y)


def test_survivors_go_on_from_where_they_stand(halving):
    assert halving.resource_ == "max_epochs"
    assert halving.n_candidates_ == [9, 3, 1]
    assert halving.n_resources_ == [1, 3, 9]
    # 9 x 1 + 3 x 2 + 1 x 6 epochs on three splits, in place of 9 x 1 + 3 x 3 + 1 x 9
    assert halving.fusion_.sharing.n_trained_epochs == 3 * 21
    assert halving.plan(X, y).n_resources == 3 * 21
    assert_scores_are_those_from_scratch(halving, NET, X, y)


def test_a_rung_has_the_best_of_the_one_before(halving):
    results = halving.cv_results_
    assert list(results["iter"]) == [0] * 9 + [1] * 3 + [2]
    assert list(results["n_resources"]) == [1] * 9 + [3] * 3 + [9]
    assert halving.best_index_ == 12
    assert halving.best_params_["max_epochs"] == 9
    assert halving.best_score_ == results["mean_test_score"][12]
    first = np.sort(results["mean_test_score"][:9])
    best = [params["lr"] for params in results["params"][9:12]]
    in_first = [params["lr"] for params in results["params"][:9]]
    for lr in best:
        assert results["mean_test_score"][:9][in_first.index(lr)] >= first[-4]
    assert halving.stop_reason_ == "all 3 rungs are evaluated"
    assert len(halving.predict(X)) == len(X)


ATTRIBUTES = [
    "n_resources_",
    "n_candidates_",
    "n_remaining_candidates_",
    "n_iterations_",
    "n_possible_iterations_",
    "n_required_iterations_",
    "min_resources_",
    "max_resources_",
]


# of equal scores scikit-learn's choice depends on the machine: these have none
ALPHAS = {"alpha": np.geomspace(1e-3, 1e3, 12).tolist()}


@pytest.mark.parametrize(
    ("estimator", "grid", "options"),
    [
        (Ridge(), ALPHAS, {}),
        (Ridge(), ALPHAS, {"resource": "n_samples", "min_resources": 12, "factor": 2}),
        (Ridge(), ALPHAS, {"min_resources": 30, "aggressive_elimination": True}),
        (Ridge(), ALPHAS, {"min_resources": 20, "factor": 1.5, "max_resources": 80}),
        (Ridge(), ALPHAS, {"resource": "max_iter", "max_resources": 50}),
        (NET_REG, {"lr": [1e-4, 3e-4, 1e-3, 1e-2]}, {"resource": "max_epochs"}),
        (NET_REG, {"lr": [1e-4, 3e-4, 1e-3, 1e-2]}, {"resource": "n_samples"}),
    ],
)
def test_results_are_those_of_scikit_learn(estimator, grid, options):
    shared = {"cv": CV, "random_state": 0, **options}
    ours = HalvingGridSearchCV(estimator, grid, **shared).fit(X_reg, y_reg)
    plain = {"return_train_score": False, "resource": "n_samples"} | shared
    if plain["resource"] == "max_epochs":
        plain["max_resources"] = estimator.max_epochs
    theirs = model_selection.HalvingGridSearchCV(estimator, grid, **plain).fit(X_reg, y_reg)
    for name in ATTRIBUTES:
        assert getattr(ours, name) == getattr(theirs, name), name
    for name in ("iter", "n_resources", "mean_test_score"):
        np.testing.assert_allclose(ours.cv_results_[name], theirs.cv_results_[name], rtol=1e-6)
    assert ours.cv_results_["params"] == theirs.cv_results_["params"]
    assert ours.best_params_ == theirs.best_params_


def test_random_candidates_begin_with_the_estimator_as_it_is():
    search = HalvingRandomSearchCV(NET, SPACE, cv=CV, random_state=0).fit(X, y)
    assert search.n_candidates_ == [9, 3, 1]
    first = search.cv_results_["params"][0]
    assert first == {"lr": NET.lr, "module__dropout": 0.0, "max_epochs": 1}
    search.set_params(baseline=False).fit(X, y)
    assert search.cv_results_["params"][0]["lr"] != NET.lr


def test_brackets_advance_together():
    search = HyperbandSearchCV(NET, SPACE, cv=CV, random_state=0)
    plan = search.plan(X, y)
    search.fit(X, y)
    assert [bracket["n_candidates"] for bracket in search.brackets_] == [[9, 3, 1], [5, 1], [3]]
    # one round for all first rungs, one for all second ones, and one for the third
    assert search.n_rounds_ == 3
    results = search.cv_results_
    assert list(results["bracket"][:17]) == [0] * 9 + [1] * 5 + [2] * 3
    assert search.fusion_.sharing.n_trained_epochs == plan.n_resources == 3 * (21 + 21 + 27)
    assert results["n_resources"][search.best_index_] == 9
    assert_scores_are_those_from_scratch(search, NET, X, y)


def test_a_pipeline_and_several_metrics():
    pipeline = make_pipeline(StandardScaler(), NET)
    search = HalvingGridSearchCV(
        pipeline,
        {"neuralnetclassifier__lr": [1e-4, 1e-2, 1e-1]},
        cv=CV,
        scoring=["accuracy", "neg_log_loss"],
        refit="neg_log_loss",
        baseline=True,
    ).fit(X, y)
    assert search.resource_ == "neuralnetclassifier__max_epochs"
    assert search.n_candidates_ == [4, 2]
    assert "neuralnetclassifier__max_epochs" in search.best_params_
    assert search.fusion_.sharing.n_known_epochs > 0
    assert search.best_score_ == search.cv_results_["mean_test_neg_log_loss"][search.best_index_]


def test_regression_with_weights_and_groups():
    net = clone(NET_REG).set_params(max_epochs=4)
    groups = np.arange(len(X_reg)) % 5
    search = HalvingGridSearchCV(net, {"lr": [1e-4, 1e-2]}, factor=2, cv=GroupKFold(3))
    search.fit(X_reg, y_reg, groups=groups, sample_weight=np.ones(len(X_reg)))
    assert search.n_candidates_ == [2, 1]
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()


@pytest.mark.filterwarnings("ignore:One or more of the test scores are non-finite")
def test_candidates_that_fail_do_not_go_on():
    with pytest.warns(FitFailedWarning):
        search = HalvingGridSearchCV(NET, {"lr": [1e-3, 1e-2, 1e38]}, cv=CV).fit(X, y)
    assert search.best_params_["lr"] < 1
    assert np.isnan(search.cv_results_["mean_test_score"]).sum() == 1


@pytest.mark.parametrize("refit", [False, "one_standard_error"])
def test_other_kinds_of_refit(refit):
    search = HalvingGridSearchCV(NET, GRID, cv=CV, refit=refit).fit(X, y)
    assert hasattr(search, "best_estimator_") == bool(refit)
    if refit:
        assert search.cv_results_["n_resources"][search.best_index_] == 9


def test_a_callable_chooses_among_the_last_rung():
    chosen = []

    def choose(results):
        chosen.append(list(results["n_resources"]))
        return 0

    search = HalvingGridSearchCV(NET, {"lr": [1e-3, 1e-2]}, factor=2, cv=CV, refit=choose)
    search.fit(X, y)
    assert set(chosen[0]) == {8}
    assert search.best_index_ == 2


def test_a_schedule_over_all_epochs_is_refused_or_scaled():
    net = clone(NET).set_params(lr_schedule="cosine")
    search = HalvingGridSearchCV(net, {"lr": [1e-3, 1e-2, 1e-1]}, cv=CV)
    with pytest.raises(ValueError, match="lr_schedule must not depend .* got 'cosine'"):
        search.fit(X, y)
    assert not hasattr(search, "cv_results_")
    search.set_params(scale_schedule=True).fit(X, y)
    assert search.fusion_.sharing.n_known_epochs == 0
    assert_scores_are_those_from_scratch(search, net, X, y, n_checked=2)
    search = HalvingGridSearchCV(NET, {"lr_schedule": ["constant", "cosine"]}, cv=CV)
    with pytest.raises(ValueError, match="lr_schedule must not depend"):
        search.fit(X, y)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"factor": 1}, "factor must be a number above 1, got factor=1"),
        ({"factor": "3"}, "factor must be a number above 1, got factor='3'"),
        ({"resource": "max_epoch"}, "resource must be .* got resource='max_epoch'.*max_epochs"),
        ({"resource": "lr"}, "max_resources must be a number unless .* resource='lr'"),
        ({"resource": "lr", "max_resources": 9}, "must not be among the parameters .*'lr'"),
        ({"max_resources": 0}, "max_resources must be 'auto' or an int of at least 1"),
        ({"min_resources": "most"}, "min_resources must be 'exhaust' or 'smallest' or an int"),
        ({"min_resources": 10}, "max_resources must be at least min_resources=10, got .*=9"),
    ],
)
def test_bad_settings_are_told_before_anything_is_trained(options, match):
    search = HalvingGridSearchCV(NET, {"lr": [1e-3, 1e-2]}, cv=CV, **options)
    with pytest.raises(ValueError, match=match):
        search.fit(X, y)
    assert not hasattr(search, "cv_results_")


def test_bad_numbers_of_candidates_and_names_are_told():
    for n_candidates in (0, 1.5, "all", True):
        search = HalvingRandomSearchCV(NET, SPACE, n_candidates=n_candidates, cv=CV)
        with pytest.raises(ValueError, match="n_candidates must be 'exhaust' or an int"):
            search.fit(X, y)
    search = HalvingRandomSearchCV(NET, SPACE, min_resources="exhaust", cv=CV)
    with pytest.raises(ValueError, match="must not both be 'exhaust'"):
        search.fit(X, y)
    search = HyperbandSearchCV(NET, {"lrr": [1, 2]}, cv=CV)
    with pytest.raises(ValueError, match="param_distributions must name parameters .*'lrr'"):
        search.fit(X, y)


def test_a_small_space_of_lists_is_no_error():
    search = HyperbandSearchCV(NET, {"lr": [1e-3, 1e-2]}, cv=CV, random_state=0).fit(X, y)
    assert search.cv_results_["bracket"].max() == 2


def test_a_timeout_ends_with_what_is_complete(monkeypatch):
    original = BracketRun._evaluate
    done = []

    def evaluate(self, brackets):
        original(self, brackets)
        done.append(brackets)

    monkeypatch.setattr(BracketRun, "_evaluate", evaluate)
    monkeypatch.setattr(Deadline, "is_over", property(lambda self: bool(done)))
    search = HalvingGridSearchCV(NET, GRID, cv=CV, timeout=60).fit(X, y)
    assert search.stop_reason_ == "the timeout of 60 s is over, 9 evaluations are complete"
    assert len(search.cv_results_["params"]) == 9
    assert search.best_params_["max_epochs"] == 1


class Counts(BaseEstimator):
    """Tells how often it was fitted."""

    def __init__(self, size=1, n=1):
        self.size = size
        self.n = n

    def fit(self, X, y=None):
        return self

    def score(self, X, y=None):
        return self.size * self.n


def test_any_estimator_has_a_resource():
    search = HyperbandSearchCV(
        Counts(), {"size": [1, 2, 3]}, resource="n", max_resources=4, factor=2, cv=CV
    ).fit(X, y)
    assert search.best_params_ == {"size": 3, "n": 4}
    logistic = HalvingGridSearchCV(LogisticRegression(), {"C": [0.1, 1.0]}, cv=CV).fit(X, y)
    assert logistic.n_resources_[-1] <= len(X)


def test_scikit_learns_own_halving_shares_within_the_context():
    search = model_selection.HalvingGridSearchCV(
        NET,
        {"lr": [1e-3, 1e-2, 1e-1]},
        resource="max_epochs",
        max_resources=9,
        cv=CV,
        return_train_score=False,
    )
    plain = clone(search).fit(X, y)
    with joblib.parallel_config("sktune"):
        search.fit(X, y)
    np.testing.assert_allclose(
        search.cv_results_["mean_test_score"], plain.cv_results_["mean_test_score"], rtol=1e-6
    )


def test_a_display_draws_the_rungs(halving):
    pytest.importorskip("matplotlib")
    frame = HalvingDisplay.from_search(halving).to_frame()
    assert len(frame) > 0


def test_a_cache_knows_the_rungs_of_another_search(tmp_path, halving):
    first = HalvingGridSearchCV(NET, GRID, cv=CV, cache=tmp_path).fit(X, y)
    again = HalvingGridSearchCV(NET, GRID, cv=CV, cache=tmp_path).fit(X, y)
    assert again.fusion_.sharing.n_trained_epochs == 0
    np.testing.assert_array_equal(
        again.cv_results_["mean_test_score"], halving.cv_results_["mean_test_score"]
    )
    assert first.fusion_.sharing.n_trained_epochs == 3 * 21
