"""A report of a search
====================

One HTML file with all that was found, to open or to send.
"""

import tempfile
from pathlib import Path

from scipy.stats import loguniform, uniform
from sklearn.datasets import load_digits

from sktune import HoldoutSearch, NeuralNetClassifier, RandomizedSearchCV, zero_or
from sktune.inspection import report

X, y = load_digits(return_X_y=True)
X = X / 16
space = {
    "lr": loguniform(1e-4, 1e-1),
    "optimizer__weight_decay": zero_or(loguniform(1e-6, 1e-1)),
    "module__dropout": uniform(0, 0.6),
    "module__activation": ["relu", "tanh"],
}
net = NeuralNetClassifier(max_epochs=8, random_state=0)
search = RandomizedSearchCV(net, space, n_iter=24, cv=3, scoring="accuracy", random_state=0)
tuned = HoldoutSearch(search, random_state=0).fit(X, y)

path = report(tuned, Path(tempfile.mkdtemp()) / "report.html", title="Digits")
print(f"{path.stat().st_size / 1000:.0f} kB with all {search.n_iter} candidates: {path}")
