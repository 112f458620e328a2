"""Modules of every kind as many nets: parity with each alone, and the bookkeeping of lanes."""

import numpy as np
import pytest
import torch
from parity import RAGGED, X, assert_close, assert_parity, y
from torch import nn
from torch.nn.utils import parametrize

from sktune import MLP, NeuralNetClassifier
from sktune.engine.steps.network import StackedNet, Unfusable
from sktune.modules.dropout import LaneMasks, serve_dropout

NET = {"max_epochs": 11, "batch_size": 16, "random_state": 3}
rng = np.random.default_rng(0)
images = rng.normal(size=(110, 1, 6, 6))
words = rng.integers(0, 9, size=(110, 5))


class Custom(nn.Module):
    """Holds layers in float64, and calls them one after the other."""

    def __init__(self, rate=0.3):
        super().__init__()
        self.layers = nn.Sequential(*self.build(rate)).double()

    def forward(self, X):
        return self.layers(X)


class ConvNet(Custom):
    def build(self, rate):
        first = [
            nn.Conv2d(1, 4, 3, bias=False),
            nn.BatchNorm2d(4),
            nn.ReLU(),
            nn.Dropout2d(rate),
            nn.MaxPool2d(2),
        ]
        return [*first, nn.Flatten(), nn.Linear(16, 3)]


class DeepConvNet(Custom):
    def build(self, rate):
        first = [
            nn.Conv2d(1, 4, 3, groups=1, padding=1),
            nn.GroupNorm(2, 4),
            nn.GELU(),
            nn.AvgPool2d(2),
        ]
        return [
            *first,
            nn.Conv2d(4, 4, 3, groups=2),
            nn.Dropout(rate),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(4, 3),
        ]


class Normed(Custom):
    def build(self, rate):
        return [nn.Linear(6, 8), nn.LayerNorm(8), nn.SiLU(), nn.Dropout(rate), nn.Linear(8, 3)]


class Tracked(Custom):
    """Batch normalisation without learned numbers, and one without running ones."""

    def build(self, rate):
        norms = nn.BatchNorm1d(8, affine=False), nn.BatchNorm1d(8, track_running_stats=False)
        inward, onward = nn.Linear(6, 8, bias=False), nn.Linear(8, 8, bias=False)
        return [inward, norms[0], nn.ReLU(), onward, norms[1], nn.ReLU(), nn.Linear(8, 3)]


class Positive(nn.Module):
    def forward(self, weight):
        return nn.functional.softplus(weight)


class Parametrized(Custom):
    def build(self, rate):
        parametrize.register_parametrization(layer := nn.Linear(6, 8), "weight", Positive())
        return [layer, nn.PReLU(), nn.Linear(8, 3)]


class OnlyDropout(nn.Module):
    """Of its dropout layer it holds one, and calls it twice."""

    def __init__(self, rate=0.3):
        super().__init__()
        self.inward, self.onward, self.outward = nn.Linear(6, 8), nn.Linear(8, 8), nn.Linear(8, 3)
        self.dropout = nn.Dropout(rate)
        self.double()

    def forward(self, X):
        hidden = self.dropout(self.inward(X).relu())
        return self.outward(self.dropout(self.onward(hidden).relu()))


class Residual(OnlyDropout):
    def forward(self, X):
        hidden = self.inward(X).tanh()
        for _ in range(2):
            hidden = hidden + self.dropout(self.onward(hidden).relu())
        return self.outward(hidden)


class Tied(OnlyDropout):
    """Two layers share their weights."""

    def __init__(self, rate=0.3):
        super().__init__(rate)
        self.again = nn.Linear(8, 8).double()
        self.again.weight = self.onward.weight

    def forward(self, X):
        return self.outward(self.dropout(self.again(self.onward(self.inward(X)).relu())))


class Frozen(OnlyDropout):
    """Some parameters are not learned, and a buffer is not persistent."""

    def __init__(self, rate=0.3):
        super().__init__(rate)
        self.inward.weight.requires_grad_(False)
        self.register_buffer(
            "shift", torch.linspace(0, 1, 8, dtype=torch.float64), persistent=False
        )

    def forward(self, X):
        return self.outward(self.dropout(self.onward(self.inward(X) + self.shift).relu()))


