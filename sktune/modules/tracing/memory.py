"""What was read of modules, kept for modules that are alike: a search has many of them."""

import threading
import types
import weakref
from collections import OrderedDict
from types import NoneType
from typing import NamedTuple

from torch import nn

from sktune.modules.dropout import dropout_layers
from sktune.modules.structure import settings_of, structure_of
from sktune.modules.tracing.chains import read_links

_MOST_KEPT = 128
_kept = OrderedDict()
_lock = threading.Lock()


class _Entry(NamedTuple):
    """What was read, and what its key names by ids.

    `references` are weak, to classes and methods: those of a user must not outlive their last use.
    `settings` are kept, so that no new object gets the id of an old one.
    """

    links: object
    references: list
    settings: list

    def is_valid(self):
        """Tell whether the ids in the key are still those of the same objects."""
        return all(reference() is not None for reference in self.references)


def find_links(module, shape=None, *, takes_integers=False):
    """Return what :func:`read_links` makes of a module; modules that are alike are read once.

    Alike are modules of one structure, with the same settings, and whose classes have the same
    methods.
    """
    code = _list_code(module)
    key = (shape, takes_integers, *_find_key(module, code))
    with _lock:
        entry = _kept.get(key)
        if entry is not None and entry.is_valid():
            _kept.move_to_end(key)
            return entry.links
    links = read_links(module, shape, takes_integers=takes_integers)
    references = [weakref.ref(thing) for thing in code]
    settings = [value for _, value in settings_of(module)]
    with _lock:
        _kept[key] = _Entry(links, references, settings)
        while len(_kept) > _MOST_KEPT:
            _kept.popitem(last=False)
    return links


def _find_key(module, code):
    """Return what a module's chain follows from: all but the values of its tensors."""
    tensors, parts, settings = structure_of(module)
    classes = tuple((name, id(cls)) for name, cls in parts)
    dropouts = tuple(
        (layer.index, layer.by_channel, layer.n_dimensions) for layer in dropout_layers(module)
    )
    devices = tuple(str(p.device) for p in module.parameters())
    n_names = len(list(module.named_parameters(remove_duplicate=False)))
    kept = (tensors, classes, settings, dropouts, devices, n_names, _list_constants(module))
    return (*kept, tuple(map(id, code)))


def _list_code(module):
    """Return the classes of a module's parts, and their methods, which may be replaced any time."""
    found = []
    for cls in dict.fromkeys(type(part) for part in module.modules()):
        found.append(cls)
        for base in _list_own_bases(cls):
            methods = vars(base).values()
            found += [value for value in methods if isinstance(value, types.FunctionType)]
    return found


def _list_constants(module):
    """Return the numbers, names and truth values that a user's classes hold, a tuple."""
    constants = []
    for cls in dict.fromkeys(type(part) for part in module.modules()):
        for base in _list_own_bases(cls):
            for name, value in vars(base).items():
                if isinstance(value, int | float | str | NoneType) and not name.startswith("__"):
                    # 1, 1.0 and True are equal, but not the same
                    constants.append((id(base), name, type(value), value))
    return tuple(constants)


def _list_own_bases(cls):
    """Return the classes that a class is made of, but for those of torch's."""
    bases = cls.__mro__
    if nn.Module in bases:
        bases = bases[: bases.index(nn.Module)]
    return [base for base in bases if not base.__module__.startswith("torch.")]
