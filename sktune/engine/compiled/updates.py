"""Optimizers and penalties of the compiled kernels, over flat parameters (P,)."""

import math

import numpy as np

from sktune.engine.compiled.vectors.code import compiled, inlined
from sktune.engine.compiled.vectors.scalars import as_computed, cast, choose, multiply_add

SGD = 0
ADAM = 1
RMSPROP = 2
ADAGRAD = 3
NADAM = 4
ADAMAX = 5
RADAM = 6
ADADELTA = 7
AMSGRAD = 8
CENTERED_RMSPROP = 9


@inlined
def update(rule, options, rate, t, p, g, first, second, third):
    """Take step t, from 1, of an optimizer, as :mod:`torch.optim` does.

    `options` are the weight decay, whether it is decoupled from the gradient, whether the loss is
    maximized, and those that the optimizer's ``CompiledForm`` names. `first`, `second` and `third`
    are its state.
    """
    if options[2]:
        _negate(g)
    zero = cast(0.0, p[0])
    one = cast(1.0, p[0])
    # the factor of decoupled weight decay, and the weight decay within the gradient
    keep = cast(1 - rate * options[0], p[0]) if options[1] else one
    decay = zero if options[1] else cast(options[0], p[0])
    own = options[3:]
    if rule == ADAM:
        _update_adam(own, rate, t, p, g, first, second, keep, decay)
    elif rule == AMSGRAD:
        _update_amsgrad(own, rate, t, p, g, first, second, third, keep, decay)
    elif rule == SGD:
        _update_sgd(own, rate, t, p, g, first, decay)
    elif rule == RMSPROP:
        _update_rmsprop(own, rate, p, g, first, second, decay)
    elif rule == CENTERED_RMSPROP:
        _update_centered_rmsprop(own, rate, p, g, first, second, third, decay)
    elif rule == ADAGRAD:
        _update_adagrad(own, rate, t, p, g, first, decay)
    elif rule == NADAM:
        _update_nadam(own, rate, t, p, g, first, second, third, keep, decay)
    elif rule == ADAMAX:
        _update_adamax(own, rate, t, p, g, first, second, decay)
    elif rule == RADAM:
        _update_radam(own, rate, t, p, g, first, second, keep, decay)
    elif rule == ADADELTA:
        _update_adadelta(own, rate, p, g, first, second, decay)
    else:
        raise ValueError("unknown opcode of an optimizer")
    if options[2]:
        _negate(g)


@compiled
def _negate(g):
    """Change the sign of a gradient; a second time sets it back."""
    for i in range(len(g)):
        g[i] = -g[i]


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
        x = multiply_add(decay, p[i], g[i])
        mean = multiply_add(x - exp_avg[i], fresh1, exp_avg[i])
        square = multiply_add(exp_avg_sq[i], beta2, x * x * fresh2)
        exp_avg[i] = mean
        exp_avg_sq[i] = square
        size = multiply_add(math.sqrt(square), root, eps)
        p[i] = multiply_add(p[i], keep, -step * mean / size)


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
        x = multiply_add(decay, p[i], g[i])
        square = multiply_add(square_avg[i], alpha, x * x * fresh)
        square_avg[i] = square
        buffer[i] = buffer[i] * momentum + x / (math.sqrt(square) + eps)
        p[i] = multiply_add(-step, buffer[i], p[i])


@compiled
def _update_adagrad(options, rate, t, p, g, squares, decay):
    """Take a step of Adagrad (Duchi et al. 2011)."""
    like = p[0]
    step = cast(rate / (1 + (t - 1) * options[0]), like)
    eps = cast(options[1], like)
    for i in range(len(p)):
        x = multiply_add(decay, p[i], g[i])
        squares[i] += x * x
        p[i] -= step * x / (math.sqrt(squares[i]) + eps)


@compiled
def _update_amsgrad(options, rate, t, p, g, exp_avg, exp_avg_sq, largest, keep, decay):
    """Take a step of AMSGrad (Reddi et al. 2018, algorithm 2), as torch has it in Adam."""
    like = p[0]
    fresh1 = cast(1 - options[0], like)
    beta2 = cast(options[1], like)
    fresh2 = cast(1 - options[1], like)
    eps = cast(options[2], like)
    step = cast(rate / (1 - options[0] ** t), like)
    root = cast(1 / math.sqrt(1 - options[1] ** t), like)
    for i in range(len(p)):
        x = multiply_add(decay, p[i], g[i])
        mean = multiply_add(x - exp_avg[i], fresh1, exp_avg[i])
        square = multiply_add(exp_avg_sq[i], beta2, x * x * fresh2)
        exp_avg[i] = mean
        exp_avg_sq[i] = square
        # what is not a number stays so
        before = largest[i]
        square = choose(square < before, as_computed(before), square)
        largest[i] = square
        size = multiply_add(math.sqrt(square), root, eps)
        p[i] = multiply_add(p[i], keep, -step * mean / size)


