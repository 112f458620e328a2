"""The checks of gpu.py: is what a device computes right, and is it computed as it is meant to be?

Each check returns what it found in words, and raises an AssertionError where that is not right.
"""

from __future__ import annotations

import _thread
import gc
import threading
import time
from contextlib import contextmanager
from importlib.util import find_spec

import joblib
import numpy as np
import torch
from sklearn.datasets import make_classification
from sklearn.model_selection import GridSearchCV, RandomizedSearchCV
from torch import nn

from sktune import NeuralNetClassifier
from sktune.engine.report import FusionReport
from sktune.engine.steps.launched import choice

GRID = {"lr": [0.003, 0.01, 0.03], "module__dropout": [0.0, 0.3]}
# three groups
SEVERAL = {"lr": [0.003, 0.01], "batch_size": [8, 16, 32], "module__dropout": [0.0, 0.3]}


def make_rows(n_rows=330, n_features=6):
    X, y = make_classification(n_rows, n_features, n_informative=4, n_classes=3, random_state=0)
    return X.astype("float32"), y


def make_net(**options):
    options = {"module__hidden": (16,), "max_epochs": 12, "batch_size": 16, **options}
    return NeuralNetClassifier(random_state=0, **{"device": "cuda", **options})


def run_search(net, X, y, grid=None, cv=3, refit=False, **options):
    """Return a finished search and its report; `options` are those of the context."""
    report = FusionReport()
    with joblib.parallel_config("sktune", report=report, **{"n_jobs": 1, **options}):
        search = GridSearchCV(net, grid or GRID, cv=cv, scoring="neg_log_loss", refit=refit)
        search.fit(X, y)
    return search, report


def scores_of(search):
    return search.cv_results_["mean_test_score"]


def greatest_difference(one, other):
    return float(np.abs(scores_of(one) - scores_of(other)).max())


def ways_of(report):
    """Return how the groups of a search took their steps; tell why, where that is not recorded."""
    ways = {group["steps"] for group in report.groups}
    reasons = [group["blockers"].get("recorded") for group in report.groups]
    assert not report.alone, report.alone[0]
    assert ways == {"recorded"}, reasons
    return ways


def check_recordings():
    _, report = run_search(make_net(), *make_rows())
    ways_of(report)
    return f"{len(report.groups)} groups recorded"


def check_parity():
    X, y = make_rows()
    found = {}
    for dtype, bound in ((torch.float64, 1e-8), (torch.float32, 2e-3)):
        net = make_net(module__dtype=dtype)
        here, _ = run_search(net.set_params(device="cpu"), X, y)
        there, _ = run_search(net.set_params(device="cuda"), X, y)
        found[str(dtype)] = greatest_difference(here, there)
        assert found[str(dtype)] <= bound, found
    return ", ".join(f"{dtype}: {value:.1e}" for dtype, value in found.items())


def check_launches():
    """The kernel that trains an epoch in one launch: its results, and its seconds."""
    if torch.cuda.get_device_name() == "simulated" or find_spec("triton") is None:
        return "not checked: a kernel needs a real device and Triton"
    X, y = make_rows()
    found = []
    for dtype, bound in ((torch.float64, 1e-8), (torch.float32, 2e-3)):
        net = make_net(module__dtype=dtype, module__hidden=(70, 9))
        here, _ = run_search(net.set_params(device="cpu"), X, y)
        with launches("1"):
            there, report = run_search(net.set_params(device="cuda"), X, y)
            again, _ = run_search(net, X, y)
        assert {group["steps"] for group in report.groups} == {"launched"}, report.groups
        # threads that did not wait for each other's writes would not give the same twice
        assert np.array_equal(scores_of(there), scores_of(again))
        found.append(greatest_difference(here, there))
        assert found[-1] <= bound, found
    seconds = time_launches()
    return (
        f"launches differ from the CPU by {found[0]:.1e} in float64, {found[1]:.1e} in float32; "
        f"60 nets of 128 take {seconds['0']:.2f} s recorded, {seconds['1']:.2f} s launched"
    )


def time_launches():
    """Return the seconds in which some nets are trained, by whether they are launched."""
    X, y = make_rows(2000, 64)
    net = make_net(module__hidden=(128,), module__dropout=0.2, max_epochs=20, batch_size=64)
    grid = {"lr": [0.001 * (1 + n / 20) for n in range(20)]}
    seconds = {}
    for mode in ("0", "1"):
        with launches(mode):
            seconds[mode] = min(run_search(net, X, y, grid)[1].seconds for _ in range(3))
    return seconds


