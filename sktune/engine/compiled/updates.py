"""Optimizers and penalties of the compiled kernels, over flat parameters (P,)."""

import math

import numpy as np
from numba import njit

from sktune.engine.compiled.opcodes import FIRST_OPERATION, N_PENALIZED, OPCODE, WEIGHT
from sktune.engine.compiled.vectors import OPTIONS, cast, compiled, inlined

# A sum that is taken in any order.
_sum = njit(fastmath={"contract", "reassoc", "nsz"}, **OPTIONS)

SGD = 0
ADAM = 1
RMSPROP = 2
ADAGRAD = 3


@inlined
def update(rule, options, rate, t, p, g, first, second):
    """Take step t, from 1, of an optimizer, as :mod:`torch.optim` does.

    `options` are the weight decay, whether it is decoupled from the gradient, and those that the
    optimizer's ``CompiledForm`` names. `first` and `second` are its state.
    """
    zero = cast(0.0, p[0])
    one = cast(1.0, p[0])
    # the factor of decoupled weight decay, and the weight decay within the gradient
    keep = cast(1 - rate * options[0], p[0]) if options[1] else one
    decay = zero if options[1] else cast(options[0], p[0])
    if rule == ADAM:
        _update_adam(options[2:5], rate, t, p, g, first, second, keep, decay)
    elif rule == SGD:
        _update_sgd(options[2:5], rate, t, p, g, first, decay)
    elif rule == RMSPROP:
        _update_rmsprop(options[2:5], rate, p, g, first, second, decay)
    elif rule == ADAGRAD:
        _update_adagrad(options[2:4], rate, t, p, g, first, decay)
    else:
        raise ValueError("unknown opcode of an optimizer")


@compiled
def _update_adam(options, rate, t, p, g, exp_avg, exp_avg_sq, keep, decay):
    """Take a step of Adam (Kingma and Ba 2015, algorithm 1) or AdamW."""
    like = p[0]
    # 1 - beta is taken in float64: in float32 it would have few digits
    fresh1 = cast(1 - options[0], like)
    beta2 = cast(options[1], like)
    fresh2 = cast(1 - options[1], like)
    eps = cast(options[2], like)
    step = cast(rate / (1 - options[0] ** t), like)
    root = cast(1 / math.sqrt(1 - options[1] ** t), like)
    for i in range(len(p)):
        x = g[i] + decay * p[i]
        mean = exp_avg[i] + (x - exp_avg[i]) * fresh1
        square = exp_avg_sq[i] * beta2 + x * x * fresh2
        exp_avg[i] = mean
        exp_avg_sq[i] = square
        p[i] = p[i] * keep - step * mean / (math.sqrt(square) * root + eps)


@compiled
def _update_sgd(options, rate, t, p, g, buffer, decay):
    """Take a step of SGD with momentum (Sutskever et al. 2013)."""
    like = p[0]
    momentum = cast(options[0], like)
    # the buffer begins with the first gradient, undamped; without momentum nothing is damped
    is_damped = t > 1 and momentum != 0
    fresh = cast(1 - options[1], like) if is_damped else cast(1.0, like)
    is_nesterov = options[2] != 0
    step = cast(rate, like)
    for i in range(len(p)):
        x = g[i] + decay * p[i]
        buffer[i] = buffer[i] * momentum + x * fresh
        p[i] -= step * (x + momentum * buffer[i] if is_nesterov else buffer[i])


@compiled
def _update_rmsprop(options, rate, p, g, square_avg, buffer, decay):
    """Take a step of RMSprop (Tieleman and Hinton 2012), with torch's momentum."""
    like = p[0]
    alpha = cast(options[0], like)
    # taken in float64: in float32 it would have few digits
    fresh = cast(1 - options[0], like)
    eps = cast(options[1], like)
    momentum = cast(options[2], like)
    step = cast(rate, like)
    for i in range(len(p)):
        x = g[i] + decay * p[i]
        square = square_avg[i] * alpha + x * x * fresh
        square_avg[i] = square
        buffer[i] = buffer[i] * momentum + x / (math.sqrt(square) + eps)
        p[i] -= step * buffer[i]


@compiled
def _update_adagrad(options, rate, t, p, g, squares, decay):
    """Take a step of Adagrad (Duchi et al. 2011)."""
    like = p[0]
    step = cast(rate / (1 + (t - 1) * options[0]), like)
    eps = cast(options[1], like)
    for i in range(len(p)):
        x = g[i] + decay * p[i]
        squares[i] += x * x
        p[i] -= step * x / (math.sqrt(squares[i]) + eps)


@_sum
def penalize(links, flat, gradient, l1, l2):
    """Add the gradient of the penalties on all weights; return the penalties."""
    absolute = cast(0.0, flat[0])
    squares = cast(0.0, flat[0])
    for link in range(len(links)):
        if links[link, OPCODE] >= FIRST_OPERATION and links[link, N_PENALIZED] > 0:
            start = links[link, WEIGHT]
            stop = start + links[link, N_PENALIZED]
            w = flat[start:stop]
            g = gradient[start:stop]
            for i in range(len(w)):
                absolute += abs(w[i])
                squares += w[i] * w[i]
                g[i] += l1 * np.sign(w[i]) + (l2 + l2) * w[i]
    # Where a penalty is 0, its sum may be infinite.
    l1_penalty = l1 * absolute if l1 > 0 else l1
    l2_penalty = l2 * squares if l2 > 0 else l2
    return l1_penalty + l2_penalty
