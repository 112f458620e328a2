"""Compiled steps on augmented rows: blocks of batches that torch has changed before."""

import math

import numpy as np
import torch

from sktune.training.augmentation.callables import CallableAugmentation


def find_augmentation_blocker(augmenter, program):
    """Return why the kernels cannot train on the rows of an augmenter, or an empty string."""
    if isinstance(augmenter.augmentation, CallableAugmentation):
        return "its augmentation is a function of the user's"
    known = (program.kernels.CROSS_ENTROPY, program.kernels.BINARY_CROSS_ENTROPY)
    if augmenter.has_two_targets and program.loss.opcode not in known:
        return "its mixup gives a row two labels, which the kernels do not compare by its criterion"
    changed = augmenter.augmentation.changed_columns()
    if program.loss.class_weight is not None or program.loss.is_sum:
        return "its criterion weighs classes or sums up, which the kernels do of plain rows only"
    for column, _ in program.graph.lookups:
        if augmenter.augmentation.mixes_rows or changed is None or column in changed:
            return "its augmentation changes numbers that its embeddings look up"
    return ""


def train_blocks(trainers, steps_done, rates, batches, epoch, program):
    """Train networks that meet the same augmented batches for an epoch.

    Parameters
    ----------
    trainers : list of callable
        From :meth:`Program.bind`, one for each network.
    steps_done : list of int
        The steps that the optimizer of each network has done.
    rates : list of ndarray (n_steps,)
        The learning rates of each network.
    batches : Batches
    epoch : int
        From 0.
    program : Program
        That of the networks.

    Returns
    -------
    losses : list of list of float
        Of each network's steps, up to the first that is not finite.
    """
    losses = [[] for _ in trainers]
    for first, sizes, rows in batches.blocks(epoch):
        block = _read_block(rows, program)
        order = np.arange(sum(sizes))
        steps = slice(first, first + len(sizes))
        for number, train in enumerate(trainers):
            found = losses[number]
            if not found or math.isfinite(found[-1]):
                found += train(steps_done[number], order, rates[number], epoch, block, steps)
    return losses


def _read_block(rows, program):
    """Return augmented rows as :func:`~sktune.engine.compiled.program.read_data` does."""
    X, target, *others = rows
    X = np.ascontiguousarray(X.numpy().reshape(len(X), -1))
    target = target.to(torch.as_tensor(X[:0]).dtype).reshape(len(X), -1)
    if len(others) == 3:
        target, weight = _join_targets(target, *others, program)
    else:
        weight = others[0] if others else torch.ones(len(X), dtype=target.dtype)
    return X, target.numpy(), weight.numpy()


def _join_targets(target, weight, other, other_weight, program):
    """Return the two targets of rows as one, and the rows' weights."""
    other = other.to(target.dtype).reshape(target.shape)
    total = weight + other_weight
    share = (other_weight / total).unsqueeze(1)  # (N, 1)
    if program.loss.opcode == program.kernels.CROSS_ENTROPY:
        return torch.cat([target, other, share], 1), total
    # the binary cross entropy is linear in the target
    return torch.lerp(target, other, share), total
