"""It does not matter how a net is written: what computes the same chain trains in the same way."""

import importlib.util

import numpy as np
import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from parity import X, X_reg, assert_parity, compiled_steps, search, y, y_reg
from sklearn.base import clone
from torch import nn
from torch.nn import functional as F

from sktune import NeuralNetClassifier, NeuralNetRegressor
from sktune.engine.compiled import program

pytestmark = pytest.mark.skipif(importlib.util.find_spec("numba") is None, reason="no Numba")
SETTINGS = {"max_epochs": 3, "batch_size": 16, "lr": 0.01, "random_state": 1}
LANES = [{"lr": 0.01}, {"lr": 0.05, "optimizer__weight_decay": 0.1}]


class Net(nn.Module):
    """The layers of all styles; the output stands before the layers that lead to it."""

    def __init__(self, n_outputs=3, dtype=torch.float64):
        super().__init__()
        self.output = nn.Linear(5, n_outputs, dtype=dtype)
        self.dense0 = nn.Linear(6, 8, dtype=dtype)
        self.dense1 = nn.Linear(8, 5, dtype=dtype)
        self.nonlin = F.relu
        self.act = nn.ReLU(inplace=True)
        self.drop = nn.Dropout(0.3)
        self.late = nn.Dropout(0.2)
        self.softmax = nn.Softmax(dim=-1)


class Attributes(Net):
    def forward(self, X):
        X = self.drop(self.act(self.dense0(X)))
        return self.output(self.late(self.act(self.dense1(X))))


class Functions(Net):
    def forward(self, X):
        X = F.leaky_relu(self.dense0(X), 0.2)
        return self.output(F.elu(self.dense1(X), alpha=0.5))


class Methods(Net):
    def forward(self, X):
        X = torch.tanh(self.dense0(X)).sigmoid()
        return self.output(F.silu(self.dense1(X)).relu())


class MoreFunctions(Net):
    def forward(self, X):
        X = F.softplus(self.dense0(X), 2.0, threshold=1.5)
        X = self.dense1(F.gelu(X, approximate="tanh") + F.celu(X - 1, alpha=0.5))
        return self.output(F.mish(X) + F.softsign(X) - F.logsigmoid(X))


class StillMoreFunctions(Net):
    def forward(self, X):
        X = F.hardswish(self.dense0(X))
        X = 3 * self.dense1(F.selu(X) + torch.selu(X + 1))
        return self.output(F.tanhshrink(X) - F.softshrink(X, 0.1) + F.hardshrink(X, lambd=0.2))


class Limits(Net):
    def forward(self, X):
        X = F.threshold(F.hardtanh(self.dense0(X), -0.5, max_val=2.0), 0.1, 0.3)
        X = torch.clamp_min(self.dense1(X.clamp(min=0)), -0.2)
        return self.output(F.relu6(X) + torch.clamp(X, -0.1, 0.4) - X.clip(max=1).clamp_max(0.5))


class InPlace(Net):
    def forward(self, X):
        X = F.relu(self.dense0(X), inplace=True)
        return self.output(self.dense1(X).relu_())


class ReusedDropout(Net):
    def forward(self, X):
        X = self.drop(self.nonlin(self.dense0(X)))
        return self.output(self.drop(self.late(self.drop(self.nonlin(self.dense1(X))))))


class LaterDropoutFirst(Net):
    def forward(self, X):
        return self.output(self.drop(self.dense1(self.late(self.dense0(X)))))


class DropoutIfTraining(Net):
    def forward(self, X):
        X = self.dense0(X)
        if self.training:
            X = self.drop(X)
        return self.output(self.dense1(X))


class Flattening(Net):
    def forward(self, X, sample_weight=None, **kwargs):
        X = X.view(X.size(0), -1) if sample_weight is None else X * sample_weight
        if X.ndim > 2 or X.dim() > 2:
            X = X.flatten(1)
        X = torch.flatten(X.reshape(X.shape[0], X.shape[1]), start_dim=1)
        return self.output(self.dense1(self.dense0(X.contiguous())))


