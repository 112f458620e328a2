"""The validation of a group is recorded as its steps are, and costs no wait for each lane."""

import joblib
import numpy as np
import pytest
import torch
from device import Graph
from parity import RAGGED, X, X_reg, assert_parity, search, y, y_reg
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV

from sktune import NeuralNetClassifier, NeuralNetRegressor
from sktune.engine import group

NET = NeuralNetClassifier(
    module__hidden=(8, 4),
    module__dtype=torch.float64,
    early_stopping=True,
    validation_fraction=0.3,
    n_iter_no_change=2,
    max_epochs=12,
    batch_size=16,
    random_state=0,
)
RATES = [{"lr": rate} for rate in (0.001, 0.03, 0.3, 1.0)]

pytestmark = pytest.mark.usefixtures("recording_gpu")


@pytest.fixture
def eager(monkeypatch):
    """The parts that were validated one by one."""
    parts = []
    original = group.validation_parts
    monkeypatch.setattr(
        group, "validation_parts", lambda *args: parts.append(args) or original(*args)
    )
    return parts


WEIGHTS = {"fit_params": {"sample_weight": np.random.default_rng(0).uniform(0.2, 3, len(y))}}
CASES = {
    "ragged": ({}, {}),
    "one_stream": ({}, {"cv": RAGGED[:1]}),
    "weights": ({}, WEIGHTS),
    "dropout": ({"module__dropout": 0.4}, {}),
    "bce": ({"criterion": torch.nn.BCEWithLogitsLoss}, {}),
}


@pytest.mark.parametrize("name", CASES)
def test_recorded_validation_stops_fits_where_they_stop_alone(eager, name):
    options, settings = CASES[name]
    target = y == 1 if name == "bce" else y
    report = assert_parity(clone(NET).set_params(**options), RATES, X, target, **settings)

    assert {group["steps"] for group in report.groups} == {"recorded"}
    assert not eager


def test_recorded_validation_of_a_regression(eager):
    options = {name: value for name, value in NET.get_params().items() if name in _SHARED}
    net = NeuralNetRegressor(**options, module__hidden=(8,), module__dtype=torch.float64)
    assert_parity(net, RATES[:2], X_reg, y_reg)

    assert not eager


_SHARED = (
    "random_state",
    "early_stopping",
    "validation_fraction",
    "n_iter_no_change",
    "max_epochs",
    "batch_size",
)


def test_modules_that_look_at_all_rows_are_validated_as_they_are(eager):
    report = assert_parity(clone(NET).set_params(module__batch_norm=True), RATES[:2], X, y)

    assert {group["steps"] for group in report.groups} == {"recorded"}
    assert eager


def test_waits_do_not_grow_with_the_lanes(gpu):
    waits = {}
    net = clone(NET).set_params(n_iter_no_change=50)
    for n_candidates in (2, 8):
        rates = [{"lr": 0.003 * (1 + n)} for n in range(n_candidates)]
        gpu.reset()
        search(net, rates, X, y)
        waits[n_candidates] = gpu.counts().waits

    # in each epoch the losses, those of validation rows, and weights that are the best so far
    assert waits[2] <= 3 * NET.max_epochs + 30
    assert waits[8] == waits[2]


def test_validation_is_launched_before_the_host_waits(gpu, monkeypatch):
    order = []
    replay = Graph.replay
    monkeypatch.setattr(Graph, "replay", lambda self: order.append("launch") or replay(self))
    fetch = group.fetch
    monkeypatch.setattr(group, "fetch", lambda tensors: order.append("read") or fetch(tensors))
    search(clone(NET).set_params(max_epochs=2), RATES[:2], X, y, cv=RAGGED[:1])

    # whole batches, the last one, validation
    assert order[:4] == ["launch", "launch", "launch", "read"]


def test_tf32_does_not_reach_a_recorded_validation(monkeypatch):
    settings = torch.backends.cuda.matmul
    name = "fp32_precision" if hasattr(settings, "fp32_precision") else "allow_tf32"
    found = []
    begin = Graph.capture_begin

    def note(self, *args, **kwargs):
        found.append(getattr(settings, name))
        begin(self, *args, **kwargs)

    monkeypatch.setattr(Graph, "capture_begin", note)
    before = getattr(settings, name)
    with joblib.parallel_config("sktune", precision="tf32"):
        GridSearchCV(NET, {"lr": [0.01, 0.03]}, cv=RAGGED[:1], refit=False).fit(X, y)

    # two kinds of steps, and the validation
    assert [value in ("tf32", True) for value in found] == [True, True, False]
    assert found[2] == getattr(settings, name) == before
