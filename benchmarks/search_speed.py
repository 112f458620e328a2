"""How long a whole random search takes: sktune beside scikit-learn with skorch, with its own MLP, and a loop by hand.

    python benchmarks/search_speed.py                          # the yardstick: 60 candidates x 5 folds x 20 epochs
    python benchmarks/search_speed.py --candidates 8 --repeats 3

Digits, one hidden layer of 128, AdamW, random learning rate, weight decay, batch size and dropout (scikit-learn's
MLP has no dropout and takes Adam with its L2 penalty). All peers draw the same candidates and meet the same folds,
take turns in one run, and get their best settings: skorch without callbacks, printing or validation split, on float32
rows and with torch's fused optimizer. `n_jobs` is tried at 1 and 2, the better one counts. Each peer runs in a process
of its own, once to warm up (worker processes start, libraries load) and then to be timed; its peak memory is that of
its process and its workers. The last row is the time that the matrix products alone would take at this machine's
measured peak.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path
from statistics import median

import numpy as np
import torch
from scipy.stats import loguniform, uniform
from sklearn.datasets import load_digits
from sklearn.model_selection import GridSearchCV, ParameterSampler, StratifiedKFold
from torch import nn

HIDDEN, FOLDS = 128, 5
PEERS = ("sktune", "skorch, n_jobs=1", "skorch, n_jobs=2", "MLPClassifier, n_jobs=1", "MLPClassifier, n_jobs=2", "loop")
SPACE = {
    "lr": loguniform(1e-4, 1e-1),
    "weight_decay": loguniform(1e-6, 1e-1),
    "batch_size": [32, 64, 128],
    "dropout": uniform(0, 0.6),
}
NET_NAMES = {
    "lr": "lr",
    "weight_decay": "optimizer__weight_decay",
    "batch_size": "batch_size",
    "dropout": "module__dropout",
}


def load_rows():
    X, y = load_digits(return_X_y=True)
    return (X / 16).astype(np.float32), y


class Net(nn.Module):
    def __init__(self, dropout=0.0):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(64, HIDDEN), nn.ReLU(), nn.Dropout(dropout), nn.Linear(HIDDEN, 10))

    def forward(self, X):
        return self.layers(X)


def draw(n_candidates, names):
    """Return ready-made candidates as a list of grids of one: all peers get the same, under their own names."""
    drawn = ParameterSampler(SPACE, n_candidates, random_state=0)
    return [{names[k]: [v] for k, v in candidate.items() if k in names} for candidate in drawn]


def run_sktune(X, y, args):
    import sktune

    net = sktune.NeuralNetClassifier(module__hidden=HIDDEN, max_epochs=args.epochs, random_state=0, device=args.device)
    grid = draw(args.candidates, NET_NAMES)
    search = sktune.GridSearchCV(net, grid, cv=StratifiedKFold(FOLDS), refit=False, n_jobs=args.n_jobs or None)
    search.fit(X, y)
    n_fused = sum(group["lanes"] for group in search.fusion_.groups)
    if n_fused != args.candidates * FOLDS:
        raise SystemExit(f"the fused path did not run for all fits:\n{search.fusion_}")
    return {"best": search.cv_results_["mean_test_score"].max(), "training": search.fusion_.seconds}


def run_skorch(X, y, args):
    import skorch

    net = skorch.NeuralNetClassifier(
        Net,
        criterion=nn.CrossEntropyLoss,
        optimizer=torch.optim.AdamW,
        optimizer__fused=True,
        max_epochs=args.epochs,
        iterator_train__shuffle=True,
        train_split=None,
        callbacks="disable",
        verbose=0,
        device=args.device,
    )
    grid = draw(args.candidates, NET_NAMES)
    search = GridSearchCV(net, grid, cv=StratifiedKFold(FOLDS), refit=False, n_jobs=args.n_jobs)
    return {"best": search.fit(X, y).cv_results_["mean_test_score"].max()}


def run_mlp(X, y, args):
    import warnings

    from sklearn.neural_network import MLPClassifier

    warnings.simplefilter("ignore")  # that it has not converged is the point of a fixed number of epochs
    os.environ["PYTHONWARNINGS"] = "ignore"
    names = {"lr": "learning_rate_init", "weight_decay": "alpha", "batch_size": "batch_size"}
    net = MLPClassifier((HIDDEN,), max_iter=args.epochs, n_iter_no_change=args.epochs, tol=0.0, random_state=0)
    grid = draw(args.candidates, names)
    search = GridSearchCV(net, grid, cv=StratifiedKFold(FOLDS), refit=False, n_jobs=args.n_jobs)
    return {"best": search.fit(X, y).cv_results_["mean_test_score"].max()}


def run_loop(X, y, args):
    """Run the same fits as a loop that one would write by hand."""
    device = torch.device(args.device)
    X, y = torch.from_numpy(X).to(device), torch.from_numpy(y).to(device)
    splits = list(StratifiedKFold(FOLDS).split(X.cpu(), y.cpu()))
    means = []
    for candidate in ParameterSampler(SPACE, args.candidates, random_state=0):
        scores = []
        for train, test in splits:
            train, test = torch.from_numpy(train).to(device), torch.from_numpy(test).to(device)
            net = fit_by_hand(X[train], y[train], candidate, args.epochs)
            with torch.inference_mode():
                scores.append((net(X[test]).argmax(1) == y[test]).float().mean().item())
        means.append(np.mean(scores))
    return {"best": max(means)}


def fit_by_hand(X, y, candidate, epochs):
    net = Net(candidate["dropout"]).to(X.device)
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
    """Run one peer in this process: once to warm up, on few candidates, then timed; print the figures as JSON."""
    X, y = load_rows()
    runner = RUNNERS[args.peer]
    runner(X, y, argparse.Namespace(**{**vars(args), "candidates": 2, "epochs": 1}))
    began = time.perf_counter()
    figures = runner(X, y, args)
    figures["seconds"] = time.perf_counter() - began
    peaks = [resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    figures["peak_mib"] = (peaks[0] + args.n_jobs * peaks[1] * (args.n_jobs > 1)) / 1024
    print(json.dumps(figures))


def products_at_peak(args):
    """Return the seconds that the products of all fits take at the rate of a large product, all cores at work."""
    a = torch.randn(1024, 1024, device=args.device)
    rates = []
    for _ in range(20):
        began = time.perf_counter()
        float((a @ a)[0, 0])
        rates.append(2 * 1024**3 / (time.perf_counter() - began))
    n_rows = 1797 * (FOLDS - 1) / FOLDS
    # forward, gradient of the weights; gradient of the inputs in the second layer only
    flops = 2 * n_rows * (2 * 64 * HIDDEN + 3 * HIDDEN * 10)
    return args.candidates * FOLDS * args.epochs * flops / max(rates)


def measure(args):
    figures = {peer: [] for peer in PEERS}
    for repeat in range(args.repeats):
        for peer in PEERS:
            name, _, n_jobs = peer.partition(", n_jobs=")
            command = [sys.executable, __file__, "--peer", name, "--n-jobs", n_jobs or "0", "--device", args.device]
            command += ["--candidates", str(args.candidates), "--epochs", str(args.epochs)]
            # processes share the cores; one process has them all, at the better of 1 and 2 threads (see README)
            environment = {**os.environ, "OMP_NUM_THREADS": "1" if n_jobs or name == "loop" else str(os.cpu_count())}
            done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
            if done.returncode:
                raise SystemExit(f"{peer} failed:\n{done.stderr}{done.stdout}")
            figures[peer].append(json.loads(done.stdout.splitlines()[-1]))
            print(f"  {peer}: {figures[peer][-1]['seconds']:.1f} s ({repeat + 1} of {args.repeats})", flush=True)
    return {peer: {key: median(f[key] for f in runs) for key in runs[0]} for peer, runs in figures.items()}


def show(results, floor, args):
    ours, n_fits = results["sktune"]["seconds"], args.candidates * FOLDS
    print(f"\n{args.candidates} candidates x {FOLDS} folds x {args.epochs} epochs; medians of {args.repeats}")
    print(f"{'':<26}{'seconds':>9}{'fits/s':>8}{'ratio':>8}{'peak MiB':>10}{'best CV':>9}")
    for peer, figure in results.items():
        seconds = figure["seconds"]
        row = f"{peer:<26}{seconds:>9.2f}{n_fits / seconds:>8.1f}{seconds / ours:>8.1f}"
        print(f"{row}{figure['peak_mib']:>10.0f}{figure['best']:>9.4f}")
    print(f"{'products alone at peak':<26}{floor:>9.2f}{'':>8}{floor / ours:>8.2f}")
    print(f"sktune: {1 - results['sktune']['training'] / ours:.0%} of the time outside training")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--candidates", type=int, default=60)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", type=Path, default=Path(__file__).parent / "results" / "search_speed.json")
    parser.add_argument("--peer", help=argparse.SUPPRESS)
    parser.add_argument("--n-jobs", type=int, default=0, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.peer:
        run_peer(args)
        return
    results, floor = measure(args), products_at_peak(args)
    show(results, floor, args)
    machine = {"processor": platform.machine(), "cores": os.cpu_count()}
    machine |= {name: version(name) for name in ("torch", "scikit-learn", "skorch", "joblib", "numpy")}
    args.json.parent.mkdir(parents=True, exist_ok=True)
    settings = {"candidates": args.candidates, "epochs": args.epochs, "repeats": args.repeats, "device": args.device}
    record = {"settings": settings, "machine": machine, "peers": results, "products_at_peak_seconds": floor}
    args.json.write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
