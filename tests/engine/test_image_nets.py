"""Convolutions and pooling: nets on images and sequences train by compiled steps, as torch does."""

import importlib.util

import numpy as np
import pytest
import torch
from parity import assert_parity, assert_same_net, compiled_steps, search
from sklearn.base import clone
from torch import nn
from torch.nn import functional as F

from sktune import NeuralNetClassifier
from sktune.engine.compiled import program
from sktune.engine.compiled.loading import load_kernels

pytestmark = [
    pytest.mark.skipif(importlib.util.find_spec("numba") is None, reason="no Numba"),
    # torch tells that such padding is slow
    pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel"),
]
_DRAWN = np.random.default_rng(0)
# as many as the splits of `parity` are of
N_ROWS = 110
SHAPE = (2, 7, 6)
IMAGES = _DRAWN.normal(size=(N_ROWS, *SHAPE))
SEQUENCES = _DRAWN.normal(size=(N_ROWS, 2, 13))
y = _DRAWN.integers(0, 3, N_ROWS)
LANES = [{"lr": 0.01}, {"lr": 0.03, "optimizer__weight_decay": 0.1}]


class Stack(nn.Module):
    """Layers in a row, and a linear layer on what they return for a row."""

    def __init__(self, make_layers, shape, dtype=torch.float64):
        super().__init__()
        self.layers = nn.Sequential(*make_layers())
        with torch.no_grad():
            width = self.layers(torch.zeros(2, *shape)).flatten(1).shape[1]
        # the trial has moved statistics
        self.layers = nn.Sequential(*make_layers())
        self.output = nn.Linear(width, 3)
        self.to(dtype)

    def forward(self, X):
        return self.output(torch.flatten(self.layers(X), 1))


class ByFunctions(nn.Module):
    """Residual, joined and averaged, by functions and methods."""

    def __init__(self, dtype=torch.float64):
        super().__init__()
        self.first = nn.Conv2d(2, 4, 3, padding=1)
        self.second = nn.Conv2d(4, 4, 3, padding=1)
        self.third = nn.Conv2d(4, 3, 1)
        self.output = nn.Linear(10, 3)
        self.to(dtype)

    def forward(self, X):
        X = F.relu(self.first(X))
        X = X + torch.tanh(self.second(X))
        X = torch.cat([X, F.max_pool2d(self.third(X), 3, stride=1, padding=1)], dim=1)
        X = torch.hstack([X.mean((2, 3)), F.adaptive_max_pool2d(X, 1).flatten(1)[:, :3]])
        return self.output(X)


class Pooled(nn.Module):
    def __init__(self, dtype=torch.float64):
        super().__init__()
        self.first = nn.Conv2d(2, 4, 3, padding=1)
        self.second = nn.Conv2d(4, 4, 3, padding=1)
        self.output = nn.Linear(4 * 3 * 3, 3)
        self.to(dtype)

    def forward(self, X):
        B, C, H, W = X.shape
        X = F.max_pool2d(F.relu(self.first(X.view(B, C, H, W))), 2)
        X = F.avg_pool2d(self.second(X), 2, stride=1, padding=1, count_include_pad=False)
        X = F.max_pool2d(X, (2, 2), 1)
        return self.output(X.reshape(X.size(0), X.size(1) * X.size(2) * X.size(3)))


class OfTable(nn.Module):
    """Takes a table, and sees its rows as images."""

    def __init__(self, dtype=torch.float64):
        super().__init__()
        self.image = nn.Unflatten(1, (2, 7, 6))
        self.first = nn.Conv2d(2, 4, 3)
        self.output = nn.Linear(4 * 2 * 2, 3)
        self.to(dtype)

    def forward(self, X):
        X = F.max_pool2d(self.first(self.image(X)).relu(), 2)
        return self.output(X.view(len(X), -1))


class OfSequences(nn.Module):
    def __init__(self, dtype=torch.float64):
        super().__init__()
        self.first = nn.Conv1d(1, 4, 5, padding="same")
        self.output = nn.Linear(4, 3)
        self.to(dtype)

    def forward(self, X):
        X = F.avg_pool1d(self.first(X.unsqueeze(1)), 2).sigmoid()
        return self.output(F.adaptive_avg_pool1d(X, 1).squeeze(-1))


