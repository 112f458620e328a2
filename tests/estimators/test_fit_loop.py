import copy
import pickle
import random
from functools import partial

import joblib
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import clone
from sklearn.exceptions import FitFailedWarning
from sklearn.model_selection import GridSearchCV
from sklearn.utils import check_random_state
from skorch.callbacks import (
    Callback,
    Checkpoint,
    EarlyStopping,
    EpochScoring,
    GradientNormClipping,
    LRScheduler,
)
from skorch.dataset import Dataset, ValidSplit
from skorch.exceptions import DeviceWarning, SkorchTrainingImpossibleError
from torch import nn
from torch.nn import functional as F

from sktune import MLP, DivergenceError, NeuralNetClassifier, NeuralNetRegressor
from sktune.engine.compiled import program as compiled
from sktune.runtime.seeds import INIT, mask_key, mix, permutation, random_int16, seeded
from sktune.training.divergence import find_infinite
from sktune.training.schedules import lr_factors

# The generator that the functions of numpy.random draw from.
NUMPY = check_random_state(None)
rng = np.random.RandomState(0)
X = rng.randn(130, 3)
y = (X[:, 0] + X[:, 1] ** 2 > 1).astype(int)
LABELS = np.where(y, "yes", "no")


def make_net(kind=NeuralNetClassifier, **params):
    hidden = {} if "module" in params else {"module__hidden": (5,)}
    return kind(
        **{"max_epochs": 3, "batch_size": 32, "lr": 0.01, "random_state": 0, **hidden, **params}
    )


def weights_of(net):
    return {name: tensor.clone() for name, tensor in net.module_.state_dict().items()}


def assert_same_weights(net, other, atol=0.0):
    ours, theirs = (weights_of(n) if not isinstance(n, dict) else n for n in (net, other))
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        torch.testing.assert_close(tensor, theirs[name], rtol=0, atol=atol)


def differ(net, other):
    return any(
        not torch.equal(a, b)
        for a, b in zip(weights_of(net).values(), weights_of(other).values(), strict=True)
    )


def global_states():
    return torch.get_rng_state().tolist(), NUMPY.get_state()[1].tolist(), random.getstate()


# --- the loop, against one written by hand --------------------------------------------------------


def train_by_hand(
    X, y, *, seed, epochs, batch_size, optimizer, l1=0, l2=0, p=0, weight=None, factor=lambda t: 1.0
):
    """Return the weights of an MLP with two hidden layers, trained with nothing but torch."""
    with seeded(mix(seed, INIT)):
        module = MLP(X.shape[1], int(y.max()) + 1, hidden=(7, 5), dtype=torch.float64)
    layers = [layer for layer in module.layers if isinstance(layer, nn.Linear)]
    X, y = torch.tensor(X), torch.tensor(y)
    weight = torch.ones(len(X)) if weight is None else torch.tensor(weight / weight.mean())
    steps = optimizer(module.parameters())
    rates = [group["lr"] for group in steps.param_groups]
    for epoch in range(epochs):
        batches = permutation(len(X), seed, epoch).split(batch_size)
        for i, rows in enumerate(batches):
            for group, rate in zip(steps.param_groups, rates, strict=True):
                group["lr"] = rate * factor(epoch + i / len(batches))
            hidden = X[rows]
            for number, layer in enumerate(layers[:-1]):
                hidden = torch.relu(hidden @ layer.weight.T + layer.bias)
                key = torch.tensor([mask_key(seed, epoch, i, number, 0)], dtype=torch.int32)
                kept = (
                    random_int16(key, hidden.numel()).view_as(hidden).double()
                    >= round(p * 65536) - 32768
                )
                hidden = hidden * kept / (1 - p)
            logits = hidden @ layers[-1].weight.T + layers[-1].bias
            losses = -torch.log_softmax(logits, 1)[torch.arange(len(rows)), y[rows]]
            loss = (losses * weight[rows]).mean()
            loss = loss + sum(
                l1 * layer.weight.abs().sum() + l2 * (layer.weight**2).sum() for layer in layers
            )
            steps.zero_grad()
            loss.backward()
            steps.step()
    return module.state_dict()


