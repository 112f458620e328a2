"""Scores over weight decay and dropout: a table of numbers as an image."""

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits

from sktune import GridSearchCV, NeuralNetClassifier

X, y = load_digits(return_X_y=True)
rng = np.random.default_rng(0)
rows = rng.permutation(len(X))[:400]
decays = [0.0, 1e-3, 1e-2, 1e-1, 1.0, 3.0]
dropouts = [0.0, 0.2, 0.4, 0.6, 0.8]
net = NeuralNetClassifier(lr=1e-2, max_epochs=25, random_state=0)
grid = {"optimizer__weight_decay": decays, "module__dropout": dropouts}
search = GridSearchCV(net, grid, cv=5).fit(X[rows] / 16, y[rows])
params = search.cv_results_["params"]
scores = np.empty((len(dropouts), len(decays)))
for candidate, score in zip(params, search.cv_results_["mean_test_score"], strict=True):
    row = dropouts.index(candidate["module__dropout"])
    scores[row, decays.index(candidate["optimizer__weight_decay"])] = score

fig, ax = plt.subplots()
image = ax.imshow(scores, cmap="viridis", aspect="auto", origin="lower")
for (row, column), score in np.ndenumerate(scores):
    dark = score < (scores.min() + scores.max()) / 2
    color = "white" if dark else "black"
    ax.text(column, row, f"{score:.3f}", ha="center", va="center", color=color)
ax.set_xticks(range(len(decays)), [f"{decay:g}" for decay in decays])
ax.set_yticks(range(len(dropouts)), [f"{dropout:g}" for dropout in dropouts])
ax.set(xlabel="weight decay λ", ylabel="dropout", title="Accuracy, 5 folds of 400 digits")
fig.colorbar(image)
