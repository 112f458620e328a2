"""Modules with parameters that no gradient of the loss reaches: torch's optimizers skip these."""

import importlib.util
import pickle

import numpy as np
import pytest
import torch
from parity import (
    RAGGED,
    X,
    X_reg,
    assert_parity,
    assert_same_net,
    compiled_steps,
    search,
    y,
    y_reg,
)
from skorch.callbacks import GradientNormClipping
from test_fits_as_data import collect
from torch import nn

from sktune import GridSearchCV, NeuralNetClassifier, NeuralNetRegressor
from sktune.engine.compiled import program
from sktune.engine.group import train_group
from sktune.engine.steps.base import StepOptions
from sktune.engine.steps.compiled import CompiledSteps
from sktune.engine.steps.stacked import StackedSteps

pytestmark = pytest.mark.skipif(importlib.util.find_spec("numba") is None, reason="no Numba")
SETTINGS = {"max_epochs": 3, "batch_size": 16, "random_state": 1}
LANES = [{"lr": 0.01}, {"lr": 0.02, "optimizer__weight_decay": 0.1}]
PENALIZED = [{"l1": 0.01, "l2": 0.02}, {"l2": 0.1, "lr": 0.02}]


def linear(n_inputs, n_outputs):
    return nn.Linear(n_inputs, n_outputs, dtype=torch.float64)


class Net(nn.Module):
    """Its layers stand behind those of a subclass, which are not called."""

    def __init__(self, n_outputs=3):
        super().__init__()
        self.make()
        self.dense = linear(6, 8)
        self.make_later()
        self.output = linear(8, n_outputs)

    def make(self):
        pass

    def make_later(self):
        pass

    def forward(self, X):
        return self.output(torch.tanh(self.dense(X)))


class IdleLinear(Net):
    def make_later(self):
        self.aux = linear(8, 2)


class IdleBatchNorm(Net):
    def make(self):
        self.bn = nn.BatchNorm1d(8, dtype=torch.float64)


class IdleEmbedding(Net):
    def make_later(self):
        self.words = nn.Embedding(5, 3, dtype=torch.float64)


class IdleParameter(Net):
    def make(self):
        self.scale = nn.Parameter(torch.ones(2, 2, dtype=torch.float64))
        self.shift = nn.Parameter(torch.zeros(2, dtype=torch.float64))


class IdleConvolution(Net):
    def make_later(self):
        self.conv = nn.Sequential(
            nn.Conv2d(1, 2, 3, dtype=torch.float64), nn.BatchNorm2d(2, dtype=torch.float64)
        )


class UsedByOption(Net):
    """As many people write it: a layer is made in any case."""

    def __init__(self, use_bn=False, n_outputs=3):
        super().__init__(n_outputs)
        self.use_bn = use_bn
        self.bn = nn.BatchNorm1d(8, dtype=torch.float64)

    def forward(self, X):
        X = self.dense(X)
        if self.use_bn:
            X = self.bn(X)
        return self.output(torch.tanh(X))


class TiedToUnused(Net):
    """The weight is learned by another name; the bias of the layer is not."""

    def make(self):
        self.other = linear(6, 8)

    def make_later(self):
        self.dense.weight = self.other.weight


class Gated(Net):
    """Its product is not that of a chain."""

    def make(self):
        self.gate = linear(6, 8)
        self.aux = linear(8, 2)

    def forward(self, X):
        return self.output(torch.tanh(self.dense(X)) * torch.sigmoid(self.gate(X)))


class Rolling(IdleLinear):
    """The compiled kernels do not read it."""

    def forward(self, X):
        return super().forward(torch.roll(X, 1, 0))


class IdleInTraining(Net):
    """A layer that is called in evaluation only."""

    def make(self):
        self.late = linear(8, 3)

    def forward(self, X):
        out = super().forward(X)
        return out if self.training else out + self.late(self.dense(X))


class Detached(Net):
    """What comes before has no gradient, but its running statistics change."""

    def make(self):
        self.before = nn.Sequential(linear(6, 8), nn.BatchNorm1d(8, dtype=torch.float64))

    def forward(self, X):
        return super().forward(X) + self.output(self.before(X).detach())


class IdleOfAnotherType(Net):
    def make_later(self):
        self.aux = nn.Linear(3, 2, dtype=torch.float32)


class IdleRecurrent(Net):
    def make_later(self):
        self.later = nn.GRU(3, 4, dtype=torch.float64)


class IdleAndFrozen(IdleLinear):
    def make(self):
        self.frozen = linear(3, 3).requires_grad_(False)


