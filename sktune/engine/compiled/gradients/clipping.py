"""Gradient clipping of the compiled kernels, as torch clips."""

import math

import numpy as np

from sktune.engine.compiled.vectors.code import compiled
from sktune.engine.compiled.vectors.scalars import cast
from sktune.engine.compiled.vectors.sums import add_wide_sizes, add_wide_squares
from sktune.training.gradients.clipping import BY_VALUE, EPSILON


@compiled
def clip(turns, gradient):
    """Clip a gradient (P,) in place.

    `turns` holds two numbers for each turn: the type of the norm, and the limit.
    """
    for turn in range(0, len(turns), 2):
        norm_type = turns[turn]
        limit = turns[turn + 1]
        if norm_type == BY_VALUE:
            _clip_values(gradient, cast(limit, gradient[0]))
        else:
            factor = limit / (_find_norm(gradient, norm_type) + EPSILON)
            # not a number stays what it is
            if not factor >= 1:
                _scale(gradient, cast(factor, gradient[0]))


@compiled
def _clip_values(gradient, limit):
    for i in range(len(gradient)):
        x = gradient[i]
        x = limit if x > limit else x
        gradient[i] = -limit if x < -limit else x


@compiled
def _scale(gradient, factor):
    for i in range(len(gradient)):
        gradient[i] *= factor


@compiled
def _find_norm(gradient, norm_type):
    """Return the p-norm of a gradient, in float64."""
    if norm_type == 2.0:
        return math.sqrt(add_wide_squares((gradient,), (), len(gradient)))
    if norm_type == 1.0:
        return add_wide_sizes((gradient,), (), len(gradient))
    if norm_type == np.inf:
        return _find_largest(gradient)
    total = 0.0
    for i in range(len(gradient)):
        total += abs(np.float64(gradient[i])) ** norm_type
    return total ** (1 / norm_type)


@compiled
def _find_largest(gradient):
    largest = 0.0
    for i in range(len(gradient)):
        size = abs(np.float64(gradient[i]))
        # the largest is not a number if one of them is none
        if not size <= largest:
            largest = size
            if size != size:
                return size
    return largest