class Embedded(nn.Module):
    def __init__(self, rate=0.3):
        super().__init__()
        self.embed = nn.Embedding(9, 4)
        self.layers = nn.Sequential(nn.Flatten(), nn.Dropout(rate), nn.Linear(20, 3))
        self.double()

    def forward(self, X):
        return self.layers(self.embed(X))


class Attentive(nn.Module):
    """One head of attention, written out."""

    def __init__(self, rate=0.3):
        super().__init__()
        self.embed, self.project, self.outward = (
            nn.Embedding(9, 4),
            nn.Linear(4, 12),
            nn.Linear(4, 3),
        )
        self.dropout = nn.Dropout(rate)
        self.double()

    def forward(self, X):
        query, key, value = self.project(self.embed(X)).chunk(3, -1)
        weights = self.dropout((query @ key.transpose(-1, -2) / 2).softmax(-1))
        return self.outward((weights @ value).mean(1))


CASES = {
    **{kind: images for kind in (ConvNet, DeepConvNet)},
    **{kind: X for kind in (Normed, Tracked, Parametrized, OnlyDropout, Residual, Tied, Frozen)},
    **{kind: words for kind in (Embedded, Attentive)},
}
LANES = [
    {"lr": 0.01, "module__rate": 0.0},
    {"lr": 0.02, "module__rate": 0.5, "random_state": 4, "optimizer__weight_decay": 0.2},
    {"lr": 0.01, "module__rate": 0.2, "max_epochs": 6},
]


@pytest.mark.parametrize("kind", CASES)
def test_modules_end_as_alone(kind):
    rows = CASES[kind]
    lanes = [
        {
            k: v
            for k, v in lane.items()
            if not (kind in (Tracked, Parametrized) and k == "module__rate")
        }
        for lane in LANES
    ]

    report = assert_parity(NeuralNetClassifier(kind, **NET), lanes, rows, y)

    lanes = sorted(group["lanes"] for group in report.groups)
    # without a rate, two of the three candidates differ in their epochs only: one training
    expected = [4] if kind is Tracked else [6]
    if kind is Parametrized:
        # torch makes a class for each parametrized layer
        expected = [1, 1, 1, 1]
    assert lanes == expected


def test_an_instance_is_copied_for_each_lane():
    module = OnlyDropout()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}

    assert_parity(NeuralNetClassifier(module, **NET), [{"lr": 0.01}, {"lr": 0.1}], X, y)

    assert_close(before, module.state_dict(), rtol=0)


def test_a_net_of_one_weight_keeps_its_shapes():
    class OneWeight(nn.Linear):
        def __init__(self):
            super().__init__(1, 1, bias=False, dtype=torch.float64)

    for optimizer in (torch.optim.NAdam, torch.optim.SGD):
        net = NeuralNetClassifier(OneWeight, nn.BCEWithLogitsLoss, optimizer, lr=0.1, max_epochs=2)
        assert_parity(net, [{"random_state": 0}, {"random_state": 1}], X[:, :1], y > 0)


@pytest.mark.parametrize(
    "module", [MLP, nn.Sequential(nn.Flatten(0, -2), nn.Linear(6, 3)).double()]
)
def test_chains_of_layers_on_rows_of_more_dimensions(module):
    report = assert_parity(
        NeuralNetClassifier(module, **NET), [{"lr": 0.01}, {"lr": 0.1}], images[:, 0, :1], y
    )

    assert len(report.groups) == 1


@pytest.mark.parametrize("hidden", [(), (4, 4)])
def test_chains_of_layers_with_layers_in_place(hidden):
    widths = [6, *hidden]
    layers = [
        part
        for n, m in zip(widths, hidden, strict=False)
        for part in (nn.Linear(n, m), nn.ReLU(inplace=True))
    ]
    module = nn.Sequential(
        nn.ELU(inplace=True), nn.Dropout(0.2), *layers, nn.Linear(widths[-1], 3, bias=False)
    ).double()

    assert_parity(NeuralNetClassifier(module, **NET), [{"lr": 0.01, "l2": 0.1}, {"lr": 0.1}], X, y)


