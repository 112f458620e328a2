"""What comes in: tables, labels, weights, devices and hyperparameters, checked before anything changes."""

import inspect
import math
import re
from collections.abc import Mapping
from contextlib import contextmanager, nullcontext
from functools import partial
from numbers import Integral, Real
from warnings import catch_warnings, warn
from weakref import WeakKeyDictionary

import numpy as np
import torch
from scipy import sparse
from sklearn.utils.class_weight import compute_class_weight, compute_sample_weight
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_array, check_consistent_length, validate_data
from skorch.dataset import get_len
from skorch.helper import SliceDataset
from skorch.utils import is_dataset

from sktune import labels
from sktune.components import check_components
from sktune.names import suggest
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


def encode_label(y, classes, ignored=None):
    """Return the number of a label, or an array of them, among the sorted `classes`; see :func:`encode_labels`."""
    y = np.asarray(y)
    return torch.as_tensor(encode_labels(y.reshape(-1), classes, ignored).reshape(y.shape))


def check_rows(estimator, X, y="no_validation", *, reset, y_numeric=False):
    """Check X, and y if it is passed, as scikit-learn does; return X, or X and y, as arrays.

    X may be any numeric array, frame, list, sparse matrix or torch tensor of two or more dimensions; it is
    returned in a type that torch knows.
    """
    # a tensor has no names, which is no reason to warn
    quiet = catch_warnings(action="ignore", category=UserWarning) if isinstance(X, torch.Tensor) else nullcontext()
    X, y = (part.detach().cpu().numpy() if isinstance(part, torch.Tensor) else part for part in (X, y))
    if getattr(X, "shape", ())[1:] == (0,):  # of a frame without columns scikit-learn would say something obscure
        raise ValueError(f"Found array with 0 feature(s) (shape={X.shape}) while a minimum of 1 is required.")
    y = y.toarray() if sparse.issparse(y) else y
    is_table = not isinstance(y, str) and labels.is_table(y)
    # labels of sequences may have more dimensions than scikit-learn checks
    shape = np.shape(y) if is_table and not y_numeric else None
    options = {} if isinstance(y, str) else {"multi_output": y_numeric or is_table, "y_numeric": y_numeric}
    if y_numeric and y is not None:
        with _naming_text("y"):
            y = _as_numbers("y", np.asarray(y))
    if shape is not None:
        y = np.reshape(y, (shape[0], -1))
    with _naming_text("X"), quiet:
        checked = validate_data(estimator, X, y, accept_sparse="csr", allow_nd=True, reset=reset, **options)
        if isinstance(y, str):
            return _as_numbers("X", checked)
        return _as_numbers("X", checked[0]), checked[1] if shape is None else checked[1].reshape(shape)


@contextmanager
def _naming_text(name):
    """Say of values that cannot be made numbers what they are."""
    try:
        yield
    except (TypeError, ValueError) as error:
        if not re.search("could not convert|could not be promoted|bytes/strings", str(error)):
            raise
        advice = ": encode such columns, e.g. by OneHotEncoder in a ColumnTransformer" if name == "X" else ""
        raise ValueError(f"{name} must hold numbers, got text or dates ({error}){advice}") from error


def _as_numbers(name, values):
    """Return values in a type that torch knows: numbers of at most 64 bits in the machine's byte order."""
    if values.dtype.kind in "OSUc":  # of a frame of several types, for one
        values = check_array(values, dtype=np.float64, ensure_2d=False, allow_nd=True, input_name=name)
    if values.dtype.kind not in "biuf":
        raise ValueError(f"{name} must hold numbers, got values of type {values.dtype}")
    dtype = values.dtype.newbyteorder("=") if values.dtype.itemsize <= 8 else np.dtype(np.float64)
    return values.astype(dtype, copy=False)


