"""Laws of fused training over generated nets: any module, optimizer, criterion and penalty."""

import importlib.util
import warnings
from copy import deepcopy
from dataclasses import dataclass, replace

import numpy as np
import pytest
import skorch
import torch
from generated_modules import N_CATEGORIES, N_FEATURES, Generated, Plan, plans
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from parity import RAGGED, search
from sklearn.base import clone
from skorch.callbacks import Callback
from torch import nn
from torch.nn.utils import clip_grad_norm_, clip_grad_value_

from sktune import NeuralNetClassifier, NeuralNetRegressor

pytestmark = pytest.mark.skipif(importlib.util.find_spec("numba") is None, reason="no Numba")

N_ROWS = 110
RNG = np.random.default_rng(0)
X = RNG.normal(size=(N_ROWS, N_FEATURES))
X[:, 0] = RNG.integers(0, N_CATEGORIES, N_ROWS)
WEIGHTS = RNG.uniform(0, 3, N_ROWS)
WEIGHTS[:9] = 0
LABELS = (X[:, 1] > 0).astype(int) + (X[:, 2] > 1) * 1
NUMBERS = np.c_[X[:, 1] * X[:, 2], np.sin(X[:, 3]) + X[:, 0]]
OF_CLASSES = torch.tensor([1.0, 3.0, 0.3], dtype=torch.float64)
# Where the last batch has one row or two, normalization over a batch fails or is noise.
BATCHES, NORMALIZED_BATCHES = [16, 24, 36, 72, 100], [16, 20, 31, 100]

NUMBER = {"weight_decay": st.sampled_from([0.0, 0.01, 0.3])}
BETAS = {"betas": st.sampled_from([(0.9, 0.999), (0.5, 0.9), (0.0, 0.99)])}
EPS = {"eps": st.sampled_from([1e-6, 1e-3])}
ADAMS = {**NUMBER, **BETAS, **EPS}
OPTIMIZERS = {
    torch.optim.SGD: {**NUMBER, "momentum": st.sampled_from([0.0, 0.9])},
    torch.optim.Adam: ADAMS,
    torch.optim.AdamW: ADAMS,
    torch.optim.NAdam: ADAMS,
    torch.optim.RAdam: ADAMS,
    torch.optim.Adamax: ADAMS,
    torch.optim.RMSprop: {**NUMBER, **EPS, "momentum": st.sampled_from([0.0, 0.5])},
    torch.optim.Adagrad: {**NUMBER, **EPS, "lr_decay": st.sampled_from([0.0, 0.1])},
    torch.optim.Adadelta: {**NUMBER, **EPS, "rho": st.sampled_from([0.9, 0.5])},
}
# Options that all lanes have in common.
SHARED = {
    torch.optim.SGD: [{}, {"nesterov": True, "momentum": 0.9}, {"maximize": True}],
    torch.optim.Adam: [{}, {"amsgrad": True}, {"decoupled_weight_decay": True}],
    torch.optim.AdamW: [{}, {"amsgrad": True}],
    torch.optim.NAdam: [{}, {"decoupled_weight_decay": True}],
    torch.optim.RMSprop: [{}, {"centered": True}],
}
SUM = {"criterion__reduction": "sum"}
CLASSIFICATIONS = [
    {},
    SUM,
    {"criterion__label_smoothing": 0.2},
    {"criterion__weight": OF_CLASSES},
    {"criterion__weight": OF_CLASSES, "criterion__label_smoothing": 0.1, **SUM},
    {"class_weight": "balanced"},
]
REGRESSIONS = [
    {},
    SUM,
    {"criterion": nn.L1Loss},
    {"criterion": nn.HuberLoss, "criterion__delta": 0.5},
    {"criterion": nn.SmoothL1Loss, "criterion__beta": 0.3, **SUM},
]
BINARY = {"criterion": nn.BCEWithLogitsLoss}
BINARIES = [BINARY, {**BINARY, "criterion__pos_weight": torch.tensor([2.5], dtype=torch.float64)}]
SCHEDULES = [
    {},
    {},
    {"lr_schedule": "exponential"},
    {"lr_schedule": "cosine", "lr_schedule__warmup": 1},
    {"lr_schedule": "one_cycle"},
]
STOPPING = [
    {},
    {},
    {"early_stopping": True, "n_iter_no_change": 1},
    {"early_stopping": "train_loss"},
]


