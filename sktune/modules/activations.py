"""The activations that the default module knows by name."""

from copy import deepcopy
from functools import partial

from torch import nn

from sktune.runtime.names import check_name

ACTIVATIONS = {
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "elu": nn.ELU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
}
# What MLPClassifier and Keras call them. An identity is no layer at all.
IDENTITY = nn.Identity
_ALIASES = {"logistic": "sigmoid", "swish": "silu", "linear": "identity"}
_GAINS = {
    "gelu": "relu",
    "silu": "relu",
    "elu": "selu",
}  # torch's calculate_gain knows no closer name


def find_activation(activation):
    """Return what makes a layer of an activation: a class, or of an instance what copies it."""
    if isinstance(activation, type) and issubclass(activation, nn.Module):
        return activation
    if isinstance(activation, nn.Module):
        return IDENTITY if type(activation) is IDENTITY else partial(deepcopy, activation)
    names = {_simplify(name): kind for name, kind in ACTIVATIONS.items()} | {"identity": IDENTITY}
    name = _simplify(activation) if isinstance(activation, str) else None
    found = names.get(_simplify(_ALIASES.get(name, name or "")))
    if found is None:
        known = sorted({*ACTIVATIONS, *_ALIASES, "identity"})
        check_name("activation", activation, known)
    return found


def _simplify(name):
    return name.lower().replace("_", "").replace("-", "")


def find_gain(make_activation):
    """Return torch's gain for an activation; 1 where it knows none."""
    layer = make_activation()
    name = next((name for name, kind in ACTIVATIONS.items() if kind is type(layer)), None)
    name = name or ("selu" if isinstance(layer, nn.SELU) else "linear")
    return nn.init.calculate_gain(_GAINS.get(name, name))