def make_sequence():
    """Return layers, and a parameter beside them."""
    layers = nn.Sequential(linear(6, 8), nn.Tanh(), linear(8, 3))
    layers.register_parameter("scale", nn.Parameter(torch.ones(2, 2, dtype=torch.float64)))
    layers[0].register_parameter("other", nn.Parameter(torch.ones(2, dtype=torch.float64)))
    return layers


COMPILED = [
    IdleLinear,
    IdleBatchNorm,
    IdleEmbedding,
    IdleParameter,
    IdleConvolution,
    UsedByOption,
    TiedToUnused,
    Gated,
]
STACKED = {
    Rolling: "it computes roll",
    IdleInTraining: "its forward computes something else in training than in evaluation",
    Detached: "it computes detach",
    IdleOfAnotherType: "of several types",
    IdleRecurrent: "its layer later is a GRU",
    IdleAndFrozen: "its parameter frozen.weight is frozen",
}
OPTIMIZERS = {
    "adamw": {"optimizer": torch.optim.AdamW},
    "momentum": {"optimizer": torch.optim.SGD, "optimizer__momentum": 0.9},
    "sgd": {"optimizer": torch.optim.SGD},
    "nadam": {"optimizer": torch.optim.NAdam},
    "adagrad": {"optimizer": torch.optim.Adagrad},
    "centered": {"optimizer": torch.optim.RMSprop, "optimizer__centered": True},
}
CLIPS = {
    "norm": {"clip_grad_norm": 0.2},
    "value": {"clip_grad_value": 0.01},
    "callback": {"callbacks": [GradientNormClipping(0.2, gradient_clip_norm_type=1)]},
}


def make(module=IdleLinear, **options):
    return NeuralNetClassifier(module, **{**SETTINGS, **options})


def ways(report):
    return {group["steps"] for group in report.groups}


@pytest.mark.parametrize("module", COMPILED)
def test_modules_are_compiled_as_torch_trains_them(module):
    report = assert_parity(make(module), LANES, X, y)

    assert ways(report) == {"compiled"}


@pytest.mark.parametrize("module", STACKED)
def test_modules_that_torch_computes_together(module):
    report = assert_parity(make(module), LANES, X, y)

    assert ways(report) == {"stacked"}
    with pytest.raises(AssertionError, match=STACKED[module]):
        raise AssertionError(report.groups[0]["blockers"]["compiled"])


@pytest.mark.parametrize("module", [IdleLinear, IdleParameter, Gated, Rolling, TiedToUnused])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizers_skip_what_gets_no_gradient(module, name):
    assert_parity(make(module, **OPTIMIZERS[name]), LANES, X, y)


@pytest.mark.parametrize(
    "module", [*COMPILED, *(one for one in STACKED if one is not IdleOfAnotherType)]
)
def test_penalties_train_weights_that_nothing_calls(module):
    report = assert_parity(make(module), PENALIZED, X, y)

    assert ways(report) == {"compiled" if module in COMPILED else "stacked"}


class OfTwoTypes(IdleOfAnotherType):
    """All of its parameters are trained, and would not fit into one table."""

    def forward(self, X):
        return super().forward(X) * self.aux.weight.mean() + self.aux.bias.mean()


@pytest.mark.parametrize(("module", "l2"), [(IdleOfAnotherType, 0.1), (OfTwoTypes, 0.0)])
def test_parameters_of_several_types_train_alone(module, l2):
    _, nets, report = search(make(module, l2=l2), LANES, X, y)

    assert {fit["reason"] for fit in report.alone} == {"its parameters are of several types"}
    assert nets[0].module_.aux.weight.dtype == torch.float32


@pytest.mark.parametrize("module", [IdleLinear, Gated, Rolling])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizers_under_penalties(module, name):
    options = {"clip_grad_norm": 0.5, **OPTIMIZERS[name]}

    assert_parity(make(module, **options), PENALIZED, X, y)


@pytest.mark.parametrize("module", [IdleLinear, IdleBatchNorm, Rolling])
def test_candidates_with_and_without_penalties(module):
    report = assert_parity(make(module), [*LANES, *PENALIZED], X, y)

    # penalties train weights, which are no part of batch normalisation
    assert len(report.groups) == (1 if module is IdleBatchNorm else 2)


@pytest.mark.parametrize("steps", [CompiledSteps, StackedSteps])
def test_a_group_has_penalties_or_none(steps, monkeypatch):
    groups = collect(monkeypatch, make(), [LANES[0], PENALIZED[0]], X, y, cv=RAGGED)
    (plain, tables), (penalized, _) = sorted(groups, key=lambda group: group[0][0].l1)
    specs = plain + penalized
    backend = steps()
    assert not backend.blocker(specs, tables, StepOptions())

    for some in (specs, plain):
        with pytest.raises(ValueError, match="must all have penalties or all have none"):
            train_group(some, None, tables, backend=backend)


