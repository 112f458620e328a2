"""Compiled steps train as torch's own do, in all that they take on, and leave the rest alone."""

import importlib.util
import os
import pickle
import subprocess
import sys
import warnings
from functools import partial

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.datasets import make_classification, make_regression
from skorch.callbacks import Callback, EpochScoring, Freezer, GradientNormClipping, Unfreezer
from torch import nn
from torch.nn.modules.module import register_module_forward_hook
from torch.nn.utils import prune
from torch.optim.optimizer import register_optimizer_step_post_hook

from sktune import MLP, GridSearchCV, NeuralNetClassifier, NeuralNetRegressor
from sktune.engine.compiled import loading
from sktune.engine.compiled import program as compiled
from sktune.modules.activations import ACTIVATIONS
from sktune.runtime.threads import limited_threads

# Fewer than 100 rows are trained on in float64: the last batch of 16 holds 10 rows.
X, y = make_classification(90, n_features=6, n_informative=4, n_classes=3, random_state=0)
X_reg, y_reg = make_regression(90, n_features=6, n_targets=2, random_state=0)
y_reg = y_reg / y_reg.std(axis=0)
HIDDEN = {"module__hidden": (7, 18)}
SETTINGS = {"batch_size": 16, "max_epochs": 4, "lr": 0.01, "random_state": 0}

pytestmark = [
    pytest.mark.skipif(importlib.util.find_spec("numba") is None, reason="there is no Numba"),
    pytest.mark.usefixtures("in_float64"),
]


@pytest.fixture
def count_calls(monkeypatch):
    """Return a function that counts the epochs of compiled steps since its last call."""
    calls = []

    def bind(self, *args):
        train = plain_bind(self, *args)
        return lambda *args: calls.append(1) or train(*args)

    plain_bind = compiled.Program.bind
    monkeypatch.setattr(compiled.Program, "bind", bind)

    def count():
        n = len(calls)
        calls.clear()
        return n

    return count


def fit_both_ways(net, X, y, monkeypatch, **fit_params):
    """Return a net fitted by compiled steps, and one fitted by torch's."""
    compiled_net = clone(net).fit(X, y, **fit_params)
    with monkeypatch.context() as patch:
        patch.setattr(compiled, "enabled", False)
        return compiled_net, clone(net).fit(X, y, **fit_params)


def assert_same(one, other, rtol=1e-8, atol=1e-12):
    """Assert that weights, the optimizer's state and the records of two nets are equal."""
    close = partial(torch.testing.assert_close, rtol=rtol, atol=atol)
    close(one.module_.state_dict(), other.module_.state_dict())
    ours, theirs = one.optimizer_.state_dict(), other.optimizer_.state_dict()
    assert ours["param_groups"] == theirs["param_groups"]
    assert [list(state) for state in ours["state"].values()] == [
        list(state) for state in theirs["state"].values()
    ]
    close(ours["state"], theirs["state"])
    assert len(one.history) == len(other.history)
    for row, expected in zip(one.history, other.history, strict=True):
        assert row.keys() == expected.keys()
        assert row["train_loss_best"] == expected["train_loss_best"]
        assert row["train_loss"] == pytest.approx(expected["train_loss"], rel=max(rtol, 1e-12))
        assert [b.keys() for b in row["batches"]] == [b.keys() for b in expected["batches"]]
        sizes = [
            [b["train_batch_size"] for b in r["batches"] if "train_loss" in b]
            for r in (row, expected)
        ]
        losses = [
            [b["train_loss"] for b in r["batches"] if "train_loss" in b] for r in (row, expected)
        ]
        assert sizes[0] == sizes[1]
        np.testing.assert_allclose(losses[0], losses[1], rtol=max(rtol, 1e-12))
    assert (one.dropout_.epoch, one.dropout_.batch) == (other.dropout_.epoch, other.dropout_.batch)