class BySizes(nn.Module):
    """Pooled by functions whose windows are as large as what they look at."""

    def __init__(self, dtype=torch.float64):
        super().__init__()
        self.first = nn.Conv2d(2, 3, 2, padding=(1, 0))
        self.output = nn.Linear(12, 3)
        self.to(dtype)

    def forward(self, X):
        X = self.first(X).relu()
        X = X.flatten(1).view(X.shape)
        whole = F.max_pool2d(X, X.size()[2:]).view(X.size(0), X.size(1))
        of_lines = F.avg_pool2d(X, kernel_size=(X.shape[2], X.shape[-1])).flatten(1)
        line_by_line = X.mean(-1).mean(-1)
        column_by_column = X.mean(2, keepdim=True).mean((2, 3))
        return self.output(torch.cat([whole, of_lines, line_by_line, column_by_column], 1))


class Tied(nn.Module):
    """The same convolution twice, and its input once more."""

    def __init__(self, dtype=torch.float64):
        super().__init__()
        self.inner = nn.Conv2d(2, 2, 3, padding=1)
        self.output = nn.Linear(84, 3)
        self.to(dtype)

    def forward(self, X):
        X = self.inner(X)
        return self.output((X - self.inner(F.relu(X)) * X).flatten(1))


class DropsChannels(nn.Module):
    """Drops channels by functions, with rates of their own."""

    def __init__(self, dtype=torch.float64):
        super().__init__()
        self.first = nn.Conv2d(2, 5, 3)
        self.second = nn.Conv2d(5, 4, 3, padding=1)
        self.third = nn.Conv1d(4, 3, 3)
        self.drop = nn.Dropout2d(0.3)
        self.rate = 0.2
        self.output = nn.Linear(3 * 18, 3)
        self.to(dtype)

    def forward(self, X):
        X = F.dropout2d(self.first(X), self.rate, self.training)
        X = torch.feature_dropout(self.second(F.relu(X)), 0.4, train=self.training)
        X = self.drop(F.dropout(X, 0.1, self.training)).flatten(2)
        X = F.dropout1d(self.third(X), training=self.training, inplace=True).tanh()
        return self.output(F.dropout2d(X.unsqueeze(-1), 0.0, self.training).flatten(1))


class DropsRows(nn.Module):
    """Calls functions and layers with inputs that torch takes for a single row."""

    def __init__(self, dtype=torch.float64):
        super().__init__()
        self.first = nn.Conv2d(2, 5, 3)
        self.drop = nn.Dropout1d(0.2)
        self.other = nn.Dropout3d(0.1)
        self.output = nn.Linear(100, 3)
        self.to(dtype)

    def forward(self, X):
        X = self.other(F.dropout3d(self.first(X).relu(), 0.1, self.training))
        X = self.drop(X.flatten(1))
        X = torch.feature_dropout(X, 0.3, self.training)
        return self.output(F.dropout1d(X, 0.2, self.training))


def make_zeros(layer):
    """Return a layer whose outputs are 0 in the first step, wherever they look at."""
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


