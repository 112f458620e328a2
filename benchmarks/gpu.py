"""What a CUDA device makes of searches: checks first, then figures.

    python benchmarks/gpu.py                       # all parts, under 8 minutes
    python benchmarks/gpu.py --parts checks        # also: yardstick, lanes, launches, images, rows
    python benchmarks/gpu.py --simulate            # the checks, on a simulated device

The checks: steps are recorded, launches of the kernel and all else give the results of the CPU,
groups in threads of their own and two searches at once give what one gives, modules of half
precision stay finite, memory is given back. A part whose checks fail is named, and the exit status
is 1.

`yardstick` is the search of search_speed.py, beside scikit-learn + skorch on the same device at 1,
2 and 4 jobs, of fewer candidates; a fit of each is what is compared. `lanes` trains 1 to 4,096 nets
at once; `launches` trains some by recorded steps and by launches; `images` is a convolution net
with batch normalisation, `rows` a table of 1,000,000.

Without a device nothing is measured: the parts of `--simulate` are checks alone.
"""

from __future__ import annotations

import argparse
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

HERE = Path(__file__).parent
PARTS = ("checks", "yardstick", "lanes", "launches", "images", "rows")
JOBS = (1, 2, 4)


def load_simulated_device():
    """Give this process a simulated device; it must come before torch is imported."""
    sys.path.insert(0, str(HERE.parent / "tests" / "simulated_device"))
    from library import find_obstacle, load_library

    obstacle = find_obstacle()
    if obstacle:
        raise SystemExit(f"a device cannot be simulated here: {obstacle}")
    load_library()
    from device import simulate

    return simulate()


def find_device():
    """Return the name of the device; end the program where there is none."""
    import torch

    if not torch.cuda.is_available():
        raise SystemExit(
            "this needs a CUDA device, and torch finds none: "
            "`python benchmarks/gpu.py --simulate` checks the same code on a simulated one"
        )
    return torch.cuda.get_device_name()


def make_rows(n_rows=330, n_features=6):
    from sklearn.datasets import make_classification

    X, y = make_classification(n_rows, n_features, n_informative=4, n_classes=3, random_state=0)
    return X.astype("float32"), y


def make_net(**options):
    from sktune import NeuralNetClassifier

    options = {"module__hidden": (16,), "max_epochs": 12, "batch_size": 16, **options}
    return NeuralNetClassifier(random_state=0, **options)


def run_search(net, X, y, grid=None, n_jobs=1, precision=None):
    """Return a finished search and its report."""
    import joblib
    from sklearn.model_selection import GridSearchCV

    from sktune.engine.report import FusionReport

    report = FusionReport()
    grid = grid or {"lr": [0.003, 0.01, 0.03], "module__dropout": [0.0, 0.3]}
    with joblib.parallel_config("sktune", report=report, n_jobs=n_jobs, precision=precision):
        search = GridSearchCV(net, grid, cv=3, scoring="neg_log_loss", refit=False)
        search.fit(X, y)
    return search, report


def scores_of(search):
    return search.cv_results_["mean_test_score"]


def greatest_difference(one, other):
    import numpy as np

    return float(np.abs(scores_of(one) - scores_of(other)).max())


# ---- checks: each returns what it found, and raises an AssertionError where that is not right


def check_recordings():
    X, y = make_rows()
    with launches("0"):
        _, report = run_search(make_net(), X, y)
    ways = {group["steps"] for group in report.groups}
    reasons = [group["blockers"] for group in report.groups]
    assert ways == {"recorded"}, reasons
    return f"{len(report.groups)} groups recorded"


def check_launches():
    from importlib.util import find_spec

    import numpy as np
    import torch

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
        # programs that do not wait for each other's writes would not give the same twice
        assert np.array_equal(scores_of(there), scores_of(again))
        found.append(greatest_difference(here, there))
        assert found[-1] <= bound, found
    return f"launches differ from the CPU by {found[0]:.1e} in float64, {found[1]:.1e} in float32"


@contextmanager
def launches(mode):
    """Let launches be taken never ("0") or wherever they can ("1") in a block."""
    from sktune.engine.steps.launched import choice

    before = choice.mode
    choice.mode = mode
    try:
        yield
    finally:
        choice.mode = before


