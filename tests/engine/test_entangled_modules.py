"""Modules whose numbers cannot be taken out of them train one at a time, and right."""

from dataclasses import dataclass

import pytest
import torch
from parity import X, assert_parity, assert_same_net, search, y
from torch import nn
from torch.nn import functional as F

from sktune import NeuralNetClassifier
from sktune.engine.digest import digest
from sktune.modules.structure import find_entanglement

SETTINGS = {"max_epochs": 3, "batch_size": 16, "random_state": 1}
LANES = [{"lr": 0.01}, {"lr": 0.05, "optimizer__weight_decay": 0.1}]


def linear(n_inputs, n_outputs):
    return nn.Linear(n_inputs, n_outputs, dtype=torch.float64)


class Net(nn.Module):
    """Two hidden layers of the same size."""

    def __init__(self):
        super().__init__()
        self.first = linear(6, 8)
        self.second = linear(8, 8)
        self.third = linear(8, 8)
        self.output = linear(8, 3)

    def forward(self, X):
        return self.output(torch.relu(self.third(torch.tanh(self.second(self.first(X))))))


class Transposed(Net):
    """The decoder has the weights of the encoder, transposed."""

    def __init__(self):
        super().__init__()
        self.third.weight = nn.Parameter(self.second.weight.T)


class Halves(Net):
    def __init__(self):
        super().__init__()
        both = torch.randn(12, 8, dtype=torch.float64) / 3
        self.second.weight = nn.Parameter(both[:8])
        self.third.weight = nn.Parameter(both[4:])


class Buffered(Net):
    def __init__(self):
        super().__init__()
        self.register_buffer("seen", self.second.weight.detach())

    def forward(self, X):
        return self.output(self.third(F.linear(self.second(self.first(X)), self.seen)))


class Kept(Buffered):
    def __init__(self):
        nn.Module.__init__(self)
        Net.__init__(self)
        self.seen = self.second.weight.detach()


class Hooked(Net):
    def __init__(self):
        super().__init__()
        self.second.weight.register_hook(lambda gradient: gradient.clamp(-0.001, 0.001))


class Stepping(Net):
    def __init__(self):
        super().__init__()
        self.second.weight.register_post_accumulate_grad_hook(clear)


def clear(parameter):
    parameter.grad.zero_()


ENTANGLED = {
    Transposed: "its tensors (second|third).weight and (second|third).weight share their memory",
    Halves: "its tensors second.weight and third.weight share their memory",
    Hooked: "a hook watches its parameter second.weight",
    Stepping: "a hook watches its parameter second.weight",
    Kept: "its tensors .* share their memory",
}


@pytest.mark.parametrize("module", [*ENTANGLED, Buffered])
def test_they_train_as_each_alone(module):
    net = NeuralNetClassifier(module, **SETTINGS, optimizer=torch.optim.SGD)
    _, references, _ = search(net, LANES, X, y, fused=False)

    _, nets, report = search(net, LANES, X, y)

    assert report.groups == []
    reason = ENTANGLED.get(module, "its tensors .* share their memory")
    with pytest.raises(AssertionError, match=reason):
        raise AssertionError(report.alone[0]["reason"])
    for reference, other in zip(references, nets, strict=True):
        assert_same_net(reference, other)


def test_a_hook_of_one_candidate_is_called():
    class Maybe(Net):
        def __init__(self, largest):
            super().__init__()
            if largest < 1:
                self.second.weight.register_hook(lambda gradient: gradient.clamp(-largest, largest))

    lanes = [{"module__largest": largest} for largest in (2.0, 1e-3, 3.0)]
    net = NeuralNetClassifier(Maybe, **SETTINGS)
    _, references, _ = search(net, lanes, X, y, fused=False)

    _, nets, report = search(net, lanes, X, y)

    assert {entry["candidate"] for entry in report.alone} == {1}
    for reference, other in zip(references, nets, strict=True):
        assert_same_net(reference, other)


def test_tied_and_neighbouring_parameters_are_not_entangled():
    net = Net()
    net.third.weight = net.second.weight
    both = torch.zeros(16, 8, dtype=torch.float64)
    net.first.bias, net.second.bias = nn.Parameter(both[0]), nn.Parameter(both[1])
    net.register_buffer("nothing", torch.zeros(0))

    assert find_entanglement(net) == ""


def test_a_net_that_cannot_be_copied_says_so():
    class Computed(Net):
        def __init__(self):
            super().__init__()
            self.scale = self.first.weight.mean() * 0 + 1

        def forward(self, X):
            return super().forward(X) * self.scale.detach()

    net = NeuralNetClassifier(Computed, **SETTINGS)

    _, _, report = search(net, LANES, X, y)

    with pytest.raises(AssertionError, match="it holds tensors that it has computed"):
        raise AssertionError(report.alone[0]["reason"])


class Scaled(Net):
    """Its hook, or its ties, follow from a parameter that it does not keep."""

    def __init__(self, scale=None, tied=False):
        super().__init__()
        if scale:
            self.second.register_forward_hook(lambda module, inputs, output: output * scale)
        with torch.no_grad():
            self.third.weight.copy_(self.second.weight)
        if tied:
            self.third.weight = self.second.weight


@pytest.mark.parametrize(
    "lanes",
    [
        [{"module__scale": scale} for scale in (None, 0.5, 2.0)],
        [{"module__tied": tied} for tied in (False, True)],
    ],
)
def test_hooks_and_ties_of_candidates_are_told_apart(lanes):
    net = NeuralNetClassifier(Scaled, **SETTINGS)
    _, references, _ = search(net, lanes, X, y, fused=False)

    _, nets, _ = search(net, lanes, X, y)

    for reference, other in zip(references, nets, strict=True):
        assert_same_net(reference, other)


def test_a_hook_that_holds_its_module_has_a_digest():
    class Recording(Net):
        def __init__(self, scale):
            super().__init__()
            self.scale = scale
            self.second.register_forward_hook(self.change)

        def change(self, module, inputs, output):
            return output * self.scale

    one, same, other = (Recording(scale) for scale in (1.0, 1.0, 2.0))
    for net in (same, other):
        net.load_state_dict(one.state_dict())

    assert digest(one) == digest(same) != digest(other)


@dataclass
class Options:
    width: int = 8


def test_settings_in_a_dataclass_do_not_part_nets():
    class Configured(Net):
        def __init__(self, width):
            super().__init__()
            self.options = Options(width)

    lanes = [{"lr": 0.01, "module__width": 8}, {"lr": 0.02, "module__width": 8}, {"lr": 0.03}]
    net = NeuralNetClassifier(Configured, module__width=9, **SETTINGS)

    report = assert_parity(net, lanes, X, y)

    assert sorted(group["lanes"] for group in report.groups) == [2, 4]
