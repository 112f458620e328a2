"""What searches in rounds refuse before anything is trained."""

import numpy as np
import pytest
from scipy.stats import uniform
from sklearn.datasets import make_classification
from sklearn.linear_model import LogisticRegression

from sktune import BayesSearchCV, HalvingGridSearchCV, RandomizedSearchCV, StagedSearch

X, y = make_classification(30, n_features=4, random_state=0)


class Untrained(LogisticRegression):
    """It must not be trained."""

    def fit(self, X, y):
        raise AssertionError("nothing may be trained")


SEVERAL = {"scoring": ["accuracy", "f1"], "cv": 2, "error_score": "raise"}
UNGUIDED = {
    "bayes": lambda refit: BayesSearchCV(Untrained(), {"C": [1.0, 2.0]}, refit=refit, **SEVERAL),
    "stop": lambda refit: RandomizedSearchCV(
        Untrained(), {"C": uniform()}, stop="auto", refit=refit, **SEVERAL
    ),
    "halving": lambda refit: HalvingGridSearchCV(
        Untrained(), {"C": [1.0, 2.0]}, resource="n_samples", refit=refit, **SEVERAL
    ),
    "stages": lambda refit: StagedSearch(
        Untrained(), [("one", {"C": uniform()})], refit=refit, **SEVERAL
    ),
}


@pytest.mark.parametrize("kind", UNGUIDED)
@pytest.mark.parametrize("refit", [False, True, len], ids=["no", "yes", "function"])
def test_rounds_by_several_scores_are_refused_before_anything_is_trained(kind, refit):
    if kind in ("bayes", "stages"):
        pytest.importorskip("optuna")
    with pytest.raises(ValueError, match="refit must name the (score|metric) (that|by which)"):
        UNGUIDED[kind](refit).fit(X, y)


class FailsBelow(LogisticRegression):
    """It cannot be fitted with a small C."""

    def fit(self, X, y):
        if self.C < 1:
            raise ValueError("C is too small")
        return super().fit(X, y)


SMALL_AT_LAST = [("large", {"C": [2.0]}), ("small", {"C": [0.1, 0.2]})]


@pytest.mark.filterwarnings(r"ignore:\s*All the 4 fits failed:sklearn.exceptions.FitFailedWarning")
@pytest.mark.filterwarnings("ignore:One or more of the test scores are non-finite:UserWarning")
@pytest.mark.parametrize("ensemble", [None, "greedy", "folds"])
def test_a_last_round_in_which_all_fits_fail_has_its_rows(ensemble):
    search = StagedSearch(
        FailsBelow(), SMALL_AT_LAST, sampler="grid", narrow=1.0, cv=2, ensemble=ensemble
    ).fit(X, y)

    assert np.isnan(search.cv_results_["mean_test_score"]).tolist() == [False, False, True, True]
    if ensemble is not None:
        assert len(search.ensemble_weights_) == 4
        assert search.ensemble_weights_[2:].tolist() == [0.0, 0.0]
        assert np.isnan(search.oof_predictions_[2:]).all()