# Those that have a name, and whose derivative torch computes in the type of the table.
COMPILED_ACTIVATIONS = [n for n in ACTIVATIONS if n not in ("threshold", "hardsigmoid")]
# With other numbers than those that they have by themselves.
SET_ACTIVATIONS = [
    nn.LeakyReLU(0.3),
    nn.ELU(0.5),
    nn.CELU(0.5),
    nn.CELU(2.0),
    nn.GELU(approximate="tanh"),
    nn.Softplus(2.0, threshold=1.5),
    nn.Hardtanh(-0.3, 0.4),
    nn.Threshold(0.1, 0.7),
    nn.Softshrink(0.2),
    nn.Hardshrink(0.3),
]
CONFIGURATIONS = {
    "bare": {},
    "linear": {"module__hidden": ()},
    "one unit": {"module__hidden": (1,)},
    "wide": {"module__hidden": (40, 33)},
    "dropout, odd and even widths": {"module__dropout": 0.4},
    "dropout close to 1": {"module__dropout": 0.99999, "lr": 1e-4},
    **{f"activation {name}": {"module__activation": name} for name in COMPILED_ACTIVATIONS},
    "no activation": {"module__activation": "identity", "module__dropout": 0.3},
    **{
        f"activation {layer}, dropout": {"module__activation": layer, "module__dropout": 0.3}
        for layer in SET_ACTIVATIONS
    },
    "much dropout": {"module__activation": "silu", "module__dropout": 0.6},
    "adamw": {
        "optimizer__weight_decay": 0.3,
        "optimizer__betas": (0.8, 0.95),
        "optimizer__eps": 1e-3,
    },
    "adam": {"optimizer": torch.optim.Adam, "optimizer__weight_decay": 0.1},
    "sgd": {"optimizer": torch.optim.SGD},
    "sgd, weight decay": {"optimizer": torch.optim.SGD, "optimizer__weight_decay": 0.1},
    "momentum": {
        "optimizer": torch.optim.SGD,
        "optimizer__momentum": 0.9,
        "optimizer__dampening": 0.3,
    },
    "nesterov": {
        "optimizer": torch.optim.SGD,
        "optimizer__momentum": 0.9,
        "optimizer__nesterov": True,
    },
    "l1": {"l1": 1e-2},
    "l2": {"l2": 1e-2},
    "both, and dropout": {"l1": 1e-3, "l2": 1e-2, "module__dropout": 0.2},
    "schedule": {"lr_schedule": "cosine", "lr_schedule__warmup": 1},
    "in order": {"shuffle": False},
    "one batch": {"batch_size": 200},
    "a last row joins": {"batch_size": 89},
    "single rows": {"batch_size": 1, "max_epochs": 1},
    "early stopping": {"early_stopping": True, "n_iter_no_change": 2, "tol": 0.5, "max_epochs": 20},
}


@pytest.mark.parametrize("name", CONFIGURATIONS)
@pytest.mark.parametrize("kind", [NeuralNetClassifier, NeuralNetRegressor])
def test_fits_are_those_of_torch(kind, name, monkeypatch, count_calls):
    data = (X, y) if kind is NeuralNetClassifier else (X_reg, y_reg)
    net = kind(**{**SETTINGS, **HIDDEN, **CONFIGURATIONS[name]})

    ours, torchs = fit_both_ways(net, *data, monkeypatch)

    assert count_calls() == len(ours.history)
    assert ours.module_.layers[0].weight.dtype == torch.float64
    assert_same(ours, torchs)


