"""The activations that are known by name: the one table that all other code reads.

To add an activation, add an entry to ``ACTIVATIONS``. The :class:`~sktune.MLP` then takes its name,
and single fits and fused searches train it. Compiled steps train it as well if
``engine/compiled/opcodes.py`` has an opcode of that name, in capitals, and ``activate`` of
``engine/compiled/activations/choosing.py`` has a branch for it; or if it is made of others by
``engine/compiled/reading/composing.py``.
"""

from copy import deepcopy
from dataclasses import dataclass
from functools import partial

from torch import nn

from sktune.runtime.names import check_name


@dataclass(frozen=True)
class Activation:
    """What is known of one activation.

    Parameters
    ----------
    layer : subclass of nn.Module
        The layer that computes it. It must keep the shape of its input and have no parameters.
    gain : str
        The name, or that of a close relative, under which
        :func:`torch.nn.init.calculate_gain` knows it.
    aliases : tuple of str, default=()
        What other libraries call it.
    options : tuple of str, default=()
        The attributes of the layer, two numbers at most, that compiled steps read.
    needs_arguments : bool, default=False
        Whether the layer cannot be made without arguments: then it is known by no name.
    """

    layer: type[nn.Module]
    gain: str
    aliases: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    needs_arguments: bool = False


ACTIVATIONS = {
    "relu": Activation(nn.ReLU, gain="relu"),
    "leaky_relu": Activation(nn.LeakyReLU, gain="leaky_relu", options=("negative_slope",)),
    "elu": Activation(nn.ELU, gain="selu", options=("alpha",)),
    "gelu": Activation(nn.GELU, gain="relu"),
    "silu": Activation(nn.SiLU, gain="relu", aliases=("swish",)),
    "tanh": Activation(nn.Tanh, gain="tanh"),
    "sigmoid": Activation(nn.Sigmoid, gain="sigmoid", aliases=("logistic",)),
    "mish": Activation(nn.Mish, gain="linear"),
    "hardswish": Activation(nn.Hardswish, gain="linear"),
    "selu": Activation(nn.SELU, gain="selu"),
    "celu": Activation(nn.CELU, gain="linear"),
    "softplus": Activation(nn.Softplus, gain="linear", options=("beta", "threshold")),
    "softsign": Activation(nn.Softsign, gain="linear"),
    "relu6": Activation(nn.ReLU6, gain="linear"),
    "hardtanh": Activation(nn.Hardtanh, gain="linear", options=("min_val", "max_val")),
    "hardsigmoid": Activation(nn.Hardsigmoid, gain="linear"),
    "logsigmoid": Activation(nn.LogSigmoid, gain="linear"),
    "tanhshrink": Activation(nn.Tanhshrink, gain="linear"),
    "softshrink": Activation(nn.Softshrink, gain="linear", options=("lambd",)),
    "hardshrink": Activation(nn.Hardshrink, gain="linear", options=("lambd",)),
    "threshold": Activation(
        nn.Threshold, gain="linear", options=("threshold", "value"), needs_arguments=True
    ),
}
# An MLP leaves the identity out, and a chain of layers that is read does not hold it.
IDENTITY = Activation(nn.Identity, gain="linear", aliases=("linear",))


def find_activation(activation):
    """Return a callable that makes a new layer of an activation.

    Parameters
    ----------
    activation : str, subclass of nn.Module or nn.Module
        A name or an alias in any case, with or without ``_`` and ``-``; a class; or a layer, which
        is copied.

    Returns
    -------
    make_layer : callable
        It is ``nn.Identity`` for every way to ask for no activation.
    """
    if isinstance(activation, type) and issubclass(activation, nn.Module):
        return activation
    if isinstance(activation, nn.Module):
        if type(activation) is IDENTITY.layer:
            return IDENTITY.layer
        return partial(deepcopy, activation)

    layers = _list_names()
    simple_layers = {_simplify(name): layer for name, layer in layers.items()}
    layer = simple_layers.get(_simplify(activation)) if isinstance(activation, str) else None
    if layer is None:
        check_name("activation", activation, list(layers))
    return layer


def _list_names():
    """Return the layer of each name and of each alias."""
    layers = {}
    for name, entry in {**ACTIVATIONS, "identity": IDENTITY}.items():
        if entry.needs_arguments:
            continue
        for known in (name, *entry.aliases):
            layers[known] = entry.layer
    return layers


def _simplify(name):
    return name.lower().replace("_", "").replace("-", "")


def find_name(layer):
    """Return the name of a layer's activation, or None if its class is not in the table."""
    for name, entry in ACTIVATIONS.items():
        if type(layer) is entry.layer:
            return name
    return None


def find_gain(make_layer):
    """Return torch's gain for the activation that is made; 1 where torch knows none."""
    name = find_name(make_layer())
    return 1.0 if name is None else nn.init.calculate_gain(ACTIVATIONS[name].gain)
