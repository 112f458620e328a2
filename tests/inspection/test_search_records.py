"""Searches of all kinds are read into one form."""

import io

import numpy as np
import pandas as pd
import pytest
from scipy.stats import loguniform, randint, uniform
from sklearn.datasets import load_iris
from sklearn.exceptions import NotFittedError
from sklearn.experimental import enable_halving_search_cv  # noqa: F401
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, HalvingGridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import sktune
from sktune.inspection.records import CurveTable, label_of, read_search
from sktune.inspection.records.parameters import find_scale

X, y = load_iris(return_X_y=True)
MODEL = LogisticRegression(max_iter=1000)
GRID = {"C": [0.01, 0.1, 1.0, 10.0]}


@pytest.fixture(scope="module")
def net_search():
    net = sktune.NeuralNetClassifier(max_epochs=4, random_state=0)
    space = {"lr": loguniform(1e-4, 1e-1), "module__dropout": uniform(0, 0.5)}
    return sktune.RandomizedSearchCV(net, space, n_iter=3, cv=2, random_state=0).fit(X, y)


@pytest.fixture(scope="module")
def plain_search():
    return GridSearchCV(MODEL, GRID, cv=3, return_train_score=True).fit(X, y)


def test_a_search_of_networks_has_curves_and_scales(net_search):
    record = read_search(net_search)
    assert (record.n_candidates, record.n_splits, record.scoring) == (3, 2, "accuracy")
    assert record.best_index == net_search.best_index_
    np.testing.assert_array_equal(record.mean_scores, net_search.cv_results_["mean_test_score"])
    assert {name: p.scale for name, p in record.parameters.items()} == {
        "lr": "log",
        "module__dropout": "linear",
    }
    assert record.curves.train_loss.shape == (3, 2, 4)
    frame = net_search.curves_.query("candidate == 1 and split == 1")
    np.testing.assert_array_equal(record.curves.train_loss[1, 1], frame["train_loss"])
    assert not record.curves.has_validation


def test_a_plain_search_has_train_scores_and_no_curves(plain_search):
    record = read_search(plain_search)
    assert record.curves is None
    np.testing.assert_allclose(
        record.train_scores.mean(axis=1), plain_search.cv_results_["mean_train_score"]
    )
    assert record.parameters["C"].scale == "log"
    assert record.parameters["C"].space == GRID["C"]


def test_doors_to_one_search_give_the_same(plain_search):
    results = plain_search.cv_results_
    frame = pd.DataFrame(results)
    from_file = pd.read_csv(io.StringIO(frame.to_csv()))
    expected = read_search(plain_search)
    for found in (results, frame, from_file):
        record = read_search(found)
        np.testing.assert_allclose(record.scores, expected.scores)
        assert record.parameters["C"].numbers.tolist() == GRID["C"]
        assert record.best_index == expected.best_index


def test_a_sealed_search_and_a_pipeline_are_opened():
    pipeline = make_pipeline(StandardScaler(), sktune.GridSearchCV(MODEL, GRID, cv=2))
    sealed = sktune.HoldoutSearch(pipeline, random_state=0).fit(X, y)
    record = read_search(sealed)
    assert record.search is sealed.search_.steps[-1][1]
    assert record.n_candidates == 4


def test_halving_has_rungs():
    search = HalvingGridSearchCV(MODEL, GRID, cv=2, factor=2, random_state=0).fit(X, y)
    record = read_search(search)
    assert record.rungs.tolist() == search.cv_results_["iter"].tolist()


def test_stages_are_named():
    search = sktune.StagedSearch(MODEL, [("all", {"C": [0.1, 1.0]})], sampler="grid", cv=2).fit(
        X, y
    )
    record = read_search(search)
    assert record.stages.tolist() == ["baseline", "all", "all"]
    # the baseline has the estimator's own value
    assert record.parameters["C"].numbers.tolist() == [1.0, 0.1, 1.0]


