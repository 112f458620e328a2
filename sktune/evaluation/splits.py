"""Checks of splits in a search that name rows by their numbers.

Once rows are sealed, the same numbers mean other rows.
"""

from collections.abc import Iterable, Iterator, Mapping
from copy import deepcopy
from numbers import Number

import numpy as np
from sklearn.model_selection import PredefinedSplit, check_cv
from sklearn.pipeline import Pipeline

from sktune.evaluation.sealing import count_rows

# The class into which scikit-learn wraps an iterable of splits.
_LIST_OF_SPLITS = type(check_cv([([0], [1])]))
# The parameters of searches that hold the candidates' values.
_GRIDS = ("param_grid", "param_distributions", "search_spaces", "space")


def check_splits(search, n_rows):
    """Check that no splits in a search name rows of the whole table.

    A PredefinedSplit of the search itself is allowed, since it can be restricted. Nothing is split
    here, and no generator is used up.

    Parameters
    ----------
    search : estimator object
        A search, or a Pipeline ending in one.
    n_rows : int
        Rows of the whole table.

    Raises
    ------
    ValueError
        If some splits name rows, or a PredefinedSplit is not of `n_rows` rows.
    """
    names_of_outer = {f"{prefix}cv" for prefix, _ in _list_owners(search)}
    params = search.get_params(deep=True)
    for name, value in params.items():
        last = name.rpartition("__")[2]
        if last == "cv" and name in names_of_outer:
            _check_outer(name, value, n_rows)
        elif last in ("cv", "train_split"):
            _check_inner(name, value, n_rows)
        elif last in _GRIDS:
            _check_grid(value, n_rows)


def restrict_splits(search, rows):
    """Restrict each PredefinedSplit of a search, or of the steps before it, to some rows.

    Parameters
    ----------
    search : estimator object
        A search, or a Pipeline ending in one, which is changed.
    rows : ndarray of int
        The rows to search on.

    Raises
    ------
    ValueError
        If a fold has no row left, or there is no row left to train on.
    """
    for prefix, owner in _list_owners(search):
        cv = getattr(owner, "cv", None)
        if type(cv) is PredefinedSplit:
            owner.cv = _restrict(f"{prefix}cv", cv, rows)


def is_own_splitter(cv):
    """Tell whether a ``cv`` is a splitter that is not from scikit-learn."""
    return hasattr(cv, "split") and not isinstance(cv, str) and not _is_scikit_learns(cv)


def check_splits_of(cv, X, y, params, take, is_sure):
    """Check that a splitter of the user's divides the rows that it gets, and names no rows.

    Copies of it are tried on the rows to search on, and on half of them.

    Parameters
    ----------
    cv : object with a ``split`` method
        That of the search.
    X, y : table and column to search on
    params : dict
        What ``split`` gets beside X and y.
    take : callable
        ``take(rows)`` returns X, y and params of some rows.
    is_sure : bool
        Whether the search will call the splitter with this X. Only then an error of the splitter
        is reported.

    Raises
    ------
    ValueError
        If the splitter fails, gives rows that do not exist, or gives the same rows of any table.
    """
    try:
        first = deepcopy(cv)
        second = deepcopy(cv)
    except Exception:
        # A trial might use up a splitter that cannot be copied.
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
    except Exception:
        # Half of the rows may be too few for it.
        return
    _check_within(cv, of_half, n_half)
    if n_half and _are_equal(splits, of_half):
        raise _refuse("cv", f"{cv!r}, which gives the same rows of any table")


def _list_owners(search):
    """Return the steps that are fitted to all rows searched on, the search included.

    Each comes with the prefix of its parameters' names, as a pair (prefix, step).
    """
    if not isinstance(search, Pipeline):
        return [("", search)]
    owners = []
    for name, step in search.steps:
        owners += [(f"{name}__{prefix}", owner) for prefix, owner in _list_owners(step)]
    return owners


def _refuse(name, got):
    """Return the error for splits that name rows."""
    return ValueError(
        f"{name} must not name rows, which are other ones once rows are sealed, got {got}: "
        "use a number of folds, a splitter that divides the rows it gets, "
        "or a PredefinedSplit for the search itself"
    )


