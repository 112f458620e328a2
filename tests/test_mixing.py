"""scikit-learn's own tools take a net wherever they take an estimator."""

import os
import pickle
import subprocess
import sys
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
import pytest
from scipy.stats import loguniform
from sklearn.base import clone, is_classifier, is_regressor
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import TransformedTargetRegressor, make_column_transformer
from sklearn.datasets import load_iris, make_regression
from sklearn.decomposition import PCA
from sklearn.ensemble import (
    AdaBoostClassifier,
    AdaBoostRegressor,
    BaggingClassifier,
    BaggingRegressor,
    HistGradientBoostingClassifier,
    StackingClassifier,
    StackingRegressor,
    VotingClassifier,
    VotingRegressor,
)
from sklearn.experimental import enable_halving_search_cv  # noqa: F401
from sklearn.feature_selection import RFECV, SelectKBest, SequentialFeatureSelector
from sklearn.frozen import FrozenEstimator
from sklearn.impute import SimpleImputer
from sklearn.inspection import partial_dependence, permutation_importance
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import (
    FixedThresholdClassifier,
    HalvingGridSearchCV,
    TunedThresholdClassifierCV,
    cross_val_predict,
    cross_val_score,
    cross_validate,
    learning_curve,
    validation_curve,
)
from sklearn.multiclass import OneVsOneClassifier, OneVsRestClassifier
from sklearn.multioutput import (
    ClassifierChain,
    MultiOutputClassifier,
    MultiOutputRegressor,
    RegressorChain,
)
from sklearn.pipeline import FeatureUnion, Pipeline, make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

from sktune import (
    GridSearchCV,
    HoldoutSearch,
    NeuralNetClassifier,
    NeuralNetRegressor,
    RandomizedSearchCV,
)

ROOT = Path(__file__).parents[1]

_iris = load_iris()
X = StandardScaler().fit_transform(_iris.data)
Y = _iris.target_names[_iris.target]  # "setosa", "versicolor", "virginica"
# Two classes that overlap.
X2 = X[50:]
Y2 = Y[50:]
XR, YR = make_regression(100, 4, n_targets=2, noise=1.0, random_state=0)
YR = YR / YR.std(axis=0)


def make_classifier(**params):
    params = {"lr": 0.03, "max_epochs": 10, "module__hidden": (16,), "random_state": 1, **params}
    return NeuralNetClassifier(**params)


def make_regressor(**params):
    params = {
        "lr": 0.03,
        "max_epochs": 20,
        "batch_size": 32,
        "module__hidden": (16,),
        "random_state": 1,
        **params,
    }
    return NeuralNetRegressor(**params)


NET, REGRESSOR = make_classifier(), make_regressor()
UNSEEDED, UNSEEDED_REGRESSOR = make_classifier(random_state=None), make_regressor(random_state=None)


def make_mixed_frame(n_rows=90):
    """Return a frame of mixed types with missing values, and string labels."""
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "size": rng.normal(100, 20, n_rows),
            "count": rng.integers(0, 5, n_rows),
            "colour": rng.choice(["red", "green", "blue"], n_rows),
            "grade": pd.Categorical(rng.choice(["low", "high"], n_rows)),
            "is_new": rng.random(n_rows) < 0.5,
        }
    )
    y = np.where((frame["size"] > 100) ^ (frame["grade"] == "high"), "keep", "drop")
    frame.loc[rng.random(n_rows) < 0.1, "size"] = np.nan
    frame.loc[rng.random(n_rows) < 0.1, "colour"] = None
    return frame, y


def make_columns(sparse_output=False):
    return make_column_transformer(
        (make_pipeline(SimpleImputer(), StandardScaler()), ["size", "count"]),
        (OneHotEncoder(handle_unknown="ignore", sparse_output=sparse_output), ["colour", "grade"]),
        ("passthrough", ["is_new"]),
        sparse_threshold=1.0 if sparse_output else 0.0,
    )


# --- ensembles and other estimators around a net ---


