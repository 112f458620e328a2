"""A fit that a net makes by itself is recorded where there is a cache."""

import joblib
import numpy as np
import pytest
import torch
from parity import RAGGED, X, X_reg, y, y_reg
from sklearn import model_selection
from sklearn.base import clone
from sklearn.ensemble import VotingClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from skorch.callbacks import EpochScoring

import sktune
from sktune import DivergenceError, NeuralNetClassifier, NeuralNetRegressor
from sktune.engine import group
from sktune.estimators import fit_loop

NET = NeuralNetClassifier(module__hidden=(6,), batch_size=16, max_epochs=3, random_state=0)
RATES = {"lr": [0.001, 0.01]}


class Epochs:
    """Counts the epochs that are trained: by the engine, each of a group, and by nets alone."""

    def __init__(self, monkeypatch):
        self.n_of_groups = 0
        self.n_alone = 0
        close_epoch = group.Group._close_epoch
        few_threads = fit_loop.few_threads

        def close(*args):
            self.n_of_groups += 1
            return close_epoch(*args)

        def limit(*args):
            self.n_alone += 1
            return few_threads(*args)

        monkeypatch.setattr(group.Group, "_close_epoch", close)
        # a method of a net that is replaced would be one of the user's
        monkeypatch.setattr(fit_loop, "few_threads", limit)

    def take(self):
        """Return both counts, and begin anew."""
        counts = (self.n_of_groups, self.n_alone)
        self.n_of_groups = self.n_alone = 0
        return counts


@pytest.fixture
def epochs(monkeypatch):
    return Epochs(monkeypatch)


def weights_of(net):
    return torch.cat([value.double().ravel() for value in net.module_.state_dict().values()])


def assert_same_net(net, other, tolerance=0.0):
    """Compare all that a training has made."""
    torch.testing.assert_close(weights_of(net), weights_of(other), rtol=tolerance, atol=tolerance)
    assert vars(net).keys() == vars(other).keys()
    assert net.module_.training == other.module_.training
    np.testing.assert_allclose(net.loss_curve_, other.loss_curve_, rtol=max(tolerance, 1e-7))
    states = [each.optimizer_.state_dict() for each in (net, other)]
    assert states[0]["param_groups"] == states[1]["param_groups"]
    assert states[0]["state"].keys() == states[1]["state"].keys()
    for number, state in states[0]["state"].items():
        torch.testing.assert_close(state, states[1]["state"][number])


def make_searches():
    options = {"cv": RAGGED, "n_jobs": 1}
    drawn = {**options, "random_state": 0}
    pipeline = make_pipeline(StandardScaler(), NET)
    stopping = clone(NET).set_params(early_stopping=True, max_epochs=8)
    found = {
        "grid": sktune.GridSearchCV(NET, RATES, **options),
        "pipeline": sktune.GridSearchCV(
            pipeline, {"neuralnetclassifier__lr": [0.001, 0.01]}, **options
        ),
        "early stopping": sktune.GridSearchCV(stopping, RATES, **options),
        "raced": sktune.GridSearchCV(NET, RATES, racing=True, **options),
        "ensemble": sktune.GridSearchCV(
            NET, RATES, ensemble="greedy", ensemble_refit=True, **options
        ),
        "rounds": sktune.RandomizedSearchCV(NET, RATES, n_iter=2, timeout=1000, **drawn),
        "staged": sktune.StagedSearch(NET, [("lr", RATES)], n_iter=2, **drawn),
        "halving": sktune.HalvingGridSearchCV(NET, RATES, factor=2, **drawn),
        "hyperband": sktune.HyperbandSearchCV(NET, RATES, **drawn),
    }
    return found


@pytest.mark.parametrize("kind", make_searches())
def test_a_search_that_is_repeated_trains_nothing(kind, epochs, tmp_path):
    plain = make_searches()[kind].fit(X, y)
    epochs.take()
    first = make_searches()[kind].set_params(cache=tmp_path).fit(X, y)
    n_of_groups, n_alone = epochs.take()
    assert n_of_groups > 0
    again = clone(first).fit(X, y)

    assert (n_alone, *epochs.take()) == (0, 0, 0)
    found = [plain.best_estimator_, first.best_estimator_, again.best_estimator_]
    if kind == "pipeline":
        found = [model[-1] for model in found]
    # the refit is that of a search without a cache
    assert_same_net(found[0], found[1], 1e-6)
    assert_same_net(found[1], found[2])
    np.testing.assert_array_equal(first.predict_proba(X), again.predict_proba(X))


