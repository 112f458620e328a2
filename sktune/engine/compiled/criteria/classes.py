"""The cross entropy of the compiled kernels, with its gradient.

It returns the loss of a batch, and replaces the `outputs` by the gradient. These lie feature
by feature, `stride` steps apart, and are padded to whole vectors of rows. `target` and `weight` are
those of all rows of the data, of which a batch takes `rows`.
"""

import math

import numpy as np

from sktune.engine.compiled.activations import exponential, find_largest_exponent
from sktune.engine.compiled.vectors import cast, compiled

# The distances from 1 to the next number, in float32 and in float64.
_EPSILONS = (float(np.finfo(np.float32).eps), float(np.finfo(np.float64).eps))


@compiled
def find_epsilon(values):
    """Return what skorch adds to probabilities before it takes their logarithm."""
    return cast(_EPSILONS[values.itemsize // 8], values[0])


@compiled
def cross_entropy(
    outputs, stride, n_classes, target, weight, rows, largest_logit, total, eps, smoothing, share
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
    target : ndarray (n_all, 1) or (n_all, 3)
        Classes, as floating numbers. With three columns a row has two classes: the second column
        holds the other class, and the third its share of the row's weight.
    weight : ndarray (n_all,)
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

    # The largest logit of each row is subtracted, so that no exponential overflows.
    for i in range(n):
        largest_logit[i] = outputs[i]
        total[i] = zero
    for c in range(1, n_classes):
        logits = outputs[c * stride : c * stride + n]
        for i in range(n):
            is_lower = logits[i] <= largest_logit[i]
            largest_logit[i] = largest_logit[i] if is_lower else logits[i]

    # The loss of a row is the log of the sum of exponentials, less the logit of its class.
    loss = zero
    if eps == zero:
        for i in range(len(rows)):
            logit = outputs[int(target[rows[i], 0]) * stride + i]
            loss += weight[rows[i]] * (largest_logit[i] - own * logit)
    if target.shape[1] > 1:
        for i in range(len(rows)):
            logit = outputs[int(target[rows[i], 0]) * stride + i]
            other_logit = outputs[int(target[rows[i], 1]) * stride + i]
            loss += weight[rows[i]] * own * target[rows[i], 2] * (logit - other_logit)
    if smoothing > zero:
        for c in range(n_classes):
            for i in range(len(rows)):
                loss -= weight[rows[i]] * other * outputs[c * stride + i]
    for c in range(n_classes):
        logits = outputs[c * stride : c * stride + n]
        for i in range(n):
            scale, rest = exponential(logits[i] - largest_logit[i], largest)
            logits[i] = scale + scale * rest
            total[i] += logits[i]
    factor = largest_logit
    for i in range(len(rows)):
        factor[i] = weight[rows[i]] * share
        if eps == zero:
            loss += weight[rows[i]] * cast(math.log(total[i]), zero)
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
            for i in range(len(rows)):
                exponentials[i] -= other * factor[i]
    for i in range(len(rows)):
        outputs[int(target[rows[i], 0]) * stride + i] -= own * factor[i]
    if target.shape[1] > 1:
        for i in range(len(rows)):
            moved = own * factor[i] * target[rows[i], 2]
            outputs[int(target[rows[i], 0]) * stride + i] += moved
            outputs[int(target[rows[i], 1]) * stride + i] -= moved
    return loss * share
