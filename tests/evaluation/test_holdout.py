import pickle
import re
import warnings

import numpy as np
import pandas as pd
import polars as pl
import pytest
import sklearn
from scipy import sparse
from sklearn.base import BaseEstimator, ClassifierMixin, MetaEstimatorMixin, clone
from sklearn.datasets import make_classification
from sklearn.dummy import DummyClassifier
from sklearn.exceptions import FitFailedWarning, NotFittedError
from sklearn.experimental import enable_halving_search_cv  # noqa: F401
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import accuracy_score, make_scorer
from sklearn.model_selection import (
    GroupKFold,
    HalvingGridSearchCV,
    KFold,
    PredefinedSplit,
    RandomizedSearchCV,
    ShuffleSplit,
    TimeSeriesSplit,
    cross_val_score,
    cross_validate,
    train_test_split,
)
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeClassifier
from sklearn.utils import get_tags
from sklearn.utils.estimator_checks import check_estimator
from skorch import NeuralNetClassifier
from torch import nn

from sktune.evaluation.holdout import HoldoutSearch
from sktune.evaluation.searches import best_model, seed_splits
from sktune.search import BayesSearchCV, GridSearchCV, HyperbandSearchCV

X, y = make_classification(60, n_features=4, flip_y=0.2, random_state=0)
GROUPS = np.arange(60) // 4
GRID = {"C": [0.001, 1.0]}
TREES = GridSearchCV(DecisionTreeClassifier(random_state=0), {"max_depth": [1, 2, 4]}, cv=3)


def grid(net=None, **settings):
    return GridSearchCV(net or LogisticRegression(), GRID, **{"cv": 3} | settings)


def holdout(search=None, **settings):
    return HoldoutSearch(search or grid(), **{"random_state": 0, "n_resamples": 20} | settings)


class Spy(ClassifierMixin, BaseEstimator):
    """Records the rows that it gets; the first column of X is the number of the row."""

    calls = []

    def __init__(self, C=1.0, fails=False):
        self.C = C
        self.fails = fails

    def fit(self, X, y):
        self._note("fit", X)
        self.classes_ = np.unique(y)
        return self

    def predict(self, X):
        self._note("predict", X)
        if self.fails:
            raise RuntimeError("no prediction")
        return self.classes_[(X[:, 1] > self.C).astype(int)]

    def predict_proba(self, X):
        self._note("predict_proba", X)
        share = 1 / (1 + np.exp(self.C - X[:, 1]))
        return np.column_stack([1 - share, share])

    def _note(self, method, X):
        self.calls.append((method, X[:, 0].astype(int).tolist()))


@pytest.fixture
def spied():
    Spy.calls.clear()
    return np.column_stack([np.arange(60), X])


# --- the sealed rows ---


@pytest.mark.parametrize(
    ("settings", "methods"),
    [
        ({}, ["predict"]),
        ({"scoring": "accuracy"}, ["predict"]),
        ({"scoring": "neg_log_loss"}, ["predict_proba"]),
        ({"scoring": ["accuracy", "f1"], "refit": "f1"}, ["predict"]),
        ({"scoring": ["f1", "roc_auc"], "refit": "f1"}, ["predict", "predict_proba"]),
    ],
)
@pytest.mark.parametrize("groups", [None, GROUPS])
@pytest.mark.filterwarnings("ignore:The groups parameter is ignored")
def test_sealed_rows_are_shown_to_the_model_once_and_last(spied, settings, methods, groups):
    tuned = holdout(grid(Spy(), **settings)).fit(spied, y, groups=groups)

    dev, test = set(tuned.dev_indices_), set(tuned.test_indices_)
    before, last = Spy.calls[: -len(methods)], Spy.calls[-len(methods) :]
    assert all(set(rows) <= dev for _, rows in before)
    assert sorted(method for method, _ in last) == methods
    assert all(rows == tuned.test_indices_.tolist() for _, rows in last)
    assert not dev & test
    assert dev | test == set(range(60))