def check_parity():
    import torch

    X, y = make_rows()
    found = {}
    for dtype, bound in ((torch.float64, 1e-8), (torch.float32, 2e-3)):
        net = make_net(module__dtype=dtype)
        here, _ = run_search(net.set_params(device="cpu"), X, y)
        there, _ = run_search(net.set_params(device="cuda"), X, y)
        found[str(dtype)] = greatest_difference(here, there)
        assert found[str(dtype)] <= bound, found
    return ", ".join(f"{dtype}: {value:.1e}" for dtype, value in found.items())


def check_alone():
    import numpy as np

    X, y = make_rows()
    net = make_net(module__dropout=0.2)
    here = net.set_params(device="cpu").fit(X, y).predict_proba(X)
    there = net.set_params(device="cuda").fit(X, y).predict_proba(X)
    difference = float(np.abs(here - there).max())
    assert difference <= 2e-3, difference
    return f"a fit alone differs from the CPU's by {difference:.1e}"


def check_threads():
    X, y = make_rows()
    grid = {"lr": [0.003, 0.01], "batch_size": [8, 16, 32], "module__dropout": [0.0, 0.3]}
    one, _ = run_search(make_net(), X, y, grid)
    several, report = run_search(make_net(), X, y, grid, n_jobs=3)
    difference = greatest_difference(one, several)
    assert difference <= 1e-5, difference
    return f"{len(report.groups)} groups in 3 threads differ from one thread by {difference:.1e}"


def check_two_searches():
    X, y = make_rows()
    expected, _ = run_search(make_net(), X, y)
    found = []

    def work():
        found.append(run_search(make_net(), X, y)[0])

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 2, "a search has failed"
    difference = max(greatest_difference(expected, one) for one in found)
    assert difference <= 1e-5, difference
    return f"two searches at once differ from one by {difference:.1e}"


def check_half_precision():
    import numpy as np
    import torch

    X, y = make_rows()
    for dtype in (torch.float16, torch.bfloat16):
        search, report = run_search(make_net(module__dtype=dtype), X, y)
        assert np.isfinite(scores_of(search)).all(), dtype
        assert not report.alone, report.alone[0]
    for precision in ("tf32", "bf16"):
        search, report = run_search(make_net(), X, y, precision=precision)
        assert np.isfinite(scores_of(search)).all(), precision
        assert not report.alone, report.alone[0]
    return "float16, bfloat16, tf32 and bf16 stay finite"


def check_memory():
    import gc

    import torch

    X, y = make_rows()
    held = []
    for _ in range(3):
        run_search(make_net(), X, y)
        gc.collect()
        held.append(torch.cuda.memory_allocated())
    assert held[-1] <= held[0] + (1 << 20), held
    return f"{held[-1] / 2**20:.1f} MiB are held after three searches"


CHECKS = (
    check_recordings,
    check_launches,
    check_parity,
    check_alone,
    check_threads,
    check_two_searches,
    check_half_precision,
    check_memory,
)


def run_checks():
    """Run all checks; return a row for each."""
    rows = []
    for check in CHECKS:
        began = time.perf_counter()
        try:
            found, is_right = check(), True
        except Exception as error:
            found, is_right = f"{type(error).__name__}: {error}", False
        seconds = time.perf_counter() - began
        name = check.__name__.removeprefix("check_").replace("_", " ")
        rows.append({"check": name, "is_right": is_right, "found": found, "seconds": seconds})
        print(f"{'right' if is_right else 'WRONG':6}{name:16}{seconds:6.1f} s  {found}", flush=True)
    return rows


# ---- figures


def measure_yardstick():
    """Time the search of search_speed.py, and skorch on fewer candidates of it."""
    from harness import run_fresh

    common = [HERE / "search_speed.py", "--device", "cuda"]
    figures = {}
    runs = [("sktune", 0, 60), *(("skorch", jobs, 2) for jobs in JOBS)]
    for peer, jobs, candidates in runs:
        options = ["--peer", peer, "--n-jobs", jobs, "--candidates", candidates]
        found = run_fresh([*common, *options], what=peer)
        name = peer if not jobs else f"{peer}, n_jobs={jobs}"
        figures[name] = {**found, "ms_per_fit": 1000 * found["seconds"] / (5 * candidates)}
        print(f"{name:24}{figures[name]['ms_per_fit']:10.2f} ms a fit", flush=True)
    return figures


