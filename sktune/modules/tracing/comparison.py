"""The proof that links compute what their module does: one step of both, on random rows."""

import math
from copy import deepcopy

import torch
from torch import nn

from sktune.modules.dropout import MaskStream, dropout_layers
from sktune.modules.function_masks import FunctionMasks
from sktune.modules.tracing.links import FunctionDropout, Lookup, compute, open_links
from sktune.modules.tracing.operations import Unreadable

_N_ROWS = 5
# Rounding errors, in units of the last place of the largest gradient, that are no difference: the
# gradient of a bias before batch normalisation is nothing else.
_NOISE = 64


def compare(module, links, shape, *, takes_integers=False):
    """Raise unless links have the outputs, gradients and buffers of their module on random rows."""
    X = _draw_rows(module, links, math.prod(shape), takes_integers)
    for training in (True, False):
        ours = deepcopy(module).train(training)
        theirs = deepcopy(module).train(training)
        opened = open_links(ours, links)
        if not training:
            opened = [_without_function(link) for link in opened]
        found = _run(ours, lambda X, opened=opened: compute(opened, X), X.clone())
        expected = _run(theirs, theirs, X.clone().reshape(_N_ROWS, *shape))
        if not all(map(_agree, found, expected)):
            raise Unreadable("its forward computes something else than its layers tell")


def _draw_rows(module, links, n_features, takes_integers):
    """Return rows of random numbers, and of positions in columns that an embedding looks up."""
    generator = torch.Generator().manual_seed(0)
    X = torch.randn(_N_ROWS, n_features, generator=generator)
    if takes_integers:
        X = (4 * X).round()
    for column, n in _count_entries(module, links).items():
        X[:, column] = torch.randint(n, (_N_ROWS,), generator=generator).to(X.dtype)
    parameter = next(module.parameters())
    if takes_integers:
        return X.long().to(parameter.device)
    return X.to(parameter.device, parameter.dtype)


def _count_entries(module, links):
    """Return how many rows the embedding has that looks up a column, by the column's number."""
    n_entries = {}
    for link in open_links(module, links):
        if isinstance(link.layer, Lookup):
            for column in link.layer.columns:
                n = link.layer.layer.num_embeddings
                n_entries[column] = min(n, n_entries.get(column, n))
    return n_entries


def _without_function(link):
    """Return a link that keeps all units, in place of one that calls a dropout function."""
    layer = getattr(link.layer, "layer", link.layer)
    return link._replace(layer=nn.Identity()) if isinstance(layer, FunctionDropout) else link


def _run(module, call, X):
    """Return the outputs of a call, the gradients of the parameters and the buffers, as lists."""
    for layer in dropout_layers(module):
        # the same masks for the links and for the module
        layer.step = None
        layer.own_masks = None
    with FunctionMasks(MaskStream(0)):
        X = call(X)
    # any function of the outputs that treats no two of them alike
    weights = torch.linspace(0.5, 1.5, X.numel(), device=X.device, dtype=X.dtype).view_as(X)
    parameters = list(module.parameters())
    gradients = torch.autograd.grad((X * weights).sum(), parameters, allow_unused=True)
    return [X.detach()], list(gradients), list(module.buffers())


def _agree(ours, theirs):
    """Tell whether two lists of tensors are equal, up to rounding errors.

    None, the gradient of a parameter that is not used, is equal to itself only.
    """
    if [one is None for one in ours] != [other is None for other in theirs]:
        return False
    ours = [one for one in ours if one is not None]
    theirs = [other for other in theirs if other is not None]
    largest = max((float(other.abs().max()) for other in theirs if other.numel()), default=0.0)
    return all(_is_close(one, other, largest) for one, other in zip(ours, theirs, strict=True))


def _is_close(one, other, largest):
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    if not other.is_floating_point() or not other.numel():
        return torch.equal(one, other)
    eps = torch.finfo(other.dtype).eps
    bound = eps**0.5 * float(other.abs().max()) + _NOISE * eps * largest + 1e-30
    return bool(((one - other).abs() <= bound).all())
