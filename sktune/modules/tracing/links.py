"""What was read of a module: its operations as a list, each with the values that it takes."""

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional as F


class Link(NamedTuple):
    """An operation on tables of rows.

    Value 0 is the input of the module, value i what link i - 1 returns, and the last value is what
    the module returns.

    Attributes
    ----------
    name : str
        The name of the layer in the module; of a function, one that no layer has.
    layer : callable or None
        What computes it: a layer, or one of the classes of this file. None if it is the layer of
        the module of that name.
    sources : tuple of int
        The values that it is called with.
    columns : tuple of int or None
        For an embedding: the columns of the input that it looks up.
    shape : tuple of int or None
        For a layer that takes images: the shape of a row.
    """

    name: str
    layer: object
    sources: tuple
    columns: tuple | None = None
    shape: tuple | None = None


class OpenLink(NamedTuple):
    """A link of a certain module.

    Attributes
    ----------
    name : str
    layer : callable
    sources : tuple of int
    """

    name: str
    layer: object
    sources: tuple


@dataclass(frozen=True)
class Add:
    """The sum of two tables, each times a factor."""

    first: float = 1.0
    second: float = 1.0

    def __call__(self, a, b):
        """Return the sum for tables (B, F)."""
        return self.first * a + self.second * b


@dataclass(frozen=True)
class Product:
    """The product of two tables, element by element."""

    def __call__(self, a, b):
        """Return the product for tables (B, F)."""
        return a * b


@dataclass(frozen=True)
class Concatenation:
    """Tables side by side."""

    def __call__(self, *tables):
        """Return a table of all columns."""
        return torch.cat(tables, dim=1)


@dataclass(frozen=True)
class Columns:
    """Some neighbouring columns of a table."""

    start: int
    stop: int

    def __call__(self, X):
        """Return the columns of a table (B, F)."""
        return X[:, self.start : self.stop]


@dataclass(frozen=True)
class Scale:
    """A table times a number, plus a number."""

    factor: float = 1.0
    offset: float = 0.0

    def __call__(self, X):
        """Return a table of the shape of X."""
        return X * self.factor + self.offset


@dataclass(frozen=True)
class Clamp:
    """A table whose numbers are limited to between two others, at which the derivative is 1."""

    low: float = -math.inf
    high: float = math.inf

    def __call__(self, X):
        """Return a table of the shape of X."""
        return X.clamp(self.low, self.high)


@dataclass(frozen=True)
class FunctionDropout:
    """A call of a dropout function in training, with a rate of at least 0 and less than 1.

    `by_channel` tells whether it drops whole channels, and `n_dimensions` how many dimensions a
    batch has for it; see :func:`~sktune.modules.dropout.find_channels`.
    """

    p: float
    by_channel: bool = False
    n_dimensions: int | None = None

    def __call__(self, X):
        """Return X without some of its numbers or channels, the others scaled."""
        if self.by_channel:
            return torch.feature_dropout(X, self.p, True)
        return F.dropout(X, self.p, True)


@dataclass(frozen=True)
class Lookup:
    """The rows of an embedding that stand in columns of the input, side by side."""

    layer: nn.Embedding
    columns: tuple

    def __call__(self, X):
        """Return a table (B, columns * dimensions)."""
        return self.layer(X[:, list(self.columns)].long()).flatten(1)


@dataclass(frozen=True)
class OnImages:
    """A layer that takes rows in a shape of their own, such as (channels, height, width)."""

    layer: nn.Module
    shape: tuple

    def __call__(self, X):
        """Return a table, in which what the layer returns for a row lies flat."""
        return self.layer(X.reshape(len(X), *self.shape)).flatten(1)


def open_links(module, links):
    """Return the links of a module, with its own layers, as a list of :class:`OpenLink`."""
    opened = []
    for link in links:
        layer = module.get_submodule(link.name) if link.layer is None else link.layer
        if link.columns is not None:
            layer = Lookup(layer, link.columns)
        if link.shape is not None:
            layer = OnImages(layer, link.shape)
        opened.append(OpenLink(link.name, layer, link.sources))
    return opened


def name_parameter(layer, parameter):
    """Return the name of a layer's parameter in a module, which may be the layer itself."""
    return f"{layer}.{parameter}" if layer else parameter


def list_idle(module, links):
    """Return the names of the parameters that belong to no layer of opened links."""
    used = set()
    for link in links:
        layer = getattr(link.layer, "layer", link.layer)
        if isinstance(layer, nn.Module):
            used.update(map(id, layer.parameters()))
    return [name for name, p in module.named_parameters() if id(p) not in used]


def compute(links, X):
    """Return what opened links make of a table."""
    values = [X]
    for link in links:
        values.append(link.layer(*(values[source] for source in link.sources)))
    return values[-1]


def open_layers(module, links):
    """Return the layers of a chain by name, in their order.

    A layer that stands in it a second time gets another name.
    """
    layers = {}
    for link in open_links(module, links):
        name = link.name
        while name in layers:
            name += "+"
        layers[name] = link.layer
    return layers