adamw = partial(torch.optim.AdamW, lr=0.01, fused=False)
WEIGHT = rng.uniform(0.1, 3, 130)
# name: (parameters of the net, what they mean to a loop, sample weights)
SETTINGS = {
    "plain": ({}, {}, None),
    "weight decay": (
        {"optimizer__weight_decay": 0.3},
        {"optimizer": partial(adamw, weight_decay=0.3)},
        None,
    ),
    "l1": ({"l1": 0.02}, {"l1": 0.02}, None),
    "l2": ({"l2": 0.02}, {"l2": 0.02}, None),
    "dropout": ({"module__dropout": 0.3}, {"p": 0.3}, None),
    "sample weight": ({}, {"weight": WEIGHT}, WEIGHT),
    "step": (
        {"lr_schedule": "step", "lr_schedule__step_size": 2, "lr_schedule__gamma": 0.5},
        {"factor": lambda t: 0.5 ** (t // 2)},
        None,
    ),
    "cosine": (
        {"lr_schedule": "cosine"},
        {"factor": lambda t: (1 + np.cos(np.pi * t / 4)) / 2},
        None,
    ),
    "warm-up": (
        {"lr_schedule__warmup": 2},
        {"factor": lambda t: min(1, 0.01 + 0.99 * t / 2)},
        None,
    ),
    "callable": (
        {"lr_schedule": lambda t, n: 1 - t / (2 * n)},
        {"factor": lambda t: 1 - t / 8},
        None,
    ),
    "momentum": (
        {"optimizer": torch.optim.SGD, "optimizer__momentum": 0.9},
        {"optimizer": partial(torch.optim.SGD, lr=0.01, momentum=0.9, fused=False)},
        None,
    ),
    "RMSprop": (
        {"optimizer": torch.optim.RMSprop},
        {"optimizer": partial(torch.optim.RMSprop, lr=0.01)},
        None,
    ),
    "all": (
        {
            "l1": 0.01,
            "l2": 0.02,
            "module__dropout": 0.4,
            "lr_schedule": "exponential",
            "optimizer__weight_decay": 0.1,
        },
        {
            "l1": 0.01,
            "l2": 0.02,
            "p": 0.4,
            "factor": lambda t: 0.95**t,
            "optimizer": partial(adamw, weight_decay=0.1),
        },
        WEIGHT,
    ),
}
SETTINGS["all"][1]["weight"] = WEIGHT


@pytest.mark.parametrize("name", SETTINGS)
def test_fit_is_the_loop_that_one_would_write(name):
    params, by_hand, sample_weight = SETTINGS[name]
    net = NeuralNetClassifier(
        **{"lr": 0.01, "max_epochs": 4, "batch_size": 32, "random_state": 3, **params},
        module__hidden=(7, 5),
        module__dtype=torch.float64,
    )

    expected = train_by_hand(
        X, y, **{"seed": 3, "epochs": 4, "batch_size": 32, "optimizer": adamw, **by_hand}
    )

    assert_same_weights(net.fit(X, y, sample_weight=sample_weight), expected, atol=1e-10)


@pytest.mark.parametrize("fused", [False, True])
def test_optimizer_implementations_agree(fused):
    net = make_net(module__dtype=torch.float64).fit(X, y)
    asked = make_net(module__dtype=torch.float64, optimizer__fused=fused).fit(X, y)

    assert asked.optimizer_.defaults["fused"] is fused
    assert_same_weights(net, asked, atol=1e-12)


def test_find_infinite_names_the_first_floating_tensor_that_is_not_finite():
    finite = [("a", torch.zeros(2)), ("n", torch.tensor([1]))]
    infinite = [("b", torch.tensor([0.0, torch.inf])), ("c", torch.tensor([torch.nan]))]
    assert find_infinite(finite) is None
    assert find_infinite(finite + infinite) == "b"
    assert find_infinite(finite + infinite[1:]) == "c"


@pytest.mark.parametrize(("l1", "l2"), [(0.3, 0.0), (0.0, 0.2), (0.3, 0.2)])
def test_penalty_is_on_weights_only(l1, l2):
    net = make_net(module__batch_norm=True, module__dtype=torch.float64, l1=l1, l2=l2).fit(X, y)
    penalty = net._penalty()
    net.module_.zero_grad()
    penalty.backward()

    weights = {name: p for name, p in net.module_.named_parameters() if p.ndim > 1}
    values = [p.detach() for p in weights.values()]
    expected = sum(float(l1 * w.abs().sum() + l2 * w.square().sum()) for w in values)
    assert float(penalty.detach()) == pytest.approx(expected)
    assert sorted(weights) == ["layers.0.weight", "layers.4.weight"]
    for name, p in net.module_.named_parameters():
        if name in weights:
            torch.testing.assert_close(p.grad, l1 * p.detach().sign() + 2 * l2 * p.detach())
        else:
            assert p.grad is None


def test_penalty_counts_in_training_and_not_in_validation():
    heavy = make_net(l2=100.0, lr=1e-9, max_epochs=1, train_split=ValidSplit(5)).fit(X, y)

    assert heavy.history[0, "train_loss"] > 100
    assert heavy.history[0, "valid_loss"] < 2


# --- repeatability --------------------------------------------------------------------------------


class Noisy(nn.Module):
    """Draws random numbers of its own."""

    def __init__(self, n_features, n_outputs):
        super().__init__()
        self.layer = nn.Linear(n_features, n_outputs)

    def forward(self, X):
        noise = torch.rand(X.shape) if self.training else 0.5
        return self.layer(F.dropout(X, 0.4, self.training) * (noise + 0.5))


def test_own_randomness_is_new_in_each_epoch():
    class Recording(Noisy):
        drawn = []

        def forward(self, X):
            if self.training:
                self.drawn.append(float(torch.rand(())))
            return super().forward(X)

    make_net(module=Recording).fit(X, y)

    assert len(set(Recording.drawn)) == len(Recording.drawn) == 15


MODULES = {"MLP": {"module__dropout": 0.5}, "own randomness": {"module": Noisy}}


@pytest.mark.parametrize("params", MODULES.values(), ids=MODULES)
def test_fit_repeats_whatever_ran_before_and_touches_no_global_state(params):
    before, numpy_before = global_states(), NUMPY.get_state()
    try:
        torch.manual_seed(1)
        NUMPY.seed(1)
        random.seed(1)
        first = make_net(**params).fit(X, y)
        torch.manual_seed(2)
        NUMPY.seed(2)
        states = global_states()
        second = make_net(**params).fit(X, y)
        assert global_states() == states
        torch.rand(3)
        assert_same_weights(second, first)
        assert_same_weights(second.fit(X, y), first)
        assert differ(make_net(**params).set_params(random_state=1).fit(X, y), first)
    finally:
        torch.set_rng_state(torch.tensor(before[0], dtype=torch.uint8))
        random.setstate(before[2])
        NUMPY.set_state(numpy_before)


@pytest.mark.parametrize("params", MODULES.values(), ids=MODULES)
def test_fits_in_threads_do_not_meet(params):
    def fit(seed):
        return make_net(**params).set_params(random_state=seed).fit(X, y)

    together = joblib.Parallel(n_jobs=4, backend="threading")(
        joblib.delayed(fit)(seed) for seed in range(8)
    )

    for seed, net in enumerate(together):
        assert_same_weights(net, fit(seed))


def test_random_state_instance_moves_on():
    first, second = (
        make_net(random_state=state).fit(X, y) for state in [np.random.RandomState(0)] * 2
    )
    again = make_net(random_state=np.random.RandomState(0)).fit(X, y)

    assert differ(first, second)
    assert_same_weights(first, again)


def test_no_random_state_follows_numpy_s():
    before = NUMPY.get_state()
    try:
        NUMPY.seed(0)
        first, second = (make_net(random_state=None).fit(X, y) for _ in range(2))
        NUMPY.seed(0)
        again = make_net(random_state=None).fit(X, y)
    finally:
        NUMPY.set_state(before)

    assert differ(first, second)
    assert_same_weights(first, again)


def test_shuffle():
    batches = []

    class Spy(NeuralNetClassifier):
        def train_step(self, batch, **fit_params):
            batches.append(batch[0])
            return super().train_step(batch, **fit_params)

    make_net(Spy, shuffle=False, max_epochs=2, module__dtype=torch.float64).fit(X, y)

    assert torch.equal(torch.cat(batches), torch.tensor(np.r_[X, X]))


@pytest.mark.parametrize("dropout", [nn.Dropout, nn.Dropout2d])
def test_dropout_of_any_module_follows_from_the_seed(dropout):
    layers = [nn.Unflatten(1, (3, 1, 1)), dropout(0.5), nn.Flatten(), nn.Linear(3, 2)]
    nets = [make_net(module=nn.Sequential(*layers)) for _ in range(2)]
    first = nets[0].fit(X, y)
    torch.rand(1)

    assert_same_weights(nets[1].fit(X, y), first)


@pytest.mark.parametrize("params", MODULES.values(), ids=MODULES)
@pytest.mark.parametrize(
    "copies", [copy.deepcopy, lambda net: pickle.loads(pickle.dumps(net))], ids=["copy", "pickle"]
)
def test_interrupted_training_equals_uninterrupted(params, copies):
    through = make_net(**params, max_epochs=5).fit(X, y)
    half = copies(make_net(**params).set_params(max_epochs=2).fit(X, y))
    half.set_params(max_epochs=3).partial_fit(X, y)

    assert_same_weights(half, through)
    assert half.history[:, "train_loss"] == through.history[:, "train_loss"]


def test_instance_of_a_module_stays_as_it_is():
    module = nn.Sequential(nn.Linear(3, 4), nn.Dropout(0.5), nn.Linear(4, 2))
    before = copy.deepcopy(module.state_dict())
    net = make_net(module=module)
    first = weights_of(net.fit(X, y))

    assert net.module is module
    assert type(module[1]) is nn.Dropout
    torch.testing.assert_close(module.state_dict(), before, rtol=0, atol=0)
    assert_same_weights(net.fit(X, y), first)
    assert_same_weights(clone(net).fit(X, y), first)


class Criterion(nn.Module):
    """A criterion with weights of its own."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.rand(1))

    def forward(self, y_pred, y_true):
        return F.cross_entropy(y_pred * self.scale, y_true)


class TwoModules(NeuralNetClassifier):
    """A net with a second module and a second learning rate."""

    def initialize_module(self):
        super().initialize_module()
        self.head_ = nn.Linear(2, 2, **self.get_params_for("head"))
        return self

    def infer(self, x, **fit_params):
        return self.head_(super().infer(x, **fit_params))


def test_second_module_and_criterion_are_seeded_trained_and_pickled():
    nets = []
    for _ in range(2):
        torch.rand(1)
        states = global_states()
        params = {
            "head__bias": False,
            "module__dtype": torch.float32,
            "module__hidden": (5,),
            "lr": 0.01,
        }
        nets.append(
            TwoModules(criterion=Criterion, max_epochs=3, random_state=0, **params).fit(X, y)
        )
        assert global_states() == states
    first, second = nets
    started = TwoModules(
        criterion=Criterion, max_epochs=1, lr=1e-12, random_state=0, module__hidden=(5,)
    ).fit(X, y)

    assert first.head_.bias is None
    assert torch.equal(first.head_.weight, second.head_.weight)
    assert torch.equal(first.criterion_.scale, second.criterion_.scale)
    assert not torch.equal(first.criterion_.scale, started.criterion_.scale)
    assert np.array_equal(
        pickle.loads(pickle.dumps(first)).predict_proba(X), first.predict_proba(X)
    )
    assert clone(first).set_params(head__bias=True).fit(X, y).head_.bias is not None


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_by_gradient_descent_learns(dtype):
    net = make_net(
        optimizer=torch.optim.SGD, lr=0.1, max_epochs=20, module__dtype=dtype, module__hidden=(16,)
    )
    exact = clone(net).set_params(module__dtype=torch.float32).fit(X, y)

    net.fit(X, y)

    assert net.history[-1, "train_loss"] == pytest.approx(exact.history[-1, "train_loss"], abs=0.02)
    assert net.predict_proba(X).dtype == np.float32


# --- learning rates -------------------------------------------------------------------------------


class Rates(Callback):
    """Notes the learning rate of each step."""

    def initialize(self):
        self.rates = []
        return self

    def on_batch_end(self, net, **kwargs):
        self.rates.append(net.optimizer_.param_groups[0]["lr"])


def test_rate_changes_with_each_step():
    net = make_net(lr_schedule="cosine", max_epochs=2, callbacks=[("rates", Rates())]).fit(X, y)

    t = np.arange(10) / 5
    assert dict(net.callbacks_)["rates"].rates == pytest.approx(
        0.01 * (1 + np.cos(np.pi * t / 2)) / 2
    )


@given(st.sampled_from(["constant", "cosine", "one_cycle"]), st.integers(0, 3))
@settings(max_examples=8, deadline=None)
def test_rate_is_visible_in_the_optimizer(schedule, warmup):
    net = make_net(lr_schedule=schedule, lr_schedule__warmup=warmup).fit(X, y)

    assert net.optimizer_.param_groups[0]["lr"] == pytest.approx(
        0.01 * lr_factors(schedule, 2.8, 3, warmup=warmup)
    )


def test_schedule_keeps_the_ratios_of_parameter_groups():
    net = make_net(
        lr_schedule="exponential", optimizer__param_groups=[("layers.0*", {"lr": 0.1})]
    ).fit(X, y)

    first, rest = (group["lr"] for group in net.optimizer_.param_groups)
    assert first == pytest.approx(10 * rest)


def test_scheduler_callback_of_skorch_sets_the_rate():
    scheduler = LRScheduler(torch.optim.lr_scheduler.StepLR, step_size=1, gamma=0.5)
    net = make_net(callbacks=[scheduler]).fit(X, y)

    assert net.history[:, "event_lr"] == [0.01, 0.005, 0.0025]


@pytest.mark.parametrize("schedule", ["constant", "time"])
def test_set_params_changes_the_rate_of_a_fitted_net(schedule):
    net = make_net(lr_schedule=schedule).fit(X, y).set_params(lr=0.5)
    assert net.optimizer_.param_groups[0]["lr"] == 0.5

    net.set_params(max_epochs=1).partial_fit(X, y)

    assert net.optimizer_.param_groups[0]["lr"] > 0.3


def _rates_of(fit, net):
    """Return the learning rates of the steps of one call."""
    fit(net)
    return dict(net.callbacks_)["rates"].rates


@pytest.mark.parametrize(
    "params",
    [
        {"lr_schedule": "cosine"},
        {"lr_schedule": "one_cycle"},
        {"lr_schedule": "exponential"},
        {"lr_schedule__warmup": 2},
        {"lr_schedule": lambda t, max_epochs: 1 - t / (2 * max_epochs)},
    ],
    ids=["cosine", "one_cycle", "exponential", "warmup", "callable"],
)
@pytest.mark.parametrize("method", ["fit", "partial_fit"])
def test_each_call_starts_its_schedule_anew(method, params):
    class Anew(Rates):
        def on_train_begin(self, net, **kwargs):
            self.rates = []

    net = make_net(**params, max_epochs=3, warm_start=True, callbacks=[("rates", Anew())])

    first, second = (_rates_of(lambda net: getattr(net, method)(X, y), net) for _ in range(2))

    assert second == first
    assert len(net.history) == 6
    assert len(set(first)) > 1


def test_a_second_fit_under_a_schedule_moves_the_weights_by_compiled_steps_too():
    net = make_net(lr_schedule="cosine", warm_start=True).fit(X, y)
    before = net.module_.layers[0].weight.detach().clone()

    net.fit(X, y)

    assert (net.module_.layers[0].weight - before).abs().max() > 1e-3


def test_a_schedule_is_planned_for_the_epochs_of_its_call():
    sizes = {"module__n_features": 3, "module__n_outputs": 2}
    net = make_net(lr_schedule="cosine", max_epochs=40, callbacks=[("rates", Rates())], **sizes)

    net.initialize().fit_loop(X.astype(np.float32), y, epochs=2)

    t = np.arange(10) / 5
    assert dict(net.callbacks_)["rates"].rates == pytest.approx(
        0.01 * (1 + np.cos(np.pi * t / 2)) / 2
    )


# --- set_params on a fitted net -------------------------------------------------------------------


@pytest.mark.parametrize(
    "params",
    [
        {"lr": 0.3},
        {"optimizer__weight_decay": 0.9},
        {"optimizer": torch.optim.SGD},
        {"module__hidden": (3,)},
        {"module": Noisy, "module__hidden": None},
        {"criterion": nn.MultiMarginLoss},
        {"lr_schedule": "cosine", "lr_schedule__warmup": 1},
        {"iterator_train__drop_last": True},
        {"batch_size": 7, "l1": 0.1, "max_epochs": 2},
        {"random_state": 9},
    ],
    ids=lambda params: next(iter(params)),
)
def test_set_params_and_fit_again_equals_a_new_net(params):
    start = {"max_epochs": 2, "random_state": 0, "lr": 0.01, "batch_size": 32}
    start |= {} if "module" in params else {"module__hidden": (5,)}
    params = {name: value for name, value in params.items() if value is not None}

    changed = NeuralNetClassifier(**start).fit(X, y).set_params(**params)

    assert {name: changed.get_params()[name] for name in params} == params
    assert_same_weights(changed.fit(X, y), NeuralNetClassifier(**{**start, **params}).fit(X, y))


def hidden_widths(net):
    return [p.shape[0] for p in net.module_.parameters() if p.ndim > 1]


@pytest.mark.parametrize(
    "params",
    [
        {"module__hidden": (6, 2)},
        {"module": Noisy},
        {"criterion": nn.NLLLoss},
        {"criterion__label_smoothing": 0.1},
    ],
    ids=lambda params: next(iter(params)),
)
def test_set_params_leaves_what_was_trained_until_the_next_fit(params):
    net = make_net().fit(X, y)
    before = weights_of(net)
    expected = net.predict_proba(X)

    net.set_params(**params)

    assert_same_weights(net, before)
    assert np.array_equal(net.predict_proba(X), expected)


@pytest.mark.parametrize("method", ["fit", "partial_fit"])
def test_set_params_builds_the_module_anew_when_training_goes_on(method, capsys):
    net = make_net(warm_start=True).fit(X, y).set_params(module__hidden=(6, 2), verbose=1)

    getattr(net, method)(X, y)

    assert hidden_widths(net) == [6, 2, 2]
    assert (
        "Re-initializing module because these were set: module__hidden." in capsys.readouterr().out
    )


def test_set_params_after_load_params_keeps_what_was_loaded(tmp_path):
    trained = make_net().fit(X, y)
    trained.save_params(f_params=tmp_path / "weights.pt")
    sizes = {"module__n_features": 3, "module__n_outputs": 2}
    net = make_net(**sizes).initialize()
    net.load_params(f_params=tmp_path / "weights.pt")

    assert_same_weights(net.set_params(module__dropout=0.3), trained)


def test_set_params_of_an_untrained_net_builds_the_module_at_once():
    sizes = {"module__n_features": 3, "module__n_outputs": 2}
    net = make_net(**sizes).initialize().set_params(module__hidden=(6, 2))

    assert hidden_widths(net) == [6, 2, 2]


def test_set_params_by_a_callback_takes_effect_at_once():
    class Widen(Callback):
        def on_train_begin(self, net, **kwargs):
            if len(net.history) == 3:
                net.set_params(module__hidden=(9,))

    net = make_net(callbacks=[Widen()]).fit(X, y).partial_fit(X, y)

    assert hidden_widths(net) == [9, 2]


def test_set_params_of_callbacks():
    net = make_net(verbose=1).set_params(callbacks__print_log=None)

    assert dict(net.fit(X, y).callbacks_).get("print_log") is None
    assert (
        make_net().fit(X, y).set_params(callbacks=[EarlyStopping()]).callbacks_[-1][0]
        == "print_log"
    )


# --- early stopping and validation ----------------------------------------------------------------


def test_all_rows_are_trained_on_by_default():
    net = make_net().fit(X, y)

    assert sum(net.history[0, "batches", :, "train_batch_size"]) == 130
    assert "valid_loss" not in net.history[0]


STOPPING = {
    "early_stopping": True,
    "max_epochs": 60,
    "n_iter_no_change": 3,
    "lr": 0.1,
    "module__hidden": (30,),
}


class Stop(Callback):
    """Ends the fit as skorch's callbacks do, after a validation loss that was not the best."""

    def on_epoch_end(self, net, **kwargs):
        if len(net.history) > 2 and not net.history[-1, "valid_loss_best"]:
            raise KeyboardInterrupt


@pytest.mark.parametrize("callbacks", [None, "disable", [Stop()]])
def test_early_stopping_restores_the_best_weights(callbacks):
    validation = []

    class Spy(NeuralNetClassifier):
        def get_split_datasets(self, *args, **kwargs):
            validation.append(super().get_split_datasets(*args, **kwargs)[1])
            return super().get_split_datasets(*args, **kwargs)

    net = make_net(Spy, **STOPPING, callbacks=callbacks).fit(X, LABELS)

    losses = [valid_loss(epoch) for epoch in net.history.to_list()]
    assert 3 <= len(losses) < 60
    assert min(losses) < losses[-1]
    rows, indices = validation[0].dataset, validation[0].indices
    logits = net.forward(X[indices])
    final = F.cross_entropy(logits, rows.target[indices])
    assert float(final) == pytest.approx(min(losses), rel=1e-5)


def valid_loss(epoch):
    batches = [batch for batch in epoch["batches"] if "valid_loss" in batch]
    return np.average(
        [b["valid_loss"] for b in batches], weights=[b["valid_batch_size"] for b in batches]
    )


def test_early_stopping_stops_as_it_says():
    net = make_net(**STOPPING).fit(X, y)
    losses = net.history[:, "valid_loss"]

    best, misses = np.inf, 0
    for loss in losses:
        misses = misses + 1 if loss > best - net.tol else 0
        best = min(best, loss)
    assert misses == 3


def test_early_stopping_is_repeatable_and_stratified():
    rare = np.r_[np.zeros(110), np.ones(20)]
    nets = [make_net(**STOPPING).fit(X, rare) for _ in range(2)]

    assert_same_weights(*nets)
    _, valid = nets[0].get_split_datasets(nets[0].get_dataset(X, rare))
    assert len(valid) == 13
    assert rare[valid.indices].sum() == 2


def test_early_stopping_of_a_regressor():
    net = make_net(NeuralNetRegressor, **STOPPING).fit(X, X[:, 0])

    assert len(net.history) <= 60
    assert net.score(X, X[:, 0]) > 0.5


@pytest.mark.parametrize("is_fitted", [False, True])
def test_early_stopping_with_a_single_row_of_a_class(is_fitted):
    net = make_net(early_stopping=True)
    if is_fitted:
        net.fit(X, y)
    before = dict(vars(net))

    with pytest.raises(ValueError, match="least populated class(es)? in y ha(ve|s) only 1 member"):
        net.fit(X, [2, *y[1:]])

    assert vars(net) == before


@pytest.mark.parametrize("kind", [NeuralNetClassifier, NeuralNetRegressor])
@pytest.mark.parametrize("are_compiled", [False, True])
def test_early_stopping_on_the_training_loss(kind, are_compiled, monkeypatch):
    monkeypatch.setattr(compiled, "enabled", compiled.enabled and are_compiled)
    params = {"max_epochs": 60, "lr": 0.05, "tol": 0.005, "n_iter_no_change": 3}
    net = make_net(kind, early_stopping="train_loss", **params).fit(X, y)

    best, misses = np.inf, 0
    for epoch, loss in enumerate(net.loss_curve_, start=1):
        misses = misses + 1 if loss > best - net.tol else 0
        best = min(best, loss)
        assert (misses == 3) == (epoch == net.n_iter_)
    assert net.n_iter_ < 60
    # All rows are trained on, and the weights are the last ones.
    assert_same_weights(net, make_net(kind, **{**params, "max_epochs": net.n_iter_}).fit(X, y))


def test_early_stopping_on_the_training_loss_beside_a_split():
    net = make_net(
        early_stopping="train_loss", train_split=ValidSplit(5), tol=10, n_iter_no_change=2
    ).fit(X, y)

    assert net.n_iter_ == 3
    assert len(net.validation_scores_) == 3


@pytest.mark.parametrize("early_stopping", [True, "train_loss"])
def test_patience_without_end(early_stopping):
    net = make_net(
        early_stopping=early_stopping, tol=10, n_iter_no_change=np.inf, max_epochs=15
    ).fit(X, y)

    assert net.n_iter_ == 15


@pytest.mark.parametrize("value", ["valid_loss", 2, 0.5, "True"])
def test_unknown_early_stopping(value):
    with pytest.raises(
        ValueError, match="early_stopping must be a bool or 'train_loss', got early_stopping="
    ):
        make_net(early_stopping=value).fit(X, y)


@pytest.mark.parametrize(
    ("rows", "params"),
    [
        (slice(2), {}),
        (slice(6), {}),
        (slice(None), {"validation_fraction": 0.001}),
        (slice(1), {"kind": "regressor"}),
    ],
)
def test_early_stopping_that_cannot_split(rows, params):
    kind = NeuralNetRegressor if params.pop("kind", None) else NeuralNetClassifier
    labels = [0, 1, 1, 1, 1, 1, *y[6:]]
    net = make_net(kind, early_stopping=True, **params)

    with pytest.raises(ValueError, match="early_stopping=True must hold validation_fraction="):
        net.fit(X[rows], labels[rows])
    assert not net.initialized_


CALLBACKS = {
    "EarlyStopping": lambda folder: EarlyStopping(),
    "Checkpoint": lambda folder: Checkpoint(dirname=folder),
    "plateau": lambda folder: LRScheduler(
        torch.optim.lr_scheduler.ReduceLROnPlateau, monitor="valid_loss"
    ),
}


@pytest.mark.parametrize("name", CALLBACKS)
@pytest.mark.parametrize("early_stopping", [False, "train_loss"])
def test_callbacks_without_rows_to_validate_on_name_the_remedy(name, early_stopping, tmp_path):
    net = make_net(callbacks=[CALLBACKS[name](tmp_path)], early_stopping=early_stopping)

    with pytest.raises(
        ValueError, match=r"pass train_split=ValidSplit\(5\) or early_stopping=True"
    ):
        net.fit(X, y)
    net.set_params(train_split=ValidSplit(5)).fit(X, y)
    net.set_params(train_split=None, early_stopping=True).fit(X, y)


def test_errors_of_callbacks_beside_stay_what_they_are():
    class Failing(Callback):
        def on_epoch_end(self, net, **kwargs):
            raise KeyError("something else")

    with pytest.raises(KeyError, match="something else"):
        make_net(callbacks=[Failing()]).fit(X, y)


@pytest.mark.parametrize("kind", [nn.Embedding, nn.EmbeddingBag])
def test_embedding_of_floats_names_the_encoder(kind):
    module = nn.Sequential(
        kind(5, 2), nn.Flatten(), nn.LazyLinear(2) if kind is nn.Embedding else nn.Linear(2, 2)
    )
    module(torch.zeros(1, 3, dtype=torch.int64))

    with pytest.raises(
        ValueError, match=r"Embedding in the module must get integers.*OrdinalEncoder\(dtype=int\)"
    ):
        make_net(module=module).fit(np.abs(X).round(), y)
    assert make_net(module=module).fit(np.abs(X).round().astype(int), y).n_iter_ == 3


def test_split_of_skorch():
    net = make_net(train_split=ValidSplit(5)).fit(X, LABELS)

    assert sum(net.history[-1, "batches", :, "train_batch_size"]) == 104
    assert 0 <= net.history[-1, "valid_acc"] <= 1


# --- callbacks ------------------------------------------------------------------------------------


@pytest.mark.parametrize("use_caching", [True, False])
@pytest.mark.parametrize("on_train", [True, False])
@pytest.mark.parametrize("scoring", ["accuracy", None, "roc_auc"])
def test_epoch_scoring_with_labels(use_caching, on_train, scoring):
    score = EpochScoring(
        scoring, name="score", on_train=on_train, use_caching=use_caching, lower_is_better=False
    )
    net = make_net(callbacks=[score], train_split=ValidSplit(5), max_epochs=30, lr=0.05).fit(
        X, LABELS
    )

    assert net.history[-1, "score"] > 0.8


def test_scored_as_afterwards():
    score = EpochScoring(
        "accuracy", name="score", on_train=True, use_caching=False, lower_is_better=False
    )
    net = make_net(callbacks=[score]).fit(X, LABELS)

    assert net.history[-1, "score"] == net.score(X, LABELS)


def test_early_stopping_of_skorch_stops():
    net = make_net(
        callbacks=[EarlyStopping("train_loss", patience=2, threshold=10)], max_epochs=20
    ).fit(X, y)

    # The first epoch, and two that were not better by 10.
    assert len(net.history) == 3


def test_ctrl_c_is_not_swallowed():
    class Interrupted(NeuralNetClassifier):
        def train_step(self, batch, **fit_params):
            raise KeyboardInterrupt("of the user")

    with pytest.raises(KeyboardInterrupt, match="of the user"):
        make_net(Interrupted).fit(X, y)


def test_checkpoint_of_skorch(tmp_path):
    checkpoint = Checkpoint(dirname=str(tmp_path), monitor="valid_loss_best", load_best=True)
    net = make_net(callbacks=[checkpoint], train_split=ValidSplit(5), lr=0.3, max_epochs=12).fit(
        X, LABELS
    )
    assert net.device == "auto"

    other = make_net(classes=["no", "yes"], module__n_features=3, module__n_outputs=2)
    other.load_params(checkpoint=checkpoint)

    assert other.device == "auto"
    assert_same_weights(net, other)
    assert other.predict(X).tolist() == net.predict(X).tolist()


def test_gradient_clipping_of_skorch():
    norms = []

    class Spy(NeuralNetClassifier):
        def _step_optimizer(self, step_fn):
            super()._step_optimizer(step_fn)
            norms.append(
                float(torch.cat([p.grad.flatten() for p in self.module_.parameters()]).norm())
            )

    make_net(Spy, callbacks=[GradientNormClipping(0.01)]).fit(X, y)

    assert max(norms) < 0.0101


# --- divergence -----------------------------------------------------------------------------------


def test_divergence_is_named_and_leaves_the_net_alone():
    net = make_net(lr=1e20)
    before = dict(vars(net))

    with pytest.raises(
        DivergenceError, match=r"in epoch \d+ at lr=1e\+20 the .*: try a smaller lr"
    ):
        net.fit(X, y)

    assert vars(net) == before


def test_divergence_of_the_weights_alone():
    class Poisoned(NeuralNetClassifier):
        def on_train_end(self, net, **kwargs):
            raise AssertionError("training has not ended")

        def on_epoch_end(self, net, **kwargs):
            self.module_.layers[0].weight.data[0, 0] = np.inf

    with pytest.raises(
        DivergenceError, match=r"in epoch 1 at lr=0.01 the layers.0.weight is no longer finite"
    ):
        make_net(Poisoned, max_epochs=1).fit(X, y)


def test_divergence_error_pickles():
    error = DivergenceError("text")

    assert (type(error), error.args) == (DivergenceError, pickle.loads(pickle.dumps(error)).args)


def test_divergence_in_a_search_is_that_candidate_s_alone():
    net, grid = make_net(module__dtype=torch.float32), {"lr": [0.01, 1e20, 0.02]}
    with pytest.warns(FitFailedWarning, match="DivergenceError: training must stay finite"):
        search = GridSearchCV(net, grid, cv=2, n_jobs=2, error_score=-1.0).fit(X, y)
    alone = GridSearchCV(net, {"lr": [0.01, 0.02]}, cv=2).fit(X, y)

    scores = search.cv_results_["mean_test_score"].tolist()
    assert scores[1] == -1
    assert [scores[0], scores[2]] == alone.cv_results_["mean_test_score"].tolist()


# --- devices and persistence ----------------------------------------------------------------------


def test_auto_device_is_a_parameter_and_stays_one():
    net = make_net().fit(X, y)

    assert net.device == clone(net).device == pickle.loads(pickle.dumps(net)).device == "auto"
    assert net.device_ == next(net.module_.parameters()).device


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
@pytest.mark.parametrize("device", ["cuda", "cuda:1"])
def test_pickle_of_a_gpu_loads_without_one(device):
    net = make_net().fit(X, LABELS)
    net.device = net.device_ = device

    messages = (
        "no CUDA devices are available|"
        f"Setting self.device = cpu since the requested device .{device}. is not"
    )
    with pytest.warns(DeviceWarning, match=messages):
        loaded = pickle.loads(pickle.dumps(net))

    assert torch.device(loaded.device) == loaded.device_ == torch.device("cpu")
    assert loaded.predict(X).shape == (130,)


def test_save_and_load_params(tmp_path):
    net = make_net().fit(X, y)
    names = {f"f_{part}": str(tmp_path / part) for part in ("params", "optimizer", "history")}
    net.save_params(**names)
    other = make_net(random_state=1).fit(X, y)
    other.load_params(**names)

    assert_same_weights(net, other)
    assert other.history == net.history
    assert other.device == "auto"


def test_load_params_needs_an_initialized_net(tmp_path):
    with pytest.raises(Exception, match="Cannot load state of an un-initialized model"):
        make_net().load_params(f_params=str(tmp_path / "none"))


@pytest.mark.parametrize(
    "copies", [copy.deepcopy, lambda net: pickle.loads(pickle.dumps(net))], ids=["copy", "pickle"]
)
def test_copy_predicts_alike_and_is_independent(copies):
    net = make_net(module__dropout=0.5).fit(X, LABELS)
    other = copies(net)
    before = net.predict_proba(X)

    assert np.array_equal(other.predict_proba(X), before)
    other.partial_fit(X, LABELS)
    assert np.array_equal(net.predict_proba(X), before)
    assert not np.array_equal(other.predict_proba(X), before)


@pytest.mark.parametrize(
    "params",
    [{}, {"criterion": nn.BCEWithLogitsLoss}, {"predict_nonlinearity": None}],
    ids=["CE", "BCE", "None"],
)
def test_trim_for_prediction(params):
    net = make_net(**params).fit(X, LABELS)
    proba, labels = net.predict_proba(X), net.predict(X)
    net.trim_for_prediction()
    net.trim_for_prediction()
    loaded = pickle.loads(pickle.dumps(net))

    assert np.array_equal(loaded.predict_proba(X), proba)
    assert np.array_equal(loaded.predict(X), labels)
    with pytest.raises(SkorchTrainingImpossibleError, match="trimmed for prediction"):
        net.partial_fit(X, LABELS)


# --- iterators and overridden methods -------------------------------------------------------------


@pytest.mark.parametrize(
    ("params", "n_batches"),
    [
        ({}, 5),
        ({"iterator_train__drop_last": True}, 4),
        ({"iterator_train__batch_size": 50}, 3),
        ({"iterator_train__num_workers": 0}, 5),
        ({"iterator_train__num_workers": 0, "iterator_train__drop_last": True}, 4),
        ({"iterator_train__num_workers": 0, "iterator_train__shuffle": False}, 5),
        ({"iterator_train__shuffle": True}, 5),
        ({"batch_size": np.int64(50)}, 3),
    ],
)
def test_iterators(params, n_batches):
    nets = [make_net(**params).fit(X, y) for _ in range(2)]

    assert nets[0].history[:, "train_batch_count"] == [n_batches] * 3
    assert_same_weights(*nets)


@pytest.mark.parametrize("module", [nn.Linear(1, 1), nn.Sequential(nn.Linear(1, 1))])
def test_epoch_without_a_batch_is_an_error_of_any_module(module):
    net = NeuralNetRegressor(module, batch_size=200, iterator_train__drop_last=True, device="cpu")

    with pytest.raises(ValueError, match="an epoch must have at least one batch to train on"):
        net.fit(X[:, :1], X[:, 0])


@pytest.mark.parametrize(
    "params", [{"iterator_train__drop_last": True}, {"iterator_train": lambda *args, **kwargs: []}]
)
def test_iterators_without_a_batch(params):
    """Without a batch the net would predict by its initial weights."""
    with pytest.raises(ValueError, match="an epoch must have at least one batch to train on"):
        make_net(batch_size=1000, **params).fit(X, y)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize("n_rows", [60, 130])
def test_weights_of_the_criterion_may_be_of_any_type(dtype, n_rows):
    """The class weights that scikit-learn computes are float64, whatever the number of rows."""
    weight = torch.tensor([1.0, 3.0], dtype=dtype)
    expected = make_net(criterion__weight=weight.float()).fit(X[:n_rows], y[:n_rows])
    found = make_net(criterion__weight=weight).fit(X[:n_rows], y[:n_rows])
    given = nn.CrossEntropyLoss(weight=weight)
    instance = make_net(criterion=given).fit(X[:n_rows], y[:n_rows])

    for net in (found, instance):
        assert net.criterion_.weight.dtype == torch.float32
        np.testing.assert_array_equal(net.predict_proba(X), expected.predict_proba(X))
    assert given.weight.dtype == dtype


@pytest.mark.parametrize("iterators", ["iterator_train", "iterator_valid"])
def test_iterator_of_one_s_own(iterators):
    class Counting(torch.utils.data.DataLoader):
        n_made = 0

        def __init__(self, *args, **kwargs):
            type(self).n_made += 1
            super().__init__(*args, **kwargs)

    net = make_net(**{iterators: Counting}).fit(X, y)
    net.predict(X)

    assert Counting.n_made == 1


class Stream(torch.utils.data.IterableDataset):
    def __iter__(self):
        yield from zip(X.astype(np.float32), y, strict=True)


@pytest.mark.parametrize("schedule", ["constant", "cosine"])
def test_stream_of_rows(schedule):
    net = make_net(module=nn.Sequential(nn.Linear(3, 2)), lr_schedule=schedule).fit(Stream(), None)

    assert sum(net.history[-1, "batches", :, "train_batch_size"]) == 130


def test_get_loss_can_be_overridden():
    class Doubled(NeuralNetClassifier):
        def get_loss(self, y_pred, y_true, X=None, training=False):
            return 2 * super().get_loss(y_pred, y_true, X=X, training=training)

    for weight in (None, WEIGHT):
        kinds = (NeuralNetClassifier, Doubled)
        single, doubled = (
            make_net(kind, max_epochs=1, lr=1e-12).fit(X, y, weight) for kind in kinds
        )

        assert doubled.history[0, "train_loss"] == pytest.approx(
            2 * single.history[0, "train_loss"]
        )


def test_train_step_can_be_overridden(monkeypatch):
    # Compiled steps round their sums differently.
    monkeypatch.setattr(compiled, "enabled", False)

    class Plain(NeuralNetClassifier):
        def train_step_single(self, batch, **fit_params):
            self._set_training(True)
            Xi, yi = batch
            y_pred = self.infer(Xi, **fit_params)
            loss = self.get_loss(y_pred, yi, X=Xi, training=True)
            loss.backward()
            return {"loss": loss, "y_pred": y_pred}

    assert_same_weights(make_net(Plain).fit(X, y), make_net().fit(X, y))
    assert_same_weights(make_net(Plain).fit(X, y, WEIGHT), make_net().fit(X, y, WEIGHT))


def test_optimizer_with_closures():
    net = make_net(optimizer=torch.optim.LBFGS, lr=0.5, batch_size=130).fit(X, y)

    assert net.history[-1, "train_loss"] < net.history[0, "train_loss"]


def test_sparse_gradients():
    class Sum(nn.Module):
        def __init__(self, n_outputs):
            super().__init__()
            self.bag = nn.EmbeddingBag(10, n_outputs, sparse=True)

        def forward(self, X):
            return self.bag(X)

    ids = rng.randint(10, size=(130, 2))
    make_net(module=Sum, optimizer=torch.optim.SGD, lr=1.0).fit(ids, ids[:, 0] > 4)


def test_constructor_of_a_subclass():
    class Named(NeuralNetClassifier):
        def __init__(self, *args, title="none", **kwargs):
            super().__init__(*args, **kwargs)
            self.title = title

    net = make_net(Named, title="x").fit(X, y)

    assert net.get_params()["title"] == clone(net).title == "x"
    with pytest.raises(ValueError, match="Named has no parameter 'titel'; did you mean 'title'?"):
        net.set_params(titel="y")


# torch's compiler gives this warning.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
@pytest.mark.parametrize("criterion", [nn.CrossEntropyLoss, nn.BCEWithLogitsLoss])
def test_compiled_module_and_criterion(criterion):
    compiled = make_net(criterion=criterion, compile=True, compile__backend="eager").fit(X, LABELS)
    plain = make_net(criterion=criterion).fit(X, LABELS)

    assert np.allclose(compiled.predict_proba(X), plain.predict_proba(X), atol=1e-6)


def test_fit_loop_and_get_dataset_take_tables():
    net = make_net(module=nn.Sequential(nn.Linear(3, 2)), max_epochs=1).initialize()
    net.fit_loop(X.astype(np.float32), LABELS, epochs=2)

    features, target = net.get_dataset(X, LABELS)[0]
    assert features.tolist() == pytest.approx(X[0].tolist())
    assert target == y[0]
    assert len(net.history) == 2
    assert set(net.predict(X)) <= {"yes", "no"}


def test_dataset_of_one_s_own():
    class Doubling(Dataset):
        def transform(self, X, y):
            X, y = super().transform(X, y)
            return torch.as_tensor(X, dtype=torch.float32), y

    net = make_net(dataset=Doubling).fit(X, LABELS)

    assert set(net.predict(X)) <= {"yes", "no"}
    with pytest.raises(
        ValueError, match="sample_weight and class_weight must come without a dataset of your own"
    ):
        net.fit(X, LABELS, sample_weight=np.ones(130) + y)
