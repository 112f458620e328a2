"""Modules that few people write: each trains as it does alone, and `fusion_` tells how and why."""

import importlib.util

import pytest
import torch
from parity import X, assert_same_net, search, y
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations

from sktune import NeuralNetClassifier

pytestmark = pytest.mark.skipif(importlib.util.find_spec("numba") is None, reason="no Numba")
SETTINGS = {"max_epochs": 3, "batch_size": 16, "random_state": 1}
LANES = [{"lr": 0.01}, {"lr": 0.02, "optimizer__weight_decay": 0.1}]


def linear(n_inputs, n_outputs):
    return nn.Linear(n_inputs, n_outputs, dtype=torch.float64)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.dense = linear(6, 8)
        self.output = linear(8, 3)

    def forward(self, X):
        return self.output(torch.relu(self.dense(X)))


def make_net(n_units=8):
    return nn.Sequential(linear(6, n_units), nn.ReLU(), linear(n_units, 3))


def make_parallel():
    return nn.DataParallel(make_net())


def make_lazy():
    layers = [nn.LazyLinear(8, dtype=torch.float64), nn.Tanh(), linear(8, 3)]
    return nn.Sequential(*layers)


class Keywords(Net):
    def forward(self, X, scale=2.0, *, shift=None):
        X = torch.relu(self.dense(X)) * scale
        return self.output(X if shift is None else X + shift)


class Block(nn.Module):
    def __init__(self, n_inputs, n_outputs):
        super().__init__()
        self.linear = linear(n_inputs, n_outputs)
        self.norm = nn.LayerNorm(n_outputs, dtype=torch.float64)
        self.nothing = nn.Identity(3, unused=1)

    def forward(self, X, *, skip=False):
        out = self.nothing(self.norm(self.linear(X)))
        return X + out if skip else out


class Blocks(Net):
    def __init__(self):
        super().__init__()
        self.dense, self.second = Block(6, 8), Block(8, 8)

    def forward(self, X):
        return self.output(self.second(self.dense(X), skip=True))


class Frozen(Net):
    def __init__(self):
        super().__init__()
        self.dense.weight.requires_grad_(False)


class Buffered(Net):
    def __init__(self):
        super().__init__()
        self.register_buffer("factors", torch.arange(6.0, dtype=torch.float64))

    def forward(self, X):
        return super().forward(X * self.factors)


class Counting(Net):
    def __init__(self):
        super().__init__()
        self.register_buffer("n_calls", torch.zeros((), dtype=torch.float64))

    def forward(self, X):
        if self.training:
            self.n_calls += 1
        return super().forward(X)


class WeightNorm(Net):
    def __init__(self):
        super().__init__()
        self.dense = parametrizations.weight_norm(self.dense)


class SpectralNorm(Net):
    def __init__(self):
        super().__init__()
        self.dense = parametrizations.spectral_norm(self.dense)


class Orthogonal(Net):
    def __init__(self):
        super().__init__()
        self.dense = parametrizations.orthogonal(self.dense)


class Hooked(Net):
    def __init__(self):
        super().__init__()
        self.dense.register_forward_hook(lambda module, inputs, output: output * 2)
        self.output.register_forward_pre_hook(lambda module, inputs: (inputs[0] + 1,))


class Bilinear(Net):
    def __init__(self):
        super().__init__()
        self.both = nn.Bilinear(8, 6, 8, dtype=torch.float64)

    def forward(self, X):
        return self.output(self.both(self.dense(X), X))


class Attention(Net):
    def __init__(self):
        super().__init__()
        self.dense = linear(1, 8)
        self.attend = nn.MultiheadAttention(8, 2, batch_first=True, dtype=torch.float64)

    def forward(self, X):
        tokens = self.dense(X.unsqueeze(-1))
        return self.output(self.attend(tokens, tokens, tokens)[0].mean(1))


class Recurrent(Net):
    def __init__(self):
        super().__init__()
        self.dense = nn.GRU(1, 8, batch_first=True, dtype=torch.float64)

    def forward(self, X):
        return self.output(self.dense(X.unsqueeze(-1))[0][:, -1])


class OwnLinear(nn.Linear):
    def forward(self, X):
        return 2 * super().forward(X)


class WithOwnLayer(Net):
    def __init__(self):
        super().__init__()
        self.dense = OwnLinear(6, 8, dtype=torch.float64)


class OwnDropout(nn.Dropout):
    def forward(self, X):
        return 0.5 * super().forward(X)


class WithOwnDropout(Net):
    def forward(self, X):
        return self.drop(super().forward(X))

    def __init__(self):
        super().__init__()
        self.drop = OwnDropout(0.3)


class DropsByFunctions(Net):
    """Calls dropout functions, and what no compiled kernel knows."""

    def forward(self, X):
        X = torch.roll(self.dense(F.dropout1d(X, 0.1, self.training)), 1, 1)
        X = torch.dropout_(X * 2, 0.2, self.training)
        X = F.dropout1d(X.view(-1, 2, 4), training=self.training) - F.dropout(X, 1.0).sum()
        return self.output(torch.feature_dropout(X, 0.3, self.training).flatten(1))


class DropsInEvaluation(Net):
    def forward(self, X):
        return F.dropout2d(super().forward(X)[..., None, None]).flatten(1)


