from typing import NamedTuple

import numpy as np
import pandas as pd
import pytest
import sklearn
from scipy.stats import bootstrap
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.cluster import KMeans
from sklearn.exceptions import FitFailedWarning
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import accuracy_score, get_scorer, make_scorer, roc_auc_score
from sklearn.model_selection import GridSearchCV, KFold, cross_val_score
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from sktune.evaluation import bootstrap as bootstrap_module
from sktune.evaluation.final import evaluate_once, score_baseline
from sktune.evaluation.sealing import take_rows
from sktune.evaluation.searches import find_core, pass_to_last, scorer_params

rng = np.random.RandomState(0)
X = rng.normal(size=(80, 3))
y = (X[:, 0] + rng.normal(size=80) > 0).astype(int)
SHIFT = FunctionTransformer(lambda X: X + 0.5)
CLASSIFIER = LogisticRegression().fit(X, y)
GRID = {"C": [0.01, 1.0]}


class Evaluation(NamedTuple):
    score: float | dict
    interval: tuple | dict


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
    return Evaluation(*evaluate_once(model, X, y, **arguments))


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

    interval = evaluate(
        CLASSIFIER, scoring=scoring, n_resamples=1000, confidence_level=0.9
    ).interval

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
        low, high = evaluate(
            Guess(), X[:60], truth, scoring=scoring, seed=seed, n_resamples=100
        ).interval
        covered += low <= 0.7 <= high

    assert covered >= 52


def test_groups_are_resampled_whole():
    # The rows of a group are copies, with no more information than one row.
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
    # 3.5 % of the resamples lack a class.
    few = np.r_[np.flatnonzero(y == 0)[-12:], np.flatnonzero(y == 1)[-3:]]

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


def test_a_score_method_sees_the_rows_of_its_step():
    class NearOrigin(Counting):
        def score(self, X, y):
            return float(np.mean((self.predict(X) == y) * (np.abs(X).max(axis=1) < 1)))

    model = NearOrigin(CLASSIFIER)
    pipeline = make_pipeline(SHIFT, model)

    evaluation = evaluate(pipeline, scoring=None)

    assert model.calls == [("predict", 80)]
    assert evaluation.score == pipeline.score(X, y)
    assert evaluation.interval[0] < evaluation.score < evaluation.interval[1]


def test_a_score_method_that_calls_its_parents_is_resampled():
    # The score method of this class calls that of a parent class.
    model = KNeighborsClassifier().fit(X, y)

    evaluation = evaluate(model, scoring=None)

    assert evaluation == evaluate(model, scoring="accuracy")


@pytest.mark.parametrize(
    "detour",
    [
        lambda model, X, y: model.score(X, y),
        lambda model, X, y: model.steps[-1][1].predict(X),
        lambda model, X, y: model.predict(X.copy()),
        lambda model, X, y: getattr(model, "predict_proba", None) and model.predict_proba(X[:40]),
    ],
)
def test_a_resample_is_never_shown_to_the_model(detour):
    model = Counting(CLASSIFIER)

    def scoring(model, X, y):
        detour(model, X, y)
        return accuracy_score(y, model.predict(X))

    evaluation = evaluate(make_pipeline(SHIFT, model), scoring=scoring)

    assert evaluation.score == accuracy_score(y, CLASSIFIER.predict(X + 0.5))
    # Each response that the scorer asks for is computed once.
    assert len(model.calls) == 2
    assert no_interval(evaluation.interval)


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
    first, second, other = (
        evaluate(CLASSIFIER, scoring="neg_log_loss", seed=seed).interval for seed in (1, 1, 2)
    )

    assert first == second != other


# --- the search, and its estimator as given ---


def test_the_search_inside_pipelines_is_found():
    search = GridSearchCV(LogisticRegression(), GRID)
    outer = Pipeline([("a", Pipeline([("scale", StandardScaler()), ("search", search)]))])

    assert find_core(search) == (search, "")
    assert find_core(outer) == (search, "a__search__")


