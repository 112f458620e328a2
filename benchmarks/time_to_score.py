"""How long a search takes until its best cross-validated score reaches a given one.

    python benchmarks/time_to_score.py                     # 3 data sets, 5 seeds
    python benchmarks/time_to_score.py --seeds 1 --data digits
    python benchmarks/time_to_score.py --peers sktune-random sktune-gp
    python benchmarks/time_to_score.py --go-on             # after an interruption

The score to reach is what scikit-learn's random search of 60 candidates over a skorch net ends
with, for the same data, folds and seed. The clock runs from the call of ``fit`` until all folds of
the first candidate with at least this score have been scored; of halving and Hyperband those
candidates count that were trained for all epochs. Searches that do not reach it are
told as such, with the score that they ended with. Every peer tunes the same parameters of the same
network (learning rate, weight decay, dropout, batch size) by the same folds; none refits the best
candidate.

The score to reach is the best of 60, and another 60 candidates of the same distribution reach it in
half of the cases only. So the random and Bayesian searches of sktune, which evaluate their
candidates in rounds, go on to 480 candidates, which take less time than the 60 of skorch's net. The
grid has 60 candidates, and so have the searches of the other libraries over skorch's net, as more
would take longer than the search that they are compared with. Halving begins with 240 candidates,
of which 60 get all epochs. A run of Hyperband has as many candidates as its brackets tell, 17 for
20 epochs. It is repeated with other seeds, as the outer loop of the paper is, until there were 240.

The fits and the epochs that each search takes are told: of a candidate that goes on from rung to
rung each rung is a fit, and its epochs count once.

- ``skorch-random``: scikit-learn's ``RandomizedSearchCV`` over skorch's net, without callbacks and
  printing, with torch's fused AdamW, at its better ``n_jobs`` of 1 and 2 (which is found with the
  first seed of each data set);
- ``skopt-bayes``: scikit-optimize's ``BayesSearchCV`` over the same net, ``n_points=4``;
- ``optuna-search``: ``OptunaSearchCV`` of optuna-integration over the same net;
- ``sktune-grid``, ``sktune-random``, ``sktune-gp`` (``BayesSearchCV`` with its defaults) and
  ``sktune-tpe``;
- ``sktune-racing``: the random search with ``racing=True``, whose folds are spent on candidates
  that can still win;
- ``sktune-halving`` (``HalvingRandomSearchCV``: a quarter, half, and all of the epochs) and
  ``sktune-hyperband``.

scikit-optimize and optuna-integration are not among the dependencies for development: a peer that
is not installed is left out, and the table says so. Each search runs in a process of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from functools import partial
from importlib.util import find_spec
from itertools import count
from pathlib import Path
from statistics import median

import numpy as np
import torch
from harness import RESULTS, run_fresh, save
from scipy.stats import loguniform, uniform
from sklearn.datasets import load_breast_cancer, load_digits, make_classification
from sklearn.metrics import accuracy_score
from sklearn.model_selection import RandomizedSearchCV, StratifiedKFold
from sklearn.preprocessing import StandardScaler
from torch import nn

N_FOLDS = 5
BATCH_SIZES = [32, 64, 128]
HIDDEN = 64
# how many times as many candidates sktune's random and Bayesian searches have
MORE = 8
# and how many times as many halving and Hyperband begin with
MORE_TO_BEGIN = 4


def load_generated():
    return make_classification(
        1500, 30, n_informative=12, n_classes=4, class_sep=0.8, flip_y=0.05, random_state=0
    )


DATA = {
    "digits": partial(load_digits, return_X_y=True),
    "breast cancer": partial(load_breast_cancer, return_X_y=True),
    "generated": load_generated,
}


def load(name):
    X, y = DATA[name]()
    return StandardScaler().fit_transform(X).astype(np.float32), y.astype(np.int64)


class Log:
    """Scores a fold, and writes down when: a line of JSON for each fit, from whatever process.

    scikit-learn passes the estimator, from which the candidate is known.
    """

    def __init__(self, path):
        self.path = path

    def __call__(self, net, X, y):
        score = accuracy_score(y, net.predict(X))
        params = net.get_params()
        names = ("lr", "batch_size", "optimizer__weight_decay", "module__dropout")
        candidate = [float(params.get(name) or 0) for name in names]
        line = json.dumps([time.time(), candidate, net.max_epochs, score])
        # one write of a short line is never mixed with that of another process
        with open(self.path, "a") as file:
            file.write(line + "\n")
        return score

    def read(self):
        """Return what was written: moment, candidate, number of epochs, and score of each fit."""
        lines = [json.loads(line) for line in Path(self.path).read_text().splitlines()]
        return [(moment, tuple(candidate), *rest) for moment, candidate, *rest in lines]


def list_finished(fits, n_epochs):
    """Return (moment, mean score) of each candidate of which all folds got all epochs."""
    scores = {}
    finished = []
    for moment, candidate, n_own, score in fits:
        if n_own < n_epochs:
            continue
        found = scores.setdefault(candidate, [])
        found.append(score)
        if len(found) == N_FOLDS:
            finished.append((moment, float(np.mean(found))))
    return finished


def count_epochs(fits):
    """Return the epochs of all fits; a candidate of several rungs goes on, and has its most."""
    epochs = {}
    for _, candidate, n_own, _ in fits:
        epochs.setdefault(candidate, []).append(n_own)
    return sum(own.count(max(own)) * max(own) for own in epochs.values())


class Net(nn.Module):
    """The network that every peer trains."""

    def __init__(self, n_features, n_outputs, dropout=0.0):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(n_features, HIDDEN),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(HIDDEN, n_outputs),
        )

    def forward(self, X):
        return self.layers(X)


def make_skorch(X, y, seed, n_epochs):
    from skorch import NeuralNetClassifier

    return NeuralNetClassifier(
        Net,
        module__n_features=X.shape[1],
        module__n_outputs=len(np.unique(y)),
        criterion=nn.CrossEntropyLoss,
        optimizer=torch.optim.AdamW,
        optimizer__fused=True,
        max_epochs=n_epochs,
        train_split=None,
        callbacks="disable",
        verbose=0,
    )


def make_sktune(X, y, seed, n_epochs):
    import sktune

    return sktune.NeuralNetClassifier(
        module__hidden=(HIDDEN,), max_epochs=n_epochs, random_state=seed
    )


def make_space():
    return {
        "lr": loguniform(1e-4, 1e-1),
        "optimizer__weight_decay": loguniform(1e-6, 1e-1),
        "module__dropout": uniform(0, 0.6),
        "batch_size": BATCH_SIZES,
    }


def make_grid():
    return {
        "lr": np.geomspace(1e-4, 1e-1, 5).tolist(),
        "optimizer__weight_decay": [1e-4, 1e-2],
        "module__dropout": [0.0, 0.3],
        "batch_size": BATCH_SIZES,
    }


def search_skorch(net, n_iter, seed, n_jobs, **options):
    return RandomizedSearchCV(
        net, make_space(), n_iter=n_iter, random_state=seed, n_jobs=n_jobs, **options
    )


def search_skopt(net, n_iter, seed, n_jobs, **options):
    from skopt import BayesSearchCV
    from skopt.space import Categorical, Real

    space = {
        "lr": Real(1e-4, 1e-1, prior="log-uniform"),
        "optimizer__weight_decay": Real(1e-6, 1e-1, prior="log-uniform"),
        "module__dropout": Real(0, 0.6),
        "batch_size": Categorical(BATCH_SIZES),
    }
    return BayesSearchCV(
        net, space, n_iter=n_iter, n_points=4, random_state=seed, n_jobs=n_jobs, **options
    )


def search_optuna(net, n_iter, seed, n_jobs, **options):
    import optuna
    from optuna.distributions import CategoricalDistribution, FloatDistribution
    from optuna_integration import OptunaSearchCV

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    space = {
        "lr": FloatDistribution(1e-4, 1e-1, log=True),
        "optimizer__weight_decay": FloatDistribution(1e-6, 1e-1, log=True),
        "module__dropout": FloatDistribution(0, 0.6),
        "batch_size": CategoricalDistribution(BATCH_SIZES),
    }
    return OptunaSearchCV(net, space, n_trials=n_iter, random_state=seed, n_jobs=n_jobs, **options)


def search_grid(net, n_iter, seed, n_jobs, **options):
    import sktune

    return sktune.GridSearchCV(net, make_grid(), n_jobs=n_jobs, **options)


def search_random(net, n_iter, seed, n_jobs, **options):
    import sktune

    # with a timeout, even one that is never over, the candidates are evaluated in rounds
    return sktune.RandomizedSearchCV(
        net,
        make_space(),
        n_iter=MORE * n_iter,
        timeout=3600,
        random_state=seed,
        n_jobs=n_jobs,
        **options,
    )


def search_bayes(net, n_iter, seed, n_jobs, sampler, **options):
    import sktune

    return sktune.BayesSearchCV(
        net,
        make_space(),
        n_iter=MORE * n_iter,
        sampler=sampler,
        random_state=seed,
        n_jobs=n_jobs,
        **options,
    )


def search_halving(net, n_iter, seed, n_jobs, **options):
    import sktune

    return sktune.HalvingRandomSearchCV(
        net,
        make_space(),
        n_candidates=MORE_TO_BEGIN * n_iter,
        factor=2,
        min_resources=max(net.max_epochs // 4, 1),
        random_state=seed,
        n_jobs=n_jobs,
        **options,
    )


class Repeated:
    """Hyperband with one seed after the other: the outer loop of Li et al. 2018, section 3.2."""

    def __init__(self, searches, n_candidates):
        self.searches = searches
        self.n_candidates = n_candidates

    def fit(self, X, y):
        n = 0
        for search in self.searches:
            search.fit(X, y)
            n += sum(bracket["n_candidates"][0] for bracket in search.brackets_)
            if n >= self.n_candidates:
                break
        return self


def search_hyperband(net, n_iter, seed, n_jobs, **options):
    import sktune

    # the net as it is belongs to the first run only
    searches = (
        sktune.HyperbandSearchCV(
            net,
            make_space(),
            baseline=number == 0,
            random_state=np.random.RandomState([seed, number]),
            n_jobs=n_jobs,
            **options,
        )
        for number in count()
    )
    return Repeated(searches, MORE_TO_BEGIN * n_iter)


# how the network is made, how it is searched, and what has to be installed
PEERS = {
    "skorch-random": (make_skorch, search_skorch, "skorch"),
    "skopt-bayes": (make_skorch, search_skopt, "skopt"),
    "optuna-search": (make_skorch, search_optuna, "optuna_integration"),
    "sktune-grid": (make_sktune, search_grid, "sktune"),
    "sktune-random": (make_sktune, search_random, "sktune"),
    "sktune-gp": (make_sktune, partial(search_bayes, sampler="gp"), "sktune"),
    "sktune-tpe": (make_sktune, partial(search_bayes, sampler="tpe"), "sktune"),
    "sktune-racing": (make_sktune, partial(search_random, racing=True), "sktune"),
    "sktune-halving": (make_sktune, search_halving, "sktune"),
    "sktune-hyperband": (make_sktune, search_hyperband, "sktune"),
}
# seeds of torch and processes of joblib make these what they are for skorch's nets
N_JOBS = {"skorch-random": (1, 2), "skopt-bayes": (2,), "optuna-search": (1,)}


def run(peer, data, seed, n_jobs, n_candidates, n_epochs):
    """Run one search; return its fits and epochs, when each candidate was finished, and scores."""
    X, y = load(data)
    make_net, make_search, _ = PEERS[peer]
    torch.manual_seed(seed)
    net = make_net(X, y, seed, n_epochs)
    folds = StratifiedKFold(N_FOLDS, shuffle=True, random_state=seed)
    with tempfile.TemporaryDirectory() as folder:
        log = Log(os.path.join(folder, "scores"))
        # libraries load, and code is compiled, before the clock runs
        warm = clone_and_shorten(net)
        warm.fit(X[:200], y[:200])
        search = make_search(net, n_candidates, seed, n_jobs, cv=folds, scoring=log, refit=False)
        start = time.time()
        search.fit(X, y)
        seconds = time.time() - start
        fits = [(moment - start, *rest) for moment, *rest in log.read()]
    return {
        "finished": list_finished(fits, n_epochs),
        "seconds": seconds,
        "n_fits": len(fits),
        "n_epochs": count_epochs(fits),
    }


def clone_and_shorten(net):
    from sklearn.base import clone

    return clone(net).set_params(max_epochs=1)


def seconds_to(score, finished):
    """Return when a candidate with at least some score was finished, or None."""
    for moment, found in sorted(finished):
        if found >= score - 1e-12:
            return moment
    return None


def measure(peer, data, seed, args, best_n_jobs):
    """Run a peer at its best `n_jobs`: the one of the shorter search, found with the first seed.

    `best_n_jobs` is a dict, to which what is found is added.
    """
    runs = {}
    for n_jobs in best_n_jobs.get((peer, data), N_JOBS.get(peer, (None,))):
        arguments = [__file__, "--run", peer, data, seed, -1 if n_jobs is None else n_jobs]
        arguments += ["--candidates", args.candidates, "--epochs", args.epochs]
        runs[n_jobs] = run_fresh(arguments, what=f"{peer} on {data}")
    best = min(runs, key=lambda n_jobs: runs[n_jobs]["seconds"])
    best_n_jobs[peer, data] = (best,)
    return {**runs[best], "n_jobs": best}


def compare(peers, data, seed, args, best_n_jobs):
    """Run all peers on a data set with a seed; return a row for each."""
    reference = measure("skorch-random", data, seed, args, best_n_jobs)
    target = max(score for _, score in reference["finished"])
    rows = {}
    for peer in peers:
        found = reference
        if peer != "skorch-random":
            found = measure(peer, data, seed, args, best_n_jobs)
        rows[peer] = {
            "n_jobs": found["n_jobs"],
            "seconds": found["seconds"],
            "to_score": seconds_to(target, found["finished"]),
            "best": max(score for _, score in found["finished"]),
            "n_candidates": len(found["finished"]),
            "n_fits": found["n_fits"],
            "n_epochs": found["n_epochs"],
        }
        shown = rows[peer]["to_score"]
        shown = "not reached" if shown is None else f"{shown:.2f} s"
        line = f"{data:<14} seed {seed}  {peer:<14} {shown:>12}  best {rows[peer]['best']:.4f}"
        print(line, flush=True)
    return {"data": data, "seed": seed, "target": target, "peers": rows}


def summarize(found, peers):
    """Return the median over seeds of each peer, by data set, with its ratios to skorch's.

    ``ratio`` is that of the moment at which the search over skorch's net comes to its best
    candidate, which nobody knows before the search is over; ``ratio_to_whole`` that of its end.
    """
    table = {}
    for data in dict.fromkeys(row["data"] for row in found):
        rows = [row["peers"] for row in found if row["data"] == data]
        reference = median(row["skorch-random"]["to_score"] for row in rows)
        whole = median(row["skorch-random"]["seconds"] for row in rows)
        table[data] = {}
        for peer in peers:
            # what was not reached takes longer than anything that was
            times = [row[peer]["to_score"] for row in rows]
            times = [float("inf") if moment is None else moment for moment in times]
            middle = median(times)
            is_reached = np.isfinite(middle)
            table[data][peer] = {
                "seconds": middle if is_reached else None,
                "ratio": reference / middle if is_reached else None,
                "ratio_to_whole": whole / middle if is_reached else None,
                "reached": sum(np.isfinite(times).tolist()),
                "of": len(times),
                "best": median(row[peer]["best"] for row in rows),
                "whole_search": median(row[peer]["seconds"] for row in rows),
                "n_fits": median(row[peer]["n_fits"] for row in rows),
                "n_epochs": median(row[peer]["n_epochs"] for row in rows),
            }
    return table


def show(table):
    for data, rows in table.items():
        print(f"\n{data}")
        names = f"{'':<16}{'to score':>10}{'ratio':>8}{'to whole':>10}"
        print(f"{names}{'reached':>9}{'best':>9}{'search':>10}{'fits':>7}{'epochs':>8}")
        for peer, row in rows.items():
            reached = f"{row['reached']}/{row['of']}"
            to_score = f"{'not reached':>28}"
            if row["seconds"] is not None:
                to_score = f"{row['seconds']:>8.2f} s{row['ratio']:>8.1f}"
                to_score += f"{row['ratio_to_whole']:>10.1f}"
            whole = f"{row['whole_search']:>8.2f} s{row['n_fits']:>7.0f}{row['n_epochs']:>8.0f}"
            print(f"{peer:<16}{to_score}{reached:>9}{row['best']:>9.4f}{whole}")


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--data", nargs="+", choices=list(DATA), default=list(DATA))
    parser.add_argument("--peers", nargs="+", choices=list(PEERS), default=list(PEERS))
    parser.add_argument("--json", type=Path, default=RESULTS / "time_to_score.json")
    parser.add_argument("--candidates", type=int, default=60)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--go-on", action="store_true", help="keep what the JSON file has")
    parser.add_argument("--run", nargs=4, help=argparse.SUPPRESS)
    args = parser.parse_args(arguments)
    if args.run:
        peer, data, seed, n_jobs = args.run
        n_jobs = None if n_jobs == "-1" else int(n_jobs)
        print(json.dumps(run(peer, data, int(seed), n_jobs, args.candidates, args.epochs)))
        return
    if "sktune-halving" in args.peers and args.epochs % 4 != 0:
        parser.error(f"--epochs must be a multiple of 4 for sktune-halving, got {args.epochs}")
    peers = []
    for peer in dict.fromkeys(["skorch-random", *args.peers]):
        if find_spec(PEERS[peer][2]) is None:
            print(f"{peer} is left out: {PEERS[peer][2]} is not installed")
        else:
            peers.append(peer)
    found = json.loads(args.json.read_text())["runs"] if args.go_on else []
    best_n_jobs = {}
    for row in found:
        for peer, told in row["peers"].items():
            best_n_jobs[peer, row["data"]] = (told["n_jobs"],)
    known = {(row["data"], row["seed"]) for row in found}
    for seed in range(args.seeds):
        for data in args.data:
            if (data, seed) in known:
                continue
            found.append(compare(peers, data, seed, args, best_n_jobs))
            # what there is so far, should the rest be interrupted
            save({"table": summarize(found, peers), "runs": found}, args.json)
    show(summarize(found, peers))


if __name__ == "__main__":
    main()
