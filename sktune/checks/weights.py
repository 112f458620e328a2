"""Weights of rows and of classes."""

from collections.abc import Mapping

import numpy as np
from sklearn.utils.class_weight import compute_class_weight, compute_sample_weight
from sklearn.utils.validation import check_array, check_consistent_length


def check_sample_weight(X, y, sample_weight, *others):
    """Check the weights of rows, and leave out the rows of weight zero, which have no effect.

    Parameters
    ----------
    X, y : array-like or None
    sample_weight : array-like (n_rows,) or None
    *others : array-like
        Further arrays with an item for each row.

    Returns
    -------
    X, y, sample_weight, *others
        With the rows of a weight above zero only.

    Raises
    ------
    ValueError
        If a weight is negative, if all are zero, or if there is not one for each row.
    """
    if sample_weight is None:
        return X, y, None, *others
    sample_weight = check_array(
        sample_weight, dtype=np.float64, ensure_2d=False, input_name="sample_weight"
    )
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
    """Return the factors on the rows' losses.

    Parameters
    ----------
    sample_weight : ndarray (n_rows,) or None
    class_weight : dict, "balanced" or None
    y : ndarray (n_rows,)
        Labels.
    classes : ndarray, default=None
        All labels that `class_weight` may name.
    is_portion : bool, default=False
        Whether the rows are a portion of all rows, as in ``partial_fit``. It does not tell how
        frequent the classes are, and a class is to weigh the same in each portion: there only the
        sample weights are scaled.

    Returns
    -------
    weight : float64 ndarray (n_rows,) or None
        Their mean over the rows of a weight above zero is 1. None if all rows weigh the same.
    """
    if class_weight is None:
        return _normalize(sample_weight)
    weight = _weigh_classes(class_weight, y, classes)
    if is_portion:
        return weight if sample_weight is None else _normalize(sample_weight) * weight
    return _normalize(weight if sample_weight is None else sample_weight * weight)


def _normalize(weight):
    """Scale weights so that their mean over the rows of a weight above zero is 1."""
    if weight is None:
        return None
    with np.errstate(over="ignore"):
        mean = weight[weight > 0].mean()
    if np.isinf(mean):
        # The sum is beyond float64. Only the ratios of the weights matter.
        weight = weight / weight.max()
        mean = weight[weight > 0].mean()
    return weight / mean


def _weigh_classes(class_weight, y, classes):
    """Return the weight (n_rows,) of each row's class.

    `classes` are all labels that `class_weight` may name; None is those in `y`.
    """
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
