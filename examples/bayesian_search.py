"""Bayesian search
===============

Candidates are chosen by earlier scores, and a search ends by itself.
"""

import numpy as np
from scipy.stats import loguniform, randint, uniform
from sklearn.datasets import load_digits
from sklearn.tree import DecisionTreeClassifier

from sktune import BayesSearchCV, NeuralNetClassifier, RandomizedSearchCV, loguniform_int, zero_or

X, y = load_digits(return_X_y=True)
X = X / 16
net = NeuralNetClassifier(lr=1e-3, max_epochs=8, random_state=0)
space = {
    "lr": loguniform(1e-4, 1e-1),
    "optimizer__weight_decay": zero_or(loguniform(1e-6, 1)),
    "module__dropout": uniform(0, 0.6),
}

# %%
# Each search evaluates 30 candidates in three rounds; the networks of a round are trained together.

print("Digits, accuracy of the best of 30 candidates, and their mean in the last round:")
searches = {"random": RandomizedSearchCV(net, space, n_iter=30, cv=3, random_state=0)}
for sampler in ("gp", "tpe"):
    searches[sampler] = BayesSearchCV(net, space, n_iter=30, sampler=sampler, cv=3, random_state=0)
for name, search in searches.items():
    search.fit(X, y)
    last = search.cv_results_["mean_test_score"][20:]
    print(f"  {name:<7} {search.best_score_:.3f} {np.mean(last):.3f}")

# The first candidate is the net as it is.
print(f"As it is: {searches['gp'].cv_results_['mean_test_score'][0]:.3f}")

# %%
# 300 candidates, unless a round is expected to gain too little to be told from chance.

search = BayesSearchCV(
    net, space, n_iter=300, batch_size=20, stop="auto", cv=3, random_state=0
).fit(X, y)
print(f"\nStopped after {len(search.cv_results_['params'])} candidates: {search.stop_reason_}.")

# %%
# Other estimators are searched, too; what is as good as the best, but simpler, can be chosen.

search = BayesSearchCV(
    DecisionTreeClassifier(random_state=0),
    {"max_depth": randint(2, 20), "min_samples_leaf": loguniform_int(1, 30)},
    n_iter=12,
    refit="one_standard_error",
    cv=3,
    random_state=0,
).fit(X, y)
print(f"\nA tree: {search.best_params_}, {search.best_score_:.3f}")