def drop_half(X, training):
    return F.dropout1d(X, 0.5, training)


class DropsElsewhere(Net):
    def forward(self, X):
        return drop_half(super().forward(X), self.training)


class AlphaDropout(Net):
    def forward(self, X):
        return super().forward(F.feature_alpha_dropout(X, 0.5, self.training))


class MakesLayerLater(Net):
    def __init__(self):
        super().__init__()
        self.later = None

    def forward(self, X):
        if self.later is None:
            self.later = linear(6, 6)
        return super().forward(self.later(X))


class Checkpointed(Net):
    def forward(self, X):
        hidden = torch.utils.checkpoint.checkpoint(self.dense, X, use_reentrant=False)
        return self.output(hidden)


class WritesIntoInput(Net):
    def forward(self, X):
        return super().forward(F.relu(X.mul_(0.9), inplace=True))


class MixesRows(Net):
    def forward(self, X):
        return super().forward(torch.roll(X, 1, 0))


COMPILED = [make_net, make_parallel, Keywords, Blocks, Checkpointed, WritesIntoInput]
STACKED = {
    Frozen: "its parameter dense.weight is frozen",
    Buffered: "it computes with factors outside of a layer",
    Counting: "its forward sets an attribute, n_calls",
    Orthogonal: "its layer dense is a ParametrizedLinear",
    Hooked: "a hook, or a method that was replaced, watches it",
    WithOwnLayer: "it computes with dense.weight outside of a layer",
    MixesRows: "it computes roll",
    DropsByFunctions: "it computes roll",
    Attention: "its layer attend",
}
ALONE = {
    make_lazy: "its module has lazy layers",
    WeightNorm: "it would compute an operation net by net",
    SpectralNorm: "no rule to compute an operation in many nets at once",
    Bilinear: "it would compute an operation net by net",
    Recurrent: "no rule to compute an operation in many nets at once",
    WithOwnDropout: "its forward draws random numbers in a way of its own",
    DropsInEvaluation: "its forward draws random numbers in a way of its own",
    DropsElsewhere: "its forward draws random numbers in a way of its own",
    AlphaDropout: "its forward draws random numbers in a way of its own",
    MakesLayerLater: "its forward draws random numbers in a way of its own",
}


def fuse(module):
    """Return the report of a search whose nets are asserted to be those that train alone."""
    net = NeuralNetClassifier(module, **SETTINGS)
    _, references, _ = search(net, LANES, X, y, fused=False)
    _, nets, report = search(net, LANES, X, y)
    for reference, other in zip(references, nets, strict=True):
        assert_same_net(reference, other)
    return report


@pytest.mark.parametrize("module", COMPILED)
def test_modules_that_are_compiled(module):
    report = fuse(module)

    assert [group["steps"] for group in report.groups] == ["compiled"] * len(report.groups)
    assert report.groups


@pytest.mark.parametrize("module", STACKED)
def test_modules_that_torch_computes_together(module):
    report = fuse(module)

    assert {group["steps"] for group in report.groups} == {"stacked"}
    with pytest.raises(AssertionError, match=STACKED[module]):
        raise AssertionError(report.groups[0]["blockers"]["compiled"])


class AnyDropout(Net):
    """Drops numbers or channels, or twice by the same masks."""

    def __init__(self, make=nn.Dropout, *, is_shared=False):
        super().__init__()
        first = make(0.4)
        self.drop = nn.ModuleList([first, first if is_shared else make(0.4)])

    def forward(self, X):
        X = self.drop[0](torch.roll(self.dense(X), 1, 1).view(-1, 4, 2))
        return self.output(self.drop[1](X).flatten(1))


@pytest.mark.parametrize("options", [{"make": nn.Dropout1d}, {"is_shared": True}])
def test_nets_with_other_dropout_are_another_group(options):
    net = NeuralNetClassifier(AnyDropout, **SETTINGS)
    others = {f"module__{name}": value for name, value in options.items()}
    # the first of the nets tell the others' architecture
    candidates = [*LANES, {"lr": 0.03}, {"lr": 0.03, **others}, {"lr": 0.02, **others}]

    _, references, _ = search(net, candidates, X, y, fused=False)
    _, nets, report = search(net, candidates, X, y)

    for reference, other in zip(references, nets, strict=True):
        assert_same_net(reference, other)
    assert sorted(group["lanes"] for group in report.groups) == [4, 6]


@pytest.mark.parametrize("module", ALONE)
def test_modules_that_train_one_at_a_time(module):
    report = fuse(module)

    assert report.groups == []
    with pytest.raises(AssertionError, match=ALONE[module]):
        raise AssertionError(report.alone[0]["reason"])


class ReturnsTuple(Net):
    def forward(self, X):
        hidden = self.dense(X)
        return self.output(hidden), hidden


class ReturnsDict(Net):
    def forward(self, X):
        return {"logits": super().forward(X)}


@pytest.mark.parametrize("module", [ReturnsTuple, ReturnsDict])
def test_outputs_that_no_loss_takes_fail_as_alone(module):
    net = NeuralNetClassifier(module, **SETTINGS)

    for fused in (False, True):
        with pytest.raises(TypeError, match="must be Tensor, not (tuple|dict)"):
            search(net, LANES, X, y, fused=fused, error_score="raise")
