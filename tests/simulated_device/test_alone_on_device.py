"""Fits alone on a GPU, by recorded steps: what the processor makes of the same net."""

import copy
import pickle

import joblib
import numpy as np
import pytest
import skorch
import torch
from parity import X, X_reg, assert_same_net, y, y_reg
from skorch.callbacks import GradientNormClipping
from torch import nn
from torch.nn import functional as F

from sktune import NeuralNetClassifier, NeuralNetRegressor
from sktune.engine.steps import recorded

WEIGHTS = np.random.default_rng(0).uniform(0.2, 3, len(y))
CASES = {
    "adamw": ({}, {}),
    "dropout": ({"module__dropout": 0.3}, {}),
    "weights": ({}, {"sample_weight": WEIGHTS}),
    "penalties": ({"l1": 0.001, "l2": 0.01}, {}),
    "schedule": ({"lr_schedule": "cosine", "lr_schedule__warmup": 1}, {}),
    "sgd": ({"optimizer": torch.optim.SGD}, {}),
    "momentum": ({"optimizer": torch.optim.SGD, "optimizer__momentum": 0.9}, {}),
    "nadam": ({"optimizer": torch.optim.NAdam}, {}),
    "rmsprop": ({"optimizer": torch.optim.RMSprop}, {}),
    "early_stopping": ({"early_stopping": True, "n_iter_no_change": 2, "max_epochs": 9}, {}),
    "smoothed": ({"criterion__label_smoothing": 0.1}, {}),
    "gelu": ({"module__activation": "gelu"}, {}),
    "in_order": ({"shuffle": False}, {}),
    "clip_norm": ({"clip_grad_norm": 0.2}, {}),
    "clip_value_after_norm": ({"clip_grad_norm": 0.3, "clip_grad_value": 0.02, "l2": 0.01}, {}),
    "clip_callback": ({"callbacks": [GradientNormClipping(0.2, gradient_clip_norm_type=1)]}, {}),
}


@pytest.fixture(autouse=True)
def _device(gpu, monkeypatch):
    monkeypatch.setattr(recorded, "FEWEST_STEPS", 1)


def make(kind=NeuralNetClassifier, **options):
    options = {"module__hidden": (8, 4), "module__dtype": torch.float64, **options}
    return kind(**{"max_epochs": 4, "batch_size": 16, "random_state": 3, **options})


def bring_home(net):
    """Bring a net from the device, with its optimizer."""
    net.module_.cpu()
    for state in net.optimizer_.state.values():
        for name, value in state.items():
            state[name] = value.cpu() if torch.is_tensor(value) else value
    return net


@pytest.mark.parametrize("name", CASES)
def test_a_fit_alone_is_that_of_the_processor(gpu, name):
    options, fit_params = CASES[name]
    here = make(device="cpu", **options).fit(X, y, **fit_params)
    there = make(device="cuda", **options).fit(X, y, **fit_params)

    assert gpu.counts().replays >= 2 * 4
    assert_same_net(here, bring_home(there))


def test_a_fit_that_a_cache_knows_is_that_of_the_processor(gpu, tmp_path):
    here = make(device="cpu").fit(X, y)
    with joblib.parallel_config("sktune", cache=tmp_path):
        there = make(device="cuda").fit(X, y)
        n_replays = gpu.counts().replays
        again = make(device="cuda").fit(X, y)

    assert gpu.counts().replays == n_replays > 0
    for net in (there, again):
        assert str(next(net.module_.parameters()).device) == "cuda:0"
        assert_same_net(here, bring_home(net))


class DropsByFunctions(nn.Module):
    """Calls dropout functions beside a layer of dropout."""

    def __init__(self):
        super().__init__()
        self.rate = 0.3
        self.factor = 1.0
        self.inner = nn.Linear(6, 8)
        self.drop = nn.Dropout(0.2)
        self.last = nn.Linear(8, 3)
        self.double()

    def forward(self, X):
        X = F.dropout1d(self.inner(X).view(-1, 4, 2), self.rate, self.training).flatten(1)
        X = F.dropout(self.factor * self.drop(X).relu(), 0.1, self.training)
        return self.last(X)


def test_masks_of_functions_are_those_of_the_processor(gpu):
    options = {"module": DropsByFunctions, "max_epochs": 4, "batch_size": 16, "random_state": 3}
    here = NeuralNetClassifier(**options, device="cpu").fit(X, y)
    there = NeuralNetClassifier(**options, device="cuda").fit(X, y)

    assert gpu.counts().replays >= 2 * 4
    assert_same_net(here, bring_home(there))


class Setting(skorch.callbacks.Callback):
    """Sets an attribute of the module between two epochs."""

    def __init__(self, name="rate"):
        self.name = name

    def on_epoch_end(self, net, **kwargs):
        if len(net.history) == 2:
            setattr(net.module_, self.name, 0.6)


@pytest.mark.parametrize("name", ["rate", "factor"])
def test_a_module_may_change_between_epochs(gpu, name):
    options = {"module": DropsByFunctions, "max_epochs": 4, "batch_size": 16, "random_state": 3}
    options["callbacks"] = [Setting(name)]
    here = NeuralNetClassifier(**options, device="cpu").fit(X, y)
    there = NeuralNetClassifier(**options, device="cuda").fit(X, y)

    assert gpu.counts().replays >= 2 * 4
    assert_same_net(here, bring_home(there))


def test_portions_go_on_where_the_last_one_ended(gpu):
    nets = {}
    for device in ("cpu", "cuda"):
        nets[device] = make(device=device)
        for _ in range(2):
            nets[device].partial_fit(X, y)

    assert gpu.counts().replays >= 4 * 4
    assert_same_net(nets["cpu"], bring_home(nets["cuda"]))


def test_a_regression(gpu):
    here = make(NeuralNetRegressor, device="cpu").fit(X_reg, y_reg)
    there = make(NeuralNetRegressor, device="cuda").fit(X_reg, y_reg)

    assert gpu.counts().replays >= 2 * 4
    assert_same_net(here, bring_home(there))


class Rewriting(skorch.callbacks.Callback):
    """Changes the weights between epochs, and copies the net."""

    def on_epoch_end(self, net, **kwargs):
        with torch.no_grad():
            net.module_.layers[0].weight.mul_(0.9)
        pickle.dumps(copy.deepcopy(net))


def test_callbacks_may_change_and_copy_the_net_between_epochs(gpu):
    here = make(device="cpu", callbacks=[Rewriting()]).fit(X, y)
    there = make(device="cuda", callbacks=[Rewriting()]).fit(X, y)

    assert gpu.counts().replays >= 2 * 4
    assert_same_net(here, bring_home(there))


def test_a_diverging_fit_is_told():
    options = {"device": "cuda", "lr": 1e200, "optimizer": torch.optim.SGD}
    net = make(NeuralNetRegressor, **options)
    with pytest.raises(ArithmeticError, match="training must stay finite, but in epoch"):
        net.fit(X_reg, y_reg)