@pytest.mark.parametrize("module", [IdleLinear, Gated, Rolling])
@pytest.mark.parametrize("candidates", [LANES, PENALIZED])
@pytest.mark.parametrize("name", CLIPS)
def test_clipping_looks_at_what_has_a_gradient(module, candidates, name):
    assert_parity(make(module, **CLIPS[name]), candidates, X, y)


def test_parameters_beside_the_layers_of_a_sequence():
    report = assert_parity(make(make_sequence), [*LANES, *PENALIZED], X, y)

    assert ways(report) == {"stacked"}


@pytest.mark.parametrize("module", [IdleLinear, Rolling, IdleInTraining])
def test_validation_and_early_stopping(module):
    options = {"early_stopping": True, "n_iter_no_change": 2, "max_epochs": 8}

    assert_parity(make(module, **options), LANES, X, y)


@pytest.mark.parametrize("module", [IdleLinear, Rolling])
def test_regressors(module):
    net = NeuralNetRegressor(module, module__n_outputs=2, **SETTINGS)

    assert_parity(net, LANES, X_reg, y_reg)


@pytest.mark.parametrize("module", [IdleLinear, IdleBatchNorm, Gated])
@pytest.mark.parametrize("candidates", [LANES, PENALIZED])
def test_compiled_fits_are_alone_what_they_are_together(module, candidates):
    _, nets, report = search(make(module), candidates, X, y)

    assert ways(report) == {"compiled"}
    assert len(nets) == len(candidates) * len(RAGGED)
    for n, net in enumerate(nets):
        rows = RAGGED[n % len(RAGGED)][0]
        alone = make(module, **candidates[n // len(RAGGED)]).fit(X[rows], y[rows])
        assert_equal(alone, net)


def assert_equal(one, other):
    """Assert that weights, buffers and the optimizer's state are equal to the last bit."""
    ours, theirs = one.module_.state_dict(), other.module_.state_dict()
    assert list(ours) == list(theirs)
    for name, tensor in ours.items():
        assert torch.equal(tensor, theirs[name]), name
    ours, theirs = one.optimizer_.state_dict(), other.optimizer_.state_dict()
    assert ours["state"].keys() == theirs["state"].keys()
    for number, state in ours["state"].items():
        assert state.keys() == theirs["state"][number].keys()
        for name, tensor in state.items():
            assert torch.equal(tensor, theirs["state"][number][name]), name
    assert one.history[:, "train_loss"] == other.history[:, "train_loss"]


@pytest.mark.parametrize("module", [IdleLinear, IdleBatchNorm, Rolling])
def test_what_is_idle_stays_as_it_was_drawn(module):
    _, nets, _ = search(make(module), LANES, X, y)

    begun = make(module).initialize().module_.state_dict()
    idle = [name for name in begun if not name.startswith(("dense", "output"))]
    assert idle
    for net in nets:
        trained = net.module_.state_dict()
        assert not torch.equal(trained["dense.weight"], begun["dense.weight"])
        for name in idle:
            assert torch.equal(trained[name], begun[name]), name


@pytest.mark.parametrize("candidates", [LANES, PENALIZED])
@pytest.mark.parametrize("module", [IdleLinear, Gated, Rolling])
def test_training_goes_on_after_a_search(module, candidates):
    _, references, _ = search(make(module), candidates, X, y, fused=False)
    _, nets, _ = search(make(module), candidates, X, y)

    for reference, net in zip(references, nets, strict=True):
        with compiled_steps(False):
            reference.partial_fit(X, y)
        net = pickle.loads(pickle.dumps(net)).partial_fit(X, y)
        assert_same_net(reference, net)


def test_a_fit_alone_goes_on_by_compiled_steps(monkeypatch):
    taken = []
    bind = program.Program.bind
    monkeypatch.setattr(program.Program, "bind", lambda *args: taken.append(1) or bind(*args))
    net = make(warm_start=True).fit(X, y).fit(X, y)
    net.partial_fit(X, y)

    assert len(taken) == 9
    assert net.module_.aux.weight.grad is None
    assert net.module_.dense.weight.grad is not None
    with compiled_steps(False):
        plain = make(warm_start=True).fit(X, y).fit(X, y)
        plain.partial_fit(X, y)
    assert_same_net(plain, net)
    assert plain.module_.aux.weight.grad is None


@pytest.mark.parametrize(("first", "second"), [(0.0, 0.1), (0.1, 0.0)])
def test_penalties_that_are_set_later(first, second):
    nets = []
    for are_compiled in (False, True):
        with compiled_steps(are_compiled):
            net = make(l2=first, optimizer=torch.optim.AdamW, optimizer__weight_decay=0.1)
            net.fit(X, y)
            nets.append(net.set_params(l2=second).partial_fit(X, y).partial_fit(X, y))

    assert_same_net(*nets)
    plain, other = ([p.grad is None for p in net.module_.parameters()] for net in nets)
    assert plain == other


class ByRows(IdleLinear):
    """Its layer has a gradient in some batches only."""

    most = 12

    def forward(self, X):
        out = super().forward(X)
        return out + self.aux(self.dense(X)).sum(1, keepdim=True) if len(X) < self.most else out


class InLargeBatches(IdleLinear):
    def forward(self, X):
        out = super().forward(X)
        return out + self.aux(self.dense(X)).sum(1, keepdim=True) if len(X) > 12 else out


class ByEpoch(IdleLinear):
    def make(self):
        self.n_calls = 0

    def forward(self, X):
        self.n_calls += self.training
        out = super().forward(X)
        return out + self.aux(self.dense(X)).sum(1, keepdim=True) if self.n_calls > 6 else out


class ByBuffer(ByEpoch):
    def make(self):
        self.register_buffer("n_calls", torch.zeros((), dtype=torch.float64))


class ByData(IdleLinear):
    def forward(self, X):
        out = super().forward(X)
        return out + self.aux(self.dense(X)).sum(1, keepdim=True) if X.sum() > 0 else out


REFUSED = {
    ByRows: "its parameter aux.(weight|bias) gets a gradient in some batches only",
    InLargeBatches: "its parameter aux.(weight|bias) gets a gradient in some batches only",
    ByEpoch: "its module remembers its calls",
    ByBuffer: "data-dependent control flow",
    ByData: "data-dependent control flow",
}


@pytest.mark.parametrize("module", REFUSED)
def test_what_is_idle_at_times_trains_alone(module):
    _, references, _ = search(make(module), LANES, X, y, fused=False)
    _, nets, report = search(make(module), LANES, X, y)

    assert report.groups == []
    with pytest.raises(AssertionError, match=REFUSED[module]):
        raise AssertionError(report.alone[0]["reason"])
    for reference, net in zip(references, nets, strict=True):
        assert_same_net(reference, net)


class Nothing(Net):
    """None of its parameters gets a gradient."""

    def forward(self, X):
        return X[:, :3] * 1.0


def test_a_module_that_learns_nothing_fails_as_alone():
    for fused in (False, True):
        with pytest.raises(RuntimeError, match="does not require grad"):
            search(make(Nothing), LANES, X, y, fused=fused, error_score="raise")


@pytest.mark.parametrize("candidates", [LANES, PENALIZED])
def test_a_search_that_is_kept_goes_on(candidates, tmp_path):
    nets = []
    for epochs in (2, 4):
        grid = [{name: [value] for name, value in one.items()} for one in candidates]
        found = GridSearchCV(make(max_epochs=epochs), grid, cv=RAGGED, cache=tmp_path)
        nets.append(found.fit(X, y).best_estimator_)
    fresh = make(max_epochs=4, **found.best_params_).fit(X, y)

    assert_equal(fresh, nets[-1])


class Single(IdleLinear):
    def __init__(self, n_outputs=2):
        super().__init__(n_outputs)
        self.float()


@pytest.mark.parametrize("candidates", [LANES, PENALIZED])
def test_few_rows_are_trained_on_in_float64(candidates):
    net = make(Single, module__n_outputs=3)
    _, references, _ = search(net, candidates, X, y, fused=False)
    _, nets, report = search(net, candidates, X, y)

    assert ways(report) == {"compiled"}
    for reference, other in zip(references, nets, strict=True):
        assert other.module_.aux.bias.dtype == torch.float32
        assert torch.equal(reference.module_.aux.bias, other.module_.aux.bias)
        assert_same_net(reference, other, rtol=1e-6)


def test_float32():
    rows = np.random.default_rng(0).normal(size=(240, 6)).astype(np.float32)
    labels = (rows[:, 0] > 0) + (rows[:, 1] > 1)
    plain, _, _ = search(make(Single), LANES, rows, labels, fused=False)
    fused, _, report = search(make(Single), LANES, rows, labels)

    assert ways(report) == {"compiled"}
    np.testing.assert_allclose(
        fused.cv_results_["mean_test_score"], plain.cv_results_["mean_test_score"], atol=0.02
    )
