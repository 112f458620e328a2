"""Masks that follow from the seed, for modules that call ``F.dropout`` in place of a layer."""

import dis
from contextlib import suppress
from functools import partial
from itertools import takewhile
from types import BuiltinFunctionType, CodeType, FunctionType, ModuleType
from weakref import WeakKeyDictionary

import torch
from torch import nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from sktune.modules.dropout import (
    BATCH_DIMENSIONS,
    LaneMasks,
    MaskStream,
    count_call,
    drop_lanes,
    find_channels,
)
from sktune.modules.one_by_one import KeptMasks

# What the masks take for the index of a layer, which no layer has. All calls of the functions in a
# step share it, and are counted from 0.
FUNCTION_INDEX = 1 << 20
_IN_PLACE = (torch.dropout_, torch.feature_dropout_)
# Those that drop whole channels.
CHANNEL_FUNCTIONS = (
    F.dropout1d,
    F.dropout2d,
    F.dropout3d,
    torch.feature_dropout,
    torch.feature_dropout_,
)
DROPOUT_FUNCTIONS = (F.dropout, torch.dropout, torch.dropout_, *CHANNEL_FUNCTIONS)
_NAMES = {function.__name__ for function in DROPOUT_FUNCTIONS}
_CHECKPOINTS = {"checkpoint", "checkpoint_sequential"}
_HOMES = (F, torch, nn)


class FunctionMasks(TorchFunctionMode):
    """Gives the calls of ``F.dropout`` and its kin in a block masks that follow from the seed.

    Parameters
    ----------
    stream : MaskStream
        The seed of the fit, and the current step.
    """

    def __init__(self, stream):
        super().__init__()
        self.stream = stream
        # by the rate
        self.masks = {}
        # the last step, (epoch, batch), and the number of calls in it
        self.step = None
        self.n_calls = 0

    def __torch_function__(self, func, types, args=(), kwargs=None):
        """Compute a function of torch's; dropout with a mask of ours."""
        kwargs = kwargs or {}
        if func not in DROPOUT_FUNCTIONS:
            return func(*args, **kwargs)
        X, p, training, inplace = _read_arguments(*args, **kwargs)
        call = self._count_call() if training else 0
        if not training or not 0 < p < 1 or not X.is_floating_point():
            return func(*args, **kwargs)
        shape = X.shape
        if func in CHANNEL_FUNCTIONS:
            if X.ndim < 2:
                return func(*args, **kwargs)
            # torch refuses some dimensions of an input, and warns of others
            func(X, p, False)
            shape = find_channels(shape, BATCH_DIMENSIONS.get(func))
        dropped = self._drop(X, float(p), shape, call)
        return X.copy_(dropped) if inplace or func in _IN_PLACE else dropped

    def _find_masks(self, p):
        """Return the masks of a rate."""
        if p not in self.masks:
            self.masks[p] = LaneMasks([self.stream.seed], [p])
        return self.masks[p]

    def _drop(self, X, p, shape, call):
        """Return X times the factors of a call, which have some shape."""
        factors = self._find_masks(p).factors(shape, self._position(call), X)
        return X * factors[0].to(X.dtype)

    def _position(self, call):
        """Return what the numbers of a call follow from beside the seed."""
        return (self.stream.epoch, self.stream.batch, FUNCTION_INDEX, call)

    def _count_call(self):
        """Return how many calls of the step came before."""
        return count_call(self, (self.stream.epoch, self.stream.batch))


class LaneFunctionMasks(FunctionMasks):
    """The masks of :class:`FunctionMasks` in many nets that are trained as one.

    Parameters
    ----------
    seeds : list of int
        The seed of the fit in each lane.
    """

    def __init__(self, seeds):
        super().__init__(MaskStream(None))
        self.seeds = seeds
        self.distinct_seeds = list(dict.fromkeys(seeds))
        # the net that is computed alone, and the masks of the step for it, by their rate
        self.lane = None
        self.kept = {}
        # as in LaneMasks
        self.held = None

    def select(self, lanes):
        """Return the masks of some lanes only."""
        return LaneFunctionMasks([self.seeds[lane] for lane in lanes])

    def begin_step(self, step):
        """Let the calls that follow be those of all nets in a `step`, (epoch, batch)."""
        self.stream.epoch, self.stream.batch = step
        self.begin_lane(None)
        self.kept = {}

    def begin_lane(self, lane):
        """Let the calls that follow be those of one net in the step, which is computed alone."""
        self.lane = lane
        self.step = None

    def _find_masks(self, p):
        """Return the masks of a rate in all lanes."""
        if p not in self.masks:
            self.masks[p] = LaneMasks(self.seeds, [p] * len(self.seeds))
        self.masks[p].held = self.held
        return self.masks[p]

    def _drop(self, X, p, shape, call):
        """Return X of one lane, or of all under vmap, times the factors of a call."""
        masks = self._find_masks(p)
        position = self._position(call)
        if self.lane is None:
            return drop_lanes(X, lambda stacked: masks.factors(shape, position, stacked))
        kept = self.kept.setdefault(p, KeptMasks(masks))
        kept.lane = self.lane
        return X * kept.factors(shape, position, X)[0].to(X.dtype)


