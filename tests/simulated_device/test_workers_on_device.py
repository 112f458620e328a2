"""Workers that have a GPU where the asking process has none, and the other way round."""

import pickle
from contextlib import nullcontext
from unittest import mock

import joblib
import numpy as np
import pytest
import torch
from device import simulate
from parity import RAGGED, X, y

from sktune import GridSearchCV, NeuralNetClassifier
from sktune.bridge import backend
from sktune.engine.steps import recorded
from sktune.engine.workers.engines.base import Engine
from sktune.engine.workers.jobs import run_job

NET = NeuralNetClassifier(
    module__hidden=(8,), module__dtype=torch.float64, max_epochs=4, random_state=0, verbose=0
)
SPACE = {"lr": [0.01, 0.1], "module__dropout": [0.0, 0.3], "max_epochs": [2, 4]}


class Elsewhere(Engine):
    """Trains jobs where the devices are others than those of this process."""

    n_workers = 2

    def __init__(self, has_gpu):
        super().__init__()
        self.has_gpu = has_gpu

    def check(self):
        pass

    def find_device_types(self):
        return {"cuda"} if self.has_gpu else set()

    def run(self, jobs, hear=None):
        for number, job in enumerate(jobs):
            devices = simulate() if self.has_gpu else without_gpu()
            with devices:
                outcome = pickle.dumps(run_job(job.data, *job.arrays))
            yield number, pickle.loads(outcome)


def without_gpu():
    return mock.patch.multiple(torch.cuda, device_count=lambda: 0, is_available=lambda: False)


@pytest.fixture(autouse=True)
def _recorded(monkeypatch):
    monkeypatch.setattr(recorded, "FEWEST_STEPS", 1)


def fit_elsewhere(monkeypatch, search, *, has_gpu):
    with monkeypatch.context() as patched:
        patched.setattr(backend, "make_engine", lambda around, n_jobs: Elsewhere(has_gpu))
        return search.fit(X, y)


@pytest.mark.parametrize("client_has_gpu", [True, False])
@pytest.mark.parametrize("has_gpu", [True, False])
def test_a_worker_computes_on_the_device_that_it_has(monkeypatch, client_has_gpu, has_gpu):
    expected = GridSearchCV(NET, SPACE, cv=RAGGED, refit=False).fit(X, y)
    with simulate() if client_has_gpu else nullcontext():
        search = GridSearchCV(NET, SPACE, cv=RAGGED)
        fit_elsewhere(monkeypatch, search, has_gpu=has_gpu)
        device = "cuda:0" if client_has_gpu else "cpu"
        assert str(search.best_estimator_.module_.layers[0].weight.device) == device
    found = {group["device"] for group in search.fusion_.groups}
    assert found == {"cuda:0" if has_gpu else "cpu"}
    assert not search.fusion_.alone
    assert all(group["worker"] for group in search.fusion_.groups)
    np.testing.assert_allclose(
        search.cv_results_["mean_test_score"], expected.cv_results_["mean_test_score"]
    )


@pytest.mark.parametrize(
    ("device", "has_gpu", "expected"),
    [("cuda:1", True, "cuda:0"), ("cuda:1", False, "cpu"), ("cpu", True, "cpu")],
)
def test_a_named_device_is_taken_if_the_worker_has_it(monkeypatch, device, has_gpu, expected):
    search = GridSearchCV(NET, {"lr": [0.01]}, cv=RAGGED, refit=False)
    with simulate(n_devices=2), joblib.parallel_config("sktune", device=device):
        fit_elsewhere(monkeypatch, search, has_gpu=has_gpu)
    assert {group["device"] for group in search.fusion_.groups} == {expected}


def test_what_was_begun_here_goes_on_on_the_device_of_a_worker(monkeypatch, tmp_path):
    search = GridSearchCV(NET, {**SPACE, "max_epochs": [2]}, cv=RAGGED, cache=tmp_path, refit=False)
    with simulate():
        search.fit(X, y)
        expected = GridSearchCV(NET, SPACE, cv=RAGGED, refit=False).fit(X, y)
        search.set_params(param_grid=SPACE)
        fit_elsewhere(monkeypatch, search, has_gpu=True)
        assert search.fusion_.sharing.n_known_epochs > 0
        np.testing.assert_allclose(
            search.cv_results_["mean_test_score"], expected.cv_results_["mean_test_score"]
        )
        # a CPU has trained none of it
        fit_elsewhere(monkeypatch, search, has_gpu=False)
        assert search.fusion_.sharing.n_known_epochs == 0


def test_groups_for_gpus_are_as_large_as_on_a_gpu(monkeypatch):
    search = GridSearchCV(
        NET, {"lr": np.linspace(0.01, 0.1, 40), "max_epochs": [1]}, cv=RAGGED, refit=False
    )
    fit_elsewhere(monkeypatch, search, has_gpu=True)
    assert [group["lanes"] for group in search.fusion_.groups] == [80]
