"""Splits that name rows: once rows are sealed, the numbers of rows mean others."""

from collections.abc import Iterable, Iterator, Mapping
from copy import deepcopy
from numbers import Number

import numpy as np
from sklearn.model_selection import PredefinedSplit, check_cv
from sklearn.pipeline import Pipeline

from sktune.evaluation.sealing import count_rows

_LIST_OF_SPLITS = type(check_cv([([0], [1])]))  # what scikit-learn makes of an iterable
_GRIDS = ("param_grid", "param_distributions", "search_spaces", "space")
_REMEDY = "use a number of folds, a splitter that divides the rows it gets, or a PredefinedSplit for the search itself"


def check_splits(search, n_rows):
    """Raise a ValueError for splits in a search that name rows of the whole table and cannot be restricted.

    Nothing is split, and no generator is asked.

    Parameters
    ----------
    search : estimator object
        A search, or a Pipeline ending in one.
    n_rows : int
        Rows of the whole table.
    """
    of_all_rows = {f"{prefix}cv" for prefix, _ in _list_owners(search)}
    params = search.get_params(deep=True)
    for name, value in params.items():
        last = name.rpartition("__")[2]
        if last == "cv" and name in of_all_rows:
            _check_outer(name, value, n_rows)
        elif last in ("cv", "train_split"):
            _check_inner(name, value, n_rows)
        elif last in _GRIDS:
            _check_grid(value, n_rows)


def restrict_splits(search, rows):
    """Let each PredefinedSplit of a search, or of the steps before it, tell the folds of the `rows` that are left."""
    for prefix, owner in _list_owners(search):
        cv = getattr(owner, "cv", None)
        if type(cv) is PredefinedSplit:
            owner.cv = _restrict(f"{prefix}cv", cv, rows)


def is_own_splitter(cv):
    """Tell whether a ``cv`` is a splitter of the user's, of which is not known what it does."""
    return hasattr(cv, "split") and not isinstance(cv, str) and not _is_scikit_learns(cv)


def check_splits_of(cv, X, y, params, take, is_sure):
    """Raise a ValueError if a splitter of the user's does not divide the rows that it gets, but names rows.

    A copy of it is tried on the rows to search on, and on half of them.

    Parameters
    ----------
    cv : object with a ``split`` method
        The search's.
    X, y : table and column to search on
    params : dict
        What ``split`` gets beside them.
    take : callable
        ``take(rows)`` returns X, y and params of some rows.
    is_sure : bool
        Whether the search itself will call it with this X: if so, an error of its own is an error.
    """
    try:
        first, second = deepcopy(cv), deepcopy(cv)
    except Exception:  # what cannot be copied might be used up by a trial
        return
    try:
        splits = _list_splits(first, X, y, params)
    except Exception as error:
        if not is_sure:
            return
        message = (
            f"cv must divide the rows that are left to search on, {cv!r} fails with "
            f"{type(error).__name__}: {error}"
        )
        raise ValueError(message) from error
    n_rows = count_rows(X)
    _check_within(cv, splits, n_rows)
    n_half = n_rows // 2
    try:
        of_half = _list_splits(second, *take(np.arange(n_half)))
    except Exception:  # too few rows for it
        return
    _check_within(cv, of_half, n_half)
    if n_half and _are_equal(splits, of_half):
        raise _refuse("cv", f"{cv!r}, which gives the same rows of any table")


def _list_owners(search):
    """Return the steps that are fitted to all rows searched on, the search included, with the prefix of their names."""
    if not isinstance(search, Pipeline):
        return [("", search)]
    owners = []
    for name, step in search.steps:
        owners += [(f"{name}__{prefix}", owner) for prefix, owner in _list_owners(step)]
    return owners


def _refuse(name, got):
    return ValueError(
        f"{name} must not name rows, which are other ones once rows are sealed, got {got}: {_REMEDY}"
    )


def _check_outer(name, cv, n_rows):
    """Check the splits of what is fitted to all rows searched on."""
    if type(cv) is PredefinedSplit:
        if len(cv.test_fold) != n_rows:
            got = f"a PredefinedSplit of {len(cv.test_fold)} rows"
            raise ValueError(
                f"{name} must have a fold for each of the {n_rows} rows of X, got {got}"
            )
    elif reason := _find_named_rows(cv, n_rows):
        raise _refuse(name, reason)


