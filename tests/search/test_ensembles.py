import json
import pickle
import subprocess
import sys
import time

import numpy as np
import pytest
import skorch
import torch
from scipy.stats import loguniform, uniform
from sklearn import config_context
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.datasets import make_classification, make_regression
from sklearn.exceptions import FitFailedWarning
from sklearn.linear_model import LogisticRegression, Ridge, SGDClassifier
from sklearn.metrics import get_scorer, make_scorer
from sklearn.model_selection import (
    GroupKFold,
    KFold,
    RepeatedKFold,
    ShuffleSplit,
    cross_val_predict,
)
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC
from skorch.callbacks import BatchScoring

from sktune import (
    BayesSearchCV,
    GridSearchCV,
    HoldoutSearch,
    NeuralNetClassifier,
    NeuralNetRegressor,
    RandomizedSearchCV,
    StagedSearch,
)
from sktune.search.ensembles.greedy import select_greedily
from sktune.search.ensembles.scoring import SplitScorer
from sktune.search.ensembles.stacked_nets import stack_alike
from sktune.search.rounds.stopping import Deadline

X, y = make_classification(
    120, n_features=6, n_informative=4, n_classes=3, flip_y=0.2, random_state=0
)
X = X.astype(np.float32)
X_new = np.random.default_rng(1).normal(size=(40, 6)).astype(np.float32)
NET = NeuralNetClassifier(max_epochs=3, module__hidden=(8,), random_state=0)
RATES = {"lr": [1e-4, 1e-2, 3e-2]}
REGRESSION = make_regression(90, n_features=5, noise=20.0, random_state=0)
KINDS = ["folds", "greedy"]


def check_average(search):
    """Check that a search predicts the weighted mean of what the members predict one by one."""
    ensemble = search.ensemble_
    parts = [member.predict_proba(X_new) for member in ensemble.members_]
    expected = np.average(parts, axis=0, weights=ensemble.weights)
    np.testing.assert_allclose(search.predict_proba(X_new), expected, atol=1e-6)
    np.testing.assert_array_equal(search.predict(X_new), search.classes_[expected.argmax(axis=1)])


@pytest.mark.parametrize("model", [NET, make_pipeline(StandardScaler(), NET)], ids=["net", "pipe"])
def test_predictions_are_those_of_cross_val_predict(model):
    name = "lr" if model is NET else "neuralnetclassifier__lr"
    search = GridSearchCV(model, {name: RATES["lr"]}, cv=4, ensemble="folds").fit(X, y)

    assert not search.fusion_.alone
    assert search.oof_predictions_.dtype == np.float32
    assert search.oof_predictions_.shape == (3, 120, 3)
    for candidate, found in zip(search.cv_results_["params"], search.oof_predictions_, strict=True):
        own = clone(model).set_params(**candidate)
        plain = cross_val_predict(own, X, y, cv=4, method="predict_proba")
        np.testing.assert_allclose(found, plain, atol=1e-5)


def test_folds_average_the_models_of_the_best_candidate():
    search = GridSearchCV(NET, RATES, cv=4, ensemble="folds").fit(X, y)

    best = search.best_index_
    assert search.ensemble_weights_.tolist() == [float(n == best) for n in range(3)]
    assert len(search.ensemble_.members_) == 4
    # a test row is predicted by one model of the best candidate alone
    assert search.ensemble_score_ == search.best_score_
    for member, (train, _) in zip(search.ensemble_.members_, _splits(4), strict=True):
        fitted = clone(NET).set_params(**search.best_params_).fit(X[train], y[train])
        np.testing.assert_allclose(
            member.predict_proba(X_new), fitted.predict_proba(X_new), atol=1e-5
        )
    check_average(search)
    assert search.score(X, y) == np.mean(search.predict(X) == y)
    single = search.best_estimator_.predict_proba(X_new)
    assert np.abs(search.predict_proba(X_new) - single).max() > 1e-3
    np.testing.assert_allclose(search.predict_log_proba(X), np.log(search.predict_proba(X)))


def _splits(n_splits):
    from sklearn.model_selection import StratifiedKFold

    return StratifiedKFold(n_splits).split(X, y)