def _check_outer(name, cv, n_rows):
    """Check the splits of what is fitted to all rows searched on."""
    if type(cv) is PredefinedSplit:
        if len(cv.test_fold) != n_rows:
            got = f"a PredefinedSplit of {len(cv.test_fold)} rows"
            raise ValueError(
                f"{name} must have a fold for each of the {n_rows} rows of X, got {got}"
            )
        return
    reason = _find_named_rows(cv, n_rows)
    if reason:
        raise _refuse(name, reason)


def _check_inner(name, value, n_rows):
    """Check the splits of an estimator within the search, which splits parts of the rows."""
    cv = getattr(value, "cv", None) if name.endswith("train_split") else value
    is_list = isinstance(cv, Iterable) and not hasattr(cv, "split")
    if is_list and not (isinstance(cv, Iterator) or _are_splits(cv)):
        # A parameter of this name need not be about splits.
        return
    reason = _find_named_rows(cv, n_rows)
    if reason:
        raise _refuse(name, reason)


def _check_grid(grid, n_rows):
    """Check splits among the candidates' values; a grid is a dict or a list of dicts."""
    spaces = grid if isinstance(grid, (list, tuple)) else [grid]
    for space in spaces:
        if not isinstance(space, Mapping):
            continue
        for name, values in space.items():
            if name.rpartition("__")[2] == "cv" and isinstance(values, (list, tuple)):
                for value in values:
                    _check_inner(name, value, n_rows)


def _find_named_rows(cv, n_rows):
    """Return a text on what names rows in a ``cv``, or an empty one if nothing is found."""
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
    """Tell whether this is one of scikit-learn's splitters that divide the rows they get."""
    return type(cv).__module__.startswith("sklearn.") and not isinstance(cv, _LIST_OF_SPLITS)


def _holds_rows(value, n_rows):
    """Tell whether an attribute of a splitter names rows.

    That is an entry for each row, a list of splits, or another splitter that names rows.
    """
    if value is None or isinstance(value, (str, bytes, Number, Mapping)):
        return False
    if isinstance(value, Iterator) or _are_splits(value):
        return True
    if hasattr(value, "split"):
        return bool(_find_named_rows(value, n_rows))
    shape = getattr(value, "shape", None)
    if shape is not None:
        return bool(shape) and shape[0] == n_rows
    return hasattr(value, "__len__") and len(value) == n_rows


def _are_splits(value):
    """Tell whether this is a list of pairs of rows."""
    if not isinstance(value, (list, tuple)) or not value:
        return False
    return all(
        isinstance(pair, (list, tuple)) and len(pair) == 2 and all(map(_are_rows, pair))
        for pair in value
    )


def _are_rows(value):
    """Tell whether this is a list of row numbers, or a mask."""
    return isinstance(value, (list, tuple, range, np.ndarray)) and np.ndim(value) == 1


def _restrict(name, cv, rows):
    """Return a PredefinedSplit of some rows only, and check that each fold has rows left."""
    folds = cv.test_fold[rows]
    for fold in np.unique(cv.test_fold[cv.test_fold != -1]):
        if not np.any(folds == fold):
            raise ValueError(
                f"{name} must keep rows of each fold to search on, "
                f"but all of fold {fold} are sealed"
            )
        if np.all(folds == fold):
            raise ValueError(
                f"{name} must keep rows to train on, but all that are not sealed are of fold {fold}"
            )
    return PredefinedSplit(folds)


def _list_splits(cv, X, y, params):
    """Return a list of pairs of arrays of rows."""
    return [[np.asarray(rows) for rows in pair] for pair in cv.split(X, y, **params)]


def _check_within(cv, splits, n_rows):
    """Check that splits name no other rows than those of a table of `n_rows`."""
    for pair in splits:
        for rows in pair:
            if not _are_within(rows, n_rows):
                got = f"{cv!r}, which gives rows that a table of {n_rows} rows does not have"
                raise _refuse("cv", got)


def _are_within(rows, n_rows):
    """Tell whether a mask, or row numbers, fit a table of `n_rows`."""
    if rows.dtype == bool:
        return len(rows) == n_rows
    return not len(rows) or rows.max() < n_rows


def _are_equal(splits, others):
    """Tell whether two lists of splits are equal, and not empty."""
    if len(splits) != len(others) or not splits:
        return False
    for pair, other in zip(splits, others, strict=True):
        if not all(np.array_equal(a, b) for a, b in zip(pair, other, strict=True)):
            return False
    return True