@compiled
def _update_nadam(options, rate, t, p, g, exp_avg, exp_avg_sq, mu_product, keep, decay):
    """Take a step of NAdam (Dozat 2016), with torch's schedule of the momentum."""
    like = p[0]
    fresh1 = cast(1 - options[0], like)
    beta2 = cast(options[1], like)
    fresh2 = cast(1 - options[1], like)
    eps = cast(options[2], like)
    mu = options[0] * (1 - 0.5 * 0.96 ** (t * options[3]))
    mu_next = options[0] * (1 - 0.5 * 0.96 ** ((t + 1) * options[3]))
    # torch keeps the product in float32
    for i in range(len(mu_product)):
        mu_product[i] = cast(np.float32(mu_product[i]) * np.float32(mu), like)
    product = np.float64(mu_product[0])
    of_gradient = cast(rate * (1 - mu) / (1 - product), like)
    of_mean = cast(rate * mu_next / (1 - product * mu_next), like)
    unbias = cast(1 / (1 - options[1] ** t), like)
    for i in range(len(p)):
        x = multiply_add(decay, p[i], g[i])
        mean = multiply_add(x - exp_avg[i], fresh1, exp_avg[i])
        square = multiply_add(exp_avg_sq[i], beta2, x * x * fresh2)
        exp_avg[i] = mean
        exp_avg_sq[i] = square
        step = multiply_add(of_gradient, x, of_mean * mean)
        p[i] = multiply_add(p[i], keep, -step / (math.sqrt(square * unbias) + eps))


@compiled
def _update_adamax(options, rate, t, p, g, exp_avg, exp_inf, decay):
    """Take a step of Adamax (Kingma and Ba 2015, algorithm 2)."""
    like = p[0]
    fresh1 = cast(1 - options[0], like)
    beta2 = cast(options[1], like)
    eps = cast(options[2], like)
    step = cast(rate / (1 - options[0] ** t), like)
    for i in range(len(p)):
        x = multiply_add(decay, p[i], g[i])
        mean = multiply_add(x - exp_avg[i], fresh1, exp_avg[i])
        exp_avg[i] = mean
        faded = exp_inf[i] * beta2
        size = abs(x) + eps
        largest = choose(size < faded, faded, size)
        exp_inf[i] = largest
        p[i] -= step * mean / largest


@compiled
def _update_radam(options, rate, t, p, g, exp_avg, exp_avg_sq, keep, decay):
    """Take a step of RAdam (Liu et al. 2020, algorithm 2), with torch's bound on the length."""
    like = p[0]
    fresh1 = cast(1 - options[0], like)
    beta2 = cast(options[1], like)
    fresh2 = cast(1 - options[1], like)
    eps = cast(options[2], like)
    unbias = 1 - options[1] ** t
    longest = 2 / (1 - options[1]) - 1
    length = longest - 2 * t * options[1] ** t / unbias
    is_adaptive = length > 5
    step = rate / (1 - options[0] ** t)
    if is_adaptive:
        share = (length - 4) * (length - 2) * longest / ((longest - 4) * (longest - 2) * length)
        step *= math.sqrt(share * unbias)
    step = cast(step, like)
    one = cast(1.0, like)
    for i in range(len(p)):
        x = multiply_add(decay, p[i], g[i])
        mean = multiply_add(x - exp_avg[i], fresh1, exp_avg[i])
        square = multiply_add(exp_avg_sq[i], beta2, x * x * fresh2)
        exp_avg[i] = mean
        exp_avg_sq[i] = square
        size = math.sqrt(square) + eps if is_adaptive else one
        p[i] = multiply_add(p[i], keep, -step * mean / size)


@compiled
def _update_adadelta(options, rate, p, g, square_avg, acc_delta, decay):
    """Take a step of Adadelta (Zeiler 2012, algorithm 1)."""
    like = p[0]
    rho = cast(options[0], like)
    fresh = cast(1 - options[0], like)
    eps = cast(options[1], like)
    step = cast(rate, like)
    for i in range(len(p)):
        x = multiply_add(decay, p[i], g[i])
        square = multiply_add(square_avg[i], rho, x * x * fresh)
        square_avg[i] = square
        delta = math.sqrt(acc_delta[i] + eps) / math.sqrt(square + eps) * x
        acc_delta[i] = multiply_add(acc_delta[i], rho, delta * delta * fresh)
        p[i] = multiply_add(-step, delta, p[i])


@compiled
def _update_centered_rmsprop(options, rate, p, g, square_avg, buffer, grad_avg, decay):
    """Take a step of RMSprop that divides by the deviation (Graves 2013, section 2.1)."""
    like = p[0]
    alpha = cast(options[0], like)
    fresh = cast(1 - options[0], like)
    eps = cast(options[1], like)
    momentum = cast(options[2], like)
    step = cast(rate, like)
    for i in range(len(p)):
        x = multiply_add(decay, p[i], g[i])
        square = multiply_add(square_avg[i], alpha, x * x * fresh)
        mean = multiply_add(x - grad_avg[i], fresh, grad_avg[i])
        square_avg[i] = square
        grad_avg[i] = mean
        buffer[i] = buffer[i] * momentum + x / (math.sqrt(square - mean * mean) + eps)
        p[i] = multiply_add(-step, buffer[i], p[i])