def test_float32(monkeypatch, count_calls):
    torch.set_default_dtype(torch.float32)
    data = make_classification(300, n_features=20, n_informative=8, n_classes=3, random_state=0)
    net = NeuralNetClassifier(
        module__hidden=(33, 16), module__dropout=0.3, max_epochs=2, random_state=0
    )

    ours, torchs = fit_both_ways(net, *data, monkeypatch)

    assert count_calls() == 2
    assert ours.module_.layers[0].weight.dtype == torch.float32
    assert_same(ours, torchs, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("kind", [NeuralNetClassifier, NeuralNetRegressor])
def test_weighted_rows(kind, monkeypatch, count_calls):
    data = (X, y) if kind is NeuralNetClassifier else (X_reg, y_reg)

    nets = fit_both_ways(kind(**SETTINGS), *data, monkeypatch, sample_weight=np.linspace(0, 3, 90))

    assert count_calls() == 4
    assert_same(*nets)


def test_class_weight(monkeypatch, count_calls):
    assert_same(
        *fit_both_ways(NeuralNetClassifier(class_weight="balanced", **SETTINGS), X, y, monkeypatch)
    )
    assert count_calls() == 4


def sequence(*layers):
    return nn.Sequential(*layers).double()


@pytest.mark.parametrize(
    "module",
    [
        sequence(nn.Linear(6, 3)),
        sequence(nn.Linear(6, 3, bias=False)),
        # a layer alone
        nn.Linear(6, 3).double(),
        nn.Linear(6, 3, bias=False).double(),
        sequence(
            nn.Dropout(0.2), nn.Linear(6, 9), nn.Dropout(0.5), nn.ReLU(), nn.Tanh(), nn.Linear(9, 3)
        ),
        sequence(
            nn.Tanh(),
            nn.Linear(6, 5, bias=False),
            nn.LeakyReLU(0.2),
            nn.Linear(5, 5),
            nn.Linear(5, 3),
        ),
        sequence(nn.Linear(6, 20), nn.ELU(0.5), nn.Dropout(0.0), nn.Linear(20, 3), nn.Sigmoid()),
        sequence(nn.Linear(6, 3), nn.Dropout(0.3)),
    ],
)
@pytest.mark.parametrize("penalties", [{}, {"l1": 1e-3, "l2": 1e-3}])
def test_sequences(module, penalties, monkeypatch, count_calls):
    assert_same(
        *fit_both_ways(NeuralNetClassifier(module, **SETTINGS, **penalties), X, y, monkeypatch)
    )
    assert count_calls() == 4


class Sorted(nn.ReLU):
    def forward(self, X):
        return super().forward(X).sort(dim=1).values


def hooked(module):
    module[0].register_forward_hook(lambda *args: None)
    return module


def with_gradient_hook(module):
    module[0].weight.register_hook(lambda gradient: 2 * gradient)
    return module


def frozen(module):
    module[0].requires_grad_(False)
    return module


class Overriding(NeuralNetClassifier):
    def get_loss(self, *args, **kwargs):
        return 2 * super().get_loss(*args, **kwargs)


class Listening(NeuralNetClassifier):
    def on_batch_end(self, *args, **kwargs):
        super().on_batch_end(*args, **kwargs)
        self.n_heard_ = getattr(self, "n_heard_", 0) + 1


def changed(change, *layers):
    """Return a module that has been changed, as a class whose instances are it."""
    module = sequence(
        *(layers or (nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 3)))
    )
    change(module)
    return module


def tie(module):
    module[2].weight = module[0].weight


def tie_bias(module):
    module[2].bias = module[0].bias


def keep_as_buffer(module):
    weight = module[2].weight.detach()
    del module[2].weight
    module[2].register_buffer("weight", weight)


def keep_bias_as_buffer(module):
    bias = module[2].bias.detach()
    del module[2].bias
    module[2].register_buffer("bias", bias)


def prune_and_remove(module):
    prune.l1_unstructured(module[2], "weight", 0.3)
    prune.remove(module[2], "weight")


def widen_bias(module):
    module[2].bias = nn.Parameter(torch.zeros(1, 6, dtype=torch.float64))


def add_parameter(module):
    module.extra = nn.Parameter(torch.zeros(5, dtype=torch.float64))


def share_memory(module):
    module[2].weight.data = module[0].weight.data


def double_outputs(module):
    module[1].forward = lambda X: 2 * torch.tanh(X)


def stay_in_evaluation(module):
    module.train = lambda mode=True: nn.Sequential.train(module, False)


