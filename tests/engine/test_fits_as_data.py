"""Fits as data: they travel, go on elsewhere, and are told apart by their digests."""

import os
import pickle
import subprocess
import sys
from dataclasses import replace

import joblib
import numpy as np
import pytest
import skorch
import torch
from sklearn.datasets import make_classification, make_regression
from sklearn.model_selection import GridSearchCV, KFold
from skorch.callbacks import EarlyStopping, EpochScoring, LRScheduler
from skorch.dataset import ValidSplit
from skorch.utils import noop
from torch import nn

from sktune import NeuralNetClassifier, NeuralNetRegressor
from sktune.bridge import calls
from sktune.engine.compiled import program
from sktune.engine.executor import Trainer
from sktune.engine.group import train_group
from sktune.engine.specs import FitSpec

# Of fewer than 100 rows a fit computes in float64.
X, y = make_classification(180, n_features=6, n_informative=4, n_classes=3, random_state=0)
X_reg, y_reg = make_regression(180, n_features=6, n_targets=2, random_state=0)
RAGGED = [list(KFold(3).split(X))[fold] for fold in (0, 2)]
SETTINGS = {"module__hidden": (8,), "batch_size": 16, "max_epochs": 20, "random_state": 0}


def collect(monkeypatch, net, candidates, X=X, y=y, cv=RAGGED):
    """Return the specs of a search's fits, in their groups, and their tables."""
    found = []

    class Collecting(Trainer):
        def plan(self, fits, tables, order=None):
            plans = super().plan(fits, tables, order)
            for plan in plans:
                found.append(([fit.spec for one in plan.fits for fit in one.fits], tables))
            return []

        def train(self, plans):
            raise KeyboardInterrupt("the specs are known")

    candidates = [{name: [value] for name, value in one.items()} for one in candidates]
    with monkeypatch.context() as patch, joblib.parallel_config("sktune", n_jobs=1):
        patch.setattr(calls, "Trainer", Collecting)
        with pytest.raises(KeyboardInterrupt, match="the specs are known"):
            GridSearchCV(net, candidates, cv=cv).fit(X, y)
    assert found
    return found


def ours(**options):
    return NeuralNetClassifier(**{**SETTINGS, **options})


def skorchs(**options):
    module = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Dropout(0.3), nn.Linear(8, 3)).double()
    options = {"max_epochs": 20, "batch_size": 16, "verbose": 0, **options}
    return skorch.NeuralNetClassifier(module, criterion=nn.CrossEntropyLoss, **options)


class Normed(nn.Module):
    """A module of the user's, with buffers."""

    def __init__(self, n_features, n_outputs):
        super().__init__()
        self.first = nn.Linear(n_features, 8)
        self.norm = nn.BatchNorm1d(8)
        self.dropout = nn.Dropout(0.2)
        self.last = nn.Linear(8, n_outputs)

    def forward(self, X):
        return self.last(self.dropout(torch.relu(self.norm(self.first(X)))))


