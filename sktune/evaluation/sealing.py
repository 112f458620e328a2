"""Rows of any table, and which of them are put away before anything looks at the data."""

from collections.abc import Mapping
from numbers import Integral, Real

import numpy as np
from sklearn.model_selection import GroupShuffleSplit, train_test_split
from sklearn.utils import _safe_indexing, indexable
from sklearn.utils.multiclass import type_of_target


def check_rows(X, y=None, groups=None):
    """Return the tables, sparse ones in a format that has rows; a ValueError if their rows differ in number."""
    X, y, groups = (indexable(table)[0] for table in (X, y, groups))
    n_rows = count_rows(X)
    if n_rows < 2:
        raise ValueError(f"X must have at least 2 rows, got n_samples={n_rows}")
    for name, column in (("y", y), ("groups", groups)):
        if column is not None and count_rows(column) != n_rows:
            raise ValueError(
                f"{name} must have one entry for each of the {n_rows} rows of X, got {count_rows(column)}"
            )
    return X, y, groups


def count_rows(table):
    """Return the number of rows."""
    return table.shape[0] if getattr(table, "shape", ()) else len(table)


def take_rows(table, rows):
    """Take rows by position, of None too."""
    return None if table is None else _safe_indexing(table, rows)


def take_params(params, n_rows, rows):
    """Take rows of those parameters that have an entry for each of `n_rows`, and leave the others alone."""
    return {
        name: take_rows(value, rows) if _is_per_row(value, n_rows) else value
        for name, value in params.items()
    }


def _is_per_row(value, n_rows):
    is_column = getattr(value, "shape", ()) or (
        hasattr(value, "__len__") and not hasattr(value, "shape")
    )
    return (
        is_column and not isinstance(value, (str, bytes, Mapping)) and count_rows(value) == n_rows
    )


def seal_rows(X, y, groups, *, test_size, random_state, stratify, splitter, is_classifier):
    """Return the positions of the rows to search on, and of those to seal; see :class:`~sktune.HoldoutSearch`."""
    if splitter is not None:
        return _last_split(splitter, X, y, groups)
    labels = None
    if y is not None and (is_classifier if stratify == "auto" else stratify):
        kind = type_of_target(y)
        if kind in ("binary", "multiclass"):
            labels = np.asarray(y).ravel()
        elif stratify != "auto":
            raise ValueError(f"y must hold one class label per row for stratify=True, got {kind} y")
    if groups is not None:
        return _split_groups(np.asarray(groups), labels, test_size, random_state)
    rows = np.arange(count_rows(X))
    n_test = _count_test(test_size, len(rows), "rows")
    if labels is not None:
        _check_strata(labels, n_test)
    return train_test_split(rows, test_size=test_size, random_state=random_state, stratify=labels)


def _last_split(splitter, X, y, groups):
    # The last one: of a TimeSeriesSplit it trains on the most rows and tests on the most recent.
    splits = list(splitter.split(X, y, **({} if groups is None else {"groups": groups})))
    if not splits:
        raise ValueError(f"splitter must give at least one split, got none from {splitter!r}")
    dev, test = (
        np.flatnonzero(rows) if rows.dtype == bool else rows for rows in map(np.asarray, splits[-1])
    )
    if not len(dev) or not len(test):
        raise ValueError(
            f"splitter must leave rows on both sides, got {len(dev)} to search on and {len(test)} to seal"
        )
    if n_shared := np.intersect1d(dev, test).size:
        raise ValueError(f"splitter must give disjoint rows, got {n_shared} on both sides")
    return dev, test


def _check_strata(labels, n_test):
    classes, counts = np.unique(labels, return_counts=True)
    n_classes, remedy = len(classes), "stratify=False splits without regard to classes"
    if counts.min() < 2:
        got = f"got 1 row of class {classes[counts.argmin()]!s}"
        raise ValueError(
            f"each class must have at least 2 rows for a stratified split, {got}; {remedy}"
        )
    for side, n_rows in (("sealed", n_test), ("searched", len(labels) - n_test)):
        if n_rows < n_classes:
            raise ValueError(
                f"{side} rows must be at least as many as the {n_classes} classes, got {n_rows}; {remedy}"
            )


def _split_groups(groups, labels, test_size, random_state):
    n_groups = len(np.unique(groups))
    if n_groups < 2:
        raise ValueError(f"groups must name at least 2 groups, got {n_groups}")
    _count_test(test_size, n_groups, "groups")
    # As many as it takes to find one whose classes are nearly as frequent as in all rows.
    draws = GroupShuffleSplit(50, test_size=test_size, random_state=random_state).split(
        groups, groups=groups
    )
    return (
        next(draws) if labels is None else min(draws, key=lambda draw: _imbalance(labels, draw[1]))
    )


def _imbalance(labels, test):
    """How far the classes' shares of the sealed rows are from their shares of all rows."""
    _, codes = np.unique(labels, return_inverse=True)
    totals = np.bincount(codes)
    sealed = np.bincount(codes[test], minlength=len(totals))
    one_sided = np.sum((sealed == 0) | (sealed == totals))
    return one_sided + np.abs(sealed / len(test) - totals / len(labels)).max()


def _count_test(test_size, n_units, unit):
    """Return how many of `n_units` rows or groups are sealed; some must stay on both sides."""
    is_count = (
        isinstance(test_size, Integral) and not isinstance(test_size, bool) and test_size != 0
    )
    if is_count and test_size < 0:
        raise ValueError(f"test_size must be positive, got {test_size=}")
    if not is_count and not (isinstance(test_size, Real) and 0 < test_size < 1):
        raise ValueError(f"test_size must be between 0 and 1, got {test_size=}")
    n_test = test_size if is_count else int(np.ceil(test_size * n_units))
    if not n_test < n_units:
        raise ValueError(
            f"test_size must leave {unit} on both sides, got {test_size=} of {n_units} {unit}"
        )
    return n_test
