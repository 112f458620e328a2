"""A range test of the learning rate."""

import matplotlib.pyplot as plt
from sklearn.datasets import load_digits

from sktune import LRRangeDisplay, NeuralNetClassifier

X, y = load_digits(return_X_y=True)
net = NeuralNetClassifier(max_epochs=10, random_state=0)
fig, ax = plt.subplots()
LRRangeDisplay.from_estimator(net, X / 16, y, ax=ax)
ax.set_title("64 rates on 3 splits, digits")
