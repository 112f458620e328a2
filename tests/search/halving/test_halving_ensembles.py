"""Ensembles of the candidates that halving and Hyperband have given most."""

import numpy as np
import pytest
from parity import X, X_reg, y, y_reg
from scipy.stats import loguniform
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.model_selection import StratifiedKFold

from sktune import (
    GridSearchCV,
    HalvingGridSearchCV,
    HalvingRandomSearchCV,
    HyperbandSearchCV,
    NeuralNetClassifier,
    NeuralNetRegressor,
)
from sktune.search.ensembles.fold_models import FoldModels

NET = NeuralNetClassifier(module__hidden=(6,), batch_size=16, max_epochs=9, random_state=0)
SPACE = {"lr": loguniform(1e-4, 1e-1)}
CV = StratifiedKFold(3, shuffle=True, random_state=0)
OPTIONS = {"cv": CV, "random_state": 0, "scoring": "neg_log_loss"}


@pytest.fixture(scope="module")
def hyperband():
    return HyperbandSearchCV(NET, SPACE, ensemble="greedy", **OPTIONS).fit(X, y)


def test_members_are_candidates_with_most_epochs(hyperband):
    results = hyperband.cv_results_
    members = np.flatnonzero(hyperband.ensemble_weights_)

    assert len(members) > 1
    assert set(results["n_resources"][members]) == {9}
    assert len(hyperband.ensemble_.members_) == 3 * len(members)
    assert {net.n_iter_ for net in hyperband.ensemble_.members_} == {9}
    assert hyperband.ensemble_weights_.sum() == pytest.approx(1)
    is_final = results["n_resources"] == 9
    known = np.isfinite(hyperband.oof_predictions_).all(axis=(1, 2))
    np.testing.assert_array_equal(known, is_final)
    # chosen by these scores, it is no worse than the best alone
    assert hyperband.ensemble_score_ >= hyperband.best_score_
    assert not hasattr(hyperband, "_kept")


def test_predictions_out_of_fold_are_those_of_whole_fits(hyperband):
    """The nets that have gone on predict as nets that are trained from the beginning."""
    members = np.flatnonzero(hyperband.ensemble_weights_)
    rates = [hyperband.cv_results_["params"][n]["lr"] for n in members]
    options = {"cv": CV, "scoring": "neg_log_loss", "ensemble": "greedy"}
    grid = GridSearchCV(NET, {"lr": rates}, **options).fit(X, y)

    np.testing.assert_allclose(
        hyperband.oof_predictions_[members], grid.oof_predictions_, rtol=1e-5, atol=1e-6
    )
    mean = np.tensordot(hyperband.ensemble_weights_[members], grid.oof_predictions_, 1)
    # they are of float32
    mean /= mean.sum(axis=1, keepdims=True)
    scores = [-log_loss(y[test], mean[test]) for _, test in CV.split(X, y)]
    assert hyperband.ensemble_score_ == pytest.approx(np.mean(scores), rel=1e-5)


def test_folds_are_those_of_the_best_candidate():
    search = HalvingRandomSearchCV(NET, SPACE, ensemble="folds", **OPTIONS).fit(X, y)

    assert np.flatnonzero(search.ensemble_weights_).tolist() == [search.best_index_]
    assert len(search.ensemble_.members_) == 3
    assert search.ensemble_score_ == pytest.approx(search.best_score_)
    mean = np.mean([net.predict_proba(X) for net in search.ensemble_.members_], axis=0)
    np.testing.assert_allclose(search.predict_proba(X), mean, rtol=1e-5)


@pytest.mark.parametrize("most", [110, 60])
def test_of_rows_as_the_resource(most):
    space = {"C": loguniform(1e-3, 10)}
    options = {"ensemble": "greedy", "resource": "n_samples", "max_resources": most, "cv": CV}
    search = HyperbandSearchCV(LogisticRegression(), space, random_state=0, **options).fit(X, y)

    members = np.flatnonzero(search.ensemble_weights_)
    assert set(search.cv_results_["n_resources"][members]) == {most}
    # rows that the last rungs have not drawn are tested by none
    n_known = np.isfinite(search.oof_predictions_[members[0]]).all(axis=1).sum()
    assert n_known == len(X) if most == 110 else 50 < n_known < 70
    assert len(search.predict(X)) == len(X)


def test_regression_with_members_fitted_again(tmp_path):
    net = NeuralNetRegressor(module__hidden=(6,), max_epochs=4, random_state=0)
    options = {"ensemble": "greedy", "ensemble_refit": True, "cv": 3, "cache": tmp_path}
    grid = {"lr": [1e-3, 1e-2, 3e-2]}
    search = HalvingGridSearchCV(net, grid, factor=1.5, **options).fit(X_reg, y_reg[:, 0])

    assert (search.n_candidates_, search.n_resources_) == ([3, 2, 2], [1, 1, 2])
    assert len(search.ensemble_.members_) == (search.ensemble_weights_ > 0).sum()
    assert {member.n_iter_ for member in search.ensemble_.members_} == {2}
    again = clone(search).fit(X_reg, y_reg[:, 0])
    assert again.fusion_.sharing.n_trained_epochs == 0
    np.testing.assert_array_equal(again.ensemble_weights_, search.ensemble_weights_)
    np.testing.assert_array_equal(again.predict(X_reg), search.predict(X_reg))


def test_models_of_earlier_rungs_are_freed(monkeypatch):
    held = []
    receive = FoldModels.receive

    def count(self, result):
        receive(self, result)
        held.append(sum(model is not None for model in self.models))

    monkeypatch.setattr(FoldModels, "receive", count)
    grid = {"lr": np.geomspace(1e-4, 1e-1, 9).tolist()}
    HalvingGridSearchCV(NET, grid, ensemble="greedy", cv=CV).fit(X, y)

    # 9, 3 and 1 candidates on three splits: a rung's are held until the next one is there
    assert held[26] == 27
    assert held[35] == 27 + 9
    assert held[38] == 9 + 3


@pytest.mark.parametrize("kind", [HalvingGridSearchCV, HyperbandSearchCV])
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ensemble": "best"}, "ensemble must be 'greedy', 'folds' or None, got ensemble='best'"),
        ({"ensemble": "folds", "refit": False}, "an ensemble needs refit, got refit=False"),
        ({"ensemble": "folds", "ensemble_refit": True}, "ensemble_refit must be False with ens"),
    ],
)
def test_bad_input_is_refused(kind, options, message):
    with pytest.raises(ValueError, match=message):
        kind(NET, {"lr": [0.01, 0.1]}, **options).fit(X, y)
