import numpy as np
import pandas as pd
import pytest
from scipy.stats import bootstrap
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.cluster import KMeans
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import accuracy_score, get_scorer, make_scorer, roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from sktune.evaluation import evaluate_once

rng = np.random.RandomState(0)
X = rng.normal(size=(80, 3))
y = (X[:, 0] + rng.normal(size=80) > 0).astype(int)
SHIFT = FunctionTransformer(lambda X: X + 0.5)
CLASSIFIER = LogisticRegression().fit(X, y)


class Counting(ClassifierMixin, BaseEstimator):
    """A fitted classifier that counts how it is called."""

    def __init__(self, model):
        self.model = model
        self.classes_ = model.classes_
        self.calls = []

    def fit(self, X, y):
        raise AssertionError("a fitted model must not be fitted again")

    def predict(self, X):
        self.calls.append(("predict", len(X)))
        return self.model.predict(X)

    def predict_proba(self, X):
        self.calls.append(("predict_proba", len(X)))
        return self.model.predict_proba(X)


def evaluate(model, X=X, y=y, **arguments):
    arguments = {
        "scoring": "accuracy",
        "params": {},
        "groups": None,
        "n_resamples": 200,
        "confidence_level": 0.95,
        "seed": 0,
    } | arguments
    return evaluate_once(model, X, y, **arguments)


def no_interval(interval):
    return bool(np.isnan(interval).all())


def columns_too(model, X, y):
    return float(np.mean((model.predict(X) == y) * (X[:, 1] > 0)))


@pytest.mark.parametrize(
    ("scoring", "calls"),
    [
        (None, ["predict"]),
        ("accuracy", ["predict"]),
        ("neg_log_loss", ["predict_proba"]),
        (["accuracy", "f1", "balanced_accuracy"], ["predict"]),
        (["accuracy", "roc_auc", "neg_log_loss"], ["predict", "predict_proba"]),
        ({"a": "accuracy", "own": columns_too}, ["predict"]),
        (lambda model, X, y: {"a": model.score(X, y), "b": columns_too(model, X, y)}, ["predict"]),
    ],
)
def test_each_response_is_computed_once(scoring, calls):
    model = Counting(CLASSIFIER)

    evaluation = evaluate(model, scoring=scoring)

    assert sorted(model.calls) == [(name, 80) for name in calls]
    intervals = evaluation.interval
    for interval in intervals.values() if isinstance(intervals, dict) else [intervals]:
        assert interval[0] < interval[1]


@pytest.mark.parametrize("scoring", ["accuracy", "roc_auc", "neg_log_loss", columns_too])
def test_score_is_the_scorers_own(scoring):
    scorer = get_scorer(scoring) if isinstance(scoring, str) else scoring

    assert evaluate(CLASSIFIER, scoring=scoring).score == scorer(CLASSIFIER, X, y)


@pytest.mark.parametrize(
    ("scoring", "metric", "response"),
    [
        ("accuracy", accuracy_score, CLASSIFIER.predict(X)),
        ("roc_auc", roc_auc_score, CLASSIFIER.predict_proba(X)[:, 1]),
    ],
)
def test_interval_is_scipys_percentile_bootstrap(scoring, metric, response):
    expected = bootstrap(
        (y, response),
        metric,
        paired=True,
        vectorized=False,
        method="percentile",
        n_resamples=1000,
        confidence_level=0.9,
        random_state=1,
    ).confidence_interval

    interval = evaluate(CLASSIFIER, scoring=scoring, n_resamples=1000, confidence_level=0.9).interval

    np.testing.assert_allclose(interval, expected, atol=0.02)


def test_interval_covers_the_truth_about_as_often_as_it_says():
    class Guess(BaseEstimator):
        def fit(self, X, y):
            return self

        def predict(self, X):
            return np.zeros(len(X))

    covered = 0
    for seed in range(60):
        truth = (np.random.RandomState(seed).uniform(size=60) > 0.7).astype(float)
        scoring = make_scorer(lambda y, p: np.mean(y == p))
        low, high = evaluate(Guess(), X[:60], truth, scoring=scoring, seed=seed, n_resamples=100).interval
        covered += low <= 0.7 <= high

    assert covered >= 52


