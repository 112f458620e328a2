"""What it costs to let other processes train the groups of a search, and what it brings.

    python benchmarks/scale_out.py                       # loky, Dask and Ray, 1 and 2 workers
    python benchmarks/scale_out.py --engines dask --workers 1 2 4

The search is that of ``search_speed.py`` on the digits: 60 random candidates of an MLP with one
hidden layer of 128, 5 folds, 20 epochs, no refit. It is run in threads of this process and by the
workers of each engine, in turn, after one search that lets the workers load their libraries; the
time is the median.

``overhead`` is the time that the search takes beyond the training of its groups, spread over the
workers: to pickle, to send, to wait for the last group. Divided by the groups it is what a group
costs that travels. With the overhead of a group and the time of this process beside the training
(collecting, scoring) the last table tells what 8 machines of 8 GPUs would make of a search whose
groups take as long as here, times some factor. It is a model, and not a measurement: it knows
nothing of networks and shared disks. It takes what was measured with most workers, and lets the
overheads of all groups come one after another, which is the worst case.

Last, a table of 50 MB is searched, and the bytes are counted that leave this process by Dask.
"""

from __future__ import annotations

import argparse
import time
from contextlib import contextmanager, nullcontext
from importlib.util import find_spec
from pathlib import Path
from statistics import median

import joblib
import numpy as np
from harness import RESULTS, save
from scipy.stats import loguniform, uniform
from sklearn.datasets import load_digits

import sktune

MODULES = {"loky": "joblib", "dask": "distributed", "ray": "ray"}


def make_search(n_candidates, n_epochs, n_folds=5):
    net = sktune.NeuralNetClassifier(
        module__hidden=(128,), max_epochs=n_epochs, random_state=0, verbose=0
    )
    space = {
        "lr": loguniform(1e-4, 1e-1),
        "optimizer__weight_decay": loguniform(1e-6, 1e-1),
        "module__dropout": uniform(0, 0.6),
    }
    return sktune.RandomizedSearchCV(
        net, space, n_iter=n_candidates, cv=n_folds, refit=False, random_state=0
    )


@contextmanager
def open_engine(name, n_workers):
    """Start the workers of an engine, for as long as the context is open."""
    if name == "loky":
        yield
    elif name == "dask":
        from dask.distributed import Client, LocalCluster

        cluster = LocalCluster(
            n_workers=n_workers, threads_per_worker=1, dashboard_address=":0", silence_logs=50
        )
        with cluster, Client(cluster):
            yield
    else:
        import ray

        ray.init(num_cpus=n_workers, include_dashboard=False, logging_level="ERROR")
        yield
        ray.shutdown()


def time_search(search, X, y, context):
    start = time.perf_counter()
    with context:
        search.fit(X, y)
    return time.perf_counter() - start


def measure(name, n_workers, X, y, args):
    """Return the median times of one engine, and those of this process in turn with it."""
    seconds = []
    here = []
    training = []
    with open_engine(name, n_workers):
        search = make_search(args.candidates, args.epochs)
        # the workers load libraries and compiled code
        time_search(search, X, y, make_context(name, n_workers))
        for _ in range(args.repeats):
            seconds.append(time_search(search, X, y, make_context(name, n_workers)))
            groups = search.fusion_.groups
            training.append(sum(group["seconds"] for group in groups) / n_workers)
            here.append(time_search(make_search(args.candidates, args.epochs), X, y, nullcontext()))
    overhead = median(s - t for s, t in zip(seconds, training, strict=True))
    return {
        "engine": name,
        "workers": n_workers,
        "seconds": median(seconds),
        "this_process": median(here),
        "ratio": median(h / s for h, s in zip(here, seconds, strict=True)),
        "training": median(training),
        "groups": len(groups),
        "overhead": overhead,
        "overhead_of_a_group": overhead / len(groups),
    }


def make_context(name, n_workers):
    options = {"n_jobs": n_workers} if name == "loky" else None
    return joblib.parallel_config("sktune", outer=name, outer_options=options)


def predict(row, n_workers, factor):
    """Return the seconds and the speed-up of a search whose groups take `factor` times as long.

    There is one group for each worker at least; what this process does is done one after another.
    """
    training = factor * row["training"] * row["workers"]
    n_groups = max(row["groups"], n_workers)
    seconds = training / n_workers + n_groups * row["overhead_of_a_group"]
    return seconds, training / seconds


def count_bytes(n_rows, n_columns):
    """Return the bytes of a table, and those that a search sends by Dask, with 2 workers."""
    from dask.distributed import Client, LocalCluster

    rng = np.random.default_rng(0)
    X = rng.normal(size=(n_rows, n_columns)).astype(np.float32)
    y = (X[:, 0] > 0).astype(int)
    sent = []
    cluster = LocalCluster(
        n_workers=2, threads_per_worker=1, dashboard_address=":0", silence_logs=50
    )
    with cluster, Client(cluster) as client:
        original = client.scatter

        def scatter(data, **options):
            sent.append(data.__sizeof__())
            return original(data, **options)

        client.scatter = scatter
        search = make_search(8, 1, n_folds=2)
        search.set_params(estimator__batch_size=1024)
        with joblib.parallel_config("dask"):
            search.fit(X, y)
    return {
        "table": X.nbytes,
        "sent": sum(sent),
        "workers": 2,
        "groups": len(search.fusion_.groups),
    }


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--engines", nargs="+", choices=list(MODULES), default=list(MODULES))
    parser.add_argument("--workers", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--candidates", type=int, default=60)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path, default=RESULTS / "scale_out.json")
    args = parser.parse_args(arguments)
    X, y = load_digits(return_X_y=True)
    X = (X / 16).astype(np.float32)
    rows = []
    print(f"{'':<8}{'workers':>8}{'search':>10}{'here':>9}{'ratio':>7}{'groups':>8}{'a group':>12}")
    for name in args.engines:
        if find_spec(MODULES[name]) is None:
            print(f"{name} is left out: it is not installed")
            continue
        for n_workers in args.workers:
            if name == "loky" and n_workers == 1:
                # joblib computes one job in the process that asks
                continue
            row = measure(name, n_workers, X, y, args)
            rows.append(row)
            print(
                f"{name:<8}{n_workers:>8}{row['seconds']:>8.2f} s{row['this_process']:>7.2f} s"
                f"{row['ratio']:>7.2f}{row['groups']:>8}"
                f"{1000 * row['overhead_of_a_group']:>9.1f} ms",
                flush=True,
            )
    models = []
    print("\nmodel of 8 machines of 8 GPUs, 64 workers: a group for each, so many times as long as")
    print("here; `search` is its training and the overhead of 64 groups, one after another")
    print(f"{'':<8}{'longer':>8}{'search':>12}{'speed-up':>10}")
    for row in rows:
        if row["workers"] < max(args.workers):
            continue
        for factor in (1, 100, 1000):
            seconds, speed_up = predict(row, 64, factor)
            models.append({**row, "factor": factor, "model": seconds, "speed_up": speed_up})
            print(f"{row['engine']:<8}{factor:>6} x{seconds:>10.2f} s{speed_up:>10.1f}")
    wire = count_bytes(125_000, 100) if find_spec("distributed") else None
    print(f"\nbytes that leave this process by Dask: {wire}")
    save({"rows": rows, "model": models, "wire": wire}, args.json)


if __name__ == "__main__":
    main()