def test_the_scorer_meets_sealed_rows_after_everything_else(spied):
    scored = []

    def scoring(model, X, y):
        scored.append(set(X[:, 0].astype(int)))
        return accuracy_score(y, model.predict(X))

    tuned = holdout(grid(Spy(), scoring=scoring)).fit(spied, y)

    sealed = set(tuned.test_indices_)
    first = next(i for i, rows in enumerate(scored) if rows & sealed)
    assert first == 3 * 2 + 3  # candidates × folds, and the baseline
    assert scored[first] == sealed
    assert all(rows <= sealed for rows in scored[first:])  # resamples of what was kept
    assert len(scored) == first + 1 + 20


@pytest.mark.parametrize("poison", ["nan", "huge", "labels"])
@pytest.mark.parametrize("search", [TREES, make_pipeline(TREES)])
def test_a_poisoned_test_set_changes_nothing_but_its_own_score(poison, search):
    settings = {"stratify": False, "random_state": 3}
    clean = holdout(search, **settings).fit(X, y)
    sealed = clean.test_indices_
    X_bad, y_bad = X.copy(), y.copy()
    if poison == "labels":
        y_bad[sealed] = 1 - y[sealed]
    else:
        X_bad[sealed] = np.nan if poison == "nan" else 1e30

    poisoned = holdout(search, **settings).fit(X_bad, y_bad)

    np.testing.assert_array_equal(poisoned.test_indices_, sealed)
    assert poisoned.best_params_ == clean.best_params_
    assert poisoned.best_score_ == clean.best_score_
    assert poisoned.baseline_score_ == clean.baseline_score_
    for name, values in clean.cv_results_.items():
        if not name.endswith("_time"):
            np.testing.assert_array_equal(poisoned.cv_results_[name], values, err_msg=name)
    np.testing.assert_array_equal(poisoned.predict_proba(X), clean.predict_proba(X))
    assert poisoned.test_score_ != clean.test_score_


def test_is_what_a_careful_person_would_do_by_hand():
    X_dev, X_test, y_dev, y_test = train_test_split(X, y, test_size=0.2, random_state=7, stratify=y)
    search = grid(scoring="neg_log_loss").fit(X_dev, y_dev)

    tuned = holdout(grid(scoring="neg_log_loss"), random_state=7).fit(X, y)

    np.testing.assert_array_equal(tuned.best_estimator_.coef_, search.best_estimator_.coef_)
    assert tuned.best_score_ == search.best_score_
    assert tuned.test_score_ == search.score(X_test, y_test)
    assert tuned.optimism_ == search.best_score_ - tuned.test_score_
    assert tuned.test_interval_[0] <= tuned.test_score_ <= tuned.test_interval_[1]


# --- searches and data ---


@pytest.mark.parametrize(
    "search",
    [
        RandomizedSearchCV(LogisticRegression(), GRID, n_iter=2, cv=3, random_state=0),
        HalvingGridSearchCV(LogisticRegression(), GRID, cv=2, random_state=0),
        make_pipeline(StandardScaler(), grid()),
        GridSearchCV(make_pipeline(StandardScaler(), LogisticRegression()), {}, cv=3),
        grid(cv=KFold(3, shuffle=True)),
    ],
)
def test_takes_any_search(search):
    tuned = holdout(search).fit(X, y)

    sealed = tuned.test_indices_
    assert tuned.test_score_ == accuracy_score(y[sealed], tuned.predict(X[sealed]))
    assert tuned.score(X[sealed], y[sealed]) == tuned.test_score_
    np.testing.assert_array_equal(tuned.predict(X), tuned.search_.predict(X))
    assert tuned.n_features_in_ == 4


