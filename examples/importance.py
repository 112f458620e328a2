"""What has mattered
=================

How much of the differences between the candidates each parameter explains, and what its values have
done.

A few seconds. With the name of a picture, ``python examples/importance.py shares.png``, it is drawn
there, too (needs matplotlib and pandas).
"""

import sys

from scipy.stats import loguniform, uniform
from sklearn.datasets import load_digits

from sktune import NeuralNetClassifier, RandomizedSearchCV
from sktune.inspection import ImportanceDisplay, effect_table

X, y = load_digits(return_X_y=True)
X, y = X[:600] / 16, y[:600]
net = NeuralNetClassifier(max_epochs=12, random_state=0)
space = {
    "lr": loguniform(1e-4, 1),
    "optimizer__weight_decay": loguniform(1e-5, 1),
    "module__dropout": uniform(0, 0.8),
    "batch_size": [32, 64, 128],
}
search = RandomizedSearchCV(net, space, n_iter=80, cv=3, random_state=0).fit(X, y)

# %%
# The shares of the variance of predicted scores: hatched bars are of pairs. The title says whether
# the candidates are enough to tell.

display = ImportanceDisplay.from_search(search, random_state=0)
print(display.importance)

# %%
# What the values of the learning rate have done, in bins of its own scale.

table = effect_table(search, "lr", n_bins=5)
print(table[["n_candidates", "mean_score", "best_score", "epochs_to_converge"]].round(3))
if len(sys.argv) > 1:
    display.figure_.savefig(sys.argv[1])
