"""Digests of settings and data that are equal in every process."""

import dataclasses
import hashlib
import types
from collections.abc import Mapping, Set
from functools import partial
from importlib.metadata import version

import joblib
import numpy as np
import torch
from scipy import sparse
from torch import nn

from sktune.modules.dropout import HashedDropout
from sktune.modules.structure import TORCH_ATTRIBUTES, find_ties, list_hooks

VERSIONS = (torch.__version__, version("sktune"))

_SCALARS = (
    type(None),
    bool,
    int,
    float,
    complex,
    str,
    bytes,
    torch.dtype,
    torch.Size,
    torch.device,
)
# The attributes of a class that its digest follows from, by their types; and those that say nothing
# of what the class does.
_CLASS_SETTINGS = (
    types.FunctionType,
    staticmethod,
    classmethod,
    property,
    *_SCALARS,
    list,
    tuple,
    dict,
)
_IGNORED_OF_CLASSES = (
    "__module__",
    "__qualname__",
    "__doc__",
    "__firstlineno__",
    "__static_attributes__",
)
# Their classes and functions are known by name and version.
_LIBRARIES = ("builtins", "torch", "numpy", "sktune", "skorch", "sklearn")


def digest(thing):
    """Return a text of 40 hexadecimal digits that is equal for equal things.

    The digest of numbers, texts, containers, arrays, tensors, modules, classes, functions and
    dataclasses follows from their contents: that of a class or a function of the user's from its
    name and its code, that of a library's from its name. The digest of anything else follows from
    its pickle.

    Raises
    ------
    TypeError
        If something else cannot be pickled.
    """
    hasher = _Hasher()
    _feed(hasher, thing)
    return hasher.sha.hexdigest()


class _Hasher:
    """A hash that grows, the classes and functions that it has met, and the modules around."""

    def __init__(self, seen=(), around=()):
        self.sha = hashlib.sha1(usedforsecurity=False)
        self.seen = set(seen)
        self.around = tuple(around)

    def update(self, data):
        self.sha.update(data)

    def meets(self, thing):
        """Tell whether a class or function has been met before; functions may call each other."""
        is_new = id(thing) not in self.seen
        self.seen.add(id(thing))
        return not is_new

    def digest(self, thing):
        """Return the digest of a thing that is part of another one."""
        part = _Hasher(self.seen, self.around)
        _feed(part, thing)
        return part.sha.hexdigest()


def _feed(hasher, thing):
    """Add a thing to a hash, with its type and its length, so that no two things run together."""
    if isinstance(thing, np.generic) and not isinstance(thing, np.void):
        # a number that was drawn is the same as one that was given
        thing = thing.item()
    for handled_types, feed in _FEEDS:
        if isinstance(thing, handled_types):
            feed(hasher, thing)
            return
    if hasattr(thing, "__digest__"):
        _write(hasher, "digest", thing.__digest__())
    elif dataclasses.is_dataclass(thing):
        fields = {field.name: getattr(thing, field.name) for field in dataclasses.fields(thing)}
        _write(hasher, "dataclass", _name_of(type(thing)))
        _feed_mapping(hasher, fields)
    elif type(thing).__module__.startswith("sktune."):
        _write(hasher, "object", _name_of(type(thing)))
        _feed_mapping(hasher, vars(thing))
    else:
        _feed_pickle(hasher, thing)


def _write(hasher, label, text):
    """Add a text to a hash, with a label and its length."""
    data = text.encode()
    hasher.update(f"{label}:{len(data)}:".encode())
    hasher.update(data)


def _name_of(thing):
    return f"{thing.__module__}.{thing.__qualname__}"


def _feed_scalar(hasher, thing):
    _write(hasher, type(thing).__name__, repr(thing))


def _feed_sequence(hasher, thing):
    _write(hasher, type(thing).__name__, str(len(thing)))
    for part in thing:
        _feed(hasher, part)


def _feed_mapping(hasher, thing):
    _write(hasher, "mapping", str(len(thing)))
    for part in sorted((hasher.digest(key), hasher.digest(value)) for key, value in thing.items()):
        _feed_sequence(hasher, part)


def _feed_set(hasher, thing):
    _feed_sequence(hasher, sorted(map(hasher.digest, thing)))


def _feed_array(hasher, thing):
    if thing.dtype.hasobject:
        _feed_pickle(hasher, thing)
        return
    _write(hasher, "array", f"{thing.dtype.str}{thing.shape}")
    hasher.update(np.ascontiguousarray(thing).reshape(-1).view(np.uint8).data)


def _feed_tensor(hasher, thing):
    tensor = thing.detach().cpu().contiguous()
    _write(hasher, "tensor", f"{tensor.dtype}{tuple(tensor.shape)}")
    if tensor.numel():
        hasher.update(tensor.reshape(-1).view(torch.uint8).numpy().data)


def _feed_sparse(hasher, thing):
    table = thing.tocsr()
    _feed_sequence(hasher, (table.shape, table.indptr, table.indices, table.data))


