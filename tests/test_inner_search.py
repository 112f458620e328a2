import numpy as np
import pytest
import sklearn
from sklearn.datasets import make_classification
from sklearn.exceptions import FitFailedWarning
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import make_scorer
from sklearn.model_selection import (
    GridSearchCV,
    KFold,
    PredefinedSplit,
    ShuffleSplit,
    cross_val_score,
)
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from sktune.inner_search import (
    best_model,
    core_params,
    core_search,
    score_baseline,
    scorer_params,
    search_prefix,
    seed_splits,
)

X, y = make_classification(60, n_features=4, flip_y=0.3, random_state=0)
GRID = {"C": [0.01, 1.0]}


def weighted(model, X, y, sample_weight=None):
    return float(np.average(model.predict(X) == y, weights=sample_weight))


def unweighted(model, X, y):
    return float(np.mean(model.predict(X) == y))


def test_the_search_inside_pipelines_is_found():
    search = GridSearchCV(LogisticRegression(), GRID)
    outer = Pipeline([("a", Pipeline([("scale", StandardScaler()), ("search", search)]))])

    assert core_search(search) is search
    assert core_search(outer) is search
    assert search_prefix(search) == ""
    assert search_prefix(outer) == "a__search__"
    assert core_params(outer, {"a__search__sample_weight": 1, "other": 2}) == {"sample_weight": 1}
    with pytest.raises(AttributeError, match="best_estimator_"):
        best_model(outer)
    outer.fit(X, y)
    np.testing.assert_array_equal(best_model(outer).predict(X), outer.predict(X))


@pytest.mark.parametrize(
    ("cv", "is_random"),
    [
        (KFold(3, shuffle=True), True),
        (KFold(3, shuffle=True, random_state=np.random.RandomState(1)), True),
        (ShuffleSplit(3), True),
        (KFold(3, shuffle=True, random_state=7), False),
        (KFold(3), False),
        (PredefinedSplit([0, 1] * 30), False),
        (3, False),
        (None, False),
    ],
)
def test_random_splits_are_made_to_repeat(cv, is_random):
    before = repr(cv)

    seed_splits(GridSearchCV(LogisticRegression(), GRID, cv=cv), 5)

    assert (repr(cv) != before) == is_random
    if hasattr(cv, "split"):
        first, second = (np.concatenate([test for _, test in cv.split(X)]) for _ in range(2))
        np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("with_pipeline", [False, True])
def test_baseline_is_the_estimator_as_it_was_given_on_the_same_splits(with_pipeline):
    net = LogisticRegression(C=0.5)
    cv = KFold(4, shuffle=True, random_state=3)
    search = GridSearchCV(net, GRID, cv=cv, scoring="neg_log_loss")
    table = StandardScaler().fit_transform(X) if with_pipeline else X
    whole = make_pipeline(StandardScaler(), search) if with_pipeline else search

    baseline = score_baseline(whole.fit(X, y), X, y, {})

    expected = cross_val_score(net, table, y, cv=cv, scoring="neg_log_loss").mean()
    assert baseline == pytest.approx(expected, rel=1e-12)


def test_baseline_of_several_metrics():
    search = GridSearchCV(LogisticRegression(), GRID, scoring=["accuracy", "f1"], refit="f1")

    baseline = score_baseline(search.fit(X, y), X, y, {})

    assert baseline.keys() == {"accuracy", "f1"}
    assert baseline["f1"] == pytest.approx(cross_val_score(LogisticRegression(), X, y, scoring="f1").mean())


@pytest.mark.parametrize("scoring", ["accuracy", ["accuracy", "f1"]])
def test_a_baseline_that_cannot_be_fitted_is_nan(scoring):
    search = GridSearchCV(LogisticRegression(C=-1), GRID, scoring=scoring, refit=True)
    if isinstance(scoring, list):
        search.set_params(refit="accuracy")
    search.fit(X, y)

    with pytest.warns(FitFailedWarning, match="(?s)no baseline score: .*All the 5 fits failed"):
        baseline = score_baseline(search, X, y, {})

    values = list(baseline.values()) if isinstance(baseline, dict) else [baseline]
    assert np.isnan(values).all()
    search.set_params(error_score="raise")
    with pytest.raises(ValueError, match="'C' parameter"):
        score_baseline(search, X, y, {})


@pytest.mark.filterwarnings("ignore:The scoring .* does not support sample_weight")
@pytest.mark.parametrize(
    "scoring", [None, "accuracy", ["accuracy", "neg_max_error"], weighted, unweighted, "neg_max_error"]
)
def test_the_scorer_gets_weights_where_the_search_gives_them(scoring):
    """A search over one split, once by scikit-learn and once by hand, on very uneven weights."""
    weights = np.geomspace(1, 1e4, 60)
    rows = np.arange(60)
    cv = [(rows[:30], rows[30:])]
    refit = "accuracy" if isinstance(scoring, list) else True
    search = GridSearchCV(LogisticRegression(), {"C": [1.0]}, scoring=scoring, cv=cv, refit=refit)
    search.fit(X, y, sample_weight=weights)
    params = scorer_params(search, {"sample_weight": weights[30:]})

    model = LogisticRegression().fit(X[:30], y[:30], sample_weight=weights[:30])
    by_hand = sklearn.metrics.check_scoring(model, scoring)(model, X[30:], y[30:], **params)

    for metric, score in (by_hand if isinstance(by_hand, dict) else {"score": by_hand}).items():
        assert search.cv_results_[f"mean_test_{metric}"][0] == pytest.approx(score, rel=1e-12)


def test_routed_weights_reach_the_scorer_that_requests_them():
    scorer = make_scorer(lambda y, p, sample_weight=None: float(sample_weight.sum()))
    with sklearn.config_context(enable_metadata_routing=True):
        net = LogisticRegression().set_fit_request(sample_weight=False)
        scorer = scorer.set_score_request(sample_weight=True)
        search = GridSearchCV(net, GRID, scoring=scorer)
        pipeline = make_pipeline(search)

        params = core_params(pipeline, {"sample_weight": np.ones(60)})

        assert list(params) == ["sample_weight"]
        assert list(scorer_params(search, params)) == ["sample_weight"]
        assert scorer_params(search, {}) == {}
