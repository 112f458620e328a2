"""Halving and Hyperband
=====================

Many candidates get a few epochs each, a third of them three times as many, and so on. The splits
stay the same, and a network that is left goes on from where it stands: a rung costs the epochs that
it adds. Hyperband does this in several brackets, which are trained together.

A few seconds. With the name of a picture, ``python examples/halving.py rungs.png``, it is drawn
there, too (needs matplotlib and pandas).
"""

import sys

from scipy.stats import loguniform, uniform
from sklearn.datasets import load_digits

from sktune import HalvingRandomSearchCV, HyperbandSearchCV, NeuralNetClassifier
from sktune.inspection import HalvingDisplay

X, y = load_digits(return_X_y=True)
X /= 16
net = NeuralNetClassifier(max_epochs=27, random_state=0)
space = {"lr": loguniform(1e-4, 1), "module__dropout": uniform(0, 0.8)}

# %%
# What a search will cost can be asked before.

search = HalvingRandomSearchCV(net, space, cv=3, random_state=0)
print(search.plan(X, y))

# %%
# The epochs that are trained are those of the plan.

search.fit(X, y)
print(f"Epochs trained: {search.fusion_.sharing.n_trained_epochs}")
print(f"Best accuracy: {search.best_score_:.3f} with lr={search.best_params_['lr']:.2g}")

# %%
# Hyperband spends about as much in each bracket: on many candidates with few epochs at first, and
# on few candidates with many. It is of use where good candidates may be slow at the beginning.

hyperband = HyperbandSearchCV(net, space, cv=3, random_state=0).fit(X, y)
for bracket in hyperband.brackets_:
    print(bracket["n_candidates"], "candidates,", bracket["n_resources"], "epochs")
print(f"Best accuracy: {hyperband.best_score_:.3f} with lr={hyperband.best_params_['lr']:.2g}")

# %%
# The rungs: which candidates went on, and what they scored with more epochs.

display = HalvingDisplay.from_search(search)
print(display.to_frame().groupby(["rung", "n_resources"])["score"].describe().round(3))
if len(sys.argv) > 1:
    display.figure_.savefig(sys.argv[1])
