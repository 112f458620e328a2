"""Pictures of a search
====================

Losses by epoch, and scores by one parameter, by two, and over time. Each picture has a table that
says the same: ``display.to_frame()``.

Some seconds. With the name of a folder, ``python examples/pictures.py pictures``, it keeps the
pictures there (needs matplotlib and pandas).
"""

import sys
from pathlib import Path

from scipy.stats import loguniform, uniform
from sklearn.datasets import load_digits

from sktune import GridSearchCV, NeuralNetClassifier, RandomizedSearchCV
from sktune.inspection import LossCurveDisplay, SearchDisplay

X, y = load_digits(return_X_y=True)
X, y = X[:600] / 16, y[:600]
net = NeuralNetClassifier(max_epochs=12, random_state=0)

# %%
# Losses by epoch
# ---------------
#
# A line is the mean over the folds. Its name tells the regime of the learning rate α: too small,
# where the loss still falls at the last epoch and others are far below; good; too large, where the
# loss rises, jumps or oscillates.

rates = {"lr": [1e-4, 1e-3, 1e-2, 0.3]}
few = GridSearchCV(net, rates, cv=3).fit(X, y)
losses = LossCurveDisplay.from_search(few)
regimes = losses.to_frame().groupby("candidate")["regime"].first()
print("Learning rates by their regime:")
print(dict(zip(rates["lr"], regimes, strict=True)))

# %%
# The score by one parameter
# --------------------------
#
# Bars are standard errors over the folds. The scale is that of the space: logarithmic for α.

space = {
    "lr": loguniform(1e-4, 0.3),
    "optimizer__weight_decay": loguniform(1e-4, 3),
    "module__dropout": uniform(0, 0.8),
}
search = RandomizedSearchCV(net, space, n_iter=60, cv=3, random_state=0).fit(X, y)
by_rate = SearchDisplay.from_search(search, "lr")
print("\nThe best three of 60:")
print(by_rate.to_frame().nlargest(3, "score").round(4).to_string(index=False))

# %%
# A map of two parameters
# -----------------------
#
# Between the candidates is what a Gaussian process predicts, where it can be trusted: where it
# also predicts candidates that it has not seen, and not far from all of them.

by_two = SearchDisplay.from_search(search, ("lr", "weight_decay"))

# %%
# A grid is a heat map. Here α and the batch size interact: larger batches want larger rates.

grid = {"lr": [1e-4, 3e-4, 1e-3, 3e-3, 1e-2], "batch_size": [32, 64, 128, 256]}
pairs = GridSearchCV(net, grid, cv=3).fit(X, y)
heat_map = SearchDisplay.from_search(pairs, ("lr", "batch_size"))

# %%
# The score over time
# -------------------
#
# All candidates in the order of the search, and the best so far.

progress = SearchDisplay.from_search(search, kind="progress")

# %%
# All parameters at once
# ----------------------
#
# Each line is a candidate; the best one is thick.

parallel = SearchDisplay.from_search(search, kind="parallel")

if len(sys.argv) > 1:
    displays = {"losses": losses, "by_rate": by_rate, "by_two": by_two}
    displays |= {"heat_map": heat_map, "progress": progress, "parallel": parallel}
    folder = Path(sys.argv[1])
    folder.mkdir(exist_ok=True)
    for name, display in displays.items():
        display.figure_.savefig(folder / f"{name}.png")
