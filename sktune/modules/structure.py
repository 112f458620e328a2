"""What must be equal in two modules for them to be trained as one."""

import types

import numpy as np
import torch
from torch import nn

from sktune.modules.dropout import HashedDropout

# What torch sets in each module, beside what the module's own class sets.
TORCH_ATTRIBUTES = frozenset(vars(nn.Module()))

_COMPARABLE = (
    *(int, float, complex, str, bytes, bool, np.generic, type(None)),
    *(torch.dtype, torch.Size, types.FunctionType),
)


def structure_of(module):
    """Return all of a module that nets trained as one have in common: all but what is learned."""
    tensors = [(name, p.shape, p.dtype, p.requires_grad) for name, p in module.named_parameters()]
    tensors += [(name, b.shape, b.dtype) for name, b in module.named_buffers()]
    parts = [(name, type(part)) for name, part in module.named_modules(remove_duplicate=False)]
    settings = sorted((key, as_text(value)) for key, value in settings_of(module))
    return tuple(tensors), tuple(parts), tuple(settings)


def settings_of(module):
    """Yield what the parts of a module hold beside their tensors and torch's own attributes.

    Each item is a pair: the name of the part and of the attribute, and the value. The rates of
    dropout are left out: they may differ between nets that are trained as one.
    """
    for name, part in module.named_modules(remove_duplicate=False):
        if isinstance(part, HashedDropout):
            continue
        for key, value in vars(part).items():
            if key not in TORCH_ATTRIBUTES:
                yield (name, key), value


def as_text(value):
    """Return a text that is the same for equal values.

    Where equality cannot be known, it is the same for the same object only, in this process.
    """
    if isinstance(value, tuple | list):
        return f"{type(value).__name__}({', '.join(map(as_text, value))})"
    if isinstance(value, dict):
        return str({key: as_text(v) for key, v in value.items()})
    return repr(value) if isinstance(value, _COMPARABLE) else f"object {id(value)}"


def watch_settings(module):
    """Return a function that tells whether the parts of a module still hold what they hold now.

    A module that remembers its calls cannot be trained with others: one object would remember the
    calls of all.
    """
    # the values are kept so that no new object gets the id of an old one
    kept = dict(settings_of(module))
    texts = {key: as_text(value) for key, value in kept.items()}
    copies = {key: v.clone() for key, v in kept.items() if isinstance(v, torch.Tensor)}

    def are_unchanged():
        now = dict(settings_of(module))
        if {key: as_text(value) for key, value in now.items()} != texts:
            return False
        return all(torch.equal(now[key], copy) for key, copy in copies.items())

    return are_unchanged
