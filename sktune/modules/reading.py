"""What a module is made of, where that can be known."""

import torch
from torch import nn
from torch.nn.modules.module import _has_any_global_hook
from torch.optim.optimizer import _global_optimizer_post_hooks, _global_optimizer_pre_hooks

from sktune.modules.activations import ACTIVATIONS
from sktune.modules.dropout import HashedDropout
from sktune.modules.mlp import MLP


def find_chain(module):
    """Return a module's layers, by name, where they in their order are all that it is; else None."""
    chain = module.layers if type(module) is MLP else module
    if type(chain) is not nn.Sequential or not len(chain):
        return None
    known = (nn.Linear, *ACTIVATIONS.values())
    layers = {
        f"layers.{name}" if chain is not module else name: layer
        for name, layer in chain.named_children()
    }
    simple = all(
        type(m) in known or (isinstance(m, HashedDropout) and not m.by_channel)
        for m in layers.values()
    )
    plain = len(layers) == len(chain) and not any(
        getattr(m, "inplace", False) for m in layers.values()
    )
    whole = len(list(module.modules())) == len(layers) + 1 + (chain is not module)
    learned = [p.requires_grad for p in module.parameters()]
    is_free = learned and all(learned) and not any(map(is_watched, module.modules()))
    return layers if simple and plain and whole and is_free else None


def find_width(module):
    """Return the most numbers that a layer makes of a row, where the layers are known; else None."""
    if type(module) is not MLP and find_chain(module) is None:
        return None
    linears = [layer for layer in module.modules() if isinstance(layer, nn.Linear)]
    return max((layer.out_features for layer in linears), default=1)


def is_watched(thing):
    """Tell whether someone waits for calls of a module, a parameter or an optimizer, or has put other methods in.

    The names of torch's registers are private; ``tests/test_compiled.py`` fails when they move.
    """
    if isinstance(thing, torch.Tensor):
        return bool(thing._backward_hooks or thing._post_accumulate_grad_hooks)
    registers = [value for name, value in vars(thing).items() if name.endswith("_hooks")]
    registers += [_has_any_global_hook(), _global_optimizer_pre_hooks, _global_optimizer_post_hooks]
    has_own_methods = any(callable(getattr(type(thing), name, None)) for name in vars(thing))
    return any(registers) or has_own_methods or has_other_forward(thing)


# What the modules compute that are trained without calling them, as it was when they were imported.
_FORWARDS = {
    kind: kind.forward
    for kind in (
        *(MLP, HashedDropout, nn.Sequential, nn.Linear),
        *(nn.CrossEntropyLoss, nn.MSELoss),
        *ACTIVATIONS.values(),
    )
}


def has_other_forward(module):
    """Tell whether the class of a module computes something else than when it was imported."""
    kind = type(module)
    return kind in _FORWARDS and kind.forward is not _FORWARDS[kind]


def keeps_integers(X, module):
    """Tell whether an array goes to a module as integers, which an embedding looks rows up by."""
    return X.dtype.kind in "iu" and any(
        isinstance(m, nn.Embedding | nn.EmbeddingBag) for m in module.modules()
    )
