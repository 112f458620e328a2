import numpy as np
import pandas as pd
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse
from sklearn import utils
from sklearn.model_selection import (
    GroupKFold,
    KFold,
    PredefinedSplit,
    ShuffleSplit,
    TimeSeriesSplit,
    train_test_split,
)

from sktune.evaluation.sealing import check_rows, seal_rows, take_params, take_rows


def seal(n_rows=20, y=None, groups=None, is_classifier=True, **settings):
    settings = {
        "test_size": 0.2,
        "random_state": 0,
        "stratify": "auto",
        "splitter": None,
        "is_classifier": is_classifier,
    } | settings
    return seal_rows(np.zeros((n_rows, 1)), y, groups, **settings)


def assert_divides(dev, test, n_rows):
    assert sorted([*dev, *test]) == list(range(n_rows))


@given(st.integers(2, 60), st.floats(0.05, 0.95), st.integers(0, 99))
@settings(max_examples=50, deadline=None)
def test_sides_are_disjoint_and_cover_all_rows(n_rows, test_size, seed):
    n_test = int(np.ceil(test_size * n_rows))
    if n_test == n_rows:
        with pytest.raises(ValueError, match="test_size must leave rows on both sides"):
            seal(n_rows, test_size=test_size)
        return

    dev, test = seal(n_rows, test_size=test_size, random_state=seed)

    assert_divides(dev, test, n_rows)
    assert len(test) == n_test


@given(st.lists(st.integers(2, 12), min_size=2, max_size=4), st.integers(0, 99))
@settings(max_examples=50, deadline=None)
def test_classes_keep_their_shares(counts, seed):
    y = np.random.RandomState(seed).permutation(np.repeat(np.arange(len(counts)), counts))
    n_test = max(len(counts), len(y) // 3)

    dev, test = seal(len(y), y, test_size=n_test, random_state=seed)

    assert_divides(dev, test, len(y))
    sealed = np.bincount(y[test], minlength=len(counts))
    assert np.abs(sealed - n_test * np.array(counts) / len(y)).max() <= 1


@given(st.lists(st.integers(0, 6), min_size=8, max_size=40), st.booleans(), st.integers(0, 99))
@settings(max_examples=50, deadline=None)
def test_groups_stay_together(groups, stratify, seed):
    groups = np.array(groups)
    n_groups = len(np.unique(groups))
    if n_groups < 2:
        return
    y = np.arange(len(groups)) % 2

    dev, test = seal(len(y), y, groups, test_size=0.3, random_state=seed, stratify=stratify)

    assert_divides(dev, test, len(y))
    assert not set(groups[dev]) & set(groups[test])
    assert len(set(groups[test])) == int(np.ceil(0.3 * n_groups))


def test_groups_are_drawn_so_that_classes_keep_their_shares():
    groups = np.repeat(np.arange(20), 5)
    y = (groups < 4).astype(int)  # whole groups are of the rare class

    for seed in range(10):
        _, test = seal(100, y, groups, random_state=seed)
        assert y[test].mean() == pytest.approx(0.25, abs=0.06)


def test_split_is_the_one_of_train_test_split():
    y = np.arange(20) % 2

    dev, test = seal(20, y, random_state=5)

    expected = train_test_split(np.arange(20), test_size=0.2, random_state=5, stratify=y)
    np.testing.assert_array_equal(dev, expected[0])
    np.testing.assert_array_equal(test, expected[1])


@pytest.mark.parametrize(
    ("y", "is_classifier"),
    [(np.linspace(0, 1, 20), False), (np.arange(20) % 2, False), (np.eye(20), True), (None, True)],
)
def test_auto_stratifies_by_classes_only(y, is_classifier):
    dev, test = seal(20, y, is_classifier=is_classifier)

    expected = train_test_split(np.arange(20), test_size=0.2, random_state=0)
    np.testing.assert_array_equal(test, expected[1])


@pytest.mark.parametrize(
    ("splitter", "expected"),
    [
        (TimeSeriesSplit(3), [15, 16, 17, 18, 19]),
        (TimeSeriesSplit(3, gap=2, test_size=2), [18, 19]),
        (KFold(4), [15, 16, 17, 18, 19]),
        (PredefinedSplit([-1] * 18 + [0] * 2), [18, 19]),
    ],
)
def test_a_splitters_last_split_counts(splitter, expected):
    dev, test = seal(20, splitter=splitter, test_size=None)

    assert test.tolist() == expected
    assert not set(dev) & set(test)


def test_a_splitter_gets_the_groups():
    groups = np.arange(20) // 4

    dev, test = seal(20, groups=groups, splitter=GroupKFold(5))

    assert not set(groups[dev]) & set(groups[test])


def test_a_splitter_may_give_masks():
    class Masks:
        def split(self, X, y=None):
            mask = np.arange(len(X)) < 15
            yield mask, ~mask

    dev, test = seal(20, splitter=Masks())

    assert test.tolist() == [15, 16, 17, 18, 19]


class Splits:
    def __init__(self, *splits):
        self.splits = splits

    def split(self, X, y=None):
        return iter(self.splits)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"test_size": 20}, "test_size must leave rows on both sides, got test_size=20 of 20 rows"),
        ({"test_size": 0.99}, "test_size must leave rows on both sides, got test_size=0.99"),
        (
            {"y": [0, 1] * 9 + [2, 2], "test_size": 2},
            "sealed rows must be at least as many as the 3",
        ),
        ({"y": [0, 1] * 10, "test_size": 19}, "searched rows must be at least as many .* got 1"),
        ({"y": ["a"] * 19 + ["b"]}, "at least 2 rows .* got 1 row of class b; stratify=False"),
        ({"y": np.linspace(0, 1, 20), "stratify": True}, "class label per row .* got continuous y"),
        ({"groups": [1] * 20}, "groups must name at least 2 groups, got 1"),
        ({"groups": [1, 2] * 10, "test_size": 0.6}, "test_size must leave groups on both sides"),
        ({"splitter": Splits()}, "splitter must give at least one split, got none"),
        ({"splitter": Splits(([0, 1], []))}, "splitter must leave rows on both sides, got 2 to se"),
        ({"splitter": Splits(([0, 1], [1, 2]))}, "splitter must give disjoint rows, got 1 on both"),
    ],
)
def test_splits_that_cannot_be_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        seal(**arguments)