def test_a_parameter_that_some_candidates_lack():
    results = {
        "params": [{"a": 1.0}, {"a": 2.0, "b": "x"}, {"b": None}],
        "mean_test_score": np.array([0.1, 0.2, np.nan]),
    }
    record = read_search(results)
    assert record.n_splits == 1
    assert np.isnan(record.standard_errors).all()
    assert record.best_index == 1
    np.testing.assert_array_equal(record.parameters["a"].numbers, [1.0, 2.0, np.nan])
    assert record.parameters["b"].codes.tolist() == [-1, 0, 1]


def test_constants_are_no_parameters():
    results = {"params": [{"a": 1, "b": 2}, {"a": 1, "b": 3}], "mean_test_score": [0.1, 0.2]}
    assert list(read_search(results).parameters) == ["b"]


def test_several_metrics():
    search = GridSearchCV(MODEL, GRID, cv=2, scoring=["accuracy", "neg_log_loss"], refit="accuracy")
    search.fit(X, y)
    assert read_search(search).metric == "accuracy"
    losses = read_search(search, "neg_log_loss")
    assert losses.best_index == int(np.argmax(search.cv_results_["mean_test_neg_log_loss"]))
    with pytest.raises(ValueError, match="metric must be one of .*'neg_log_loss'.* got 'loss'"):
        read_search(search, "loss")
    with pytest.raises(ValueError, match="metric must be given where there are several"):
        read_search(search.cv_results_)


def test_all_candidates_failed():
    results = {"params": [{"a": 1}, {"a": 2}], "mean_test_score": [np.nan, np.nan]}
    assert read_search(results).best_index is None


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        (GridSearchCV(MODEL, GRID), NotFittedError, "not fitted"),
        (sktune.HoldoutSearch(GridSearchCV(MODEL, GRID)), NotFittedError, "not fitted"),
        (MODEL, TypeError, "search must be a search with cv_results_.* got LogisticRegression"),
        ({"loss": [1]}, TypeError, r"got a mapping with the keys \['loss'\]"),
        (3, TypeError, "got int"),
    ],
)
def test_what_is_no_fitted_search(given, error, message):
    with pytest.raises(error, match=message):
        read_search(given)


def test_parameters_are_found_by_the_end_of_their_name():
    results = {
        "params": [{"net__lr": 0.1, "a__n": 1, "b__n": 1}, {"net__lr": 0.2, "a__n": 2, "b__n": 2}],
        "mean_test_score": [0.1, 0.2],
    }
    record = read_search(results)
    assert record.find_parameter("lr") is record.parameters["net__lr"]
    with pytest.raises(ValueError, match="the parameter must be one that the search varies"):
        record.find_parameter("n")


@pytest.mark.parametrize(
    ("values", "space", "scale"),
    [
        ([1, 2, 3], None, "linear"),
        ([1e-4, 1e-2], None, "log"),
        ([0.0, 1e-4, 1e-2], None, "log"),
        ([-1.0, 1e-4, 1e-2], None, "linear"),
        ([True, False], None, "categories"),
        ([(64,), (64, 64)], None, "categories"),
        ([8], sktune.loguniform_int(8, 512), "log"),
        ([0.0], sktune.zero_or(loguniform(1e-6, 1e-1)), "log"),
        ([0.0], sktune.zero_or(uniform(0, 1)), "linear"),
        ([5], randint(1, 100), "linear"),
    ],
)
def test_scale(values, space, scale):
    assert find_scale(values, space) == scale


def test_labels():
    assert label_of("mlp__optimizer__weight_decay") == "weight decay λ"
    assert label_of("color") == "color"


def test_curves_of_different_lengths():
    columns = {
        "candidate": [0, 0, 1, -1],
        "split": [0, 0, 0, -1],
        "epoch": [1, 2, 1, 1],
        "train_loss": [3.0, 1.0, np.inf, 9.0],
        "lr": [0.1, 0.1, 0.2, 9.0],
    }
    curves = CurveTable.from_columns(columns, n_candidates=3, n_splits=2)
    assert curves.n_epochs.tolist() == [[2, 0], [1, 0], [0, 0]]
    assert curves.is_recorded.tolist() == [True, True, False]
    mean, std = curves.mean_over_splits("train_loss")
    np.testing.assert_array_equal(mean, [[3.0, 1.0], [np.inf, np.nan], [np.nan, np.nan]])
    assert std[0].tolist() == [0.0, 0.0]
