"""Nets that are no chains: each operation that is read trains by compiled steps, as torch does."""

import importlib.util
import re

import numpy as np
import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from parity import X, X_reg, assert_parity, assert_same_net, compiled_steps, search, y, y_reg
from sklearn.base import clone
from sklearn.exceptions import FitFailedWarning
from torch import nn
from torch.nn import functional as F

from sktune import MLP, NeuralNetClassifier, NeuralNetRegressor

pytestmark = pytest.mark.skipif(importlib.util.find_spec("numba") is None, reason="no Numba")
# 10 epochs of 5 steps
SETTINGS = {"max_epochs": 10, "batch_size": 16, "lr": 0.01, "random_state": 1}
LANES = [{"lr": 0.01}, {"lr": 0.03, "optimizer__weight_decay": 0.1}]
# Columns 0 and 1 are categories.
KEYS = np.random.default_rng(0).integers(0, 4, (len(X), 2))
MIXED = np.column_stack([KEYS, X])


class Net(nn.Module):
    """The layers of all nets; each takes those that it needs."""

    def __init__(self, n_outputs=3, dtype=torch.float64):
        super().__init__()
        self.dense = nn.Linear(6, 8, dtype=dtype)
        self.output = nn.Linear(8, n_outputs, dtype=dtype)
        self.drop = nn.Dropout(0.3)
        self.dtype = dtype

    def linear(self, n_inputs, n_outputs, **options):
        return nn.Linear(n_inputs, n_outputs, dtype=self.dtype, **options)


class Residual(Net):
    def __init__(self, **options):
        super().__init__(**options)
        self.inner = self.linear(8, 8)

    def forward(self, X):
        X = torch.relu(self.dense(X))
        return self.output(X + self.drop(F.silu(self.inner(X))))


class Differences(Residual):
    def forward(self, X):
        X = self.dense(X)
        X = torch.sub(1 - X, self.inner(X), alpha=0.5)
        return -self.output(torch.add(X, X.tanh(), alpha=2) / 3 + 0.5) * 2


class InPlaceSum(Residual):
    def forward(self, X):
        X = self.dense(X).tanh()
        Y = self.inner(X)
        Y += X
        return self.output(Y)


class Concatenated(Net):
    def __init__(self, **options):
        super().__init__(**options)
        self.wide = self.linear(6, 5)
        self.output = self.linear(8 + 5 + 6, options.get("n_outputs", 3))

    def forward(self, X):
        return self.output(torch.cat([self.dense(X).relu(), X, self.drop(self.wide(X))], dim=1))


class Gated(Net):
    def __init__(self, **options):
        super().__init__(**options)
        self.gate = self.linear(6, 8, bias=False)
        self.halves = self.linear(8, 16)

    def forward(self, X):
        X = torch.tanh(self.dense(X)) * torch.sigmoid(self.gate(X))
        a, b = self.halves(X).chunk(2, dim=1)
        X = F.glu(torch.hstack([a, b])) * a
        return self.output(X * X)


class Sliced(Net):
    def __init__(self, **options):
        super().__init__(**options)
        self.first = self.linear(2, 8)

    def forward(self, X):
        few, one = X[:, 1:3], X[:, -1].unsqueeze(1)
        many = self.dense(torch.cat((few, one, X[:, :3]), 1))
        return self.output(self.first(X[:, :2]) + many)


class Reused(Residual):
    def forward(self, X):
        X = self.drop(self.inner(self.dense(X)))
        return self.output(self.inner(self.drop(X)) + self.output.in_features * X)


class Tied(Residual):
    def __init__(self, **options):
        super().__init__(**options)
        self.other = self.linear(8, 8)
        self.other.weight = self.inner.weight

    def forward(self, X):
        return self.output(self.other(torch.tanh(self.inner(self.dense(X)))))


class DropoutIfTraining(Residual):
    def forward(self, X):
        Y = self.dense(X)
        X = self.inner(Y)
        if self.training:
            X = self.drop(X)
        return self.output(X + Y)


class LayerNorms(Residual):
    def __init__(self, **options):
        super().__init__(**options)
        self.norm = nn.LayerNorm(8, eps=1e-3, dtype=self.dtype)
        self.plain = nn.LayerNorm(8, elementwise_affine=False)
        self.scales = nn.LayerNorm(6, bias=False, dtype=self.dtype)

    def forward(self, X):
        X = self.dense(self.scales(X))
        X = X + self.inner(F.relu(self.norm(X)))
        return self.output(self.plain(X) + self.norm(X))


