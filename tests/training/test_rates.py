"""The rate that follows the batch size: in single fits, in portions, and in fused searches."""

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.datasets import load_iris
from sklearn.model_selection import StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn

from sktune import GridSearchCV, NeuralNetClassifier, NeuralNetRegressor
from sktune.training.rates import LR_SCALINGS, find_lr_factor

X, y = load_iris(return_X_y=True)
X = (X - X.mean(axis=0)).astype(np.float32)


class Own(nn.Module):
    """A module whose steps are not compiled."""

    def __init__(self, n_features, n_outputs):
        super().__init__()
        self.layer = nn.Linear(n_features, n_outputs)

    def forward(self, X):
        return self.layer(X) + self.layer(X).relu()


def make_net(**options):
    options = {"max_epochs": 3, "random_state": 0, "lr_scaling_batch_size": 16} | options
    return NeuralNetClassifier(**options)


def weights_of(net):
    return np.concatenate([p.detach().numpy().ravel() for p in net.module_.parameters()])


def rates_of(net):
    return [group["lr"] for group in net.optimizer_.param_groups]


@pytest.mark.parametrize(("scaling", "factor"), [("linear", 4.0), ("sqrt", 2.0), (None, 1.0)])
def test_factor(scaling, factor):
    net = make_net(lr_scaling=scaling, batch_size=64)

    assert find_lr_factor(net) == factor
    assert find_lr_factor(net.set_params(lr_scaling_batch_size=64)) == 1.0


@pytest.mark.parametrize("module", [None, Own])
@pytest.mark.parametrize("optimizer", [torch.optim.AdamW, torch.optim.SGD])
@pytest.mark.parametrize(("scaling", "factor"), [("linear", 4.0), ("sqrt", 2.0)])
def test_fit_is_that_of_the_scaled_rate(scaling, factor, optimizer, module):
    options = {"optimizer": optimizer, "batch_size": 64} | ({"module": module} if module else {})
    scaled = make_net(lr=0.01, lr_scaling=scaling, **options).fit(X, y)

    plain = make_net(lr=0.01 * factor, **options).fit(X, y)

    assert rates_of(scaled) == rates_of(plain) == [0.01 * factor]
    np.testing.assert_array_equal(weights_of(scaled), weights_of(plain))
    assert scaled.lr == 0.01


def test_schedule_multiplies_the_scaled_rate():
    options = {"lr_schedule": "cosine", "batch_size": 64}
    scaled = make_net(lr=0.01, lr_scaling="linear", **options).fit(X, y)

    plain = make_net(lr=0.04, **options).fit(X, y)

    np.testing.assert_array_equal(weights_of(scaled), weights_of(plain))


def test_rates_of_the_optimizer_and_of_groups_are_scaled():
    groups = [("*bias", {"lr": 0.5})]
    options = {"optimizer__lr": 0.1, "optimizer__param_groups": groups}

    net = make_net(lr_scaling="linear", batch_size=32, **options).fit(X, y)

    assert rates_of(net) == [1.0, 0.2]
    assert groups == [("*bias", {"lr": 0.5})]


def test_size_of_the_training_iterator_is_the_one_that_counts():
    net = make_net(lr=0.01, lr_scaling="linear", iterator_train__batch_size=32).fit(X, y)

    assert rates_of(net) == [0.02]


@pytest.mark.parametrize(
    ("changed", "rate"),
    [
        ({"batch_size": 64}, 0.04),
        ({"lr": 0.03}, 0.06),
        # what the optimizer has already
        ({"lr": 0.02}, 0.04),
        ({"optimizer__lr": 0.03}, 0.06),
        ({"lr": 0.03, "batch_size": 64}, 0.12),
        ({"lr_scaling": "sqrt", "batch_size": 64}, 0.02),
        ({"lr_scaling": None}, 0.01),
        ({"lr_scaling_batch_size": 32}, 0.01),
        ({"optimizer": torch.optim.SGD, "batch_size": 64}, 0.04),
        ({"optimizer__param_groups__0__lr": 0.03}, 0.06),
        ({"max_epochs": 2}, 0.02),
    ],
)
def test_set_params_of_a_fitted_net(changed, rate):
    net = make_net(lr=0.01, lr_scaling="linear", batch_size=32).fit(X, y)

    net.set_params(**changed)

    np.testing.assert_allclose(rates_of(net), [rate])
    net.partial_fit(X, y)
    np.testing.assert_allclose(rates_of(net), [rate])