OF_IMAGES = {
    "plain": lambda: [nn.Conv2d(2, 5, 3)],
    "two": lambda: [
        nn.Conv2d(2, 9, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(9, 7, 3, padding=1),
        nn.Tanh(),
    ],
    "stride": lambda: [
        nn.Conv2d(2, 4, 3, stride=2, padding=1),
        nn.Conv2d(4, 8, (2, 3), stride=(1, 2), padding=(0, 2)),
    ],
    "dilation": lambda: [
        nn.Conv2d(2, 4, (3, 2), dilation=(2, 3), padding=2),
        nn.ReLU(),
        nn.Conv2d(4, 3, 3, dilation=2, stride=3, padding=2),
    ],
    "dilation by x": lambda: [
        nn.Conv2d(2, 4, 1),
        nn.Conv2d(4, 3, 3, dilation=(1, 2), padding=1),
    ],
    "equal stride and dilation": lambda: [
        nn.Conv2d(2, 4, 3, padding=2),
        nn.Conv2d(4, 3, 3, dilation=2, stride=2, padding=2),
    ],
    "groups": lambda: [
        nn.Conv2d(2, 6, 3, groups=2),
        nn.ReLU(),
        nn.Conv2d(6, 6, 3, groups=6, bias=False, padding=1),
        nn.Conv2d(6, 13, 1),
    ],
    "same": lambda: [
        nn.Conv2d(2, 6, (4, 3), padding="same"),
        nn.Conv2d(6, 2, 2, padding="same", dilation=3),
    ],
    "valid": lambda: [nn.Conv2d(2, 17, 2, padding="valid"), nn.Conv2d(17, 2, 2)],
    "windows in the padding": lambda: [
        nn.Conv2d(2, 6, 1, padding=2),
        nn.Conv2d(6, 3, 1, stride=3),
    ],
    "max": lambda: [nn.Conv2d(2, 6, 1), nn.MaxPool2d(2), nn.ReLU()],
    "max with ties": lambda: [make_zeros(nn.Conv2d(2, 6, 1)), nn.MaxPool2d(3, 2, padding=1)],
    "windows that begin behind the image": lambda: [
        nn.Conv2d(2, 6, 1),
        nn.MaxPool2d(2, 3, ceil_mode=True),
        nn.AvgPool2d(1, 2, ceil_mode=True),
    ],
    "max, ceil": lambda: [nn.Conv2d(2, 6, 1), nn.MaxPool2d(3, 2, ceil_mode=True), nn.Sigmoid()],
    "max, dilation": lambda: [
        nn.Conv2d(2, 6, 1),
        nn.ReLU(),
        nn.MaxPool2d(2, stride=1, dilation=(2, 1)),
    ],
    "average": lambda: [nn.Conv2d(2, 6, 1), nn.AvgPool2d((2, 3), (2, 1))],
    "average with padding": lambda: [nn.Conv2d(2, 6, 1), nn.AvgPool2d(3, 2, 1)],
    "average without padding": lambda: [
        nn.Conv2d(2, 6, 1),
        nn.AvgPool2d(3, 2, 1, count_include_pad=False),
    ],
    "average, ceil": lambda: [nn.Conv2d(2, 6, 1), nn.AvgPool2d(3, 2, 1, ceil_mode=True)],
    "average, negative divisor": lambda: [
        nn.Conv2d(2, 6, 1),
        nn.AvgPool2d(2, divisor_override=-2),
    ],
    "average, divisor": lambda: [nn.Conv2d(2, 6, 1), nn.AvgPool2d(2, divisor_override=3)],
    "global average": lambda: [nn.Conv2d(2, 6, 3, padding=1), nn.AdaptiveAvgPool2d(1)],
    "adaptive max": lambda: [nn.Conv2d(2, 6, 3, padding=1), nn.AdaptiveMaxPool2d((None, 2))],
    "batch norm": lambda: [
        nn.BatchNorm2d(2, affine=False),
        nn.Conv2d(2, 6, 3, padding=1, bias=False),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.Conv2d(6, 4, 3, bias=False),
        nn.BatchNorm2d(4, track_running_stats=False, eps=1e-2),
    ],
    "dropout": lambda: [nn.Conv2d(2, 6, 3, padding=1), nn.Dropout(0.3), nn.ReLU()],
    "dropout of channels": lambda: [nn.Conv2d(2, 6, 3, padding=1), nn.Dropout2d(0.3), nn.ReLU()],
    "dropout of odd channels": lambda: [
        nn.Conv2d(2, 5, 3, padding=1),
        nn.ReLU(),
        nn.Dropout2d(0.3),
        nn.MaxPool2d(2),
    ],
    "layer norm": lambda: [
        nn.Conv2d(2, 3, 3, padding=1, bias=False),
        nn.LayerNorm((3, 7, 6)),
        nn.ReLU(),
    ],
    "pooled rows": lambda: [nn.MaxPool2d(2), nn.Conv2d(2, 3, 2)],
    "flat": lambda: [nn.Flatten(2), nn.Flatten(), nn.Linear(84, 5), nn.ReLU()],
    "no channels": lambda: [nn.Conv2d(2, 3, 3), nn.Flatten(), nn.Unflatten(1, (6, 10)), nn.Tanh()],
}
OF_SEQUENCES = {
    "plain": lambda: [
        nn.Conv1d(2, 5, 3, padding=1, stride=2),
        nn.ReLU(),
        nn.MaxPool1d(2),
        nn.Conv1d(5, 4, 2, dilation=2),
    ],
    "batch norm": lambda: [
        nn.Conv1d(2, 5, 5, padding="same", bias=False),
        nn.BatchNorm1d(5),
        nn.ReLU(),
        nn.AvgPool1d(2),
        nn.Dropout1d(0.2),
    ],
    "global average": lambda: [nn.Conv1d(2, 5, 3), nn.AdaptiveAvgPool1d(1)],
    "adaptive max": lambda: [nn.Conv1d(2, 5, 4), nn.AdaptiveMaxPool1d(5)],
}
CASES = {
    **{f"images: {name}": (Stack, (layers, SHAPE), IMAGES) for name, layers in OF_IMAGES.items()},
    **{
        f"sequences: {name}": (Stack, (layers, (2, 13)), SEQUENCES)
        for name, layers in OF_SEQUENCES.items()
    },
    "functions": (ByFunctions, (), IMAGES),
    "pooled by functions": (Pooled, (), IMAGES),
    "images of a table": (OfTable, (), IMAGES.reshape(N_ROWS, -1)),
    "sequences of a table": (OfSequences, (), SEQUENCES[:, 0]),
    "windows of the size of images": (BySizes, (), IMAGES),
    "channels dropped by functions": (DropsChannels, (), IMAGES),
    "rows dropped as a whole": (DropsRows, (), IMAGES),
    "tied": (Tied, (), IMAGES),
}


def make_net(case, dtype=torch.float64, **settings):
    module, options, X = CASES[case]
    names = ("make_layers", "shape")[: len(options)]
    options = {f"module__{name}": value for name, value in zip(names, options, strict=True)}
    options["module__dtype"] = dtype
    settings = {"max_epochs": 3, "batch_size": 16, "random_state": 1, **options, **settings}
    X = X.astype("float32" if dtype is torch.float32 else "float64")
    return NeuralNetClassifier(module, **settings), X


@pytest.mark.parametrize("case", CASES)
def test_fits_are_compiled_and_end_as_by_torch(case):
    net, X = make_net(case)

    report = assert_parity(net, LANES, X, y)

    assert {group["steps"] for group in report.groups} == {"compiled"}, report.groups


@pytest.mark.parametrize("case", CASES)
def test_a_fit_has_the_same_bits_alone(case):
    net, X = make_net(case, torch.float32)
    rows = np.arange(30)

    _, nets, _ = search(net, LANES, X, y, cv=[(rows, rows)])

    for candidate, fused in zip(LANES, nets, strict=True):
        alone = clone(net).set_params(**candidate).fit(X[rows], y[rows])
        for one, other in zip(alone.module_.parameters(), fused.module_.parameters(), strict=True):
            assert torch.equal(one, other)


def test_a_batch_may_have_any_number_of_rows():
    for batch_size in (1, 7, 17, 33):
        net, X = make_net("images: two", batch_size=batch_size)
        assert_same_net(*fit_both(net, X[:40], y[:40]))


def fit_both(net, X, y):
    """Return a net fitted by torch's steps, and one by compiled ones."""
    with compiled_steps(False):
        by_torch = clone(net).fit(X, y)
    return by_torch, clone(net).fit(X, y)


def test_large_steps_are_taken_few_at_a_time(monkeypatch):
    kernels = load_kernels(np.dtype(np.float64))
    net, X = make_net("images: two")
    expected = clone(net).fit(X, y)
    calls = []
    plain = kernels.train_steps

    def note(*arguments):
        calls.append(len(arguments[16]))
        return plain(*arguments)

    monkeypatch.setattr(kernels, "train_steps", note)
    # a row takes 2 * 9 * 9 * 42 products, 9 * 9 * 7 * 42 and 294 * 3
    monkeypatch.setattr(program, "_MOST_PRODUCTS", 3 * 16 * 31_500 * 2)
    found = clone(net).fit(X, y)

    # 110 rows are 7 steps
    assert calls == [2, 2, 2, 1] * 3
    for one, other in zip(expected.module_.parameters(), found.module_.parameters(), strict=True):
        assert torch.equal(one, other)


def test_statistics_of_channels_may_be_an_average_over_all_steps():
    net, X = make_net("images: plain", module__make_layers=make_average)
    by_torch, ours = fit_both(net, X, y)

    assert_same_net(by_torch, ours)
    assert not torch.equal(by_torch.module_.output.weight, ours.module_.output.weight)


def make_average():
    return [nn.Conv2d(2, 6, 3, bias=False), nn.BatchNorm2d(6, momentum=None)]


NOT_READ = {
    "its layer layers.0 pads with other numbers than zeros": lambda: [
        nn.Conv2d(2, 3, 3, padding=1, padding_mode="reflect")
    ],
    "its layer layers.1 returns the places of its numbers": lambda: [
        nn.Conv2d(2, 3, 3),
        nn.MaxPool2d(2, return_indices=True),
        First(),
    ],
    "its layer layers.0 has windows of several sizes": lambda: [
        nn.AdaptiveAvgPool2d(4),
        nn.Conv2d(2, 3, 3),
    ],
    "its layer layers.0 is a ConvTranspose2d": lambda: [nn.ConvTranspose2d(2, 3, 3)],
    "its layer layers.1 is a GroupNorm": lambda: [nn.Conv2d(2, 4, 3), nn.GroupNorm(2, 4)],
    "it takes arrays of shape (3, 5, 4) for a table": lambda: [
        nn.Conv2d(2, 3, 3),
        nn.Linear(4, 4),
    ],
    "it does not use what its layer layers.0.layer returns": lambda: [SizeAlone()],
    "the mean of other than places of a channel": lambda: [nn.Conv2d(2, 3, 3), MeanOfChannels()],
}


class First(nn.Module):
    def forward(self, both):
        return both[0]


class SizeAlone(nn.Module):
    """Calls a layer a second time, for the size of what it returns alone."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Conv2d(2, 3, 3)

    def forward(self, X):
        return F.max_pool2d(self.layer(X), self.layer(X).shape[2:])


class MeanOfChannels(nn.Module):
    def forward(self, X):
        return X.mean(1)


@pytest.mark.parametrize("reason", NOT_READ)
def test_what_is_not_read_is_named_and_trains_as_by_torch(reason):
    net = NeuralNetClassifier(
        Stack, module__make_layers=NOT_READ[reason], module__shape=SHAPE, max_epochs=1
    )

    report = assert_parity(net.set_params(random_state=0), LANES, IMAGES, y)

    for group in report.groups:
        assert group["steps"] != "compiled"
        assert reason in group["blockers"]["compiled"]


@pytest.mark.parametrize("penalty", ["l1", "l2"])
def test_each_parameter_of_several_dimensions_is_penalized(penalty):
    net, X = make_net("images: layer norm", **{penalty: 0.1})

    assert_parity(net, LANES, X, y)


def test_a_convolution_that_computes_in_another_way_trains_as_by_torch(monkeypatch):
    def convolve_twice(self, X, weight, bias):
        return 2 * F.conv2d(X, weight, bias)

    monkeypatch.setattr(nn.Conv2d, "_conv_forward", convolve_twice)
    net, X = make_net("images: plain")

    report = assert_parity(net, LANES, X, y)

    for group in report.groups:
        assert "a method that was replaced" in group["blockers"]["compiled"]


OF_FUNCTIONS = ["channels dropped by functions", "rows dropped as a whole"]
SETTINGS = {
    "validation": {"early_stopping": True, "n_iter_no_change": 2},
    "augmentation": {"augment": "images", "augment__shift": 0.1, "augment__mixup": 0.2},
    "penalties": {"l1": 0.001, "clip_grad_norm": 0.3},
}


@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("case", OF_FUNCTIONS)
def test_calls_of_functions_are_compiled_in_fits_of_all_kinds(case, settings):
    net, X = make_net(case, **SETTINGS[settings])

    report = assert_parity(net, LANES, X, y)

    assert {group["steps"] for group in report.groups} == {"compiled"}, report.groups


@pytest.mark.parametrize("case", OF_FUNCTIONS)
def test_fits_with_calls_of_functions_go_on_where_they_stopped(case):
    net, X = make_net(case, torch.float32, lr_schedule="constant")
    whole = clone(net).set_params(max_epochs=6).fit(X, y)

    twice = clone(net).fit(X, y).partial_fit(X, y)

    for one, other in zip(whole.module_.parameters(), twice.module_.parameters(), strict=True):
        assert torch.equal(one, other)
