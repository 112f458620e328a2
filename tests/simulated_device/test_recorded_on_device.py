"""Steps that a GPU records and replays: what they compute, and how they are told."""

import numpy as np
import pytest
import skorch
import torch
from device import Graph
from parity import RAGGED, X, X_reg, assert_parity, search, y, y_reg
from skorch.callbacks import GradientNormClipping
from torch import nn
from torch.nn import functional as F

from sktune import NeuralNetClassifier, NeuralNetRegressor
from sktune.engine.steps import recorded

pytestmark = pytest.mark.usefixtures("recording_gpu")


def net(kind=NeuralNetClassifier, **options):
    options = {
        "module__hidden": (8, 4),
        "module__dtype": torch.float64,
        "max_epochs": 6,
        "batch_size": 16,
        **options,
    }
    return kind(random_state=3, **options)


class ConvNet(nn.Sequential):
    def __init__(self, n_features=None, n_outputs=3):
        layers = [nn.Unflatten(1, (2, 3)), nn.Conv1d(2, 4, 2, bias=False), nn.BatchNorm1d(4)]
        layers += [nn.ReLU(), nn.Dropout(0.2), nn.Flatten(), nn.Linear(8, n_outputs)]
        super().__init__(*layers)
        self.double()


class DropsByFunctions(nn.Module):
    """Calls dropout functions beside a layer of dropout."""

    def __init__(self, n_features=6, n_outputs=3, rate=0.2):
        super().__init__()
        self.rate = rate
        self.inner = nn.Conv1d(2, 4, 2)
        self.drop = nn.Dropout(0.2)
        self.last = nn.Linear(8, n_outputs)
        self.double()

    def forward(self, X):
        X = self.drop(F.dropout1d(self.inner(X.view(-1, 2, 3)), self.rate, self.training))
        return self.last(F.dropout(X.relu().flatten(1), 0.1, self.training))


