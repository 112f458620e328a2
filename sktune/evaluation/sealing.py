"""Rows of any table, and the choice of the rows that are sealed."""

from collections.abc import Mapping
from numbers import Integral, Real

import numpy as np
from sklearn.model_selection import GroupShuffleSplit, train_test_split
from sklearn.utils import _safe_indexing, indexable
from sklearn.utils.multiclass import type_of_target

# Splits by groups among which the one with the most balanced classes is chosen.
_N_DRAWS = 50


def check_rows(X, y=None, groups=None):
    """Return X, y and groups in formats whose rows can be taken.

    Raises
    ------
    ValueError
        If X has fewer than two rows, or their numbers of rows differ.
    """
    # A sparse table is converted to a format that has rows.
    X, y, groups = (indexable(table)[0] for table in (X, y, groups))
    n_rows = count_rows(X)
    if n_rows < 2:
        raise ValueError(f"X must have at least 2 rows, got n_samples={n_rows}")
    for name, column in (("y", y), ("groups", groups)):
        if column is not None and count_rows(column) != n_rows:
            raise ValueError(
                f"{name} must have one entry for each of the {n_rows} rows of X, "
                f"got {count_rows(column)}"
            )
    return X, y, groups


def count_rows(table):
    """Return the number of rows."""
    return table.shape[0] if getattr(table, "shape", ()) else len(table)


def take_rows(table, rows):
    """Return the rows at some positions; None for no table."""
    return None if table is None else _safe_indexing(table, rows)


def take_params(params, n_rows, rows):
    """Return parameters at some rows, if they have an entry for each of `n_rows` rows.

    All other parameters stay as they are.
    """
    taken = {}
    for name, value in params.items():
        taken[name] = take_rows(value, rows) if _is_per_row(value, n_rows) else value
    return taken


def _is_per_row(value, n_rows):
    """Tell whether a parameter has an entry for each row."""
    if isinstance(value, (str, bytes, Mapping)):
        return False
    # A scalar of NumPy has an empty shape.
    is_column = bool(value.shape) if hasattr(value, "shape") else hasattr(value, "__len__")
    return is_column and count_rows(value) == n_rows


def seal_rows(X, y, groups, *, test_size, random_state, stratify, splitter, is_classifier):
    """Return the positions of the rows to search on, and of those to seal.

    The parameters are those of :class:`~sktune.HoldoutSearch` and its ``fit``.
    """
    if splitter is not None:
        return _last_split(splitter, X, y, groups)
    labels = _find_strata(y, is_classifier if stratify == "auto" else stratify, stratify == "auto")
    if groups is not None:
        return _split_groups(np.asarray(groups), labels, test_size, random_state)
    rows = np.arange(count_rows(X))
    n_test = _count_test(test_size, len(rows), "rows")
    if labels is not None:
        _check_strata(labels, n_test)
    return train_test_split(rows, test_size=test_size, random_state=random_state, stratify=labels)


def _find_strata(y, is_stratified, is_optional):
    """Return the labels to stratify by, or None.

    `is_optional` allows targets of other kinds, which are not stratified then.
    """
    if y is None or not is_stratified:
        return None
    kind = type_of_target(y)
    if kind in ("binary", "multiclass"):
        return np.asarray(y).ravel()
    if is_optional:
        return None
    raise ValueError(f"y must hold one class label per row for stratify=True, got {kind} y")


def _last_split(splitter, X, y, groups):
    """Return the training and test rows of a splitter's last split."""
    params = {} if groups is None else {"groups": groups}
    # The last split of a TimeSeriesSplit has the most training rows and the most recent test rows.
    splits = list(splitter.split(X, y, **params))
    if not splits:
        raise ValueError(f"splitter must give at least one split, got none from {splitter!r}")
    dev, test = map(_as_positions, splits[-1])
    if not len(dev) or not len(test):
        raise ValueError(
            "splitter must leave rows on both sides, "
            f"got {len(dev)} to search on and {len(test)} to seal"
        )
    n_shared = np.intersect1d(dev, test).size
    if n_shared:
        raise ValueError(f"splitter must give disjoint rows, got {n_shared} on both sides")
    return dev, test


def _as_positions(rows):
    """Return row positions, also of a mask."""
    rows = np.asarray(rows)
    return np.flatnonzero(rows) if rows.dtype == bool else rows


def _check_strata(labels, n_test):
    """Check that there are rows enough of each class and on each side."""
    remedy = "stratify=False splits without regard to classes"
    classes, counts = np.unique(labels, return_counts=True)
    if counts.min() < 2:
        raise ValueError(
            "each class must have at least 2 rows for a stratified split, "
            f"got 1 row of class {classes[counts.argmin()]!s}; {remedy}"
        )
    n_classes = len(classes)
    for side, n_rows in (("sealed", n_test), ("searched", len(labels) - n_test)):
        if n_rows < n_classes:
            raise ValueError(
                f"{side} rows must be at least as many as the {n_classes} classes, "
                f"got {n_rows}; {remedy}"
            )


def _split_groups(groups, labels, test_size, random_state):
    """Return the positions of the rows of the groups to search on, and of those to seal."""
    n_groups = len(np.unique(groups))
    if n_groups < 2:
        raise ValueError(f"groups must name at least 2 groups, got {n_groups}")
    _count_test(test_size, n_groups, "groups")
    splitter = GroupShuffleSplit(_N_DRAWS, test_size=test_size, random_state=random_state)
    draws = splitter.split(groups, groups=groups)
    if labels is None:
        return next(draws)
    return min(draws, key=lambda draw: _imbalance(labels, draw[1]))


def _imbalance(labels, test):
    """Return how far the classes' shares of the sealed rows are from their shares of all rows.

    A class that is on one side only counts more than any difference of shares.
    """
    _, codes = np.unique(labels, return_inverse=True)
    totals = np.bincount(codes)
    sealed = np.bincount(codes[test], minlength=len(totals))
    n_one_sided = np.sum((sealed == 0) | (sealed == totals))
    return n_one_sided + np.abs(sealed / len(test) - totals / len(labels)).max()


def _count_test(test_size, n_units, unit):
    """Return how many of `n_units` rows or groups are sealed; some must stay on both sides."""
    is_integer = isinstance(test_size, Integral) and not isinstance(test_size, bool)
    # 0 is refused as a share.
    is_count = is_integer and test_size != 0
    if is_count and test_size < 0:
        raise ValueError(f"test_size must be positive, got {test_size=}")
    if not is_count and not (isinstance(test_size, Real) and 0 < test_size < 1):
        raise ValueError(f"test_size must be between 0 and 1, got {test_size=}")
    n_test = test_size if is_count else int(np.ceil(test_size * n_units))
    if n_test >= n_units:
        raise ValueError(
            f"test_size must leave {unit} on both sides, got {test_size=} of {n_units} {unit}"
        )
    return n_test
