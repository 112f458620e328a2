"""Mixing with classical models
============================

Combine a network with scikit-learn's own models.

The network is averaged, stacked, bagged, calibrated, and chosen by a search.
"""

from scipy.stats import loguniform
from sklearn.calibration import CalibratedClassifierCV
from sklearn.datasets import load_breast_cancer
from sklearn.ensemble import (
    BaggingClassifier,
    HistGradientBoostingClassifier,
    StackingClassifier,
    VotingClassifier,
)
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, brier_score_loss
from sklearn.model_selection import train_test_split
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from sktune import HoldoutSearch, NeuralNetClassifier, RandomizedSearchCV

cancer = load_breast_cancer()
X, y = cancer.data, cancer.target_names[cancer.target]  # labels: "malignant" and "benign"
X_train, X_test, y_train, y_test = train_test_split(X, y, test_size=0.3, stratify=y, random_state=0)


def scaled(model):
    return make_pipeline(StandardScaler(), model)


net = NeuralNetClassifier(lr=3e-3, max_epochs=15, module__hidden=(32,), random_state=0)
forest = HistGradientBoostingClassifier(max_iter=50, random_state=0)
logistic = LogisticRegression(max_iter=1000)
mixed = [("net", scaled(net)), ("boosting", forest), ("logistic", scaled(logistic))]

# %%
# One of several models
# ---------------------

models = {
    "the net alone": scaled(net),
    "gradient boosting alone": forest,
    "soft voting of net, boosting and logistic": VotingClassifier(mixed, voting="soft"),
    "the same three, stacked": StackingClassifier(mixed, LogisticRegression(), cv=3),
    "five bagged nets": scaled(BaggingClassifier(net, n_estimators=5, random_state=0)),
    "the net, calibrated": CalibratedClassifierCV(scaled(net), cv=3),
}
print(f"{'on ' + str(len(X_test)) + ' test rows':<42} {'accuracy':>8} {'Brier':>7}")
for name, model in models.items():
    model.fit(X_train, y_train)
    accuracy = accuracy_score(y_test, model.predict(X_test))
    brier = brier_score_loss(y_test, model.predict_proba(X_test)[:, 1], pos_label=model.classes_[1])
    print(f"{name:<42} {accuracy:8.3f} {brier:7.4f}")

# %%
# One search over two kinds of model
# ----------------------------------
#
# The last step of the Pipeline is a parameter like any other.

pipeline = Pipeline([("scale", StandardScaler()), ("model", net)])
space = [
    {
        "model": [net],
        "model__lr": loguniform(1e-4, 1e-1),
        "model__optimizer__weight_decay": loguniform(1e-6, 1e-1),
    },
    {
        "model": [forest],
        "model__learning_rate": loguniform(1e-2, 1),
        "model__l2_regularization": loguniform(1e-4, 10),
    },
]
search = RandomizedSearchCV(
    pipeline, space, n_iter=12, cv=3, scoring="neg_log_loss", random_state=0
)
tuned = HoldoutSearch(search, test_size=0.3, random_state=0).fit(X, y)
print("\nA search in which the net competes with gradient boosting, by the log loss:")
print(f"  chosen: {type(tuned.best_params_['model']).__name__}")
low, high = tuned.test_interval_
print(f"  test score {tuned.test_score_:.3f} (95% interval {low:.3f} to {high:.3f})")