def test_baseline_meets_the_splits_of_the_search():
    # The default C is among the candidates, so that its score on the same splits is the baseline.
    tuned = holdout(grid(cv=KFold(3, shuffle=True))).fit(X, y)

    assert tuned.baseline_score_ == tuned.cv_results_["mean_test_score"][1]


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

    seed_splits(cv, 5)

    assert (repr(cv) != before) == is_random
    if hasattr(cv, "split"):
        first, second = (np.concatenate([test for _, test in cv.split(X)]) for _ in range(2))
        np.testing.assert_array_equal(first, second)


def test_the_best_of_pipelines_has_the_steps_before_it():
    outer = Pipeline(
        [("a", Pipeline([("scale", StandardScaler()), ("search", grid(cv=GroupKFold(3)))]))]
    )

    with pytest.raises(AttributeError, match="best_estimator_"):
        best_model(outer)
    outer.fit(X, y, a__search__groups=GROUPS)
    np.testing.assert_array_equal(best_model(outer).predict(X), outer.predict(X))
    tuned = holdout(outer).fit(X, y, groups=GROUPS, a__search__sample_weight=np.ones(60))
    np.testing.assert_array_equal(tuned.predict(X), tuned.search_.predict(X))


@pytest.mark.parametrize("form", ["array", "list", "pandas", "polars", "sparse"])
def test_takes_any_table(form):
    table = {
        "array": lambda: X,
        "list": X.tolist,
        "pandas": lambda: pd.DataFrame(X, index=range(100, 160)),
        "polars": lambda: pl.DataFrame(X, schema=list("abcd")),
        "sparse": lambda: sparse.coo_matrix(X),
    }[form]()
    labels = {"pandas": pd.Series, "polars": pl.Series, "list": list}.get(form, np.asarray)(y)

    tuned = holdout().fit(table, labels)

    reference = holdout().fit(X, y)
    assert tuned.test_score_ == reference.test_score_
    assert tuned.test_interval_ == reference.test_interval_
    np.testing.assert_array_equal(tuned.test_indices_, reference.test_indices_)


def test_names_of_features_and_classes_are_the_models():
    table = pd.DataFrame(X, columns=list("abcd"))

    tuned = holdout(grid()).fit(table, np.where(y, "yes", "no"))

    assert tuned.feature_names_in_.tolist() == list("abcd")
    assert tuned.classes_.tolist() == ["no", "yes"]


def test_time_ordered_rows():
    tuned = holdout(grid(Ridge(), cv=TimeSeriesSplit(2)), splitter=TimeSeriesSplit(5))
    tuned.set_params(search__param_grid={"alpha": [0.1, 1.0]})

    tuned.fit(X, X[:, 0])

    assert tuned.test_indices_.tolist() == list(range(50, 60))
    assert tuned.dev_indices_.tolist() == list(range(50))


@pytest.mark.parametrize("wrap", [lambda search: search, make_pipeline])
def test_groups_reach_the_split_and_the_searchs_cv(wrap):
    tuned = holdout(wrap(grid(cv=GroupKFold(3)))).fit(X, y, groups=GROUPS)

    assert not set(GROUPS[tuned.dev_indices_]) & set(GROUPS[tuned.test_indices_])
    assert tuned.n_splits_ == 3


@pytest.mark.filterwarnings("ignore:The groups parameter is ignored by PredefinedSplit")
def test_groups_are_what_the_interval_is_over():
    # With one sealed group, the variation between groups is unknown.
    tuned = holdout(grid(cv=GroupKFold(3)), splitter=PredefinedSplit(np.where(GROUPS == 7, 0, -1)))

    assert np.isfinite(tuned.fit(X, y, groups=np.arange(60)).test_interval_).all()
    assert np.isnan(tuned.fit(X, y, groups=GROUPS).test_interval_).all()


def test_weights_are_divided_with_the_rows():
    weights = np.ones(60)
    expected = holdout().fit(X, y)
    weights[expected.test_indices_] = 1e9  # must not reach the search

    tuned = holdout().fit(X, y, sample_weight=weights)

    np.testing.assert_array_equal(tuned.best_estimator_.coef_, expected.best_estimator_.coef_)
    weights[expected.dev_indices_[::2]] = 50.0
    weighted = holdout().fit(X, y, sample_weight=weights)
    assert (weighted.best_estimator_.coef_ != expected.best_estimator_.coef_).any()


