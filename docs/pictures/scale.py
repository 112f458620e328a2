"""The training loss of one net on features as they are, and on scaled ones."""

import warnings

import matplotlib.pyplot as plt
from sklearn.datasets import load_wine
from sklearn.preprocessing import StandardScaler

from sktune import NeuralNetClassifier

X, y = load_wine(return_X_y=True)
net = NeuralNetClassifier(max_epochs=40, lr=3e-3, random_state=0)
fig, ax = plt.subplots()
for label, table in (("as they are", X), ("scaled", StandardScaler().fit_transform(X))):
    with warnings.catch_warnings():
        # what the picture is about
        warnings.filterwarnings("ignore", message=".*should be scaled")
        net.fit(table, y)
    ax.plot(range(1, 41), net.loss_curve_, label=f"features {label}")
ax.set(xlabel="epoch", ylabel="training loss", yscale="log", title="One net, wine data")
ax.legend()
