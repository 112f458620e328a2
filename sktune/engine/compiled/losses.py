"""Losses of the compiled kernels, each with its gradient.

Each function returns the mean loss of a batch, and replaces the `outputs` by the gradient. These
lie feature by feature, `stride` steps apart, and are padded to whole vectors of rows. `target` and
`weight` are those of all rows of the data, of which a batch takes `rows`.
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
def cross_entropy(outputs, stride, n_classes, target, weight, rows, largest_logit, total, eps):
    """Return the mean loss of rows whose targets are classes; write its gradient.

    The loss of a row is ``-log(p + eps)``, where p is the softmax's probability of its class.

    Parameters
    ----------
    outputs : ndarray
        The logits (n_classes, n), n being the padded number of rows.
    stride, n_classes : int
    target : ndarray (n_all, 1)
        Classes, as floating numbers.
    weight : ndarray (n_all,)
    rows : ndarray of int (n_rows,)
    largest_logit, total : ndarray (n,)
        Workspace.
    eps : float
        0 in the usual cross entropy.
    """
    n = len(total)
    zero = cast(0.0, total[0])
    share = cast(1 / len(rows), total[0])
    largest = find_largest_exponent(total)

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
            loss += weight[rows[i]] * (largest_logit[i] - logit)
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
    for i in range(len(rows)):
        outputs[int(target[rows[i], 0]) * stride + i] -= factor[i]
    return loss * share


@compiled
def squared_error(outputs, stride, target, weight, rows):
    """Return the mean loss of rows with targets (n_all, n_outputs); write its gradient."""
    n_outputs = target.shape[1]
    loss = cast(0.0, outputs[0])
    share = cast(1 / (len(rows) * n_outputs), outputs[0])
    for c in range(n_outputs):
        values = outputs[c * stride : c * stride + len(rows)]
        for i in range(len(rows)):
            error = values[i] - target[rows[i], c]
            loss += weight[rows[i]] * error * error
            values[i] = (error + error) * weight[rows[i]] * share
    return loss * share
