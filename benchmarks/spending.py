"""What a search over the number of epochs costs: epochs and seconds, at equal scores.

    python benchmarks/spending.py

A grid over ``max_epochs`` = 5, 10, 20, 40 and four learning rates, 5 folds, on the digits: 75
epochs for each rate and fold if each fit is trained by itself, and 40 if they are one training.

- sktune: ``sktune.GridSearchCV``;
- apart: the same, a search for each number of epochs;
- resumed: the same search once more, from its ``cache``;
- skorch: ``sklearn.model_selection.GridSearchCV`` with skorch's net, one process for each core.

The first two have to give equal scores, or the benchmark fails.

Then successive halving over 27 learning rates and dropout rates with up to 27 epochs:

- halving: ``sktune.HalvingGridSearchCV``, whose survivors go on from where they stand;
- hyperband: ``sktune.HyperbandSearchCV`` with candidates drawn from the same ranges;
- grid: ``sktune.GridSearchCV`` over all 27 candidates, with 27 epochs each;
- racing: the same with ``racing=True``, which has to give equal scores to what it trains;
- skorch: ``sklearn.model_selection.HalvingGridSearchCV`` with skorch's net, one process for each
  core, which trains each rung from the beginning.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter

import numpy as np
import skorch
import torch
from harness import RESULTS, save
from scipy.stats import loguniform
from sklearn.datasets import load_digits
from sklearn.experimental import enable_halving_search_cv  # noqa: F401
from sklearn.model_selection import GridSearchCV as PlainGridSearchCV
from sklearn.model_selection import HalvingGridSearchCV as PlainHalvingGridSearchCV

from sktune import (
    MLP,
    GridSearchCV,
    HalvingGridSearchCV,
    HyperbandSearchCV,
    NeuralNetClassifier,
)

RATES = [3e-4, 1e-3, 3e-3, 1e-2]


@dataclass(frozen=True)
class Task:
    """What is searched: rows, numbers of epochs, learning rates and folds."""

    n_rows: int
    epochs: tuple
    n_folds: int

    def load(self):
        X, y = load_digits(return_X_y=True)
        return (X[: self.n_rows] / 16).astype(np.float32), y[: self.n_rows]

    @property
    def grid(self):
        return {"max_epochs": list(self.epochs), "lr": RATES}


def make_net():
    return NeuralNetClassifier(module__hidden=(128,), batch_size=64, random_state=0)


def search_together(task, cache=None):
    """Return the epochs that were trained, and the scores of each number of epochs."""
    search = GridSearchCV(make_net(), task.grid, cv=task.n_folds, refit=False, cache=cache)
    search.fit(*task.load())
    scores = search.cv_results_["mean_test_score"].reshape(len(RATES), -1).T
    by_lr = [params["lr"] for params in search.cv_results_["params"]]
    assert by_lr == [lr for lr in RATES for _ in task.epochs]
    return search.fusion_.sharing.n_trained_epochs, scores


def search_apart(task):
    n_epochs = 0
    scores = []
    for n in task.epochs:
        grid = {"max_epochs": [n], "lr": RATES}
        search = GridSearchCV(make_net(), grid, cv=task.n_folds, refit=False).fit(*task.load())
        n_epochs += search.fusion_.sharing.n_trained_epochs
        scores.append(search.cv_results_["mean_test_score"])
    return n_epochs, np.array(scores)


def make_skorch_net():
    return skorch.NeuralNetClassifier(
        MLP,
        module__n_features=64,
        module__n_outputs=10,
        module__hidden=(128,),
        criterion=torch.nn.CrossEntropyLoss,
        optimizer=torch.optim.AdamW,
        batch_size=64,
        iterator_train__shuffle=True,
        train_split=None,
        verbose=0,
    )


def search_by_skorch(task):
    search = PlainGridSearchCV(
        make_skorch_net(), task.grid, cv=task.n_folds, refit=False, n_jobs=-1
    )
    search.fit(*task.load())
    scores = search.cv_results_["mean_test_score"].reshape(len(RATES), -1).T
    return sum(task.epochs) * len(RATES) * task.n_folds, scores


def halve(task, kind):
    """Return the epochs that were trained, and the scores of the last rung."""
    most = max(task.epochs)
    grid = {"lr": np.geomspace(1e-4, 1e-1, 9).tolist(), "module__dropout": [0.0, 0.2, 0.4]}
    shared = {"cv": task.n_folds, "refit": False}
    net = make_net().set_params(max_epochs=most)
    if kind == "halving":
        search = HalvingGridSearchCV(net, grid, **shared)
    elif kind in ("grid", "racing"):
        search = GridSearchCV(net, grid, racing=kind == "racing", **shared)
    elif kind == "hyperband":
        space = {"lr": loguniform(1e-4, 1e-1), "module__dropout": [0.0, 0.2, 0.4]}
        search = HyperbandSearchCV(net, space, random_state=0, **shared)
    else:
        options = {"resource": "max_epochs", "max_resources": most, "return_train_score": False}
        search = PlainHalvingGridSearchCV(make_skorch_net(), grid, n_jobs=-1, **options, **shared)
    search.fit(*task.load())
    results = search.cv_results_
    n_resources = np.asarray(results.get("n_resources", [most] * len(results["params"])))
    scores = results["mean_test_score"][n_resources == n_resources.max()]
    if kind == "skorch":
        return int(n_resources.sum()) * task.n_folds, scores
    return search.fusion_.sharing.n_trained_epochs, scores


def measure(name, run: Callable, n_repeats):
    """Return a row of the record, and the scores."""
    seconds = []
    for _ in range(n_repeats):
        began = perf_counter()
        n_epochs, scores = run()
        seconds.append(perf_counter() - began)
    row = {"peer": name, "epochs": n_epochs, "seconds": median(seconds), "all_seconds": seconds}
    # candidates that have left a race have no score
    best = float(np.nanmax(scores))
    row["best_score"] = best
    print(f"{name:<10} {n_epochs:>6} epochs {row['seconds']:>8.2f} s   best {best:.4f}")
    return row, scores


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a small task, for a test")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path, default=RESULTS / "spending.json")
    options = parser.parse_args(arguments)
    task = Task(200, (1, 2, 4), 2) if options.quick else Task(1797, (5, 10, 20, 40), 5)
    repeats = 1 if options.quick else options.repeats
    # what is compiled at the first fit is not measured
    search_together(Task(100, (1,), 2))
    together, scores = measure("sktune", partial(search_together, task), repeats)
    apart, expected = measure("apart", partial(search_apart, task), repeats)
    np.testing.assert_array_equal(scores, expected)
    with TemporaryDirectory() as folder:
        search_together(task, folder)
        resumed, again = measure("resumed", partial(search_together, task, folder), repeats)
    np.testing.assert_array_equal(scores, again)
    skorchs, _ = measure("skorch", partial(search_by_skorch, task), 1)
    record = {"task": vars(task), "rows": [together, apart, resumed, skorchs]}
    task = Task(200, (3,), 2) if options.quick else Task(1797, (27,), 5)
    rows = []
    found = {}
    for kind in ("halving", "hyperband", "grid", "racing", "skorch"):
        n = 1 if kind == "skorch" else repeats
        row, found[kind] = measure(kind, partial(halve, task, kind), n)
        rows.append(row)
    is_complete = np.isfinite(found["racing"])
    np.testing.assert_array_equal(found["racing"][is_complete], found["grid"][is_complete])
    halved = {"what": "halving over max_epochs", "task": vars(task), "rows": rows}
    save({"what": "a grid over max_epochs", **record, "halving": halved}, options.json)


if __name__ == "__main__":
    main()