def test_portions_of_another_size():
    scaled = make_net(lr=0.01, lr_scaling="linear", batch_size=32).partial_fit(X, y)
    plain = make_net(lr=0.02, batch_size=32).partial_fit(X, y)

    scaled.set_params(batch_size=64).partial_fit(X, y)
    plain.set_params(batch_size=64, lr=0.04).partial_fit(X, y)

    np.testing.assert_array_equal(weights_of(scaled), weights_of(plain))


def test_schedule_of_a_net_whose_batches_change():
    options = {"lr_schedule": "cosine", "batch_size": 32}
    scaled = make_net(lr=0.01, lr_scaling="linear", **options).fit(X, y)
    plain = make_net(lr=0.02, **options).fit(X, y)

    scaled.set_params(batch_size=64).partial_fit(X, y)
    plain.set_params(batch_size=64, lr=0.04).partial_fit(X, y)

    np.testing.assert_allclose(weights_of(scaled), weights_of(plain), rtol=1e-6)


@pytest.mark.parametrize("module", [None, Own])
@pytest.mark.parametrize("scaling", LR_SCALINGS)
@pytest.mark.parametrize("is_pipeline", [False, True])
def test_fused_fits_are_single_fits(is_pipeline, scaling, module):
    options = {"module": module} if module else {}
    net = make_net(lr=0.01, lr_scaling=scaling, **options)
    estimator = make_pipeline(StandardScaler(), net) if is_pipeline else net
    prefix = "neuralnetclassifier__" if is_pipeline else ""
    # as columns of one search: sizes that are free, and a schedule
    grid = {
        f"{prefix}batch_size": [8, 16, 50],
        f"{prefix}lr": [0.01, 0.02],
        f"{prefix}lr_schedule": ["constant", "cosine"],
    }

    search = GridSearchCV(estimator, grid, cv=2, scoring="neg_log_loss").fit(X, y)

    assert search.fusion_.alone == []
    candidates = search.cv_results_["params"]
    for k, (train, test) in enumerate(StratifiedKFold(2).split(X, y)):
        for candidate, params in enumerate(candidates):
            single = clone(estimator).set_params(**params).fit(X[train], y[train])
            score = search.cv_results_[f"split{k}_test_score"][candidate]
            loss = -np.log(single.predict_proba(X[test])[np.arange(len(test)), y[test]]).mean()
            np.testing.assert_allclose(score, -loss, rtol=1e-4)


def test_scalings_in_one_search():
    grid = {"lr_scaling": [None, "linear", "sqrt"], "batch_size": [64]}

    search = GridSearchCV(make_net(lr=0.01), grid, cv=2).fit(X, y)

    rates = search.fusion_.curves.columns["lr"]
    np.testing.assert_allclose(np.unique(rates), [0.01, 0.02, 0.04])


@pytest.mark.parametrize("kind", [NeuralNetClassifier, NeuralNetRegressor])
def test_parameters_and_clone(kind):
    net = kind(lr_scaling="sqrt", lr_scaling_batch_size=128)

    params = clone(net).get_params()

    assert params["lr_scaling"] == "sqrt"
    assert params["lr_scaling_batch_size"] == 128
    assert kind().get_params()["lr_scaling"] is None
    # turned on, it changes nothing until the batch size does
    assert find_lr_factor(kind(lr_scaling="linear")) == 1


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"lr_scaling": "liner"}, "lr_scaling must be .*got 'liner'; did you mean 'linear'"),
        ({"lr_scaling": True}, r"lr_scaling must be one of \['linear', 'sqrt'\], got True"),
        (
            {"lr_scaling_batch_size": 0},
            "lr_scaling_batch_size must be an int of at least 1, got",
        ),
        ({"lr_scaling_batch_size": 2.5}, "lr_scaling_batch_size must be an int of at least 1, got"),
        (
            {"lr_scaling": "sqrt", "batch_size": -1},
            "batch_size must be a number of rows under lr_scaling='sqrt', got batch_size=-1",
        ),
    ],
)
def test_bad_values(options, match):
    with pytest.raises(ValueError, match=match):
        make_net(**options).fit(X, y)
