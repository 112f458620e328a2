"""Lanes that the kernel trains, interpreted on a processor, are what plain fits are."""

import numpy as np
import pytest
import skorch
import torch
from parity import RAGGED, X, X_reg, assert_same_net, search, y, y_reg
from sklearn.base import clone
from sklearn.datasets import make_classification
from test_fits_as_data import collect
from torch import nn

from sktune import NeuralNetClassifier, NeuralNetRegressor
from sktune.engine import group
from sktune.engine.group import train_group
from sktune.engine.steps import LaunchedSteps, StackedSteps

SGD, ADAM = torch.optim.SGD, torch.optim.Adam
RATES = [{"lr": 0.02}, {"lr": 0.05, "module__dropout": 0.3}]
DECAYS = [{"lr": 0.02, "optimizer__weight_decay": 0.2}, {"lr": 0.05}]


def net(kind=NeuralNetClassifier, **options):
    options = {"module__hidden": (7,), "max_epochs": 2, "batch_size": 16, **options}
    options = {"module__dtype": torch.float64, **options}
    return kind(random_state=3, **options)


def regressor(**options):
    return net(NeuralNetRegressor, **options)


def assert_launched_parity(estimator, lanes, X, y, rtol=1e-8, **options):
    """Assert that the kernel trains all fits of a search as they are trained alone."""
    _, references, _ = search(estimator, lanes, X, y, fused=False, **options)
    _, nets, report = search(estimator, lanes, X, y, n_jobs=1, **options)
    assert not report.alone, report
    assert {row["steps"] for row in report.groups} == {"launched"}
    assert len(references) == len(nets) > 0
    for reference, other in zip(references, nets, strict=True):
        assert_same_net(reference, other, rtol)
    return report


class Silencing(nn.Sequential):
    """A net that drops features, without a bias, and whose outputs are bounded."""

    def __init__(self, n_features, n_outputs):
        layers = [nn.Dropout(0.2), nn.Linear(n_features, 5, bias=False), nn.ELU(0.5)]
        layers += [nn.Dropout(0.1), nn.Tanh(), nn.Linear(5, n_outputs), nn.Tanh()]
        super().__init__(*layers)
        self.double()


CLASSIFIERS = {
    "sgd": (net(optimizer=SGD), [{"lr": 0.1}, {"lr": 0.3, "module__dropout": 0.5}], {}),
    "momentum": (
        net(optimizer=SGD),
        [
            {"lr": 0.1, "optimizer__momentum": 0.9, "optimizer__dampening": 0.3},
            {"lr": 0.1, "optimizer__weight_decay": 0.1},
        ],
        {},
    ),
    "nesterov": (net(optimizer=SGD, optimizer__momentum=0.8, optimizer__nesterov=True), RATES, {}),
    "adam": (net(optimizer=ADAM), DECAYS, {}),
    "adamw": (net(), DECAYS, {}),
    "betas": (net(), [{"optimizer__betas": (beta, 0.9 + beta / 10)} for beta in (0.5, 0.9)], {}),
    "rmsprop": (net(optimizer=torch.optim.RMSprop, optimizer__momentum=0.5), DECAYS, {}),
    "adagrad": (net(optimizer=torch.optim.Adagrad, optimizer__lr_decay=0.1), DECAYS, {}),
    "schedule": (net(lr_schedule="cosine", lr_schedule__warmup=1), RATES, {}),
    "penalties": (net(), [{"l1": 0.01}, {"l2": 0.1, "lr": 0.05}, {"l1": 0.1, "l2": 0.1}], {}),
    "weights": (
        net(),
        RATES,
        {"fit_params": {"sample_weight": np.random.default_rng(0).uniform(0.2, 3, len(y))}},
    ),
    "class_weight": (net(class_weight={0: 2.0}), RATES, {}),
    "smoothed": (net(criterion__label_smoothing=0.1), RATES, {}),
    "seeds": (net(module__dropout=0.2), [{"random_state": n} for n in (1, 2**32 - 1)], {}),
    "in_order": (net(shuffle=False), RATES, {}),
    "linear": (net(module__hidden=()), [{"lr": 0.1}, {"lr": 0.3}], {}),
    "deep": (net(module__hidden=(5, 3, 9), module__activation="tanh"), RATES, {}),
    "wide": (net(module__hidden=(70,), batch_size=72), RATES, {}),
    "all_rows": (net(), [{"batch_size": 500}, {"batch_size": 1000, "lr": 0.1}], {}),
    "a_row_each": (net(batch_size=1, max_epochs=1), [{"lr": 0.01}], {"cv": [(np.arange(9), [9])]}),
    "more_steps_in_a_fold": (net(), RATES, {"cv": [(np.arange(64), [70]), (np.arange(66), [71])]}),
    "lanes_that_end": (net(), [{"max_epochs": n, "lr": 0.01 * n} for n in (1, 2, 4)], {}),
    "stopped_early": (
        net(early_stopping=True, n_iter_no_change=1, max_epochs=4),
        [{"lr": 0.3}, {"lr": 0.01}],
        {"cv": RAGGED[:1]},
    ),
}
CLASSIFIERS["sequential"] = (
    NeuralNetClassifier(Silencing, max_epochs=2, batch_size=16, random_state=3),
    [{"lr": 0.01}, {"lr": 0.1}],
    {},
)