ONE_STREAM = {"cv": RAGGED[:1]}
LANES = [
    {"lr": 0.01, "module__dropout": 0.2},
    {"lr": 0.03, "optimizer__weight_decay": 0.1, "module__dropout": 0.5},
]
WEIGHTS = {"fit_params": {"sample_weight": np.random.default_rng(0).uniform(0.2, 3, len(y))}}
CASES = {
    "one_stream": (net(), LANES, ONE_STREAM),
    "ragged": (net(), LANES, {}),
    "weights": (net(), LANES, WEIGHTS),
    "seeds": (net(), [{**lane, "random_state": n} for n, lane in enumerate(LANES)], {}),
    "schedule": (net(lr_schedule="cosine", lr_schedule__warmup=1), LANES, {}),
    "penalties": (net(), [{**lane, "l1": 0.01, "l2": 0.1 * n} for n, lane in enumerate(LANES)], {}),
    "sgd": (
        net(optimizer=torch.optim.SGD, optimizer__momentum=0.9),
        [{"lr": 0.1}, {"lr": 0.2}],
        {},
    ),
    "nadam": (net(optimizer=torch.optim.NAdam), [{"lr": 0.01}, {"lr": 0.02}], {}),
    "adam_one_by_one": (net(), [{"optimizer__betas": (b, 0.99)} for b in (0.8, 0.9)], {}),
    "lanes_that_end": (
        net(early_stopping=True, optimizer=torch.optim.SGD, module__dropout=0.1),
        [{"lr": 0.1 / n, "max_epochs": n} for n in (2, 4, 6)],
        {},
    ),
    "more_steps_in_a_fold": (net(), LANES, {"cv": [(np.arange(64), [70]), (np.arange(66), [71])]}),
    "clips": (
        net(optimizer=torch.optim.SGD, module__dropout=0.2),
        [
            {"lr": 0.5},
            {"lr": 0.4, "clip_grad_norm": 0.2, "l2": 0.01},
            {"lr": 0.3, "clip_grad_norm": 0.3, "clip_grad_value": 0.02, "max_epochs": 3},
            {"lr": 0.2, "callbacks": [GradientNormClipping(0.2, gradient_clip_norm_type=1)]},
        ],
        {},
    ),
    "activation": (net(module__activation="gelu"), LANES, {}),
    "smoothed": (net(criterion__label_smoothing=0.1), LANES, {}),
    "class_weight": (net(class_weight={0: 2.0}), LANES, {}),
    "normalised": (net(module__batch_norm=True), LANES, {}),
    "in_order": (net(shuffle=False), LANES, {}),
    "functions": (
        NeuralNetClassifier(DropsByFunctions, max_epochs=6, batch_size=16, random_state=3),
        [{"lr": 0.01}, {"lr": 0.03, "random_state": 4}, {"lr": 0.02, "module__rate": 0.5}],
        ONE_STREAM,
    ),
    "convolution": (
        NeuralNetClassifier(ConvNet, max_epochs=6, batch_size=16, random_state=3),
        [{"lr": 0.01}, {"lr": 0.03}],
        {},
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_replayed_steps_are_those_of_each_net_alone(gpu, name):
    estimator, lanes, options = CASES[name]
    report = assert_parity(estimator, lanes, X, y, **options)

    n_fits = len(lanes) * len(options.get("cv", RAGGED))
    assert sum(group["lanes"] for group in report.groups) == n_fits
    assert {group["steps"] for group in report.groups} == {"recorded"}
    # a run of the whole batches in each epoch, and one of the last
    assert gpu.counts().replays >= 6


def test_replayed_steps_of_a_regression(gpu):
    report = assert_parity(net(NeuralNetRegressor), LANES, X_reg, y_reg)

    assert {group["steps"] for group in report.groups} == {"recorded"}
    assert gpu.counts().replays >= 6


def test_a_ragged_step_is_one_step_of_all_lanes(gpu):
    search(net(), LANES, X, y)

    # each epoch is two replays, and nothing beside them but for what is read and written
    assert gpu.counts().replays == 2 * 6


def test_what_cannot_be_recorded_is_taken_as_it_is_and_told(gpu, monkeypatch):
    monkeypatch.setattr(Graph, "obstacle", "another capture is underway")
    report = assert_parity(net(), LANES, X, y)

    (group,) = report.groups
    assert group["steps"] == "stacked"
    assert group["blockers"]["recorded"] == ("a recording has failed: another capture is underway")
    assert not gpu.counts().replays


def test_after_a_failure_a_process_records_no_more(gpu, monkeypatch):
    monkeypatch.setattr(Graph, "obstacle", "another capture is underway")
    search(net(), LANES, X, y)
    monkeypatch.setattr(Graph, "obstacle", None)
    _, _, report = search(net(), LANES, X, y)

    (group,) = report.groups
    assert group["blockers"]["recorded"] == ("a recording has failed: another capture is underway")
    assert not gpu.counts().replays


def test_few_steps_are_not_recorded(gpu, monkeypatch):
    monkeypatch.setattr(recorded, "FEWEST_STEPS", 6 * 5 + 1)
    report = assert_parity(net(), LANES, X, y)

    (group,) = report.groups
    assert group["steps"] == "stacked"
    assert "too few steps" in group["blockers"]["recorded"]
    assert not gpu.counts().replays


def test_lanes_that_end_are_recorded_anew_only_when_half_are_gone(gpu, monkeypatch):
    made = []
    begin = Graph.capture_begin
    monkeypatch.setattr(
        Graph, "capture_begin", lambda self, **options: made.append(1) or begin(self, **options)
    )
    # one lane ends after each of 8 epochs
    candidates = [{"max_epochs": n, "lr": 0.01 * n} for n in range(1, 9)]
    search(net(), candidates, X, y, cv=RAGGED[:1])

    # 8 lanes, 4, 2, 1: two runs each
    assert len(made) <= 8


class Chain(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
        self.double()


@pytest.mark.parametrize("obstacle", [None, "another capture is underway"])
def test_nets_of_skorchs_draw_as_they_do_alone(gpu, monkeypatch, obstacle):
    options = {"criterion": nn.CrossEntropyLoss, "iterator_train__shuffle": True, "verbose": 0}
    options |= {"max_epochs": 4, "batch_size": 16, "train_split": None}
    candidates = [{"lr": 0.1}, {"lr": 0.2}]
    losses = {}
    for device in ("cpu", "cuda"):
        monkeypatch.setattr(Graph, "obstacle", obstacle)
        skorchs = skorch.NeuralNetClassifier(Chain, device=device, **options)
        torch.manual_seed(0)
        _, nets, report = search(skorchs, candidates, X, y)
        losses[device] = [one.history[:, "train_loss"] for one in nets]
        if device == "cuda":
            steps = {group["steps"] for group in report.groups}

    assert steps == {"stacked" if obstacle else "recorded"}
    np.testing.assert_allclose(losses["cuda"], losses["cpu"], rtol=1e-9)
