"""How far the best of many scores lies above the score on new data."""

import matplotlib.pyplot as plt
import numpy as np
from scipy.stats import loguniform, uniform
from sklearn.datasets import make_classification
from sklearn.model_selection import train_test_split

from sktune import NeuralNetClassifier, RandomizedSearchCV

X, y = make_classification(4000, 20, n_informative=4, flip_y=0.3, random_state=0)
space = {
    "lr": loguniform(1e-3, 1e-1),
    "module__dropout": uniform(0, 0.6),
    "random_state": list(range(100)),
}
net = NeuralNetClassifier(max_epochs=10, module__hidden=(16,))
counts = np.arange(1, 41)
found = {"best cross-validated score": [], "the same candidate on 3,880 new rows": []}
for seed in range(8):
    few, new, y_few, y_new = train_test_split(X, y, train_size=120, stratify=y, random_state=seed)
    search = RandomizedSearchCV(net, space, n_iter=40, cv=5, refit=False, random_state=seed)
    results = search.fit(few, y_few).cv_results_["mean_test_score"]
    best = [int(np.argmax(results[:count])) for count in counts]
    tests = {}
    for index in sorted(set(best)):
        candidate = net.set_params(**search.cv_results_["params"][index]).fit(few, y_few)
        tests[index] = candidate.score(new, y_new)
    scores, news = found.values()
    scores.append([results[index] for index in best])
    news.append([tests[index] for index in best])

fig, ax = plt.subplots()
for label, curves in found.items():
    ax.plot(counts, np.mean(curves, axis=0), label=label)
ax.set(xlabel="candidates", ylabel="accuracy", title="120 rows, mean of 8 searches")
ax.legend()
