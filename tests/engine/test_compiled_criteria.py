"""Criteria and optimizers that the compiled kernels know train as torch's own do."""

import importlib.util

import numpy as np
import pytest
import torch
from parity import X, X_reg, assert_parity, compiled_steps, search, y, y_reg
from sklearn.base import clone
from torch import nn

from sktune import NeuralNetClassifier, NeuralNetRegressor
from sktune.engine.compiled.criteria.numbers import compare_numbers

pytestmark = pytest.mark.skipif(importlib.util.find_spec("numba") is None, reason="no Numba")
NET = {
    "module__hidden": (7,),
    "module__dtype": torch.float64,
    "max_epochs": 4,
    "batch_size": 16,
    "random_state": 0,
}
LANES = [{"lr": 0.01}, {"lr": 0.03, "l2": 0.01}]
WEIGHTS = np.linspace(0, 3, len(y))
binary = (y > 0).astype(int)
counts = np.floor(np.exp(y_reg))
wide = torch.tensor([3.0], dtype=torch.float64)
each = torch.tensor([3.0, 0.5], dtype=torch.float64)
of_classes = torch.tensor([1.0, 4.0, 0.3], dtype=torch.float64)


class Probabilities(nn.Sequential):
    def __init__(self, n_features, n_outputs, hidden, dtype):
        layers = [nn.Linear(n_features, 7), nn.ReLU(), nn.Linear(7, n_outputs), nn.Softmax(-1)]
        super().__init__(*(layer.to(dtype) for layer in layers))


def smooth_l1(beta):
    return {"criterion": nn.SmoothL1Loss, "criterion__beta": beta}


CLASSIFICATIONS = {
    "label_smoothing": ({"criterion__label_smoothing": 0.1}, y),
    "all_smooth": ({"criterion__label_smoothing": 1.0}, y),
    "bce": ({"criterion": nn.BCEWithLogitsLoss}, binary),
    "bce_pos_weight": ({"criterion": nn.BCEWithLogitsLoss, "criterion__pos_weight": wide}, binary),
    "bce_of_labels": ({"criterion": nn.BCEWithLogitsLoss}, np.c_[binary, y > 1]),
    "bce_pos_weights": (
        {"criterion": nn.BCEWithLogitsLoss, "criterion__pos_weight": each},
        np.c_[binary, y > 1],
    ),
    "class_weights": ({"criterion__weight": of_classes}, y),
    "nll_of_classes": (
        {"criterion": nn.NLLLoss, "criterion__weight": of_classes, "module": Probabilities},
        y,
    ),
    "sum": ({"criterion__reduction": "sum"}, y),
    "weighted_sum": ({"criterion__reduction": "sum", "criterion__weight": of_classes}, y),
    "bce_sum": (
        {"criterion": nn.BCEWithLogitsLoss, "criterion__reduction": "sum"},
        np.c_[binary, y > 1],
    ),
}
# Their validation loss depends on how rows are batched.
BATCHED = ["class_weights", "weighted_sum", "bce_sum"]
REGRESSIONS = {
    "l1": ({"criterion": nn.L1Loss}, y_reg),
    "huber": ({"criterion": nn.HuberLoss, "criterion__delta": 0.5}, y_reg),
    "smooth_l1": (smooth_l1(0.5), y_reg),
    "smooth_l1, one target": (smooth_l1(2.0), y_reg[:, 0]),
    "smooth_l1, no beta": (smooth_l1(0.0), y_reg),
    "bce_of_shares": ({"criterion": nn.BCEWithLogitsLoss}, 1 / (1 + np.exp(-y_reg))),
    "poisson": ({"criterion": nn.PoissonNLLLoss}, counts),
    "sum": ({"criterion__reduction": "sum"}, y_reg),
}


def assert_compiled(report):
    assert [group["steps"] for group in report.groups] == ["compiled"]


@pytest.mark.parametrize("name", CLASSIFICATIONS)
def test_criteria_of_classifiers(name):
    settings, labels = CLASSIFICATIONS[name]
    net = NeuralNetClassifier(**NET, **settings)

    assert_compiled(assert_parity(net, LANES, X, labels))
    assert_compiled(assert_parity(net, LANES[:1], X, labels, fit_params={"sample_weight": WEIGHTS}))


