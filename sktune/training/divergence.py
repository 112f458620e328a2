"""Training whose loss is no longer finite."""

import math

import torch


class DivergenceError(ArithmeticError):
    """The loss of a fit is no longer finite, so that there is no fitted model."""

    @classmethod
    def at(cls, epoch, rates, what, is_regressor=False):
        """Return the error of a fit.

        Parameters
        ----------
        epoch : int
            Counted from 1.
        rates : iterable of float
            The learning rates, one for each group of parameters.
        what : str
            What is not finite, as the subject and verb of a clause.
        is_regressor : bool, default=False
            Whether to advise to scale the targets as well.
        """
        scaled = "features scaled to unit variance"
        if is_regressor:
            scaled += ", targets scaled likewise (by sklearn.compose.TransformedTargetRegressor)"
        shown_rates = ", ".join(f"{lr:.3g}" for lr in rates)
        return cls(
            f"training must stay finite, but in epoch {epoch} at lr={shown_rates} the {what}: "
            f"try a smaller lr, {scaled}, or gradient clipping"
        )


def find_infinite(named_tensors):
    """Return the name of the first floating tensor with a value that is not finite, or None.

    Parameters
    ----------
    named_tensors : iterable of (str, Tensor)
    """
    for name, tensor in named_tensors:
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            return name
    return None


def is_representable(loss, dtype=None):
    """Tell whether a loss is finite and, if a floating type is given, within its range."""
    largest = math.inf if dtype is None else torch.finfo(dtype).max
    return math.isfinite(loss) and abs(loss) <= largest
