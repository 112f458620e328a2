"""Masks that follow from the seed, for modules that call ``F.dropout`` in place of a layer."""

import dis
from types import CodeType, FunctionType
from weakref import WeakKeyDictionary

import torch
from torch import nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from sktune.modules.dropout import LaneMasks

# What the masks take for the index of a layer, which no layer has. All calls of the function in a
# step share it, and are counted from 0.
FUNCTION_INDEX = 1 << 20
_FUNCTIONS = (F.dropout, torch.dropout)
_HOMES = (F, torch, nn)


class FunctionMasks(TorchFunctionMode):
    """Gives the calls of ``F.dropout`` within a block masks that are a function of the seed.

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
        if func not in _FUNCTIONS:
            return func(*args, **kwargs)
        X, p, training, inplace = _read_arguments(*args, **kwargs)
        call = self._count_call() if training else 0
        if not training or not 0 < p < 1:
            return func(*args, **kwargs)
        masks = self.masks.setdefault(p, LaneMasks([self.stream.seed], [p]))
        position = (self.stream.epoch, self.stream.batch, FUNCTION_INDEX, call)
        factors = masks.factors(X.shape, position, X)[0].to(X.dtype)
        return X.mul_(factors) if inplace else X * factors

    def _count_call(self):
        """Return how many calls of the step came before."""
        step = (self.stream.epoch, self.stream.batch)
        self.n_calls = self.n_calls + 1 if step == self.step else 0
        self.step = step
        return self.n_calls


def _read_arguments(input, p=0.5, training=True, inplace=False, train=None):
    """Return tensor, rate, mode and place of a call; torch names them so."""
    return input, p, training if train is None else train, inplace


def calls_dropout(module):
    """Tell whether a method of a part of a module calls ``F.dropout``.

    What functions outside of its classes do is not known.
    """
    for cls in dict.fromkeys(type(part) for part in module.modules()):
        for base in cls.__mro__:
            if base.__module__.startswith(("torch.", "sktune.")):
                break
            methods = [value for value in vars(base).values() if isinstance(value, FunctionType)]
            if any(map(_calls_dropout, methods)):
                return True
    return False


# What is known of functions; those of a user must not outlive their last use.
_known = WeakKeyDictionary()


def _calls_dropout(function):
    """Tell whether the code of a function names a dropout function."""
    code, found = _known.get(function, (None, False))
    if code is not function.__code__:
        found = _calls(function.__code__, function.__globals__)
        _known[function] = (function.__code__, found)
    return found


def _calls(code, names):
    """Tell whether code, or code within it, names a dropout function; `names` are its globals."""
    before = None
    for step in dis.get_instructions(code):
        if step.opname == "LOAD_GLOBAL" and names.get(step.argval) in _FUNCTIONS:
            return True
        if step.argval == "dropout" and step.opname in ("LOAD_ATTR", "LOAD_METHOD"):
            is_global = before.opname == "LOAD_GLOBAL" and names.get(before.argval) in _HOMES
            if is_global or before.argval == "functional":
                return True
        before = step
    inner = [value for value in code.co_consts if isinstance(value, CodeType)]
    return any(_calls(part, names) for part in inner)
