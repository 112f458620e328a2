"""Reading of a module, its criterion and its rows into what the compiled kernels know."""

from collections import Counter
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from sktune.modules.activations import ACTIVATIONS, find_name
from sktune.modules.dropout import HashedDropout
from sktune.modules.reading import is_watched
from sktune.modules.tracing.operations import ENDINGS


class Chain(NamedTuple):
    """A chain of layers as the kernels read it.

    Attributes
    ----------
    links : ndarray (n_layers, 5) of int
        The opcode of each layer. For a linear layer, inputs, outputs, and the positions of its
        weight and its bias among the flat parameters (-1 without bias); for dropout, the number of
        the layer and that of its calls before in a step.
    factors : ndarray (n_layers, 2) of float
        The option of an activation, or the threshold and the scale of a dropout layer.
    n_outputs : int
        The width of the last layer.
    ending : class or None, default=None
        The class of the softmax behind the last of the links.
    """

    links: np.ndarray
    factors: np.ndarray
    n_outputs: int
    ending: type | None = None


def own_their_memory(parameters, module):
    """Tell whether parameters are all those of a module, each in a memory by itself.

    They must also be of one type, and no hook may watch them.
    """
    if sorted(id(p) for p in parameters) != sorted(id(p) for p in module.parameters()):
        return False
    n_memories = len({p.untyped_storage().data_ptr() for p in parameters})
    if n_memories != len(parameters) or len({p.dtype for p in parameters}) != 1:
        return False
    return not any(p.numel() == 0 or is_watched(p) for p in parameters)


def is_readable_table(rows, parameter):
    """Tell whether the kernels read a table: dense, of the parameters' type, on the CPU."""
    X = getattr(rows, "X", None)
    if not isinstance(X, torch.Tensor) or X.ndim != 2 or not X.is_contiguous() or not X.numel():
        return False
    if X.dtype != parameter.dtype or X.dtype not in (torch.float32, torch.float64):
        return False
    if rows.target is None or torch.is_autocast_enabled("cpu"):
        return False
    if torch.is_inference_mode_enabled():
        return False
    return X.device.type == parameter.device.type == "cpu"


def read_chain(kernels, layers, n_features, parameters):
    """Return layers as a :class:`Chain`, or None if the kernels do not compute one of them.

    `parameters` are those of the module, in its order, in which they lie one behind the other.
    """
    links = []
    factors = []
    width = n_features
    starts = _find_starts(parameters)
    calls = Counter()
    ending = None
    for layer in layers.values():
        if isinstance(layer, ENDINGS):
            ending = type(layer)
            continue
        if isinstance(layer, nn.Linear):
            if not _has_usual_parameters(layer, width):
                # its forward complains, or is no product of this kind
                return None
            bias = -1 if layer.bias is None else starts[id(layer.bias)]
            weight = starts[id(layer.weight)]
            links.append((kernels.LINEAR, width, layer.out_features, weight, bias))
            width = layer.out_features
        elif isinstance(layer, HashedDropout):
            links.append((kernels.DROPOUT_LAYER, layer.index, calls[layer.index], 0, 0))
            calls[layer.index] += 1
        else:
            opcode = _find_opcode(kernels, layer)
            if opcode is None:
                return None
            links.append((opcode, 0, 0, 0, 0))
        factors.append((_read_option(layer), 0.0))
    return Chain(np.array(links), np.array(factors), width, ending)


def _find_starts(parameters):
    """Return where each parameter begins among all of them, by its id."""
    starts = {}
    position = 0
    for p in parameters:
        starts[id(p)] = position
        position += p.numel()
    return starts


def _has_usual_parameters(linear, n_inputs):
    """Tell whether a linear layer has the parameters of its class, for a number of inputs."""
    expected = [("weight", (linear.out_features, n_inputs))]
    if linear.bias is not None:
        expected.append(("bias", (linear.out_features,)))
    return [(name, tuple(p.shape)) for name, p in linear.named_parameters()] == expected


def _find_opcode(kernels, layer):
    """Return the kernels' opcode of an activation layer, or None if they do not compute it."""
    name = find_name(layer)
    if name is None:
        return None
    for attribute, value in ACTIVATIONS[name].compiled_form.items():
        if getattr(layer, attribute) != value:
            return None
    return getattr(kernels, name.upper(), None)


def _read_option(layer):
    """Return the number that parametrizes an activation layer; 0 if none does."""
    name = find_name(layer)
    option = None if name is None else ACTIVATIONS[name].option
    return 0.0 if option is None else getattr(layer, option)
