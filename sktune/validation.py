"""What comes in: tables, labels, weights, devices and hyperparameters, checked before anything changes."""

from __future__ import annotations

import inspect
import math
import re
import warnings
from collections.abc import Mapping
from contextlib import contextmanager
from functools import cache
from numbers import Integral, Real

import numpy as np
import torch
from scipy import sparse
from sklearn.utils.class_weight import compute_sample_weight
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_array, check_consistent_length, validate_data
from skorch.utils import is_dataset

from sktune.names import did_you_mean
from sktune.schedules import SCHEDULES, lr_factors

_SPREAD = 1000  # ratio of the features' standard deviations from which scaling is advised
_SPREAD_ROWS = 10_000  # rows looked at for it


@contextmanager
def unchanged_on_error(estimator):
    """Put an estimator's attributes back if the block raises an Exception."""
    before = dict(vars(estimator))
    try:
        yield
    except Exception:
        vars(estimator).clear()
        vars(estimator).update(before)
        raise


def passes_through(X):
    """Tell whether X is of skorch's own kinds, which are handed on unchecked: a Dataset, or a dict of arrays."""
    return is_dataset(X) or (isinstance(X, Mapping) and not sparse.issparse(X))  # a DOK matrix is a dict


def check_rows(estimator, X, y="no_validation", *, reset, y_numeric=False):
    """Check X, and y if it is passed, as scikit-learn does; return X, or X and y, as arrays.

    X may be any numeric array, frame, list, sparse matrix or torch tensor of two or more dimensions; it is
    returned in a type that torch knows.

    Raises
    ------
    ValueError
        For text, dates, NaN or infinity, an empty table, y of another length, other features than in ``fit``.
    """
    if isinstance(X, torch.Tensor):
        X = X.detach().cpu().numpy()
        if not reset and isinstance(y, str) and hasattr(estimator, "feature_names_in_"):
            return _check_nameless(estimator, X)
    y = y.detach().cpu().numpy() if isinstance(y, torch.Tensor) else y
    options = {"accept_sparse": "csr", "allow_nd": True, "reset": reset}
    if not isinstance(y, str):
        options |= {"multi_output": y_numeric, "y_numeric": y_numeric}
    shape = getattr(X, "shape", ())
    if len(shape) == 2 and shape[1] == 0:  # of a frame without columns scikit-learn would say something obscure
        raise ValueError(f"Found array with 0 feature(s) (shape={tuple(shape)}) while a minimum of 1 is required.")
    y = _check_numeric_targets(y) if y_numeric and y is not None else y
    try:
        checked = validate_data(estimator, X, y, **options)
        return _plain(checked) if isinstance(y, str) else (_plain(checked[0]), checked[1])
    except (TypeError, ValueError) as error:
        if not re.search("could not convert|could not be promoted|bytes/strings", str(error)):
            raise
        raise _no_numbers("X", f"text or dates ({error})") from error


def _check_nameless(estimator, X):
    """Check a tensor for an estimator that knows its features' names: that it has none is no reason to warn."""
    X = check_array(X, allow_nd=True, estimator=estimator, input_name="X")
    if X.shape[1] != estimator.n_features_in_:
        raise ValueError(f"X must have {estimator.n_features_in_} features as in fit, got {X.shape[1]}")
    return _plain(X)


def _plain(X):
    """Return X in a type that torch knows: numbers of at most 64 bits in the machine's byte order."""
    if X.dtype.kind == "O":  # a frame of several types
        X = check_array(X, dtype=np.float64, allow_nd=True, input_name="X")
    if X.dtype.kind not in "biuf":
        raise _no_numbers("X", f"values of type {X.dtype}")
    dtype = X.dtype.newbyteorder("=") if X.dtype.itemsize <= 8 else np.dtype(np.float64)
    return X.astype(dtype, copy=False)


def _check_numeric_targets(y):
    dtype = np.asarray(y).dtype
    try:
        if dtype.kind in "OSU":
            return np.asarray(y).astype(np.float64)
    except (TypeError, ValueError) as error:
        raise _no_numbers("y", f"text ({error})") from error
    if dtype.kind in "mM":
        raise _no_numbers("y", f"values of type {dtype}")
    return y