CHANGES = (
    keep_as_buffer,
    keep_bias_as_buffer,
    widen_bias,
    add_parameter,
    share_memory,
    double_outputs,
    stay_in_evaluation,
)


class Looking(Callback):
    def on_grad_computed(self, net, **kwargs):
        pass


class Slots:
    __slots__ = ()

    def __call__(self, output, target):
        return nn.functional.cross_entropy(output, target)


BEYOND = {
    "an activation that learns": {"module": sequence(nn.Linear(6, 5), nn.PReLU(), nn.Linear(5, 3))},
    "an activation with a rounded derivative": {"module__activation": "hardsigmoid"},
    "another form of an activation": {
        "module": sequence(nn.Linear(6, 5), nn.CELU(0.7), nn.Linear(5, 3))
    },
    "a layer of the user's": {"module": sequence(nn.Linear(6, 5), Sorted(), nn.Linear(5, 3))},
    "a hook": {"module": hooked(sequence(nn.Linear(6, 3)))},
    "frozen weights": {"module": frozen(sequence(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3)))},
    "another criterion": {"criterion": nn.MultiMarginLoss},
    "a criterion without a dict": {"criterion": Slots},
    "ignored classes": {"criterion__ignore_index": 1},
    "another optimizer": {"optimizer": torch.optim.Rprop},
    "groups of parameters": {"optimizer__param_groups": [("layers.0.*", {"lr": 0.1})]},
    "a look at gradients": {"callbacks": [Looking()]},
    "another norm of gradients": {"callbacks": [GradientNormClipping(0.01, -1)]},
    "a look at batches": {
        "callbacks": [EpochScoring("accuracy", on_train=True, lower_is_better=False)]
    },
}


@pytest.mark.parametrize("name", BEYOND)
def test_what_is_beyond_them_is_left_alone(name, monkeypatch, count_calls):
    assert_same(
        *fit_both_ways(NeuralNetClassifier(**{**SETTINGS, **BEYOND[name]}), X, y, monkeypatch),
        rtol=0,
        atol=0,
    )
    assert count_calls() == 0


@pytest.mark.parametrize("change", CHANGES)
def test_changed_modules_are_left_alone(change, monkeypatch, count_calls):
    def fit():
        torch.manual_seed(0)
        module = changed(change)
        return NeuralNetClassifier(lambda: module, **SETTINGS).fit(X, y)

    ours = fit()
    assert count_calls() == 0
    monkeypatch.setattr(compiled, "enabled", False)
    assert_same(ours, fit(), rtol=0, atol=0)


@pytest.mark.parametrize("change", [tie, tie_bias, prune_and_remove])
def test_changed_modules_that_are_read(change, monkeypatch, count_calls):
    def fit():
        torch.manual_seed(0)
        module = changed(change)
        return NeuralNetClassifier(lambda: module, **SETTINGS).fit(X, y)

    ours = fit()
    assert count_calls() > 0
    monkeypatch.setattr(compiled, "enabled", False)
    assert_same(ours, fit())


@pytest.mark.parametrize("kind", [Overriding, Listening])
def test_overriding_nets_are_left_alone(kind, monkeypatch, count_calls):
    assert_same(*fit_both_ways(kind(**SETTINGS), X, y, monkeypatch), rtol=0, atol=0)
    assert count_calls() == 0


def test_hooks_of_weights_and_optimizers_are_called(count_calls):
    net, n_calls = NeuralNetClassifier(**SETTINGS).fit(X, y), []
    assert count_calls() == 4

    handle = net.module_.layers[0].weight.register_hook(lambda gradient: n_calls.append(1))
    net.partial_fit(X, y)
    handle.remove()
    handle = net.optimizer_.register_step_pre_hook(lambda *args: n_calls.append(1))
    net.partial_fit(X, y)
    handle.remove()

    assert (len(n_calls), count_calls()) == (48, 0)
    net.partial_fit(X, y)
    assert count_calls() == 4