class Nested(nn.Module):
    def __init__(self, n_outputs=3, dtype=torch.float64):
        super().__init__()
        self.head = nn.Sequential(nn.Linear(7, n_outputs, dtype=dtype), nn.Identity())
        hidden = nn.Sequential(nn.Linear(6, 7, dtype=dtype), nn.Dropout(0.2), nn.GELU())
        self.body = nn.ModuleList([nn.Flatten(), hidden])
        self.alias = self.body[1]

    def forward(self, X):
        for part in self.body:
            X = part(X)
        return self.head(X)


class WithUnused(Net):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.other = nn.Dropout(0.5)
        self.register_buffer("seen", torch.zeros(3))
        self.options = {"a": [1, 2]}

    def forward(self, X):
        return self.output(self.drop(self.dense1(self.dense0(X))))


class Sequences(nn.Sequential):
    def __init__(self, n_outputs=3, dtype=torch.float64):
        act = nn.Tanh()
        super().__init__(
            nn.Sequential(nn.Linear(6, 4, dtype=dtype), act, nn.Dropout(0.1)),
            nn.Sequential(nn.Linear(4, 4, dtype=dtype), act),
            nn.Linear(4, n_outputs, dtype=dtype),
        )


class Casting(Net):
    def forward(self, X):
        return self.output(self.dense1(self.dense0(X.to(torch.float64)).double()))


STYLES = [
    Attributes,
    Functions,
    Methods,
    MoreFunctions,
    StillMoreFunctions,
    Limits,
    InPlace,
    ReusedDropout,
    LaterDropoutFirst,
    DropoutIfTraining,
    Flattening,
    Nested,
    WithUnused,
    Sequences,
    Casting,
]


def assert_compiled(report):
    assert [group["steps"] for group in report.groups] == ["compiled"] * len(report.groups)


def assert_alone_as_together(net, X, y):
    """Assert that a fit by compiled steps gives what one by torch's steps does."""
    ours = clone(net).fit(X, y)
    with compiled_steps(False):
        torchs = clone(net).fit(X, y)
    for name, tensor in torchs.module_.state_dict().items():
        torch.testing.assert_close(ours.module_.state_dict()[name], tensor, rtol=1e-8, atol=1e-10)
    dropouts = [
        [m.n_calls for m in net.module_.modules() if hasattr(m, "n_calls")]
        for net in (ours, torchs)
    ]
    assert dropouts[0] == dropouts[1]


@pytest.mark.parametrize("module", STYLES)
def test_styles_of_classifiers(module):
    net = NeuralNetClassifier(module, **SETTINGS, early_stopping=True)

    assert_compiled(assert_parity(net, LANES, X, y))
    assert_alone_as_together(net, X, y)


@pytest.mark.parametrize("module", STYLES)
def test_styles_of_regressors(module):
    net = NeuralNetRegressor(module, module__n_outputs=2, **SETTINGS, l2=0.01)

    assert_compiled(assert_parity(net, LANES, X_reg, y_reg))


@pytest.mark.parametrize("module", [Attributes, Functions, Nested, ReusedDropout])
def test_styles_in_float32(module):
    rows = np.random.default_rng(0).normal(size=(240, 6)).astype(np.float32)
    labels = (rows[:, 0] > 0) + (rows[:, 1] > 1)
    net = NeuralNetClassifier(module, module__dtype=torch.float32, **SETTINGS)

    plain, _, _ = search(net, LANES, rows, labels, fused=False)
    fused, _, report = search(net, LANES, rows, labels)

    assert_compiled(report)
    np.testing.assert_allclose(
        fused.cv_results_["mean_test_score"], plain.cv_results_["mean_test_score"], atol=0.02
    )


