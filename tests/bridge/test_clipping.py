"""Gradient clipping in searches: fits are trained together, each clipped by its own rule."""

import pytest
import torch
from parity import X, X_reg, assert_parity, assert_same_net, compiled_steps, search, y, y_reg
from sklearn.base import clone
from sklearn.exceptions import FitFailedWarning
from skorch.callbacks import GradientNormClipping
from torch import nn

from sktune import NeuralNetClassifier, NeuralNetRegressor
from sktune.engine.compiled import program

SETTINGS = {
    "module__hidden": (8, 5),
    "module__dtype": torch.float64,
    "max_epochs": 5,
    "batch_size": 16,
    "random_state": 3,
}
NET = NeuralNetClassifier(**SETTINGS)
CLIPPED = NeuralNetClassifier(callbacks=[("clip", GradientNormClipping(0.1))], **SETTINGS)
STEPS = "compiled" if program.enabled else "stacked"


def of_callback(**params):
    return {f"callbacks__clip__gradient_clip_{name}": value for name, value in params.items()}


CALLBACKS = [
    of_callback(value=0.05),
    of_callback(value=0.3, norm_type="inf"),
    of_callback(value=1.0, norm_type=1),
    of_callback(value=0.2, norm_type=3.5),
    of_callback(value=None),
    of_callback(value=1e9),
    {"callbacks": None, "lr": 0.02},
    {"callbacks": [GradientNormClipping], "lr": 0.1},
    {"callbacks": [("one", GradientNormClipping(0.2)), ("two", GradientNormClipping(0.1, 1))]},
]
OWN = [
    {},
    {"clip_grad_norm": 0.05},
    {"clip_grad_norm": 0.4, "lr": 0.1, "batch_size": 20},
    {"clip_grad_value": 0.01},
    {"clip_grad_value": 0.02, "clip_grad_norm": 0.1, "module__dropout": 0.3},
    {"clip_grad_norm": float("inf"), "clip_grad_value": float("inf")},
    {"clip_grad_norm": 0.02, "l2": 0.1, "l1": 0.01, "optimizer__weight_decay": 0.3},
]


def test_callbacks_clip_each_fit_by_its_own_values():
    report = assert_parity(CLIPPED, CALLBACKS, X, y)

    # a group for each of the two folds
    assert [group["lanes"] for group in report.groups] == [len(CALLBACKS)] * 2
    assert {group["steps"] for group in report.groups} == {STEPS}


@pytest.mark.parametrize("optimizer", [torch.optim.SGD, torch.optim.RMSprop])
def test_own_settings_clip_each_fit_by_its_own_values(optimizer):
    net = NeuralNetClassifier(optimizer=optimizer, **SETTINGS)

    report = assert_parity(net, OWN, X, y)

    assert {group["steps"] for group in report.groups} == {STEPS}


def test_regressors_are_clipped_after_their_penalties():
    net = NeuralNetRegressor(optimizer=torch.optim.SGD, l2=0.1, l1=0.01, **SETTINGS)
    callback = [GradientNormClipping(0.3)]
    candidates = [
        {"clip_grad_norm": 0.3},
        {"callbacks": callback},
        {"callbacks": callback, **OWN[4]},
    ]

    assert_parity(net, candidates, X_reg, y_reg)
    _, nets, _ = search(net, candidates[:2], X_reg, y_reg)

    # the setting and the callback are one thing
    for own, called in zip(nets[:2], nets[2:], strict=True):
        assert_same_net_but_callbacks(own, called)


def assert_same_net_but_callbacks(one, other):
    other.callbacks_ = one.callbacks_
    assert_same_net(one, other)


def test_a_fit_alone_takes_compiled_steps_with_the_same_outcome(monkeypatch):
    for net in (CLIPPED, NeuralNetClassifier(clip_grad_norm=0.1, clip_grad_value=0.02, **SETTINGS)):
        plain, compiled = fit_both_ways(net)
        assert_same_net(plain, compiled)


def fit_both_ways(net):
    found = []
    for are_taken in (False, True):
        with compiled_steps(are_taken):
            found.append(clone(net).fit(X, y))
    return found


def test_clipping_changes_what_is_learned():
    (unclipped, *_), (clipped, *_) = (search(NET, [o], X, y)[1] for o in (OWN[0], OWN[1]))

    one, other = (net.module_.state_dict() for net in (unclipped, clipped))
    assert any(not torch.allclose(one[name], other[name], rtol=1e-4) for name in one)


def test_a_lane_that_diverges_leaves_clipped_lanes_alone():
    net = NeuralNetClassifier(optimizer=torch.optim.SGD, **SETTINGS)
    diverging = {"lr": 1e300}
    _, alone, _ = search(net, [OWN[1]], X, y)
    with pytest.warns(FitFailedWarning, match="2 fits failed out of a total of 4"):
        _, nets, report = search(net, [OWN[1], diverging], X, y, error_score=0.0)

    assert [group["lanes"] for group in report.groups] == [4]
    for reference, other in zip(alone, nets[:2], strict=True):
        assert_same_net(reference, other, rtol=0)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"clip_grad_norm": 0}, "clip_grad_norm must be a number above 0, or None, got"),
        ({"clip_grad_value": -1.0}, "clip_grad_value must be a number above 0, or None, got"),
        ({"clip_grad_norm": "1"}, "clip_grad_norm must be a number above 0, or None, got"),
        ({"clipnorm": 1.0}, "did you mean 'clip_grad_norm'"),
    ],
)
def test_bad_limits_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        NeuralNetClassifier(**settings).fit(X, y)


def test_a_norm_of_another_type_is_named():
    _, _, report = search(CLIPPED, [of_callback(value=0.1, norm_type=0)], X, y)

    assert [fit["reason"] for fit in report.alone] == [
        "its gradients are clipped by a norm whose type is not above 0"
    ] * 2


class Cumulative(nn.Module):
    """A module that no kernel knows, whose steps are stacked."""

    def __init__(self, n_features=6, n_outputs=3):
        super().__init__()
        self.dense = nn.Linear(n_features, n_outputs).double()

    def forward(self, X):
        return torch.cumsum(self.dense(X), 1)


def test_other_modules_are_clipped_in_stacked_steps():
    net = NeuralNetClassifier(
        Cumulative, **{k: SETTINGS[k] for k in ("max_epochs", "random_state")}
    )

    report = assert_parity(net, [OWN[1], OWN[3], {}], X, y)

    assert {group["steps"] for group in report.groups} == {"stacked"}
