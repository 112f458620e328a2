"""The table of what a parameter's values have done."""

from dataclasses import replace

import numpy as np
import pytest
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV

from sktune import HalvingGridSearchCV
from sktune.inspection import effect_table
from sktune.inspection.effects.training import epochs_to_converge, find_converged, find_gaps
from sktune.inspection.records import CurveTable, read_search
from sktune.inspection.report.asked import describe_effort

pytest.importorskip("pandas")


def results_of(values, scores, name="lr"):
    params = [{} if value is None else {name: value} for value in values]
    return {"params": params, "mean_test_score": np.array(scores, dtype=float)}


def test_rows_of_values_with_failed_candidates():
    results = results_of([0.1, 0.1, 0.1, 1.0], [0.5, 0.7, np.nan, np.nan])
    table = effect_table(results, "lr")

    assert list(table.index) == ["0.1", "1"]
    assert table["n_candidates"].tolist() == [3, 1]
    assert table["n_failed"].tolist() == [1, 1]
    assert table["mean_score"]["0.1"] == pytest.approx(0.6)
    assert table["mean_score_se"]["0.1"] == pytest.approx(0.1)
    assert table["best_score"]["0.1"] == pytest.approx(0.7)
    assert np.isnan(table["mean_score"]["1"])
    assert table["gap_from"].tolist() == ["none", "none"]


def test_zero_and_unset_have_rows_of_their_own():
    values = [None, 0.0, 0.0, *np.geomspace(1e-4, 1, 12)]
    table = effect_table(results_of(values, range(15)), "lr", n_bins=4)

    assert table["n_candidates"].tolist() == [2, 3, 3, 3, 3, 1]
    assert table.index[0] == "0"
    assert table.index[-1] == "not set"


def test_bins_of_equal_width_are_on_the_scale():
    values = [1e-4, 2e-4, 5e-4, 0.2, 0.5, 1.0]
    table = effect_table(results_of(values, range(6)), "lr", n_bins=2, binning="width")

    assert table["n_candidates"].tolist() == [3, 3]
    assert table["high"].tolist() == [5e-4, 1.0]


def test_categories():
    table = effect_table(results_of(["b", "a", "b"], [1, 2, 3], "act"), "act")

    assert table["mean_score"].to_dict() == {"b": 2.0, "a": 2.0}


def test_fitted_search_with_train_scores():
    X, y = load_iris(return_X_y=True)
    grid = {"C": [0.01, 1.0]}
    search = GridSearchCV(LogisticRegression(max_iter=500), grid, cv=3, return_train_score=True)
    table = effect_table(search.fit(X, y), "C")
    results = search.cv_results_

    assert table["gap_from"].tolist() == ["scores", "scores"]
    gaps = results["mean_train_score"] - results["mean_test_score"]
    np.testing.assert_allclose(table["gap"], gaps, atol=1e-12)
    np.testing.assert_allclose(table["fit_seconds"], results["mean_fit_time"])
    np.testing.assert_allclose(table["best_score_se"], results["std_test_score"] / np.sqrt(2))


def make_rungs(n_resources=(1, 1, 1, 1, 3, 3, 3), bracket=(0, 0, 0, 0, 0, 1, 1)):
    """Return the results of two brackets: of four candidates, and of two with a longer first rung.

    Later evaluations have higher scores.
    """
    rates = [0.1, 0.1, 1.0, 1.0, 1.0, 0.1, 1.0]
    results = results_of(rates, [0.1, 0.3, 0.3, 0.5, 0.9, 0.8, 0.7])
    for params, amount in zip(results["params"], n_resources, strict=True):
        params["max_epochs"] = amount
    columns = {"iter": [0, 0, 0, 0, 1, 0, 0], "n_resources": n_resources, "bracket": bracket}
    return results | columns


def test_rungs_are_not_mixed():
    table = effect_table(make_rungs(), "lr")

    assert table["n_candidates"].tolist() == [2, 2]
    assert table["mean_score"].tolist() == pytest.approx([0.2, 0.4])
    with pytest.raises(ValueError, match=r"one that the search varies, \['lr'\], got 'max_epochs'"):
        effect_table(make_rungs(), "max_epochs")