@dataclass(frozen=True)
class Case:
    """A net, its candidates, and what it is fitted on."""

    plan: Plan
    net: object
    candidates: tuple
    y: object
    fit_params: dict

    @property
    def X(self):
        return X if self.plan.is_wide else X.astype(np.float32)

    def search(self, candidates=None, **options):
        """Return what ``parity.search`` does for these candidates."""
        candidates = self.candidates if candidates is None else candidates
        return search(self.net, candidates, self.X, self.y, fit_params=self.fit_params, **options)

    def fit(self, candidate, rows):
        """Return a net of a candidate, fitted by itself on some rows."""
        weights = {name: value[rows] for name, value in self.fit_params.items()}
        return clone(self.net).set_params(**candidate).fit(self.X[rows], self.y[rows], **weights)


@st.composite
def lanes(draw, options):
    """Draw what a candidate has of its own."""
    numbers = {
        "lr": st.sampled_from([0.001, 0.003, 0.01]),
        "l1": st.sampled_from([0.001, 0.01]),
        "l2": st.sampled_from([0.01, 0.1]),
        "clip_grad_norm": st.sampled_from([None, 0.5, 0.1]),
        "clip_grad_value": st.sampled_from([None, 0.1, 0.01]),
        **{f"optimizer__{name}": values for name, values in options.items()},
    }
    # The small eps of torch's defaults enlarges gradients that are rounding noise.
    always = [name for name in ("lr", "optimizer__eps") if name in numbers]
    others = sorted(numbers.keys() - set(always))
    chosen = draw(st.sets(st.sampled_from(others), max_size=4))
    return {name: draw(numbers[name]) for name in [*always, *sorted(chosen)]}


@st.composite
def cases(draw, is_simple=False):
    """Draw a case; a simple one has no dropout, shuffling, schedule, early stopping or weights."""
    plan = draw(plans())
    if is_simple and plan.has("batch norm"):
        # Gradients of what a normalization takes away are rounding noise, which Adam enlarges.
        plan = replace(plan, is_wide=True)
    task = draw(st.sampled_from(["classes", "classes", "numbers", "binary"]))
    if task in ("numbers", "binary"):
        plan = replace(plan, ending="none")
    kind = draw(st.sampled_from(list(OPTIMIZERS)))
    shared = draw(st.sampled_from(SHARED.get(kind, [{}])))
    sizes = NORMALIZED_BATCHES if plan.has("batch norm") else BATCHES
    options = {
        "module__plan": plan,
        "module__dropout": 0.0 if is_simple else draw(st.sampled_from([0.0, 0.3])),
        "optimizer": kind,
        "max_epochs": draw(st.integers(1, 3)),
        "batch_size": draw(st.sampled_from(sizes)),
        "shuffle": not is_simple and draw(st.booleans()),
        "random_state": draw(st.integers(0, 3)),
        **{f"optimizer__{name}": value for name, value in shared.items()},
    }
    fit_params = {}
    if not is_simple:
        options |= draw(st.sampled_from(SCHEDULES)) | draw(st.sampled_from(STOPPING))
        fit_params = draw(st.sampled_from([{}, {}, {"sample_weight": WEIGHTS}]))
    if options.get("early_stopping") is True and plan.has("batch norm"):
        options["early_stopping"] = "train_loss"
    options |= draw(criteria(task, plan))
    own = {name: v for name, v in OPTIMIZERS[kind].items() if name not in shared}
    if is_simple:
        options.pop("class_weight", None)
    candidates = tuple(draw(st.lists(lanes(own), min_size=2, max_size=3)))
    net, y = _make_net(task, options)
    return Case(plan, net, candidates, y, fit_params)


def criteria(task, plan):
    """Draw options of a criterion that fits a task and the ending of a module."""
    if task == "numbers":
        return st.sampled_from(REGRESSIONS)
    if task == "binary":
        return st.sampled_from(BINARIES)
    if plan.ending == "softmax":
        return st.sampled_from([{"criterion": nn.NLLLoss}, {"criterion": nn.NLLLoss, **SUM}])
    return st.sampled_from(CLASSIFICATIONS)


