"""Tuning in stages
================

The learning rate first, then the regularization, and at last all parameters together.
"""

from scipy.stats import loguniform, uniform
from sklearn.datasets import load_breast_cancer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sktune import NeuralNetClassifier, StagedSearch, zero_or

X, y = load_breast_cancer(return_X_y=True)
net = NeuralNetClassifier(module__hidden=(32,), max_epochs=15, random_state=0)
model = make_pipeline(StandardScaler(), net)

# %%
# A stage has a name and a space.

prefix = "neuralnetclassifier__"
stages = [
    ("alpha", {f"{prefix}lr": loguniform(1e-4, 1e-1)}),
    (
        "regularization",
        {
            f"{prefix}optimizer__weight_decay": zero_or(loguniform(1e-5, 1.0)),
            f"{prefix}module__dropout": uniform(0, 0.5),
        },
    ),
    # None: all parameters of the stages before, near the best that is known
    ("all", None),
]
search = StagedSearch(
    model, stages, n_iter={"alpha": 8, "regularization": 12, "all": 16}, cv=5, random_state=0
)
search.fit(X, y)

# %%
# Each stage begins at the best that is known.

print("stage            candidates  best accuracy so far")
for stage in search.stages_:
    print(f"{stage['name']:<16} {stage['n_candidates']:>10}  {stage['best_score']:.4f}")
print("\nBest parameters:")
for name, value in search.best_params_.items():
    print(f"  {name.removeprefix(prefix)} = {value:.4g}")
