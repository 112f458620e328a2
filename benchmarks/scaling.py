"""The cost of a fit that is trained with others, and of one at a time, at several sizes.

    python benchmarks/scaling.py                          # all sweeps
    python benchmarks/scaling.py --sweeps lanes rows      # some of them
    python benchmarks/scaling.py --threads 1

Both sides are scikit-learn's GridSearchCV over the same sktune net, learning rates and folds. The
fused side runs it in ``joblib.parallel_config("sktune")``, the plain side with ``n_jobs=1``: one
fit after the other. The data are generated and have the shape of the digits (64 numbers, 10
classes, float32).

A lane is a fit. `rows` is the number of rows that each fit trains on; a quarter as many are scored.
One factor varies, the others stay at their defaults: 20 lanes (10 learning rates x 2 folds),
batches of 64, one hidden layer of 128, 1,500 rows, 3 epochs. The convolution net has images of
8 x 8.

The time is that of the whole search without a refit, divided by fits and epochs. The two sides take
turns. A ratio is the median of each turn's ratio, above 1 where fused is faster. Where there are
more than 8 lanes, one at a time is measured on 8 of them, and its cost per fit is taken to be that
of all. Then the constant cost of a search, some milliseconds, is shared by 8 fits only. The table
says on how many fits it was measured.

`how` tells whether the fused side did train the fits together: ``fused``, ``alone`` (one at a time,
for the reasons below the table) or ``mixed``.

The exit status is 1 where training together is slower than one at a time by more than 5 %.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median

import joblib
import numpy as np
import torch
from harness import RESULTS, save
from sklearn.datasets import make_classification
from sklearn.model_selection import GridSearchCV, ShuffleSplit
from torch import nn

import sktune
from sktune.engine.report import FusionReport

LEAST_RATIO = 0.95
MOST_PLAIN_FITS = 8


@dataclass(frozen=True)
class Case:
    lanes: int = 20
    batch_size: int = 64
    width: int = 128
    depth: int = 1
    rows: int = 1500
    epochs: int = 3
    net: str = "MLP"

    @property
    def folds(self):
        return 2 if self.lanes > 1 else 1


# The factor that varies, and the cases.
SWEEPS = {
    "lanes": ("lanes", [Case(lanes=n) for n in (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)]),
    "batch size": ("batch_size", [Case(batch_size=n) for n in (16, 64, 256, 1024)]),
    "width": ("width", [Case(width=n) for n in (32, 128, 512, 1024)]),
    "depth": ("depth", [Case(depth=n) for n in (1, 2, 4)]),
    "rows": ("rows", [Case(rows=n) for n in (500, 5_000, 20_000, 100_000)]),
    "lanes, convolution": ("lanes", [Case(lanes=n, net="ConvNet") for n in (4, 20)]),
}


class ConvNet(nn.Module):
    def __init__(self, n_outputs=10):
        super().__init__()
        self.layers = nn.Sequential(
            *(nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Flatten(), nn.Linear(32 * 2 * 2, n_outputs)),
        )

    def forward(self, X):
        return self.layers(X)


def make_rows(case):
    n_rows = case.rows + case.rows // 4
    X, y = make_classification(n_rows, 64, n_informative=32, n_classes=10, random_state=0)
    X = ((X - X.mean(0)) / X.std(0)).astype(np.float32)
    return (X.reshape(-1, 1, 8, 8) if case.net == "ConvNet" else X), y


def make_net(case):
    settings = {
        "batch_size": case.batch_size,
        "max_epochs": case.epochs,
        "random_state": 0,
        "device": "cpu",
    }
    if case.net == "ConvNet":
        return sktune.NeuralNetClassifier(ConvNet, **settings)
    return sktune.NeuralNetClassifier(module__hidden=(case.width,) * case.depth, **settings)


def search(case, X, y, n_jobs=None):
    """Return the seconds of a search, divided by its fits and epochs."""
    grid = {"lr": np.geomspace(1e-4, 1e-2, case.lanes // case.folds).tolist()}
    folds = ShuffleSplit(case.folds, train_size=case.rows, test_size=case.rows // 4, random_state=0)
    net = make_net(case)
    began = time.perf_counter()
    GridSearchCV(net, grid, cv=folds, refit=False, error_score="raise", n_jobs=n_jobs).fit(X, y)
    return (time.perf_counter() - began) / (case.lanes * case.epochs)


def search_fused(case, X, y):
    """Return the seconds of :func:`search`, and the report of the fusion."""
    report = FusionReport()
    with joblib.parallel_config("sktune", report=report):
        return search(case, X, y), report


def measure(case, repeats):
    """Return a row of the table.

    Both sides run once on a small part of the case, to warm up, and then take turns.
    """
    X, y = make_rows(case)
    few = replace(case, lanes=min(case.lanes, MOST_PLAIN_FITS))
    tiny = replace(case, lanes=min(case.lanes, 2), epochs=1)
    search_fused(tiny, X, y)
    search(tiny, X, y, n_jobs=1)
    fused = []
    plain = []
    for _ in range(repeats):
        seconds, report = search_fused(case, X, y)
        fused.append(seconds)
        plain.append(search(few, X, y, n_jobs=1))
    return {
        "case": asdict(case),
        "fused_ms": 1e3 * median(fused),
        "plain_ms": 1e3 * median(plain),
        "plain_fits": few.lanes,
        "ratio": median(p / f for p, f in zip(plain, fused, strict=True)),
        **tell_how(report),
    }


def tell_how(report):
    n_fused = sum(group["lanes"] for group in report.groups)
    if not n_fused:
        how = "alone"
    elif report.alone:
        how = "mixed"
    else:
        how = "fused"
    return {
        "how": how,
        "groups": len(report.groups),
        "reasons": sorted({fit["reason"] for fit in report.alone}),
    }


def measure_all(names, repeats, quick):
    """Return the rows of all sweeps. A case that several sweeps share is measured once."""
    measured = {}
    rows = []
    for name in names:
        factor, cases = SWEEPS[name]
        for case in cases:
            label = f"{name} {getattr(case, factor):,}"
            if quick:
                case = replace(
                    case, lanes=min(case.lanes, 4), rows=40, width=min(case.width, 8), epochs=1
                )
            if case not in measured:
                measured[case] = measure(case, repeats)
            rows.append({"sweep": name, "label": label, "factor": factor, **measured[case]})
            print(f"  {label}: {rows[-1]['ratio']:.2f}", flush=True)
    return rows


def show(rows, repeats):
    print(f"\nms per fit and epoch; medians of {repeats}; ratio: one at a time over fused")
    print(f"{'':<26}{'fused':>10}{'one at a time':>15}{'(fits)':>8}{'ratio':>8}  how")
    for row in rows:
        costs = f"{row['fused_ms']:>10.3f}{row['plain_ms']:>15.3f}{row['plain_fits']:>8}"
        print(f"{row['label']:<26}{costs}{row['ratio']:>8.2f}  {row['how']}")
    for row in rows:
        for reason in row["reasons"]:
            print(f"{row['label']}: {reason}")


def draw(rows, path):
    """Draw a panel for each sweep: the cost of a fit and epoch over the factor."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, NullLocator

    names = list(dict.fromkeys(row["sweep"] for row in rows))
    n_columns = min(3, len(names))
    n_lines = -(-len(names) // n_columns)
    figure = Figure(figsize=(4 * n_columns, 3 * n_lines), layout="constrained")
    panels = figure.subplots(n_lines, n_columns, squeeze=False).flat
    for name, axes in zip(names, panels, strict=False):
        own = [row for row in rows if row["sweep"] == name]
        values = [row["case"][row["factor"]] for row in own]
        axes.loglog(values, [row["plain_ms"] for row in own], "o-", label="one at a time")
        axes.loglog(values, [row["fused_ms"] for row in own], "s-", label="fused")
        axes.set_xticks(
            values, [f"{value:,}" for value in values], rotation=45 if len(values) > 5 else 0
        )
        axes.xaxis.set_minor_locator(NullLocator())
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_locator(NullLocator())
        axes.set(xlabel=name, ylabel="ms per fit and epoch")
    for axes in figure.axes[len(names) :]:
        axes.remove()
    figure.axes[0].legend()
    figure.savefig(path, dpi=120)


def find_slow(rows):
    return [f"{row['label']} ({row['ratio']:.2f})" for row in rows if row["ratio"] < LEAST_RATIO]


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sweeps", nargs="+", choices=SWEEPS, default=list(SWEEPS))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, help="torch's threads; default: torch's own choice")
    parser.add_argument(
        "--json", type=Path, default=RESULTS / "scaling.json", help="the picture goes beside it"
    )
    parser.add_argument(
        "--quick", action="store_true", help="see that it runs; the figures mean nothing"
    )
    args = parser.parse_args(argv)
    if args.threads:
        torch.set_num_threads(args.threads)
    repeats = 1 if args.quick else args.repeats
    rows = measure_all(args.sweeps, repeats, args.quick)
    save({"settings": {"repeats": repeats}, "rows": rows}, args.json)
    draw(rows, args.json.with_suffix(".png"))
    show(rows, repeats)
    slow = find_slow(rows)
    if slow and not args.quick:
        raise SystemExit(
            f"trained together, these are slower than one at a time: {', '.join(slow)}"
        )


if __name__ == "__main__":
    main()
