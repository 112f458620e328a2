"""What of scikit-learn's searches is private and yet built upon: each test says what has moved."""

import inspect

import numpy as np
import pytest
from sklearn.datasets import make_classification
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import KFold, RandomizedSearchCV, ShuffleSplit
from sklearn.naive_bayes import GaussianNB

from sktune.search.base import _FusedSearch
from sktune.search.rounds.evaluation import _ALL_FAILED
from sktune.search.rounds.seam import FixedSplits, fix_splits
from sktune.search.rounds.search_in_rounds import SearchInRounds

X, y = make_classification(30, n_features=4, random_state=0)
METHODS = ["_run_search", "_format_results", "_select_best_index"]


@pytest.mark.parametrize("name", METHODS)
def test_scikit_learns_methods_are_where_they_were(name):
    assert hasattr(RandomizedSearchCV, name), f"scikit-learn's searches no longer have {name}"


def test_scikit_learns_methods_take_what_is_passed():
    for name, ours in [("_format_results", SearchInRounds), ("_select_best_index", _FusedSearch)]:
        theirs = inspect.signature(getattr(RandomizedSearchCV, name)).parameters
        own = inspect.signature(getattr(ours, name)).parameters
        assert list(theirs) == list(own), f"{name} takes other arguments"


def test_scikit_learn_calls_them_in_turn():
    calls = []

    class Search(RandomizedSearchCV):
        def _run_search(self, evaluate_candidates, **context):
            calls.append("run")
            cv = fix_splits(self, evaluate_candidates)
            for C in (0.1, 1.0):
                results = evaluate_candidates([{"C": C}], cv=cv)
                calls.append(len(results["params"]))

        def _format_results(self, candidate_params, n_splits, out, more_results=None):
            calls.append((len(candidate_params), n_splits, len(out)))
            assert {"fit_error", "test_scores", "fit_time", "score_time"} <= out[0].keys()
            return super()._format_results(candidate_params, n_splits, out, more_results)

        @staticmethod
        def _select_best_index(refit, refit_metric, results):
            calls.append(refit_metric)
            return 0

    search = Search(LogisticRegression(), {"C": [1]}, cv=3).fit(X, y)

    assert calls == ["run", (1, 3, 3), 1, (2, 3, 6), 2, "score"]
    assert search.best_params_ == {"C": 0.1}


def test_scikit_learns_error_where_all_fits_fail():
    search = RandomizedSearchCV(GaussianNB(), {"var_smoothing": [-1.0]}, n_iter=1, cv=2)

    with pytest.raises(ValueError, match=_ALL_FAILED):
        search.fit(X, y)


def test_splits_are_made_once():
    splits = FixedSplits(ShuffleSplit(2, test_size=0.2))

    first, second = list(splits.split(X, y)), list(splits.split(X, y))

    np.testing.assert_array_equal(first[0][1], second[0][1])
    assert splits.get_n_splits(X, y) == 2
    assert splits.mean_sizes == (24.0, 6.0)
    masks = FixedSplits(KFold(3))
    masks.splits = [(np.array([True, True, False]), np.array([False, False, True]))]
    assert masks.mean_sizes == (2.0, 1.0)