class BatchNorms(Net):
    """Without biases before the normalisation: their gradients would be rounding noise."""

    def __init__(self, momentum=0.2, affine=True, tracked=True, **options):
        super().__init__(**options)
        self.dense = self.linear(6, 8, bias=False)
        self.inner = self.linear(8, 8, bias=False)
        options = {"momentum": momentum, "affine": affine, "track_running_stats": tracked}
        self.norm = nn.BatchNorm1d(8, eps=1e-3, **options, dtype=self.dtype)
        self.twice = nn.BatchNorm1d(8, **options, dtype=self.dtype)

    def forward(self, X):
        X = self.drop(F.relu(self.norm(self.dense(X))))
        return self.output(self.twice(X + self.twice(self.inner(X))))


class Embedded(Net):
    """Embeddings of two columns, beside numbers."""

    def __init__(self, padding_idx=None, **options):
        super().__init__(**options)
        sizes = [(4, 2), (5, 3)]
        self.embeddings = nn.ModuleList(
            nn.Embedding(*size, dtype=self.dtype, padding_idx=padding_idx) for size in sizes
        )
        self.dense = self.linear(2 + 3 + 6, 8)

    def forward(self, X):
        parts = []
        for n, layer in enumerate(self.embeddings):
            parts.append(layer(X[:, n].long()))
        X = torch.cat([*parts, X[:, 2:]], dim=1)
        return self.output(torch.relu(self.dense(X)))


class EmbeddedTogether(Net):
    """One embedding of several columns, which looks some up twice."""

    def __init__(self, **options):
        super().__init__(**options)
        self.embedding = nn.Embedding(4, 3, dtype=self.dtype)
        self.dense = self.linear(6 + 3, 8)

    def forward(self, X):
        keys = X.to(torch.int64)
        looked = self.embedding(keys[:, :2]).view(X.size(0), -1)
        X = torch.cat([looked, self.embedding(keys[:, 0])], dim=1)
        return self.output(self.drop(self.dense(X)).tanh())


class FunctionalDropout(Residual):
    """Calls of the function, and layers, with rates of their own."""

    def forward(self, X):
        X = F.dropout(self.dense(X), training=self.training)
        Y = torch.dropout(self.inner(X), 0.2, self.training)
        return self.output(F.dropout(self.drop(X), p=0.1, training=self.training) + Y)


GRAPHS = [
    Residual,
    Differences,
    InPlaceSum,
    Concatenated,
    Gated,
    Sliced,
    Reused,
    Tied,
    DropoutIfTraining,
    LayerNorms,
]


def assert_compiled(report):
    blockers = [group["blockers"] for group in report.groups]
    assert [group["steps"] for group in report.groups] == ["compiled"] * len(blockers), blockers


def assert_alone_as_together(net, X, y):
    """Assert that a fit by compiled steps gives what one by torch's steps does."""
    ours = clone(net).fit(X, y)
    with compiled_steps(False):
        torchs = clone(net).fit(X, y)
    for name, tensor in torchs.module_.state_dict().items():
        torch.testing.assert_close(ours.module_.state_dict()[name], tensor, rtol=1e-8, atol=1e-10)


def assert_compiled_parity(net, X, y):
    """Assert parity of compiled steps alone, where torch's steps cannot be fused."""
    _, references, _ = search(net, LANES, X, y, fused=False)
    _, nets, report = search(net, LANES, X, y)
    assert report.alone == [], report
    assert_compiled(report)
    for reference, other in zip(references, nets, strict=True):
        assert_same_net(reference, other)
    assert_alone_as_together(net, X, y)


@pytest.mark.parametrize("module", GRAPHS)
def test_graphs(module):
    net = NeuralNetClassifier(module, **SETTINGS, l1=0.001)

    assert_compiled(assert_parity(net, LANES, X, y))
    assert_alone_as_together(net, X, y)


@pytest.mark.parametrize("module", [Residual, Gated])
def test_graphs_of_regressors(module):
    net = NeuralNetRegressor(
        module, module__n_outputs=2, **SETTINGS, optimizer=torch.optim.SGD, early_stopping=True
    )

    assert_compiled(assert_parity(net, LANES, X_reg, y_reg))


