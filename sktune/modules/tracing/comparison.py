"""The proof that a chain computes what its module does: one step of both, on random rows."""

from copy import deepcopy

import torch
from torch import nn

from sktune.modules.dropout import dropout_layers
from sktune.modules.tracing.links import open_layers
from sktune.modules.tracing.operations import Unreadable

_N_ROWS = 5


def compare(module, links):
    """Raise unless a chain has the outputs and gradients of its module on random rows."""
    first = next(
        layer for layer in open_layers(module, links).values() if isinstance(layer, nn.Linear)
    )
    X = torch.randn(_N_ROWS, first.in_features, generator=torch.Generator().manual_seed(0))
    X = X.to(first.weight.device, first.weight.dtype)
    for training in (True, False):
        ours = deepcopy(module).train(training)
        theirs = deepcopy(module).train(training)
        found = _run(ours, open_layers(ours, links).values(), X.clone())
        expected = _run(theirs, [theirs], X.clone())
        for one, other in zip(found, expected, strict=True):
            if not _agree(one, other):
                raise Unreadable("its forward computes something else than its layers tell")


def _run(module, layers, X):
    """Return the outputs of layers one after the other, and the gradients of the parameters."""
    for layer in dropout_layers(module):
        # the same masks for the chain and for the module
        layer.step = None
        layer.own_masks = None
    for layer in layers:
        X = layer(X)
    # any function of the outputs that treats no two of them alike
    weights = torch.linspace(0.5, 1.5, X.numel(), device=X.device, dtype=X.dtype).view_as(X)
    gradients = torch.autograd.grad((X * weights).sum(), list(module.parameters()))
    return [X.detach(), *gradients]


def _agree(one, other):
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    bound = torch.finfo(other.dtype).eps ** 0.5 * float(other.abs().max()) + 1e-30
    return bool(((one - other).abs() <= bound).all())
