"""Which rows are put away before anything looks at the data."""

from numbers import Integral, Real

import numpy as np
from sklearn.model_selection import GroupShuffleSplit, train_test_split
from sklearn.utils.multiclass import type_of_target

from sktune.indexing import count_rows, take_rows

__all__ = ["check_test_size", "seal_rows"]

# Groups are drawn this often, to find a draw whose classes are nearly as frequent as in all rows.
N_GROUP_DRAWS = 50


def seal_rows(X, y, groups, *, test_size, random_state, stratify, splitter, is_classifier):
    """Divide the rows into those to search on and those to seal.

    Parameters
    ----------
    X, y, groups
        The whole data; `y` and `groups` may be None.
    test_size, random_state, stratify, splitter
        As in :class:`~sktune.HoldoutSearch`.
    is_classifier : bool
        What ``stratify="auto"`` goes by.

    Returns
    -------
    dev, test : ndarray of int
        Positions of rows, without a row in common.
    """
    if splitter is not None:
        return _last_split(splitter, X, y, groups)
    n_rows = count_rows(X)
    labels = _labels_to_stratify_by(y, stratify, is_classifier)
    if groups is not None:
        return _split_groups(np.asarray(groups), labels, test_size, random_state)
    n_test = _count_test(test_size, n_rows, "rows")
    if labels is not None:
        _check_strata(labels, n_test)
    rows = np.arange(n_rows)
    return train_test_split(rows, test_size=test_size, random_state=random_state, stratify=labels)


def check_test_size(test_size):
    """Raise a ValueError unless `test_size` is a share between 0 and 1 or a number of rows."""
    if isinstance(test_size, Integral) and not isinstance(test_size, bool) and test_size != 0:
        if test_size < 0:
            raise ValueError(f"test_size must be positive, got {test_size=}")
    elif not (isinstance(test_size, Real) and 0 < test_size < 1):
        raise ValueError(f"test_size must be between 0 and 1, got {test_size=}")


def _last_split(splitter, X, y, groups):
    # The last one: of a TimeSeriesSplit it trains on the most rows and tests on the most recent.
    known = {} if groups is None else {"groups": groups}
    splits = list(splitter.split(X, y, **known))
    if not splits:
        raise ValueError(f"splitter must give at least one split, got none from {splitter!r}")
    dev, test = (_as_positions(rows) for rows in splits[-1])
    if not len(dev) or not len(test):
        raise ValueError(f"splitter must leave rows on both sides, got {len(dev)} to search on and {len(test)} to seal")
    n_shared = np.intersect1d(dev, test).size
    if n_shared:
        raise ValueError(f"splitter must give disjoint rows, got {n_shared} on both sides")
    return dev, test


def _as_positions(rows):
    rows = np.asarray(rows)
    return np.flatnonzero(rows) if rows.dtype == bool else rows


def _labels_to_stratify_by(y, stratify, is_classifier):
    if stratify is False or y is None or (stratify == "auto" and not is_classifier):
        return None
    kind = type_of_target(y)
    if kind in ("binary", "multiclass"):
        return np.asarray(y).ravel()
    if stratify is True:
        raise ValueError(f"y must hold one class label per row for stratify=True, got {kind} y")
    return None


def _check_strata(labels, n_test):
    classes, counts = np.unique(labels, return_counts=True)
    if counts.min() < 2:
        raise ValueError(
            "each class must have at least 2 rows for a stratified split, got 1 row of class "
            f"{classes[counts.argmin()]!s}; stratify=False splits without regard to classes"
        )
    for side, n_rows in (("sealed", n_test), ("searched", len(labels) - n_test)):
        if n_rows < len(classes):
            raise ValueError(
                f"the {side} rows must be at least as many as the {len(classes)} classes for a "
                f"stratified split, got {n_rows}; change test_size or pass stratify=False"
            )


def _split_groups(groups, labels, test_size, random_state):
    n_groups = len(np.unique(groups))
    if n_groups < 2:
        raise ValueError(f"groups must name at least 2 groups, got {n_groups}")
    _count_test(test_size, n_groups, "groups")
    n_draws = 1 if labels is None else N_GROUP_DRAWS
    draws = GroupShuffleSplit(n_draws, test_size=test_size, random_state=random_state)
    return min(draws.split(groups, groups=groups), key=lambda draw: _imbalance(labels, *draw))


def _imbalance(labels, dev, test):
    """How far the classes' shares of the sealed rows are from their shares of all rows."""
    if labels is None:
        return 0.0
    _, codes = np.unique(labels, return_inverse=True)
    totals = np.bincount(codes)
    sealed = np.bincount(take_rows(codes, test), minlength=len(totals))
    one_sided = np.sum((sealed == 0) | (sealed == totals))
    return one_sided + np.abs(sealed / len(test) - totals / len(labels)).max()


def _count_test(test_size, n_units, unit):
    """Return how many of `n_units` rows or groups are sealed; some must stay on both sides."""
    n_test = test_size if isinstance(test_size, Integral) else int(np.ceil(test_size * n_units))
    if not 0 < n_test < n_units:
        raise ValueError(f"test_size must leave {unit} on both sides, got {test_size=} of {n_units} {unit}")
    return n_test