RATES = [{"lr": 0.01}, {"lr": 0.05, "l2": 0.01}]
STOPS = {"early_stopping": True, "n_iter_no_change": 3, "tol": 0.01}
MOMENTUM = {"optimizer__momentum": 0.9, "optimizer__nesterov": True}
CALLBACKS = [
    ("f1", EpochScoring("f1_macro", lower_is_better=False)),
    ("rates", LRScheduler("StepLR", step_size=3, gamma=0.5)),
    ("batches", LRScheduler("ExponentialLR", gamma=0.99, step_every="batch")),
    ("stop", EarlyStopping(load_best=True, sink=noop)),
]
# of each case: a net, candidates, and maybe other data
CASES = {
    "adamw": (ours(), RATES),
    "adam": (ours(optimizer=torch.optim.Adam, optimizer__weight_decay=0.1), RATES),
    "sgd": (ours(optimizer=torch.optim.SGD), RATES),
    "momentum": (ours(optimizer=torch.optim.SGD, **MOMENTUM), RATES),
    "nadam": (ours(optimizer=torch.optim.NAdam), RATES),
    "rmsprop": (ours(optimizer=torch.optim.RMSprop, optimizer__momentum=0.5), RATES),
    "adagrad": (ours(optimizer=torch.optim.Adagrad), RATES),
    "adamax": (ours(optimizer=torch.optim.Adamax), RATES),
    "radam": (ours(optimizer=torch.optim.RAdam), RATES),
    "adadelta": (ours(optimizer=torch.optim.Adadelta), RATES),
    "amsgrad": (ours(optimizer__amsgrad=True), RATES),
    "centered": (ours(optimizer=torch.optim.RMSprop, optimizer__centered=True), RATES),
    "clipped": (ours(clip_grad_norm=0.1), [{}, {"clip_grad_norm": None, "clip_grad_value": 0.01}]),
    "callbacks": (
        ours(train_split=ValidSplit(3), callbacks=CALLBACKS),
        [{"lr": 0.01}, {"lr": 0.03, "callbacks__stop__patience": 2}],
    ),
    "cosine": (ours(lr_schedule="cosine", lr_schedule__warmup=3), RATES),
    "one_cycle": (ours(lr_schedule="one_cycle"), RATES),
    "dropout": (ours(), [{"module__dropout": 0.2}, {"module__dropout": 0.5, "l1": 0.01}]),
    "early stopping": (ours(lr=0.1, **STOPS), [{"tol": 0.0}, {"tol": 0.02}, {"tol": 10.0}]),
    "training loss": (ours(lr=0.1, early_stopping="train_loss"), [{"tol": 0.1}, {"tol": 10.0}]),
    "other lengths": (ours(), [{"max_epochs": n} for n in (4, 10, 15)]),
    "seeds": (ours(), [{"random_state": seed} for seed in (1, 2)]),
    "no shuffling": (ours(shuffle=False), RATES),
    "class weights": (ours(class_weight={0: 2.0, 1: 0.5}), RATES),
    "batch norm": (ours(module__batch_norm=True), RATES),
    "double": (ours(module__dtype=torch.float64), RATES),
    "few rows": (ours(), RATES, X[:80], y[:80], 2),
    "regression": (NeuralNetRegressor(**SETTINGS), RATES, X_reg, y_reg / y_reg.std(0)),
    "module of the user's": (ours(module=Normed, module__hidden=None), RATES),
    "skorch": (skorchs(iterator_train__shuffle=True), [{"lr": 0.05}, {"lr": 0.1}]),
    "skorch with dropout": (skorchs(optimizer=torch.optim.Adam), [{"lr": 0.01}, {"lr": 0.02}]),
}
del CASES["module of the user's"][0].module__hidden


def assert_same_state(one, other):
    assert (one.epoch, one.is_over) == (other.epoch, other.is_over)
    for name in ("weights", "optimizer", "best_weights"):
        tensors = getattr(one, name), getattr(other, name)
        assert (tensors[0] is None) == (tensors[1] is None), name
        if tensors[0] is not None:
            assert tensors[0].keys() == tensors[1].keys()
            for key, value in tensors[0].items():
                assert torch.equal(torch.as_tensor(value), torch.as_tensor(tensors[1][key])), key
    if one.generator is not None:
        assert torch.equal(one.generator, other.generator)
    assert str(vars(one.stopping or object.__new__(Empty))) == str(
        vars(other.stopping or object.__new__(Empty))
    )


class Empty:
    pass


def assert_joined(whole, first, second):
    """Assert that two parts of a training are the whole of it, to the last bit."""
    for result, begun, ended in zip(whole, first, second, strict=True):
        assert result.error is begun.error is ended.error is None
        assert_same_state(result.state, ended.state)
        for name in result.curve.keys() - {"dur"}:
            joined = [*begun.curve.get(name, ()), *ended.curve.get(name, ())]
            assert joined == result.curve[name], name
        if result.outputs is not None and ended.outputs is not None:
            for one, other in zip(result.outputs, ended.outputs, strict=True):
                assert torch.equal(one, other)


@pytest.mark.parametrize("are_compiled", [False, True])
@pytest.mark.parametrize("name", CASES)
def test_ten_epochs_and_ten_more_are_twenty(monkeypatch, name, are_compiled):
    monkeypatch.setattr(program, "enabled", are_compiled and program.enabled)
    net, candidates, *data = CASES[name]
    for specs, tables in collect(monkeypatch, net, candidates, *data):
        whole = train_group(specs, None, tables)
        first = train_group(specs, None, tables, until=10)
        assert all(result.state.epoch <= 10 for result in first)

        specs, states, tables = pickle.loads(
            pickle.dumps((specs, [result.state for result in first], tables))
        )
        second = train_group(specs, states, tables)

        assert_joined(whole, first, second)


GO_ON = """
import pickle, sys
import torch
torch.set_num_threads(1)
from sktune.engine.group import train_group
from sktune.engine.compiled import program

with open(sys.argv[1], "rb") as file:
    groups = pickle.load(file)
found = []
for are_compiled, specs, states, tables in groups:
    program.enabled = are_compiled
    results = train_group(specs, states, tables)
    found.append(([spec.digest for spec in specs], results))
with open(sys.argv[1], "wb") as file:
    pickle.dump(found, file)
"""