class WithIdle(nn.Module):
    """Its first layer and its middle one are not called."""

    def __init__(self, n_outputs=3):
        super().__init__()
        self.aux = nn.Linear(4, 2)
        self.first = nn.Linear(6, 5)
        self.norm = nn.Linear(5, 5)
        self.last = nn.Linear(5, n_outputs)
        self.double()

    def forward(self, X):
        return self.last(torch.tanh(self.first(X)))


CLASSIFIERS["idle"] = (
    NeuralNetClassifier(WithIdle, max_epochs=2, batch_size=16, random_state=3),
    DECAYS,
    {},
)


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_the_kernel_trains_classifiers_as_they_are_trained_alone(name):
    estimator, lanes, options = CLASSIFIERS[name]
    assert_launched_parity(estimator, lanes, X, y, **options)


@pytest.mark.parametrize(
    "activation", ["relu", "leaky_relu", "elu", "gelu", "silu", "tanh", "sigmoid"]
)
def test_the_kernel_knows_activations(activation):
    estimator = net(module__activation=activation, module__dropout=0.2)
    assert_launched_parity(estimator, [{"lr": 0.05}], X, y, cv=RAGGED[:1])


@pytest.mark.parametrize(
    "criterion", [nn.MSELoss, nn.L1Loss, nn.HuberLoss(delta=0.5), nn.SmoothL1Loss]
)
def test_the_kernel_knows_criteria_of_numbers(criterion):
    assert_launched_parity(regressor(criterion=criterion), RATES, X_reg, y_reg)


def test_the_kernel_trains_regressors_of_one_target():
    assert_launched_parity(regressor(), RATES, X_reg, y_reg[:, 0])


def test_the_kernel_trains_regressors_of_counts():
    counts = np.random.default_rng(0).poisson(3, len(X_reg)).astype(float)
    assert_launched_parity(regressor(criterion=nn.PoissonNLLLoss), RATES, X_reg, counts)


@pytest.mark.parametrize("n_labels", [1, 3])
def test_the_kernel_trains_on_labels(n_labels):
    labels = np.stack([y == n for n in range(n_labels)], 1).astype(int)
    estimator = net(criterion=nn.BCEWithLogitsLoss)
    assert_launched_parity(estimator, RATES, X, labels[:, 0] if n_labels == 1 else labels)