@pytest.mark.parametrize(
    "model",
    [
        VotingClassifier(
            [("net", NET), ("tree", DecisionTreeClassifier(random_state=0))], voting="soft"
        ),
        VotingClassifier(
            [("net", NET), ("tree", DecisionTreeClassifier(random_state=0))], voting="hard"
        ),
        StackingClassifier([("net", NET), ("tree", DecisionTreeClassifier(random_state=0))], cv=2),
        StackingClassifier([("logistic", LogisticRegression())], NET, cv=2),
        BaggingClassifier(UNSEEDED, n_estimators=3, max_features=0.8, random_state=0),
        AdaBoostClassifier(UNSEEDED, n_estimators=3, random_state=0),
        CalibratedClassifierCV(NET, cv=2),
        CalibratedClassifierCV(NET, method="isotonic", cv=2, ensemble=False),
        OneVsRestClassifier(NET),
        OneVsOneClassifier(NET),
        make_pipeline(FeatureUnion([("pca", PCA(2)), ("best", SelectKBest(k=2))]), NET),
    ],
    ids=lambda model: type(model).__name__,
)
def test_classifier_with_a_net_inside(model):
    model = clone(model).fit(X, Y)

    predicted = model.predict(X)
    assert set(predicted) == set(Y)
    assert model.score(X, Y) > 0.85
    np.testing.assert_array_equal(predicted, clone(model).fit(X, Y).predict(X))
    if hasattr(model, "predict_proba"):
        proba = model.predict_proba(X)
        assert proba.shape == (150, 3)
        np.testing.assert_allclose(proba.sum(axis=1), 1, rtol=1e-5)
        assert is_classifier(model)


@pytest.mark.parametrize(
    "model",
    [
        VotingRegressor([("net", REGRESSOR), ("ridge", Ridge())]),
        StackingRegressor([("net", REGRESSOR), ("ridge", Ridge())], cv=2),
        StackingRegressor(
            [("tree", DecisionTreeRegressor(random_state=0)), ("ridge", Ridge())], REGRESSOR, cv=2
        ),
        BaggingRegressor(UNSEEDED_REGRESSOR, n_estimators=3, random_state=0),
        AdaBoostRegressor(UNSEEDED_REGRESSOR, n_estimators=3, random_state=0),
        TransformedTargetRegressor(REGRESSOR, transformer=StandardScaler()),
    ],
    ids=lambda model: type(model).__name__,
)
def test_regressor_with_a_net_inside(model):
    y = YR[:, 0]
    model = clone(model).fit(XR, y)

    predicted = model.predict(XR)
    assert predicted.shape == y.shape
    assert model.score(XR, y) > 0.8
    np.testing.assert_array_equal(predicted, clone(model).fit(XR, y).predict(XR))
    assert is_regressor(model)


@pytest.mark.parametrize("ensemble", [BaggingClassifier, AdaBoostClassifier])
def test_an_ensemble_seeds_its_nets_differently(ensemble):
    model = ensemble(UNSEEDED, n_estimators=3, random_state=0).fit(X, Y)

    seeds = {net.random_state for net in model.estimators_}
    assert len(seeds) == len(model.estimators_) == 3
    assert None not in seeds


@pytest.mark.parametrize("model", [MultiOutputClassifier(NET), ClassifierChain(NET)])
def test_classifier_of_several_labels(model):
    labels = np.column_stack([X[:, 0] > 0, X[:, 2] > 0]).astype(int)

    predicted = clone(model).fit(X, labels).predict(X)

    assert predicted.shape == labels.shape
    assert np.mean(predicted == labels) > 0.85
    np.testing.assert_array_equal(predicted, clone(model).fit(X, labels).predict(X))


def test_multi_output_of_text():
    labels = np.column_stack([Y, np.where(X[:, 0] > 0, "long", "short")])

    model = MultiOutputClassifier(NET).fit(X, labels)

    assert [list(classes) for classes in model.classes_] == [
        ["setosa", "versicolor", "virginica"],
        ["long", "short"],
    ]
    assert np.mean(model.predict(X) == labels) > 0.85


@pytest.mark.parametrize(
    "model", [REGRESSOR, MultiOutputRegressor(REGRESSOR), RegressorChain(REGRESSOR)]
)
def test_regressor_of_several_targets(model):
    model = clone(model).fit(XR, YR)

    assert model.predict(XR).shape == YR.shape
    assert model.score(XR, YR) > 0.8
    np.testing.assert_array_equal(model.predict(XR), clone(model).fit(XR, YR).predict(XR))


