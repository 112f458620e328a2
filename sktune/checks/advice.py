"""Errors and warnings that say what to do, where those of torch or skorch do not."""

import sys
import warnings
from contextlib import contextmanager, suppress
from copy import deepcopy

import numpy as np
import torch
from sklearn.base import is_classifier
from skorch.exceptions import SkorchException
from torch import nn

from sktune.modules.reading import find_sequence, has_embedding
from sktune.runtime.threads import limited_threads
from sktune.training.losses import is_of
from sktune.training.rows import rows_of

# Packages in which a warning does not show a line.
_SKIPPED_PACKAGES = ("sktune", "skorch")
# Regression targets are to be scaled if their mean or standard deviation is above this.
_HUGE = 100.0
# Fewer targets than these do not tell it.
_FEWEST_TARGETS = 30
# The criteria for which it is told.
_DISTANCES = (nn.MSELoss, nn.L1Loss, nn.SmoothL1Loss, nn.HuberLoss)
# The outputs of fewer rows than these may sum to 1 by chance.
_FEWEST_OUTPUTS = 4
# How many rows are evaluated before a fit is fused.
_TRIED_ROWS = 16


def warn_user(message):
    """Warn at the user's line that calls sktune."""
    level = 2
    frame = sys._getframe(1)
    while frame.f_back is not None and _find_package(frame) in _SKIPPED_PACKAGES:
        level += 1
        frame = frame.f_back
    warnings.warn(message, UserWarning, stacklevel=level)


def _find_package(frame):
    """Return the name of the top package whose code a frame runs."""
    return frame.f_globals.get("__name__", "").partition(".")[0]


@contextmanager
def naming_validation_rows(are_missing):
    """Raise an error about validation rows where a callback looks for validation scores.

    `are_missing` tells whether the fit has no validation rows.
    """
    try:
        yield
    except (KeyError, ValueError, SkorchException) as error:
        if not are_missing or "valid" not in str(error):
            raise
        raise ValueError(
            "callbacks that look at validation scores must come with rows to validate on, got none "
            f"({error}): pass train_split=ValidSplit(5) or early_stopping=True, "
            "or monitor 'train_loss'"
        ) from error


@contextmanager
def naming_held_out_rows(net, n_rows):
    """Raise an error that names the parameters which ask for a split that cannot be made."""
    try:
        yield
    except ValueError as error:
        raise ValueError(
            f"early_stopping=True must hold validation_fraction={net.validation_fraction} of the "
            f"rows out, which {n_rows} rows do not allow ({error}): "
            "change validation_fraction, or pass early_stopping='train_loss'"
        ) from error


@contextmanager
def naming_embeddings(module):
    """Raise an error about integers where an embedding gets other numbers."""
    try:
        yield
    except RuntimeError as error:
        text = str(error)
        is_about_type = "'indices'" in text and "scalar types" in text
        if not is_about_type or not has_embedding(module):
            raise
        raise ValueError(
            "the Embedding in the module must get integers, got X of another type "
            f"({text.splitlines()[0]}): "
            "encode categories by OrdinalEncoder(dtype=int), and let all columns be integers, "
            "or call X.long() in the module's forward"
        ) from error


def warn_if_huge(target, criterion):
    """Warn where a column of regression targets is far from zero or widely spread.

    A net takes long to learn such targets. Criteria for counts or shares are left out.

    Parameters
    ----------
    target : ndarray (n_rows, n_targets)
    criterion : class or instance
    """
    if len(target) < _FEWEST_TARGETS or not is_of(criterion, _DISTANCES):
        return
    # Numbers whose squares are beyond float64 have an infinite deviation.
    with np.errstate(over="ignore"):
        mean = np.abs(target.mean(axis=0, dtype=np.float64)).max()
        deviation = target.std(axis=0, dtype=np.float64).max()
    if max(mean, deviation) > _HUGE:
        warn_user(
            "the targets y should be scaled for a network to learn well, but their mean is up to "
            f"{mean:.2g} away from 0 and their standard deviation up to {deviation:.2g}: "
            "use TransformedTargetRegressor(net, transformer=StandardScaler())"
        )


def notice_outputs(net, outputs):
    """Warn where outputs of a classifier's module are certainly not what its criterion takes.

    Parameters
    ----------
    net : NetworkEstimator
    outputs : Tensor (n_rows, n_classes, ...), or a tuple that begins with it
        Outputs of any other type are not judged.
    """
    scores = outputs[0] if isinstance(outputs, tuple) else outputs
    if not isinstance(scores, torch.Tensor) or scores.ndim < 2 or not is_classifier(net):
        return
    if len(scores) < _FEWEST_OUTPUTS or scores.shape[1] < 2:
        return
    _warn_of_scores(scores.detach().float(), net._find_criterion())


def _warn_of_scores(scores, criterion):
    """Warn of probabilities in place of logits, and of other numbers in place of probabilities."""
    if isinstance(criterion, nn.CrossEntropyLoss) and _are_probabilities(scores):
        warn_user(
            "a module must return logits under CrossEntropyLoss, which applies the softmax itself, "
            "but each row of its outputs sums to 1: "
            "leave the softmax out of the module, or use criterion=torch.nn.NLLLoss"
        )
    elif isinstance(criterion, nn.NLLLoss) and bool((scores < 0).any()):
        are_logarithms = _are_probabilities(scores.exp())
        what = "log-probabilities" if are_logarithms else "negative numbers"
        warn_user(
            "a module must return probabilities under NLLLoss, whose logarithm the net takes, "
            f"as in skorch, but it returns {what}: "
            "end the module in a softmax, or use criterion=torch.nn.CrossEntropyLoss"
        )


def _are_probabilities(scores):
    """Tell whether scores (n_rows, n_classes, ...) are in [0, 1] and sum to 1 over the classes."""
    sums = scores.sum(1)
    is_within = bool((scores >= 0).all()) and bool((scores <= 1).all())
    return is_within and torch.allclose(sums, torch.ones_like(sums), rtol=0, atol=1e-3)


def notice_lane(lane):
    """Warn of the outputs of a net that is to be fused, as a single fit does in its first batch."""
    is_judged = isinstance(lane.net._find_criterion(), nn.CrossEntropyLoss | nn.NLLLoss)
    if not is_judged or find_sequence(lane.module) is not None:
        return
    rows, indices = rows_of(lane.train)
    positions = torch.arange(min(_TRIED_ROWS, lane.batches.sizes[0]))
    X, *_ = rows.take(positions if indices is None else indices[positions])
    outputs = None
    # What is wrong with the module shows in the engine's trial, or in the single fit.
    ignoring_errors = suppress(Exception)
    # A process in which torch has started its threads cannot be forked any more.
    one_thread = limited_threads(1)
    with ignoring_errors, one_thread, torch.no_grad(), torch.random.fork_rng(devices=[]):
        outputs = deepcopy(lane.module).eval()(X)
    notice_outputs(lane.net, outputs)