def measure_lanes():
    """Time an epoch of 1 to 4,096 equal nets at once."""
    X, y = make_rows(2000, 64)
    figures = {}
    for n_lanes in (1, 4, 16, 64, 256, 1024, 4096):
        net = make_net(module__hidden=(128,), max_epochs=5, batch_size=64)
        rates = [0.001 * (1 + n / n_lanes) for n in range(n_lanes)]
        seconds = min(time_search(net, X, y, {"lr": rates}) for _ in range(2))
        figures[n_lanes] = {"seconds": seconds, "ms_per_fit": 1000 * seconds / (3 * n_lanes)}
        print(f"{n_lanes:6} candidates{1000 * seconds / (3 * n_lanes):10.3f} ms a fit", flush=True)
    return figures


def measure_launches():
    """Time equal nets at once, by recorded steps and by launches."""
    X, y = make_rows(2000, 64)
    figures = {}
    for n_lanes in (1, 16, 64, 256):
        net = make_net(module__hidden=(128,), module__dropout=0.2, max_epochs=20, batch_size=64)
        grid = {"lr": [0.001 * (1 + n / n_lanes) for n in range(n_lanes)]}
        row = {}
        for name, mode in (("recorded", "0"), ("launched", "1")):
            with launches(mode):
                row[name] = min(time_search(net, X, y, grid) for _ in range(3))
        figures[n_lanes] = row
        texts = (f"{name} {1000 * seconds / (3 * n_lanes):8.3f}" for name, seconds in row.items())
        print(f"{n_lanes:6} candidates, ms a fit: {', '.join(texts)}", flush=True)
    return figures


def time_search(net, X, y, grid):
    began = time.perf_counter()
    run_search(net, X, y, grid)
    return time.perf_counter() - began


def measure_images():
    """Time a search over a convolution net with batch normalisation."""
    import numpy as np
    from torch import nn

    from sktune import NeuralNetClassifier

    rng = np.random.default_rng(0)
    X = rng.normal(size=(2000, 3, 16, 16)).astype("float32")
    y = rng.integers(0, 10, len(X))
    layers = [nn.Conv2d(3, 16, 3, bias=False), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2)]
    layers += [nn.Flatten(), nn.Linear(16 * 7 * 7, 10)]
    net = NeuralNetClassifier(
        nn.Sequential(*layers), max_epochs=3, batch_size=64, random_state=0, device="cuda"
    )
    grid = {"lr": [0.001 * (1 + n) for n in range(12)]}
    time_search(net, X, y, {"lr": [0.001, 0.002]})
    seconds = time_search(net, X, y, grid)
    print(f"images: {1000 * seconds / 36:.1f} ms a fit", flush=True)
    return {"seconds": seconds, "ms_per_fit": 1000 * seconds / 36}


def measure_rows():
    """Time a search over a table of 1,000,000 rows."""
    X, y = make_rows(1_000_000, 32)
    net = make_net(module__hidden=(128, 128), max_epochs=1, batch_size=4096)
    seconds = time_search(net, X, y, {"lr": [0.001, 0.003, 0.01, 0.03]})
    print(f"rows: {seconds:.1f} s for 12 fits of an epoch", flush=True)
    return {"seconds": seconds, "rows_per_second": 12 * len(X) * 2 / 3 / seconds}


MEASURES = {
    "yardstick": measure_yardstick,
    "lanes": measure_lanes,
    "launches": measure_launches,
    "images": measure_images,
    "rows": measure_rows,
}


def main(arguments=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--simulate", action="store_true", help="run the checks without a device")
    parser.add_argument("--json", type=Path, default=None)
    args = parser.parse_args(arguments)
    if args.simulate:
        with load_simulated_device():
            rows = run_checks()
        return int(not all(row["is_right"] for row in rows))
    return run_on_device(args)


def run_on_device(args):
    """Run parts on a device and save what was found; return the exit status."""
    name = find_device()
    from harness import RESULTS, save

    print(name)
    record = {"device": name}
    if "checks" in args.parts:
        record["checks"] = run_checks()
    for part in args.parts:
        if part in MEASURES:
            record[part] = MEASURES[part]()
    path = args.json or RESULTS / f"gpu_{name.lower().replace(' ', '_')}.json"
    save(record, path)
    return int(not all(row["is_right"] for row in record.get("checks", [])))


if __name__ == "__main__":
    sys.exit(main())
