"""The time of a whole random search by sktune, skorch, scikit-learn's MLP and a hand-written loop.

    python benchmarks/search_speed.py                      # digits: 60 candidates x 5 folds
    python benchmarks/search_speed.py --candidates 8 --repeats 3
    python benchmarks/search_speed.py --yardstick wide     # 10,000 x 100 rows, layers 256-256
    python benchmarks/search_speed.py --profile            # the parts of sktune's time

The digits have 20 epochs; `wide` has 12 candidates x 3 folds. The optimizer is AdamW. Learning
rate, weight decay, dropout and, on the digits, the batch size are random. scikit-learn's MLP has no
dropout, and takes Adam with its L2 penalty.

All peers get the same candidates and the same folds, take turns in one run, and have their best
settings: skorch has no callbacks, printing or validation split, gets float32 rows and uses torch's
fused optimizer. `n_jobs` is tried at 1 and 2, and the better one counts. Where the layers are wide,
so are one thread and all of them.

Each peer runs in a process of its own, first to warm up (worker processes start, libraries load)
and then to be timed. Its peak memory is that of its process plus those of the processes that it
started. The last row is the time that the matrix products alone would take at this machine's
measured peak.

`--profile` runs sktune alone, in one process with one thread, and refits the best candidate, which
the comparison leaves out. Timers around the library's functions measure the parts (timers.py). The
rest is mostly scikit-learn's own splitting, cloning and tables of results. The compiled steps are
one function: their time is divided among their stages in proportion to the time of each stage when
it runs alone (stages.py).
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

import numpy as np
import torch
from harness import RESULTS, peak_bytes, run_fresh, save
from scipy.stats import loguniform, uniform
from sklearn.datasets import load_digits, make_classification
from sklearn.model_selection import GridSearchCV, ParameterSampler, StratifiedKFold
from stages import recording
from timers import STEPS, running, search_timers, tell_parts
from torch import nn


def digits():
    X, y = load_digits(return_X_y=True)
    return (X / 16).astype(np.float32), y


def wide():
    X, y = make_classification(10_000, 100, n_informative=30, n_classes=10, random_state=0)
    return ((X - X.mean(0)) / X.std(0)).astype(np.float32), y


@dataclass(frozen=True)
class Yardstick:
    # Returns X and y.
    load: Callable
    # Widths of the hidden layers.
    hidden: tuple
    batch_sizes: list
    candidates: int
    folds: int
    epochs: int
    peers: tuple
    # For some peers: how many times as long as sktune they are expected to take at least.
    wanted: dict

    @property
    def n_fits(self):
        return self.candidates * self.folds

    def draw(self):
        space = {"lr": loguniform(1e-4, 1e-1), "weight_decay": loguniform(1e-6, 1e-1)}
        space |= {"batch_size": self.batch_sizes, "dropout": uniform(0, 0.6)}
        return list(ParameterSampler(space, self.candidates, random_state=0))

    def grid(self, **names):
        """Return a list of grids with one candidate each.

        The candidates are the same for all peers. `names` gives the name of each hyperparameter at
        the peer; those that it lacks are left out.
        """
        grids = []
        for candidate in self.draw():
            grids.append({names[k]: [value] for k, value in candidate.items() if k in names})
        return grids

    def search(self, kind, net, n_jobs, refit=False, **names):
        return kind(
            net, self.grid(**names), cv=StratifiedKFold(self.folds), refit=refit, n_jobs=n_jobs
        )


PEERS = (
    "sktune",
    "skorch, n_jobs=1",
    "skorch, n_jobs=2",
    "MLPClassifier, n_jobs=1",
    "MLPClassifier, n_jobs=2",
    "loop",
)
YARDSTICKS = {
    "digits": Yardstick(
        digits, (128,), [32, 64, 128], candidates=60, folds=5, epochs=20, peers=PEERS, wanted={}
    ),
    "wide": Yardstick(
        wide,
        (256, 256),
        [128],
        candidates=12,
        folds=3,
        epochs=5,
        peers=(*PEERS, "skorch, all threads", "loop, all threads"),
        wanted={"skorch": 3.0, "loop": 1.5},
    ),
}
NET_NAMES = {"weight_decay": "optimizer__weight_decay", "dropout": "module__dropout"}
NET_NAMES |= {name: name for name in ("lr", "batch_size")}


class Net(nn.Module):
    def __init__(self, sizes, dropout=0.0):
        super().__init__()
        layers = []
        for n_in, n_out in zip(sizes, sizes[1:-1], strict=False):
            layers += [nn.Linear(n_in, n_out), nn.ReLU(), nn.Dropout(dropout)]
        self.layers = nn.Sequential(*layers, nn.Linear(*sizes[-2:]))

    def forward(self, X):
        return self.layers(X)


def layer_sizes(yardstick, X, y):
    return (X.shape[1], *yardstick.hidden, int(y.max()) + 1)


def run_sktune(X, y, yardstick, args):
    import sktune

    net = sktune.NeuralNetClassifier(
        module__hidden=yardstick.hidden,
        max_epochs=yardstick.epochs,
        random_state=0,
        device=args.device,
    )
    search = yardstick.search(
        sktune.GridSearchCV, net, args.n_jobs or None, args.profile, **NET_NAMES
    ).fit(X, y)
    return {"best": best_of(search), "training": search.fusion_.seconds, "report": search.fusion_}


def run_skorch(X, y, yardstick, args):
    import skorch

    net = skorch.NeuralNetClassifier(
        Net,
        module__sizes=layer_sizes(yardstick, X, y),
        criterion=nn.CrossEntropyLoss,
        optimizer=torch.optim.AdamW,
        optimizer__fused=True,
        max_epochs=yardstick.epochs,
        iterator_train__shuffle=True,
        train_split=None,
        callbacks="disable",
        verbose=0,
        device=args.device,
    )
    return {
        "best": best_of(
            yardstick.search(GridSearchCV, net, args.n_jobs or None, **NET_NAMES).fit(X, y)
        )
    }


def run_mlp(X, y, yardstick, args):
    import warnings

    from sklearn.neural_network import MLPClassifier

    # It warns that it has not converged, but the number of epochs is fixed on purpose.
    warnings.simplefilter("ignore")
    os.environ["PYTHONWARNINGS"] = "ignore"
    names = {"lr": "learning_rate_init", "weight_decay": "alpha", "batch_size": "batch_size"}
    epochs = yardstick.epochs
    net = MLPClassifier(
        yardstick.hidden, max_iter=epochs, n_iter_no_change=epochs, tol=0.0, random_state=0
    )
    return {"best": best_of(yardstick.search(GridSearchCV, net, args.n_jobs, **names).fit(X, y))}


def best_of(search):
    return search.cv_results_["mean_test_score"].max()


def run_loop(X, y, yardstick, args):
    """Run the same fits as a loop that one would write by hand."""
    sizes, device = layer_sizes(yardstick, X, y), torch.device(args.device)
    splits = list(StratifiedKFold(yardstick.folds).split(X, y))
    X, y = torch.from_numpy(X).to(device), torch.from_numpy(y).to(device)
    means = []
    for candidate in yardstick.draw():
        scores = []
        for train, test in splits:
            train, test = torch.from_numpy(train).to(device), torch.from_numpy(test).to(device)
            net = fit_by_hand(X[train], y[train], sizes, candidate, yardstick.epochs)
            with torch.inference_mode():
                scores.append((net(X[test]).argmax(1) == y[test]).float().mean().item())
        means.append(np.mean(scores))
    return {"best": max(means)}


def fit_by_hand(X, y, sizes, candidate, epochs):
    net = Net(sizes, candidate["dropout"]).to(X.device)
    criterion = nn.CrossEntropyLoss()
    optimizer = torch.optim.AdamW(
        net.parameters(), lr=candidate["lr"], weight_decay=candidate["weight_decay"], fused=True
    )
    for _ in range(epochs):
        for batch in torch.randperm(len(X), device=X.device).split(candidate["batch_size"]):
            optimizer.zero_grad(set_to_none=True)
            criterion(net(X[batch]), y[batch]).backward()
            optimizer.step()
    return net.eval()


RUNNERS = {"sktune": run_sktune, "skorch": run_skorch, "MLPClassifier": run_mlp, "loop": run_loop}


def run_peer(args):
    """Run one peer in this process and print the figures as JSON.

    It runs on few candidates first, to warm up.
    """
    yardstick = chosen_yardstick(args)
    X, y = yardstick.load()
    runner = RUNNERS[args.peer]
    runner(X, y, replace(yardstick, candidates=2, epochs=1), args)
    began = time.perf_counter()
    figures = runner(X, y, yardstick, args)
    figures["seconds"] = time.perf_counter() - began
    report = figures.pop("report", None)
    if report and sum(group["lanes"] for group in report.groups) != yardstick.n_fits:
        raise SystemExit(f"the fused path did not run for all fits:\n{report}")
    figures["peak_mib"] = peak_bytes() / 2**20
    if args.profile:
        with recording() as recorder, running(search_timers()) as watch:
            runner(X, y, yardstick, args)
        shares = recorder.split()
        parts = dict(watch.seconds)
        whole = parts.pop(STEPS) / sum(shares.values())
        parts |= {stage: whole * seconds for stage, seconds in shares.items()}
        figures |= {"parts": parts, "calls": dict(watch.calls)}
        figures["floor"] = products_at_peak(yardstick, X, y, args.device)
    print(json.dumps(figures))


def products_at_peak(yardstick, X, y, device):
    """Return the seconds of all fits' matrix products at the rate of a large one on all threads."""
    a = torch.randn(1024, 1024, device=device)
    rates = []
    for _ in range(20):
        began = time.perf_counter()
        float((a @ a)[0, 0])
        rates.append(2 * 1024**3 / (time.perf_counter() - began))
    n_rows = len(X) * (yardstick.folds - 1) / yardstick.folds
    sizes = layer_sizes(yardstick, X, y)
    products = [n_in * n_out for n_in, n_out in zip(sizes, sizes[1:], strict=False)]
    # The forward pass, the gradients of the weights, and those of the inputs, which the first layer
    # does not need.
    flops = 2 * n_rows * (3 * sum(products) - products[0])
    return yardstick.n_fits * yardstick.epochs * flops / max(rates)


