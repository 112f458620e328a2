"""What a CUDA device makes of searches: checks first, then figures.

    python benchmarks/gpu.py                       # all parts, under 8 minutes
    python benchmarks/gpu.py --parts checks        # also: calls, yardstick, lanes, images, rows
    python benchmarks/gpu.py --checks parity turns # some checks only, of gpu_checks.py
    python benchmarks/gpu.py --simulate            # the checks, on a simulated device

The checks: steps are recorded, results are those of the CPU for fits of all kinds, also where a
kernel is launched, which is timed beside recorded steps; groups in turn and two searches at once
give what one gives, modules of half precision stay finite, memory is given back, a full device
halves groups, an interrupt leaves nothing behind.

`calls` counts what the host asks of CUDA in a search, by torch's profiler. `yardstick` is the
search of search_speed.py, beside scikit-learn + skorch on the same device at 1, 2 and 4 jobs, of
fewer candidates; a fit of each is what is compared. `lanes` trains 1 to 4,096 nets at once in one
group. `images` is a convolution net with batch normalization, `rows` a table of 1,000,000; both
beside the same fits one at a time.

Each part runs in a process of its own, with a limit of time, so that one that fails or hangs leaves
the others alone; so does each check after one that fails. What was found is saved with the name of
the device. The exit status is 1 if a check was not right or a part did not end.

Without a device nothing is measured: the parts of `--simulate` are checks alone.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import nullcontext
from pathlib import Path

HERE = Path(__file__).parent
# The seconds that each part may take.
PARTS = {"checks": 150, "calls": 40, "yardstick": 120, "lanes": 70, "images": 40, "rows": 40}
MOST_SECONDS = 460


def find_obstacle():
    """End the program where a device cannot be simulated."""
    sys.path.insert(0, str(HERE.parent / "tests" / "simulated_device"))
    from library import find_obstacle

    obstacle = find_obstacle()
    if obstacle:
        raise SystemExit(f"a device cannot be simulated here: {obstacle}")


def load_simulated_device():
    """Give this process a simulated device; it must come before torch is imported."""
    find_obstacle()
    from library import load_library

    load_library()
    from device import simulate

    return simulate()


def describe_device():
    """Return what the device is; end the program where there is none."""
    import torch

    if not torch.cuda.is_available():
        raise SystemExit(
            "this needs a CUDA device, and torch finds none: "
            "`python benchmarks/gpu.py --simulate` checks the same code on a simulated one"
        )
    properties = torch.cuda.get_device_properties(torch.cuda.current_device())
    return {
        "name": properties.name,
        "memory_gib": properties.total_memory / 2**30,
        "multiprocessors": properties.multi_processor_count,
        "capability": f"{properties.major}.{properties.minor}",
        "devices": torch.cuda.device_count(),
        "cuda": torch.version.cuda,
        "torch": torch.__version__,
    }


# ---- in the process of a part


def tell(found):
    """Hand what was found so far to the process that waits for it."""
    print(json.dumps(found), flush=True)


def show(line):
    print(line, file=sys.stderr, flush=True)


def run_checks(names):
    """Run checks until one fails: what it leaves behind may spoil the next."""
    from gpu_checks import CHECKS

    for name in names:
        began = time.perf_counter()
        try:
            found, is_right = CHECKS[name](), True
        except Exception as error:
            lines = str(error).strip().splitlines() or [""]
            found, is_right = f"{type(error).__name__}: {lines[0]}", False
        seconds = time.perf_counter() - began
        tell({"check": name, "is_right": is_right, "found": found, "seconds": seconds})
        show(f"{'right' if is_right else 'WRONG':6}{name:16}{seconds:6.1f} s  {found}")
        if not is_right:
            return


def timed(function):
    """Return the seconds of a call, with all that it has launched."""
    import torch

    torch.cuda.synchronize()
    began = time.perf_counter()
    function()
    torch.cuda.synchronize()
    return time.perf_counter() - began


def measure_calls():
    """Count what the host asks of CUDA in a search of 3 groups x 20 epochs, and in a fit alone."""
    from gpu_checks import SEVERAL, make_net, make_rows, run_search
    from torch.profiler import ProfilerActivity, profile

    X, y = make_rows()
    net = make_net(max_epochs=20)
    works = {"search": lambda: run_search(net, X, y, SEVERAL), "fit": lambda: net.fit(X, y)}
    figures = {}
    for name, work in works.items():
        work()
        with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as profiler:
            timed(work)
        counts = {}
        for row in profiler.key_averages():
            if row.key.startswith(("cuda", "cuLaunch", "cuMem")):
                counts[row.key] = row.count
        figures[name] = dict(sorted(counts.items(), key=lambda pair: -pair[1]))
        tell(figures)
        show(f"{name}: {figures[name]}")


def measure_yardstick():
    """Time the search of search_speed.py, and skorch on fewer candidates of it."""
    from harness import run_fresh

    common = [HERE / "search_speed.py", "--device", "cuda"]
    figures = {}
    runs = [("sktune", 0, 60), *(("skorch", jobs, 2) for jobs in (1, 2, 4))]
    for peer, jobs, candidates in runs:
        options = ["--peer", peer, "--n-jobs", jobs, "--candidates", candidates]
        name = peer if not jobs else f"{peer}, n_jobs={jobs}"
        try:
            found = run_fresh([*common, *options], what=peer)
        except SystemExit as error:
            figures[name] = {"error": str(error)[-500:]}
        else:
            figures[name] = {**found, "ms_per_fit": 1000 * found["seconds"] / (5 * candidates)}
        tell(figures)
        show(f"{name:24}{figures[name].get('ms_per_fit', float('nan')):10.2f} ms a fit")


def measure_lanes():
    """Time 5 epochs of 1 to 4,096 nets that are one group."""
    import numpy as np
    import torch
    from gpu_checks import make_net, make_rows, run_search

    X, y = make_rows(2000, 64)
    cv = [(np.arange(1600), np.arange(1600, 2000))]
    net = make_net(module__hidden=(128,), max_epochs=5, batch_size=64)
    figures = {}
    for n_lanes in (1, 4, 16, 64, 256, 1024, 4096):
        rates = [0.001 * (1 + n / n_lanes) for n in range(n_lanes)]
        best = {}
        torch.cuda.reset_peak_memory_stats()
        for _ in range(2):
            reports = []
            seconds = timed(
                lambda rates=rates, reports=reports: reports.append(
                    run_search(net, X, y, {"lr": rates}, cv=cv, max_lanes=4096)[1]
                )
            )
            (report,) = reports
            if not best or seconds < best["seconds"]:
                ways = [group["steps"] for group in report.groups]
                best = {"seconds": seconds, "training": report.seconds, "steps": ways}
        best["ms_per_fit"] = 1000 * best["seconds"] / n_lanes
        best["training_ms_per_fit"] = 1000 * best["training"] / n_lanes
        best["peak_mib"] = torch.cuda.max_memory_allocated() / 2**20
        figures[n_lanes] = best
        tell(figures)
        show(
            f"{n_lanes:6} nets{best['ms_per_fit']:10.3f} ms a fit, of which training "
            f"{best['training_ms_per_fit']:.3f}; {best['peak_mib']:.0f} MiB"
        )


def measure_images():
    """Time a search over a convolution net with batch normalization."""
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
    compare(net, X, y, {"lr": [0.001 * (1 + n) for n in range(12)]})


def measure_rows():
    """Time a search over a table of 1,000,000 rows."""
    from gpu_checks import make_net, make_rows

    X, y = make_rows(1_000_000, 32)
    net = make_net(module__hidden=(128, 128), max_epochs=1, batch_size=4096)
    compare(net, X, y, {"lr": [0.001, 0.003, 0.01, 0.03]})


def compare(net, X, y, grid):
    """Time a search of 3 folds, and a fit alone on as many rows."""
    import torch
    from gpu_checks import run_search

    n_fits = 3 * len(grid["lr"])
    run_search(net, X, y, {"lr": grid["lr"][:2]})
    torch.cuda.reset_peak_memory_stats()
    found = []
    seconds = timed(lambda: found.append(run_search(net, X, y, grid)[1]))
    figures = {
        "ms_per_fit": 1000 * seconds / n_fits,
        "training_ms_per_fit": 1000 * found[0].seconds / n_fits,
        "steps": [group["steps"] for group in found[0].groups],
        "peak_mib": torch.cuda.max_memory_allocated() / 2**20,
    }
    n_rows = 2 * len(X) // 3
    net.fit(X[:n_rows], y[:n_rows])
    figures["ms_of_a_fit_alone"] = 1000 * timed(lambda: net.fit(X[:n_rows], y[:n_rows]))
    tell(figures)
    show(json.dumps(figures))


MEASURES = {
    "calls": measure_calls,
    "yardstick": measure_yardstick,
    "lanes": measure_lanes,
    "images": measure_images,
    "rows": measure_rows,
}


def run_part(name, checks):
    """Do the work of the process of a part."""
    if name == "checks":
        run_checks(checks)
    else:
        MEASURES[name]()


# ---- in the process that waits for the parts


def run_fresh_part(options, limit):
    """Run a part in a process of its own; return the lines that it told, and why it did not end."""
    process = subprocess.Popen(
        [sys.executable, __file__, *options], stdout=subprocess.PIPE, text=True, process_group=0
    )
    failure = ""
    try:
        output, _ = process.communicate(timeout=max(1, limit))
    except subprocess.TimeoutExpired:
        failure = f"it took more than {limit:.0f} s"
        # with all that it has started
        os.killpg(process.pid, signal.SIGKILL)
        output, _ = process.communicate()
    except BaseException:
        os.killpg(process.pid, signal.SIGKILL)
        raise
    if process.returncode and not failure:
        failure = f"its process ended with status {process.returncode}"
    return [json.loads(line) for line in output.splitlines() if line.startswith("{")], failure


def run_all_checks(names, flags, deadline):
    """Run checks, in a new process after each that is not right; return a row for each."""
    rows = []
    remaining = list(names)
    while remaining:
        limit = deadline - time.monotonic()
        if limit < 1:
            rows += [_make_wrong(name, "there was no time left") for name in remaining]
            break
        told, failure = run_fresh_part(["--part", "checks", *flags, "--checks", *remaining], limit)
        rows += told
        remaining = remaining[len(told) :]
        if failure and remaining:
            rows.append(_make_wrong(remaining.pop(0), failure))
        elif not told:
            rows += [_make_wrong(name, "it told nothing") for name in remaining]
            break
    return rows


def _make_wrong(name, why):
    show(f"WRONG {name:16}          {why}")
    return {"check": name, "is_right": False, "found": why, "seconds": None}


def run_measure(name, deadline):
    """Run a part that measures; return what it found, and why it did not end."""
    show(f"\n{name}")
    told, failure = run_fresh_part(["--part", name], deadline - time.monotonic())
    figures = told[-1] if told else {}
    if failure:
        show(f"{name} is not complete: {failure}")
        figures = {**figures, "failure": failure}
    return figures


def main(arguments=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--checks", nargs="+", default=None, help="some of gpu_checks.CHECKS")
    parser.add_argument("--simulate", action="store_true", help="run the checks without a device")
    parser.add_argument("--json", type=Path, default=None)
    parser.add_argument("--part", choices=PARTS, help=argparse.SUPPRESS)
    args = parser.parse_args(arguments)
    if args.part:
        device = load_simulated_device() if args.simulate else nullcontext()
        with device:
            run_part(args.part, args.checks)
        return 0
    if args.simulate:
        find_obstacle()
        rows = run_all_checks(choose_checks(args.checks), ["--simulate"], time.monotonic() + 3600)
        return int(not all(row["is_right"] for row in rows))
    device = describe_device()
    parts = ["checks"] if args.checks else args.parts
    return run_on_device(device, parts, choose_checks(args.checks), args.json)


def choose_checks(names):
    """Return the names of the checks that are asked for; end the program if there is none such."""
    from gpu_checks import CHECKS

    unknown = sorted({*(names or ())} - {*CHECKS})
    if unknown:
        raise SystemExit(f"--checks must be some of {list(CHECKS)}, got {unknown}")
    return names or list(CHECKS)


def run_on_device(device, parts, checks, path):
    """Run parts on a device and save what was found; return the exit status."""
    from harness import RESULTS, save

    path = path or RESULTS / f"gpu_{device['name'].lower().replace(' ', '_')}.json"
    show(", ".join(f"{name}: {value}" for name, value in device.items()))
    last = time.monotonic() + MOST_SECONDS
    record = {"device": device}
    is_right = True
    for part in parts:
        deadline = min(last, time.monotonic() + PARTS[part])
        if part == "checks":
            rows = run_all_checks(checks, [], deadline)
            record[part] = rows
            is_right = all(row["is_right"] for row in rows)
        else:
            record[part] = run_measure(part, deadline)
            is_right = is_right and "failure" not in record[part]
        # what was found so far, should the next part be interrupted
        save(record, path)
    show(f"\nsaved in {path}")
    return int(not is_right)


if __name__ == "__main__":
    sys.exit(main())
