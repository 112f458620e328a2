"""Reading of a criterion and its targets into what the compiled kernels know."""

from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from sktune.engine.compiled.opcodes import MEAN, SUM, WEIGHTED_MEAN
from sktune.modules.reading import is_watched
from sktune.training.losses import (
    match_classes,
    match_flat,
    match_logarithms,
    match_nothing,
    match_targets,
)


class Loss(NamedTuple):
    """A criterion as the kernels read it.

    Attributes
    ----------
    opcode : int
    options : tuple of float
        What parametrizes it.
    class_weight : Tensor of shape (n_classes,) or None
        Factors on the losses of each class.
    is_sum : bool
        Whether the losses of rows without weights are summed up.
    """

    opcode: int
    options: tuple = (0.0,)
    class_weight: object = None
    is_sum: bool = False

    def list_options(self, has_weights):
        """Return the options of the kernels: how the losses of rows become one, and the others.

        Rows with weights have the mean of weight times loss, whatever the criterion's reduction.
        """
        reduction = MEAN
        if not has_weights and self.is_sum:
            reduction = SUM
        elif not has_weights and self.class_weight is not None:
            reduction = WEIGHTED_MEAN
        return np.array([reduction, *self.options], dtype=np.float64)


# For a criterion that compares numbers: its opcode's name, and its option's name.
_OF_NUMBERS = {
    nn.MSELoss: ("SQUARED_ERROR", None),
    nn.L1Loss: ("ABSOLUTE_ERROR", None),
    nn.HuberLoss: ("HUBER", "delta"),
    nn.SmoothL1Loss: ("SMOOTH_ABSOLUTE_ERROR", "beta"),
    nn.BCEWithLogitsLoss: ("BINARY_CROSS_ENTROPY", None),
    nn.PoissonNLLLoss: ("POISSON", None),
}
_OF_CLASSES = (nn.CrossEntropyLoss, nn.NLLLoss)


def read_loss(kernels, criterion, match, rows, graph):
    """Return a criterion on some rows as a :class:`Loss`, or None if the kernels don't compute it.

    Parameters
    ----------
    kernels : module
    criterion : nn.Module
    match : callable
        The function of :mod:`sktune.training.losses` that brings outputs and targets together.
    rows : Rows
    graph : Graph
    """
    if type(criterion) not in (*_OF_NUMBERS, *_OF_CLASSES):
        return None
    if criterion.reduction not in ("mean", "sum") or is_watched(criterion):
        return None
    is_sum = criterion.reduction == "sum"
    weight = getattr(criterion, "weight", None)
    if type(criterion) in _OF_CLASSES:
        loss = _read_classes(kernels, criterion, match, rows, graph)
        if loss is None or weight is None:
            return loss and loss._replace(is_sum=is_sum)
        # smoothed targets weigh each class by itself
        is_smoothed = loss.options != (0.0,)
        has_classes = weight.shape == (graph.n_outputs,)
        if is_smoothed or not has_classes:
            return None
        return loss._replace(is_sum=is_sum, class_weight=weight.detach())
    if weight is not None:
        return None
    if graph.ending is not None or not _are_numbers(criterion, match, rows, graph.n_outputs):
        return None
    loss = _read_numbers(kernels, criterion, graph.n_outputs)
    return loss and loss._replace(is_sum=is_sum)


def _read_classes(kernels, criterion, match, rows, graph):
    target = rows.target
    if criterion.ignore_index >= 0 or target.dtype != torch.int64:
        return None
    if target.shape != (len(rows.X),) or target.min() < 0 or target.max() >= graph.n_outputs:
        return None
    is_nll = type(criterion) is nn.NLLLoss
    # The logarithm of a softmax is a row of logits of the same softmax.
    is_usual = match in (match_classes, match_nothing)
    if not is_nll and is_usual and graph.ending in (None, nn.LogSoftmax):
        return Loss(kernels.CROSS_ENTROPY, (float(criterion.label_smoothing),))
    # These take the logarithm of what the module returns.
    if is_nll and match in (match_classes, match_logarithms) and graph.ending is nn.Softmax:
        return Loss(kernels.PROBABILITY_NLL)
    if is_nll and match is match_nothing and graph.ending is nn.LogSoftmax:
        return Loss(kernels.CROSS_ENTROPY)
    return None


def _are_numbers(criterion, match, rows, n_outputs):
    """Tell whether targets are a number for each output."""
    target = rows.target
    if type(criterion) is nn.BCEWithLogitsLoss and match is match_classes:
        # it casts and reshapes
        return target.numel() == len(rows.X) * n_outputs
    if target.dtype != rows.dtype:
        return False
    if match is match_flat:
        return n_outputs == 1 and target.shape == (len(rows.X),)
    is_known = match in (match_classes, match_nothing, match_targets)
    return is_known and target.shape == (len(rows.X), n_outputs)


def _read_numbers(kernels, criterion, n_outputs):
    name, option = _OF_NUMBERS[type(criterion)]
    value = 0.0 if option is None else getattr(criterion, option)
    if type(criterion) is nn.SmoothL1Loss and not value:
        name = "ABSOLUTE_ERROR"
    if type(criterion) is nn.PoissonNLLLoss and (criterion.full or not criterion.log_input):
        return None
    if type(criterion) is nn.BCEWithLogitsLoss:
        return _read_positive(kernels, criterion.pos_weight, n_outputs)
    return Loss(getattr(kernels, name), (float(value),))


def _read_positive(kernels, pos_weight, n_outputs):
    """Return the binary cross entropy with some weight of positive targets."""
    if pos_weight is None:
        return Loss(kernels.BINARY_CROSS_ENTROPY, (1.0,))
    if pos_weight.ndim > 1 or pos_weight.numel() not in (1, n_outputs):
        return None
    return Loss(kernels.BINARY_CROSS_ENTROPY, tuple(pos_weight.reshape(-1).tolist()))