def test_metadata_is_routed():
    scorer = make_scorer(lambda y, p, sample_weight: np.average(y == p, weights=sample_weight))
    with sklearn.config_context(enable_metadata_routing=True):
        net = LogisticRegression().set_fit_request(sample_weight=True)
        scorer = scorer.set_score_request(sample_weight=True)
        search = grid(net, cv=GroupKFold(3), scoring=scorer)

        tuned = holdout(search).fit(X, y, groups=GROUPS, sample_weight=np.ones(60))
        plain = holdout(grid()).fit(X, y, groups=GROUPS)  # its cv asks for no groups
        nested = cross_validate(
            holdout(search),
            X,
            y,
            cv=GroupKFold(2),
            params={"groups": GROUPS, "sample_weight": np.ones(60)},
            scoring=scorer,
        )

        assert not set(GROUPS[tuned.dev_indices_]) & set(GROUPS[tuned.test_indices_])
        assert not set(GROUPS[plain.dev_indices_]) & set(GROUPS[plain.test_indices_])
        weights = np.arange(60.0)
        assert tuned.score(X, y, sample_weight=weights) == np.average(
            tuned.predict(X) == y, weights=weights
        )
        with pytest.raises(ValueError, match="not explicitly set as requested"):
            holdout(grid()).fit(X, y, sample_weight=np.ones(60))
    assert np.isfinite(nested["test_score"]).all()


def test_several_metrics_give_dicts():
    tuned = holdout(grid(scoring=["accuracy", "neg_log_loss"], refit="accuracy")).fit(X, y)

    for found in (tuned.test_score_, tuned.test_interval_, tuned.optimism_, tuned.baseline_score_):
        assert found.keys() == {"accuracy", "neg_log_loss"}
    mean = tuned.cv_results_["mean_test_neg_log_loss"][tuned.best_index_]
    assert tuned.optimism_["neg_log_loss"] == mean - tuned.test_score_["neg_log_loss"]


def test_a_callable_refit_leaves_no_best_score():
    tuned = holdout().fit(X, y)

    tuned.set_params(search__refit=lambda results: 0).fit(X, y)

    assert tuned.best_params_ == {"C": 0.001}
    assert not hasattr(tuned, "best_score_")
    assert tuned.optimism_ == tuned.cv_results_["mean_test_score"][0] - tuned.test_score_


# --- an ordinary estimator ---


def test_passes_scikit_learns_estimator_checks():
    search = GridSearchCV(GaussianNB(), {"var_smoothing": [1e-9]}, cv=2)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # some checks warn on purpose
        check_estimator(HoldoutSearch(search, random_state=0, n_resamples=2))


def test_nested_cross_validation():
    assert cross_val_score(holdout(), X, y, cv=2).shape == (2,)
    assert GridSearchCV(holdout(), {"test_size": [0.2, 0.3]}, cv=2).fit(X, y).best_score_ > 0


def test_parameters_are_reached_through_and_kept():
    tuned = holdout()

    tuned.set_params(search__estimator__C=3.0, test_size=0.3)

    assert tuned.get_params()["search__estimator__C"] == 3.0
    assert clone(tuned).get_params().keys() == tuned.get_params().keys()
    search = tuned.search
    tuned.fit(X, y)
    assert tuned.search is search
    assert not hasattr(search, "best_params_")
    copy = pickle.loads(pickle.dumps(tuned))
    np.testing.assert_array_equal(copy.predict(X), tuned.predict(X))