@pytest.mark.parametrize("scoring", ["neg_log_loss", "accuracy", "balanced_accuracy"])
def test_greedy_is_at_least_as_good_as_the_best(scoring):
    search = GridSearchCV(NET, RATES, cv=3, scoring=scoring, ensemble="greedy").fit(X, y)

    assert search.ensemble_score_ >= search.best_score_ - 1e-7
    assert search.ensemble_weights_.sum() == pytest.approx(1)
    assert len(search.ensemble_.members_) == 3 * np.count_nonzero(search.ensemble_weights_)
    check_average(search)


def test_greedy_finds_two_that_complement_each_other():
    target = np.zeros(4)
    predictions = [np.array([[2.0, 0, 0, 0], [-2.0, 0, 0, 0], [1.0, 1.0, 1.0, 1.0]])]

    def score_each(split, averages):
        return -((averages - target) ** 2).mean(axis=1)

    np.testing.assert_array_equal(select_greedily(predictions, score_each), [0.5, 0.5, 0.0])


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(
    ("scoring", "is_known"),
    [
        ("neg_log_loss", True),
        ("accuracy", True),
        ("f1_macro", False),
        ("neg_mean_squared_error", True),
        ("neg_root_mean_squared_error", True),
        ("neg_mean_absolute_error", True),
        ("r2", True),
        ("neg_median_absolute_error", False),
    ],
)
def test_averages_are_scored_as_the_scorer_does(scoring, is_known, weighted):
    rng = np.random.default_rng(0)
    is_classifier = scoring in ("neg_log_loss", "accuracy", "f1_macro")
    classes = np.array(["a", "b", "c"]) if is_classifier else None
    target = classes[np.arange(30) % 3] if is_classifier else rng.normal(size=30)
    averages = rng.dirichlet(np.ones(3), (5, 30)) if is_classifier else rng.normal(size=(5, 30))
    params = {"sample_weight": rng.random(30)} if weighted else {}

    scorer = SplitScorer(get_scorer(scoring), np.zeros((30, 1)), target, params, classes=classes)

    assert (scorer.known is not None) == is_known
    expected = [scorer.score(average) for average in averages]
    np.testing.assert_allclose(scorer.score_each(averages), expected)


def test_greedy_takes_less_than_a_second():
    rng = np.random.default_rng(0)
    labels = np.arange(1800) % 10
    predictions = rng.dirichlet(np.ones(10), (80, 1800)).astype(np.float32)
    scorer = SplitScorer(get_scorer("neg_log_loss"), None, labels, {}, classes=np.arange(10))
    start = time.process_time()

    weights = select_greedily([predictions], lambda split, averages: scorer.score_each(averages))

    assert time.process_time() - start < 1
    assert np.count_nonzero(weights) > 1


@pytest.mark.parametrize("kind", KINDS)
def test_regressors(kind):
    net = NeuralNetRegressor(max_epochs=3, module__hidden=(8,), random_state=0)
    rows, target = REGRESSION
    target = target / target.std()
    search = GridSearchCV(net, {"lr": [1e-3, 1e-2]}, cv=3, ensemble=kind).fit(rows, target)

    assert search.oof_predictions_.shape == (2, 90)
    plain = cross_val_predict(search.best_estimator_, rows, target, cv=3)
    np.testing.assert_allclose(
        search.oof_predictions_[search.best_index_], plain, rtol=1e-4, atol=1e-5
    )
    parts = [member.predict(rows) for member in search.ensemble_.members_]
    expected = np.average(parts, axis=0, weights=search.ensemble_.weights)
    np.testing.assert_allclose(search.predict(rows), expected, rtol=1e-4, atol=1e-6)
    assert search.ensemble_score_ >= search.best_score_ - 1e-7


@pytest.mark.parametrize("n_jobs", [None, 2])
def test_classical_models_in_other_processes(n_jobs):
    model = LogisticRegression()
    grid = {"C": [1e-3, 1.0]}
    search = GridSearchCV(model, grid, cv=3, n_jobs=n_jobs, ensemble="greedy").fit(X, y)

    plain = cross_val_predict(clone(model).set_params(C=1.0), X, y, cv=3, method="predict_proba")
    np.testing.assert_allclose(search.oof_predictions_[1], plain, atol=1e-6)
    check_average(search)


def test_nets_beside_classical_models():
    pipe = make_pipeline(NET)
    grid = {"neuralnetclassifier": [NET, LogisticRegression()]}
    search = GridSearchCV(pipe, grid, cv=3, scoring="neg_log_loss", ensemble="greedy").fit(X, y)

    assert search.ensemble_score_ >= search.best_score_ - 1e-7
    check_average(search)


