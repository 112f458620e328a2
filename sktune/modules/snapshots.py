"""Snapshots of modules, which tell whether what is read of a module is still the same.

A snapshot holds what :mod:`sktune.modules.reading` and :mod:`sktune.modules.structure` ask of a
module: its parts and their classes, the methods of a user's classes, all attributes of each part
with hooks and modes, and the layout of all tensors. It does not hold the values of parameters and
buffers, what a layer of dropout counts, and hooks of torch that are for all modules.
"""

import operator

import torch

from sktune.modules.dropout import HashedDropout
from sktune.modules.structure import TORCH_ATTRIBUTES, as_text, is_watched_tensor

# What a layer of dropout changes in each step, and the stream that its masks follow from.
_COUNTED = frozenset(
    {"own_masks", "lane_masks", "lane_step", "is_one_by_one", "step", "n_calls", "stream"}
)
# They are equal for good, or are compared as tensors.
_ATOMS = (int, float, complex, str, bytes, type(None), torch.dtype, torch.Tensor)


class Snapshot:
    """What a module held when the snapshot was taken.

    Parameters
    ----------
    module : nn.Module
    """

    def __init__(self, module):
        self.module = module
        parts = list(module.modules())
        self.parts = [_Part(part) for part in parts]
        self.classes = [_Class(cls) for cls in dict.fromkeys(map(type, parts))]
        tensors = [tensor for part in self.parts for tensor in part.tensors]
        self.tensors = [(tensor, _describe(tensor)) for tensor in tensors]

    def is_of(self, module):
        """Tell whether a module is the same one, and holds what it held."""
        return (
            module is self.module
            and all(part.is_same() for part in self.parts)
            and all(cls.is_same() for cls in self.classes)
            and all(_describe(tensor) == before for tensor, before in self.tensors)
        )


class _Part:
    """A part of a module, without its own parts."""

    def __init__(self, part):
        self.part = part
        self.cls = type(part)
        held = vars(part)
        self.keys = frozenset(held)
        is_dropout = isinstance(part, HashedDropout)
        names = sorted(self.keys - _COUNTED) if is_dropout else list(held)
        self.pick = operator.itemgetter(*names)
        self.values = self.pick(held)
        # the registers of torch, such as those of parameters, parts and hooks
        registers = [held[name] for name in names if name in TORCH_ATTRIBUTES]
        registers = [register for register in registers if isinstance(register, dict | set)]
        self.empty = [register for register in registers if not register]
        self.filled = [_Register(register) for register in registers if register]
        settings = [] if is_dropout else [held[n] for n in names if n not in TORCH_ATTRIBUTES]
        # what may change in place
        mutable = [value for value in settings if not isinstance(value, _ATOMS)]
        self.texts = [(value, as_text(value)) for value in mutable]
        tensors = [*settings, *part._parameters.values(), *part._buffers.values()]
        self.tensors = [tensor for tensor in tensors if isinstance(tensor, torch.Tensor)]

    def is_same(self):
        held = vars(self.part)
        return (
            type(self.part) is self.cls
            and held.keys() == self.keys
            and all(map(operator.is_, self.pick(held), self.values))
            and not any(self.empty)
            and all(register.is_same() for register in self.filled)
            and all(as_text(value) == text for value, text in self.texts)
        )


class _Register:
    """What stands in a dict or in a set, in its order."""

    def __init__(self, register):
        self.register = register
        self.names = list(register)
        self.values = list(register.values()) if isinstance(register, dict) else []

    def is_same(self):
        if list(self.register) != self.names:
            return False
        values = self.register.values() if isinstance(self.register, dict) else ()
        return all(map(operator.is_, values, self.values))


class _Class:
    """The forward of a class, and all attributes of a user's classes that it is made of."""

    def __init__(self, cls):
        self.cls = cls
        self.bases = cls.__mro__
        self.forward = cls.forward
        # the method of a convolution by which its forward computes
        self.inner_forward = getattr(cls, "_conv_forward", None)
        own = [
            base for base in self.bases if not base.__module__.startswith(("torch.", "builtins"))
        ]
        self.attributes = [(base, dict(vars(base))) for base in own]

    def is_same(self):
        return (
            self.cls.__mro__ == self.bases
            and self.cls.forward is self.forward
            and getattr(self.cls, "_conv_forward", None) is self.inner_forward
            and all(_is_same(vars(base), before) for base, before in self.attributes)
        )


def _is_same(now, before):
    """Tell whether two dicts hold the same objects under the same names, in the same order."""
    return list(now) == list(before) and all(map(operator.is_, now.values(), before.values()))


def _describe(tensor):
    """Return how a tensor lies in memory, and whether it is trained and watched."""
    is_dense = tensor.layout is torch.strided
    return (
        tensor.dtype,
        tensor.device,
        tensor.shape,
        tensor.requires_grad,
        is_watched_tensor(tensor),
        is_dense and tensor.stride(),
        is_dense and tensor.data_ptr(),
    )