def test_fits_go_on_in_another_process(monkeypatch, tmp_path):
    groups = []
    kept = []
    for name in ("adamw", "dropout", "early stopping", "rmsprop", "few rows", "skorch"):
        net, candidates, *data = CASES[name]
        for are_compiled in {False, program.enabled}:
            with monkeypatch.context() as patch:
                patch.setattr(program, "enabled", are_compiled)
                for specs, tables in collect(monkeypatch, net, candidates, *data):
                    first = train_group(specs, None, tables, until=10)
                    whole = train_group(specs, None, tables)
                    states = [result.state for result in first]
                    groups.append((are_compiled, specs, states, tables))
                    kept.append((specs, whole, first))
    path = tmp_path / "groups"
    path.write_bytes(pickle.dumps(groups))

    env = {**os.environ, "PYTHONHASHSEED": "7"}
    subprocess.run([sys.executable, "-c", GO_ON, str(path)], env=env, check=True)

    # Compiled steps: code that a process has compiled itself, and the same code loaded from Numba's
    # cache, may differ in the last bit of float64. The tests above show exactness in one process.
    found = pickle.loads(path.read_bytes())
    for kept_group, group, (digests, second) in zip(kept, groups, found, strict=True):
        specs, whole, first = kept_group
        are_compiled = group[0]
        assert digests == [spec.digest for spec in specs]
        assert_same = assert_close if are_compiled else assert_joined
        assert_same(whole, first, second)


def assert_close(whole, first, second):
    """Assert that two parts of a training are the whole of it, but for rounding."""
    for result, begun, ended in zip(whole, first, second, strict=True):
        assert (result.state.epoch, result.state.is_over) == (
            ended.state.epoch,
            ended.state.is_over,
        )
        for name, tensor in result.state.weights.items():
            torch.testing.assert_close(ended.state.weights[name], tensor, rtol=1e-4, atol=1e-5)
        joined = [*begun.curve["train_loss"], *ended.curve.get("train_loss", ())]
        np.testing.assert_allclose(joined, result.curve["train_loss"], rtol=1e-4)


CHANGES = [
    {"lr": 0.02},
    {"l1": 0.1},
    {"l2": 0.1},
    {"max_epochs": 3},
    {"batch_size": 8},
    {"shuffle": False},
    {"random_state": 1},
    {"module__dropout": 0.1},
    {"module__hidden": (7,)},
    {"module__activation": "tanh"},
    {"module__init": "he"},
    {"criterion__label_smoothing": 0.1},
    {"optimizer": torch.optim.Adam},
    {"optimizer__weight_decay": 0.5},
    {"optimizer__betas": (0.8, 0.9)},
    {"lr_schedule": "cosine"},
    {"lr_schedule__warmup": 2},
    {"class_weight": "balanced"},
    {"early_stopping": True},
    {"early_stopping": "train_loss"},
    {"module__dtype": torch.float64},
]


def test_digests_are_equal_for_equal_fits_only(monkeypatch):
    def digests(candidates, X=X, y=y):
        net = ours(lr=0.01, max_epochs=2)
        groups = collect(monkeypatch, net, candidates, X, y)
        return [spec.digest for specs, _ in groups for spec in specs]

    alike = digests([{}])
    assert digests([{}]) == alike
    different = digests([{}, *CHANGES])
    assert len(set(different)) == len(different) == 2 * (1 + len(CHANGES))
    assert set(alike) <= set(different)
    assert not set(digests([{}], X=X * 2)) & set(different)
    assert not set(digests([{}], y=(y + 1) % 3)) & set(different)


def test_digest_tells_the_code_of_the_user_s_module(monkeypatch):
    def make(factor):
        class Scaled(Normed):
            def forward(self, X):
                return super().forward(X) * factor

        return Scaled

    def digests(module):
        net = NeuralNetClassifier(module, batch_size=16, max_epochs=2, random_state=0)
        return [spec.digest for specs, _ in collect(monkeypatch, net, [{}]) for spec in specs]

    assert digests(make(2)) == digests(make(2))
    assert not set(digests(make(2))) & set(digests(make(3)))


def test_a_spec_is_not_changed_by_its_training(monkeypatch):
    for name in ("early stopping", "dropout", "skorch", "module of the user's"):
        net, candidates, *data = CASES[name]
        for specs, tables in collect(monkeypatch, net, candidates, *data):
            before = [spec.digest for spec in specs]
            one = train_group(specs, None, tables)
            other = train_group(specs, None, tables)

            assert [replace(spec).digest for spec in specs] == before
            for first, second in zip(one, other, strict=True):
                assert_same_state(first.state, second.state)


