"""The best score so far over the candidates of a random and a Bayesian search."""

import matplotlib.pyplot as plt
import numpy as np
from scipy.stats import loguniform, uniform
from sklearn.datasets import load_digits

from sktune import BayesSearchCV, NeuralNetClassifier, RandomizedSearchCV

X, y = load_digits(return_X_y=True)
net = NeuralNetClassifier(max_epochs=8, random_state=0)
space = {
    "lr": loguniform(1e-5, 1.0),
    "optimizer__weight_decay": loguniform(1e-6, 1.0),
    "module__dropout": uniform(0, 0.8),
}
fig, ax = plt.subplots()
options = {"n_iter": 40, "cv": 3, "random_state": 0}
searches = {
    "random": RandomizedSearchCV(net, space, **options),
    "Bayesian": BayesSearchCV(net, space, batch_size=8, **options),
}
for (label, search), color in zip(searches.items(), ("tab:blue", "tab:orange"), strict=True):
    scores = search.fit(X / 16, y).cv_results_["mean_test_score"]
    numbers = np.arange(1, 41)
    ax.scatter(numbers, scores, s=9, color=color, alpha=0.5)
    ax.step(numbers, np.fmax.accumulate(scores), where="post", color=color, label=label)
# candidates below are not shown
ax.set_ylim(0.8, 0.97)
ax.set(xlabel="candidate", ylabel="accuracy, 3 folds", title="Each candidate, and the best so far")
ax.legend(loc="lower right")
