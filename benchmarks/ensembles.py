"""What the ensembles of a search gain on held-out rows, beside its refitted best model.

    python benchmarks/ensembles.py                # a few minutes
    python benchmarks/ensembles.py --seeds 1

On each data set, a random search over learning rate, weight decay, dropout and width chooses by
cross-validated log loss on two thirds of the rows. Four models then predict the other third: the
best one fitted to all rows searched on, the average of the best candidate's models of the folds,
the greedy ensemble of the models of the folds, and the greedy ensemble refitted. The candidates and
splits of one seed are the same for all of them. A figure is the mean over the seeds, each of which
has a division of the rows, candidates and initial weights of its own.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
from harness import RESULTS, save
from scipy.stats import loguniform
from sklearn.datasets import (
    load_breast_cancer,
    load_digits,
    load_iris,
    load_wine,
    make_classification,
    make_moons,
)
from sklearn.metrics import log_loss
from sklearn.model_selection import StratifiedKFold, train_test_split
from sklearn.preprocessing import StandardScaler

from sktune import NeuralNetClassifier, RandomizedSearchCV

WAYS = ("best", "folds", "greedy", "refitted")
SPACE = {
    "lr": loguniform(1e-3, 1e-1),
    "optimizer__weight_decay": loguniform(1e-6, 1e0),
    "module__dropout": [0.0, 0.2, 0.5],
    "module__hidden": [(16,), (64,)],
}


def make_synthetic():
    """Return rows of four classes, a tenth of them with a label drawn at random."""
    options = {"n_informative": 8, "n_classes": 4, "flip_y": 0.1, "random_state": 0}
    return make_classification(1500, n_features=20, **options)


DATA_SETS = {
    "iris": lambda: load_iris(return_X_y=True),
    "wine": lambda: load_wine(return_X_y=True),
    "breast cancer": lambda: load_breast_cancer(return_X_y=True),
    "digits": lambda: load_digits(return_X_y=True),
    "synthetic": make_synthetic,
    "moons": lambda: make_moons(1000, noise=0.3, random_state=0),
}


def split_rows(name, seed):
    """Return standardized rows and targets to search on, and others to be held out."""
    X, y = DATA_SETS[name]()
    X, X_test, y, y_test = train_test_split(X, y, test_size=1 / 3, stratify=y, random_state=seed)
    scaler = StandardScaler().fit(X)
    X = scaler.transform(X).astype(np.float32)
    X_test = scaler.transform(X_test).astype(np.float32)
    return X, y, X_test, y_test


def search_once(name, seed, n_iter, epochs):
    """Return the held-out log loss and error of each way, and the seconds of each search."""
    X, y, X_test, y_test = split_rows(name, seed)
    net = NeuralNetClassifier(max_epochs=epochs, random_state=seed)
    cv = StratifiedKFold(5, shuffle=True, random_state=seed)
    settings = {"n_iter": n_iter, "cv": cv, "scoring": "neg_log_loss", "random_state": seed}
    options = {
        "folds": {"ensemble": "folds"},
        "greedy": {"ensemble": "greedy"},
        "refitted": {"ensemble": "greedy", "ensemble_refit": True},
    }
    found = {}
    for way, of_way in options.items():
        start = time.perf_counter()
        search = RandomizedSearchCV(net, SPACE, **settings, **of_way).fit(X, y)
        seconds = time.perf_counter() - start
        found[way] = {**evaluate(search, X_test, y_test), "seconds": seconds}
    # the same in each of the searches
    found["best"] = evaluate(search.best_estimator_, X_test, y_test)
    return found


def evaluate(model, X, y):
    """Return log loss and error of a fitted model."""
    probabilities = model.predict_proba(X)
    error = np.mean(model.classes_[probabilities.argmax(axis=1)] != y)
    return {"log_loss": float(log_loss(y, probabilities)), "error": float(error)}


def measure(name, seeds, n_iter, epochs):
    """Return the means over the seeds of one data set."""
    runs = [search_once(name, seed, n_iter, epochs) for seed in range(seeds)]
    row = {"data": name}
    for way in WAYS:
        for figure in runs[0][way]:
            row[f"{way}_{figure}"] = float(np.mean([run[way][figure] for run in runs]))
    return row


def print_table(rows):
    """Print the figures, errors in percent."""
    print(f"{'held-out log loss / error %':28}" + "".join(f"{way:>18}" for way in WAYS))
    for row in rows:
        cells = [f"{row[f'{way}_log_loss']:.4f} / {row[f'{way}_error']:.1%}" for way in WAYS]
        print(f"{row['data']:28}" + "".join(f"{cell:>18}" for cell in cells))


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, default=RESULTS / "ensembles.json")
    parser.add_argument("--candidates", type=int, default=20)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument(
        "--quick", action="store_true", help="see that it runs; the figures mean nothing"
    )
    args = parser.parse_args(argv)
    n_iter, epochs, seeds = args.candidates, args.epochs, args.seeds
    if args.quick:
        n_iter = 2
        epochs = seeds = 1
    rows = [measure(name, seeds, n_iter, epochs) for name in DATA_SETS]
    settings = {"candidates": n_iter, "epochs": epochs, "seeds": seeds, "folds": 5}
    save({"settings": settings, "rows": rows}, args.json)
    print_table(rows)


if __name__ == "__main__":
    main()