def test_hooks_of_everything_are_called(count_calls):
    n_calls = []

    def note(*args):
        n_calls.append(1)

    for register in (register_module_forward_hook, register_optimizer_step_post_hook):
        handle = register(note)
        NeuralNetClassifier(**SETTINGS).fit(X, y)
        handle.remove()
        assert len(n_calls) >= 24
        n_calls.clear()
    assert count_calls() == 0


def test_replaced_methods_of_optimizers_and_criteria_are_called(count_calls):
    class Replace(Callback):
        def on_train_begin(self, net, **kwargs):
            part, name = getattr(net, self.part), self.name
            method = getattr(part, name)
            setattr(
                part, name, lambda *args, **kwargs: n_calls.append(1) or method(*args, **kwargs)
            )

        def __init__(self, part, name):
            self.part, self.name = part, name

    for part, name in [("optimizer_", "step"), ("criterion_", "forward")]:
        n_calls = []
        NeuralNetClassifier(**SETTINGS, callbacks=[Replace(part, name)]).fit(X, y)
        assert len(n_calls) == 24
    assert count_calls() == 0


def test_schedulers_of_torch_see_steps(count_calls):
    class Decay(Callback):
        def on_train_begin(self, net, **kwargs):
            self.scheduler_ = torch.optim.lr_scheduler.ExponentialLR(net.optimizer_, 0.5)

        def on_epoch_end(self, net, **kwargs):
            self.scheduler_.step()

    net = NeuralNetClassifier(**SETTINGS, callbacks=[Decay()]).fit(X, y)

    assert net.optimizer_.param_groups[0]["lr"] == pytest.approx(0.01 / 16)
    assert count_calls() == 0


def test_weights_that_are_frozen_for_a_while(monkeypatch, count_calls):
    freeze = [Freezer("layers.0.*"), Unfreezer("layers.0.*", at=3)]
    net = NeuralNetClassifier(**SETTINGS | {"max_epochs": 6}, callbacks=freeze)

    assert_same(*fit_both_ways(net, X, y, monkeypatch), rtol=0, atol=0)
    assert count_calls() == 0


def test_optimizers_of_the_users_own(count_calls):
    class Alternating(NeuralNetClassifier):
        def initialize_optimizer(self, *args, **kwargs):
            self.first_ = torch.optim.SGD(self.module_.parameters(), lr=0.1)
            return self

        def train_step(self, batch, **fit_params):
            self.first_.zero_grad()
            step = self.train_step_single(batch)
            self.first_.step()
            return step

    net = Alternating(**SETTINGS).fit(X, y)

    assert net.history[-1, "train_loss"] < net.history[0, "train_loss"]
    assert count_calls() == 0


def test_gradients_are_those_of_the_last_batch(monkeypatch, count_calls):
    options = {"module__dropout": 0.3, "l1": 0.01, "l2": 0.01}
    ours, torchs = fit_both_ways(NeuralNetClassifier(**SETTINGS, **options), X, y, monkeypatch)

    assert count_calls() == 4
    for p, expected in zip(ours.module_.parameters(), torchs.module_.parameters(), strict=True):
        torch.testing.assert_close(p.grad, expected.grad, rtol=1e-7, atol=1e-12)


def test_masks_of_a_pass_between_epochs(monkeypatch, count_calls):
    class Sample(Callback):
        def on_epoch_end(self, net, **kwargs):
            net.module_.train()
            with torch.no_grad():
                samples.append([net.module_(torch.from_numpy(X[:3])) for _ in "ab"])

    samples = []
    net = NeuralNetClassifier(**SETTINGS, module__dropout=0.5, callbacks=[Sample()])
    fit_both_ways(net, X, y, monkeypatch)

    assert count_calls() == 4
    for ours, torchs in zip(samples[:4], samples[4:], strict=True):
        torch.testing.assert_close(ours, torchs, rtol=1e-8, atol=1e-12)


