"""Optimizers: a step over a tile of parameters, as torch takes it."""

import triton
import triton.language as tl

from sktune.engine.steps.launched import layout

SGD = tl.constexpr(0)
ADAM = tl.constexpr(1)
RMSPROP = tl.constexpr(2)
ADAGRAD = tl.constexpr(3)
_DECAY = tl.constexpr(layout.DECAY)
_L1 = tl.constexpr(layout.L1)
_L2 = tl.constexpr(layout.L2)
_OPTION = tl.constexpr(layout.OPTION)


@triton.jit
def update(
    flat,
    first,
    second,
    at,
    is_there,
    gradient,
    lane,
    numbers,
    RULE: tl.constexpr,
    NESTEROV: tl.constexpr,
    PENALIZED: tl.constexpr,
):
    """Change some parameters by their gradient; return the penalty on them as they were.

    Parameters
    ----------
    flat, first, second : pointer
        The parameters of the lane, and up to two tensors of its optimizer's state.
    at : block of int
        Where the parameters stand in these.
    is_there : block of bool
    gradient : block
    lane, numbers : pointer
        The columns of the lane and of the step, see :mod:`sktune.engine.steps.launched.layout`.
    PENALIZED : bool
        Whether the penalties l1 and l2 are meant for these parameters.
    """
    dtype: tl.constexpr = flat.dtype.element_ty
    p = tl.load(flat + at, is_there, other=0.0)
    penalty = tl.full((), 0.0, dtype)
    if PENALIZED:
        l1 = tl.load(lane + _L1)
        l2 = tl.load(lane + _L2)
        sign = tl.where(p > 0, 1.0, tl.where(p < 0, -1.0, 0.0)).to(dtype)
        gradient += l1 * sign + 2 * l2 * p
        # the sums may be infinite, where a strength of 0 must not make NaN
        if l1 > 0:
            penalty += l1 * tl.sum(tl.abs(p))
        if l2 > 0:
            penalty += l2 * tl.sum(p * p)
    gradient += tl.load(lane + _DECAY) * p
    rate = tl.load(numbers)
    one = tl.load(lane + _OPTION)
    two = tl.load(lane + _OPTION + 1)
    three = tl.load(lane + _OPTION + 2)
    four = tl.load(lane + _OPTION + 3)
    state = tl.load(first + at, is_there, other=0.0)
    if RULE == ADAM:
        # Kingma and Ba 2015, algorithm 1; 1 - beta1, beta2, 1 - beta2 and eps
        root = tl.load(numbers + 1)
        keep = tl.load(numbers + 2)
        square = tl.load(second + at, is_there, other=0.0)
        state += (gradient - state) * one
        square = square * two + gradient * gradient * three
        p = p * keep - rate * state / (tl.sqrt(square) * root + four)
        tl.store(second + at, square, is_there)
    elif RULE == SGD:
        # Sutskever et al. 2013; the momentum, and the share of the gradient that is not damped
        fresh = tl.load(numbers + 1)
        state = state * one + gradient * fresh
        if NESTEROV:
            p -= rate * (gradient + one * state)
        else:
            p -= rate * state
    elif RULE == RMSPROP:
        # Tieleman and Hinton 2012; alpha, 1 - alpha, eps and the momentum
        buffer = tl.load(second + at, is_there, other=0.0)
        state = state * one + gradient * gradient * two
        buffer = buffer * four + gradient / (tl.sqrt(state) + three)
        p -= rate * buffer
        tl.store(second + at, buffer, is_there)
    else:
        # Duchi et al. 2011; eps
        tl.static_assert(RULE == ADAGRAD)
        state += gradient * gradient
        p -= rate * gradient / (tl.sqrt(state) + one)
    tl.store(first + at, state, is_there)
    tl.store(flat + at, p, is_there)
    return penalty