def test_a_spec_holds_nothing_of_the_estimator(monkeypatch):
    for name in ("adamw", "early stopping", "skorch"):
        for specs, _ in collect(monkeypatch, *CASES[name]):
            for spec in specs:
                assert isinstance(spec, FitSpec)
                text = pickle.dumps(spec)
                assert b"estimators" not in text
                assert b"skorch.net" not in text
                with pytest.raises(AttributeError, match="cannot assign"):
                    spec.l1 = 1.0


def test_a_pickle_holds_a_recipe_in_place_of_our_modules(monkeypatch):
    [(specs, _), *_] = collect(monkeypatch, ours(module__hidden=(300, 300)), [{}])
    [(users, _), *_] = collect(monkeypatch, CASES["module of the user's"][0], [{}])

    assert len(pickle.dumps(specs[0].module)) < 2_000
    copy = pickle.loads(pickle.dumps(specs[0].module)).module
    for name, tensor in specs[0].module.module.state_dict().items():
        assert torch.equal(copy.state_dict()[name], tensor)
    assert pickle.loads(pickle.dumps(users[0].module)).recipe is None


def test_states_of_different_epochs_do_not_train_together(monkeypatch):
    [(specs, tables), *_] = collect(monkeypatch, ours(), RATES)
    one = train_group(specs[:1], None, tables, until=2)[0].state
    other = train_group(specs[:1], None, tables, until=3)[0].state

    with pytest.raises(ValueError, match=r"must be at the same epoch, got \[2, 3\]"):
        train_group([specs[0], specs[0]], [one, other], tables)


def test_a_fit_that_is_over_is_left_as_it_is(monkeypatch):
    [(specs, tables), *_] = collect(monkeypatch, ours(max_epochs=2), RATES)
    states = [result.state for result in train_group(specs, None, tables)]

    again = train_group(specs, states, tables)

    assert [result.state for result in again] == states
    assert all(result.curve == {} for result in again)


class Pruning:
    """Stops a fit at an epoch, and notes what it hears."""

    def __init__(self, fit, epoch):
        self.fit = fit
        self.epoch = epoch
        self.events = []

    def on_epoch(self, event):
        self.events.append(event)
        if event.epoch == self.epoch:
            event.stop(self.fit, "it cannot win any more")


@pytest.mark.parametrize("are_compiled", [False, True])
def test_a_listener_stops_a_fit_and_no_other(monkeypatch, are_compiled):
    monkeypatch.setattr(program, "enabled", are_compiled and program.enabled)
    net = ours(max_epochs=5, early_stopping=True)
    [(specs, tables), *_] = collect(monkeypatch, net, [{"lr": lr} for lr in (0.01, 0.02, 0.05)])
    specs = specs[:3]
    listener = Pruning(1, epoch=2)
    whole = train_group(specs, None, tables)

    found = train_group(specs, None, tables, listeners=[listener])

    assert [result.state.epoch for result in found] == [5, 2, 5]
    assert [result.stop_reason for result in found] == ["", "it cannot win any more", ""]
    assert found[1].outputs is not None
    for n in (0, 2):
        # products of fewer lanes at once may be rounded otherwise
        for name, weights in whole[n].state.weights.items():
            torch.testing.assert_close(found[n].state.weights[name], weights)
    assert [event.fits for event in listener.events] == [[0, 1, 2]] * 2 + [[0, 2]] * 3
    for event in listener.events:
        for position, fit in enumerate(event.fits):
            curve = found[fit].curve
            for name in ("train_loss", "lr", "valid_loss", "valid_acc"):
                assert getattr(event, name)[position] == curve[name][event.epoch - 1]
    with pytest.raises(ValueError, match=r"must be one of \[0, 2\], got 1"):
        listener.events[-1].stop(1, "it is over")


def test_a_fit_that_was_stopped_stays_so(monkeypatch):
    [(specs, tables), *_] = collect(monkeypatch, ours(), RATES)
    found = train_group(specs, None, tables, until=5, listeners=[Pruning(0, epoch=3)])
    states = [result.state for result in found]
    assert [state.is_over for state in states[:2]] == [True, False]

    again = train_group(specs, states, tables, until=7)

    assert [result.state.epoch for result in again[:2]] == [3, 7]
    assert again[0].state is states[0]


def test_a_diverging_fit_is_an_error_and_no_other(monkeypatch):
    net = ours(optimizer=torch.optim.SGD, max_epochs=4)
    [(specs, tables), *_] = collect(monkeypatch, net, [{"lr": lr} for lr in (0.01, 1e30)])
    specs = [spec for spec in specs if spec.rows is specs[0].rows]

    found = train_group(specs, None, tables)

    assert found[0].error is None
    assert found[0].state.is_over
    assert found[1].state is None
    assert "training must stay finite" in str(found[1].error)
    assert np.isfinite(found[0].curve["train_loss"]).all()