def test_methods_and_tags_are_the_models():
    tuned = holdout()

    assert get_tags(tuned).estimator_type == "classifier"
    assert get_tags(holdout(grid(Ridge()))).estimator_type == "regressor"
    assert hasattr(tuned, "decision_function")
    assert not hasattr(tuned, "transform")
    assert not hasattr(tuned, "classes_")
    for method in (tuned.predict, tuned.predict_proba, tuned.decision_function):
        with pytest.raises(NotFittedError, match="not fitted yet"):
            method(X)
    for call in (tuned.summary, lambda: tuned.score(X, y)):
        with pytest.raises(NotFittedError, match="not fitted yet"):
            call()
    tuned.fit(X, y)
    for method in ("predict", "predict_proba", "predict_log_proba", "decision_function"):
        expected = getattr(tuned.best_estimator_, method)(X)
        np.testing.assert_array_equal(getattr(tuned, method)(X), expected)


def test_fits_repeat_with_their_random_state():
    first, second = (holdout(random_state=4).fit(X, y) for _ in range(2))

    assert first.test_interval_ == second.test_interval_
    assert first.summary().split(" in ")[0] == second.summary().split(" in ")[0]


# --- the report ---


def test_summary_of_a_search():
    net = Pipeline([("net", LogisticRegression())])
    tuned = holdout(GridSearchCV(net, {"net__max_iter": [200], "net__C": [1.0]}, cv=3)).fit(X, y)
    std = tuned.cv_results_["std_test_score"][0]
    low, high = tuned.test_interval_

    text = tuned.summary()

    assert re.sub(r"[0-9.]+ s\b", "_ s", text).splitlines() == [
        "Sealed             12 rows (20%)",
        "Searched           48 rows: 1 candidates × 3 folds = 3 fits in _ s",
        f"Baseline CV score  {tuned.baseline_score_:.4f}",
        f"Best CV score      {tuned.best_score_:.4f} ± {std:.4f} over the folds",
        "Best parameters    net__C        = 1",
        "                   net__max_iter = 200",
        f"Test score         {tuned.test_score_:.4f} (95% interval {low:.4f} to {high:.4f})",
        f"Optimism           {tuned.optimism_:+.4f} (best CV − test)",
    ]


def test_summary_says_out_of_how_many_looks_the_best_was_chosen():
    grid = GridSearchCV(LogisticRegression(), {"C": [0.1, 1.0, 10.0]}, cv=2)
    bayes = BayesSearchCV(
        GaussianNB(), {"var_smoothing": [1e-9, 1e-3, 1.0]}, n_iter=3, batch_size=2, cv=2
    )
    one = GridSearchCV(LogisticRegression(), {"C": [1.0]}, cv=2)

    assert "(best CV − test; the best of 3 looks)" in holdout(grid).fit(X, y).summary()
    assert "; the best of 3 looks in 2 rounds)" in holdout(bayes).fit(X, y).summary()
    assert "(best CV − test)" in holdout(one).fit(X, y).summary()


def test_summary_names_the_learning_rate_and_the_regularization():
    net = NeuralNetClassifier(nn.Linear, module__in_features=4, module__out_features=2)
    net.set_params(max_epochs=1, train_split=None, verbose=0, criterion=nn.CrossEntropyLoss)
    space = {"batch_size": [64], "optimizer__weight_decay": [1e-5], "lr": [0.00321]}

    tuned = holdout(GridSearchCV(net, space, cv=2)).fit(X.astype(np.float32), y)

    assert tuned.summary().split("Best parameters    ")[1].splitlines()[:3] == [
        "lr                      = 0.00321 (α, the learning rate)",
        "                   optimizer__weight_decay = 1e-05 (λ, the weight decay)",
        "                   batch_size              = 64",
    ]


def test_summary_of_several_metrics_and_of_rounds():
    several = holdout(grid(scoring=["accuracy", "f1"], refit="f1")).fit(X, y).summary()
    halving = holdout(HalvingGridSearchCV(LogisticRegression(), GRID, cv=2)).fit(X, y).summary()

    assert all(name in several for name in ("Test accuracy", "Best CV f1", "Optimism of f1"))
    assert re.search(r"2 candidates in \d rounds × 2 folds = \d fits", halving)
    bands = HyperbandSearchCV(LogisticRegression(), {"C": [0.1, 1.0, 9.0]}, cv=2, random_state=0)
    found = holdout(bands.set_params(max_resources=36, min_resources=12)).fit(X, y).summary()
    assert "5 candidates in 2 brackets, 6 evaluations × 2 folds = 12 fits in" in found


