"""Compiled steps on augmented rows: blocks of batches that torch has changed before."""

import math

import numpy as np
import torch

from sktune.training.augmentation.callables import CallableAugmentation


def find_augmentation_blocker(augmenter, program):
    """Return why the kernels cannot train on the rows of an augmenter, or an empty string."""
    if isinstance(augmenter.augmentation, CallableAugmentation):
        return "its augmentation is a function of the user's"
    if augmenter.has_two_targets:
        return "its mixup gives a row two labels"
    changed = augmenter.augmentation.changed_columns()
    for column, _ in program.graph.lookups:
        if augmenter.augmentation.mixes_rows or changed is None or column in changed:
            return "its augmentation changes numbers that its embeddings look up"
    return ""


def train_blocks(trainers, steps_done, rates, batches, epoch, dtype):
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
    dtype : numpy.dtype
        The type of the networks' parameters.

    Returns
    -------
    losses : list of list of float
        Of each network's steps, up to the first that is not finite.
    """
    losses = [[] for _ in trainers]
    for first, sizes, rows in batches.blocks(epoch):
        block = _read_block(rows, dtype)
        order = np.arange(sum(sizes))
        steps = slice(first, first + len(sizes))
        for number, train in enumerate(trainers):
            found = losses[number]
            if not found or math.isfinite(found[-1]):
                found += train(steps_done[number], order, rates[number], epoch, block, steps)
    return losses


def _read_block(rows, dtype):
    """Return augmented rows as :func:`~sktune.engine.compiled.program.read_data` does."""
    X, target, *weights = rows
    X = np.ascontiguousarray(X.numpy(), dtype=dtype)
    target = target.to(torch.as_tensor(X[:0]).dtype).reshape(len(X), -1).numpy()
    weight = weights[0].numpy() if weights else np.ones(len(X), X.dtype)
    return X, target, weight