@pytest.mark.parametrize(
    "cv",
    [ShuffleSplit(3, test_size=0.2, random_state=0), RepeatedKFold(n_splits=3, random_state=0)],
    ids=["shuffle", "repeated"],
)
def test_splits_that_do_not_test_each_row_once(cv):
    search = GridSearchCV(LogisticRegression(), {"C": [1e-2, 1.0]}, cv=cv, ensemble="folds")
    search.fit(X, y)

    total = np.zeros((120, 3))
    n_times = np.zeros((120, 1))
    for train, test in cv.split(X):
        own = clone(search.best_estimator_).fit(X[train], y[train])
        total[test] += own.predict_proba(X[test])
        n_times[test] += 1
    expected = np.full((120, 3), np.nan)
    np.divide(total, n_times, out=expected, where=n_times > 0)
    np.testing.assert_allclose(search.oof_predictions_[search.best_index_], expected, atol=1e-6)
    assert search.ensemble_score_ == pytest.approx(search.best_score_)


def test_refit_members_are_fitted_to_all_rows():
    search = GridSearchCV(
        NET, RATES, cv=3, scoring="neg_log_loss", ensemble="greedy", ensemble_refit=True
    ).fit(X, y)

    chosen = np.flatnonzero(search.ensemble_weights_)
    assert len(search.ensemble_.members_) == len(chosen)
    for candidate, member in zip(chosen, search.ensemble_.members_, strict=True):
        fitted = clone(NET).set_params(**search.cv_results_["params"][candidate]).fit(X, y)
        np.testing.assert_allclose(
            member.predict_proba(X_new), fitted.predict_proba(X_new), atol=1e-5
        )
    check_average(search)


@pytest.mark.parametrize("scoring", [None, ["accuracy", "neg_log_loss"]])
def test_weights_and_groups(scoring):
    weight = np.linspace(0.1, 2.0, 120)
    groups = np.arange(120) % 12
    refit = "accuracy" if scoring else True
    search = GridSearchCV(
        NET, RATES, cv=GroupKFold(3), scoring=scoring, refit=refit, ensemble="folds"
    ).fit(X, y, sample_weight=weight, groups=groups)

    assert search.ensemble_score_ == pytest.approx(search.best_score_)


@config_context(enable_metadata_routing=True)
@pytest.mark.parametrize("several", [False, True])
def test_routed_weights(several):
    net = clone(NET).set_fit_request(sample_weight=True).set_score_request(sample_weight=True)
    scorer = get_scorer("neg_log_loss").set_score_request(sample_weight=True)
    accuracy = get_scorer("accuracy").set_score_request(sample_weight=False)
    scoring = {"loss": scorer, "accuracy": accuracy} if several else scorer
    refit = "loss" if several else True
    settings = {"scoring": scoring, "refit": refit, "cv": GroupKFold(3)}
    weight = np.linspace(0.1, 2.0, 120)
    search = GridSearchCV(net, RATES, ensemble="folds", **settings)
    search.fit(X, y, sample_weight=weight, groups=np.arange(120) % 12)

    assert search.ensemble_score_ == pytest.approx(search.best_score_)
    assert search.score(X, y, sample_weight=weight) != search.score(
        X, y, sample_weight=np.ones(120)
    )


class FailsOnce(LogisticRegression):
    def fit(self, X, y):
        if self.C == 10.0 and X[0, 0] != FIRST:
            raise RuntimeError("this split fails")
        return super().fit(X, y)


FIRST = X[0, 0]


def test_failed_candidates_are_no_members():
    search = GridSearchCV(
        FailsOnce(), {"C": [1e-3, 10.0, 1.0]}, cv=KFold(3), error_score=1e3, ensemble="greedy"
    )
    with pytest.warns(FitFailedWarning, match="this split fails"):
        search.fit(X, y)

    assert search.best_index_ == 1
    assert search.ensemble_weights_[1] == 0
    assert np.isnan(search.oof_predictions_[1]).all()
    with (
        pytest.warns(FitFailedWarning, match="this split fails"),
        pytest.raises(ValueError, match="needs the best candidate to be fitted on all splits"),
    ):
        clone(search).set_params(ensemble="folds").fit(X, y)