def check_sample_weight(X, y, sample_weight, *others):
    """Return X, y, the weights (n_rows,) and `others`, without the rows of weight zero.

    Such a row means the same as no row.
    """
    if sample_weight is None:
        return X, y, None, *others
    sample_weight = check_array(sample_weight, dtype=np.float64, ensure_2d=False, input_name="sample_weight")
    if sample_weight.ndim != 1:
        raise ValueError(f"sample_weight must be 1D, got an array of shape {sample_weight.shape}")
    check_consistent_length(sample_weight, X)
    if sample_weight.min() < 0 or sample_weight.max() == 0:
        found = f"weights from {sample_weight.min():g} to {sample_weight.max():g}"
        raise ValueError(f"sample_weight must be non-negative and not all zero, got {found}")
    return drop_weightless_rows(X, y, sample_weight, *others)


def drop_weightless_rows(X, y, weight, *others):
    """Return X, y, the weights (n_rows,) and `others` at the rows whose weight is above zero."""
    if weight is None or weight.min() > 0:
        return X, y, weight, *others
    kept = np.flatnonzero(weight)
    return tuple(part[kept] for part in (X, y, weight, *others))


def combine_weights(sample_weight, class_weight, y, classes=None, is_portion=False):
    """Return float64 factors on the rows' losses, or None where all rows weigh the same.

    Their mean is 1 over the rows that weigh anything. A portion of the rows does not tell how frequent the classes
    are: there only the sample weights have a mean of 1, and the weights of the classes are factors as they are, so
    that a class weighs the same in each portion.
    """
    if class_weight is None:
        return _normalize(sample_weight)
    by_class = _weigh_classes(class_weight, y, classes)
    if not is_portion:
        return _normalize(by_class if sample_weight is None else sample_weight * by_class)
    return by_class if sample_weight is None else _normalize(sample_weight) * by_class


def _normalize(weight):
    """Return weights whose mean is 1 over the rows that weigh anything."""
    if weight is None:
        return None
    with np.errstate(over="ignore"):
        mean = weight[weight > 0].mean()
    if np.isinf(mean):  # their sum is beyond float64: only their ratios matter
        weight = weight / weight.max()
        mean = weight[weight > 0].mean()
    return weight / mean


def _weigh_classes(class_weight, y, classes):
    """Return the weight (n_rows,) of each row's class; `classes` are all that a dict may name, or None."""
    if np.ndim(y) != 1:
        raise ValueError(
            f"class_weight must come with one label for each row, got y of shape {np.shape(y)}: "
            "use sample_weight, or weights of the criterion"
        )
    if classes is None or not isinstance(class_weight, Mapping):
        weight = compute_sample_weight(class_weight, y)
    else:
        of_class = compute_class_weight(class_weight, classes=classes, y=y)
        weight = of_class[np.searchsorted(classes, y)]
    if not np.isfinite(weight).all() or weight.min() < 0 or weight.max() == 0:
        found = f"weights from {weight.min():g} to {weight.max():g} of the rows in y"
        raise ValueError(f"class_weight must be non-negative, finite and not all zero, got {found}")
    return weight


_VALIDATION_ROWS = ("X_val", "y_val", "validation_data", "eval_set", "validation_split")


def check_fit_params(net, fit_params):
    """Refuse what other libraries call validation rows in ``fit``, unless the module's forward takes such a name."""
    forward = getattr(net.module, "forward", None)
    known = constructor_arguments(forward) if callable(forward) else []
    unknown = [name for name in fit_params if name in _VALIDATION_ROWS and known is not None and name not in known]
    if unknown:
        raise ValueError(
            f"validation rows must come as train_split=skorch.helper.predefined_split(Dataset(X_val, y_val)), or be "
            f"held out by early_stopping=True, got {unknown} in fit"
        )


def check_portion(net, classes):
    """Check what a classifier is told in a call of ``partial_fit``: its classes, and the weights of them."""
    class_weight = getattr(net, "class_weight", None)
    if isinstance(class_weight, str):
        raise ValueError(
            f"class_weight must be a dict or None in partial_fit, got {class_weight!r}, which a portion of the rows "
            "does not tell: compute it from all labels by "
            "sklearn.utils.class_weight.compute_class_weight('balanced', classes=classes, y=y)"
        )
    if classes is None:
        return
    known = getattr(net, "classes_", None) if net.initialized_ else net.classes
    if known is not None and len(known):
        given = np.unique(classes)
        if not np.array_equal(given, np.unique(known)):
            raise ValueError(
                f"classes must be those of the first call, {np.unique(known).tolist()}, got {given.tolist()}"
            )


