"""The main job on handwritten digits: search α and λ with cross-validation, then open the sealed test set once.

Run with ``make demo``, or ``python examples/digits_demo.py``; under a minute on two quiet cores.
"""

import time

import torch
from scipy.stats import loguniform, uniform
from sklearn.datasets import load_digits

from sktune import HoldoutSearch, NeuralNetClassifier, RandomizedSearchCV

SPACE = {
    "lr": loguniform(1e-4, 1e-1),  # α, the learning rate
    "optimizer__weight_decay": loguniform(1e-6, 1e-1),  # λ, the regularization strength
    "batch_size": [32, 64, 128],
    "module__dropout": uniform(0, 0.6),
}


def main():
    torch.set_num_threads(1)  # a net this small is trained no faster by several threads
    X, y = load_digits(return_X_y=True)
    X = X / 16  # pixels are counts from 0 to 16

    net = NeuralNetClassifier(max_epochs=15, random_state=0)
    search = RandomizedSearchCV(net, SPACE, n_iter=20, cv=5, scoring="accuracy", n_jobs=2, random_state=0, verbose=1)
    tuned = HoldoutSearch(search, test_size=0.2, random_state=0)

    print(f"Digits: {len(X)} rows of {X.shape[1]} pixels, {len(set(y))} classes.")
    start = time.perf_counter()
    tuned.fit(X, y)
    print()
    print(tuned.summary())
    print(f"\n{time.perf_counter() - start:.0f} s in all, with the baseline, the refit and the one evaluation.")


if __name__ == "__main__":
    main()
