"""Labels and targets that come in, and outputs that are compared with them."""

import numpy as np
import torch
from sklearn.utils.multiclass import check_classification_targets

from sktune.checks.inputs import find_row_count
from sktune.runtime.names import class_name


def encode_labels(y, classes, ignored=None):
    """Return the class number of each label.

    Parameters
    ----------
    y : ndarray
        Labels.
    classes : ndarray (n_classes,)
        All labels that `y` may hold, sorted; there must be two at least.
    ignored : int, default=None
        A label of no class, which stays as it is.

    Returns
    -------
    numbers : int ndarray
        Of the shape of `y`.

    Raises
    ------
    ValueError
        If `y` holds other labels, or there are fewer than two classes.
    """
    if ignored is not None:
        return _encode_others(y, classes, ignored)
    check_classification_targets(y.ravel())
    if len(classes) < 2:
        raise ValueError(f"y must hold at least 2 classes, got 1 class: {classes.tolist()}")
    unknown = np.setdiff1d(y, classes)
    if len(unknown):
        raise ValueError(
            f"y must hold the classes {classes.tolist()} only, got also {unknown.tolist()}"
        )
    return np.searchsorted(classes, y)


def _encode_others(y, classes, ignored):
    """Encode all labels but the ignored one."""
    numbers = np.full(y.shape, ignored)
    has_class = y != ignored
    if has_class.any():
        numbers[has_class] = encode_labels(y[has_class], classes)
    return numbers


def encode_label(y, classes, ignored=None):
    """Return the class number of a label, or of an array of labels, as a tensor.

    The parameters are those of :func:`encode_labels`.
    """
    y = np.asarray(y)
    numbers = encode_labels(y.reshape(-1), classes, ignored)
    return torch.as_tensor(numbers.reshape(y.shape))


def check_portion(net, classes):
    """Check the classes, and the weights of classes, in a call of ``partial_fit``.

    Parameters
    ----------
    net : NetworkEstimator
    classes : array-like or None
        What the call was given.

    Raises
    ------
    ValueError
        If the weights depend on all rows, or the classes are not those of the first call.
    """
    class_weight = getattr(net, "class_weight", None)
    if isinstance(class_weight, str):
        raise ValueError(
            f"class_weight must be a dict or None in partial_fit, got {class_weight!r}, "
            "which a portion of the rows does not tell: compute it from all labels by "
            "sklearn.utils.class_weight.compute_class_weight('balanced', classes=classes, y=y)"
        )
    if classes is None:
        return
    known = getattr(net, "classes_", None) if net.initialized_ else net.classes
    if known is None or not len(known):
        return
    given = np.unique(classes)
    expected = np.unique(known)
    if not np.array_equal(given, expected):
        raise ValueError(
            f"classes must be those of the first call, {expected.tolist()}, got {given.tolist()}"
        )


def check_fractions(target, criterion):
    """Check that the targets of a binary criterion are probabilities."""
    least = target.min()
    most = target.max()
    if least < 0 or most > 1:
        raise ValueError(
            f"y must be between 0 and 1 under criterion={class_name(criterion)}, "
            f"got numbers from {least:g} to {most:g}"
        )


def check_outputs(outputs, X, n_columns, what="targets"):
    """Check the shape of predictions.

    Parameters
    ----------
    outputs : ndarray (n_rows, ...)
        The predictions.
    X : array-like or Dataset
        What they were made for. A Dataset may not tell how many rows it has.
    n_columns : int or None
        The number of targets or classes; None if it is not known.
    what : {"targets", "classes"}, default="targets"
        What the columns are.

    Raises
    ------
    ValueError
        If there is not one number for each row and column.
    """
    n_rows = find_row_count(X)
    if n_rows is None:
        n_rows = len(outputs)
    if n_columns is None:
        is_right = outputs.shape[:1] == (n_rows,)
    elif what == "classes":
        # More dimensions may follow the classes, such as that of a sequence.
        is_right = outputs.shape[:2] == (n_rows, n_columns or 1)
    else:
        is_right = outputs.size == n_rows * n_columns
    if not is_right:
        raise ValueError(
            f"the module must return one number for each of {n_rows} rows and {n_columns or 1} "
            f"{what}, got predictions of shape {outputs.shape}"
        )