def measure(yardstick, args):
    figures = {peer: [] for peer in yardstick.peers}
    for repeat in range(args.repeats):
        for peer in yardstick.peers:
            name, _, setting = peer.partition(", ")
            n_jobs = setting.removeprefix("n_jobs=") if setting.startswith("n_jobs=") else "0"
            # Processes share the cores. One process has all of them where that is better (README).
            has_all = name == "sktune" or setting == "all threads"
            figures[peer].append(run_alone(args, name, n_jobs, os.cpu_count() if has_all else 1))
            print(
                f"  {peer}: {figures[peer][-1]['seconds']:.1f} s ({repeat + 1} of {args.repeats})",
                flush=True,
            )
    return {peer: medians(runs) for peer, runs in figures.items()}


def run_alone(args, peer, n_jobs, threads):
    command = [
        __file__,
        "--peer",
        peer,
        "--n-jobs",
        n_jobs,
        "--yardstick",
        args.yardstick,
        "--device",
        args.device,
    ]
    command += ["--profile"] if args.profile else []
    for name in ("candidates", "epochs"):
        command += [f"--{name}", getattr(args, name)] if getattr(args, name) else []
    return run_fresh(command, threads, what=peer)


def medians(runs):
    """Return the median of each figure over the runs, figures in dicts likewise."""
    first = runs[0]
    result = {}
    for name, value in first.items():
        values = [run[name] for run in runs]
        result[name] = medians(values) if isinstance(value, dict) else median(values)
    return result