def test_class_that_a_training_set_lacks():
    labels = np.array(["a", "b"])[np.arange(40) % 2]
    labels[:13] = "c"
    rows = X[:40]
    search = GridSearchCV(LogisticRegression(), {"C": [1.0]}, cv=KFold(3), ensemble="greedy")
    # rows 0 to 13 are the test rows of the first split
    search.fit(rows, labels)

    assert search.oof_predictions_.shape == (1, 40, 3)
    assert (search.oof_predictions_[0, :13, 2] == 0).all()
    assert search.predict_proba(rows).sum(axis=1) == pytest.approx(np.ones(40))


class OwnScore(ClassifierMixin, BaseEstimator):
    def predict_proba(self, X):
        return np.ones((len(X), 1))

    def score(self, X, y):
        return 1.0

    def fit(self, X, y):
        raise AssertionError("nothing may be trained")


class Untrained(LogisticRegression):
    def fit(self, X, y):
        raise AssertionError("nothing may be trained")


class UntrainedSVC(LinearSVC):
    def fit(self, X, y):
        raise AssertionError("nothing may be trained")


@pytest.mark.parametrize(
    ("model", "settings", "message"),
    [
        (Untrained(), {"ensemble": "fold"}, "got ensemble='fold'; did you mean 'folds'"),
        (Untrained(), {"ensemble": "folds", "refit": False}, "needs refit, got refit=False"),
        (Untrained(), {"ensemble": "folds", "ensemble_refit": True}, "got ensemble_refit=True"),
        (Untrained(), {"ensemble": "folds", "max_oof_mb": -1}, "got max_oof_mb=-1"),
        (UntrainedSVC(), {"ensemble": "folds"}, "needs predict_proba .* has it: got UntrainedSVC"),
        (
            Untrained(),
            {
                "ensemble": "folds",
                "scoring": make_scorer(max, response_method="decision_function"),
            },
            "needs decision_function",
        ),
        (OwnScore(), {"ensemble": "greedy"}, "OwnScore has a score method of its own"),
        (
            Untrained(),
            {"ensemble": "greedy", "scoring": ["accuracy"], "refit": lambda results: 0},
            "refit must name one of several",
        ),
        (StandardScaler(), {"ensemble": "folds", "scoring": max}, "classifiers or regressors"),
    ],
)
def test_refused_before_anything_is_trained(model, settings, message):
    with pytest.raises(ValueError, match=message):
        GridSearchCV(model, {}, cv=3, **settings).fit(X, y)


def test_candidates_without_probabilities_are_left_out():
    model = SGDClassifier(loss="log_loss", random_state=0)
    search = GridSearchCV(model, {"loss": ["hinge", "log_loss"]}, cv=3, ensemble="greedy")
    with pytest.warns(UserWarning, match="without candidates 0: SGDClassifier has no predict_pro"):
        search.fit(X, y)

    assert search.ensemble_weights_.tolist() == [0.0, 1.0]
    assert search.predict_proba(X_new).shape == (40, 3)
    check_average(search)
    with pytest.raises(ValueError, match="no candidate has it: got SGDClassifier"):
        clone(search).set_params(param_grid={"loss": ["hinge"]}).fit(X, y)


class UntrainedSGD(SGDClassifier):
    def fit(self, X, y):
        raise AssertionError("nothing may be trained")


NO_PROBABILITIES = {
    "grid": lambda net: GridSearchCV(
        net, {"loss": ["hinge", "squared_hinge"], "alpha": [1e-4, 1e-2]}, ensemble="folds"
    ),
    "one of several spaces": lambda net: GridSearchCV(
        net, [{"loss": ["hinge"]}, {"alpha": [0.1]}], ensemble="folds"
    ).set_params(estimator__loss="perceptron"),
    "random": lambda net: RandomizedSearchCV(
        net, {"loss": ["hinge"], "alpha": loguniform(1e-4, 1)}, ensemble="greedy"
    ),
    "Pipeline": lambda net: GridSearchCV(
        Pipeline([("last", LogisticRegression())]),
        {"last": [net, UntrainedSVC()], "last__random_state": [0]},
        ensemble="greedy",
        scoring="neg_log_loss",
    ),
    "as it is, too": lambda net: StagedSearch(
        clone(net).set_params(loss="hinge"),
        [("a", {"alpha": [0.1]}), ("b", {"loss": ["hinge"]})],
        ensemble="greedy",
        sampler="grid",
    ),
}