@pytest.mark.parametrize("optimizer", [SGD, torch.optim.AdamW])
def test_in_float32_the_kernel_agrees_to_four_digits(optimizer):
    X, y = make_classification(230, 20, n_informative=6, n_classes=5, random_state=0)
    estimator = net(module__hidden=(33, 18), optimizer=optimizer, batch_size=48)
    estimator.set_params(module__dtype=torch.float32)
    lanes = [{"lr": 0.01, "module__dropout": 0.2}, {"lr": 0.05, "optimizer__weight_decay": 0.1}]
    report = assert_launched_parity(estimator, lanes, X.astype(np.float32), y, 1e-4)

    assert report.groups[0]["lanes"] == 4


def test_the_kernel_trains_nets_of_skorchs_on_the_batches_that_they_draw(monkeypatch):
    module = nn.Sequential(nn.Linear(6, 5), nn.SiLU(), nn.Linear(5, 3)).double()
    options = {"max_epochs": 2, "batch_size": 16, "verbose": 0, "train_split": None}
    estimator = skorch.NeuralNetClassifier(
        module, criterion=nn.CrossEntropyLoss, iterator_train__shuffle=True, **options
    )
    losses = []
    for steps in (StackedSteps, LaunchedSteps):
        monkeypatch.setattr(group, "STEP_BACKENDS", [steps])
        torch.manual_seed(0)
        _, nets, report = search(estimator, [{"lr": 0.1}, {"lr": 0.2}], X, y, n_jobs=1)
        losses.append([one.history[:, "train_loss"] for one in nets])

    assert {row["steps"] for row in report.groups} == {"launched"}
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-9)


def test_lanes_are_the_same_whoever_is_beside_them():
    lanes = [
        {"lr": 0.01, "module__dropout": 0.5},
        {"lr": 0.05, "l1": 0.01},
        {"lr": 0.02, "random_state": 5},
    ]
    _, together, report = search(net(), lanes, X, y, n_jobs=1)
    assert [row["lanes"] for row in report.groups] == [6]
    for n, lane in enumerate(lanes):
        _, alone, _ = search(net(), [lane], X, y, n_jobs=1)
        for one, other in zip(alone, together[2 * n : 2 * n + 2], strict=True):
            assert_same_net(one, other, rtol=0)


# NumPy computes what the kernel says; the other two are scikit-learn's
@pytest.mark.filterwarnings(
    "ignore:(overflow|invalid value|divide by zero):RuntimeWarning",
    "ignore::sklearn.exceptions.FitFailedWarning",
    "ignore:One or more of the test scores:UserWarning",
)
def test_a_lane_that_diverges_leaves_the_others_alone():
    estimator = net(optimizer=SGD, max_epochs=3)
    lanes = [{"lr": 0.1}, {"lr": 1e200}, {"lr": 0.2}]
    found, nets, report = search(estimator, lanes, X, y, n_jobs=1, error_score=np.nan)
    _, references, _ = search(estimator, lanes[::2], X, y, fused=False)

    assert not report.alone
    assert np.isnan(found.cv_results_["mean_test_score"]).tolist() == [False, True, False]
    for reference, other in zip(references, nets, strict=True):
        assert_same_net(reference, other)


@pytest.mark.parametrize("optimizer", [SGD, ADAM])
def test_training_goes_on_from_a_state(monkeypatch, optimizer):
    estimator = net(optimizer=optimizer, module__dropout=0.3, max_epochs=2)
    if optimizer is SGD:
        estimator.set_params(optimizer__momentum=0.9, optimizer__dampening=0.5)
    lanes = [{"lr": 0.01}, {"lr": 0.1}]
    ((specs, tables),) = collect(monkeypatch, clone(estimator), lanes, X, y, RAGGED[:1])
    whole = train_group(specs, None, tables)
    half = train_group(specs, None, tables, 1)
    rest = train_group(specs, [result.state for result in half], tables)

    for one, other in zip(whole, rest, strict=True):
        assert one.state.optimizer["step"] == other.state.optimizer["step"] > 0
        for name, weight in one.state.weights.items():
            torch.testing.assert_close(weight, other.state.weights[name], rtol=0, atol=0)
