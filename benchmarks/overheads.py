"""Costs that do not grow with the training: imports, a minimal search, the work around the fits.

    python benchmarks/overheads.py
    python benchmarks/overheads.py --large      # also a search on 1,000,000 rows

Import: ``import sktune`` and ``import skorch`` in fresh interpreters, in turn.

Minimal search: one candidate, 2 folds, 5 epochs on the digits, by sktune and by scikit-learn with
skorch, in turn in one process.

Around the training: the yardstick of search_speed.py (60 candidates x 5 folds) with 1 epoch and one
thread. Timers around functions of the library (timers.py) measure it, and each figure is divided by
the number of fits:

- collecting: all of ``Call._collect``: reading the tasks, checking rows, initialising nets;
- planning: all of ``Call._plan``;
- replay and scoring: all of ``Job.run``, less the time in ``accuracy_score``. It contains
  scikit-learn's ``_fit_and_score``, the adoption of the trained weights, and the predictions. The
  forward pass of the predictions is not in it, since it belongs to the training of the group.

Large: 1,000,000 x 50 float32 rows, 4 candidates x 3 folds x 1 epoch at batch 1024, by sktune and by
a loop written by hand with one thread and with all of them. Each runs in a process of its own that
has first run a small search. The memory is the peak of the process, less what it held before the
data were made, divided by the bytes of the data (X and y). The data are counted: 1 would be the
data alone.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from dataclasses import replace
from pathlib import Path
from statistics import median

import numpy as np
import torch
from harness import RESULTS, held_bytes, peak_bytes, run_fresh, save
from search_speed import RUNNERS, YARDSTICKS, Yardstick
from timers import Timer, running

_CALLS = "sktune.bridge.calls"
TIMERS = [
    Timer("collecting", f"{_CALLS}:Call._collect", "whole"),
    Timer("planning", f"{_CALLS}:Call._plan", "whole"),
    Timer("replay and scoring, but for the metric", f"{_CALLS}:Job.run"),
    Timer("the metric", "sklearn.metrics:accuracy_score", "whole"),
]
IMPORT = "import time; began = time.perf_counter(); import {}; print(time.perf_counter() - began)"
ONE_THREAD = argparse.Namespace(device="cpu", n_jobs=1, profile=False)
LARGE_PEERS = {
    "sktune": ("sktune", None),
    "loop, 1 thread": ("loop", 1),
    "loop, all threads": ("loop", None),
}


def make_large(n_rows):
    """Return X and y, without much more memory than they need themselves."""
    X = np.random.default_rng(0).standard_normal((n_rows, 50), dtype=np.float32)
    return X, (X[:, :5].sum(1) > 0).astype(np.int64)


def large_yardstick(n_rows):
    return Yardstick(
        lambda: make_large(n_rows),
        (128,),
        [1024],
        candidates=4,
        folds=3,
        epochs=1,
        peers=(),
        wanted={},
    )


def measure_imports(repeats):
    """Return the median milliseconds of each import in fresh interpreters, and their ratio."""
    seconds = {name: [] for name in ("sktune", "skorch")}
    for _ in range(repeats):
        for name in seconds:
            seconds[name].append(run_fresh(["-c", IMPORT.format(name)], what=f"import {name}"))
    return side_by_side(seconds)


def measure_least_search(repeats):
    digits = YARDSTICKS["digits"]
    yardstick = replace(digits, candidates=1, folds=2, epochs=5)
    X, y = digits.load()
    args = argparse.Namespace(device="cpu", n_jobs=0, profile=False)
    seconds = {name: [] for name in ("sktune", "skorch")}
    for repeat in range(repeats + 1):
        for name in seconds:
            began = time.perf_counter()
            RUNNERS[name](X, y, yardstick, args)
            # The first repeat is to warm up.
            if repeat:
                seconds[name].append(time.perf_counter() - began)
    return side_by_side(seconds)


def side_by_side(seconds):
    pairs = zip(seconds["sktune"], seconds["skorch"], strict=True)
    figures = {f"{name}_ms": 1e3 * median(values) for name, values in seconds.items()}
    figures["ratio"] = median(ours / theirs for ours, theirs in pairs)
    return figures


def measure_around_training(n_candidates, repeats):
    """Return the milliseconds per fit of each part around the training, medians of the repeats."""
    yardstick = replace(YARDSTICKS["digits"], candidates=n_candidates, epochs=1)
    X, y = yardstick.load()
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    runs = []
    for _ in range(repeats + 1):
        with running(TIMERS) as watch:
            RUNNERS["sktune"](X, y, yardstick, ONE_THREAD)
        runs.append(watch.seconds)
    torch.set_num_threads(n_threads)
    parts = dict.fromkeys(timer.part for timer in TIMERS)
    return {
        part: 1e3 * median(seconds[part] for seconds in runs[1:]) / yardstick.n_fits
        for part in parts
    }


def measure_large(n_rows):
    """Return the seconds of each peer, and its memory as a multiple of the data's."""
    figures = {}
    for name, (peer, threads) in LARGE_PEERS.items():
        command = [__file__, "--peer", peer, "--rows", n_rows]
        figures[name] = run_fresh(command, threads or os.cpu_count(), what=name)
        print(f"  {name}: {figures[name]['seconds']:.1f} s", flush=True)
    return figures


