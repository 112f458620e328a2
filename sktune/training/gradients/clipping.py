"""Gradient clipping: of the gradients of one net, and of many nets at once.

A fit clips in several turns, one :class:`Clip` after the other. They come after the penalties of
`l1` and `l2`, which are part of the loss, and before the weight decay, which the optimizer adds.
"""

import math
from dataclasses import dataclass

import torch
from torch.nn.utils import clip_grad_norm_, clip_grad_value_

# What torch's `clip_grad_norm_` adds to the norm that it divides by.
EPSILON = 1e-6
# Stands for the clipping of each number by itself where a norm's type would stand.
BY_VALUE = 0.0


@dataclass(frozen=True)
class Clip:
    """One turn of gradient clipping.

    Parameters
    ----------
    limit : float
        What the norm of the gradient, or the size of each of its numbers, is limited to.
    norm_type : float
        p of the p-norm, which is taken over all parameters together, or ``BY_VALUE``.
    """

    limit: float
    norm_type: float

    @classmethod
    def by_norm(cls, limit, norm_type=2.0):
        """Return the clipping of the norm (Pascanu et al. 2013, algorithm 1)."""
        if not float(norm_type) > 0:
            raise ValueError(f"norm_type must be above 0, got norm_type={norm_type}")
        return cls(float(limit), float(norm_type))

    @classmethod
    def by_value(cls, limit):
        """Return the clipping of each number to between -`limit` and `limit`."""
        return cls(float(limit), BY_VALUE)

    @property
    def is_by_value(self):
        """Whether each number is clipped by itself."""
        return self.norm_type == BY_VALUE


def clip_gradients(parameters, clips):
    """Clip the gradients of one net in place, turn by turn, as torch does."""
    parameters = list(parameters)
    for clip in clips:
        if clip.is_by_value:
            clip_grad_value_(parameters, clip.limit)
        else:
            clip_grad_norm_(parameters, clip.limit, clip.norm_type)


class StackedClips:
    """The clipping of the gradients (L, P) of many nets, each by its own rules.

    Parameters
    ----------
    clips : list of tuple of Clip
        Of each net.
    like : Tensor
        Of the device and the type of the columns that hold a number for each net.

    Attributes
    ----------
    turns : list of tuple of (float, Tensor, Tensor)
        The norm's type, the limits (L, 1), and which nets it holds for (L, 1). Turns of various
        types follow one another; each net takes part in those that are its own.
    """

    def __init__(self, clips, like):
        self.turns = []
        for number in range(max(map(len, clips), default=0)):
            mine = [lane[number] if number < len(lane) else None for lane in clips]
            for norm_type in sorted({clip.norm_type for clip in mine if clip is not None}):
                limits = [
                    clip.limit if clip is not None and clip.norm_type == norm_type else math.nan
                    for clip in mine
                ]
                limits = torch.tensor(limits, dtype=torch.float64).unsqueeze(1)  # (L, 1)
                is_meant = ~limits.isnan()
                limits = limits.nan_to_num(nan=math.inf, posinf=math.inf)
                limits = limits.to(like.device, like.dtype)
                self.turns.append((norm_type, limits, is_meant.to(like.device)))

    def select(self, lanes):
        """Return the clipping of some nets only."""
        chosen = object.__new__(StackedClips)
        chosen.turns = [
            (norm_type, limits[lanes], is_meant[lanes])
            for norm_type, limits, is_meant in self.turns
        ]
        return chosen

    def __call__(self, gradient):
        """Clip the gradient (L, P) in place."""
        for norm_type, limits, is_meant in self.turns:
            if norm_type == BY_VALUE:
                # the limit of other nets is infinite
                limits = limits.to(gradient.dtype)
                torch.clamp(gradient, -limits, limits, out=gradient)
                continue
            norms = torch.linalg.vector_norm(gradient.to(limits.dtype), norm_type, 1, keepdim=True)
            factors = (limits / (norms + EPSILON)).clamp(max=1.0)
            gradient.mul_(factors.where(is_meant, 1.0).to(gradient.dtype))
