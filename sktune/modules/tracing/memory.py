"""What was read of modules, kept for modules that are alike: a search has many of them."""

import threading
import types
from collections import OrderedDict

from torch import nn

from sktune.modules.dropout import dropout_layers
from sktune.modules.structure import settings_of, structure_of
from sktune.modules.tracing.chains import read_links

_MOST_KEPT = 128
_kept = OrderedDict()
_lock = threading.Lock()


def find_links(module):
    """Return what :func:`read_links` makes of a module; modules that are alike are read once.

    Alike are modules of one structure, with the same settings, and whose classes have the same
    methods.
    """
    key = _find_key(module)
    with _lock:
        if key in _kept:
            _kept.move_to_end(key)
            return _kept[key][0]
    links = read_links(module)
    with _lock:
        # The settings and methods are kept so that no new object gets the id of an old one.
        _kept[key] = (links, [value for _, value in settings_of(module)])
        while len(_kept) > _MOST_KEPT:
            _kept.popitem(last=False)
    return links


def _find_key(module):
    """Return what a module's chain follows from: all but the values of its tensors."""
    dropouts = tuple((layer.index, layer.by_channel) for layer in dropout_layers(module))
    methods = frozenset((type(part), _list_methods(type(part))) for part in module.modules())
    devices = tuple(str(p.device) for p in module.parameters())
    n_names = len(list(module.named_parameters(remove_duplicate=False)))
    return (structure_of(module), dropouts, methods, devices, n_names)


def _list_methods(cls):
    """Return the functions that a user's class has; they may be replaced at any time."""
    found = []
    for base in cls.__mro__:
        if base is nn.Module:
            break
        if base.__module__.startswith("torch."):
            continue
        found += [value for value in vars(base).values() if isinstance(value, types.FunctionType)]
    return tuple(found)
