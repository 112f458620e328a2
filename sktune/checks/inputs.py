"""Tables that come in, checked before anything changes."""

import re
from collections.abc import Mapping
from contextlib import contextmanager, nullcontext
from warnings import catch_warnings, warn

import numpy as np
import torch
from scipy import sparse
from sklearn.utils.validation import check_array, validate_data
from skorch.dataset import get_len
from skorch.helper import SliceDataset
from skorch.utils import is_dataset

from sktune.checks.labels import is_table

# Scaling is advised from this ratio between the features' standard deviations on.
_UNSCALED_RATIO = 1000
# How many rows the standard deviations are computed from.
_UNSCALED_ROWS = 10_000


def passes_through(X):
    """Tell whether X is handed on to skorch: a Dataset, a slice of one, or a dict of arrays."""
    # A sparse DOK matrix is a dict as well.
    is_dict = isinstance(X, Mapping) and not sparse.issparse(X)
    return is_dict or is_dataset(X) or isinstance(X, SliceDataset)


def count_parts(X, y):
    """Return how many arrays, each of which holds all rows, a list or tuple consists of.

    The result is 0 for everything else. A list with as many arrays as there are rows is a table
    with an array for each row.
    """
    if not isinstance(X, list | tuple) or not all(hasattr(part, "shape") for part in X):
        return 0
    n_rows = np.shape(y)[:1]
    hold_all_rows = all(part.shape[:1] == n_rows for part in X)
    return len(X) if hold_all_rows and n_rows != (len(X),) else 0


def read_parts(X):
    """Return a dict, list or tuple of tables with frames as arrays; anything else as it is."""
    if isinstance(X, Mapping):
        if not any(hasattr(part, "to_numpy") for part in X.values()):
            return X
        return {name: _read_part(f"X[{name!r}]", part) for name, part in X.items()}
    if type(X) in (list, tuple):
        return type(X)(_read_part(f"X[{n}]", part) for n, part in enumerate(X))
    return X


def _read_part(name, part):
    if not hasattr(part, "to_numpy"):
        return part
    with _naming_text(name):
        # torch shares writable memory only.
        return np.require(_as_numbers(name, part.to_numpy()), requirements="W")


def as_given(X, checked):
    """Return a table as the user gave it if skorch can pick rows of it, else as it was checked."""
    can_be_picked = isinstance(X, np.ndarray | torch.Tensor) or hasattr(X, "iloc")
    return X if can_be_picked and X.shape == checked.shape else checked


def check_rows(estimator, X, y="no_validation", *, reset, y_numeric=False):
    """Check X, and y if it is passed, as scikit-learn does.

    Parameters
    ----------
    estimator : BaseEstimator
        Its number of features, and their names, are set or compared with.
    X : array-like, frame, sparse matrix or Tensor (n_rows, n_features, ...)
        Numbers of any type.
    y : array-like, frame, sparse matrix or Tensor, default="no_validation"
        The targets. Any str means that there are none to check.
    reset : bool
        Whether to set the features of the estimator, rather than to compare with them.
    y_numeric : bool, default=False
        Whether the targets are numbers, not labels.

    Returns
    -------
    X : ndarray or sparse matrix in CSR format
        In a type that torch knows.
    y : ndarray
        Only if it was passed.

    Raises
    ------
    ValueError
        If scikit-learn would raise it, or if values are no numbers.
    """
    # A tensor has no names of features, which scikit-learn would warn of.
    is_tensor = isinstance(X, torch.Tensor)
    quiet = catch_warnings(action="ignore", category=UserWarning) if is_tensor else nullcontext()
    X = _as_numpy(X)
    _check_feature_count(X)
    forms = {"accept_sparse": "csr", "allow_nd": True, "reset": reset}

    if isinstance(y, str):
        with _naming_text("X"), quiet:
            checked_X = validate_data(estimator, X, y, **forms)
            return _as_numbers("X", checked_X)

    y, label_shape = _read_targets(y, y_numeric)
    forms["y_numeric"] = y_numeric
    forms["multi_output"] = y_numeric or label_shape is not None
    with _naming_text("X"), quiet:
        checked_X, checked_y = validate_data(estimator, X, y, **forms)
        checked_X = _as_numbers("X", checked_X)
    if label_shape is not None:
        checked_y = checked_y.reshape(label_shape)
    return checked_X, checked_y


