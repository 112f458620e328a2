"""What searches in rounds refuse before anything is trained."""

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
