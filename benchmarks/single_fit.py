"""The time of one fit by sktune, by skorch and by a hand-written PyTorch loop.

    python benchmarks/single_fit.py                # a few minutes
    python benchmarks/single_fit.py --threads 1
    python benchmarks/single_fit.py --images       # convolution nets, on images at random

Every peer trains the same network (one hidden layer of 128, AdamW in torch's fused implementation)
on the same float32 rows, and the peers take turns within each repetition. The cost of an epoch is
the slope between a short and a long fit, so that the constant cost of a fit does not count. The
whole time of the long fit is shown beside it.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median

import numpy as np
import skorch
import torch
from harness import RESULTS, save
from sklearn.datasets import load_digits
from torch import nn

import sktune

HIDDEN = 128
LR = 1e-3
TEST_ROWS = 360


@dataclass(frozen=True)
class Workload:
    """What the peers train; `make_rows` takes the number of rows."""

    what: str
    n_rows: int
    batch_size: int
    make_rows: Callable
    make_module: Callable
    # What makes the same network as a module of sktune's.
    options: dict


def make_digits(n_rows):
    """Return the digits, repeated up to `n_rows` rows."""
    X, y = load_digits(return_X_y=True)
    rows = np.arange(n_rows) % len(X)
    return (X[rows] / 16).astype(np.float32), y[rows]


def make_images(n_rows):
    """Return images at random."""
    X = np.random.default_rng(0).normal(size=(n_rows, 1, 28, 28)).astype(np.float32)
    return X, np.arange(n_rows) % 10


def make_mlp(dropout):
    layers = [nn.Linear(64, HIDDEN), nn.ReLU(), nn.Dropout(dropout), nn.Linear(HIDDEN, 10)]
    return nn.Sequential(
        *(layer for layer in layers if dropout or not isinstance(layer, nn.Dropout))
    )


class Convolutions(nn.Sequential):
    """Two convolutions of 5 x 5; with `n_groups`, a normalisation that no kernel compiles."""

    def __init__(self, channels, n_groups=None):
        layers = []
        for before, after in ((1, channels[0]), channels):
            layers += [nn.Conv2d(before, after, 5), nn.ReLU(), nn.MaxPool2d(2)]
            if n_groups:
                layers.append(nn.GroupNorm(n_groups, after))
        super().__init__(*layers, nn.Flatten(), nn.Linear(16 * channels[1], 10))


def describe_mlp(n_rows, batch_size, dropout):
    return Workload(
        f"{n_rows} rows, batch {batch_size}, dropout {dropout:g}",
        n_rows,
        batch_size,
        make_digits,
        partial(make_mlp, dropout),
        {"module__hidden": HIDDEN, "module__dropout": dropout},
    )


def describe_images(channels, n_groups=None):
    make = partial(Convolutions, channels, n_groups)
    norm = ", group norm" if n_groups else ""
    what = f"512 images of 28 x 28, {channels[0]} and {channels[1]} channels{norm}"
    return Workload(what, 512, 64, make_images, make, {"module": make()})


TABLES = [
    describe_mlp(1797, 64, 0.0),
    describe_mlp(1797, 64, 0.2),
    describe_mlp(10_000, 128, 0.0),
    describe_mlp(10_000, 128, 0.2),
]
IMAGES = [describe_images((6, 16)), describe_images((16, 32)), describe_images((16, 32), 4)]


class Loop:
    """The loop that one would write by hand, with all data in memory."""

    def __init__(self, workload, epochs):
        self.workload, self.epochs = workload, epochs

    def fit(self, X, y):
        X, y = torch.from_numpy(X), torch.from_numpy(y)
        self.module = self.workload.make_module()
        criterion = nn.CrossEntropyLoss()
        optimizer = torch.optim.AdamW(self.module.parameters(), lr=LR, fused=True)
        self.module.train()
        for _ in range(self.epochs):
            for batch in torch.randperm(len(X)).split(self.workload.batch_size):
                optimizer.zero_grad(set_to_none=True)
                criterion(self.module(X[batch]), y[batch]).backward()
                optimizer.step()
        return self

    def predict(self, X):
        self.module.eval()
        with torch.inference_mode():
            return self.module(torch.from_numpy(X)).argmax(1).numpy()


def make_sktune(workload, epochs):
    return sktune.NeuralNetClassifier(
        **workload.options,
        lr=LR,
        batch_size=workload.batch_size,
        max_epochs=epochs,
        device="cpu",
    )


def make_skorch(workload, epochs):
    """Return skorch's net in its fastest setting.

    It has no validation split and no callbacks, and predicts all rows at once.
    """
    return skorch.NeuralNetClassifier(
        workload.make_module(),
        criterion=nn.CrossEntropyLoss,
        optimizer=torch.optim.AdamW,
        optimizer__fused=True,
        lr=LR,
        batch_size=workload.batch_size,
        max_epochs=epochs,
        iterator_train__shuffle=True,
        iterator_valid__batch_size=-1,
        train_split=None,
        callbacks="disable",
        verbose=0,
    )


PEERS = {"loop": Loop, "sktune": make_sktune, "skorch": make_skorch}


def timed(call, *args):
    begin = time.perf_counter()
    call(*args)
    return time.perf_counter() - begin


def interleave(tasks, repetitions):
    """Run each task once unmeasured, then in turns; return the seconds of each, a list per task."""
    for task in tasks.values():
        task()
    seconds = {name: [] for name in tasks}
    names = list(tasks)
    for repetition in range(repetitions):
        # The order alternates, so that no task always follows the same one.
        for name in names if repetition % 2 else reversed(names):
            seconds[name].append(tasks[name]())
    return seconds


def measure_fit(workload, n_rows, epochs, repetitions):
    """Return rows of the table: an epoch, and a whole fit, of each peer."""
    X, y = workload.make_rows(n_rows)
    short, long = epochs

    def fit_twice(make):
        seconds = [timed(make(workload, n).fit, X, y) for n in (short, long)]
        return (seconds[1] - seconds[0]) / (long - short), seconds[1]

    seconds = interleave(
        {name: lambda make=make: fit_twice(make) for name, make in PEERS.items()}, repetitions
    )
    for i, part in enumerate(("epoch", f"fit of {long} epochs")):
        yield from summarise(
            f"{part}: {workload.what}",
            {name: [s[i] for s in pairs] for name, pairs in seconds.items()},
        )


def measure_predict(epochs, repetitions):
    """Return rows of the table: predicting the classes of `TEST_ROWS` rows."""
    X, y = make_digits(1797)
    fitted = {name: make(TABLES[0], epochs[0]).fit(X, y) for name, make in PEERS.items()}
    tasks = {
        name: lambda net=net: timed(net.predict, X[:TEST_ROWS]) for name, net in fitted.items()
    }
    yield from summarise(f"predict: {TEST_ROWS} rows", interleave(tasks, 20 * repetitions))


def summarise(what, seconds):
    for name, values in seconds.items():
        ratio = median(own / base for own, base in zip(values, seconds["loop"], strict=True))
        yield {"what": what, "peer": name, "ms": 1e3 * median(values), "ratio_to_loop": ratio}


def print_table(rows):
    width = max(len(row["what"]) for row in rows) + 2
    print(f"{'':{width}}{'peer':8}{'ms':>10}{'/ loop':>9}")
    for row in rows:
        what = row["what"] if row["peer"] == "loop" else ""
        print(f"{what:{width}}{row['peer']:8}{row['ms']:10.3f}{row['ratio_to_loop']:9.2f}")


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", action="store_true", help="train convolution nets")
    parser.add_argument("--json", type=Path, help="default: a file of its own in results/")
    parser.add_argument(
        "--threads", type=int, help="torch's threads, of every peer; default: torch's own choice"
    )
    parser.add_argument("--repetitions", type=int, default=15)
    parser.add_argument(
        "--quick", action="store_true", help="see that it runs; the figures mean nothing"
    )
    args = parser.parse_args(argv)
    if args.threads:
        torch.set_num_threads(args.threads)
    long = 4 if args.images else 12
    epochs, repetitions = ((1, 2), 1) if args.quick else ((2, long), args.repetitions)
    rows = []
    for workload in IMAGES if args.images else TABLES:
        n_rows = min(workload.n_rows, 2 * workload.batch_size) if args.quick else workload.n_rows
        rows += measure_fit(workload, n_rows, epochs, repetitions)
    if not args.images:
        rows += measure_predict(epochs, repetitions)
    name = "single_fit_images.json" if args.images else "single_fit.json"
    save({"rows": rows}, args.json or RESULTS / name)
    print_table(rows)


if __name__ == "__main__":
    main()