def test_slow_moments_in_float32(monkeypatch, count_calls):
    data = make_classification(300, n_features=20, n_informative=8, n_classes=3, random_state=0)
    net = NeuralNetClassifier(optimizer__betas=(0.9, 0.99999), max_epochs=1, random_state=0)

    ours, torchs = fit_both_ways(net, *data, monkeypatch)

    assert count_calls() == 1
    for one, other in zip(
        ours.optimizer_.state.values(), torchs.optimizer_.state.values(), strict=True
    ):
        torch.testing.assert_close(one["exp_avg_sq"], other["exp_avg_sq"], rtol=1e-4, atol=1e-12)


def test_the_slope_of_units_far_below_zero(monkeypatch, count_calls):
    module = sequence(nn.Linear(6, 5), nn.ELU(), nn.Linear(5, 3))
    with torch.no_grad():
        module[0].bias.fill_(-30)
    net = NeuralNetClassifier(module, **SETTINGS | {"lr": 0.1}, optimizer__eps=1e-16)

    assert_same(*fit_both_ways(net, X, y, monkeypatch), rtol=1e-7)
    assert count_calls() == 4


@pytest.mark.parametrize("rows", [[0, 1, 2, 10**9], [0, 1, 2, -200]])
def test_rows_that_are_not_there_raise(rows):
    def split(dataset, y=None, **kwargs):
        return torch.utils.data.Subset(dataset, rows), None

    with pytest.raises(IndexError, match="out of bounds"):
        NeuralNetClassifier(**SETTINGS, train_split=split).fit(X, y)


def test_rows_may_be_told_in_any_integers(monkeypatch, count_calls):
    def split(dataset, y=None, **kwargs):
        return torch.utils.data.Subset(dataset, np.arange(-50, 30, dtype=np.int32)), None

    assert_same(
        *fit_both_ways(NeuralNetClassifier(**SETTINGS, train_split=split), X, y, monkeypatch)
    )
    assert count_calls() == 4
    assert len(loading.load_kernels(np.dtype(np.float64)).train_steps.signatures) <= 2


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_steps_are_counted_as_torch_does(dtype, monkeypatch, count_calls):
    torch.set_default_dtype(dtype)
    try:
        ours, torchs = fit_both_ways(
            NeuralNetClassifier(**SETTINGS, module__dtype=torch.float64), X, y, monkeypatch
        )
    finally:
        torch.set_default_dtype(torch.float32)

    assert count_calls() == 4
    for one, other in zip(
        ours.optimizer_.state.values(), torchs.optimizer_.state.values(), strict=True
    ):
        assert (one["step"], one["step"].dtype) == (other["step"], other["step"].dtype)


def test_what_torch_refuses_is_refused(count_calls):
    with pytest.raises(AssertionError, match="capturable"):
        NeuralNetClassifier(**SETTINGS, optimizer__capturable=True, optimizer__fused=False).fit(
            X, y
        )
    with torch.inference_mode(), pytest.raises(RuntimeError, match="does not require grad"):
        NeuralNetClassifier(**SETTINGS).fit(X, y)
    assert count_calls() == 0


def test_modules_with_gradient_hooks_are_left_alone(count_calls):
    module = with_gradient_hook(sequence(nn.Linear(6, 3)))
    net = NeuralNetClassifier(**SETTINGS, module=lambda: module).fit(X, y)

    assert net.module_ is module
    assert count_calls() == 0


def test_steps_of_other_types_are_left_alone(monkeypatch, count_calls):
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda kind: True)
    NeuralNetClassifier(**SETTINGS).fit(X, y)

    assert count_calls() == 0


def test_the_mlp_flattens_images_as_it_does_by_torch(monkeypatch, count_calls):
    images = np.random.default_rng(0).normal(size=(120, 2, 3))
    labels = np.arange(120) % 3

    net = NeuralNetClassifier(**SETTINGS)
    assert_same(*fit_both_ways(net, images, labels, monkeypatch))
    assert count_calls() > 0