def test_summary_without_an_interval():
    tuned = holdout(test_size=1, stratify=False).fit(X, y)

    assert "(no interval)" in tuned.summary()


class Alike(MetaEstimatorMixin, BaseEstimator):
    """A search of another library that has few attributes beside its best estimator."""

    def __init__(self, estimator, told=(), refit=True):
        self.estimator = estimator
        self.told = told
        self.refit = refit

    def fit(self, X, y=None, **params):
        self.best_estimator_ = clone(self.estimator).fit(X, y)
        for name in self.told:
            setattr(self, name, TOLD[name])
        return self

    def predict(self, X):
        return self.best_estimator_.predict(X)


TOLD = {
    "cv_results_": {
        "mean_test_score": np.array([0.5, 0.75]),
        "std_test_score": np.array([0.125, 0.25]),
    },
    "best_index_": 1,
    "best_score_": 0.75,
    "best_params_": {"C": 1.0},
    "n_splits_": 3,
    "n_candidates_": 4,
    "trials_": [1, 2, 3, 4, 5],
}


@pytest.mark.parametrize(
    ("told", "searched", "best"),
    [
        ((), "48 rows in _ s", "nan"),
        (("n_splits_",), "48 rows: 3 folds in _ s", "nan"),
        (("best_score_", "best_params_"), "48 rows in _ s", "0.7500"),
        (("cv_results_",), "48 rows: 2 candidates in _ s", "nan"),
        (("cv_results_", "best_score_"), "48 rows: 2 candidates in _ s", "0.7500"),
        (
            ("cv_results_", "best_index_"),
            "48 rows: 2 candidates in _ s",
            "0.7500 ± 0.2500 over the folds",
        ),
        (
            ("cv_results_", "best_index_", "n_splits_", "best_params_"),
            "48 rows: 2 candidates × 3 folds = 6 fits in _ s",
            "0.7500 ± 0.2500 over the folds",
        ),
        (("trials_", "n_splits_"), "48 rows: 5 candidates × 3 folds = 15 fits in _ s", "nan"),
        (
            ("n_candidates_", "n_splits_"),
            "48 rows: 4 candidates in 1 rounds × 3 folds = 12 fits in _ s",
            "nan",
        ),
    ],
)
@pytest.mark.parametrize("wrap", [lambda search: search, make_pipeline])
def test_summary_of_searches_that_tell_little(told, searched, best, wrap):
    tuned = holdout(wrap(Alike(LogisticRegression(), told))).fit(X, y)

    rows = dict(
        line.split("  ", 1) for line in tuned.summary().splitlines() if not line.startswith(" ")
    )
    assert re.sub(r"[0-9.]+ s$", "_ s", rows["Searched"].strip()) == searched
    assert rows["Best CV score"].strip() == best
    assert float(rows["Baseline CV score"]) == pytest.approx(tuned.baseline_score_, abs=1e-4)
    assert ("Best parameters" in rows) == ("best_params_" in told)
    assert np.isnan(tuned.optimism_) == (best == "nan")
    assert tuned.test_score_ == accuracy_score(
        y[tuned.test_indices_], tuned.predict(X[tuned.test_indices_])
    )
    assert "sktune-summary" in tuned._repr_html_()
    assert repr(tuned).startswith("HoldoutSearch(")


def test_a_search_that_tells_little_and_whose_estimator_fails():
    class Refitting(Alike):
        def fit(self, X, y=None, **params):
            self.best_estimator_ = LogisticRegression().fit(X, y)
            return self

    with pytest.warns(FitFailedWarning, match="no baseline score"):
        tuned = holdout(Refitting(LogisticRegression(C=-1))).fit(X, y)

    assert np.isnan(tuned.baseline_score_)
    assert "Baseline CV score  nan" in tuned.summary()


