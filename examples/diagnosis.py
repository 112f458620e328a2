"""What is wrong with a search
===========================

A badly set search, its findings, and the mended one.
"""

import warnings

from scipy.stats import loguniform, uniform
from sklearn.datasets import load_wine
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sktune import NeuralNetClassifier, RandomizedSearchCV
from sktune.inspection import diagnose

X, y = load_wine(return_X_y=True)

# Features as they are, tiny learning rates, few epochs, and few candidates.
net = NeuralNetClassifier(max_epochs=15, random_state=0)
bad = RandomizedSearchCV(net, {"lr": loguniform(1e-6, 1e-4)}, n_iter=2, cv=3, random_state=0)
with warnings.catch_warnings():
    # that the features are not scaled is among the findings
    warnings.simplefilter("ignore")
    bad.fit(X, y)
print(f"A badly set search: accuracy {bad.best_score_:.3f}")
print(diagnose(bad, X, y))

# Scaled features, early stopping, and a space around the usual values.
net = NeuralNetClassifier(max_epochs=200, early_stopping=True, n_iter_no_change=20, random_state=0)
space = {
    "neuralnetclassifier__lr": loguniform(1e-3, 3e-2),
    "neuralnetclassifier__optimizer__weight_decay": loguniform(1e-5, 1e-1),
    "neuralnetclassifier__module__dropout": uniform(0, 0.5),
}
model = make_pipeline(StandardScaler(), net)
good = RandomizedSearchCV(model, space, n_iter=30, cv=3, random_state=0).fit(X, y)
print(f"\nThe mended search: accuracy {good.best_score_:.3f}")
print(diagnose(good, X, y))
