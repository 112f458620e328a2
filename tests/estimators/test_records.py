import pickle

import joblib
import numpy as np
import pytest
from sklearn.base import clone
from sklearn.model_selection import cross_validate

from sktune import NeuralNetClassifier, NeuralNetRegressor

rng = np.random.RandomState(0)
X = rng.randn(120, 3)
y = (X[:, 0] > 0).astype(int)
NAMES = ("n_iter_", "loss_curve_", "best_loss_", "validation_scores_", "best_validation_score_")
KINDS = [NeuralNetClassifier, NeuralNetRegressor]


def make_net(kind=NeuralNetClassifier, **params):
    return kind(
        **{"max_epochs": 4, "lr": 0.02, "module__hidden": (4,), "random_state": 0, **params}
    )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", NAMES)
def test_there_are_none_before_the_fit(kind, name):
    net = make_net(kind)

    assert not hasattr(net, name)
    with pytest.raises(AttributeError, match=f"has {name} only after fit"):
        getattr(net, name)
    assert not hasattr(clone(net.fit(X, y)), name)


@pytest.mark.parametrize("callbacks", [None, "disable"])
@pytest.mark.parametrize("kind", KINDS)
def test_they_are_read_from_the_history(kind, callbacks):
    net = make_net(kind, callbacks=callbacks).fit(X, y)
    with_rows = make_net(kind, early_stopping=True, callbacks=callbacks).fit(X, y)

    assert net.n_iter_ == 4
    assert net.loss_curve_ == pytest.approx(make_net(kind).fit(X, y).history[:, "train_loss"])
    assert net.best_loss_ == min(net.loss_curve_)
    assert net.validation_scores_ is net.best_validation_score_ is None
    assert with_rows.best_loss_ is None
    assert with_rows.best_validation_score_ == max(with_rows.validation_scores_)
    recorded = make_net(kind, early_stopping=True).fit(X, y).history
    is_accuracy = kind is NeuralNetClassifier and callbacks is None
    expected = recorded[:, "valid_acc"] if is_accuracy else -np.array(recorded[:, "valid_loss"])
    assert with_rows.validation_scores_ == pytest.approx(list(expected))


@pytest.mark.parametrize("callbacks", [None, "disable"])
@pytest.mark.parametrize("early_stopping", [False, True])
def test_fused_nets_have_them(callbacks, early_stopping):
    net = make_net(callbacks=callbacks, early_stopping=early_stopping)
    options = {"cv": 2, "return_estimator": True}
    plain = cross_validate(net, X, y, **options)["estimator"]
    with joblib.parallel_config("sktune"):
        fused = cross_validate(net, X, y, **options)["estimator"]

    for one, other in zip(plain, fused, strict=True):
        assert other.n_iter_ == one.n_iter_
        for name in (
            ("loss_curve_", "validation_scores_")
            if early_stopping and not callbacks
            else ("loss_curve_",)
        ):
            assert getattr(other, name) == pytest.approx(getattr(one, name), rel=1e-6)
        other.partial_fit(X, y)
        assert len(other.loss_curve_) == 8
        assert None not in other.loss_curve_
        assert other.fit(X, y).n_iter_ == 4


def test_copies_and_loaded_nets_have_them(tmp_path):
    net = make_net(early_stopping=True).fit(X, y)
    net.save_params(f_history=tmp_path / "history.json")
    loaded = make_net(module__n_features=3, module__n_outputs=2).initialize()
    loaded.load_params(f_history=tmp_path / "history.json")

    for other in (pickle.loads(pickle.dumps(net)), loaded):
        for name in NAMES:
            assert getattr(other, name) == getattr(net, name)


def test_warm_start_and_partial_fit_go_on():
    net = make_net(warm_start=True).fit(X, y).fit(X, y)

    assert net.n_iter_ == len(net.loss_curve_) == 8
    assert net.partial_fit(X, y).n_iter_ == 12


def test_one_s_own_attribute_is_used():
    class Own(NeuralNetClassifier):
        def initialize(self, **sizes):
            self.n_iter_ = 7
            return super().initialize(**sizes)

    assert make_net(Own).fit(X, y).n_iter_ == 7