def test_large_steps_are_left_to_threads(monkeypatch, count_calls):
    monkeypatch.setattr("sktune.modules.work._LEAST_TO_DIVIDE", 16 * (6 * 128 + 128 + 128 * 3 + 3))
    with limited_threads(2):
        NeuralNetClassifier(**SETTINGS).fit(X, y)
        assert count_calls() == 0
        NeuralNetClassifier(**SETTINGS, module__hidden=(127,)).fit(X, y)
        assert count_calls() == 4
    with limited_threads(1):
        NeuralNetClassifier(**SETTINGS).fit(X, y)
        assert count_calls() == 4


@pytest.mark.parametrize(
    ("hidden", "is_taken"), [((4096,), True), ((4097,), False), ((8, 4097), False)]
)
def test_wide_layers_are_left_to_torch(hidden, is_taken, count_calls):
    NeuralNetClassifier(**SETTINGS | {"max_epochs": 1}, module__hidden=hidden).fit(X, y)
    assert count_calls() == is_taken


def test_large_tables_are_left_to_torch(monkeypatch, count_calls):
    monkeypatch.setattr(compiled, "_LARGEST", 16 * 128)
    NeuralNetClassifier(**SETTINGS | {"max_epochs": 1}).fit(X, y)
    assert count_calls() == 1
    net = NeuralNetClassifier(**SETTINGS | {"max_epochs": 1, "batch_size": 17}).fit(X, y)
    assert count_calls() == 0
    report = GridSearchCV(net, {"lr": [0.01, 0.02]}, cv=2, refit=False).fit(X, y).fusion_
    reason = "its widest layer has 128 units for 17 rows"
    assert report.groups[0]["blockers"]["compiled"].startswith(reason)


def test_training_goes_on_where_it_ended(monkeypatch, count_calls):
    nets = []
    for is_enabled in (True, False):
        monkeypatch.setattr(compiled, "enabled", is_enabled)
        net = (
            NeuralNetClassifier(**SETTINGS, warm_start=True).fit(X, y).fit(X, y).set_params(lr=0.1)
        )
        net = pickle.loads(pickle.dumps(net.partial_fit(X, y)))
        monkeypatch.setattr(
            compiled, "enabled", not is_enabled
        )  # each goes on with what the other has left
        nets.append(net.fit(X, y))

    assert count_calls() == 16
    assert_same(*nets)


def test_callbacks_between_epochs(monkeypatch, count_calls):
    class Shrink(Callback):
        def on_epoch_end(self, net, **kwargs):
            with torch.no_grad():
                net.module_.layers[0].weight.mul_(0.9)

    class Slow(Callback):
        def on_epoch_begin(self, net, **kwargs):
            net.set_params(lr=0.1 / len(net.history))

    accuracy = EpochScoring("accuracy", lower_is_better=False, name="accuracy")
    net = NeuralNetClassifier(**SETTINGS, callbacks=[Slow(), Shrink(), accuracy], train_split=None)

    assert_same(*fit_both_ways(net, X, y, monkeypatch))
    assert count_calls() == 4


def test_divergence_is_told_in_the_same_words(monkeypatch):
    class Keep(Callback):
        def on_epoch_begin(self, net, **kwargs):
            histories.append(net.history)

    messages, histories = [], []
    for is_enabled in (True, False):
        monkeypatch.setattr(compiled, "enabled", is_enabled)
        net = NeuralNetClassifier(
            **{**SETTINGS, "lr": 1e300, "optimizer": torch.optim.SGD}, callbacks=[Keep()]
        )
        with pytest.raises(ArithmeticError, match="training must stay finite") as caught:
            net.fit(X * 1e3, y)
        messages.append(str(caught.value))

    assert messages[0] == messages[1]
    assert len(histories[0][-1]["batches"]) == len(histories[-1][-1]["batches"]) > 1


