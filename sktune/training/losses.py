"""Criteria: what their outputs and targets look like."""

from torch import nn

BINARY = nn.BCEWithLogitsLoss | nn.BCELoss  # criteria of a single output
BY_CLASS = (nn.CrossEntropyLoss, nn.NLLLoss, nn.MultiMarginLoss)


def is_of(criterion, kinds):
    """Tell whether a criterion, a class or an instance, is one of some kinds."""
    kind = criterion if isinstance(criterion, type) else type(criterion)
    return issubclass(kind, kinds)


def is_binary(criterion):
    """Tell whether a criterion is one of independent probabilities."""
    return is_of(criterion, BINARY)


def misfit(y_pred, expected):
    return ValueError(f"the module's output must have shape {expected}, got {tuple(y_pred.shape)}")
