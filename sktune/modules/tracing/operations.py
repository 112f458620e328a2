"""Which functions, methods and layers of one tensor are read: the table that reads them.

To let another function be read, add it to ``FUNCTIONS``, and a method to ``METHODS``. The value is
a function with the same arguments after the tensor; it returns the layer that computes the same,
``None`` if the tensor stays as it is, or raises :class:`Unreadable`. What takes several tensors is
in :mod:`sktune.modules.tracing.joins`.
"""

import math
from copy import copy

import torch
from torch import nn
from torch.nn import functional as F

from sktune.modules.activations import ACTIVATIONS
from sktune.modules.dropout import BATCH_DIMENSIONS, HashedDropout
from sktune.modules.function_masks import CHANNEL_FUNCTIONS, DROPOUT_FUNCTIONS
from sktune.modules.tracing.links import Clamp, FunctionDropout


class Unreadable(Exception):
    """An operation is none of those that are read; the text tells which and why."""


# Layers that a chain ends in, at most: what they return is no input of a linear layer.
ENDINGS = (nn.Softmax, nn.LogSoftmax)


def _make(layer_class):
    """Return a function that makes an activation without options."""

    def make(inplace=False):
        return layer_class()

    return make


def _make_leaky_relu(negative_slope=0.01, inplace=False):
    return nn.LeakyReLU(negative_slope)


def _make_elu(alpha=1.0, inplace=False):
    return nn.ELU(alpha)


def _make_celu(alpha=1.0, inplace=False):
    return nn.CELU(alpha)


def _make_gelu(approximate="none"):
    return nn.GELU(approximate)


def _make_softplus(beta=1.0, threshold=20.0):
    return nn.Softplus(beta, threshold)


def _make_hardtanh(min_val=-1.0, max_val=1.0, inplace=False):
    return nn.Hardtanh(min_val, max_val)


def _make_threshold(threshold, value, inplace=False):
    return nn.Threshold(threshold, value)


def _make_hardshrink(lambd=0.5):
    return nn.Hardshrink(lambd)


def _make_softshrink(lambd=0.5):
    return nn.Softshrink(lambd)


def _make_clamp(min=None, max=None):  # noqa: A002
    low = -math.inf if min is None else min
    high = math.inf if max is None else max
    if not all(isinstance(limit, int | float) for limit in (low, high)):
        raise Unreadable("it limits numbers by something else than numbers")
    if low > high:
        raise Unreadable("it limits numbers to between two of which the first is larger")
    return Clamp(low, high)


def _make_clamp_min(min):  # noqa: A002
    return _make_clamp(min)


def _make_clamp_max(max):  # noqa: A002
    return _make_clamp(None, max)


def _make_softmax(dim=None, _stacklevel=3, dtype=None):
    _check_columns(dim, dtype)
    return nn.Softmax(-1)


def _make_log_softmax(dim=None, _stacklevel=3, dtype=None):
    _check_columns(dim, dtype)
    return nn.LogSoftmax(-1)


def _check_columns(dim, dtype=None):
    if dim not in (1, -1) or dtype is not None:
        raise Unreadable("it has a softmax over other dimensions than the columns")


def _keep_table(start_dim=0, end_dim=-1):
    """Flatten a table from its columns on, which changes nothing."""
    if start_dim not in (1, -1) or end_dim not in (1, -1):
        raise Unreadable("it flattens the rows, too")


def _keep():
    """Leave a tensor as it is."""


def _make_dropout(function):
    """Return a function that makes the calls of a dropout function of torch's."""
    by_channel = function in CHANNEL_FUNCTIONS
    n_dimensions = BATCH_DIMENSIONS.get(function)

    def make(p=0.5, training=True, inplace=False, *, train=None):
        """Return a dropout in training; in evaluation the tensor stays as it is."""
        if not (training if train is None else train):
            return None
        if not 0 <= p < 1:
            raise Unreadable("it drops all units")
        return FunctionDropout(p, by_channel, n_dimensions)

    return make


def _refuse_dropout(*args, **kwargs):
    raise Unreadable(
        "it calls a dropout function whose masks do not follow from the seed: use nn.Dropout"
    )


_RELU = _make(nn.ReLU)
_SILU = _make(nn.SiLU)
_TANH = _make(nn.Tanh)
_SIGMOID = _make(nn.Sigmoid)
_SELU = _make(nn.SELU)

