"""The losses of many nets at once."""

from copy import deepcopy

import torch
from torch import nn

from sktune.modules.reading import has_other_forward


class StackedLoss:
    """The losses of lanes under the criterion that they have in common.

    Parameters
    ----------
    spec : LossSpec
    target_dtype : torch.dtype
        Of the lanes' targets.
    """

    def __init__(self, spec, target_dtype):
        self.spec = spec
        self.criterion = deepcopy(spec.criterion)
        # without weights of rows, losses are summed up, or divided by the weights of their classes
        self.is_sum = self.criterion.reduction == "sum"
        self.class_weight = None
        has_classes = isinstance(self.criterion, nn.CrossEntropyLoss | nn.NLLLoss)
        if has_classes and not target_dtype.is_floating_point:
            self.class_weight = self.criterion.weight
        self.criterion.reduction = "none"
        # Cross entropy also takes a probability of each class in place of the class's number.
        is_usual = type(self.criterion) is nn.CrossEntropyLoss
        is_usual = is_usual and not has_other_forward(self.criterion)
        self.is_cross_entropy = is_usual and not target_dtype.is_floating_point
        self.is_plain_cross_entropy = (
            self.is_cross_entropy and self.is_plain_mean and not self.criterion.label_smoothing
        )

    @property
    def is_plain_mean(self):
        """Whether the loss of rows is the mean of their losses, however they are batched."""
        return not self.is_sum and self.class_weight is None

    def __call__(self, outputs, target, weight=None):
        """Return losses (L,) and their gradient with respect to the outputs (L, B, ...)."""
        if self.is_plain_cross_entropy and outputs.ndim == 3:
            return cross_entropy(outputs, target, weight)
        outputs = outputs.requires_grad_()
        losses = self.of_lanes(outputs, target, weight)
        return losses.detach(), torch.autograd.grad(losses.sum(), outputs)[0]

    def of_lanes(self, outputs, target, weight=None):
        """Return the losses (L,) of outputs (L, B, ...) for targets (L, B, ...)."""
        if self.is_cross_entropy and outputs.ndim == 3:
            # with the classes in the middle it is 3 x faster
            losses = self.criterion(outputs.mT, target)  # (L, B)
        else:
            rows = self.spec.bring_together(outputs.flatten(0, 1), target.flatten(0, 1))
            losses = self.criterion(*rows)
            losses = losses.view(*outputs.shape[:2], -1)  # (L, B, ...)
        if weight is None and not self.is_plain_mean:
            return self._reduce(losses.flatten(1), target)
        if losses.ndim > 2:
            losses = losses.mean(2)  # (L, B)
        return (losses if weight is None else losses * weight).mean(1)

    def _reduce(self, losses, target):
        """Return the losses (L,) of lanes whose criterion has another reduction than the mean."""
        if self.is_sum:
            return losses.sum(1)
        return losses.sum(1) / self.class_weight[target].flatten(1).sum(1)

    def of_net(self, y_pred, y_true):
        """Return the mean loss of the rows of a single net."""
        return self.spec.criterion(*self.spec.bring_together(y_pred, y_true))

    def accuracies(self, outputs, target, weight=None):
        """Return the shares (L,) of labels that outputs (L, B, C, ...) predict rightly.

        Of a table of labels it is the share of rows whose labels are all right. Where there are no
        classes the shares have no meaning.
        """
        if outputs.ndim > 2 and outputs.shape[2] > 1 and target.ndim == outputs.ndim - 1:
            hits = (outputs.argmax(2) == target).flatten(1)
        elif outputs.numel() != target.numel():
            return outputs.new_zeros(len(outputs))
        else:
            least = 0.0 if isinstance(self.criterion, nn.BCEWithLogitsLoss) else 0.5
            n_rows = target.shape[1]
            hits = (outputs.flatten(1) > least) == (target.flatten(1) > least)
            hits = hits.view(len(hits), n_rows, -1).all(2)
        hits = hits.to(outputs.dtype)
        return (hits if weight is None else hits * weight).mean(1)


def cross_entropy(outputs, target, weight):
    """Return the cross entropies (L,) of lanes, and their gradient (L, B, C).

    It is faster than autograd by a factor of 3. The gradient is the probabilities less 1 at the
    class, divided by the number of rows.

    Parameters
    ----------
    outputs : Tensor (L, B, C)
        Logits.
    target : LongTensor (L, B)
        Classes.
    weight : Tensor (L, B) or None
    """
    n_rows = target.shape[1]
    logs = torch.log_softmax(outputs.mT, 1)  # (L, C, B)
    picked = target.unsqueeze(1)  # (L, 1, B)
    losses = logs.gather(1, picked).squeeze(1)  # (L, B), with the opposite sign
    minus_one = logs.new_full((1, 1, 1), -1.0).expand(picked.shape)
    gradient = logs.exp_().scatter_add_(1, picked, minus_one)
    gradient.div_(n_rows)
    if weight is not None:
        losses = losses * weight
        gradient.mul_(weight.unsqueeze(1))
    return losses.sum(1).div_(-n_rows), gradient.mT