@contextmanager
def launches(mode):
    """Let launches be taken never ("0") or wherever they can ("1") in a block."""
    before = choice.mode
    choice.mode = mode
    try:
        yield
    finally:
        choice.mode = before


def check_ways_to_train():
    """Other optimizers, penalties, schedules, early stopping, modules under vmap."""
    X, y = make_rows()
    layers = [nn.Unflatten(1, (2, 3)), nn.Conv1d(2, 8, 2, bias=False), nn.BatchNorm1d(8)]
    layers += [nn.ReLU(), nn.Flatten(), nn.Linear(16, 3)]
    convolution = {"module": nn.Sequential(*layers).double(), "optimizer": torch.optim.SGD}
    convolution |= {"max_epochs": 12, "batch_size": 16, "random_state": 0}
    double = {"module__dtype": torch.float64}
    nets = {
        "momentum": make_net(**double, optimizer=torch.optim.SGD, optimizer__momentum=0.9),
        "penalties": make_net(**double, l1=0.001, l2=0.01, lr_schedule="cosine"),
        "early stopping": make_net(**double, early_stopping=True, n_iter_no_change=2),
        "convolution": NeuralNetClassifier(**convolution),
    }
    differences = {}
    for name, net in nets.items():
        grid = {"lr": [0.003, 0.01]}
        here, _ = run_search(net.set_params(device="cpu"), X, y, grid)
        there, report = run_search(net.set_params(device="cuda"), X, y, grid)
        ways_of(report)
        differences[name] = greatest_difference(here, there)
        assert differences[name] <= 1e-6, differences
    return ", ".join(f"{name}: {value:.1e}" for name, value in differences.items())


def check_alone():
    X, y = make_rows()
    net = make_net(module__dropout=0.2)
    outputs = {}
    for device in ("cpu", "cuda"):
        net.set_params(device=device).fit(X, y).partial_fit(X, y)
        outputs[device] = net.predict_proba(X)
    difference = float(np.abs(outputs["cpu"] - outputs["cuda"]).max())
    assert difference <= 2e-3, difference
    return f"a fit and a partial_fit alone differ from the CPU's by {difference:.1e}"


def check_refit():
    X, y = make_rows()
    search, _ = run_search(make_net(), X, y, refit=True)
    search.best_estimator_.module_.cpu()
    expected = make_net(**search.best_params_).fit(X, y)
    expected.module_.cpu()
    pairs = zip(
        search.best_estimator_.module_.parameters(), expected.module_.parameters(), strict=True
    )
    difference = max(float((one - other).detach().abs().max()) for one, other in pairs)
    assert difference <= 1e-5, difference
    return f"a refit differs from the same fit by {difference:.1e}"


def check_turns():
    X, y = make_rows()
    one, _ = run_search(make_net(), X, y, SEVERAL)
    several, report = run_search(make_net(), X, y, SEVERAL, n_jobs=3)
    ways_of(report)
    difference = greatest_difference(one, several)
    assert difference <= 1e-5, difference
    return f"{len(report.groups)} groups at once differ from one at a time by {difference:.1e}"


def check_two_searches():
    X, y = make_rows()
    expected, _ = run_search(make_net(), X, y, SEVERAL)
    found = []

    def work():
        found.append(run_search(make_net(), X, y, SEVERAL, n_jobs=3))

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 2, "a search has failed"
    for _, report in found:
        ways_of(report)
    difference = max(greatest_difference(expected, one) for one, _ in found)
    assert difference <= 1e-5, difference
    return f"two searches at once differ from one by {difference:.1e}"


def check_half_precision():
    X, y = make_rows()
    for dtype in (torch.float16, torch.bfloat16):
        search, report = run_search(make_net(module__dtype=dtype), X, y)
        assert np.isfinite(scores_of(search)).all(), dtype
        ways_of(report)
    return "float16 and bfloat16 stay finite"


def check_precisions():
    """Scores by rounded products differ a little; what is evaluated is not rounded."""
    X, y = make_rows(330, 64)
    expected, _ = run_search(make_net(), X, y)
    found = {}
    for precision in ("tf32", "bf16"):
        search, report = run_search(make_net(), X, y, precision=precision)
        ways_of(report)
        found[precision] = greatest_difference(expected, search)
        assert found[precision] <= 0.5, found
    after, _ = run_search(make_net(), X, y)
    assert greatest_difference(expected, after) <= 1e-5, "the precision has stayed"
    return ", ".join(f"{name}: {value:.1e}" for name, value in found.items())


