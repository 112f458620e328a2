"""Scores over the learning rate for several batch sizes, with and without a scaled rate."""

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits

from sktune import GridSearchCV, NeuralNetClassifier

X, y = load_digits(return_X_y=True)
rates = np.geomspace(1e-4, 1e-1, 10)
sizes = [32, 128, 512]
fig, axes = plt.subplots(1, 2, sharey=True)
titles = {None: "lr as it is", "sqrt": 'lr_scaling="sqrt"'}
for ax, (scaling, title) in zip(axes, titles.items(), strict=True):
    net = NeuralNetClassifier(lr_scaling=scaling, max_epochs=8, random_state=0)
    search = GridSearchCV(net, {"batch_size": sizes, "lr": rates.tolist()}, cv=3)
    results = search.fit(X / 16, y).cv_results_
    for size, scores in zip(sizes, results["mean_test_score"].reshape(3, -1), strict=True):
        ax.plot(rates, scores, marker="o", markersize=3, label=f"batch size {size}")
    ax.set(xscale="log", xlabel="lr", title=title)
axes[0].set_ylabel("accuracy, 3 folds")
axes[0].legend()