def encode_labels(y, classes, ignored=None):
    """Return the number of each label among the sorted `classes`, two or more, of which it must be one.

    The `ignored` label, if any, is none of them, and stays what it is.
    """
    if ignored is not None:
        numbers = np.full(y.shape, ignored)
        is_known = y != ignored
        if is_known.any():
            numbers[is_known] = encode_labels(y[is_known], classes)
        return numbers
    check_classification_targets(y.ravel())
    if len(classes) < 2:
        raise ValueError(f"y must hold at least 2 classes, got 1 class: {classes.tolist()}")
    if len(unknown := np.setdiff1d(y, classes)):
        raise ValueError(f"y must hold the classes {classes.tolist()} only, got also {unknown.tolist()}")
    return np.searchsorted(classes, y)


def check_fractions(target, criterion):
    """Check that the targets of a binary criterion are probabilities."""
    least, most = target.min(), target.max()
    if least < 0 or most > 1:
        name = getattr(criterion, "__name__", type(criterion).__name__)
        found = f"numbers from {least:g} to {most:g}"
        raise ValueError(f"y must be between 0 and 1 under criterion={name}, got {found}")


def check_outputs(outputs, X, n_columns, what="targets"):
    """Check that predictions (n_rows, ...) are one for each row of X and each of its `n_columns` targets or classes.

    `n_columns` is None where it is not known, and a Dataset may not know its length.
    """
    n_rows = _count_rows(X)
    n_rows = len(outputs) if n_rows is None else n_rows
    expected = (n_rows, n_columns or 1)
    if n_columns is None:
        is_right = outputs.shape[:1] == (n_rows,)
    elif what == "classes":
        # Behind the classes there may be more dimensions, those of a sequence for one.
        is_right = outputs.shape[:2] == expected
    else:
        is_right = outputs.size == n_rows * n_columns
    if not is_right:
        raise ValueError(
            f"the module must return one number for each of {n_rows} rows and {expected[1]} {what}, "
            f"got predictions of shape {outputs.shape}"
        )


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


def resolve_device(device):
    """Return the torch device that a `device` parameter means on this machine."""
    if isinstance(device, str) and device == "auto":
        has_mps = torch.backends.mps.is_available()
        return torch.device("cuda" if torch.cuda.is_available() else "mps" if has_mps else "cpu")
    try:
        return torch.empty(0, device=torch.device(device)).device
    except (AssertionError, RuntimeError, TypeError) as error:  # what torch raises differs from device to device
        raise ValueError(f"device must be 'auto' or a torch device on this machine, got device={device!r}") from error


_RANGES = {
    ("lr", "optimizer__lr"): (Real, lambda v: 0 < v < math.inf, "a positive finite number"),
    ("max_epochs",): (Integral, lambda v: v >= 1, "an int of at least 1"),
    ("n_iter_no_change",): (
        Real,
        lambda v: v >= 1 and (v == math.inf or isinstance(v, Integral)),
        "an int of at least 1, or inf",
    ),
    ("batch_size", "iterator_train__batch_size", "iterator_valid__batch_size"): (
        Integral,
        lambda v: v >= 1 or v == -1,
        "an int of at least 1, or -1 for all rows at once",
    ),
    ("l1", "l2", "tol", "optimizer__weight_decay"): (Real, lambda v: 0 <= v < math.inf, "a non-negative finite number"),
    ("module__dropout",): (Real, lambda v: 0 <= v < 1, "a number of at least 0 and less than 1"),
    ("validation_fraction",): (Real, lambda v: 0 < v < 1, "a number between 0 and 1"),
}


def check_hyperparameters(net):
    """Check the ranges and names of a net's hyperparameters."""
    for names, (kind, holds, requirement) in _RANGES.items():
        for name in vars(net).keys() & names:
            value = getattr(net, name)
            if value is None and name.startswith("iterator_"):
                # torch's own way to switch batches off
                continue
            if not isinstance(value, kind) or isinstance(value, bool | np.bool_) or not holds(value):
                raise ValueError(f"{name} must be {requirement}, got {name}={value!r}")
    if not isinstance(net.early_stopping, bool | np.bool_ | None) and net.early_stopping != "train_loss":
        raise ValueError(f"early_stopping must be a bool or 'train_loss', got early_stopping={net.early_stopping!r}")
    check_components(vars(net))
    check_names(net, net._named_params())
    lr_factors(net.lr_schedule, [0.0], net.max_epochs, **net.get_params_for("lr_schedule"))