def run_large(peer, n_rows):
    """Run a peer in this process and print the figures as JSON.

    It runs on few rows first, to warm up.
    """
    args = argparse.Namespace(device="cpu", n_jobs=0, profile=False)
    runner = RUNNERS[peer]
    few = large_yardstick(3000)
    runner(*few.load(), few, args)
    yardstick = large_yardstick(n_rows)
    before = held_bytes()
    X, y = yardstick.load()
    began = time.perf_counter()
    figures = runner(X, y, yardstick, args)
    seconds = time.perf_counter() - began
    report = figures.pop("report", None)
    if report:
        figures["fused"] = sum(group["lanes"] for group in report.groups)
    n_bytes = X.nbytes + y.nbytes
    figures["seconds"] = seconds
    figures["memory"] = (peak_bytes() - before) / n_bytes
    figures["data_mib"] = n_bytes / 2**20
    print(json.dumps(figures))


def show(found):
    titles = {"import": "import", "least_search": "1 candidate x 2 folds x 5 epochs"}
    print(f"\n{'ms':<42}{'sktune':>10}{'skorch':>10}{'ratio':>8}")
    for name, title in titles.items():
        row = found[name]
        print(f"{title:<42}{row['sktune_ms']:>10.1f}{row['skorch_ms']:>10.1f}{row['ratio']:>8.2f}")
    print("\nms per fit, around its training")
    for part, ms in found["around_training"].items():
        print(f"{part:<42}{ms:>10.3f}")
    if "large" in found:
        show_large(found["large"])


def show_large(figures):
    ours = figures["sktune"]
    title = "4 candidates x 3 folds x 1 epoch"
    print(f"\n{title:<42}{'seconds':>10}{'ratio':>10}{'memory / data':>16}")
    for name, row in figures.items():
        ratio = row["seconds"] / ours["seconds"]
        print(f"{name:<42}{row['seconds']:>10.2f}{ratio:>10.2f}{row['memory']:>16.2f}")
    print(
        f"data: {ours['data_mib']:.0f} MiB; "
        f"of sktune's 12 fits {ours['fused']} were trained together"
    )


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, default=RESULTS / "overheads.json")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--large", action="store_true", help="also search on many rows")
    parser.add_argument("--rows", type=int, default=1_000_000, help="of the large search")
    parser.add_argument(
        "--quick", action="store_true", help="see that it runs; the figures mean nothing"
    )
    parser.add_argument("--peer", choices=["sktune", "loop"], help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.peer:
        run_large(args.peer, args.rows)
        return
    repeats = 1 if args.quick else args.repeats
    n_candidates = 2 if args.quick else YARDSTICKS["digits"].candidates
    found = {
        "import": measure_imports(repeats),
        "least_search": measure_least_search(repeats),
        "around_training": measure_around_training(n_candidates, repeats),
    }
    if args.large:
        found["large"] = measure_large(args.rows)
    show(found)
    settings = {
        "repeats": repeats,
        "candidates": n_candidates,
        "rows": args.rows if args.large else None,
    }
    save({"settings": settings, **found}, args.json)


if __name__ == "__main__":
    main()