def _read_arguments(input, p=0.5, training=True, inplace=False, train=None):
    """Return tensor, rate, mode and place of a call; torch names them so."""
    return input, p, training if train is None else train, inplace


def calls_dropout(module):
    """Tell whether a method of a part of a module calls ``F.dropout`` or its kin.

    The part may hold the function, too. What functions outside of its classes do is not known.

    It is False where a method names ``torch.utils.checkpoint``: what that computes again in the
    backward pass is seen by no mode of torch's, so that the masks are left to torch.
    """
    parts = [part for part in module.modules() if not _is_of_library(type(part))]
    attributes = []
    for cls in dict.fromkeys(map(type, parts)):
        for base in takewhile(lambda base: not _is_of_library(base), cls.__mro__):
            attributes += [_open_method(value) for value in vars(base).values()]
    methods = [value for value in attributes if isinstance(value, FunctionType)]
    if any(_names_checkpoint(method.__code__) for method in methods):
        return False
    held = [value for part in parts for value in vars(part).values()]
    return any(map(_is_dropout, attributes + held)) or any(map(_calls_dropout, methods))


def _open_method(value):
    """Return the function of a static method or one of the class."""
    return value.__func__ if isinstance(value, staticmethod | classmethod) else value


def _names_checkpoint(code):
    """Tell whether code, or code within it, names a function of ``torch.utils.checkpoint``."""
    inner = [value for value in code.co_consts if isinstance(value, CodeType)]
    names = {*code.co_names, *code.co_freevars}
    return bool(names & _CHECKPOINTS) or any(map(_names_checkpoint, inner))


def _is_of_library(cls):
    return cls.__module__.startswith(("torch.", "sktune."))


def _is_dropout(value):
    """Tell whether a value is a dropout function, also with some of its arguments."""
    while isinstance(value, partial):
        value = value.func
    is_function = isinstance(value, FunctionType | BuiltinFunctionType)
    return is_function and value in DROPOUT_FUNCTIONS


# What is known of functions; those of a user must not outlive their last use.
_known = WeakKeyDictionary()


def _calls_dropout(function):
    """Tell whether the code of a function names a dropout function."""
    code, found = _known.get(function, (None, False))
    if code is not function.__code__:
        names = {**function.__globals__, **_open_cells(function)}
        found = _calls(function.__code__, names)
        _known[function] = (function.__code__, found)
    return found


def _open_cells(function):
    """Return what a function takes from the functions around it, by its name."""
    found = {}
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        # a name may not be bound yet
        with suppress(ValueError):
            found[name] = cell.cell_contents
    return found


def _calls(code, names):
    """Tell whether code, or code within it, names a dropout function.

    `names` are its globals, and what it takes from the functions around it.
    """
    before = None
    for step in dis.get_instructions(code):
        is_name = step.opname in ("LOAD_GLOBAL", "LOAD_DEREF")
        if is_name and _is_dropout(names.get(step.argval)):
            return True
        if step.opname in ("LOAD_ATTR", "LOAD_METHOD") and step.argval in _NAMES:
            is_name = before.opname in ("LOAD_GLOBAL", "LOAD_DEREF")
            home = names.get(before.argval) if is_name else None
            is_of_torch = isinstance(home, ModuleType) and home in _HOMES
            if is_of_torch or before.argval == "functional":
                return True
        if step.opname == "IMPORT_FROM" and step.argval in _NAMES:
            return True
        before = step
    inner = [value for value in code.co_consts if isinstance(value, CodeType)]
    return any(_calls(part, names) for part in inner)
