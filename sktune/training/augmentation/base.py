"""What augmentations have in common: parameters, their ranges, and mixup."""

import math
from numbers import Real

import numpy as np
import torch
from sklearn.base import BaseEstimator

from sktune.runtime.dtypes import wide_dtype
from sktune.training.augmentation.draws import MIXUP

# For ranges of parameters: what must hold, and how an error says it.
SHARE = (lambda v: 0 <= v <= 1, "a number between 0 and 1")
PROPER_SHARE = (lambda v: 0 <= v < 1, "a number of at least 0 and less than 1")
STRENGTH = (lambda v: 0 <= v < math.inf, "a non-negative finite number")
ANGLE = (lambda v: 0 <= v <= 180, "a number between 0 and 180")
FINITE = (lambda v: -math.inf < v < math.inf, "a finite number")


class Augmentation(BaseEstimator):
    """The base class of augmentations.

    A subclass names its parameters in `_RANGES`, with the range of each, and those among them that
    switch operations on in `_STRENGTHS`.
    """

    _RANGES = {}
    _STRENGTHS = ()

    def check(self):
        """Check the ranges of the parameters.

        Raises
        ------
        ValueError
            That states what a parameter must be, and what it is.
        """
        for name, (is_in_range, requirement) in self._RANGES.items():
            value = getattr(self, name)
            is_number = isinstance(value, Real) and not isinstance(value, bool | np.bool_)
            if not is_number or not is_in_range(value):
                raise ValueError(
                    f"augment__{name} must be {requirement}, got augment__{name}={value!r}"
                )

    def check_rows(self, shape, is_floating):
        """Check that rows of such a shape can be changed.

        Parameters
        ----------
        shape : tuple of int
            Of one row.
        is_floating : bool
            Whether the rows hold floating numbers.

        Raises
        ------
        ValueError
            If they cannot.
        """
        if not is_floating:
            raise ValueError(
                f"augment={type(self).__name__} must come with rows of floating numbers, got "
                "integers: pass X as floats, or leave augment out where all columns are embedded"
            )

    @property
    def is_off(self):
        """Whether rows stay as they are."""
        return not any(getattr(self, name) for name in self._STRENGTHS)

    @property
    def mixes_rows(self):
        """Whether a row is mixed with another one."""
        return self.mixup > 0

    def key(self):
        """Return what is equal for equal augmentations, and can be hashed."""
        return (type(self).__name__, repr(sorted(self.get_params(deep=False).items())))

    def changed_columns(self):
        """Return the columns of a table that may be changed; None is all."""
        return None

    def change(self, X, draws):
        """Return changed rows.

        Parameters
        ----------
        X : Tensor (R, ...)
            It may be written to.
        draws : Draws
            The random numbers of these rows.
        """
        raise NotImplementedError


def mix_rows(X, others, augmentation, draws, *, mixes_targets):
    """Mix each row with another one of its batch (Zhang et al. 2018, mixup).

    Parameters
    ----------
    X : Tensor (R, ...)
    others : list of Tensor
        The targets of the rows, and their weights if they have any.
    augmentation : Augmentation
        Its `mixup` is the parameter of the beta distribution that shares are drawn from.
    draws : Draws
    mixes_targets : bool
        Whether the targets are numbers, which are mixed as the rows are. Otherwise the row has two
        targets, and its loss is the mixture of two losses.

    Returns
    -------
    block : tuple of Tensor
        (X, target) or (X, target, weight) where targets are mixed: the weights are mixed as well.
        Otherwise (X, target, weight, other target, its weight): a weight is that of the row which
        the target comes from, times the row's share.
    """
    share = draws.beta(MIXUP, float(augmentation.mixup))  # (R,)
    partners = draws.partners()
    mixed = _mix(X, partners, share)
    if mixes_targets:
        return mixed, *(_mix(part, partners, share) for part in others)
    target, *weights = others
    weight = weights[0] if weights else torch.ones_like(share, dtype=wide_dtype(X.dtype))
    share = share.to(weight.dtype)
    return mixed, target, weight * share, target[partners], weight[partners] * (1 - share)


def _mix(values, partners, share):
    """Return ``share * own + (1 - share) * partner's`` for the values of rows."""
    share = share.to(values.dtype).view(-1, *(1,) * (values.ndim - 1))  # (R, 1, ...)
    return torch.lerp(values[partners], values, share)