def check_memory():
    X, y = make_rows()
    held = []
    for _ in range(3):
        run_search(make_net(), X, y)
        gc.collect()
        held.append(torch.cuda.memory_allocated())
    assert held[-1] <= held[0] + (1 << 20), held
    return f"{held[-1] / 2**20:.1f} MiB are held after three searches"


def check_full_device():
    """A device that has little memory left trains fewer fits at once."""
    X, y = make_rows(600, 64)
    net = make_net(module__hidden=(512, 512), max_epochs=4, batch_size=32)
    grid = {"lr": [0.001 * (1 + n) for n in range(16)]}
    gc.collect()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    expected, _ = run_search(net, X, y, grid)
    needed = torch.cuda.max_memory_allocated() - before
    gc.collect()
    torch.cuda.empty_cache()
    with limited_memory(int(0.6 * needed)):
        found, report = run_search(net, X, y, grid)
    ways_of(report)
    assert len(report.groups) > 1, f"one group fitted into 60 % of {needed / 2**20:.0f} MiB"
    difference = greatest_difference(expected, found)
    assert difference <= 2e-3, difference
    return f"with 60 % of {needed / 2**20:.0f} MiB: {len(report.groups)} groups"


class limited_memory:  # noqa: N801
    """Let this process have some more bytes of the device in a block, and no more."""

    def __init__(self, n_bytes):
        self.n_bytes = n_bytes

    def __enter__(self):
        total = torch.cuda.get_device_properties(torch.cuda.current_device()).total_memory
        limit = torch.cuda.memory_reserved() + self.n_bytes
        torch.cuda.set_per_process_memory_fraction(min(1.0, limit / total))

    def __exit__(self, *error):
        torch.cuda.set_per_process_memory_fraction(1.0)


def check_interrupt():
    """After an interrupt, also within a recording, the next search is as ever."""
    X, y = make_rows()
    expected, _ = run_search(make_net(), X, y, SEVERAL)
    n_interrupted = 0
    for delay in (0.02, 0.1, 0.3):
        timer = threading.Timer(delay, _thread.interrupt_main)
        timer.start()
        try:
            run_search(make_net(max_epochs=200), X, y, SEVERAL)
            timer.join()
            # it may come now
            time.sleep(0.05)
        except KeyboardInterrupt:
            n_interrupted += 1
    again, report = run_search(make_net(), X, y, SEVERAL)
    ways_of(report)
    difference = greatest_difference(expected, again)
    assert n_interrupted, "no interrupt arrived"
    assert difference <= 1e-5, difference
    return f"{n_interrupted} searches interrupted, the next one differs by {difference:.1e}"


def check_devices():
    """Several devices share the groups; results do not depend on how many there are."""
    n_devices = torch.cuda.device_count()
    if n_devices == 1:
        return "there is one device"
    X, y = make_rows()
    one, _ = run_search(make_net(device="cuda:0"), X, y, SEVERAL)
    all_of_them, report = run_search(make_net(), X, y, SEVERAL)
    ways_of(report)
    devices = {group["device"] for group in report.groups}
    difference = greatest_difference(one, all_of_them)
    assert len(devices) > 1, devices
    assert difference <= 1e-5, difference
    return f"{len(devices)} of {n_devices} devices, which differ from one by {difference:.1e}"


def check_random_search():
    """scikit-learn's own random search, of more lanes than are trained at once by default."""
    X, y = make_rows()
    with joblib.parallel_config("sktune", max_lanes=16):
        search = RandomizedSearchCV(
            make_net(), {"lr": np.geomspace(1e-3, 1e-1, 50)}, n_iter=20, cv=3, random_state=0
        )
        search.fit(X, y)
    assert search.best_score_ > 0.5, search.best_score_
    return f"the best accuracy is {search.best_score_:.2f}"


CHECKS = {
    "recordings": check_recordings,
    "parity": check_parity,
    "launches": check_launches,
    "ways to train": check_ways_to_train,
    "fits alone": check_alone,
    "refit": check_refit,
    "turns": check_turns,
    "two searches": check_two_searches,
    "half precision": check_half_precision,
    "precisions": check_precisions,
    "memory": check_memory,
    "full device": check_full_device,
    "interrupt": check_interrupt,
    "devices": check_devices,
    "random search": check_random_search,
}
