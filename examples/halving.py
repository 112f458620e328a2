"""A search by halving
===================

scikit-learn's search by halving gives few rows to many candidates, and more rows to those that
did well. Its networks are trained together under joblib's backend ``"sktune"``.

A few seconds. With the name of a picture, ``python examples/halving.py rungs.png``, it is drawn
there, too (needs matplotlib and pandas).
"""

import sys

import joblib
from scipy.stats import loguniform, uniform
from sklearn.datasets import load_digits
from sklearn.experimental import enable_halving_search_cv  # noqa: F401
from sklearn.model_selection import HalvingRandomSearchCV

from sktune import NeuralNetClassifier
from sktune.inspection import HalvingDisplay

X, y = load_digits(return_X_y=True)
net = NeuralNetClassifier(max_epochs=12, random_state=0)
space = {"lr": loguniform(1e-4, 1), "module__dropout": uniform(0, 0.8)}

# %%
# 27 candidates begin with 60 rows each; a third of them goes on with three times as many.

search = HalvingRandomSearchCV(
    net, space, n_candidates=27, min_resources=60, factor=3, cv=3, random_state=0
)
with joblib.parallel_config("sktune"):
    search.fit(X / 16, y)
print(f"Rows by rung: {search.n_resources_}; candidates: {search.n_candidates_}")
print(f"Best accuracy: {search.best_score_:.3f} with lr={search.best_params_['lr']:.2g}")

# %%
# The rungs: which candidates went on, and what they scored with more rows.

display = HalvingDisplay.from_search(search)
print(display.to_frame().groupby(["rung", "n_resources"])["score"].describe().round(3))
if len(sys.argv) > 1:
    display.figure_.savefig(sys.argv[1])
