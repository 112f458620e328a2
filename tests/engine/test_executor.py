"""Threads, memory that does not suffice, interrupts, and failures of the engine itself."""

import json
import signal
import subprocess
import sys
import threading
import weakref
from textwrap import dedent

import numpy as np
import pytest
import skorch
import torch
from parity import X, assert_parity, assert_same_net, assert_same_scores, compiled_steps, search, y
from sklearn.exceptions import FitFailedWarning

from sktune import NeuralNetClassifier
from sktune.engine import group
from sktune.engine.compiled import program as compiled
from sktune.engine.group import Group

NET = NeuralNetClassifier(module__hidden=(8,), lr=0.05, max_epochs=3, batch_size=16, random_state=0)
LANES = [{"lr": lr, "module__dropout": rate} for lr in (0.01, 0.1) for rate in (0.0, 0.3)]


def limit_memory(monkeypatch, too_many, error=torch.OutOfMemoryError, when="at once"):
    """Let groups for which `too_many` holds run out of memory; return the sizes of all groups."""
    begun = []
    earlier = []

    class Limited(Group):
        def __init__(self, lanes, *others):
            assert all(group() is None for group in earlier), (
                "a group that failed still holds its memory"
            )
            begun.append(len(lanes))
            earlier.append(weakref.ref(self))
            super().__init__(lanes, *others)
            self.exceeds = too_many(lanes)
            if self.exceeds and when == "at once":
                raise error("CUDA out of memory. Tried to allocate 20 GiB")

        def _close_epoch(self, epoch, *others):
            if self.exceeds and epoch == 1:
                raise error("[enforce fail] DefaultCPUAllocator: can't allocate memory")
            return super()._close_epoch(epoch, *others)

    monkeypatch.setattr(group, "Group", Limited)
    return begun


@pytest.mark.parametrize("when", ["at once", "later"])
@pytest.mark.parametrize("error", [torch.OutOfMemoryError, RuntimeError, MemoryError])
def test_a_group_that_does_not_fit_is_halved(monkeypatch, error, when):
    expected, references, _ = search(NET, LANES, X, y)
    begun = limit_memory(monkeypatch, lambda lanes: len(lanes) > 2, error, when)
    found, nets, report = search(NET, LANES, X, y, n_jobs=1)

    assert begun == [8, 4, 4, 2, 2, 2, 2]
    assert [group["lanes"] for group in report.groups] == [2] * 4
    assert not report.alone
    assert_same_scores(expected, found, tolerance=0)
    for reference, net in zip(references, nets, strict=True):
        assert_same_net(reference, net)


def test_a_second_attempt_knows_nothing_of_the_first(monkeypatch):
    lanes = [{"tol": 10.0, "n_iter_no_change": patience} for patience in (2, 3)]
    torch_net = skorch.NeuralNetClassifier(
        torch.nn.Sequential(torch.nn.Linear(6, 3), torch.nn.Dropout(0.3)).double(),
        criterion=torch.nn.CrossEntropyLoss,
        verbose=0,
        max_epochs=3,
        iterator_train__shuffle=True,
    )
    for net, candidates in (
        (NET.__class__(early_stopping=True, random_state=0), lanes),
        (torch_net, [{}, {"lr": 0.1}]),
    ):
        with monkeypatch.context() as patch:
            torch.manual_seed(0)
            _, references, _ = search(net, candidates, X, y)
            torch.manual_seed(0)
            begun = limit_memory(patch, lambda lanes: len(lanes) > 2, when="later")
            _, nets, report = search(net, candidates, X, y, n_jobs=1)

        assert begun == [4, 2, 2]
        assert not report.alone
        for reference, other in zip(references, nets, strict=True):
            assert_same_net(reference, other)


def test_a_fit_that_does_not_fit_at_all_fails_alone(monkeypatch):
    limit_memory(
        monkeypatch, lambda lanes: any(lane.spec.optimizer.options["lr"] == 0.1 for lane in lanes)
    )
    lanes = [{"lr": 0.01}, {"lr": 0.1}, {"lr": 0.02}]

    with pytest.warns(FitFailedWarning, match="out of memory"):
        found, nets, report = search(NET, lanes, X, y, error_score=-1.0, n_jobs=1)

    assert found.cv_results_["mean_test_score"][1] == -1.0
    assert len(nets) == 4
    assert not report.alone
    expected, references, _ = search(NET, [lanes[0], lanes[2]], X, y, fused=False)
    for reference, net in zip(references, nets, strict=True):
        assert_same_net(reference, net)


@pytest.fixture
def four_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("max_lanes", [2, 32])
def test_failures_of_the_engine_are_told_and_cost_no_result(monkeypatch, four_threads, max_lanes):
    class Broken(Group):
        def _close_epoch(self, *args):
            raise LookupError("a bug of the engine")

    monkeypatch.setattr(group, "Group", Broken)
    plain, references, _ = search(NET, LANES[:2], X, y, fused=False)
    with pytest.warns(
        RuntimeWarning, match="the fused engine failed: LookupError: a bug of the engine"
    ):
        found, nets, report = search(NET, LANES[:2], X, y, max_lanes=max_lanes)

    assert_same_scores(plain, found, tolerance=0)
    assert {fit["reason"] for fit in report.alone} == {"the fused engine failed"}
    assert not report.groups
    for reference, net in zip(references, nets, strict=True):
        assert_same_net(reference, net)


