"""Groups trained by other processes."""

import os
import signal
import threading

import joblib
import numpy as np
import pytest
import torch
from parity import X, X_reg, assert_same_net, search, y, y_reg
from sklearn.model_selection import GridSearchCV

from sktune import NeuralNetClassifier, NeuralNetRegressor
from sktune.fused import run, workers
from sktune.fused.run import WORKERS

NET = NeuralNetClassifier(module__hidden=(8,), module__dropout=0.2, max_epochs=3, batch_size=16, random_state=0)
LANES = [{"lr": 0.01, "l1": 0.01}, {"lr": 0.1, "max_epochs": 2}, {"module__hidden": (4,)}, {"batch_size": 32}]


@pytest.fixture
def eager(monkeypatch):
    """Let the smallest search be worth its processes; return a list of the groups that they trained."""
    taken = []

    class Noted(run.Trainer):
        def _receive(self, fits, future):
            taken.append((len(fits), future.exception()))
            super()._receive(fits, future)

    for name in ("_START", "_GO_ON"):
        monkeypatch.setattr(workers, name, 0.0)
    monkeypatch.setattr("sktune.fused.backend.Trainer", Noted)
    return taken


@pytest.fixture(scope="module", autouse=True)
def leave_no_process():
    yield
    WORKERS.stop()


@pytest.mark.parametrize(
    ("net", "lanes", "targets"),
    [
        (NET, LANES, y),
        (NET, [{"lr_schedule": "one_cycle"}, {"lr_schedule": "cosine"}, {"batch_size": 32, "lr_schedule": "step"}], y),
        (NET, [{"early_stopping": True, "class_weight": "balanced"}, *LANES], y),
        (NeuralNetRegressor(module__hidden=(8,), max_epochs=3, batch_size=16, random_state=0), LANES, y_reg),
    ],
)
def test_results_are_those_of_this_process(eager, net, lanes, targets):
    rows = X if targets is y else X_reg
    _, here, _ = search(net, lanes, rows, targets, n_jobs=1)
    assert not eager
    _, there, report = search(net, lanes, rows, targets, n_jobs=2)

    assert eager
    assert all(error is None for _, error in eager)
    assert not report.alone
    for one, other in zip(here, there, strict=True):
        assert_same_net(one, other, rtol=0)


def test_a_process_that_is_killed_costs_nothing_but_time(eager, monkeypatch):
    _, expected, _ = search(NET, LANES, X, y, n_jobs=1)
    submit = WORKERS.submit

    def submit_and_kill(*args):
        future = submit(*args)
        for pid in list(WORKERS.pool._processes):
            os.kill(pid, signal.SIGKILL)
        return future

    monkeypatch.setattr(WORKERS, "submit", submit_and_kill)
    _, nets, report = search(NET, LANES, X, y, n_jobs=2)

    assert any(error is not None for _, error in eager)
    assert not report.alone
    for one, other in zip(expected, nets, strict=True):
        assert_same_net(one, other, rtol=0)


class Unsendable(torch.nn.Linear):
    """A module that cannot be pickled."""

    def __init__(self):
        super().__init__(6, 3, dtype=torch.float64)

    def __reduce_ex__(self, protocol):
        if threading.current_thread() is not threading.main_thread():
            raise TypeError("not to be sent")
        return super().__reduce_ex__(protocol)


def test_what_cannot_be_sent_is_trained_here(eager):
    net = NeuralNetClassifier(Unsendable, max_epochs=2, random_state=0)
    _, _, report = search(net, [{"batch_size": 16}, {"batch_size": 32}], X, y, n_jobs=2)

    assert [type(error) for _, error in eager if error]
    assert sum(group["lanes"] for group in report.groups) == 4


def test_an_interrupt_ends_them(eager):
    search(NET, LANES, X, y, n_jobs=2)  # the processes have started
    pids = list(WORKERS.pool._processes)
    timer = threading.Timer(1.0, os.kill, (os.getpid(), signal.SIGINT))
    net = NET.set_params(max_epochs=100_000)
    with joblib.parallel_config("sktune", n_jobs=2), pytest.raises(KeyboardInterrupt):  # noqa: PT011, PT012
        timer.start()
        GridSearchCV(net, {"batch_size": [16, 32, 64]}, cv=2, refit=False).fit(X, y)
    NET.set_params(max_epochs=3)

    assert pids
    assert not any(os.path.exists(f"/proc/{pid}") for pid in pids)
    assert torch.get_num_threads() == int(os.environ.get("OMP_NUM_THREADS", torch.get_num_threads()))


def test_small_searches_and_large_steps_are_not_sent():
    def group(n_rows, hidden, epochs=2, device="cpu"):
        rows = np.zeros((n_rows, 4), dtype=np.float32)
        net, found = NET.__class__(module__hidden=hidden, max_epochs=epochs, random_state=0, batch_size=1024), []
        vars(net)["_stand_in"] = found.append
        rows[::2] = 1
        net.fit(rows, np.arange(n_rows) % 2)
        return [type("Fit", (), {"lane": workers.Lane(net, found[0])})()] * 20

    fresh = workers.Workers()
    assert not fresh.are_worth_it([group(200, 4)] * 2, 1)
    assert fresh.are_worth_it([group(5000, 64, epochs=2000)] * 2, 1)
    assert not fresh.are_worth_it([group(5000, 4096, epochs=2000)] * 2, 1)
