"""Several GPUs in one process: a net stays on the one that it is given."""

import joblib
import numpy as np
import pytest
import torch
from device import simulate
from parity import RAGGED, X, assert_same_scores, grid, search, y
from sklearn.model_selection import GridSearchCV

from sktune import NeuralNetClassifier
from sktune.engine import planner
from sktune.engine.report import FusionReport
from sktune.engine.steps import recorded
from sktune.engine.store import MemoryStore
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


@pytest.mark.parametrize(
    ("visible", "told"),
    [
        (None, "this process sees 'cuda:0' to 'cuda:1'$"),
        ("3,5", "this process sees 'cuda:0' to 'cuda:1', with CUDA_VISIBLE_DEVICES='3,5'$"),
    ],
)
def test_a_device_that_is_missing_is_told(monkeypatch, visible, told):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    match = f"device must be 'auto' or a torch device on this machine, got device='cuda:2': {told}"
    with pytest.raises(ValueError, match=match):
        make("cuda:2").fit(X, y)
    with (
        pytest.raises(ValueError, match=match),
        joblib.parallel_config("sktune", device="cuda:2"),
    ):
        pass


# groups by batch size
CANDIDATES = [{"lr": lr, "batch_size": size} for size in (8, 16, 32) for lr in (0.01, 0.03)]


@pytest.fixture(scope="module")
def expected():
    found, _, _ = search(make("cpu"), CANDIDATES, X, y)
    return found


@pytest.mark.parametrize("n_jobs", [1, 4])
def test_all_devices_share_the_groups(expected, n_jobs):
    found, nets, report = search(make("cuda"), CANDIDATES, X, y, n_jobs=n_jobs)

    assert {group["device"] for group in report.groups} == {"cuda:0", "cuda:1"}
    assert {group["steps"] for group in report.groups} == {"recorded"}
    # nets are where the estimator puts them
    assert {str(next(net.module_.parameters()).device) for net in nets} == {"cuda:0"}
    assert_same_scores(expected, found, tolerance=1e-9)


def test_the_context_may_mean_all_devices(expected):
    report = FusionReport()
    with joblib.parallel_config("sktune", device="cuda", report=report):
        found = GridSearchCV(make("cpu"), grid(*CANDIDATES), cv=RAGGED, refit=False).fit(X, y)

    assert {group["device"] for group in report.groups} == {"cuda:0", "cuda:1"}
    assert_same_scores(expected, found, tolerance=1e-9)


def test_one_large_group_is_divided_among_the_devices(monkeypatch):
    monkeypatch.setattr(planner, "_FEWEST_LANES_OF_A_GPU", 4)
    candidates = [{"lr": 0.01 * (1 + n)} for n in range(8)]
    one, _, _ = search(make("cuda:1"), candidates, X, y)
    found, _, report = search(make("cuda"), candidates, X, y)

    assert sorted(group["lanes"] for group in report.groups) == [4] * 4
    assert {group["device"] for group in report.groups} == {"cuda:0", "cuda:1"}
    assert_same_scores(one, found, tolerance=1e-9)


KINDS = {
    "weights": {"fit_params": {"sample_weight": np.random.default_rng(0).uniform(0.2, 3, len(y))}},
    "class_weight": {"class_weight": {0: 2.0}},
    "criterion_weight": {"criterion__weight": torch.tensor([1.0, 2.0, 0.5], dtype=torch.float64)},
    "early_stopping": {"early_stopping": True, "n_iter_no_change": 2},
    "batch_norm": {"module__batch_norm": True},
    "dropout": {"module__dropout": 0.3},
    "augmented": {"augment": "table", "augment__noise": 0.1},
}


@pytest.mark.parametrize("kind", KINDS)
def test_fits_of_any_kind_go_to_another_device(kind):
    options = dict(KINDS[kind])
    settings = {"fit_params": options.pop("fit_params", None), "cv": RAGGED[:1]}
    one, _, _ = search(make("cpu").set_params(**options), CANDIDATES, X, y, **settings)
    found, _, report = search(make("cuda").set_params(**options), CANDIDATES, X, y, **settings)

    assert not report.alone
    assert {group["device"] for group in report.groups} == {"cuda:0", "cuda:1"}
    assert_same_scores(one, found, tolerance=1e-9)


def test_a_store_knows_a_training_of_any_device():
    store = MemoryStore()
    for device in ("cuda", "cuda:0"):
        report = FusionReport()
        with joblib.parallel_config("sktune", store=store, report=report):
            GridSearchCV(make(device), {"lr": [0.01, 0.03]}, cv=2, refit=False).fit(X, y)

    assert report.sharing.n_known_fits == 4


@pytest.mark.parametrize(
    ("free", "expected"),
    [((6, 8), "cuda:0"), ((2, 6), "cuda:1"), ((2, 1), "cuda:0"), ((2, 2), "cuda:0")],
)
def test_a_fit_alone_goes_where_there_is_room(monkeypatch, free, expected):
    asked = []

    def tell(index):
        asked.append(index)
        return free[index], 8

    monkeypatch.setattr(torch.cuda, "mem_get_info", tell)
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda index: 0)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda index: 0)
    net = make("cuda").fit(X, y)

    assert str(net.device_) == expected
    # to ask a device costs some of its memory
    assert set(asked) == ({0} if free[0] >= 4 else {0, 1})