def show(results, floor, yardstick, args):
    ours = results["sktune"]["seconds"]
    print(f"\n{title(yardstick)}; medians of {args.repeats}")
    print(f"{'':<26}{'seconds':>9}{'fits/s':>8}{'ratio':>8}{'peak MiB':>10}{'best CV':>9}")
    for peer, figure in results.items():
        seconds = figure["seconds"]
        row = f"{peer:<26}{seconds:>9.2f}{yardstick.n_fits / seconds:>8.1f}{seconds / ours:>8.1f}"
        print(f"{row}{figure['peak_mib']:>10.0f}{figure['best']:>9.4f}")
    print(f"{'products alone at peak':<26}{floor:>9.2f}{'':>8}{floor / ours:>8.2f}")
    print(f"sktune: {1 - results['sktune']['training'] / ours:.0%} of the time outside training")


def title(yardstick):
    return (
        f"{yardstick.candidates} candidates x {yardstick.folds} folds x {yardstick.epochs} epochs"
    )


def compare_with_wanted(results, yardstick):
    """Return wanted and found ratios of peers, each at its best setting."""
    ours = results["sktune"]["seconds"]
    found = {}
    for name, wanted in yardstick.wanted.items():
        seconds = min(
            figure["seconds"] for peer, figure in results.items() if peer.partition(", ")[0] == name
        )
        found[name] = {"wanted": wanted, "found": seconds / ours}
    return found