def test_the_search_inside_pipelines_gets_its_rows_and_parameters():
    search = GridSearchCV(LogisticRegression(), GRID)
    outer = Pipeline([("a", Pipeline([("scale", StandardScaler()), ("search", search)]))]).fit(X, y)

    core, rows, params = pass_to_last(outer, X, {"a__search__sample_weight": 1, "other": 2})

    assert core is search
    assert params == {"sample_weight": 1}
    np.testing.assert_array_equal(core.predict(rows), outer.predict(X))


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
    assert baseline["f1"] == pytest.approx(
        cross_val_score(LogisticRegression(), X, y, scoring="f1").mean()
    )


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


def weighted(model, X, y, sample_weight=None):
    return float(np.average(model.predict(X) == y, weights=sample_weight))


def unweighted(model, X, y):
    return float(np.mean(model.predict(X) == y))


@pytest.mark.filterwarnings("ignore:The scoring .* does not support sample_weight")
@pytest.mark.parametrize(
    "scoring",
    [None, "accuracy", ["accuracy", "neg_max_error"], weighted, unweighted, "neg_max_error"],
)
def test_the_scorer_gets_weights_where_the_search_gives_them(scoring):
    """Compare a search over one split with one by hand, on very uneven weights."""
    weights = np.geomspace(1, 1e4, 80)
    rows = np.arange(80)
    cv = [(rows[:40], rows[40:])]
    refit = "accuracy" if isinstance(scoring, list) else True
    search = GridSearchCV(LogisticRegression(), {"C": [1.0]}, scoring=scoring, cv=cv, refit=refit)
    search.fit(X, y, sample_weight=weights)
    params = scorer_params(search, {"sample_weight": weights[40:]})

    model = LogisticRegression().fit(X[:40], y[:40], sample_weight=weights[:40])
    by_hand = sklearn.metrics.check_scoring(model, scoring)(model, X[40:], y[40:], **params)

    for metric, score in (by_hand if isinstance(by_hand, dict) else {"score": by_hand}).items():
        assert search.cv_results_[f"mean_test_{metric}"][0] == pytest.approx(score, rel=1e-12)


def test_routed_weights_reach_the_scorer_that_requests_them():
    scorer = make_scorer(lambda y, p, sample_weight=None: float(sample_weight.sum()))
    with sklearn.config_context(enable_metadata_routing=True):
        net = LogisticRegression().set_fit_request(sample_weight=False)
        scorer = scorer.set_score_request(sample_weight=True)
        search = GridSearchCV(net, GRID, scoring=scorer)
        pipeline = make_pipeline(search)

        _, _, params = pass_to_last(pipeline, X, {"sample_weight": np.ones(80)})

        assert list(params) == ["sample_weight"]
        assert list(scorer_params(search, params)) == ["sample_weight"]
        assert scorer_params(search, {}) == {}


# --- metrics without their scorers ---

WEIGHTS = np.geomspace(0.1, 5, 80)
MULTICLASS = np.digitize(X[:, 0], [-0.5, 0.5])
MODELS = {
    "binary": (CLASSIFIER, y, ["accuracy", "neg_log_loss", "f1", "roc_auc", "neg_brier_score"]),
    "multiclass": (
        LogisticRegression(C=0.1).fit(X, MULTICLASS),
        MULTICLASS,
        [
            "accuracy",
            "balanced_accuracy",
            "neg_log_loss",
            "f1_macro",
            "recall_weighted",
            "roc_auc_ovr",
        ],
    ),
    "regression": (
        Ridge().fit(X, y + X[:, 1]),
        y + X[:, 1],
        ["r2", "neg_mean_squared_error", "neg_max_error"],
    ),
}