def check_names(net, params):
    """Check that a net has these hyperparameters, set or to be set; ``module__x`` is ``x`` of its module."""
    own = own_arguments(type(net))
    components = {**vars(net), **params}
    prefixes = {"module", "criterion", "optimizer", *net.prefixes_}
    for name in params:
        prefix, nested, argument = name.partition("__")
        owner, known = type(net), own
        if prefix in prefixes and nested:
            owner, known = _find_arguments(prefix, components.get(prefix))
        elif nested:  # a subclass may add components when it initializes
            is_settled = net.initialized_ or type(net).__module__.startswith("sktune.")
            known = [f"{known}__{argument}" for known in prefixes] if is_settled else None
        if known is not None and name not in known and not argument.startswith("param_groups"):
            takes = partial(_takes, components)
            hint = _with_dunder(name, prefixes) or suggest(name, known, takes)
            hint = hint or f": its parameters are {sorted(known)}"
            raise ValueError(f"{getattr(owner, '__name__', owner)} has no parameter {name!r}{hint}")


def _takes(components, name):
    """Tell whether a net of some components may have a hyperparameter: its module, if it is one of the module's."""
    prefix, *_ = name.partition("__")
    if prefix != "module" or name == "module":
        return True
    known = _find_arguments(prefix, components.get(prefix))[1]
    return known is None or name in known


def _with_dunder(name, prefixes):
    """Return a hint at what a name of a component's argument lacks: two underscores."""
    found = [prefix for prefix in prefixes if name.startswith(prefix) and "__" not in name]
    if not found:
        return ""
    prefix = max(found, key=len)
    argument = name.removeprefix(prefix).lstrip("_")
    return f"; did you mean '{prefix}__{argument}'?" if argument else ""


def own_arguments(kind):
    """Return the names that the constructors of a class and of its bases take."""
    return {name for base in kind.__mro__ for name in constructor_arguments(base, extra=False) or ()}


def _find_arguments(prefix, component):
    """Return what builds a component, and the names of its parameters, or None if it takes any."""
    # A name that is given as a component is refused in the next fit.
    is_name = isinstance(component, str) and prefix != "lr_schedule"
    if prefix in ("callbacks", "compile") or component is None or is_name:
        return component, None
    if prefix == "lr_schedule":
        component = SCHEDULES.get(component, component) if isinstance(component, str) else component
    factory = component if callable(component) and not isinstance(component, torch.nn.Module) else type(component)
    known = constructor_arguments(factory)
    if known is not None and prefix == "lr_schedule":
        known = [*known[2:], "warmup"]  # after the time and the epochs
    return factory, known and [f"{prefix}__{name}" for name in known]


_signatures = WeakKeyDictionary()  # of classes and functions, which can still be freed


def constructor_arguments(factory, extra=True):
    """Return the names that a class or function takes, or None if `extra` counts and it takes any."""
    try:
        if factory not in _signatures:
            _signatures[factory] = _read_signature(factory)
        found = _signatures[factory]
    except TypeError:  # no weak reference, or no hash
        found = _read_signature(factory)
    if found is None:
        return None
    names, takes_any = found
    return None if extra and takes_any else names


def required_arguments(factory):
    """Return the names of the arguments that a class or function cannot do without."""
    try:
        parameters = inspect.signature(factory).parameters.values()
    except (TypeError, ValueError):
        return set()
    kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return {p.name for p in parameters if p.default is p.empty and p.kind in kinds}


def takes_any_keyword(factory):
    """Tell whether a function takes keywords that it does not name."""
    return constructor_arguments(factory) is None


def _read_signature(factory):
    """Return the names that a class or function takes, and whether it takes any other; None if it is built in C."""
    try:
        parameters = inspect.signature(factory).parameters.values()
    except (TypeError, ValueError):
        return None
    names = [p.name for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    return names, any(p.kind is p.VAR_KEYWORD for p in parameters)