def test_a_rare_class_passes_without_stratifying():
    dev, test = seal(20, ["a"] * 19 + ["b"], stratify=False)

    assert_divides(dev, test, 20)


@pytest.mark.parametrize("test_size", [0, 0.0, 1.0, 1.5, -0.1, True, "0.2", None, float("nan")])
def test_test_size_is_a_share_between_0_and_1(test_size):
    with pytest.raises(ValueError, match="test_size must be between 0 and 1, got test_size="):
        seal(test_size=test_size)


def test_test_size_is_a_positive_number_of_rows():
    assert len(seal(test_size=np.int64(5))[1]) == 5
    with pytest.raises(ValueError, match="test_size must be positive, got test_size=-5"):
        seal(test_size=-5)


def test_random_states_of_either_kind_repeat():
    for make in (lambda: 3, lambda: np.random.RandomState(3)):
        first, second = (seal(30, random_state=make())[1] for _ in range(2))
        np.testing.assert_array_equal(first, second)
    splitter = ShuffleSplit(2, random_state=1)
    np.testing.assert_array_equal(seal(splitter=splitter)[1], seal(splitter=splitter)[1])


# --- rows of any table ---

TABLE = np.arange(12).reshape(4, 3)
FORMS = {
    "array": TABLE,
    "list": TABLE.tolist(),
    "pandas": pd.DataFrame(TABLE, columns=list("abc"), index=[9, 8, 7, 6]),
    "polars": pl.DataFrame(TABLE, schema=list("abc")),
    "coo": sparse.coo_matrix(TABLE),
    "csr": sparse.csr_array(TABLE),
}


@pytest.mark.parametrize("form", FORMS)
def test_rows_are_taken_by_position(form):
    table, _, _ = check_rows(FORMS[form])

    taken = take_rows(table, np.array([3, 1]))

    values = taken.toarray() if sparse.issparse(taken) else np.asarray(taken)
    np.testing.assert_array_equal(values, TABLE[[3, 1]])
    assert type(taken) is type(table)


def test_nothing_has_no_rows():
    assert take_rows(None, np.array([0])) is None


def test_params_with_an_entry_per_row_are_taken():
    params = {
        "weight": np.arange(4),
        "names": list("abcd"),
        "column": pd.Series([1, 2, 3, 4]),
        "word": "four",
        "by_name": dict.fromkeys("abcd"),
        "number": 4,
        "scalar": np.array(4),
        "other": [1, 2],
        "nothing": None,
    }

    taken = take_params(params, 4, np.array([2, 0]))

    assert taken["weight"].tolist() == [2, 0]
    assert taken["names"] == ["c", "a"]
    assert taken["column"].tolist() == [3, 1]
    for name in ("word", "by_name", "number", "scalar", "other", "nothing"):
        assert taken[name] is params[name]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([[1.0]],), "X must have at least 2 rows, got n_samples=1"),
        ((pd.DataFrame(),), "X must have at least 2 rows, got n_samples=0"),
        ((TABLE, [1, 2]), "y must have one entry for each of the 4 rows of X, got 2"),
        ((TABLE, None, [1] * 5), "groups must have one entry for each of the 4 rows of X, got 5"),
    ],
)
def test_rows_that_do_not_match_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        check_rows(*arguments)


def test_the_name_taken_from_scikit_learn_is_where_it_was():
    assert utils._safe_indexing(["a", "b"], np.array([1])) == ["b"]
