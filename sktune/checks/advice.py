"""What to say where torch's or skorch's own message does not tell what to do."""

import sys
import warnings
from contextlib import contextmanager, suppress
from copy import deepcopy

import numpy as np
import torch
from sklearn.base import is_classifier
from skorch.exceptions import SkorchException
from torch import nn

from sktune.modules.reading import find_chain
from sktune.runtime.threads import limited_threads
from sktune.training.rows import rows_of

_OURS = ("sktune", "skorch")
# Of regression targets: the distance from which scaling is advised, and rows that do not tell it.
_HUGE = 100.0
_FEW_ROWS = 30
_OF_DISTANCES = (nn.MSELoss, nn.L1Loss, nn.SmoothL1Loss, nn.HuberLoss)
# Rows of outputs that cannot sum to 1 by chance, and those looked at before a fit is fused.
_FEWEST_ROWS = 4
_TRIED_ROWS = 16


def warn_user(message):
    """Warn at the line that calls sktune."""
    level, frame = 2, sys._getframe(1)
    while frame.f_back and frame.f_globals.get("__name__", "").partition(".")[0] in _OURS:
        level, frame = level + 1, frame.f_back
    warnings.warn(message, UserWarning, stacklevel=level)


@contextmanager
def naming_validation_rows(are_missing):
    """Say what gives a callback its validation scores, where there are no validation rows."""
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
    """Say which parameters ask for a split that cannot be made."""
    try:
        yield
    except ValueError as error:
        raise ValueError(
            f"early_stopping=True must hold validation_fraction={net.validation_fraction} of the rows out, "
            f"which {n_rows} rows do not allow ({error}): "
            "change validation_fraction, or pass early_stopping='train_loss'"
        ) from error


@contextmanager
def naming_embeddings(module):
    """Say what an embedding takes, where it gets numbers that are no integers."""
    try:
        yield
    except RuntimeError as error:
        text = str(error)
        is_meant = "'indices'" in text and "scalar types" in text
        kinds = {type(part) for part in module.modules()}
        if not is_meant or not any(
            issubclass(kind, nn.Embedding | nn.EmbeddingBag) for kind in kinds
        ):
            raise
        raise ValueError(
            "the Embedding in the module must get integers, got X of another type "
            f"({text.splitlines()[0]}): "
            "encode categories by OrdinalEncoder(dtype=int), and let all columns be integers, "
            "or call X.long() in the module's forward"
        ) from error


def warn_if_huge(target, criterion):
    """Warn where a column of regression targets is far from zero or widely spread.

    A net takes long to learn it. A few rows do not tell, and a criterion may be of counts or of shares.
    """
    kind = criterion if isinstance(criterion, type) else type(criterion)
    if len(target) < _FEW_ROWS or not issubclass(kind, _OF_DISTANCES):
        return
    # numbers whose squares are beyond their type spread infinitely
    with np.errstate(over="ignore"):
        mean = np.abs(target.mean(axis=0, dtype=np.float64)).max()
        spread = target.std(axis=0, dtype=np.float64).max()
    if max(mean, spread) > _HUGE:
        warn_user(
            "the targets y should be scaled for a network to learn well, but their mean is up to "
            f"{mean:.2g} away from 0 and their standard deviation up to {spread:.2g}: "
            "use TransformedTargetRegressor(net, transformer=StandardScaler())"
        )


def notice_outputs(net, outputs):
    """Warn where outputs of a classifier's module are certainly not what its criterion takes."""
    outputs = outputs[0] if isinstance(outputs, tuple) else outputs
    if not isinstance(outputs, torch.Tensor) or outputs.ndim < 2 or not is_classifier(net):
        return
    if len(outputs) < _FEWEST_ROWS or outputs.shape[1] < 2:
        return
    criterion, outputs = net._find_criterion(), outputs.detach().float()
    if isinstance(criterion, nn.CrossEntropyLoss) and _are_probabilities(outputs):
        warn_user(
            "a module must return logits under CrossEntropyLoss, which applies the softmax itself, "
            "but each row of its outputs sums to 1: "
            "leave the softmax out of the module, or use criterion=torch.nn.NLLLoss"
        )
    elif isinstance(criterion, nn.NLLLoss) and bool((outputs < 0).any()):
        what = "log-probabilities" if _are_probabilities(outputs.exp()) else "negative numbers"
        warn_user(
            "a module must return probabilities under NLLLoss, whose logarithm the net takes, as in skorch, "
            f"but it returns {what}: "
            "end the module in a softmax, or use criterion=torch.nn.CrossEntropyLoss"
        )


def _are_probabilities(outputs):
    sums = outputs.sum(1)
    is_within = bool((outputs >= 0).all()) and bool((outputs <= 1).all())
    return is_within and torch.allclose(sums, torch.ones_like(sums), rtol=0, atol=1e-3)


def notice_lane(lane):
    """Warn of the outputs of a net that is to be fused, as the first batch of a fit alone would."""
    is_judged = isinstance(lane.net._find_criterion(), nn.CrossEntropyLoss | nn.NLLLoss)
    if not is_judged or find_chain(lane.module) is not None:
        return
    rows, indices = rows_of(lane.train)
    few = torch.arange(min(_TRIED_ROWS, lane.batches.sizes[0]))
    X, *_ = rows.take(few if indices is None else indices[few])
    outputs = None
    # The trial in the engine, or the fit alone, will tell what is wrong with the module.
    # With one thread: a process that has started torch's own cannot be forked any more.
    quietly = suppress(Exception)
    with quietly, limited_threads(1), torch.no_grad(), torch.random.fork_rng(devices=[]):
        outputs = deepcopy(lane.module).eval()(X)
    notice_outputs(lane.net, outputs)
