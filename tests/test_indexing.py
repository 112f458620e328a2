import numpy as np
import pandas as pd
import polars as pl
import pytest
from scipy import sparse
from sklearn import utils

from sktune.indexing import check_rows, take_params, take_rows

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