@pytest.mark.parametrize("kind", NO_PROBABILITIES)
def test_no_candidate_with_probabilities_is_refused_before_anything_is_trained(kind):
    net = UntrainedSGD(loss="hinge" if kind == "Pipeline" else "log_loss")
    search = NO_PROBABILITIES[kind](net)

    with pytest.raises(ValueError, match="predict_proba of each model, no candidate has it: got U"):
        search.fit(X, y)


def test_probabilities_that_candidates_alone_have_are_enough():
    # the estimator as it is has none
    net = SGDClassifier(loss="hinge", random_state=0)
    search = GridSearchCV(net, {"loss": ["log_loss"]}, cv=3, ensemble="folds").fit(X, y)
    assert search.predict_proba(X_new).shape == (40, 3)
    staged = StagedSearch(
        net, [("loss", {"loss": ["log_loss"]})], sampler="grid", cv=3, ensemble="greedy"
    )
    with pytest.warns(UserWarning, match="without candidates 0: SGDClassifier has no predict_pro"):
        staged.fit(X, y)
    assert staged.ensemble_weights_.tolist() == [0.0, 1.0]


def test_margins_are_averaged_as_they_are():
    # a net of a criterion that knows no probabilities predicts what its module returns
    net = skorch.NeuralNetClassifier(
        torch.nn.Linear,
        module__in_features=6,
        module__out_features=3,
        max_epochs=20,
        lr=0.5,
        criterion=torch.nn.MultiMarginLoss,
        verbose=0,
        train_split=None,
    )
    search = GridSearchCV(net, {"lr": [0.5]}, cv=3, ensemble="folds", scoring="balanced_accuracy")
    search.fit((5 * X).astype(np.float32), y.astype(np.int64))

    assert search.oof_predictions_.max() > 2
    assert search.ensemble_score_ == pytest.approx(search.best_score_)


def test_models_without_probabilities_in_the_place_of_others():
    pipe = make_pipeline(LogisticRegression(C=1e-9))
    # the last step that has no probabilities is the better one
    grid = {"logisticregression": [LogisticRegression(C=1e-9), LinearSVC()]}
    search = GridSearchCV(pipe, grid, cv=3, ensemble="greedy")
    match = "without candidates 1: LinearSVC has no predict_proba"
    with pytest.warns(UserWarning, match=match):
        search.fit(X, y)

    assert search.best_index_ == 1
    assert search.ensemble_weights_.tolist() == [1.0, 0.0]
    with (
        pytest.warns(UserWarning, match=match),
        pytest.raises(ValueError, match="candidate 1 has failed or does not"),
    ):
        clone(search).set_params(ensemble="folds").fit(X, y)


@pytest.mark.parametrize("kind", ["fused", "alone", "skorch", "refit"])
def test_members_keep_no_state_of_their_optimizers(kind):
    settings = {"max_epochs": 3, "module__hidden": (8,), "random_state": 0}
    net = NeuralNetClassifier(**settings)
    if kind == "alone":
        # a callback that is called for each batch keeps a net out of groups
        net.set_params(callbacks=[BatchScoring("train_loss", name="loss_of_batches")])
    if kind == "skorch":
        net = skorch.NeuralNetClassifier(
            torch.nn.Linear,
            module__in_features=6,
            module__out_features=3,
            max_epochs=3,
            criterion=torch.nn.CrossEntropyLoss,
            optimizer=torch.optim.Adam,
            verbose=0,
        )
    grid = {"lr": [1e-3, 1e-2]}
    search = GridSearchCV(net, grid, cv=3, ensemble="greedy", ensemble_refit=kind == "refit")
    search.fit(X, y.astype(np.int64))

    assert len(search.fusion_.alone) == (6 if kind == "alone" else 0)
    members = search.ensemble_.members_
    assert [len(member.optimizer_.state) for member in members] == [0] * len(members)
    assert search.best_estimator_.optimizer_.state
    before = search.predict_proba(X_new)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(search)).predict_proba(X_new), before)
    # they can be trained on
    member = members[0].partial_fit(X, y.astype(np.int64))
    assert len(member.optimizer_.state) > 0


