"""Counting and taking rows of anything that scikit-learn takes for a table."""

from collections.abc import Mapping

# Private in name only: scikit-learn exports it, and nothing else takes rows of arrays, lists,
# sparse matrices and every kind of frame alike. tests/test_indexing.py fails when it moves.
from sklearn.utils import _safe_indexing, indexable

__all__ = ["check_rows", "count_rows", "take_params", "take_rows"]


def check_rows(X, y=None, groups=None):
    """Check that `X`, `y` and `groups` have the same rows, and make them indexable.

    Parameters
    ----------
    X : array-like, frame or sparse matrix of shape (n_samples, n_features)
    y, groups : array-like of shape (n_samples,), default=None

    Returns
    -------
    X, y, groups
        As they came, but with sparse matrices in a format that has rows.

    Raises
    ------
    ValueError
        If there are fewer than two rows, or the lengths differ.
    """
    X, y, groups = (indexable(table)[0] for table in (X, y, groups))
    n_rows = count_rows(X)
    if n_rows < 2:
        raise ValueError(f"X must have at least 2 rows, got n_samples={n_rows}")
    for name, column in (("y", y), ("groups", groups)):
        if column is not None and count_rows(column) != n_rows:
            raise ValueError(f"{name} must have one entry for each of the {n_rows} rows of X, got {count_rows(column)}")
    return X, y, groups


def take_rows(table, rows):
    """Take rows by position, of None too."""
    return None if table is None else _safe_indexing(table, rows)


def take_params(params, n_rows, rows):
    """Take rows of those parameters that have one entry per row, and leave the others alone.

    Parameters
    ----------
    params : dict
        Parameters of a ``fit`` call, such as ``sample_weight``.
    n_rows : int
        The number of rows that they were given for.
    rows : ndarray of int
        Which to take.

    Returns
    -------
    dict
    """
    return {name: take_rows(value, rows) if _is_per_row(value, n_rows) else value for name, value in params.items()}


def _is_per_row(value, n_rows):
    if isinstance(value, (str, bytes, Mapping)) or getattr(value, "shape", None) == ():
        return False
    return (hasattr(value, "shape") or hasattr(value, "__len__")) and count_rows(value) == n_rows


def count_rows(table):
    """Return the number of rows."""
    return table.shape[0] if getattr(table, "shape", ()) else len(table)