def test_targets_beyond_the_outputs_raise(count_calls):
    with pytest.raises(ValueError, match="module's output must have shape"):
        NeuralNetClassifier(**SETTINGS, module__n_outputs=2).fit(X, y)
    with pytest.raises(ValueError, match="module's output must have shape"):
        NeuralNetClassifier(**SETTINGS, module__n_outputs=4).fit(X, y)
    with pytest.raises(ValueError, match="module's output must have shape"):
        NeuralNetRegressor(**SETTINGS, module__n_outputs=3).fit(X_reg, y_reg)
    assert count_calls() == 0


def test_widths_that_do_not_fit_raise(count_calls):
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        NeuralNetClassifier(sequence(nn.Linear(5, 3)), **SETTINGS).fit(X, y)
    assert count_calls() == 0


@pytest.mark.parametrize("name", ["LINEAR", "DROPOUT_LAYER", "unknown"])
def test_an_opcode_that_is_no_activation_raises(name):
    opcodes = importlib.import_module("sktune.engine.compiled.opcodes")
    activations = importlib.import_module("sktune.engine.compiled.activations.choosing")
    opcode = getattr(opcodes, name, 99)

    with pytest.raises(ValueError, match="opcode must be one of"):
        activations.activate(opcode, 0.0, 0.0, np.ones(3), np.ones(3))


def test_one_kernel_serves_all_of_a_type():
    """A second one would be compiled for seconds."""
    for kind, data in [(NeuralNetClassifier, (X, y)), (NeuralNetRegressor, (X_reg, y_reg))]:
        for options in (
            {},
            {"shuffle": False},
            {"lr_schedule": "cosine"},
            {"optimizer": torch.optim.SGD, "l1": 0.1},
        ):
            kind(**SETTINGS, **options).fit(*data)
    kernels = loading.load_kernels(np.dtype(np.float64))
    kernels_32 = loading.load_kernels(np.dtype(np.float32))

    assert kernels is kernels_32
    assert len(kernels.train_steps.signatures) == 2


def test_many_steps_are_several_calls(monkeypatch):
    whole = NeuralNetClassifier(**SETTINGS, module__dropout=0.3).fit(X, y)
    monkeypatch.setattr(compiled, "_MOST_STEPS", 2)

    assert_same(
        NeuralNetClassifier(**SETTINGS, module__dropout=0.3).fit(X, y), whole, rtol=0, atol=0
    )


@pytest.mark.parametrize("fault", ["import", "compiler", "number"])
def test_a_numba_that_does_not_work(fault, monkeypatch, count_calls):
    def broken(*args):
        raise TypeError("no such processor")

    kernels = loading.load_kernels(np.dtype(np.float64))
    loading.load_kernels.cache_clear()
    if fault == "import":
        monkeypatch.setitem(sys.modules, "sktune.engine.compiled.kernels", None)
        monkeypatch.delattr("sktune.engine.compiled.kernels")
    else:
        wrong = broken if fault == "compiler" else lambda *args: np.array([0.5])
        monkeypatch.setattr(kernels, "train_steps", wrong)
    try:
        with pytest.warns(
            RuntimeWarning, match="Numba cannot be used, and networks train without it"
        ):
            NeuralNetClassifier(**SETTINGS).fit(X, y)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            NeuralNetClassifier(**SETTINGS).fit(X, y)
    finally:
        loading.load_kernels.cache_clear()
    assert count_calls() == 0


def test_without_numba(monkeypatch, count_calls):
    loading.load_kernels.cache_clear()
    with monkeypatch.context() as patch:
        patch.setattr(loading, "find_spec", lambda name: None)
        net = NeuralNetClassifier(**SETTINGS).fit(X, y)
    loading.load_kernels.cache_clear()

    assert count_calls() == 0
    assert isinstance(net.module_, MLP)


def test_the_user_can_switch_them_off():
    code = "from sktune.engine.compiled import program; print(program.enabled)"
    for value, expected in [("0", "False"), ("1", "True")]:
        env = {**os.environ, "SKTUNE_COMPILED": value}
        out = subprocess.run(
            [sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True
        ).stdout
        assert out.strip() == expected