def test_table_of_labels_is_refused():
    with pytest.raises(ValueError, match="y is multilabel-indicator"):
        GridSearchCV(NET, {}, cv=3, ensemble="folds").fit(X, np.eye(3)[y].astype(int))


def test_random_splits_may_not_differ_between_candidates():
    class TwoCalls(GridSearchCV):
        def _run_search(self, evaluate_candidates):
            evaluate_candidates([{"C": 1.0}])
            evaluate_candidates([{"C": 0.1}])

    cv = KFold(3, shuffle=True)
    with pytest.raises(ValueError, match="candidate 1 was tried on others"):
        TwoCalls(LogisticRegression(), {}, cv=cv, ensemble="greedy").fit(X, y)


def test_predictions_that_are_too_large_are_left_out():
    search = GridSearchCV(LogisticRegression(), {}, cv=3, ensemble="greedy", max_oof_mb=1e-3)
    with pytest.warns(UserWarning, match=r"max_oof_mb=0.001, it would take 0.00137 MB"):
        search.fit(X, y)

    assert not hasattr(search, "oof_predictions_")
    assert search.ensemble_score_ == pytest.approx(search.best_score_)


def test_without_an_ensemble_nothing_is_new():
    search = GridSearchCV(NET, RATES, cv=3, ensemble="folds").fit(X, y)
    search.set_params(ensemble=None).fit(X, y)

    assert not any(hasattr(search, f"{name}_") for name in ("ensemble", "ensemble_score"))
    expected = search.best_estimator_.predict_proba(X_new)
    np.testing.assert_array_equal(search.predict_proba(X_new), expected)
    with pytest.raises(AttributeError, match="predict_proba"):
        GridSearchCV(Ridge(), {}).predict_proba  # noqa: B018


@pytest.mark.parametrize("kind", KINDS)
def test_pickled_and_cloned(kind):
    search = RandomizedSearchCV(NET, RATES, n_iter=2, cv=3, random_state=0, ensemble=kind).fit(X, y)

    restored = pickle.loads(pickle.dumps(search))
    np.testing.assert_array_equal(restored.predict_proba(X_new), search.predict_proba(X_new))
    assert restored.score(X, y) == search.score(X, y)
    again = clone(search).fit(X, y)
    assert again.ensemble_score_ == search.ensemble_score_
    # the average of unfitted members can be fitted to other rows
    fitted = clone(search.ensemble_).fit(X, y)
    assert fitted.predict(X_new).shape == (40,)


def test_nets_of_one_architecture_are_one_model():
    grid = {"module__hidden": [(8,), (6,)], "module__dropout": [0.0, 0.3]}
    nets = [clone(NET).set_params(random_state=n).fit(X, y) for n in range(3)]
    nets += [clone(NET).set_params(module__hidden=(6,)).fit(X, y)]
    nets += [clone(NET).set_params(module__dropout=grid["module__dropout"][1]).fit(X, y)]
    models = list(stack_alike([*nets, LogisticRegression().fit(X, y)], np.ones(6)))

    assert [weight for _, weight in models] == [4, 1, 1]
    expected = np.mean([nets[n].predict_proba(X_new) for n in (0, 1, 2, 4)], axis=0)
    np.testing.assert_allclose(models[0][0].predict_proba(X_new), expected, atol=1e-6)


@pytest.mark.parametrize("scoring", [None, "neg_log_loss", ["accuracy", "roc_auc_ovr"]])
def test_holdout_search_scores_both_on_the_same_rows(scoring):
    refit = "roc_auc_ovr" if isinstance(scoring, list) else True
    search = GridSearchCV(NET, RATES, cv=3, scoring=scoring, refit=refit, ensemble="folds")
    tuned = HoldoutSearch(search, random_state=0, n_resamples=20).fit(X, y)

    rows, target = X[tuned.test_indices_], y[tuned.test_indices_]
    assert tuned.ensemble_test_score_ == pytest.approx(tuned.search_.score(rows, target))
    low, high = tuned.ensemble_test_interval_
    assert low <= tuned.ensemble_test_score_ <= high
    single = tuned.test_score_["roc_auc_ovr"] if refit is not True else tuned.test_score_
    assert tuned.score(rows, target) == pytest.approx(single)
    lines = [
        line for line in tuned.summary().splitlines() if line.startswith("Test of the ensemble")
    ]
    assert f"{tuned.ensemble_test_score_:.4f}" in lines[0]
    assert "Test of the ensemble" in tuned.summary()
    tuned.set_params(search__ensemble=None).fit(X, y)
    assert "ensemble" not in tuned.summary()


