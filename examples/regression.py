"""Regression
==========

Scaled targets, several targets at once, and a search with a sealed test set.
"""

import warnings

import numpy as np
from sklearn.compose import TransformedTargetRegressor
from sklearn.datasets import load_diabetes
from sklearn.linear_model import RidgeCV
from sklearn.metrics import r2_score
from sklearn.model_selection import cross_val_score, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sktune import HoldoutSearch, NeuralNetRegressor, RandomizedSearchCV, default_space

# %%
# The target is the disease progression of 442 patients, from 25 to 346. A net learns it best when
# it is scaled. TransformedTargetRegressor scales it in fit, and scales the predictions back.

X, y = load_diabetes(return_X_y=True)
net = NeuralNetRegressor(lr=3e-3, max_epochs=20, module__hidden=(32,), random_state=0)
unscaled = make_pipeline(StandardScaler(), net)
model = TransformedTargetRegressor(unscaled, transformer=StandardScaler())

print("Diabetes, cross-validated R²:")
for name, candidate in {
    "ridge regression": make_pipeline(StandardScaler(), RidgeCV()),
    "net, target as it is": unscaled,
    "net, target scaled": model,
}.items():
    with warnings.catch_warnings():
        # The net warns of targets far from zero. This comparison shows why.
        warnings.filterwarnings("ignore", message="the targets y should be scaled")
        score = cross_val_score(candidate, X, y, cv=5, scoring="r2").mean()
    print(f"  {name:<22} {score:6.3f}")

# %%
# The scaled net is tuned on four fifths of the rows.

search = RandomizedSearchCV(
    model, default_space(model), n_iter=15, cv=5, scoring="r2", random_state=0
)
tuned = HoldoutSearch(search, random_state=0).fit(X, y)
print("\nThe net, tuned:")
print(tuned.summary())

# %%
# One net for two targets: how far a shot flies, and for how long, given speed, angle and height.

rng = np.random.default_rng(0)
speed, angle, height = rng.uniform([5, 0.1, 0], [30, 1.4, 20], size=(600, 3)).T
rise = speed * np.sin(angle)
seconds = (rise + np.sqrt(rise**2 + 2 * 9.81 * height)) / 9.81
shots = np.column_stack([speed, angle, height])
targets = np.column_stack([speed * np.cos(angle) * seconds, seconds])
train, test, targets_train, targets_test = train_test_split(shots, targets, random_state=0)

net = NeuralNetRegressor(
    lr=1e-2, max_epochs=60, lr_schedule="cosine", module__hidden=(64, 64), random_state=0
)
model = TransformedTargetRegressor(
    make_pipeline(StandardScaler(), net), transformer=StandardScaler()
)
predicted = model.fit(train, targets_train).predict(test)
distance, duration = r2_score(targets_test, predicted, multioutput="raw_values")
print(
    f"\nTwo targets by one net, R² on {len(test)} other shots: "
    f"distance {distance:.3f}, duration {duration:.3f}"
)
