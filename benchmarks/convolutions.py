"""Up to which size are compiled convolutions faster than torch's, on one core?

    python benchmarks/convolutions.py            # some minutes
    python benchmarks/convolutions.py --all      # compiled beyond the limit, too

Nets with two or three convolutions are trained on random images: 8 learning rates together by
compiled steps, the same by stacked ones (torch's operations, under vmap or one net after the other,
as the engine chooses), and a loop of torch written by hand, one net after the other. All have one
thread. The figures are milliseconds of a step of one net, medians over the rounds; ``numbers`` are
those of a batch in the largest image, by which compiled steps are limited.
"""

from __future__ import annotations

import argparse
import math
import time
from pathlib import Path
from statistics import median

import joblib
import numpy as np
import torch
from harness import RESULTS, save
from torch import nn

import sktune
from sktune.engine.compiled import program

N_BATCHES = 4
RATES = np.geomspace(1e-5, 1e-4, 8).tolist()


class Net(nn.Module):
    """Convolutions of 3 x 3, or of 5 in a sequence, each with ReLU, and pooled by 2."""

    def __init__(self, shape, channels, padding=1, pooled=2):
        super().__init__()
        is_image = len(shape) == 3
        convolution, pool = (nn.Conv2d, nn.MaxPool2d) if is_image else (nn.Conv1d, nn.MaxPool1d)
        layers = []
        for n, (before, after) in enumerate(zip((shape[0], *channels), channels, strict=False)):
            size = 3 if is_image else 5
            layers += [convolution(before, after, size, padding=padding), nn.ReLU()]
            if n < pooled:
                layers.append(pool(2))
        self.layers = nn.Sequential(*layers, nn.Flatten())
        with torch.no_grad():
            width = self.layers(torch.zeros(1, *shape)).shape[1]
        self.output = nn.Linear(width, 10)

    def forward(self, X):
        return self.output(self.layers(X))


# the shape of an image, channels, rows of a batch
NETS = {
    "8 x 8, 8 and 16 channels": ((1, 8, 8), (8, 16), 64),
    "8 x 8, 32 and 64 channels": ((1, 8, 8), (32, 64), 64),
    "28 x 28, 6 and 16 channels": ((1, 28, 28), (6, 16), 64),
    "28 x 28, 16 and 32 channels": ((1, 28, 28), (16, 32), 64),
    "28 x 28, 16 and 32 channels, 128 rows": ((1, 28, 28), (16, 32), 128),
    "28 x 28, 32 and 64 channels": ((1, 28, 28), (32, 64), 64),
    "3 x 32 x 32, 32, 64 and 64 channels": ((3, 32, 32), (32, 64, 64), 64),
    "sequence of 128, 16 and 32 channels": ((1, 128), (16, 32), 64),
}


def count_numbers(shape, channels, n_rows):
    return channels[0] * math.prod(shape[1:]) * n_rows


def make_rows(shape, n_rows):
    rng = np.random.default_rng(0)
    n = n_rows * N_BATCHES
    X = rng.normal(size=(n, *shape)).astype(np.float32)
    return X, np.arange(n) % 10


def time_search(name, *, compiled):
    """Return milliseconds of a step of one net in a group, and how steps were taken."""
    shape, channels, n_rows = NETS[name]
    X, y = make_rows(shape, n_rows)
    net = sktune.NeuralNetClassifier(
        Net,
        module__shape=shape,
        module__channels=channels,
        max_epochs=1,
        batch_size=n_rows,
        random_state=0,
    )
    rows = np.arange(len(X))
    program.enabled = compiled
    with joblib.parallel_config("sktune", n_jobs=1):
        search = sktune.GridSearchCV(net, {"lr": RATES}, cv=[(rows, rows[:20])], refit=False)
        search.fit(X, y)
    program.enabled = True
    groups = search.fusion_.groups
    seconds = sum(group["seconds"] for group in groups)
    return seconds / len(RATES) / N_BATCHES * 1e3, groups[0]["steps"]


def time_loop(name):
    """Return milliseconds of a step of a loop of torch, written by hand."""
    shape, channels, n_rows = NETS[name]
    X, y = map(torch.as_tensor, make_rows(shape, n_rows))
    net = Net(shape, channels)
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-4, fused=True)
    criterion = nn.CrossEntropyLoss()
    began = time.perf_counter()
    for n in range(N_BATCHES):
        optimizer.zero_grad()
        batch = slice(n * n_rows, (n + 1) * n_rows)
        criterion(net(X[batch]), y[batch]).backward()
        optimizer.step()
    return (time.perf_counter() - began) / N_BATCHES * 1e3


def measure(name, n_rounds):
    """Return a row of the table."""
    ways = {
        "compiled": lambda: time_search(name, compiled=True)[0],
        "stacked": lambda: time_search(name, compiled=False)[0],
        "loop": lambda: time_loop(name),
    }
    found = {way: [] for way in ways}
    steps = time_search(name, compiled=True)[1]
    for _ in range(n_rounds):
        for way, run in ways.items():
            found[way].append(run())
    figures = {way: median(times) for way, times in found.items()}
    return {"net": name, "numbers": count_numbers(*NETS[name]), "steps": steps, **figures}


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--nets", nargs="+", choices=list(NETS), default=list(NETS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--all", action="store_true", help="compile beyond the limit, too")
    parser.add_argument("--json", type=Path, default=RESULTS / "convolutions.json")
    args = parser.parse_args(arguments)
    torch.set_num_threads(1)
    before = program._LARGEST_IMAGES
    if args.all:
        program._LARGEST_IMAGES = math.inf
    try:
        rows = []
        for name in args.nets:
            rows.append(measure(name, args.rounds))
            row = rows[-1]
            times = "".join(f"{way} {row[way]:8.2f}  " for way in ("compiled", "stacked", "loop"))
            print(f"{name:40}{row['numbers']:10,}  {times}{row['steps']}", flush=True)
    finally:
        program._LARGEST_IMAGES = before
    save({"nets": rows}, args.json)


if __name__ == "__main__":
    main()
