"""The demo: digits with a sealed test set
=======================================

Tune a network on handwritten digits, and score it once on a sealed test set.

The search chooses the learning rate α and the regularization strength λ by cross-validation. Run it
with ``make demo``, or ``python examples/digits_demo.py``. The 300 fits are trained together, which
takes about 5 s on two idle cores, and ten more the first time, to compile the steps. At the end,
``report.html`` in the current folder has all that was found.
"""

import time

from scipy.stats import loguniform, uniform
from sklearn.datasets import load_digits

from sktune import HoldoutSearch, NeuralNetClassifier, RandomizedSearchCV
from sktune.inspection import report

SPACE = {
    "lr": loguniform(1e-4, 1e-1),  # α, the learning rate
    "optimizer__weight_decay": loguniform(1e-6, 1e-1),  # λ, the regularization strength
    "batch_size": [32, 64, 128],
    "module__dropout": uniform(0, 0.6),
}


def main():
    X, y = load_digits(return_X_y=True)
    # Pixels are counts from 0 to 16.
    X = X / 16

    net = NeuralNetClassifier(max_epochs=20, random_state=0)
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
