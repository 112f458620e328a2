"""Quickstart
==========

Use a network as a scikit-learn estimator.

The script shows text labels, a Pipeline, cross-validation, repeatable fits and pickling.
"""

import pickle

import numpy as np
from sklearn.datasets import load_wine
from sklearn.model_selection import cross_val_score, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sktune import DivergenceError, NeuralNetClassifier

wine = load_wine(as_frame=True)
X = wine.data  # a frame of float64
y = np.array(["Barolo", "Grignolino", "Barbera"])[wine.target]  # labels are text
X_train, X_test, y_train, y_test = train_test_split(X, y, stratify=y, random_state=0)

net = NeuralNetClassifier(
    lr=0.01, max_epochs=30, module__hidden=(32,), module__dropout=0.1, random_state=0
)
model = make_pipeline(StandardScaler(), net)

# %%
# Cross-validation
# ----------------

scores = cross_val_score(model, X_train, y_train, cv=5)
print(f"Cross-validated accuracy: {scores.mean():.3f} ± {scores.std():.3f}")

# %%
# Fit, predict and probabilities
# ------------------------------

model.fit(X_train, y_train)
print(f"Accuracy on {len(X_test)} other rows: {model.score(X_test, y_test):.3f}")
print("First wine:", model.predict(X_test[:1])[0])
for label, probability in zip(model.classes_, model.predict_proba(X_test[:1])[0], strict=True):
    print(f"  {label:<11} {probability:.3f}")

# %%
# Repeatable fits, and pickling
# -----------------------------

again = make_pipeline(StandardScaler(), net).fit(X_train, y_train)
same = np.array_equal(model.predict_proba(X_test), again.predict_proba(X_test))
print("A second fit with the same random_state gives the same probabilities:", same)

restored = pickle.loads(pickle.dumps(model))
same = np.array_equal(model.predict_proba(X_test), restored.predict_proba(X_test))
print("So does the model pickled and restored:", same)

# %%
# Divergence
# ----------

unstable = make_pipeline(StandardScaler(), NeuralNetClassifier(lr=1e35, random_state=0))
try:
    unstable.fit(X_train, y_train)
except DivergenceError as error:
    print("A net that diverges raises:", error)