def _make_net(task, options):
    """Return a net, and the targets that it is fitted on."""
    options = {
        name: value.float() if torch.is_tensor(value) and not options["module__plan"].is_wide
        else value
        for name, value in options.items()
    }  # fmt: skip
    if task == "numbers":
        y = NUMBERS if options["module__plan"].is_wide else NUMBERS.astype(np.float32)
        return NeuralNetRegressor(Generated, module__n_outputs=2, **options), y
    if task == "binary":
        return NeuralNetClassifier(Generated, module__n_outputs=1, **options), LABELS.clip(max=1)
    return NeuralNetClassifier(Generated, module__n_outputs=3, **options), LABELS


def check_parity(case):
    """Fused fits equal fits of torch's steps, and fits by themselves to the last bit."""
    _, references, _ = case.search(fused=False)
    _, nets, report = case.search()
    assert_told(report, len(nets))
    for reference, net in zip(references, nets, strict=True):
        if case.plan.is_wide or not case.plan.has("batch norm"):
            assert_near(reference, net, *find_tolerance(case.plan))
    alone = [case.fit(c, train) for c in case.candidates for train, _ in RAGGED]
    for one, net in zip(alone, nets, strict=True):
        assert_equal_weights(one, net)
    return report


def find_tolerance(plan):
    """Return how much two numbers may differ, relatively and absolutely."""
    if not plan.is_wide:
        return 2e-2, 2e-3
    # The gradient of what a normalization takes away is rounding noise, which Adam enlarges.
    return 1e-6, 1e-5 if plan.has("batch norm") else 1e-9


def assert_told(report, n_fits):
    """Assert that each fit is told: in a group with its steps, or alone with a reason."""
    told = sum(group["lanes"] for group in report.groups) + len(report.alone)
    assert told + report.sharing.n_shared_fits == n_fits
    assert all(entry["reason"] for entry in report.alone)
    for group in report.groups:
        assert group["steps"] == "compiled" or group["blockers"]["compiled"], group


def assert_near(one, other, rtol, atol):
    """Assert that weights and losses agree but for rounding."""
    for name, tensor in one.module_.state_dict().items():
        found = other.module_.state_dict()[name]
        torch.testing.assert_close(found, tensor, rtol=rtol, atol=atol, msg=name)
    assert other.loss_curve_ == pytest.approx(one.loss_curve_, rel=rtol, abs=atol)


def assert_equal_weights(one, other):
    """Assert that two nets have the same weights and losses, bit by bit."""
    for name, tensor in one.module_.state_dict().items():
        assert torch.equal(other.module_.state_dict()[name], tensor), name
    assert one.loss_curve_ == other.loss_curve_
    if one.validation_scores_ is not None:
        assert other.validation_scores_ == pytest.approx(one.validation_scores_, rel=1e-6)


def check_independence(case):
    """A lane does not change where other lanes train beside it, nor where one diverges."""
    _, nets, _ = case.search()
    _, one, _ = case.search(case.candidates[-1:])
    diverging = {**case.candidates[0], "lr": 1e38}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        _, more, _ = case.search([diverging, case.candidates[-1]])
    n_folds = len(RAGGED)
    for expected, net in zip(one, nets[-n_folds:], strict=True):
        assert_equal_weights(expected, net)
    for expected, net in zip(one, more[-n_folds:], strict=True):
        assert_equal_weights(expected, net)


class KeepStart(Callback):
    """Keeps copies of the initial module and of the criterion."""

    def on_train_begin(self, net, **kwargs):
        self.kept = deepcopy((net.module_, net.criterion_))


def check_loop(case):
    """A fused fit without dropout is a loop of torch that is written out here."""
    _, nets, _ = case.search()
    rtol, atol = find_tolerance(case.plan)
    places = [(candidate, train) for candidate in case.candidates for train, _ in RAGGED]
    for (candidate, train), net in zip(places, nets, strict=True):
        expected = train_by_hand(case, candidate, train)
        for name, tensor in expected.state_dict().items():
            found = net.module_.state_dict()[name]
            torch.testing.assert_close(found, tensor, rtol=rtol, atol=atol, msg=name)