def test_notebooks_show_the_summary_after_fit():
    tuned = holdout()

    assert "sktune-summary" not in tuned._repr_html_()
    tuned.fit(X, y)
    for html in (tuned._repr_html_(), tuned._repr_mimebundle_()["text/html"]):
        assert "sktune-summary" in html
        assert "LogisticRegression" in html
    with sklearn.config_context(display="text"):
        assert not hasattr(tuned, "_repr_html_")
        assert "text/html" not in tuned._repr_mimebundle_()


# --- errors ---


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"search": LogisticRegression()}, TypeError, "must be a search .* got LogisticRegression"),
        ({"search": make_pipeline(LogisticRegression())}, TypeError, "must be a search such as"),
        (
            {"search": grid(refit=False)},
            ValueError,
            "must refit its best candidate, got refit=False",
        ),
        ({"test_size": 1.5}, ValueError, "test_size must be between 0 and 1, got test_size=1.5"),
        ({"test_size": 0.999}, ValueError, "test_size must leave rows on both sides"),
        ({"splitter": 5}, TypeError, "splitter must have a split method, got 5"),
        (
            {"stratify": "yes"},
            ValueError,
            "stratify must be 'auto', True or False, got stratify='yes'",
        ),
        ({"n_resamples": 0}, ValueError, "n_resamples must be at least 1, got 0"),
        ({"confidence_level": 95}, ValueError, "confidence_level must be between 0 and 1, got"),
    ],
)
def test_bad_settings_are_named_and_change_nothing(settings, error, message):
    tuned = holdout().fit(X, y)
    before = {name: value for name, value in vars(tuned).items() if name.endswith("_")}

    with pytest.raises(error, match=message):
        tuned.set_params(**settings).fit(X, y)

    assert {name: vars(tuned)[name] for name in before} == before
    with pytest.raises(error, match=message):
        clone(tuned).fit(X, y)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((X, y[:-1]), "y must have one entry for each of the 60 rows of X, got 59"),
        ((X, y, GROUPS[:-1]), "groups must have one entry for each of the 60 rows of X, got 59"),
        ((pd.DataFrame(), []), "X must have at least 2 rows, got n_samples=0"),
        ((X, np.arange(60) == 0), "got 1 row of class True; stratify=False"),
    ],
)
def test_bad_rows_are_named(arguments, message):
    tuned = holdout()

    with pytest.raises(ValueError, match=message):
        tuned.fit(*arguments)

    assert not [name for name in vars(tuned) if name.endswith("_")]


@pytest.mark.parametrize("when", ["search", "evaluation"])
def test_nothing_is_set_when_the_work_fails(spied, when):
    tuned = holdout(grid(Spy(fails=True), error_score="raise", scoring="accuracy"))
    if when == "evaluation":
        scored = []

        def scoring(model, X, y):
            scored.append(1)
            if len(scored) > 9:
                raise RuntimeError("no prediction")
            return 1.0

        tuned.set_params(search__scoring=scoring)

    with pytest.raises(RuntimeError, match="no prediction"):
        tuned.fit(spied, y)

    assert not [name for name in vars(tuned) if name.endswith("_")]


def test_a_search_that_finds_nothing_is_named():
    class Forgetful(GridSearchCV):
        def fit(self, X, y=None, **params):
            return self

    with pytest.raises(TypeError, match="search must set best_estimator_ in fit, Forgetful"):
        holdout(Forgetful(DummyClassifier(), {})).fit(X, y)


def test_predefined_rows_can_be_sealed():
    fold = np.full(60, -1)
    fold[[3, 5, 8]] = 0

    tuned = holdout(splitter=PredefinedSplit(fold)).fit(X, y)

    assert tuned.test_indices_.tolist() == [3, 5, 8]