class Probabilities(Net):
    """As in the README of skorch."""

    def forward(self, X, **kwargs):
        X = self.nonlin(self.dense0(X))
        X = self.drop(X)
        X = self.nonlin(self.dense1(X))
        return self.softmax(self.output(X))


class ProbabilitiesByFunction(Net):
    def forward(self, X):
        return torch.softmax(self.output(self.dense1(self.dense0(X))), dim=1)


@pytest.mark.parametrize("module", [Probabilities, ProbabilitiesByFunction])
@pytest.mark.parametrize("fit_params", [{}, {"sample_weight": np.linspace(0, 3, len(y))}])
def test_probabilities_under_nll(module, fit_params):
    net = NeuralNetClassifier(module, criterion=nn.NLLLoss, **SETTINGS)

    assert_compiled(assert_parity(net, LANES, X, y, fit_params=fit_params))


def test_probabilities_of_almost_zero_under_nll():
    net = NeuralNetClassifier(Probabilities, criterion=nn.NLLLoss, **SETTINGS)

    assert_compiled(assert_parity(net, LANES[:1], 300 * X, y))


class LogProbabilities(Net):
    def forward(self, X):
        return F.log_softmax(self.output(self.dense1(self.dense0(X))), -1)


def test_log_probabilities_under_cross_entropy():
    net = NeuralNetClassifier(LogProbabilities, **SETTINGS)

    assert_compiled(assert_parity(net, LANES, X, y))


def test_probabilities_under_cross_entropy_are_still_warned_of():
    net = NeuralNetClassifier(Probabilities, **SETTINGS)

    with pytest.warns(UserWarning, match="must return logits under CrossEntropyLoss"):
        _, _, report = search(net, LANES, X, y)
    assert [group["steps"] for group in report.groups] == ["stacked"]


class OnData(Net):
    def forward(self, X):
        X = self.dense0(X)
        if X.sum() > 0:
            X = 2 * X
        return self.output(self.dense1(X))


class OtherInEvaluation(Net):
    def forward(self, X):
        X = self.dense1(self.dense0(X))
        return self.output(X if self.training else torch.relu(X))


class OtherParameter(Net):
    def forward(self, X):
        return self.output(F.linear(self.dense0(X), self.dense1.weight, self.dense1.bias))


class NoGradient(Net):
    def forward(self, X):
        with torch.no_grad():
            X = self.dense0(X)
        return self.output(self.dense1(X.clone()))


class Printing(Net):
    def forward(self, X):
        print(end="")
        return self.output(self.dense1(self.dense0(X)))


class Broadcast(Net):
    def forward(self, X):
        X = self.dense0(X)
        return self.output(self.dense1(X + X.mean(dim=1, keepdim=True)))


NOT_READ = {
    Broadcast: r"it computes mean, in test_written_styles.py, line \d+: return",
    OtherInEvaluation: "computes something else in training than in evaluation",
    OtherParameter: "computes with dense1.weight outside of a layer, in test_written_styles",
    Printing: "its forward calls print",
    NoGradient: "its forward computes something else than its layers tell",
}


@pytest.mark.parametrize("module", NOT_READ)
def test_what_is_not_read_is_stacked(module):
    net = NeuralNetClassifier(module, **SETTINGS)

    report = assert_parity(net, LANES, X, y)

    assert [group["steps"] for group in report.groups] == ["stacked"]
    with pytest.raises(AssertionError, match=NOT_READ[module]):
        raise AssertionError(report.groups[0]["blockers"]["compiled"])


def tie(net):
    net.dense1.weight = nn.Parameter(torch.zeros(8, 8, dtype=torch.float64))
    net.dense0.weight = net.dense1.weight


class Noisy(Net):
    def forward(self, X):
        X = self.dense0(X)
        noise = torch.randn(8, dtype=torch.float64) if self.training else 0.0
        return self.output(self.dense1(X + noise))


