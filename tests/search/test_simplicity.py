import numpy as np
import pytest
from scipy.stats import loguniform
from sklearn import model_selection
from sklearn.datasets import make_classification
from sklearn.linear_model import LogisticRegression

from sktune import BayesSearchCV, GridSearchCV, OneStandardError, RandomizedSearchCV

X, y = make_classification(60, n_features=4, flip_y=0.2, random_state=0)
# by hand: the best has mean 0.9 and a standard error of 0.1 / sqrt(3) = 0.058
RESULTS = {
    "params": [{"C": 10, "w": (4, 4)}, {"C": 3, "w": (9,)}, {"C": 1, "w": (2, 2)}, {"C": 0.1}],
    "mean_test_score": np.array([0.9, 0.85, 0.845, 0.8]),
    "rank_test_score": np.array([1, 2, 3, 4]),
    "split0_test_score": np.array([0.8, 0.85, 0.845, 0.8]),
    "split1_test_score": np.array([0.9, 0.85, 0.845, 0.8]),
    "split2_test_score": np.array([1.0, 0.85, 0.845, 0.8]),
}


@pytest.mark.parametrize(
    ("order", "index"),
    [
        ({"C": "low"}, 2),
        ({"C": "high"}, 0),
        ({"w": "low"}, 2),
        ({"w": "high"}, 1),
        (lambda params: abs(params["C"] - 3), 1),
        (lambda params: 0, 0),
        (None, 2),
    ],
)
def test_chooses_the_simplest_within_one_standard_error(order, index):
    assert OneStandardError(order)(RESULTS) == index


@pytest.mark.parametrize("cls", [GridSearchCV, RandomizedSearchCV, BayesSearchCV])
def test_searches_take_the_rule_by_its_name(cls):
    space = {"C": [1e-3, 1e-2, 0.1, 1.0, 10.0]}
    params = {} if cls is GridSearchCV else {"n_iter": 5, "random_state": 0}
    best = cls(LogisticRegression(), space, **params).fit(X, y)
    search = cls(LogisticRegression(), space, refit="one_standard_error", **params).fit(X, y)

    assert search.best_index_ == OneStandardError()(best.cv_results_)
    assert search.best_params_["C"] < best.best_params_["C"]
    assert search.best_score_ == search.cv_results_["mean_test_score"][search.best_index_]
    assert search.best_estimator_.get_params()["C"] == search.best_params_["C"]


def test_serves_in_scikit_learns_search_and_with_several_scores():
    scoring = ["accuracy", "neg_log_loss"]
    rule = OneStandardError({"C": "low"}, metric="accuracy")
    theirs = model_selection.GridSearchCV(
        LogisticRegression(), {"C": [0.01, 1.0]}, scoring=scoring, refit=rule
    ).fit(X, y)
    ours = BayesSearchCV(
        LogisticRegression(), {"C": [0.01, 1.0]}, n_iter=2, scoring=scoring, refit=rule
    ).fit(X, y)

    assert ours.best_params_ == theirs.best_params_


@pytest.mark.parametrize("cls", [GridSearchCV, RandomizedSearchCV])
def test_an_order_is_asked_for_before_anything_is_trained(cls):
    search = cls(LogisticRegression(), {"tol": [0.1]}, refit="one_standard_error")

    with pytest.raises(ValueError, match="order of simplicity must be .*give refit=OneStandardErr"):
        search.fit(X, y)
    with pytest.raises(ValueError, match="'low' or 'high'.* got {'C': 'small'}"):
        OneStandardError({"C": "small"})(RESULTS)


def test_rule_is_followed_in_rounds():
    search = RandomizedSearchCV(
        LogisticRegression(),
        {"C": loguniform(1e-3, 1e3)},
        refit="one_standard_error",
        timeout=60,
        random_state=0,
    ).fit(X, y)

    assert search.best_index_ == OneStandardError()(search.cv_results_)