def train_by_hand(case, candidate, train):
    """Return a module that a plain loop has trained on some rows, in their order."""
    start = KeepStart()
    net = clone(case.net).set_params(**candidate, callbacks=[start])
    net.fit(case.X[train], case.y[train])
    module, criterion = start.kept
    module.train()
    options = {
        name.removeprefix("optimizer__"): value
        for name, value in net.get_params().items()
        if name.startswith("optimizer__")
    }
    optimizer = net.optimizer(module.parameters(), lr=net.lr, **options)
    rows = torch.as_tensor(case.X[train])
    targets = torch.as_tensor(case.y[train])
    for _ in range(net.max_epochs):
        begins = list(range(0, len(rows), net.batch_size))
        if begins[-1] == len(rows) - 1:
            # A single last row joins the batch before it.
            del begins[-1]
        for begin, end in zip(begins, [*begins[1:], len(rows)], strict=True):
            batch = slice(begin, end)
            optimizer.zero_grad()
            loss = compute_loss(criterion, module(rows[batch]), targets[batch])
            penalize(loss, module, net).backward()
            if net.clip_grad_norm is not None:
                clip_grad_norm_(module.parameters(), net.clip_grad_norm)
            if net.clip_grad_value is not None:
                clip_grad_value_(module.parameters(), net.clip_grad_value)
            optimizer.step()
    return module


def compute_loss(criterion, outputs, targets):
    """Return the loss of a batch, as skorch's nets feed their criteria."""
    if isinstance(criterion, nn.NLLLoss):
        outputs = torch.log(outputs + torch.finfo(outputs.dtype).tiny)
    if isinstance(criterion, nn.BCEWithLogitsLoss):
        targets = targets.to(outputs.dtype)[:, None]
    return criterion(outputs, targets)


def penalize(loss, module, net):
    """Return a loss plus the penalties on the weights."""
    for parameter in module.parameters():
        if parameter.ndim > 1:
            loss = loss + net.l1 * parameter.abs().sum() + net.l2 * (parameter**2).sum()
    return loss


def check_skorch(case):
    """A net of skorch's own, with given weights and without random numbers, trains as alone."""
    params = case.net.get_params()
    kind = skorch.NeuralNetRegressor
    if isinstance(case.net, NeuralNetClassifier):
        kind = (
            skorch.NeuralNetBinaryClassifier if _is_binary(params) else skorch.NeuralNetClassifier
        )
    names = ["criterion", "optimizer", "max_epochs", "batch_size"]
    names += [name for name in params if name.startswith(("criterion__", "optimizer__"))]
    torch.manual_seed(params["random_state"])
    module = Generated(case.plan, params["module__n_outputs"], dropout=0.0)
    options = {name: params[name] for name in names}
    net = kind(module, train_split=None, verbose=0, **options)
    own = ("lr", "optimizer__")
    candidates = tuple(
        {name: value for name, value in candidate.items() if name.startswith(own)}
        for candidate in case.candidates
    )
    y = case.y.astype(np.float32) if kind is skorch.NeuralNetBinaryClassifier else case.y
    y = y.astype(case.X.dtype) if y.dtype.kind == "f" else y
    case = replace(case, net=net, candidates=candidates, y=y, fit_params={})
    _, references, _ = case.search(fused=False)
    _, nets, report = case.search()
    assert_told(report, len(nets))
    rtol, atol = find_tolerance(case.plan)
    for reference, net in zip(references, nets, strict=True):
        for name, tensor in reference.module_.state_dict().items():
            other = net.module_.state_dict()[name]
            torch.testing.assert_close(other, tensor, rtol=rtol, atol=atol, msg=name)
    return report


def _is_binary(params):
    return params["criterion"] is nn.BCEWithLogitsLoss


def laws(n_examples):
    """Return the settings of a test of some examples, which are always the same."""
    return settings(
        derandomize=True,
        max_examples=n_examples,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )


@laws(20)
@given(case=cases())
def test_fused_fits_are_fits_alone(case):
    check_parity(case)


@laws(16)
@given(case=cases())
def test_lanes_do_not_depend_on_each_other(case):
    check_independence(case)


@laws(20)
@given(case=cases(is_simple=True))
def test_fits_are_a_plain_loop(case):
    check_loop(case)


@laws(12)
@given(case=cases(is_simple=True))
def test_nets_of_skorch_are_fused_as_alone(case):
    check_skorch(case)


@pytest.mark.slow
@laws(300)
@given(case=cases(), simple=cases(is_simple=True))
def test_laws_hold_for_many_nets(case, simple):
    check_parity(case)
    check_independence(case)
    check_loop(simple)
    check_skorch(simple)