@pytest.mark.parametrize("y", [YR[:, 0], YR], ids=["one target", "two"])
def test_transformed_targets_of_any_scale(y):
    shifted = 5000 + 1000 * y
    model = TransformedTargetRegressor(REGRESSOR, transformer=StandardScaler()).fit(XR, shifted)

    assert model.predict(XR).shape == y.shape
    assert model.score(XR, shifted) > 0.8


def test_calibration_of_a_net_already_fitted():
    fitted = make_classifier().fit(X[::2], Y[::2])

    model = CalibratedClassifierCV(FrozenEstimator(fitted)).fit(X[1::2], Y[1::2])

    assert model.score(X, Y) > 0.85
    assert set(model.predict(X)) == set(Y)


@pytest.mark.parametrize(
    "model",
    [
        FixedThresholdClassifier(NET, threshold=0.2, pos_label="virginica"),
        TunedThresholdClassifierCV(NET, scoring="balanced_accuracy", cv=2),
    ],
    ids=lambda model: type(model).__name__,
)
def test_thresholds(model):
    model = clone(model).fit(X2, Y2)

    assert set(model.predict(X2)) == set(Y2)
    assert model.score(X2, Y2) > 0.8
    # A lower threshold finds more of the positive class.
    if isinstance(model, FixedThresholdClassifier):
        plain = model.estimator_.predict(X2)
        assert np.sum(model.predict(X2) == "virginica") > np.sum(plain == "virginica")


# --- pipelines ---


@pytest.mark.parametrize("sparse_output", [False, True])
def test_mixed_frame(sparse_output):
    frame, y = make_mixed_frame()
    model = make_pipeline(make_columns(sparse_output), make_classifier(max_epochs=30)).fit(frame, y)

    assert model.score(frame, y) > 0.85
    stranger = frame[:1].assign(colour="violet", size=np.nan)
    assert model.predict(stranger)[0] in ("keep", "drop")
    assert cross_val_score(model, frame, y, cv=3).mean() > 0.6


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_pipeline_that_hands_frames_on(library):
    pytest.importorskip(library)
    frame, y = make_mixed_frame()
    model = make_pipeline(make_columns(), clone(NET)).set_output(transform=library).fit(frame, y)

    names = list(model[:-1].get_feature_names_out())
    assert "onehotencoder__grade_high" in names
    assert list(model[-1].feature_names_in_) == names
    plain = make_pipeline(make_columns(), clone(NET)).fit(frame, y)
    np.testing.assert_array_equal(model.predict_proba(frame), plain.predict_proba(frame))


def test_columns_in_another_order_are_refused():
    frame = pd.DataFrame(X, columns=list("abcd"))
    net = make_classifier().fit(frame, Y)

    with pytest.raises(ValueError, match="feature names should match"):
        net.predict(frame[list("dcba")])


def test_sample_weights_reach_the_net_in_a_pipeline():
    weights = np.where(Y == "setosa", 0.0, 1.0)

    model = make_pipeline(PCA(), make_classifier()).fit(
        X, Y, neuralnetclassifier__sample_weight=weights
    )

    assert set(model.predict(X)) == {"versicolor", "virginica"}


# --- model selection and inspection ---


def test_cross_val_predict():
    proba = cross_val_predict(NET, X, Y, cv=3, method="predict_proba")

    assert proba.shape == (150, 3)
    assert np.mean(np.unique(Y)[proba.argmax(axis=1)] == Y) > 0.85


def test_learning_curve():
    sizes, train_scores, test_scores = learning_curve(
        NET, X, Y, cv=3, train_sizes=[0.3, 1.0], shuffle=True, random_state=0
    )

    assert sizes.tolist() == [30, 100]
    assert train_scores.shape == test_scores.shape == (2, 3)
    assert test_scores[1].mean() > 0.85


