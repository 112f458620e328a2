"""The losses of recorded steps, and their gradients."""

import torch


class AnyLosses:
    """The losses of any criterion, step by step.

    Parameters
    ----------
    loss : StackedLoss
    target : Tensor (n_steps, L, B, ...)
    weight : Tensor (n_steps, L, B) or None
    """

    def __init__(self, loss, target, weight):
        self.loss = loss
        self.target = target
        self.weight = weight
        self.found = []

    def gradient(self, step, outputs):
        """Return the gradient of the losses of a step with respect to the outputs (L, B, ...)."""
        weight = None if self.weight is None else self.weight[step]
        losses, gradient = self.loss(outputs, self.target[step], weight)
        self.found.append(losses)
        return gradient

    def losses(self):
        """Return the losses of all steps (n_steps, L)."""
        return torch.stack(self.found)


class CrossEntropies:
    """Cross entropies, with three kernels in each step.

    What does not depend on the outputs is computed for all steps at once: minus the weights of the
    rows at their classes, 0 elsewhere, is the gradient with respect to the logarithms of the
    probabilities.

    Parameters
    ----------
    target : LongTensor (n_steps, L, B)
    weight : Tensor (n_steps, L, B) or None
    """

    def __init__(self, target, weight):
        self.index = target.unsqueeze(3)  # (n_steps, L, B, 1)
        self.n_rows = target.shape[2]
        self.weight = weight
        self.gradients = None

    def gradient(self, step, outputs):
        """Return the gradient of the losses of a step with respect to the outputs (L, B, C)."""
        logs = torch.log_softmax(outputs, 2)
        if self.gradients is None:
            self._prepare(logs)
        torch.gather(logs, 2, self.index[step], out=self.picked[step])
        return torch.ops.aten._log_softmax_backward_data(self.gradients[step], logs, 2, logs.dtype)

    def _prepare(self, logs):
        shape = (*self.index.shape[:3], logs.shape[2])  # (n_steps, L, B, C)
        self.gradients = torch.zeros(shape, dtype=logs.dtype, device=logs.device)
        if self.weight is None:
            self.gradients.scatter_(3, self.index, -1 / self.n_rows)
        else:
            factors = (self.weight / -self.n_rows).to(logs.dtype).unsqueeze(3)
            self.gradients.scatter_(3, self.index, factors)
        self.picked = torch.empty(self.index.shape, dtype=logs.dtype, device=logs.device)

    def losses(self):
        """Return the losses of all steps (n_steps, L)."""
        picked = self.picked.squeeze(3)
        if self.weight is not None:
            picked = picked * self.weight
        return picked.sum(2).div_(-self.n_rows)
