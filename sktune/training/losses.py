"""Criteria, and how outputs and targets are brought together for them.

The functions ``match_...`` take a criterion, the outputs of a module, targets, and the number of
classes if there are any and it is known. They return outputs and targets as the criterion compares
them, and raise if they do not belong together.
"""

import torch
from torch import nn

from sktune.runtime.names import class_name

# Criteria of independent probabilities, a column for each.
BINARY = nn.BCEWithLogitsLoss | nn.BCELoss
# Criteria of one class for each row.
BY_CLASS = (nn.CrossEntropyLoss, nn.NLLLoss, nn.MultiMarginLoss)


def is_of(criterion, kinds):
    """Tell whether a criterion, a class or an instance, is one of some kinds."""
    kind = criterion if isinstance(criterion, type) else type(criterion)
    return issubclass(kind, kinds)


def is_binary(criterion):
    """Tell whether a criterion is one of independent probabilities."""
    return is_of(criterion, BINARY)


def misfit(y_pred, expected):
    """Return the error of outputs that have another shape than the targets call for."""
    return ValueError(f"the module's output must have shape {expected}, got {tuple(y_pred.shape)}")


# What an error advises where a label table cannot be learned.
WAYS_FOR_LABELS = (
    "for several labels a row pass criterion=nn.BCEWithLogitsLoss, "
    "or wrap the net in sklearn.multioutput.MultiOutputClassifier"
)


def refuse_table(shape, criterion):
    """Return the error for a label table under a criterion that cannot learn it."""
    return ValueError(
        f"y must hold one label for each row under criterion={class_name(criterion)}, "
        f"got a table of shape {tuple(shape)}: of a one-hot table pass y.argmax(axis=1); "
        f"{WAYS_FOR_LABELS}"
    )


def match_nothing(criterion, y_pred, y_true, n_classes=None):
    """Return outputs and targets as they are."""
    return y_pred, y_true


def match_flat(criterion, y_pred, y_true, n_classes=None):
    """Return outputs as one number for each row."""
    return y_pred.reshape(-1), y_true


def match_logarithms(criterion, y_pred, y_true, n_classes=None):
    """Return the logarithms of outputs, which are probabilities, as skorch does."""
    return torch.log(y_pred + torch.finfo(y_pred.dtype).eps), y_true


def match_targets(criterion, y_pred, y_true, n_classes=None):
    """Return outputs, and targets of a regression in their shape."""
    if not isinstance(y_pred, torch.Tensor) or y_pred.shape == y_true.shape:
        return y_pred, y_true
    if len(y_pred) != len(y_true) or y_pred.numel() != y_true.numel():
        raise misfit(y_pred, f"{tuple(y_true.shape)}: one column per target")
    return y_pred, y_true.reshape(y_pred.shape)


def match_classes(criterion, y_pred, y_true, n_classes=None):
    """Return outputs, and targets of a classification in their shape or as numbers of classes."""
    if not isinstance(y_pred, torch.Tensor):
        return y_pred, y_true
    if isinstance(criterion, BINARY):
        return _match_probabilities(y_pred, y_true)
    if isinstance(criterion, BY_CLASS):
        if y_pred.ndim == 2 and y_true.ndim == 2 and not y_true.is_floating_point():
            raise refuse_table(y_true.shape, criterion)
        has_columns = y_pred.ndim >= 2 and n_classes in (None, y_pred.shape[1])
        if not has_columns or len(y_pred) != len(y_true):
            raise misfit(y_pred, f"({len(y_true)}, {n_classes}): one column per class")
    if isinstance(criterion, nn.NLLLoss):
        # of probabilities, as in skorch
        y_pred = torch.log(y_pred + torch.finfo(y_pred.dtype).eps)
    return y_pred, y_true


def _match_probabilities(y_pred, y_true):
    """Return outputs of a binary criterion, and targets in their shape and type."""
    n_rows = len(y_true)
    if y_pred.numel() != y_true.numel():
        if y_true.ndim > 1:
            shape = f"{tuple(y_true.shape)}: one logit or probability per row and label"
        else:
            shape = f"({n_rows},) or ({n_rows}, 1): one logit or probability per row"
        raise misfit(y_pred, shape)
    return y_pred, y_true.to(y_pred.dtype).reshape(y_pred.shape)