def test_validation_curve():
    _, scores = validation_curve(
        NET, X, Y, param_name="module__dropout", param_range=[0.0, 0.95], cv=3
    )
    _, by_rate = validation_curve(NET, X, Y, param_name="lr", param_range=[1e-6, 0.03], cv=3)

    assert scores.shape == by_rate.shape == (2, 3)
    assert by_rate[1].mean() > by_rate[0].mean() + 0.2


def test_permutation_importance_finds_what_matters():
    with_noise = np.column_stack([X[:, 2], np.random.default_rng(0).normal(size=len(X))])
    net = make_classifier().fit(with_noise, Y)

    importance = permutation_importance(
        net, with_noise, Y, n_repeats=3, random_state=0
    ).importances_mean

    assert importance[0] > 0.3 > 0.1 > importance[1]


def test_partial_dependence():
    by_class = partial_dependence(clone(NET).fit(X2, Y2), X2, features=[2], grid_resolution=5)[
        "average"
    ][0]
    by_target = partial_dependence(
        clone(REGRESSOR).fit(XR, YR[:, 0]), XR, features=[1], grid_resolution=5
    )

    # Long petals are typical of virginica.
    assert by_class[-1] - by_class[0] > 0.2
    assert by_target["average"].shape == (1, 5)


def first_layer_strength(net):
    """Return how strongly each feature enters the first layer."""
    return net.module_.layers[0].weight.detach().abs().sum(dim=0).numpy()


@pytest.mark.parametrize(
    "selector",
    [
        SequentialFeatureSelector(NET, n_features_to_select=1, cv=2),
        RFECV(NET, min_features_to_select=1, cv=2, importance_getter=first_layer_strength),
    ],
    ids=lambda selector: type(selector).__name__,
)
def test_feature_selection(selector):
    noise = np.random.default_rng(0).normal(size=(len(X), 1))
    table = np.hstack([X[:, 2:], noise])

    kept = clone(selector).fit(table, Y).get_support()

    assert kept[:2].any()
    assert not kept[2]


SCORINGS = [
    *("accuracy", "balanced_accuracy", "f1_macro", "neg_log_loss", "roc_auc_ovr"),
    *("matthews_corrcoef", "top_k_accuracy"),
]


def test_scorers_by_name():
    scores = cross_validate(NET, X, Y, cv=2, scoring=SCORINGS)

    assert all(np.isfinite(scores[f"test_{name}"]).all() for name in SCORINGS)
    assert scores["test_roc_auc_ovr"].mean() > 0.9


def test_scorers_of_two_classes_by_name():
    scores = cross_validate(
        NET, X2, Y2 == "virginica", cv=2, scoring=["roc_auc", "neg_brier_score", "f1"]
    )

    assert scores["test_roc_auc"].mean() > 0.9
    assert scores["test_f1"].mean() > 0.8


def test_scorers_of_a_regressor_by_name():
    names = ["r2", "neg_mean_absolute_error", "neg_root_mean_squared_error", "explained_variance"]
    scores = cross_validate(REGRESSOR, XR, YR, cv=2, scoring=names)

    assert all(np.isfinite(scores[f"test_{name}"]).all() for name in names)
    assert scores["test_r2"].mean() > 0.7


# --- searches ---


def test_search_that_chooses_between_a_net_and_boosting():
    boosting = HistGradientBoostingClassifier(max_iter=3, min_samples_leaf=3)
    grid = [
        {"model": [NET], "model__lr": [1e-3, 0.03]},
        {"model": [boosting], "model__learning_rate": [0.01, 0.1]},
    ]
    pipeline = Pipeline([("scale", StandardScaler()), ("model", NET)])

    search = GridSearchCV(pipeline, grid, cv=2, error_score="raise").fit(X, Y)

    kinds = [type(params["model"]).__name__ for params in search.cv_results_["params"]]
    assert kinds == ["NeuralNetClassifier"] * 2 + ["HistGradientBoostingClassifier"] * 2
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    assert search.score(X, Y) > 0.85
    assert set(search.predict(X)) == set(Y)


