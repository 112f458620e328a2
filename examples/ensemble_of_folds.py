"""An ensemble of what was trained anyway
======================================

The nets that a search has trained for its folds are averaged: no further training, fewer errors.
"""

from scipy.stats import loguniform
from sklearn.datasets import load_digits

from sktune import HoldoutSearch, NeuralNetClassifier, RandomizedSearchCV

X, y = load_digits(return_X_y=True)
net = NeuralNetClassifier(max_epochs=15, random_state=0)
space = {
    "lr": loguniform(1e-3, 3e-2),
    "module__dropout": [0.0, 0.2, 0.5],
    "module__hidden": [(32,), (64,)],
}
search = RandomizedSearchCV(
    net, space, n_iter=12, cv=5, scoring="neg_log_loss", random_state=0, ensemble="greedy"
)

# %%
# Both the single model and the ensemble are scored once, on rows that the search has not seen.

tuned = HoldoutSearch(search, random_state=0).fit(X / 16, y)
print(tuned.summary())

# %%
# The members, and their weights.

search = tuned.search_
print(f"\nCross-validated: best {search.best_score_:.4f}, ensemble {search.ensemble_score_:.4f}")
print(f"{len(search.ensemble_.members_)} nets predict together; weights of the candidates:")
for params, weight in zip(search.cv_results_["params"], search.ensemble_weights_, strict=True):
    if weight > 0:
        print(f"  {weight:.2f}  {params}")
size = search.oof_predictions_.nbytes / 2**20
print(f"Out-of-fold predictions: {search.oof_predictions_.shape}, {size:.1f} MB")
