"""Label tables as the targets of a classifier: 0 and 1, with a column for each label.

A row may have several labels, or none.
"""

import numpy as np
import torch
from scipy import sparse
from skorch.utils import data_from_dataset

from sktune.runtime.names import class_name
from sktune.training.losses import WAYS_FOR_LABELS


def is_table(y):
    """Tell whether targets have two or more dimensions, and more than one number for each row."""
    if sparse.issparse(y):
        return True
    try:
        shape = y.shape if hasattr(y, "shape") else np.asarray(y).shape
    except (TypeError, ValueError):
        # The rows have different lengths.
        return False
    return len(shape) > 2 or (len(shape) == 2 and shape[1] != 1)


def as_label_table(y):
    """Return y as a dense array (n_rows, n_labels) if it is a label table; else None."""
    if y is None or not is_table(y):
        return None
    if sparse.issparse(y):
        table = y.toarray()
    else:
        table = y.detach().cpu().numpy() if isinstance(y, torch.Tensor) else np.asarray(y)
    if table.dtype.kind not in "biufO":
        return None
    if table.ndim != 2 or table.shape[1] < 2:
        return None
    if not np.isin(table, (0, 1)).all():
        return None
    return table.astype(np.int64) if table.dtype.kind == "O" else table


def find_label_table(dataset):
    """Return the label table of a Dataset, or None if skorch cannot read its targets."""
    try:
        return as_label_table(data_from_dataset(dataset)[1])
    except (AttributeError, IndexError, TypeError, ValueError):
        return None


def is_one_hot(table):
    """Tell whether each row of a label table has exactly one label."""
    return bool((table.sum(axis=1) == 1).all())


def refuse_one_hot(table, criterion):
    """Return the error for a one-hot table under a criterion that takes class numbers."""
    return ValueError(
        f"y must hold one label for each row under criterion={class_name(criterion)}, "
        f"got a one-hot table of shape {table.shape}: pass y.argmax(axis=1); {WAYS_FOR_LABELS}"
    )


def check_classes(classes, n_labels):
    """Check that classes are None, or the positions of a label table's columns."""
    if classes is not None and not np.array_equal(np.unique(classes), np.arange(n_labels)):
        raise ValueError(
            f"classes must be None or range({n_labels}), the columns of a table of labels, "
            f"got {list(classes)}"
        )
