"""The summary of a sealed search ends with what is wrong with it."""

import pytest
from sklearn.datasets import load_iris
from sklearn.exceptions import FitFailedWarning
from sklearn.linear_model import LogisticRegression

import sktune

X, y = load_iris(return_X_y=True)
MODEL = LogisticRegression(max_iter=1000)


def test_failed_fits_are_told():
    search = sktune.GridSearchCV(MODEL, {"C": [-1.0, 0.1, 1.0]}, cv=3)
    with (
        pytest.warns(FitFailedWarning, match="3 fits failed"),
        pytest.warns(UserWarning, match="One or more of the test scores are non-finite"),
    ):
        tuned = sktune.HoldoutSearch(search, random_state=0).fit(X, y)
    lines = tuned.summary().splitlines()
    assert any(line.startswith("Findings") and "failed" in line for line in lines)


def test_nothing_is_told_where_nothing_is_wrong():
    search = sktune.GridSearchCV(MODEL, {"C": [0.01, 0.1, 1.0, 10.0, 100.0]}, cv=3)
    tuned = sktune.HoldoutSearch(search, random_state=0).fit(X, y)
    assert "Findings" not in tuned.summary()


def test_several_metrics_without_one_that_chooses():
    search = sktune.GridSearchCV(
        MODEL,
        {"C": [0.1, 1.0]},
        cv=3,
        scoring=["accuracy", "neg_log_loss"],
        refit=lambda results: 0,
    )
    tuned = sktune.HoldoutSearch(search, random_state=0).fit(X, y)
    assert "Test accuracy" in tuned.summary()