def test_groups_are_resampled_whole():
    # Rows of a group are copies: they carry no more than one row would.
    copies, groups = 8, np.repeat(np.arange(10), 8)
    X_groups, y_groups = np.repeat(X[:10], copies, axis=0), np.repeat(y[:10], copies)

    by_row = evaluate(CLASSIFIER, X_groups, y_groups).interval
    by_group = evaluate(CLASSIFIER, X_groups, y_groups, groups=groups).interval
    of_one_each = evaluate(CLASSIFIER, X[:10], y[:10]).interval

    assert by_group == of_one_each
    assert np.diff(by_group) > 1.5 * np.diff(by_row)


def test_weights_are_resampled_with_their_rows():
    is_right = CLASSIFIER.predict(X) == y  # with no weight on the others, any resample is perfect

    evaluation = evaluate(CLASSIFIER, params={"sample_weight": is_right.astype(float)})

    assert 0 < is_right.mean() < 1
    assert evaluation.score == 1
    assert evaluation.interval == (1, 1)


def test_resamples_without_the_metric_are_left_out():
    few = np.r_[np.flatnonzero(y == 0)[:12], np.flatnonzero(y == 1)[:3]]  # 3.5 % miss a class

    low, high = evaluate(CLASSIFIER, X[few], y[few], scoring="roc_auc").interval

    assert 0 <= low < high <= 1


def test_no_interval_where_the_metric_is_mostly_undefined():
    def picky(model, X, y):
        if len(np.unique(X[:, 0])) < len(X):
            raise ValueError("rows must be distinct")
        return float(model.predict(X)[0])

    evaluation = evaluate(CLASSIFIER, scoring=picky)

    assert evaluation.score in (0.0, 1.0)
    assert no_interval(evaluation.interval)


def test_no_interval_for_one_row_or_one_group():
    assert no_interval(evaluate(CLASSIFIER, X[:1], y[:1]).interval)
    assert no_interval(evaluate(CLASSIFIER, groups=np.zeros(80)).interval)


def test_no_interval_where_a_scorer_needs_more_than_responses():
    def detour(model, X, y):
        return model.steps[-1][1].score(X, y)

    def copied(model, X, y):
        return accuracy_score(y, model.predict(X.copy()))

    pipeline = make_pipeline(StandardScaler(), LogisticRegression()).fit(X, y)
    for scoring in (detour, copied):
        evaluation = evaluate(pipeline, scoring=scoring)
        assert evaluation.score == scoring(pipeline, X, y)
        assert no_interval(evaluation.interval)


class OwnScore(Counting):
    def score(self, X, y, sample_weight=None):
        return 100 * super().score(X, y, sample_weight)


@pytest.mark.parametrize("wrap", [lambda model: model, lambda model: make_pipeline(SHIFT, model)])
def test_a_score_method_of_the_models_own_is_resampled(wrap):
    model = OwnScore(CLASSIFIER)
    before = set(vars(model))

    evaluation = evaluate(wrap(model), scoring=None)

    assert model.calls == [("predict", 80)]
    assert set(vars(model)) == before
    expected = evaluate(wrap(Counting(CLASSIFIER)))
    assert evaluation.score == 100 * expected.score
    np.testing.assert_allclose(evaluation.interval, 100 * np.array(expected.interval))


def test_a_score_method_without_responses_has_no_interval():
    model = KMeans(2, n_init=1, random_state=0).fit(X)

    evaluation = evaluate(model, y=None, scoring=None)

    assert evaluation.score == model.score(X)
    assert no_interval(evaluation.interval)


@pytest.mark.parametrize("table", [X.tolist(), pd.DataFrame(X)])
def test_any_table_will_do(table):
    model = make_pipeline(StandardScaler(), Ridge()).fit(table, y)

    evaluation = evaluate(model, table, pd.Series(y), scoring=None)

    assert evaluation.score == model.score(table, y)
    assert evaluation.interval[0] < evaluation.score < evaluation.interval[1]


def test_resamples_repeat_with_their_seed():
    first, second, other = (evaluate(CLASSIFIER, scoring="neg_log_loss", seed=seed).interval for seed in (1, 1, 2))

    assert first == second != other
