"""Laws of fused training over generated nets: any module, optimizer, criterion and penalty."""

import importlib.util
import warnings
from copy import deepcopy
from dataclasses import replace

import numpy as np
import pytest
import skorch
import torch
from generated_modules import Generated
from generated_nets import cases
from hypothesis import HealthCheck, Phase, given, settings
from parity import RAGGED
from sklearn.base import clone
from skorch.callbacks import Callback
from torch import nn
from torch.nn.utils import clip_grad_norm_, clip_grad_value_

from sktune import NeuralNetClassifier

pytestmark = pytest.mark.skipif(importlib.util.find_spec("numba") is None, reason="no Numba")


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
        outputs = torch.log(outputs + torch.finfo(outputs.dtype).eps)
    if isinstance(criterion, nn.BCEWithLogitsLoss):
        targets = targets.to(outputs.dtype)[:, None]
    return criterion(outputs, targets)


def penalize(loss, module, net):
    """Return a loss plus the penalties on the weights, if there are any."""
    # without one, a weight that no layer uses gets no gradient
    if net.l1 == net.l2 == 0:
        return loss
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