FUNCTIONS = {
    F.relu: _RELU,
    torch.relu: _RELU,
    torch.relu_: _RELU,
    F.leaky_relu: _make_leaky_relu,
    F.elu: _make_elu,
    F.gelu: _make_gelu,
    F.silu: _SILU,
    F.tanh: _TANH,
    torch.tanh: _TANH,
    torch.tanh_: _TANH,
    F.sigmoid: _SIGMOID,
    torch.sigmoid: _SIGMOID,
    torch.sigmoid_: _SIGMOID,
    torch.special.expit: _SIGMOID,
    F.mish: _make(nn.Mish),
    F.hardswish: _make(nn.Hardswish),
    F.hardsigmoid: _make(nn.Hardsigmoid),
    F.selu: _SELU,
    torch.selu: _SELU,
    torch.selu_: _SELU,
    F.celu: _make_celu,
    torch.celu: _make_celu,
    torch.celu_: _make_celu,
    F.relu6: _make(nn.ReLU6),
    F.hardtanh: _make_hardtanh,
    F.softplus: _make_softplus,
    F.logsigmoid: _make(nn.LogSigmoid),
    F.softsign: _make(nn.Softsign),
    F.tanhshrink: _make(nn.Tanhshrink),
    F.softshrink: _make_softshrink,
    F.hardshrink: _make_hardshrink,
    torch.hardshrink: _make_hardshrink,
    F.threshold: _make_threshold,
    torch.threshold: _make_threshold,
    torch.clamp: _make_clamp,
    torch.clip: _make_clamp,
    torch.clamp_min: _make_clamp_min,
    torch.clamp_max: _make_clamp_max,
    F.softmax: _make_softmax,
    torch.softmax: _make_softmax,
    F.log_softmax: _make_log_softmax,
    torch.log_softmax: _make_log_softmax,
    torch.flatten: _keep_table,
    torch.clone: _keep,
    **{function: _make_dropout(function) for function in DROPOUT_FUNCTIONS},
    F.alpha_dropout: _refuse_dropout,
    torch.alpha_dropout: _refuse_dropout,
    F.feature_alpha_dropout: _refuse_dropout,
    torch.feature_alpha_dropout: _refuse_dropout,
}
METHODS = {
    "relu": _RELU,
    "relu_": _RELU,
    "tanh": _TANH,
    "tanh_": _TANH,
    "sigmoid": _SIGMOID,
    "sigmoid_": _SIGMOID,
    "hardshrink": _make_hardshrink,
    "clamp": _make_clamp,
    "clamp_": _make_clamp,
    "clip": _make_clamp,
    "clip_": _make_clamp,
    "clamp_min": _make_clamp_min,
    "clamp_max": _make_clamp_max,
    "softmax": _make_softmax,
    "log_softmax": _make_log_softmax,
    "flatten": _keep_table,
    "contiguous": _keep,
    "clone": _keep,
}
# Methods that cast, by the type to which they do.
CASTS = {"float": torch.float32, "double": torch.float64}


def read_call(table, target, name, args, kwargs):
    """Return the layer of a function or a method, or None if it changes nothing.

    Parameters
    ----------
    table : dict
        ``FUNCTIONS`` or ``METHODS``.
    target : callable or str
        What is looked up.
    name : str
        What it is called in an error.
    args, kwargs
        What it is called with beside the tensor.
    """
    make = table.get(target)
    if make is None:
        raise Unreadable(f"it computes {name}")
    try:
        return make(*args, **kwargs)
    except TypeError:
        raise Unreadable(f"it calls {name} with other arguments than expected") from None


def read_layer(layer, name):
    """Return the layer that computes what a layer of a module does; None if it changes nothing.

    Parameters
    ----------
    layer : nn.Module
    name : str
        What it is called in an error.
    """
    if type(layer) in (nn.Linear, nn.BatchNorm1d):
        return layer
    if type(layer) is nn.LayerNorm:
        if len(layer.normalized_shape) != 1:
            raise Unreadable(f"its layer {name} normalizes more than columns")
        return layer
    if isinstance(layer, HashedDropout):
        if layer.by_channel:
            raise Unreadable(f"its layer {name} drops whole channels")
        return layer
    if type(layer) is nn.Identity:
        return None
    if type(layer) is nn.Flatten:
        return _keep_table(layer.start_dim, layer.end_dim)
    if type(layer) in ENDINGS:
        _check_columns(layer.dim)
        return type(layer)(-1)
    if type(layer) in [activation.layer for activation in ACTIVATIONS.values()]:
        return _without_writing(layer)
    raise Unreadable(f"its layer {name} is a {type(layer).__name__}")


def _without_writing(layer):
    """Return an activation that does not write into its input."""
    if not getattr(layer, "inplace", False):
        return layer
    other = copy(layer)
    other.inplace = False
    return other