def _no_numbers(name, found):
    advice = ": encode such columns, e.g. by OneHotEncoder in a ColumnTransformer" if name == "X" else ""
    return ValueError(f"{name} must hold numbers, got {found}{advice}")


def check_sample_weight(sample_weight, X):
    """Return the weights as an array of float64 (n_rows,), or None.

    Raises
    ------
    ValueError
        If they are not one non-negative finite number per row, with at least one above zero.
    """
    if sample_weight is None:
        return None
    sample_weight = check_array(sample_weight, dtype=np.float64, ensure_2d=False, input_name="sample_weight")
    if sample_weight.ndim != 1:
        raise ValueError(f"sample_weight must be 1D, got an array of shape {sample_weight.shape}")
    check_consistent_length(sample_weight, X)
    if sample_weight.min() < 0 or sample_weight.max() == 0:
        raise ValueError(
            "sample_weight must be non-negative and not all zero, "
            f"got weights from {sample_weight.min():g} to {sample_weight.max():g}"
        )
    return sample_weight


def drop_weightless(X, y, sample_weight):
    """Leave out the rows of weight zero: such a row means the same as no row."""
    if sample_weight is None or sample_weight.min() > 0:
        return X, y, sample_weight
    kept = np.flatnonzero(sample_weight)
    return X[kept], y[kept], sample_weight[kept]


def combine_weights(sample_weight, class_weight, y):
    """Return float64 factors on the rows' losses with mean 1, or None where all rows weigh the same."""
    if class_weight is not None:
        by_class = compute_sample_weight(class_weight, y)
        sample_weight = by_class if sample_weight is None else sample_weight * by_class
    if sample_weight is None:
        return None
    return sample_weight / sample_weight.mean()


def encode_labels(y, classes):
    """Return the number of each label among the sorted `classes`.

    Raises
    ------
    ValueError
        For continuous targets, fewer than two classes, or a label that is not among the classes.
    """
    check_classification_targets(y)
    if len(classes) < 2:
        raise ValueError(f"y must hold at least 2 classes, got 1 class: {classes.tolist()}")
    unknown = np.setdiff1d(y, classes)
    if len(unknown):
        raise ValueError(f"y must hold the classes {classes.tolist()} only, got also {unknown.tolist()}")
    return np.searchsorted(classes, y)


