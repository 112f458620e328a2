"""What of scikit-learn is private and yet built upon by searches: each test says what has moved."""

import numpy as np
from sklearn import model_selection
from sklearn.dummy import DummyClassifier
from sklearn.model_selection import KFold

from sktune.search.rounds.seam import BaseSearchCV, FixedSplits, fix_splits

X = np.zeros((8, 1))
y = np.array(4 * [0, 1])


class InRounds(BaseSearchCV):
    def __init__(self, estimator, cv):
        super().__init__(estimator=estimator, cv=cv)

    def _run_search(self, evaluate_candidates):
        splits = fix_splits(self, evaluate_candidates)
        self.n_splits_within_ = self.n_splits_
        self.rounds_ = []
        for name in ("first", "second"):
            results = evaluate_candidates(
                [{"strategy": "prior"}], cv=splits, more_results={"round": [name]}
            )
            self.rounds_.append(list(results["round"]))
        self.splits_ = splits


def test_candidates_are_evaluated_in_rounds_on_fixed_splits():
    search = InRounds(DummyClassifier(), cv=KFold(2, shuffle=True)).fit(X, y)

    assert search.rounds_ == [["first"], ["first", "second"]]
    assert search.cv_results_["round"].tolist() == ["first", "second"]
    assert isinstance(search.splits_, FixedSplits)
    assert search.n_splits_within_ == 2


def test_scikit_learns_searches_are_of_the_base_class():
    for name in ("GridSearchCV", "RandomizedSearchCV"):
        assert issubclass(getattr(model_selection, name), BaseSearchCV)