class Certain(ClassifierMixin, BaseEstimator):
    """Predicts one class, with a probability of 1."""

    def __init__(self, seed=0):
        self.seed = seed

    def fit(self, X, y):
        self.classes_ = np.unique(y)
        return self

    def predict_proba(self, X):
        return np.eye(3, dtype=np.float32)[np.zeros(len(X), int)]

    def predict(self, X):
        return self.classes_[np.zeros(len(X), int)]


@pytest.mark.parametrize("n_splits", [3, 7, 11])
def test_probabilities_are_at_most_one(n_splits):
    grid = {"seed": [0, 1, 2]}
    settings = {"cv": n_splits, "scoring": "neg_log_loss", "ensemble": "greedy"}
    search = GridSearchCV(Certain(), grid, **settings).fit(X, y)

    assert search.predict_proba(X).max() <= 1
    assert search.ensemble_score_ == pytest.approx(search.best_score_)


def test_searches_in_rounds_number_their_candidates_on():
    space = {"lr": uniform(1e-4, 0.05)}
    bayes = BayesSearchCV(
        NET, space, n_iter=6, batch_size=2, cv=3, random_state=0, ensemble="greedy"
    )
    staged = StagedSearch(
        NET, [("alpha", space), ("all", None)], n_iter=2, cv=3, random_state=0, ensemble="greedy"
    )
    for search in (bayes, staged):
        search.fit(X, y)
        check_average(search)
        for row, params in enumerate(search.cv_results_["params"]):
            plain = cross_val_predict(
                clone(NET).set_params(**params), X, y, cv=3, method="predict_proba"
            )
            np.testing.assert_allclose(search.oof_predictions_[row], plain, atol=1e-6)


def test_candidates_that_a_timeout_has_cut_off_are_no_members(monkeypatch):
    class LateDeadline(Deadline):
        """Is over in the second epoch of the second round."""

        n_epochs = 0

        def on_epoch(self, event):
            LateDeadline.n_epochs += 1
            if LateDeadline.n_epochs > 4:
                self.end = -np.inf
            super().on_epoch(event)

    monkeypatch.setattr("sktune.search.rounds.session.Deadline", LateDeadline)
    monkeypatch.setattr("sktune.search.grid.default_batch_size", lambda search, n: 2)
    search = RandomizedSearchCV(
        NET,
        {"lr": uniform(1e-4, 0.05)},
        n_iter=6,
        cv=2,
        random_state=0,
        timeout=1e6,
        ensemble="greedy",
        n_jobs=1,
    ).fit(X, y)

    n_complete = len(search.cv_results_["params"])
    assert n_complete < 6
    assert len(search.ensemble_weights_) == len(search.oof_predictions_) == n_complete
    check_average(search)


def test_storage_keeps_no_models(tmp_path):
    search = BayesSearchCV(
        NET, {"lr": uniform(1e-4, 0.05)}, storage=tmp_path / "journal", ensemble="folds"
    )

    with pytest.raises(ValueError, match="ensemble must be None with a storage"):
        search.fit(X, y)


_MEASURED = """
import json, resource, sys
import numpy as np
from scipy.stats import loguniform, uniform
from sklearn.datasets import load_digits
from sktune import BayesSearchCV, NeuralNetClassifier

X, y = load_digits(return_X_y=True)
net = NeuralNetClassifier(module__hidden=(128,), max_epochs=1, random_state=0)
space = {"lr": loguniform(1e-4, 1e-1), "module__dropout": uniform(0, 0.5)}
search = BayesSearchCV(
    net, space, n_iter=300, cv=5, ensemble="greedy", scoring="neg_log_loss", random_state=0
)
search.fit((X / 16).astype(np.float32), y)
kibibytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(json.dumps([len(search.ensemble_weights_), kibibytes / 2**10]))
"""


@pytest.mark.slow
def test_three_hundred_candidates_take_less_than_a_gigabyte():
    pytest.importorskip("optuna")
    command = [sys.executable, "-c", _MEASURED]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    n_candidates, mebibytes = json.loads(done.stdout.splitlines()[-1])

    assert n_candidates == 300
    assert mebibytes < 1000
