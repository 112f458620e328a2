"""The activations that are known by name: the one table that all other code reads.

To add an activation, add an entry to ``ACTIVATIONS``. The :class:`~sktune.MLP` then takes its name,
and single fits and fused searches train it. Compiled steps train it as well if
``engine/compiled/opcodes.py`` has an opcode of that name, in capitals, and ``activate`` of
``engine/compiled/activations.py`` has a branch for it.
"""

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, field
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
        The name, or that of the closest relative, under which
        :func:`torch.nn.init.calculate_gain` knows it.
    aliases : tuple of str, default=()
        What other libraries call it.
    option : str, default=None
        The attribute of the layer, a number, that compiled steps read.
    compiled_form : mapping of str to object, default={}
        The values that other attributes of the layer must have for the compiled steps.
    """

    layer: type[nn.Module]
    gain: str
    aliases: tuple[str, ...] = ()
    option: str | None = None
    compiled_form: Mapping[str, object] = field(default_factory=dict)


ACTIVATIONS = {
    "relu": Activation(nn.ReLU, gain="relu"),
    "leaky_relu": Activation(nn.LeakyReLU, gain="leaky_relu", option="negative_slope"),
    "elu": Activation(nn.ELU, gain="selu", option="alpha"),
    "gelu": Activation(nn.GELU, gain="relu", compiled_form={"approximate": "none"}),
    "silu": Activation(nn.SiLU, gain="relu", aliases=("swish",)),
    "tanh": Activation(nn.Tanh, gain="tanh"),
    "sigmoid": Activation(nn.Sigmoid, gain="sigmoid", aliases=("logistic",)),
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
    layer = make_layer()
    name = find_name(layer)
    if name is not None:
        return nn.init.calculate_gain(ACTIVATIONS[name].gain)
    # Of the other activations, torch has a gain for this one only.
    return nn.init.calculate_gain("selu" if isinstance(layer, nn.SELU) else "linear")