def show_profile(figures, yardstick, args):
    """Print the parts of the time, in all and per fit or per epoch of a fit."""
    total = sum(figures["parts"].values())
    print(f"\n{title(yardstick)}, then a refit; one thread; medians of {args.repeats}")
    for line in tell_parts(figures["parts"], figures["calls"], yardstick.n_fits, yardstick.epochs):
        print(line)
    print(f"{'all':<26}{total:>9.3f}   (without timers {figures['seconds']:.3f})")
    floor = figures["floor"]
    print(
        f"{'products alone at peak':<26}{floor:>9.3f}{floor / total:>9.1%}   (without the refit's)"
    )


def chosen_yardstick(args):
    given = {name: getattr(args, name) for name in ("candidates", "epochs") if getattr(args, name)}
    return replace(YARDSTICKS[args.yardstick], **given)


def result_path(args):
    name = "search_profile" if args.profile else "search_speed"
    suffix = "" if args.yardstick == "digits" else f"_{args.yardstick}"
    return RESULTS / f"{name}{suffix}.json"


def make_parser():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--yardstick", choices=YARDSTICKS, default="digits")
    parser.add_argument(
        "--profile",
        action="store_true",
        help="split sktune's time into parts, and run no other peer",
    )
    parser.add_argument("--candidates", type=int, help="default: the yardstick's")
    parser.add_argument("--epochs", type=int, help="default: the yardstick's")
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument(
        "--json", type=Path, help="default: a file of the yardstick's own in results/"
    )
    parser.add_argument("--peer", help=argparse.SUPPRESS)
    parser.add_argument("--n-jobs", type=int, default=0, help=argparse.SUPPRESS)
    return parser


def main(argv=None):
    args = make_parser().parse_args(argv)
    if args.peer:
        run_peer(args)
        return
    yardstick = chosen_yardstick(args)
    settings = {name: getattr(args, name) for name in ("yardstick", "repeats", "device")}
    settings |= {
        name: getattr(yardstick, name)
        for name in ("candidates", "folds", "epochs", "hidden", "batch_sizes")
    }
    path = args.json or result_path(args)
    if args.profile:
        figures = medians([run_alone(args, "sktune", 1, threads=1) for _ in range(args.repeats)])
        show_profile(figures, yardstick, args)
        save({"settings": settings | {"threads": 1}, "profile": figures}, path)
        return
    results = measure(yardstick, args)
    floor = products_at_peak(yardstick, *yardstick.load(), args.device)
    show(results, floor, yardstick, args)
    against = compare_with_wanted(results, yardstick)
    record = {
        "settings": settings,
        "peers": results,
        "products_at_peak_seconds": floor,
        "wanted": against,
    }
    save(record, path)
    for name, ratio in against.items():
        print(
            f"{name}, at its best, over sktune: "
            f"wanted {ratio['wanted']:.1f}, found {ratio['found']:.2f}"
        )
    missed = [name for name, ratio in against.items() if ratio["found"] < ratio["wanted"]]
    if missed:
        raise SystemExit(f"sktune was not as much faster as wanted than {', '.join(missed)}")


if __name__ == "__main__":
    main()