@pytest.mark.parametrize("module", [Residual, Concatenated, LayerNorms])
def test_graphs_in_float32(module):
    rows = np.random.default_rng(0).normal(size=(240, 6)).astype(np.float32)
    labels = (rows[:, 0] > 0).astype(int) + (rows[:, 1] > 1)
    net = NeuralNetClassifier(module, module__dtype=torch.float32, **SETTINGS)

    plain, _, _ = search(net, LANES, rows, labels, fused=False)
    fused, _, report = search(net, LANES, rows, labels)

    assert_compiled(report)
    np.testing.assert_allclose(
        fused.cv_results_["mean_test_score"], plain.cv_results_["mean_test_score"], atol=0.02
    )


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"module__affine": False, "module__momentum": 0.0},
        {"module__tracked": False},
    ],
)
def test_batch_norm(options):
    net = NeuralNetClassifier(BatchNorms, **options, **SETTINGS, early_stopping=True)

    assert_compiled(assert_parity(net, LANES, X, y))
    assert_alone_as_together(net, X, y)


def test_batch_norm_that_averages_over_all_steps():
    net = NeuralNetClassifier(BatchNorms, module__momentum=None, **SETTINGS)

    assert_compiled_parity(net, X, y)


def test_batch_norm_of_an_mlp():
    net = NeuralNetClassifier(
        module__batch_norm=True,
        module__hidden=(7, 5),
        module__dropout=0.2,
        module__dtype=torch.float64,
        **SETTINGS,
    )

    assert_compiled(assert_parity(net, LANES, X, y))
    assert type(net.fit(X, y).module_) is MLP
    assert net.module_.layers[1].num_batches_tracked == 10 * 7


def test_functional_dropout():
    net = NeuralNetClassifier(FunctionalDropout, **SETTINGS)

    assert_compiled_parity(net, X, y)
    with compiled_steps(False):
        assert_same_net(clone(net).fit(X, y), clone(net).fit(X, y), rtol=0)


def test_batch_norm_goes_on_where_it_stopped():
    net = NeuralNetClassifier(BatchNorms, **SETTINGS)
    whole = clone(net).set_params(max_epochs=20).fit(X, y)

    twice = clone(net).fit(X, y).partial_fit(X, y)

    for name, tensor in whole.module_.state_dict().items():
        torch.testing.assert_close(twice.module_.state_dict()[name], tensor)


def test_a_batch_of_one_row_fails_alone_as_together():
    net = NeuralNetClassifier(BatchNorms, **SETTINGS)
    errors = []
    for fused in (False, True):
        with pytest.raises(ValueError, match="Expected more than 1 value per channel") as caught:
            search(net, [{"batch_size": 1}], X, y, fused=fused, error_score="raise")
        errors.append(str(caught.value))

    assert errors[0] == errors[1]


class FrozenNorm(BatchNorms):
    """The running statistics stay what they are."""

    def train(self, mode=True):
        super().train(mode)
        self.norm.eval()
        return self


class Rescaled(Net):
    def __init__(self, **options):
        super().__init__(**options)
        self.scale = nn.Parameter(torch.ones(8, dtype=self.dtype))

    def forward(self, X):
        return self.output(self.dense(X) * self.scale)


class LookedUpLater(Embedded):
    def forward(self, X):
        keys = (X[:, 0] + 1).long() - 1
        parts = [self.embeddings[0](keys), self.embeddings[1](X[:, 1].long()), X[:, 2:]]
        return self.output(self.dense(torch.cat(parts, dim=1)))


class Averaged(Residual):
    def forward(self, X):
        X = self.dense(X)
        return self.output(torch.stack([X, self.inner(X)]).mean(dim=0))


LINE = r", in test_written_graphs.py, line \d+: "
NOT_READ = {
    FrozenNorm: "its layer norm is in another mode than the module" + LINE,
    Rescaled: "it computes with scale outside of a layer" + LINE,
    LookedUpLater: "computes with something else than a table of numbers" + LINE + "keys =",
    Averaged: "it computes stack" + LINE + "return self.output",
}


@pytest.mark.parametrize("module", NOT_READ)
def test_what_is_not_read_is_named_and_trains_stacked(module):
    net = NeuralNetClassifier(module, **SETTINGS)
    rows = MIXED if module is LookedUpLater else X

    report = assert_parity(net, LANES, rows, y)

    assert [group["steps"] for group in report.groups] == ["stacked"]
    assert re.search(NOT_READ[module], report.groups[0]["blockers"]["compiled"])


