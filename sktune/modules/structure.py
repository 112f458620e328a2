"""What must be equal in two modules for them to be trained as one."""

import dataclasses
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
    settings = [(key, as_text(value)) for key, value in settings_of(module)]
    # The hooks of the first of the nets are called for all.
    hooks = [((name, "hooks"), list_hooks(part)) for name, part in module.named_modules()]
    settings += [(key, as_text(value)) for key, value in hooks if value]
    ties = find_ties(module)
    if ties:
        settings.append((("", "ties"), repr(ties)))
    return tuple(tensors), tuple(parts), tuple(sorted(settings))


def settings_of(module):
    """Yield what the parts of a module hold beside their tensors and torch's own attributes.

    Each item is a pair: the name of the part and of the attribute, and the value. The rates of
    dropout are left out: they may differ between nets that are trained as one.
    """
    for name, part in module.named_modules(remove_duplicate=False):
        if isinstance(part, HashedDropout):
            yield (name, "kind"), (part.index, part.by_channel, part.n_dimensions)
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
    if _is_all_fields(value):
        return f"{type(value).__qualname__} {id(type(value))} {as_text(vars(value))}"
    return repr(value) if isinstance(value, _COMPARABLE) else f"object {id(value)}"


def _is_all_fields(value):
    """Tell whether a value is a dataclass that holds nothing but its fields."""
    if not dataclasses.is_dataclass(value) or isinstance(value, type):
        return False
    names = {field.name for field in dataclasses.fields(value)}
    return getattr(value, "__dict__", {}).keys() == names


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


def is_watched_tensor(tensor):
    """Tell whether a tensor has hooks of its own, which a copy of it would not have.

    The names of torch's registers are private; ``tests/engine/test_compiled.py`` fails when they
    move.
    """
    return bool(tensor._backward_hooks or tensor._post_accumulate_grad_hooks)


def find_entanglement(module):
    """Return why the numbers of a module cannot be taken out of it, in the user's words.

    Nets that are trained together have their numbers in one table, and get them back when that is
    over. Hooks of parameters would not be called meanwhile, and a tensor that looks at the memory
    of a parameter would not change with it.

    Parameters
    ----------
    module : nn.Module

    Returns
    -------
    reason : str
        ``""`` if each parameter, buffer and tensor has a memory by itself, and no parameter a hook.
    """
    for name, parameter in module.named_parameters():
        if is_watched_tensor(parameter):
            return f"a hook watches its parameter {name}"
    spans = sorted(_list_spans(module))
    for (_, end, name), (start, _, other) in zip(spans, spans[1:], strict=False):
        if start < end:
            return f"its tensors {name} and {other} share their memory"
    return ""


def _list_spans(module):
    """Return where in memory each tensor of a module begins and ends, and its name."""
    tensors = {id(p): (name, p) for name, p in module.named_parameters()}
    for name, tensor in [*module.named_buffers(), *_name_settings(module)]:
        if isinstance(tensor, torch.Tensor):
            tensors.setdefault(id(tensor), (name, tensor))
    spans = []
    for name, tensor in tensors.values():
        if tensor.layout is torch.strided and tensor.numel():
            steps = zip(tensor.shape, tensor.stride(), strict=True)
            extent = 1 + sum((size - 1) * stride for size, stride in steps)
            start = tensor.data_ptr()
            spans.append((start, start + extent * tensor.element_size(), name))
    return spans


def _name_settings(module):
    """Yield what :func:`settings_of` does, by names with dots."""
    for (part, key), value in settings_of(module):
        yield f"{part}.{key}" if part else key, value


def list_hooks(part):
    """Return the hooks of a module, without those of its parts, and of its own parameters.

    Returns
    -------
    hooks : list of (str, object)
        Each with the name of the register that it is in; empty where there are none.
    """
    registers = [(key, value) for key, value in vars(part).items() if "_hooks" in key]
    for name, parameter in part.named_parameters(recurse=False):
        registers.append((f"{name} before", parameter._backward_hooks))
        registers.append((f"{name} after", parameter._post_accumulate_grad_hooks))
    # The keys count all hooks of a process.
    return [
        (key, hook)
        for key, register in registers
        if isinstance(register, dict)
        for hook in register.values()
    ]


def find_ties(module):
    """Return which tensors of a module are the same one, or lie in the same memory.

    Returns
    -------
    ties : list of (str, str, bool)
        The name of a tensor, that of an earlier one, and whether they are one.
    """
    tensors = [
        *module.named_parameters(remove_duplicate=False),
        *module.named_buffers(remove_duplicate=False),
    ]
    tensors += [pair for pair in _name_settings(module) if isinstance(pair[1], torch.Tensor)]
    first = {}
    ties = []
    for name, tensor in tensors:
        if tensor.layout is torch.strided and tensor.numel():
            memory = tensor.untyped_storage().data_ptr()
            earlier, other = first.setdefault(memory, (name, tensor))
            if earlier != name:
                ties.append((name, earlier, other is tensor))
    return ties