def test_the_first_rung_of_most_candidates_counts():
    # of equal ones that with most resources
    results = make_rungs(bracket=(0, 0, 1, 1, 0, 2, 2), n_resources=(1, 1, 3, 3, 9, 9, 9))
    record = read_search(results).comparable

    assert record.scores.ravel().tolist() == [0.8, 0.7]
    assert record.scoring == "score (resources = 9)"
    assert record.best_index is None
    # two first rungs with equal resources are one
    results = make_rungs(bracket=(0, 0, 1, 1, 0, 2, 2), n_resources=(1, 1, 1, 1, 3, 3, 3))
    assert read_search(results).comparable.n_candidates == 4
    del results["n_resources"], results["bracket"]
    assert read_search(results).comparable.scoring == "score (the first rung)"


def test_fitted_halving():
    X, y = load_iris(return_X_y=True)
    grid = {"C": [1e-4, 1e-2, 1.0, 100.0], "fit_intercept": [True, False]}
    model = LogisticRegression(max_iter=500)
    search = HalvingGridSearchCV(model, grid, cv=3, factor=2, random_state=0).fit(X, y)
    table = effect_table(search, "C")

    assert table["n_candidates"].tolist() == [2] * 4
    scores = search.cv_results_["mean_test_score"][:8].reshape(4, 2).mean(axis=1)
    np.testing.assert_allclose(table["mean_score"], scores)
    # 8 of them, then 4, 2 and 1
    expected = "8 candidates in 15 evaluations × 3 folds = 45 fits"
    assert describe_effort(read_search(search)) == expected
    record = read_search(search).comparable
    assert record.params[record.best_index] == search.best_params_
    assert record.scoring == f"accuracy (n_samples = {search.min_resources_})"


def test_candidates_that_left_a_race_are_told_apart():
    results = {"params": [{"C": c} for c in (0.1, 0.1, 1.0, 1.0)]}
    results["split0_test_score"] = np.array([0.1, np.nan, 0.5, 0.7])
    results["split1_test_score"] = np.array([np.nan, np.nan, 0.7, 0.9])
    results["mean_test_score"] = np.array([np.nan, np.nan, 0.6, 0.8])
    results["n_splits_run"] = np.array([1, 1, 2, 2])
    table = effect_table(results, "C")

    assert table["n_failed"].tolist() == [1, 0]
    assert table["n_left"].tolist() == [1, 0]
    np.testing.assert_allclose(table["mean_score"], [np.nan, 0.7])
    # the first split is what all were fitted on
    np.testing.assert_array_equal(read_search(results).common_scores, [0.1, np.nan, 0.5, 0.7])


@pytest.mark.parametrize(
    ("losses", "expected"),
    [
        ([2.0, 1.5, 1.009, 1.0, 1.2], 3),
        ([np.nan, 2.0, 1.0], 3),
        ([1.0, 2.0], None),
        ([np.nan, np.inf], None),
        ([1.0], None),
    ],
)
def test_find_converged(losses, expected):
    assert find_converged(np.array(losses)) == expected


def test_curves_give_epochs_and_gaps():
    columns = {"candidate": [0, 0, 0, 1, 1], "split": [0] * 5, "epoch": [1, 2, 3, 1, 2]}
    columns["train_loss"] = [3.0, 1.0, 0.5, 2.0, 1.0]
    columns["lr"] = [0.1] * 5
    columns["valid_loss"] = [3.0, 1.0, 1.5, np.nan, np.nan]
    curves = CurveTable.from_columns(columns, 3, 1)
    record = replace(read_search(results_of([1, 2, 3], [1, 2, 3])), curves=curves)
    gaps, source = find_gaps(record)

    # the second fit has no losses on validation rows, and the third no curve
    np.testing.assert_array_equal(epochs_to_converge(curves, 3), [2, 2, np.nan])
    np.testing.assert_array_equal(gaps, [1.0, np.nan, np.nan])
    assert source == "losses"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_bins": 0}, "n_bins must be an integer of at least 1, got n_bins=0"),
        ({"binning": "log"}, "binning must be 'quantile' or 'width', got binning='log'"),
    ],
)
def test_wrong_options(options, message):
    with pytest.raises(ValueError, match=message):
        effect_table(results_of([1, 2], [1, 2]), "lr", **options)


def test_unknown_parameter():
    with pytest.raises(ValueError, match=r"one that the search varies, \['lr'\], got 'C'"):
        effect_table(results_of([1, 2], [1, 2]), "C")
