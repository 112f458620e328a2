"""The demo: digits with a sealed test set
=======================================

Tune a network on handwritten digits, and score it once on a sealed test set.

The search chooses the learning rate α and the regularization strength λ by cross-validation. Run it
with ``make demo``, or ``python examples/digits_demo.py``. The 300 fits are trained together, which
takes about 5 s on two idle cores. The first run compiles the steps, which takes some seven
seconds more; the demo tells how long. At the end, ``report.html`` in the current folder has all
that was found.
"""

import time

from scipy.stats import loguniform, uniform
from sklearn.base import clone
from sklearn.datasets import load_digits

from sktune import HoldoutSearch, NeuralNetClassifier, RandomizedSearchCV
from sktune.inspection import report

SPACE = {
    "lr": loguniform(1e-4, 1e-1),  # α, the learning rate
    "optimizer__weight_decay": loguniform(1e-6, 1e-1),  # λ, the regularization strength
    "batch_size": [32, 64, 128],
    "module__dropout": uniform(0, 0.6),
}


def time_first_fit(net, X, y):
    """Return by how many seconds the first fit of this process takes longer than the second."""
    seconds = []
    for _ in range(2):
        start = time.perf_counter()
        clone(net).set_params(max_epochs=1).fit(X, y)
        seconds.append(time.perf_counter() - start)
    return seconds[0] - seconds[1]


def main():
    X, y = load_digits(return_X_y=True)
    # Pixels are counts from 0 to 16.
    X = X / 16

    net = NeuralNetClassifier(max_epochs=20, random_state=0)
    print("Making the first steps (on the first run, they are compiled, and kept) ...", flush=True)
    print(f"... took {time_first_fit(net, X, y):.1f} s.")
    search = RandomizedSearchCV(
        net, SPACE, n_iter=60, cv=5, scoring="accuracy", random_state=0, verbose=1
    )
    tuned = HoldoutSearch(search, test_size=0.2, random_state=0)

    print(f"Digits: {len(X)} rows of {X.shape[1]} pixels, {len(set(y))} classes.")
    start = time.perf_counter()
    tuned.fit(X, y)
    print()
    print(tuned.summary())
    print(f"\n{tuned.search_.fusion_}")
    seconds = time.perf_counter() - start
    print(f"{seconds:.0f} s in all, with the baseline, the refit and the one evaluation.")

    path = report(tuned, "report.html", title="Digits")
    print(f"The report: open {path.resolve()} in a browser.")


if __name__ == "__main__":
    main()
