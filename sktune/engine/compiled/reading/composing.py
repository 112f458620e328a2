"""Activations that the kernels make of several layers that they have.

torch rounds 1/6 to float32 in the derivative of ``Hardsigmoid``, whatever the type of the table:
none of the layers here computes that, and it is left to torch.

To compose another one, write its layers in a function of ``_COMPOSED``: each with the places of
what it takes, where 0 is the input of the activation and i what its layer i returned.
"""

import math

import numpy as np
from torch import nn

from sktune.modules.tracing.links import Add, OpenLink, Product, Scale


def compose(links):
    """Return links of layers that the kernels have, which compute what opened links do.

    Parameters
    ----------
    links : list of OpenLink

    Returns
    -------
    links : list of OpenLink
    """
    composed = []
    # for the input and for each of the links: the value that it has among those returned
    numbers = [0]
    for link in links:
        sources = tuple(numbers[source] for source in link.sources)
        make = _COMPOSED.get(type(link.layer))
        layers = make and make(link.layer)
        if not layers:
            composed.append(link._replace(sources=sources))
        else:
            first = len(composed)
            for layer, places in layers:
                taken = tuple(first + place if place else sources[0] for place in places)
                composed.append(OpenLink(link.name, layer, taken))
        numbers.append(len(composed))
    return composed


def _make_selu(layer):
    # Klambauer et al. 2017, as torch rounds the two numbers
    alpha, scale = 1.6732632423543772, 1.0507009873554805
    return [(nn.ELU(alpha), (0,)), (Scale(scale), (1,))]


def _make_celu(layer):
    # torch rounds 1 / alpha to float32 in its derivative, whatever the type of the table
    inverse = 1 / layer.alpha if layer.alpha > 0 else math.nan
    if float(np.float32(inverse)) != inverse:
        return None
    return [(Scale(inverse), (0,)), (nn.ELU(), (1,)), (Scale(layer.alpha), (2,))]


def _make_relu6(layer):
    return [(nn.Hardtanh(0.0, 6.0), (0,))]


def _make_hardswish(layer):
    return [(Scale(1 / 6, 0.5), (0,)), (nn.Hardtanh(0.0, 1.0), (1,)), (Product(), (0, 2))]


def _make_logsigmoid(layer):
    softplus = nn.Softplus(threshold=math.inf)
    return [(Scale(-1.0), (0,)), (softplus, (1,)), (Scale(-1.0), (2,))]


def _make_tanhshrink(layer):
    return [(nn.Tanh(), (0,)), (Add(1.0, -1.0), (0, 1))]


def _make_gelu(layer):
    """Return torch's approximation by a tanh: x sigmoid(2 u), of u = sqrt(2/pi) (x + a x**3)."""
    if layer.approximate == "none":
        return None
    twice = 2 * math.sqrt(2 / math.pi)
    square = (Product(), (0, 0))
    inner = [square, (Scale(0.044715 * twice, twice), (1,)), (Product(), (0, 2))]
    return [*inner, (nn.Sigmoid(), (3,)), (Product(), (0, 4))]


_COMPOSED = {
    nn.SELU: _make_selu,
    nn.CELU: _make_celu,
    nn.ReLU6: _make_relu6,
    nn.Hardswish: _make_hardswish,
    nn.LogSigmoid: _make_logsigmoid,
    nn.Tanhshrink: _make_tanhshrink,
    nn.GELU: _make_gelu,
}
