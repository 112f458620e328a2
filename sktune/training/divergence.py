"""Training that leaves the finite numbers."""

import math

import torch


class DivergenceError(ArithmeticError):
    """Training has left the finite numbers; there is no model to speak of."""

    @classmethod
    def at(cls, epoch, rates, what, is_regressor=False):
        """Say in which epoch (from 1) and at which learning rates it happened, and what to try."""
        scaled = "features scaled to unit variance"
        if is_regressor:
            scaled += ", targets scaled likewise (by sklearn.compose.TransformedTargetRegressor)"
        return cls(
            f"training must stay finite, but in epoch {epoch} at lr={', '.join(f'{lr:.3g}' for lr in rates)} the "
            f"{what}: try a smaller lr, {scaled}, or gradient clipping"
        )


def is_representable(loss, dtype=None):
    """Tell whether a loss is finite; and, if a floating type is given, no larger than its numbers."""
    largest = math.inf if dtype is None else torch.finfo(dtype).max
    return math.isfinite(loss) and abs(loss) <= largest