@pytest.mark.parametrize("module", [Embedded, EmbeddedTogether])
def test_embeddings(module):
    net = NeuralNetClassifier(module, **SETTINGS, l2=0.001)

    assert_compiled(assert_parity(net, LANES, MIXED, y))
    assert_alone_as_together(net, MIXED, y)


def test_an_embedding_with_a_row_that_stays():
    net = NeuralNetClassifier(Embedded, module__padding_idx=1, **SETTINGS)

    assert_compiled_parity(net, MIXED, y)


def test_an_embedding_of_a_table_of_integers():
    net = NeuralNetClassifier(EmbeddedTogether, **SETTINGS)

    assert_compiled(assert_parity(net, LANES, KEYS, y))


def test_a_number_that_an_embedding_does_not_have():
    net = NeuralNetClassifier(Embedded, **SETTINGS)
    rows = MIXED.copy()
    rows[5, 0] = 4

    with pytest.raises(IndexError, match="index out of range"):
        search(net, LANES, rows, y, error_score="raise")


def test_a_lane_that_diverges_leaves_the_others_alone():
    net = NeuralNetClassifier(BatchNorms, **SETTINGS, optimizer=torch.optim.SGD)
    candidates = [{"lr": 0.01}, {"lr": 1e200}, {"lr": 0.02}]

    failed = pytest.warns(FitFailedWarning, match="2 fits failed")
    with failed, pytest.warns(UserWarning, match="test scores are non-finite"):
        found, _, report = search(net, candidates, X, y)
    alone, _, _ = search(net, [candidates[0], candidates[2]], X, y)

    assert_compiled(report)
    scores = found.cv_results_["mean_test_score"]
    assert np.isnan(scores[1])
    np.testing.assert_array_equal(scores[[0, 2]], alone.cv_results_["mean_test_score"])


STEP = st.sampled_from(
    [
        "linear",
        "relu",
        "add",
        "product",
        "cat",
        "slice",
        "layer norm",
        "batch norm",
        "drop",
        "scale",
    ]
)


class Drawn(nn.Module):
    """Random operations, each of one or two of the values before it."""

    def __init__(self, plan):
        super().__init__()
        self.plan = plan
        self.layers = nn.ModuleDict()
        self.halves = {}
        widths = [6]
        for n, (kind, first, second) in enumerate(plan):
            a = first % len(widths)
            b = second % len(widths)
            width = widths[a]
            options = {"dtype": torch.float64}
            if kind in ("linear", "add", "product"):
                # what a sum adds has the width of the other value
                width = 1 + second % 9 if kind == "linear" else widths[b]
                self.layers[str(n)] = nn.Linear(widths[a], width, bias=False, **options)
            elif kind == "cat":
                width = widths[a] + widths[b]
            elif kind == "slice":
                width = self.halves[n] = -(-widths[a] // 2)
            elif kind == "layer norm":
                self.layers[str(n)] = nn.LayerNorm(width, **options)
            elif kind == "batch norm":
                self.layers[str(n)] = nn.BatchNorm1d(width, **options)
            elif kind == "drop":
                self.layers[str(n)] = nn.Dropout(0.2)
            widths.append(width)
        self.output = nn.Linear(sum(widths), 3, dtype=torch.float64)

    def forward(self, X):
        values = [X]
        for n, (kind, first, second) in enumerate(self.plan):
            a = values[first % len(values)]
            b = values[second % len(values)]
            if str(n) in self.layers:
                a = self.layers[str(n)](a)
            if kind == "add":
                a = a - b
            elif kind == "product":
                a = a.tanh() * b
            elif kind == "relu":
                a = a.relu()
            elif kind == "function":
                a = F.dropout(a, 0.1 * (second % 4), self.training)
            elif kind == "scale":
                a = 1 - 0.5 * a
            elif kind == "cat":
                a = torch.cat([a, b], dim=1)
            elif kind == "slice":
                a = a[:, -self.halves[n] :] if second % 2 else a.chunk(2, dim=1)[0]
            values.append(a)
        return self.output(torch.cat(values, dim=1) / len(values))


@settings(derandomize=True, max_examples=10, deadline=None, phases=[Phase.generate])
@given(
    plan=st.lists(st.tuples(STEP, st.integers(0, 20), st.integers(0, 20)), min_size=2, max_size=8)
)
def test_random_graphs(plan):
    net = NeuralNetClassifier(Drawn, module__plan=plan, **{**SETTINGS, "max_epochs": 3})

    assert_compiled_parity(net.set_params(optimizer=torch.optim.SGD), X, y)
