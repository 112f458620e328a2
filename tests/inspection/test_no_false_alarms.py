"""Well-tuned searches on ten data sets have no finding that is more than a note."""

import numpy as np
import pytest
from scipy.stats import loguniform, uniform
from sklearn import datasets
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler

from sktune import NeuralNetClassifier, NeuralNetRegressor, RandomizedSearchCV, zero_or
from sktune.inspection import diagnose


def load_digits_subset():
    X, y = datasets.load_digits(return_X_y=True)
    return X[:600], y[:600]


def load_diabetes():
    X, y = datasets.load_diabetes(return_X_y=True)
    return X, (y - y.mean()) / y.std()


def make_regression():
    X, y = datasets.make_regression(200, 8, n_informative=5, noise=20.0, random_state=0)
    return X, (y - y.mean()) / y.std()


def make_friedman():
    X, y = datasets.make_friedman1(300, noise=1.0, random_state=0)
    return X, (y - y.mean()) / y.std()


CLASSIFICATION = {
    "iris": lambda: datasets.load_iris(return_X_y=True),
    "wine": lambda: datasets.load_wine(return_X_y=True),
    "moons": lambda: datasets.make_moons(200, noise=0.2, random_state=0),
    "classes": lambda: datasets.make_classification(200, 10, random_state=0),
    "digits": load_digits_subset,
    "cancer": lambda: datasets.load_breast_cancer(return_X_y=True),
    "many-classes": lambda: datasets.make_classification(
        400, 15, n_informative=8, n_classes=4, random_state=1
    ),
}
REGRESSION = {"diabetes": load_diabetes, "regression": make_regression, "friedman": make_friedman}
QUICK = ("wine", "moons", "regression")


def search_well(X, y, kind):
    """Tune a network as one should."""
    net = kind(max_epochs=200, early_stopping=True, n_iter_no_change=20, random_state=0)
    space = {
        "net__lr": loguniform(1e-3, 3e-2),
        "net__optimizer__weight_decay": zero_or(loguniform(1e-5, 1e-1)),
        "net__module__dropout": uniform(0, 0.5),
    }
    model = Pipeline([("scaler", StandardScaler()), ("net", net)])
    search = RandomizedSearchCV(
        model, space, n_iter=12, cv=3, random_state=0, return_train_score=True
    )
    return search.fit(X, y)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=() if name in QUICK else pytest.mark.slow)
        for name in (*CLASSIFICATION, *REGRESSION)
    ],
)
def test_good_search_has_no_warning(name):
    if name in CLASSIFICATION:
        X, y = CLASSIFICATION[name]()
        search = search_well(X, y, NeuralNetClassifier)
    else:
        X, y = REGRESSION[name]()
        search = search_well(X, y.astype(np.float32), NeuralNetRegressor)

    findings = diagnose(search, X, y)

    assert [str(found) for found in findings if found.severity != "note"] == []
    assert search.best_score_ > 0.3
    assert "lr-too-small" not in findings.skipped