def _read_targets(y, y_numeric):
    """Return targets of at most two dimensions, and their shape if they are a table of labels.

    Labels of sequences may have more dimensions than scikit-learn checks.
    """
    y = _as_numpy(y)
    y = y.toarray() if sparse.issparse(y) else y
    if y is None:
        return None, None
    if y_numeric:
        with _naming_text("y"):
            return _as_numbers("y", np.asarray(y)), None
    if not is_table(y):
        return y, None
    shape = np.shape(y)
    return np.reshape(y, (shape[0], -1)), shape


def _as_numpy(table):
    """Return a tensor as an array; anything else as it is."""
    return table.detach().cpu().numpy() if isinstance(table, torch.Tensor) else table


def _check_feature_count(X):
    """Raise for a table without columns; scikit-learn's error for a frame would be obscure."""
    if getattr(X, "shape", ())[1:] == (0,):
        raise ValueError(
            f"Found array with 0 feature(s) (shape={X.shape}) while a minimum of 1 is required."
        )


@contextmanager
def _naming_text(name):
    """Raise a clearer error where a block cannot convert text or dates to numbers."""
    try:
        yield
    except (TypeError, ValueError) as error:
        if not re.search("could not convert|could not be promoted|bytes/strings", str(error)):
            raise
        advice = ""
        if name == "X":
            advice = ": encode such columns, e.g. by OneHotEncoder in a ColumnTransformer"
        raise ValueError(
            f"{name} must hold numbers, got text or dates ({error}){advice}"
        ) from error


def _as_numbers(name, values):
    """Return values in a type that torch knows: numbers of at most 64 bits in native byte order."""
    # Among others, a frame with columns of several types is an array of objects.
    if values.dtype.kind in "OSUc":
        values = check_array(
            values, dtype=np.float64, ensure_2d=False, allow_nd=True, input_name=name
        )
    if values.dtype.kind not in "biuf":
        raise ValueError(f"{name} must hold numbers, got values of type {values.dtype}")
    is_too_wide = values.dtype.itemsize > 8
    dtype = np.dtype(np.float64) if is_too_wide else values.dtype.newbyteorder("=")
    return values.astype(dtype, copy=False)


def find_row_count(X):
    """Return how many rows an input of any type holds, or None if it does not tell.

    A list does not: it may be one of rows, or of the module's several inputs.
    """
    if isinstance(X, torch.utils.data.IterableDataset):
        return None
    if passes_through(X):
        return get_len(X)
    shape = getattr(X, "shape", ())
    return shape[0] if len(shape) else None


def warn_if_unscaled(X):
    """Warn where one feature's standard deviation is over 1,000 times another's.

    Constant features do not count.
    """
    if sparse.issparse(X) or X.ndim != 2:
        return
    step = -(-len(X) // _UNSCALED_ROWS)
    rows = X[::step]
    varies = rows.min(axis=0) < rows.max(axis=0)
    # Values whose squares are beyond float64 have an infinite deviation.
    with np.errstate(over="ignore"):
        deviations = rows.std(axis=0, dtype=np.float64)[varies]
    if not len(deviations):
        return
    least = deviations.min()
    most = deviations.max()
    if most > _UNSCALED_RATIO * least:
        message = (
            "the features of X should be scaled alike for a network to learn well, but their "
            f"standard deviations range from {least:.2g} to {most:.2g}: "
            "use make_pipeline(StandardScaler(), net)"
        )
        # At the line that calls fit.
        warn(message, UserWarning, stacklevel=5)