def warn_if_unscaled(X):
    """Warn where one feature's standard deviation is over 1,000 times another's (constant features aside)."""
    if sparse.issparse(X) or X.ndim != 2:
        return
    rows = X[:: -(-len(X) // _SPREAD_ROWS)]
    spread = rows.std(axis=0, dtype=np.float64)[rows.min(axis=0) < rows.max(axis=0)]
    if len(spread) and spread.max() > _SPREAD * spread.min():
        warnings.warn(
            "the features of X should be scaled alike for a network to learn well, but their standard deviations "
            f"range from {spread.min():.2g} to {spread.max():.2g}: "
            "use make_pipeline(StandardScaler(), net)",
            UserWarning,
            stacklevel=5,  # the line that calls fit
        )


def resolve_device(device):
    """Return the torch device that a `device` parameter means here.

    Raises
    ------
    ValueError
        If it is no device's name, or that device is not on this machine.
    """
    available = ["cpu"]
    if torch.cuda.is_available():
        available += ["cuda", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
    if torch.backends.mps.is_available():
        available += ["mps", "mps:0"]
    if isinstance(device, str) and device == "auto":
        return torch.device(next(name for name in ("cuda", "mps", "cpu") if name in available))
    try:
        resolved = torch.device(device)
    except (RuntimeError, TypeError):
        raise ValueError(f"device must be 'auto' or the name of a torch device, got device={device!r}") from None
    try:
        torch.empty(0, device=resolved)
    except (AssertionError, RuntimeError):  # what torch raises differs from device to device
        raise ValueError(
            f"device must be one of those on this machine, {available} among them, got device={device!r}"
        ) from None
    return resolved


_RANGES = {
    "lr": (Real, lambda v: 0 < v < math.inf, "a positive finite number"),
    "optimizer__lr": (Real, lambda v: 0 < v < math.inf, "a positive finite number"),
    "max_epochs": (Integral, lambda v: v >= 1, "an int of at least 1"),
    "batch_size": (Integral, lambda v: v >= 1, "an int of at least 1"),
    "l1": (Real, lambda v: 0 <= v < math.inf, "a non-negative finite number"),
    "l2": (Real, lambda v: 0 <= v < math.inf, "a non-negative finite number"),
    "optimizer__weight_decay": (Real, lambda v: 0 <= v < math.inf, "a non-negative finite number"),
    "module__dropout": (Real, lambda v: 0 <= v < 1, "a number of at least 0 and less than 1"),
    "validation_fraction": (Real, lambda v: 0 < v < 1, "a number between 0 and 1"),
    "n_iter_no_change": (Integral, lambda v: v >= 1, "an int of at least 1"),
    "tol": (Real, lambda v: 0 <= v < math.inf, "a non-negative finite number"),
}


def check_hyperparameters(net):
    """Check the ranges and names of a net's hyperparameters.

    Raises
    ------
    ValueError
        Naming the parameter, what it must be, and what it is.
    """
    for name, (kind, holds, requirement) in _RANGES.items():
        value = vars(net).get(name, requirement)
        if value is requirement:  # not given
            continue
        if not isinstance(value, kind) or isinstance(value, bool | np.bool_) or not holds(value):
            raise ValueError(f"{name} must be {requirement}, got {name}={value!r}")
    check_names(net, net.get_params(deep=False))
    lr_factors(net.lr_schedule, [0.0], net.max_epochs, **net.get_params_for("lr_schedule"))


def check_names(net, names, components=None):
    """Check that a net has hyperparameters of these names.

    Parameters
    ----------
    net : skorch.NeuralNet
    names : iterable of str
        Those with a prefix, ``module__x`` for one, are arguments of that component.
    components : dict, default=None
        Components that are about to be set.

    Raises
    ------
    ValueError
        With the nearest known name.
    """
    own = _own_parameters(type(net))
    for name in names:
        prefix, nested, argument = name.partition("__")
        if not nested and name not in own:
            raise ValueError(f"{type(net).__name__} has no parameter {name!r}{did_you_mean(name, own)}")
        if nested and prefix in net.prefixes_:
            _check_argument(name, {**vars(net), **(components or {})}.get(prefix))
        elif nested and net.knows_prefixes():
            near = [f"{known}__{argument}" for known in net.prefixes_]
            raise ValueError(f"{type(net).__name__} has no parameter {name!r}{did_you_mean(name, near)}")


def _own_parameters(kind):
    bases = [base for base in kind.__mro__ if "__init__" in vars(base)]
    return {name for base in bases for name in constructor_arguments(base, extra=False) or ()}


def _check_argument(name, component):
    """Check that the part of `name` after its prefix is an argument of the component."""
    prefix, _, argument = name.partition("__")
    if prefix in ("callbacks", "compile") or component is None or argument.startswith("param_groups"):
        return
    if prefix == "lr_schedule":
        component = component if callable(component) else SCHEDULES.get(component)
    factory = component if callable(component) and not isinstance(component, torch.nn.Module) else type(component)
    known = constructor_arguments(factory) if component is not None else None
    if known is not None and prefix == "lr_schedule":
        known = [*known[2:], "warmup"]  # after the time and the epochs
    if known is not None and argument not in known:
        known = [f"{prefix}__{k}" for k in known]
        raise ValueError(
            f"{name} must name an argument of {getattr(factory, '__name__', factory)}"
            f"{did_you_mean(name, known) or f', which has {known}'}"
        )


@cache
def constructor_arguments(factory, extra=True):
    """Return the names that a class or function takes, or None if `extra` counts and it takes any."""
    try:
        parameters = inspect.signature(factory).parameters.values()
    except (TypeError, ValueError):  # built in C
        return None
    if extra and any(p.kind is p.VAR_KEYWORD for p in parameters):
        return None
    return [p.name for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