@pytest.mark.parametrize("name", BATCHED)
def test_early_stopping_sees_the_validation_loss_of_a_fit_alone(name):
    settings, labels = CLASSIFICATIONS[name]
    stops = {"early_stopping": True, "validation_fraction": 0.4, "n_iter_no_change": 2}
    net = NeuralNetClassifier(**{**NET, "batch_size": 7, "max_epochs": 8}, **stops, **settings)

    assert_parity(net, LANES, X, labels)
    assert_parity(net, LANES[:1], X, labels, fit_params={"sample_weight": WEIGHTS + 0.1})


def test_smoothed_class_weights_train_in_stacked_steps():
    weighted = {"criterion__label_smoothing": 0.1, "criterion__weight": of_classes}
    report = assert_parity(NeuralNetClassifier(**NET, **weighted), LANES, X, y)

    assert [group["steps"] for group in report.groups] == ["stacked"]


@pytest.mark.parametrize("name", REGRESSIONS)
def test_criteria_of_regressors(name):
    settings, targets = REGRESSIONS[name]
    net = NeuralNetRegressor(**NET, **settings)

    assert_compiled(assert_parity(net, LANES, X_reg, targets))
    weights = {"sample_weight": WEIGHTS}
    assert_compiled(assert_parity(net, LANES[:1], X_reg, targets, fit_params=weights))


@pytest.mark.parametrize("name", ["label_smoothing", "bce_pos_weight"])
def test_large_logits(name):
    settings, labels = CLASSIFICATIONS[name]
    net = NeuralNetClassifier(**NET, **settings)

    assert_compiled(assert_parity(net, LANES[:1], 1000 * X, labels))


BEYOND = {
    "likelihood with Stirling's term": {"criterion": nn.PoissonNLLLoss, "criterion__full": True},
    "weights of the losses": {
        "criterion": nn.BCEWithLogitsLoss,
        "criterion__weight": torch.tensor([1.0, 2.0], dtype=torch.float64),
    },
    "a criterion of the user's": {"criterion": type("Own", (nn.L1Loss,), {})},
}


@pytest.mark.parametrize("name", BEYOND)
def test_other_criteria_are_left_to_torch(name):
    net = NeuralNetRegressor(**NET, **BEYOND[name])
    targets = 1 / (1 + np.exp(-y_reg))

    _, _, report = search(net, [{"lr": 1e-4}], X_reg, targets)

    assert [group["steps"] for group in report.groups] == ["stacked"]
    assert "do not know its criterion" in report.groups[0]["blockers"]["compiled"]


OPTIMIZERS = {
    "rmsprop": (torch.optim.RMSprop, [{}, {"alpha": 0.9, "eps": 1e-3, "weight_decay": 0.1}]),
    "rmsprop, momentum": (torch.optim.RMSprop, [{"momentum": 0.8}, {"momentum": 0.0}]),
    "adagrad": (torch.optim.Adagrad, [{}, {"lr_decay": 0.1, "eps": 1e-4, "weight_decay": 0.1}]),
    "adagrad, initial": (torch.optim.Adagrad, [{"initial_accumulator_value": 0.5}]),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizers(name):
    optimizer, options = OPTIMIZERS[name]
    lanes = [{f"optimizer__{key}": value for key, value in lane.items()} for lane in options]
    net = NeuralNetClassifier(**NET, optimizer=optimizer)

    assert_compiled(assert_parity(net, lanes, X, y))


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizers_alone(name):
    """A fit that goes on by compiled steps where torch's have ended, and the other way round."""
    optimizer, (*_, options) = OPTIMIZERS[name]
    options = {f"optimizer__{key}": value for key, value in options.items()}
    net = NeuralNetClassifier(**NET, optimizer=optimizer, **options)
    nets = []
    for are_compiled in (False, True):
        with compiled_steps(are_compiled):
            fitted = clone(net).fit(X, y)
        with compiled_steps(not are_compiled):
            nets.append(fitted.partial_fit(X, y))

    one, other = nets
    for name, tensor in one.module_.state_dict().items():
        torch.testing.assert_close(other.module_.state_dict()[name], tensor, rtol=1e-8, atol=1e-10)
    ours, theirs = (fitted.optimizer_.state_dict()["state"] for fitted in nets)
    torch.testing.assert_close(ours, theirs, rtol=1e-7, atol=1e-12)


def test_an_opcode_that_is_no_criterion_raises():
    column = np.ones((3, 1))

    with pytest.raises(ValueError, match="criterion's opcode must be one of"):
        compare_numbers(99, np.zeros(1), np.ones(8), 8, column, np.ones(3), np.arange(3), 1.0)
