"""Nets with convolutions that are computed one after the other in a group."""

import pytest
import torch
from parity import X, assert_close, assert_parity, y
from torch import nn
from torch.nn import functional as F

from sktune import NeuralNetClassifier
from sktune.engine.compiled import program as compiled
from sktune.engine.sampling import DrawnMasks
from sktune.engine.steps import network
from sktune.engine.steps.network import MANY_OUTPUTS, StackedNet
from sktune.modules.dropout import LaneMasks, serve_dropout
from sktune.modules.function_masks import LaneFunctionMasks

RATES = [0.0, 0.5, 0.2]


class ConvNet(nn.Module):
    def __init__(self, rate=0.3):
        super().__init__()
        # one layer of dropout that is called twice in a step
        self.dropout = nn.Dropout(rate)
        self.layers = nn.Sequential(
            nn.ReLU(inplace=True),
            nn.Conv1d(1, 4, 3, padding=1),
            nn.BatchNorm1d(4),
            self.dropout,
            nn.MaxPool1d(2),
            nn.Dropout1d(rate),
            nn.Flatten(),
            self.dropout,
            nn.Linear(12, 3),
        )
        self.double()

    def forward(self, X):
        return self.layers(X.unsqueeze(1) if X.ndim == 2 else X)


class DropsByFunctions(ConvNet):
    """Calls dropout functions before and after layers of dropout."""

    def __init__(self, rate=0.3):
        super().__init__(rate)
        self.layers = nn.Sequential(nn.Unflatten(1, (1, -1)), *self.layers)
        # batch normalisation would take it away
        self.layers[2].bias = None

    def forward(self, X):
        X = torch.dropout(X, 0.1, self.training)
        for layer in self.layers:
            X = layer(X)
            if isinstance(layer, nn.MaxPool1d):
                X = F.dropout1d(X, 0.3, self.training, inplace=True)
        return X


@pytest.fixture
def calls(monkeypatch):
    """Let nets of any size go one by one, and return a list of the numbers of lanes that did."""
    monkeypatch.setattr(network, "MANY_OUTPUTS", 1)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    lanes = []
    compute = StackedNet._compute_one_by_one

    def note(net, *args):
        lanes.append(len(net))
        return compute(net, *args)

    monkeypatch.setattr(StackedNet, "_compute_one_by_one", note)
    return lanes


def stack(masks=None, positions=range(3), make=ConvNet):
    modules = []
    for lane in positions:
        torch.manual_seed(lane)
        module = make(RATES[lane])
        serve_dropout(module, lane)
        modules.append(module)
    rates = [RATES[lane] for lane in positions]
    masks = masks or [LaneMasks(list(positions), rates) for _ in range(2)]
    return StackedNet(modules, masks, LaneFunctionMasks(list(positions)))


def draw_rows(n_rows=5):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(3, n_rows, 6, dtype=torch.float64, generator=generator)


def step_of(net, rows, step=(1, 2)):
    """Return outputs, gradient and buffers of a training step."""
    outputs = net.forward(rows.clone(), True, step)
    gradient = net.gradient(outputs, torch.cos(outputs.detach())).clone()
    return [outputs.detach(), gradient, *net.buffers.values()]


def draw_masks():
    return [
        DrawnMasks([torch.Generator().manual_seed(9 * n + lane) for lane in range(3)], RATES)
        for n in range(2)
    ]


CASES = [(lambda: None, ConvNet), (draw_masks, ConvNet), (lambda: None, DropsByFunctions)]


@pytest.mark.parametrize(("make_masks", "make"), CASES)
def test_a_step_is_that_of_vmap(calls, make_masks, make, monkeypatch):
    found = step_of(stack(make_masks(), make=make), draw_rows())
    assert calls == [3]
    monkeypatch.setattr(network, "MANY_OUTPUTS", 1 << 40)
    expected = step_of(stack(make_masks(), make=make), draw_rows())

    assert calls == [3]
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("make", [ConvNet, DropsByFunctions])
def test_a_lane_has_the_same_bits_without_its_mates(calls, make):
    together = step_of(stack(make=make), draw_rows())
    alone = step_of(stack(positions=[1], make=make), draw_rows()[1:2])

    assert calls == [3, 1]
    for one, other in zip(together, alone, strict=True):
        assert torch.equal(one[1], other[0])


@pytest.mark.parametrize("make", [ConvNet, DropsByFunctions])
def test_fits_end_as_alone(calls, make):
    net = NeuralNetClassifier(make, max_epochs=4, batch_size=16, random_state=3)
    candidates = [
        {"lr": 0.01, "module__rate": 0.0},
        {"lr": 0.02, "module__rate": 0.5, "optimizer__weight_decay": 0.2},
    ]

    report = assert_parity(net, candidates, X, y)

    assert [group["lanes"] for group in report.groups] == [4]
    assert max(calls) == 4


def test_the_report_tells_that_images_are_too_large_to_be_compiled(monkeypatch):
    monkeypatch.setattr(compiled, "_LARGEST_IMAGES", 1000)
    net = NeuralNetClassifier(ConvNet, max_epochs=1, batch_size=64, random_state=3)

    report = assert_parity(net, [{"lr": 0.01}, {"lr": 0.02}], X[:, None], y)

    reasons = {group["blockers"]["compiled"] for group in report.groups}
    assert reasons == {
        "its largest images have 24 numbers for 64 rows, and compiled steps are for 1000 at most"
    }


def test_a_net_that_fails_on_a_shape_tells_torch_error(calls):
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        stack().forward(torch.ones(3, 5, 1, 10, dtype=torch.float64), True)


@pytest.mark.parametrize(("n_rows", "goes"), [(MANY_OUTPUTS // 32, True), (15, False)])
def test_the_size_of_a_batch_decides_and_leaves_the_nets(n_rows, goes, monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    # of a row, a convolution returns 4 channels of 8 numbers
    module = nn.Sequential(nn.Conv1d(1, 4, 3, padding=1), nn.BatchNorm1d(4))
    net = StackedNet([module, module], [])
    before = [net.state(lane) for lane in range(2)]

    assert net._goes_one_by_one(torch.ones(2, n_rows, 1, 8)) is goes
    # one row less is not enough: the numbers of one net count
    assert not net._goes_one_by_one(torch.ones(2, n_rows - 1, 1, 8))
    for lane in range(2):
        assert_close(before[lane], net.state(lane), rtol=0)


def test_several_threads_compute_all_nets_at_once(calls, monkeypatch):
    net = stack()
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    net.forward(draw_rows(), True)
    assert calls == []

    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    net.forward(draw_rows(), True)
    assert calls == [3]
