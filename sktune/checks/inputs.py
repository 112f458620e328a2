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

_SPREAD = 1000  # ratio of the features' standard deviations from which scaling is advised
_SPREAD_ROWS = 10_000  # rows looked at for it


def passes_through(X):
    """Tell whether X is of skorch's own kinds, which are handed on: a Dataset, a slice of one, or a dict of arrays."""
    is_dict = isinstance(X, Mapping) and not sparse.issparse(X)  # a DOK matrix is a dict
    return is_dataset(X) or is_dict or isinstance(X, SliceDataset)


def count_parts(X, y):
    """Return of how many arrays a list or tuple is made that each hold all rows; 0 if it is none of these.

    A list of as many arrays as there are rows is a table, an array for each row.
    """
    if not isinstance(X, list | tuple) or not all(hasattr(part, "shape") for part in X):
        return 0
    n_rows = np.shape(y)[:1]
    are_whole = n_rows != (len(X),) and all(part.shape[:1] == n_rows for part in X)
    return len(X) if are_whole else 0


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
        # what torch can share
        return np.require(_as_numbers(name, part.to_numpy()), requirements="W")


def as_given(X, checked):
    """Return a table as the user gave it if its rows can be picked as skorch does it, else as it was checked."""
    can_be_picked = isinstance(X, np.ndarray | torch.Tensor) or hasattr(X, "iloc")
    return X if can_be_picked and X.shape == checked.shape else checked


def check_rows(estimator, X, y="no_validation", *, reset, y_numeric=False):
    """Check X, and y if it is passed, as scikit-learn does; return X, or X and y, as arrays.

    X may be any numeric array, frame, list, sparse matrix or torch tensor of two or more dimensions; it is
    returned in a type that torch knows.
    """
    # a tensor has no names, which is no reason to warn
    quiet = (
        catch_warnings(action="ignore", category=UserWarning)
        if isinstance(X, torch.Tensor)
        else nullcontext()
    )
    X, y = (
        part.detach().cpu().numpy() if isinstance(part, torch.Tensor) else part for part in (X, y)
    )
    if getattr(X, "shape", ())[1:] == (
        0,
    ):  # of a frame without columns scikit-learn would say something obscure
        raise ValueError(
            f"Found array with 0 feature(s) (shape={X.shape}) while a minimum of 1 is required."
        )
    y = y.toarray() if sparse.issparse(y) else y
    is_labels = not isinstance(y, str) and is_table(y)
    # labels of sequences may have more dimensions than scikit-learn checks
    shape = np.shape(y) if is_labels and not y_numeric else None
    options = (
        {}
        if isinstance(y, str)
        else {"multi_output": y_numeric or is_labels, "y_numeric": y_numeric}
    )
    if y_numeric and y is not None:
        with _naming_text("y"):
            y = _as_numbers("y", np.asarray(y))
    if shape is not None:
        y = np.reshape(y, (shape[0], -1))
    with _naming_text("X"), quiet:
        checked = validate_data(
            estimator, X, y, accept_sparse="csr", allow_nd=True, reset=reset, **options
        )
        if isinstance(y, str):
            return _as_numbers("X", checked)
        return _as_numbers("X", checked[0]), checked[1] if shape is None else checked[1].reshape(
            shape
        )


@contextmanager
def _naming_text(name):
    """Say of values that cannot be made numbers what they are."""
    try:
        yield
    except (TypeError, ValueError) as error:
        if not re.search("could not convert|could not be promoted|bytes/strings", str(error)):
            raise
        advice = (
            ": encode such columns, e.g. by OneHotEncoder in a ColumnTransformer"
            if name == "X"
            else ""
        )
        raise ValueError(
            f"{name} must hold numbers, got text or dates ({error}){advice}"
        ) from error


def _as_numbers(name, values):
    """Return values in a type that torch knows: numbers of at most 64 bits in the machine's byte order."""
    if values.dtype.kind in "OSUc":  # of a frame of several types, for one
        values = check_array(
            values, dtype=np.float64, ensure_2d=False, allow_nd=True, input_name=name
        )
    if values.dtype.kind not in "biuf":
        raise ValueError(f"{name} must hold numbers, got values of type {values.dtype}")
    dtype = values.dtype.newbyteorder("=") if values.dtype.itemsize <= 8 else np.dtype(np.float64)
    return values.astype(dtype, copy=False)


_VALIDATION_ROWS = ("X_val", "y_val", "validation_data", "eval_set", "validation_split")


def _count_rows(X):
    """Return how many rows an input of any kind holds, or None if it does not tell.

    A list may be one of rows, or of the module's several inputs.
    """
    if isinstance(X, torch.utils.data.IterableDataset):
        return None
    if passes_through(X):
        return get_len(X)
    shape = getattr(X, "shape", ())
    return shape[0] if len(shape) else None


def warn_if_unscaled(X):
    """Warn where one feature's standard deviation is over 1,000 times another's (constant features aside)."""
    if sparse.issparse(X) or X.ndim != 2:
        return
    rows = X[:: -(-len(X) // _SPREAD_ROWS)]
    with np.errstate(over="ignore"):  # values whose squares are beyond float64 spread infinitely
        spread = rows.std(axis=0, dtype=np.float64)[rows.min(axis=0) < rows.max(axis=0)]
    if len(spread) and spread.max() > _SPREAD * spread.min():
        found = f"their standard deviations range from {spread.min():.2g} to {spread.max():.2g}"
        advice = "use make_pipeline(StandardScaler(), net)"
        message = f"the features of X should be scaled alike for a network to learn well, but {found}: {advice}"
        warn(message, UserWarning, stacklevel=5)  # the line that calls fit