def _feed_module(hasher, thing):
    """Add a module: its class, its tensors, its hooks, its settings and its parts."""
    if id(thing) in hasher.around:
        # A hook, or a function that is a setting, may hold the module that it belongs to.
        _write(hasher, "module around", str(hasher.around.index(id(thing))))
        return
    if not hasher.around:
        _feed_ties(hasher, thing)
    hasher.around += (id(thing),)
    _feed_contents(hasher, thing)
    hasher.around = hasher.around[:-1]


def _feed_ties(hasher, module):
    """Add which of a module's tensors are one, or lie in one memory; nothing if none do."""
    ties = find_ties(module)
    if ties:
        _write(hasher, "ties", repr(ties))


def _feed_contents(hasher, thing):
    _feed(hasher, type(thing))
    hooks = list_hooks(thing)
    if hooks:
        _write(hasher, "hooks", str(len(hooks)))
        _feed_sequence(hasher, hooks)
    tensors = {**thing._parameters, **thing._buffers}
    _feed_mapping(hasher, tensors)
    _feed(hasher, [p is not None and p.requires_grad for p in thing._parameters.values()])
    settings = {name: value for name, value in vars(thing).items() if name not in TORCH_ATTRIBUTES}
    if isinstance(thing, HashedDropout):
        # Fits that differ in their rates share a module, which has the rate of one of them; each
        # fit tells its own.
        del settings["p"]
    _feed_mapping(hasher, settings)
    _feed_sequence(hasher, list(thing._modules.items()))


def _feed_class(hasher, thing):
    """Add a class; of a user's, also the code of its methods and of its bases'."""
    _write(hasher, "class", _name_of(thing))
    if thing.__module__.partition(".")[0] in _LIBRARIES or hasher.meets(thing):
        return
    settings = {
        name: value
        for name, value in vars(thing).items()
        if isinstance(value, _CLASS_SETTINGS) and name not in _IGNORED_OF_CLASSES
    }
    _feed_mapping(hasher, settings)
    _feed_sequence(hasher, thing.__bases__)


def _feed_function(hasher, thing):
    """Add a function; of a user's, also its code, its defaults and what it closes over."""
    _write(hasher, "function", _name_of(thing))
    if thing.__module__.partition(".")[0] in _LIBRARIES or hasher.meets(thing):
        return
    cells = [cell.cell_contents for cell in thing.__closure__ or ()]
    _feed_code(hasher, thing.__code__)
    _feed_sequence(hasher, (thing.__defaults__, thing.__kwdefaults__, cells))
    # what the function looks up: settings of the user's module, and other functions
    names = sorted(set(_names_in(thing.__code__)) & thing.__globals__.keys())
    for name in names:
        value = thing.__globals__[name]
        if not isinstance(value, types.ModuleType):
            _write(hasher, "global", name)
            _feed(hasher, value)


def _names_in(code):
    """Yield the names that code looks up, its inner functions' too."""
    yield from code.co_names
    for part in code.co_consts:
        if isinstance(part, types.CodeType):
            yield from _names_in(part)


def _feed_code(hasher, code):
    constants = [part for part in code.co_consts if not isinstance(part, types.CodeType)]
    _feed_sequence(hasher, (code.co_code, code.co_names, code.co_varnames, constants))
    for part in code.co_consts:
        if isinstance(part, types.CodeType):
            _feed_code(hasher, part)


def _feed_wrapper(hasher, thing):
    """Add a static method, a class method or a property."""
    functions = (getattr(thing, name, None) for name in ("__func__", "fget", "fset", "fdel"))
    _write(hasher, "wrapper", type(thing).__name__)
    _feed_sequence(hasher, tuple(functions))


def _feed_method(hasher, thing):
    _feed_sequence(hasher, (thing.__self__, thing.__func__))


def _feed_partial(hasher, thing):
    _feed_sequence(hasher, (thing.func, thing.args, thing.keywords))


def _feed_pickle(hasher, thing):
    try:
        text = joblib.hash(thing)
    except Exception as error:
        raise TypeError(f"a digest must be of what can be pickled, got {type(thing)}") from error
    _write(hasher, "pickle", text)


# The function that adds a thing of some types to a hash: the first that fits is taken.
_FEEDS = (
    (_SCALARS, _feed_scalar),
    (np.ndarray | np.generic, lambda hasher, thing: _feed_array(hasher, np.asarray(thing))),
    (torch.Tensor, _feed_tensor),
    (nn.Module, _feed_module),
    (type, _feed_class),
    (types.FunctionType, _feed_function),
    (types.BuiltinFunctionType, lambda hasher, thing: _write(hasher, "builtin", repr(thing))),
    (types.MethodType, _feed_method),
    (staticmethod | classmethod | property, _feed_wrapper),
    (partial, _feed_partial),
    (list | tuple, _feed_sequence),
    (Mapping, _feed_mapping),
    (Set, _feed_set),
    (sparse.spmatrix | sparse.sparray, _feed_sparse),
)