def by_the_scorer_alone(monkeypatch, *args, **arguments):
    with monkeypatch.context() as patch:
        patch.setattr(bootstrap_module, "prepare_metric", lambda *args: None)
        return evaluate(*args, **arguments)


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("groups", [None, np.arange(80) // 4])
@pytest.mark.parametrize("weights", [None, WEIGHTS])
@pytest.mark.parametrize("form", [list, dict, None])
def test_intervals_are_those_by_the_scorer_alone(monkeypatch, kind, groups, weights, form):
    model, labels, names = MODELS[kind]
    if weights is not None:
        names = [name for name in names if name != "neg_max_error"]
    scoring = {list: names, dict: {name[:4] + name[-4:]: name for name in names}, None: None}[form]
    arguments = {"scoring": scoring, "groups": groups, "n_resamples": 4}
    arguments["params"] = {} if weights is None else {"sample_weight": weights}

    found = evaluate(model, X, labels, **arguments)
    expected = by_the_scorer_alone(monkeypatch, model, X, labels, **arguments)

    assert found.score == expected.score
    if form is None:
        np.testing.assert_allclose(found.interval, expected.interval, rtol=1e-12)
    else:
        assert list(found.interval) == list(expected.interval)
        for name, interval in expected.interval.items():
            np.testing.assert_allclose(found.interval[name], interval, rtol=1e-12, err_msg=name)


def counted(metric, calls):
    """Return a scorer of an unknown metric that records its calls."""

    def own(y, predicted):
        calls.append(len(y))
        return metric(y, predicted)

    return make_scorer(own)


def test_scorers_are_called_for_what_is_not_known_only():
    calls, others = [], []

    def note(model, X, y):
        others.append(len(X))
        return float(np.mean(model.predict(X) == y))

    evaluate(
        CLASSIFIER,
        scoring={"own": counted(accuracy_score, calls), "other": note, "loss": "neg_log_loss"},
        n_resamples=20,
    )
    assert len(calls) == len(others) == 21
    scoring = {"loss": "neg_log_loss", "own": counted(accuracy_score, calls)}
    alone = evaluate(CLASSIFIER, scoring=scoring, n_resamples=20).interval

    assert alone["loss"] == evaluate(CLASSIFIER, scoring="neg_log_loss", n_resamples=20).interval
    assert alone["own"] == pytest.approx(evaluate(CLASSIFIER, n_resamples=20).interval)


def test_a_class_that_a_resample_lacks_does_not_count_against_other_metrics():
    # 35 % of the resamples lack a class.
    few = np.r_[np.flatnonzero(y == 0)[-12:], np.flatnonzero(y == 1)[-1:]]

    interval = evaluate(CLASSIFIER, X[few], y[few], scoring=["accuracy", "neg_log_loss"]).interval

    assert interval["accuracy"] == evaluate(CLASSIFIER, X[few], y[few]).interval
    assert (
        interval["neg_log_loss"]
        == evaluate(CLASSIFIER, X[few], y[few], scoring="neg_log_loss").interval
    )


def test_rows_are_not_taken_for_scorers_that_do_not_look_at_them(monkeypatch):
    taken = []

    def take(table, rows):
        taken.append(table is X)
        return take_rows(table, rows)

    monkeypatch.setattr(bootstrap_module, "take_rows", take)
    evaluate(CLASSIFIER, scoring="matthews_corrcoef", n_resamples=20)
    assert not any(taken)
    evaluate(CLASSIFIER, scoring=columns_too, n_resamples=20)
    assert sum(taken) == 20


def test_a_bootstrap_that_takes_long_says_so():
    with pytest.warns(
        UserWarning,
        match=r"the bootstrap called the scorer 20 times, which took \d+ s: a smaller n_res",
    ):
        evaluate(CLASSIFIER, scoring="matthews_corrcoef", patience=0.0, n_resamples=20)


def test_an_estimator_of_metrics_that_disagrees_is_not_used(monkeypatch):
    def prepare(*args):
        return lambda rows: 0.123

    expected = evaluate(CLASSIFIER)
    monkeypatch.setattr(bootstrap_module, "prepare_metric", prepare)

    assert evaluate(CLASSIFIER) == expected


def test_scores_that_are_infinite_have_an_interval_without_a_warning():
    usual = np.mean(CLASSIFIER.predict(X) == y)

    def infinite(model, X, y):
        return float(-np.inf if (model.predict(X) == y).mean() < usual else 1.0)

    low, high = evaluate(CLASSIFIER, scoring=infinite).interval

    assert low == -np.inf
    assert high == 1.0