@pytest.mark.parametrize(
    "search",
    [
        GridSearchCV(NET, {"lr": [1e-5, 0.03]}, cv=2),
        RandomizedSearchCV(NET, {"lr": loguniform(1e-3, 1e-1)}, n_iter=2, cv=2, random_state=0),
        HoldoutSearch(
            GridSearchCV(NET, {"lr": [1e-5, 0.03]}, cv=2), n_resamples=20, random_state=0
        ),
    ],
    ids=lambda search: type(search).__name__,
)
def test_nested_cross_validation(search):
    scores = cross_val_score(search, X, Y, cv=2)

    assert scores.min() > 0.8
    np.testing.assert_array_equal(scores, cross_val_score(search, X, Y, cv=2))


def test_halving_over_epochs():
    search = HalvingGridSearchCV(
        NET,
        {"lr": [1e-5, 1e-4, 0.03]},
        resource="max_epochs",
        max_resources=9,
        factor=3,
        cv=2,
        random_state=0,
    ).fit(X, Y)

    assert search.best_params_ == {"lr": 0.03, "max_epochs": 9}


def test_a_search_is_a_member_of_an_ensemble():
    search = GridSearchCV(NET, {"lr": [1e-5, 0.03]}, cv=2)

    model = VotingClassifier(
        [("tuned", search), ("logistic", LogisticRegression())], voting="soft"
    ).fit(X, Y)

    assert model.score(X, Y) > 0.85


def test_two_processes_find_what_one_finds():
    def fit(n_jobs):
        space = {"lr": loguniform(1e-3, 1e-1), "module__dropout": [0.0, 0.5]}
        search = RandomizedSearchCV(NET, space, n_iter=3, cv=2, random_state=0, n_jobs=n_jobs)
        with joblib.parallel_config("loky"):
            return search.fit(X, Y)

    alone, shared = fit(1), fit(2)

    for key in ("params", "split0_test_score", "split1_test_score", "rank_test_score"):
        np.testing.assert_array_equal(alone.cv_results_[key], shared.cv_results_[key])
    np.testing.assert_array_equal(alone.predict_proba(X), shared.predict_proba(X))


# --- saved models and HTML ---

PREDICT = """
import pickle, sys
import joblib, numpy as np
X = np.load("X.npy")
with open("model.pickle", "rb") as file:
    restored = pickle.load(file), joblib.load("model.joblib"), pickle.load(file)
labels = restored[0].predict(X)
np.savez("answers.npz", *(model.predict_proba(X) for model in restored), labels=labels)
"""


def test_saved_models_predict_the_same_in_a_fresh_process(tmp_path):
    net = make_classifier(module__dropout=0.3).fit(X, Y)
    pipeline = make_pipeline(StandardScaler(), make_classifier()).fit(X, Y)
    tuned = HoldoutSearch(
        GridSearchCV(NET, {"lr": [0.01, 0.03]}, cv=2), n_resamples=20, random_state=0
    ).fit(X, Y)
    np.save(tmp_path / "X.npy", X)
    with open(tmp_path / "model.pickle", "wb") as file:
        pickle.dump(net, file)
        pickle.dump(tuned, file)
    joblib.dump(pipeline, tmp_path / "model.joblib")

    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    env = {**os.environ, "PYTHONPATH": path}
    subprocess.run([sys.executable, "-c", PREDICT], cwd=tmp_path, env=env, check=True, timeout=120)

    with np.load(tmp_path / "answers.npz") as answers:
        for name, model in zip(("arr_0", "arr_1", "arr_2"), (net, pipeline, tuned), strict=True):
            np.testing.assert_array_equal(answers[name], model.predict_proba(X))
        np.testing.assert_array_equal(answers["labels"], net.predict(X))


@pytest.mark.parametrize("fitted", [False, True])
@pytest.mark.parametrize(
    "model",
    [
        NET,
        make_pipeline(StandardScaler(), NET),
        BaggingClassifier(NET, n_estimators=2),
        HoldoutSearch(GridSearchCV(NET, {"lr": [0.01]}, cv=2), n_resamples=20),
    ],
    ids=lambda model: type(model).__name__,
)
def test_html(model, fitted):
    model = clone(model)
    if fitted:
        model.fit(X, Y)

    assert "NeuralNetClassifier" in model._repr_html_()
    assert "NeuralNetClassifier" in repr(model)