class Remembering(Net):
    def forward(self, X):
        self.n_calls_ = getattr(self, "n_calls_", 0) + 1
        return self.output(self.dense1(self.dense0(X)))


@pytest.mark.parametrize("module", [OnData, Noisy, Remembering])
def test_what_cannot_be_fused_trains_alone_as_before(module):
    net = NeuralNetClassifier(module, **SETTINGS)
    plain, _, _ = search(net, LANES, X, y, fused=False)

    fused, _, report = search(net, LANES, X, y)

    assert report.groups == []
    assert fused.cv_results_["mean_test_score"] == pytest.approx(
        plain.cv_results_["mean_test_score"]
    )


def test_a_hook_that_is_added_later_is_called():
    net = NeuralNetClassifier(Attributes, **SETTINGS).fit(X, y)
    n_calls = []
    net.module_.dense1.register_forward_hook(lambda *args: n_calls.append(1))

    net.partial_fit(X, y)

    assert len(n_calls) > 10


def test_a_forward_that_is_replaced_later_is_read_anew(monkeypatch):
    class Own(Attributes):
        pass

    first = NeuralNetClassifier(Own, **SETTINGS).fit(X, y)
    monkeypatch.setattr(Own, "forward", Functions.forward)
    second = NeuralNetClassifier(Own, **SETTINGS).fit(X, y)
    expected = NeuralNetClassifier(Functions, **SETTINGS).fit(X, y)

    for name, tensor in expected.module_.state_dict().items():
        assert torch.equal(second.module_.state_dict()[name], tensor)
    assert not torch.equal(first.module_.dense0.weight, second.module_.dense0.weight)


LAYER = st.sampled_from(["relu", "tanh", "silu", "elu", "dropout", "again", "identity"])
STYLE = st.sampled_from(["layer", "function", "method"])


class Drawn(nn.Module):
    """Hidden layers of random steps, each written in a style of its own."""

    def __init__(self, plan, order):
        super().__init__()
        self.plan = plan
        widths = [6, *(width for width, _ in plan), 3]
        self.linears = nn.ModuleDict()
        for n in sorted(range(len(widths) - 1), key=lambda n: order[n % len(order)]):
            self.linears[f"n{n}"] = nn.Linear(widths[n], widths[n + 1], dtype=torch.float64)
        self.again = nn.Dropout(0.25)
        self.dropouts = nn.ModuleList(nn.Dropout(0.1 * (n % 5)) for n in range(12))
        self.layers = nn.ModuleDict(
            {"relu": nn.ReLU(), "tanh": nn.Tanh(), "silu": nn.SiLU(), "elu": nn.ELU()}
        )
        self.identity = nn.Identity()

    def forward(self, X):
        n_dropouts = 0
        for n, (_, steps) in enumerate(self.plan):
            X = self.linears[f"n{n}"](X)
            for kind, style in steps:
                if kind == "dropout":
                    X = self.dropouts[-1 - n_dropouts % 12](X)
                    n_dropouts += 1
                else:
                    X = self.apply_step(kind, style, X)
        return self.linears[f"n{len(self.plan)}"](X)

    def apply_step(self, kind, style, X):
        if kind in ("again", "identity"):
            return getattr(self, kind)(X)
        if style == "layer":
            return self.layers[kind](X)
        if style == "method" and kind in ("relu", "tanh"):
            return getattr(X, kind)()
        return getattr(F, kind)(X)


@settings(derandomize=True, max_examples=12, deadline=None, phases=[Phase.generate])
@given(
    plan=st.lists(
        st.tuples(st.integers(1, 9), st.lists(st.tuples(LAYER, STYLE), max_size=4)), max_size=3
    ),
    order=st.lists(st.integers(0, 9), min_size=1, max_size=4),
)
def test_random_chains(plan, order):
    net = NeuralNetClassifier(Drawn, module__plan=plan, module__order=order, **SETTINGS)

    assert_compiled(assert_parity(net, LANES[:1], X, y))
    assert program.enabled
