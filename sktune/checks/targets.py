"""Labels and targets that come in, and outputs that are compared with them."""

import numpy as np
import torch
from sklearn.utils.multiclass import check_classification_targets

from sktune.checks.inputs import _count_rows


def encode_label(y, classes, ignored=None):
    """Return the number of a label, or an array of them, among the sorted `classes`; see :func:`encode_labels`."""
    y = np.asarray(y)
    return torch.as_tensor(encode_labels(y.reshape(-1), classes, ignored).reshape(y.shape))


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
        raise ValueError(
            f"y must hold the classes {classes.tolist()} only, got also {unknown.tolist()}"
        )
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
