"""Several GPUs in one process: a net stays on the one that it is given."""

import numpy as np
import pytest
import torch
from device import simulate
from parity import X, search, y

from sktune import NeuralNetClassifier
from sktune.engine.steps import recorded
from sktune.runtime.devices import resolve_device


@pytest.fixture(autouse=True)
def _two_devices(monkeypatch):
    monkeypatch.setattr(recorded, "FEWEST_STEPS", 1)
    with simulate(n_devices=2):
        yield


def make(device):
    options = {"module__hidden": (8,), "module__dtype": torch.float64, "max_epochs": 3}
    return NeuralNetClassifier(**options, random_state=0, device=device)


def test_auto_is_the_current_device():
    assert resolve_device("auto") == torch.device("cuda:0")
    with torch.cuda.device(1):
        assert resolve_device("auto") == torch.device("cuda:1")


@pytest.mark.parametrize("device", ["cuda:0", "cuda:1"])
def test_groups_are_recorded_on_their_device(device):
    candidates = [{"lr": 0.01}, {"lr": 0.02}]
    expected, _, _ = search(make("cpu"), candidates, X, y)
    found, nets, report = search(make(device), candidates, X, y)

    assert [(group["device"], group["steps"]) for group in report.groups] == [(device, "recorded")]
    assert {str(next(net.module_.parameters()).device) for net in nets} == {device}
    np.testing.assert_allclose(
        found.cv_results_["mean_test_score"], expected.cv_results_["mean_test_score"]
    )


def test_a_fit_alone_stays_on_its_device():
    net = make("cuda:1").fit(X, y)

    assert next(net.module_.parameters()).device == torch.device("cuda:1")
    states = net.optimizer_.state.values()
    assert {str(state["exp_avg"].device) for state in states} == {"cuda:1"}
    np.testing.assert_allclose(net.predict_proba(X), make("cpu").fit(X, y).predict_proba(X))


def test_a_device_that_is_missing_is_told():
    with pytest.raises(ValueError, match="device must be 'auto' or a torch device"):
        make("cuda:2").fit(X, y)