def test_scikit_learns_own_search_and_plain_fits(epochs, tmp_path):
    alone = clone(NET).fit(X, y)
    search = model_selection.GridSearchCV(NET, RATES, cv=RAGGED)
    votes = VotingClassifier([("one", NET), ("two", clone(NET).set_params(lr=0.02))])
    epochs.take()
    for n_expected in (1, 0):
        with joblib.parallel_config("sktune", cache=tmp_path):
            net = clone(NET).fit(X, y)
            assert epochs.take() == (3 * n_expected, 0)
            clone(search).fit(X, y)
            assert (epochs.take()[0] > 0) == n_expected
            # nets in another estimator
            clone(votes).fit(X, y)
            assert (epochs.take()[0] > 0) == n_expected
        assert_same_net(net, alone, 1e-6)
    # the record is that of the net, and not of the context
    clone(NET).fit(X, y)
    assert epochs.take() == (0, 3)


def test_a_fit_with_more_epochs_goes_on(epochs, tmp_path):
    expected = clone(NET).set_params(max_epochs=5).fit(X, y)
    with joblib.parallel_config("sktune", cache=tmp_path):
        clone(NET).fit(X, y)
        epochs.take()
        net = clone(NET).set_params(max_epochs=5).fit(X, y)
    assert epochs.take() == (2, 0)
    assert_same_net(net, expected, 1e-6)
    # what has been trained goes on as always
    assert_same_net(net.partial_fit(X, y), expected.partial_fit(X, y), 1e-5)


def test_weights_and_several_targets(epochs, tmp_path):
    weight = np.linspace(0.5, 2.0, len(X))
    weight[:3] = 0.0
    net = NeuralNetRegressor(module__hidden=(6,), max_epochs=2, random_state=0)
    expected = clone(net).fit(X_reg, y_reg, sample_weight=weight)
    with joblib.parallel_config("sktune", cache=tmp_path):
        for n_epochs in (2, 0):
            epochs.take()
            found = clone(net).fit(X_reg, y_reg, sample_weight=weight)
            assert epochs.take() == (n_epochs, 0)
            assert_same_net(found, expected, 1e-6)
        clone(net).fit(X_reg, y_reg)
    # other weights are another fit
    assert epochs.take() == (2, 0)


def test_a_fit_that_diverges_is_known(epochs, tmp_path):
    net = clone(NET).set_params(lr=1e35)
    with joblib.parallel_config("sktune", cache=tmp_path):
        for is_trained in (True, False):
            with pytest.raises(DivergenceError, match="no longer finite|loss became"):
                clone(net).fit(X, y)
            assert (epochs.take()[0] > 0) == is_trained


class Quiet(NeuralNetClassifier):
    """Overrides a method."""

    def train_step(self, *args, **kwargs):
        return super().train_step(*args, **kwargs)


@pytest.mark.parametrize(
    "net",
    [
        clone(NET).set_params(random_state=None),
        clone(NET).set_params(warm_start=True),
        clone(NET).set_params(callbacks=[EpochScoring("accuracy", on_train=True)]),
        clone(NET).set_params(optimizer=torch.optim.LBFGS),
        Quiet(max_epochs=3, random_state=0),
    ],
    ids=["no seed", "warm start", "callbacks", "optimizer", "overridden"],
)
def test_what_is_not_recorded_trains_by_itself(net, epochs, tmp_path):
    with joblib.parallel_config("sktune", cache=tmp_path):
        for _ in range(2):
            clone(net).fit(X, y)
            assert epochs.take() == (0, 3)
    assert not list(tmp_path.glob("*.safetensors"))


def test_portions_are_not_recorded(epochs, tmp_path):
    with joblib.parallel_config("sktune", cache=tmp_path):
        net = clone(NET).partial_fit(X, y).partial_fit(X, y)
    assert epochs.take() == (0, 6)
    assert net.n_iter_ == 6