@pytest.mark.parametrize(
    "first", [[nn.Dropout(0.3)], [nn.ReLU()], [nn.Tanh(), nn.ReLU()], [nn.GELU(), nn.Dropout(0.3)]]
)
def test_chains_that_do_not_begin_with_a_linear_layer_leave_their_rows(first):
    module = nn.Sequential(
        *first, nn.Linear(6, 4), nn.Dropout(0.2), nn.ReLU(), nn.Linear(4, 3)
    ).double()

    report = assert_parity(
        NeuralNetClassifier(module, **NET), [{"lr": 0.01}, {"lr": 0.1}], X, y, cv=RAGGED[:1]
    )

    assert [group["lanes"] for group in report.groups] == [2]


# --- lanes --------------------------------------------------------------------------------------


def stack(n_lanes=4):
    modules = []
    for seed in range(n_lanes):
        torch.manual_seed(seed)
        module = MLP(3, 2, hidden=4, batch_norm=True, dropout=0.1 * seed, dtype=torch.float64)
        serve_dropout(module, seed)
        modules.append(module)
    return StackedNet(
        modules, [LaneMasks(range(n_lanes), [0.1 * seed for seed in range(n_lanes)])]
    ), modules


def test_forward_is_that_of_each_module():
    stacked, modules = stack()
    rows = torch.randn(4, 5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))

    for step in ((0, 0), (2, 7)):
        outputs = stacked.forward(rows, True, step)
        for lane, module in enumerate(modules):
            stream = module.layers[3].stream
            stream.epoch, stream.batch = step
            torch.testing.assert_close(outputs[lane], module.train()(rows[lane]))
    for lane, module in enumerate(modules):
        assert_close(module.state_dict(), stacked.state(lane), rtol=1e-12)
        torch.testing.assert_close(stacked.forward(rows, False)[lane], module.eval()(rows[lane]))


def test_a_selection_is_a_copy_that_can_be_put_back():
    stacked, _ = stack()
    rows = torch.ones(2, 5, 3, dtype=torch.float64)
    before = [stacked.state(lane) for lane in range(4)]
    lanes = torch.tensor([3, 1])

    chosen = stacked.select(lanes)
    assert len(chosen) == 2
    chosen.flat += 1
    chosen.forward(rows, True)
    for lane in range(4):
        assert_close(before[lane], stacked.state(lane), rtol=0)

    stacked.put_back(lanes, chosen)
    for lane in (0, 2):
        assert_close(before[lane], stacked.state(lane), rtol=0)
    assert_close(chosen.state(0), stacked.state(3), rtol=0)
    assert_close(chosen.state(1), stacked.state(1), rtol=0)
    assert stacked.state(3)["layers.1.num_batches_tracked"] == 1


def test_states_are_copies_of_their_own_lane_alone():
    stacked, _ = stack()
    state = stacked.state(2)
    stacked.flat.zero_()

    assert state["layers.0.weight"].abs().sum() > 0
    assert (
        state["layers.0.weight"].untyped_storage().nbytes()
        < stacked.flat.untyped_storage().nbytes() / 2
    )


def test_a_gradient_is_zero_where_penalties_train_an_idle_weight():
    _, modules = stack(2)
    names = [name for name, _ in modules[0].named_parameters()]
    idle = [name for name in names if name != "layers.1.bias"]
    stacked = StackedNet(modules, [], idle=idle, has_penalties=True)
    weights = [name for name in names if name in ("layers.0.weight", "layers.4.weight")]
    assert [*stacked.gradients] == [name for name in names if name in (*weights, "layers.1.bias")]
    for leaf in stacked.leaves.values():
        leaf.requires_grad_()
    stacked.flat_gradient.fill_(7.0)
    gradient = stacked.gradient(
        stacked.leaves["layers.1.bias"] * 2, torch.ones(2, 4, dtype=torch.float64)
    )

    assert gradient.shape == stacked.flat.shape
    assert gradient.sum() == 2 * 2 * 4


@pytest.mark.parametrize("idle", [(), ("layers.1.bias",)])
def test_a_gradient_that_comes_and_goes_is_told(idle):
    _, modules = stack(2)
    stacked = StackedNet(modules, [], idle=idle, has_penalties=True)
    stacked.forward(torch.zeros(2, 5, 3, dtype=torch.float64), False)
    bias = {**stacked.leaves, **stacked.skipped_leaves}["layers.1.bias"]

    with pytest.raises(Unfusable, match="gets a gradient in some batches only"):
        stacked.gradient(bias * 2, torch.ones(2, 4, dtype=torch.float64))