def test_a_lane_that_the_engine_fails_on_goes_alone(monkeypatch):
    class Fragile(Group):
        def _close_epoch(self, epoch, *others):
            rates = [lane.spec.optimizer.options["lr"] for lane in self.lanes]
            if epoch == 1 and 0.02 in rates:
                raise ValueError("no such lane")
            return super()._close_epoch(epoch, *others)

    lanes = [*LANES, {"lr": 0.02}]
    plain, references, _ = search(NET, lanes, X, y, fused=False)
    monkeypatch.setattr(group, "Group", Fragile)
    with pytest.warns(RuntimeWarning, match="ValueError: no such lane"):
        found, nets, report = search(NET, lanes, X, y)

    assert_same_scores(plain, found, tolerance=0)
    assert sum(group["lanes"] for group in report.groups) == 8
    assert [fit["candidate"] for fit in report.alone] == [4, 4]
    for reference, net in zip(references, nets, strict=True):
        assert_same_net(reference, net)


def test_threads_are_as_before():
    n_threads, threads = torch.get_num_threads(), threading.enumerate()
    for n_jobs in (1, 2, -1):
        assert_parity(NET, LANES, X, y, n_jobs=n_jobs, max_lanes=3)
        assert torch.get_num_threads() == n_threads
        assert threading.enumerate() == threads


def test_threads_share_the_cores(monkeypatch, four_threads):
    counts = []

    class Noting(Group):
        def train(self, *args):
            counts.append(torch.get_num_threads())
            return super().train(*args)

    monkeypatch.setattr(group, "Group", Noting)
    search(NET, LANES, X, y, n_jobs=1, max_lanes=2)
    assert counts == [1] * 4, "steps as small as these are not to be divided"
    monkeypatch.setattr("sktune.modules.work._LEAST_TO_DIVIDE", 0)
    monkeypatch.setattr(compiled, "enabled", False)
    for n_jobs, share in ((1, 4), (2, 2), (4, 1), (None, 1)):
        counts.clear()
        search(NET, LANES, X, y, n_jobs=n_jobs, max_lanes=2)
        assert counts == [share] * 4
        assert torch.get_num_threads() == 4


def test_one_group_is_divided_among_the_workers():
    lanes = [{"lr": rate} for rate in np.linspace(0.01, 0.1, 12)]
    _, together, report = search(NET, lanes, X, y, n_jobs=1)
    assert [group["lanes"] for group in report.groups] == [12, 12]
    for n_jobs, are_compiled, sizes in (
        (2, True, [6] * 4),
        (9, False, [6] * 4),
        (9, True, [1] * 24),
    ):
        with compiled_steps(are_compiled):
            _, apart, report = search(NET, lanes, X, y, n_jobs=n_jobs)
        assert sorted(group["lanes"] for group in report.groups) == sizes
        for one, other in zip(together, apart, strict=True):
            assert_same_net(one, other)


def in_a_process(program, timeout=60):
    """Run a program of its own; return the JSON that it prints."""
    done = subprocess.run(
        [sys.executable, "-c", dedent(program)], capture_output=True, text=True, timeout=timeout
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.skipif(sys.platform == "win32", reason="signals differ there")
def test_an_interrupt_ends_a_search_at_once_and_leaves_nothing_working():
    found = in_a_process(f"""
        import json, os, threading, time
        import numpy as np
        import torch
        from sklearn.datasets import load_iris
        from sktune import GridSearchCV, NeuralNetClassifier
        from sktune.engine.compiled.loading import load_kernels

        load_kernels(np.dtype("float32"))  # the interrupt is to meet the training, not the compiler
        torch.set_num_threads(2)
        sent = []

        def interrupt():
            sent.append(time.perf_counter())
            os.kill(os.getpid(), {int(signal.SIGINT)})

        results = []
        for n_jobs in (1, 2):
            net = NeuralNetClassifier(max_epochs=10**6, random_state=0)
            search = GridSearchCV(net, {{"batch_size": [16, 32, 64]}}, n_jobs=n_jobs)
            timer = threading.Timer(1.0, interrupt)
            timer.start()
            try:
                search.fit(*load_iris(return_X_y=True))
                raise SystemExit("not interrupted")
            except KeyboardInterrupt:
                seconds = time.perf_counter() - sent[-1]
            timer.join()
            # tqdm has a daemon
            alive = [thread for thread in threading.enumerate() if not thread.daemon]
            results.append([seconds, len(alive), torch.get_num_threads()])
        print(json.dumps(results))
    """)

    for seconds, n_alive, n_threads in found:
        assert seconds < 1.5
        assert (n_alive, n_threads) == (1, 2)


@pytest.mark.slow
def test_a_million_rows_fit_in_five_times_their_size():
    peak, size = in_a_process(
        """
        import json, resource
        import numpy as np
        from sktune import GridSearchCV, NeuralNetClassifier

        begun = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        rng = np.random.default_rng(0)
        X, y = rng.standard_normal((1_000_000, 50), dtype=np.float32), rng.integers(0, 2, 1_000_000)
        net = NeuralNetClassifier(max_epochs=1, batch_size=1024, random_state=0)
        search = GridSearchCV(net, {"lr": [1e-4, 1e-3, 1e-2, 1e-1]}, cv=3, refit=False).fit(X, y)
        assert not search.fusion_.alone
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        print(json.dumps([(peak - begun) * 1024, X.nbytes]))
    """,
        timeout=300,
    )

    assert peak < 5 * size, f"{peak / size:.1f} x the data"