def _check_inner(name, value, n_rows):
    """Check splits of parts of other rows: of an estimator within the search."""
    cv = getattr(value, "cv", None) if name.endswith("train_split") else value
    is_list = isinstance(cv, Iterable) and not hasattr(cv, "split")
    if is_list and not (isinstance(cv, Iterator) or _are_splits(cv)):
        return  # an estimator may call anything `cv`
    if reason := _find_named_rows(cv, n_rows):
        raise _refuse(name, reason)


def _check_grid(grid, n_rows):
    """Check splits among the candidates' values."""
    for space in (
        [grid] if isinstance(grid, Mapping) else grid if isinstance(grid, (list, tuple)) else ()
    ):
        for name, values in space.items() if isinstance(space, Mapping) else ():
            if name.rpartition("__")[2] == "cv" and isinstance(values, (list, tuple)):
                for value in values:
                    _check_inner(name, value, n_rows)


def _find_named_rows(cv, n_rows):
    """Say what names rows in a ``cv``; an empty text if nothing is known to."""
    if cv is None or isinstance(cv, (str, Number)):
        return ""
    if isinstance(cv, PredefinedSplit):
        return f"a {type(cv).__name__}"
    if isinstance(cv, _LIST_OF_SPLITS):
        return "a list of splits"
    if not hasattr(cv, "split"):
        return f"splits in a {type(cv).__name__}" if isinstance(cv, Iterable) else ""
    if _is_scikit_learns(cv):
        return ""
    for name, value in getattr(cv, "__dict__", {}).items():
        if _holds_rows(value, n_rows):
            return f"{type(cv).__name__} with rows in its {name}"
    return ""


def _is_scikit_learns(cv):
    return type(cv).__module__.startswith("sklearn.") and not isinstance(cv, _LIST_OF_SPLITS)


def _holds_rows(value, n_rows):
    """Tell whether what a splitter holds names rows: a number for each of them, splits, or a splitter that does."""
    if value is None or isinstance(value, (str, bytes, Number, Mapping)):
        return False
    if isinstance(value, Iterator) or _are_splits(value):
        return True
    if hasattr(value, "split"):
        return bool(_find_named_rows(value, n_rows))
    shape = getattr(value, "shape", None)
    n_entries = (
        shape[0] if shape else len(value) if hasattr(value, "__len__") and shape is None else None
    )
    return n_entries == n_rows


def _are_splits(value):
    """Tell whether this is a list of pairs of rows."""
    if not isinstance(value, (list, tuple)) or not value:
        return False
    return all(
        isinstance(pair, (list, tuple)) and len(pair) == 2 and all(map(_are_rows, pair))
        for pair in value
    )


def _are_rows(value):
    return isinstance(value, (list, tuple, range, np.ndarray)) and np.ndim(value) == 1


def _restrict(name, cv, rows):
    """Return a PredefinedSplit of some rows only; a ValueError if one of its folds is left without any."""
    folds = cv.test_fold[rows]
    for fold in np.unique(cv.test_fold[cv.test_fold != -1]):
        if not np.any(folds == fold):
            raise ValueError(
                f"{name} must keep rows of each fold to search on, but all of fold {fold} are sealed"
            )
        if np.all(folds == fold):
            raise ValueError(
                f"{name} must keep rows to train on, but all that are not sealed are of fold {fold}"
            )
    return PredefinedSplit(folds)


def _list_splits(cv, X, y, params):
    splits = []
    for pair in cv.split(X, y, **params):
        splits.append([np.asarray(rows) for rows in pair])
    return splits


def _check_within(cv, splits, n_rows):
    """Check that splits are of no rows but those of a table of `n_rows`."""
    for rows in (rows for pair in splits for rows in pair):
        is_within = (
            len(rows) == n_rows if rows.dtype == bool else not len(rows) or rows.max() < n_rows
        )
        if not is_within:
            raise _refuse(
                "cv", f"{cv!r}, which gives rows that a table of {n_rows} rows does not have"
            )


def _are_equal(splits, others):
    if len(splits) != len(others) or not splits:
        return False
    pairs = zip(splits, others, strict=True)
    return all(
        np.array_equal(a, b) for one, other in pairs for a, b in zip(one, other, strict=True)
    )
