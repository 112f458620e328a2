"""The cross entropy of the compiled kernels, with its gradient.

It returns the loss of a batch, and replaces the `outputs` by the gradient. These lie feature
by feature, `stride` steps apart, and are padded to whole vectors of rows. `target` and `weight` are
those of all rows of the data, of which a batch takes `rows`.
"""

import math

import numpy as np

from sktune.engine.compiled.activations.exponentials import exponential, find_largest_exponent
from sktune.engine.compiled.vectors.code import compiled, inlined
from sktune.engine.compiled.vectors.scalars import as_computed, cast, choose, multiply_add

# The distances from 1 to the next number, in float32 and in float64.
_EPSILONS = (float(np.finfo(np.float32).eps), float(np.finfo(np.float64).eps))


@compiled
def find_epsilon(values):
    """Return what skorch adds to probabilities before it takes their logarithm."""
    return cast(_EPSILONS[values.itemsize // 8], values[0])


@inlined
def _add_weights(weights):
    """Return a sum; that of Numba would be compiled for longer."""
    total = 0.0
    for i in range(len(weights)):
        total += weights[i]
    return total


@compiled
def cross_entropy(
    outputs,
    stride,
    n_classes,
    target,
    weight,
    class_weight,
    rows,
    largest_logit,
    total,
    eps,
    smoothing,
    share,
):
    """Return the loss of rows whose targets are classes; write its gradient.

    The loss of a row is ``-log(p + eps)``, where p is the softmax's probability of its class. With
    smoothing (Szegedy et al. 2016, section 7) it is that share of the mean over all classes, and
    the rest of the row's own class.

    Parameters
    ----------
    outputs : ndarray
        The logits (n_classes, n), n being the padded number of rows.
    stride, n_classes : int
    target : ndarray (n_all, 1), (n_all, 2) or (n_all, 3)
        Classes, as floating numbers. With two columns, the second is the weight of the row apart
        from that of its class. With three columns a row has two classes: the second column holds
        the other class, and the third its share of the row's weight.
    weight : ndarray (n_all,)
        Of the rows, each times that of its class.
    class_weight : ndarray (n_classes,) or (0,)
        Factors on the smoothed losses of each class; `target` has two columns then.
    rows : ndarray of int (n_rows,)
    largest_logit, total : ndarray (n,)
        Workspace.
    eps : float
        0 in the usual cross entropy.
    smoothing : float
        0 where `eps` is not.
    share : float
        What the losses of the rows are multiplied by before they are summed up.
    """
    n = len(total)
    zero = cast(0.0, total[0])
    largest = find_largest_exponent(total)
    # the shares of the row's class beyond the others, and of each class
    own = cast(1 - smoothing, zero)
    other = cast(smoothing / n_classes, zero)

    is_weighted = len(class_weight) > 0
    total_class_weight = cast(_add_weights(class_weight), zero)

    # The largest logit of each row is subtracted, so that no exponential overflows.
    for i in range(n):
        largest_logit[i] = outputs[i]
        total[i] = zero
    for c in range(1, n_classes):
        logits = outputs[c * stride : c * stride + n]
        for i in range(n):
            before = largest_logit[i]
            logit = logits[i]
            largest_logit[i] = choose(logit <= before, as_computed(before), logit)

    # The loss of a row is the log of the sum of exponentials, less the logit of its class.
    loss = zero
    if eps == zero:
        for i in range(len(rows)):
            logit = outputs[int(target[rows[i], 0]) * stride + i]
            all_weight = weight[rows[i]]
            if is_weighted:
                all_weight = own * all_weight + other * total_class_weight * target[rows[i], 1]
            loss += all_weight * largest_logit[i] - own * weight[rows[i]] * logit
    if target.shape[1] > 2:
        for i in range(len(rows)):
            logit = outputs[int(target[rows[i], 0]) * stride + i]
            other_logit = outputs[int(target[rows[i], 1]) * stride + i]
            loss += weight[rows[i]] * own * target[rows[i], 2] * (logit - other_logit)
    if smoothing > zero:
        for c in range(n_classes):
            part = other * cast(class_weight[c], zero) if is_weighted else other
            for i in range(len(rows)):
                row_weight = target[rows[i], 1] if is_weighted else weight[rows[i]]
                loss -= row_weight * part * outputs[c * stride + i]
    for c in range(n_classes):
        logits = outputs[c * stride : c * stride + n]
        for i in range(n):
            scale, rest = exponential(logits[i] - largest_logit[i], largest)
            logits[i] = multiply_add(scale, rest, scale)
            total[i] += logits[i]
    factor = largest_logit
    for i in range(len(rows)):
        all_weight = weight[rows[i]]
        if is_weighted:
            all_weight = own * all_weight + other * total_class_weight * target[rows[i], 1]
        factor[i] = all_weight * share
        if eps == zero:
            loss += all_weight * cast(math.log(total[i]), zero)
        else:
            p = outputs[int(target[rows[i], 0]) * stride + i] / total[i]
            loss -= weight[rows[i]] * cast(math.log(p + eps), zero)
            factor[i] *= p / (p + eps)
        total[i] = factor[i] / total[i]

    # The gradient of a row is its probabilities, less 1 at its class, times its factor.
    for c in range(n_classes):
        exponentials = outputs[c * stride : c * stride + n]
        for i in range(n):
            exponentials[i] *= total[i]
        if smoothing > zero:
            part = other * share * cast(class_weight[c], zero) if is_weighted else other
            for i in range(len(rows)):
                exponentials[i] -= part * (target[rows[i], 1] if is_weighted else factor[i])
    for i in range(len(rows)):
        own_factor = weight[rows[i]] * share if is_weighted else factor[i]
        outputs[int(target[rows[i], 0]) * stride + i] -= own * own_factor
    if target.shape[1] > 2:
        for i in range(len(rows)):
            moved = own * factor[i] * target[rows[i], 2]
            outputs[int(target[rows[i], 0]) * stride + i] += moved
            outputs[int(target[rows[i], 1]) * stride + i] -= moved
    return loss * share
