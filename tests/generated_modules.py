"""Modules that hypothesis draws: random graphs of layers, each written in a random way."""

from dataclasses import dataclass

import torch
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

# Columns of the tables; column 0 is a category.
N_FEATURES = 6
N_CATEGORIES = 4
LAYERS = {
    "relu": nn.ReLU,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
    "silu": nn.SiLU,
    "gelu": nn.GELU,
    "elu": nn.ELU,
    "softplus": nn.Softplus,
    "leaky_relu": nn.LeakyReLU,
    "softsign": nn.Softsign,
    "hardswish": nn.Hardswish,
}
WITH_OPTIONS = {
    "leaky_relu": lambda X: F.leaky_relu(X, negative_slope=0.3),
    "elu": lambda X: F.elu(X, alpha=0.7),
    "gelu": lambda X: F.gelu(X, approximate="tanh"),
    "softplus": lambda X: F.softplus(X, 2.0, threshold=3.0),
}
METHODS = {"relu": ("relu", "relu_"), "tanh": ("tanh", "tanh_"), "sigmoid": ("sigmoid", "sigmoid_")}
ACTIVATION_STYLES = ["layer", "function", "options", "method", "in place", "new layer", "made"]
SUMS = ["operator", "function", "alpha", "method", "in place", "difference"]
NORMS = ["plain", "no affine", "other eps", "twice"]
DROPOUTS = ["layer", "shared", "function", "torch", "columns", "rows", "if training"]
WRITTEN = ["attributes", "list", "dict", "nested"]
KINDS = {
    "linear": ["plain", "no bias", "again", "tied"],
    "activation": ACTIVATION_STYLES,
    "dropout": DROPOUTS,
    "batch norm": NORMS,
    "layer norm": NORMS,
    "sum": SUMS,
    "product": ["operator", "function", "method", "gate", "in place"],
    "cat": ["cat", "hstack", "with input"],
    "slice": ["first", "last", "middle", "chunk", "glu"],
    "scale": ["times", "plus", "negative", "by", "minus"],
    "embedding": ["one", "again"],
    "clamp": ["both", "min", "max"],
    "sequential": ["plain", "nested"],
    "keep": ["identity", "flatten", "view", "contiguous", "reshape", "layer"],
    # layers that nothing calls
    "idle": ["linear", "tied", "embedding", "batch norm", "layer norm", "dropout"],
}


@dataclass(frozen=True)
class Plan:
    """What a module computes, and how it is written.

    Attributes
    ----------
    steps : tuple of (str, str, int, int)
        Kind, style, and two numbers that choose widths, layers and operands.
    written : str
        One of ``WRITTEN``: where the module has its layers.
    ending : str
        ``"none"``, ``"softmax"`` or ``"log_softmax"``.
    is_wide : bool
        Whether it computes in float64.
    """

    steps: tuple
    written: str = "attributes"
    ending: str = "none"
    is_wide: bool = True

    def has(self, kind):
        """Tell whether a step is of a kind."""
        return any(step[0] == kind for step in self.steps)

    def without(self, *kinds):
        """Return the plan without the steps of some kinds."""
        steps = tuple(step for step in self.steps if step[0] not in kinds)
        return Plan(steps, self.written, self.ending, self.is_wide)


@st.composite
def plans(draw, max_size=9):
    """Draw a plan."""
    steps = []
    for _ in range(draw(st.integers(0, max_size))):
        kind = draw(st.sampled_from(list(KINDS)))
        style = draw(st.sampled_from(KINDS[kind]))
        steps.append((kind, style, draw(st.integers(0, 9)), draw(st.integers(0, 9))))
    return Plan(
        tuple(steps),
        draw(st.sampled_from(WRITTEN)),
        draw(st.sampled_from(["none", "none", "softmax", "log_softmax"])),
        draw(st.booleans()),
    )


def activate(X, which, style, layer):
    """Return an activation of X, written in one of ``ACTIVATION_STYLES``."""
    if style == "function":
        return getattr(F, which)(X)
    if style == "options" and which in WITH_OPTIONS:
        return WITH_OPTIONS[which](X)
    if style == "method" and which in METHODS:
        return getattr(X, METHODS[which][0])()
    if style == "in place" and which in METHODS:
        return getattr(X.clone(), METHODS[which][1])()
    return LAYERS[which]()(X) if style == "made" else layer(X)


def add(X, other, style):
    """Return a sum or a difference, written in one of ``SUMS``."""
    if style == "function":
        return torch.add(X, other)
    if style == "alpha":
        return torch.add(X, other, alpha=0.5)
    if style == "method":
        return X.add(other)
    if style == "in place":
        X = X.clone()
        X += other
        return X
    return X - other if style == "difference" else X + other


def close(X, ending):
    """Return outputs as they are, or their softmax."""
    if ending == "softmax":
        return torch.softmax(X, dim=-1)
    return F.log_softmax(X, dim=1) if ending == "log_softmax" else X


class Layers(nn.Module):
    """The layers of a plan, kept as the plan is written."""

    def __init__(self, written, names_and_layers):
        super().__init__()
        self.written = written
        if written == "list":
            self.names = {name: n for n, name in enumerate(names_and_layers)}
            self.all = nn.ModuleList(names_and_layers.values())
        elif written == "dict":
            self.all = nn.ModuleDict(names_and_layers)
        else:
            for name, layer in names_and_layers.items():
                setattr(self, name, layer)

    def find(self, name):
        """Return a layer by its name."""
        if self.written == "list":
            return self.all[self.names[name]]
        return self.all[name] if self.written == "dict" else getattr(self, name)


class Generated(Layers):
    """A module that computes what a plan says.

    Parameters
    ----------
    plan : Plan
    n_outputs : int
    dropout : float, default=0.3
        The rate of all dropout.
    """

    def __init__(self, plan, n_outputs, dropout=0.3):
        self.dtype = torch.float64 if plan.is_wide else torch.float32
        self.plan = plan
        self.dropout = dropout
        maker = _Maker(plan, n_outputs, dropout, self.dtype)
        layers = maker.make()
        self.jobs = tuple(maker.jobs)
        if plan.written == "nested":
            super().__init__("attributes", {"inner": Layers("attributes", layers)})
        else:
            super().__init__(plan.written, layers)

    def find(self, name):
        """Return a layer by its name, of the inner module where there is one."""
        return self.inner.find(name) if self.plan.written == "nested" else super().find(name)

    def forward(self, X):
        """Return the outputs for a table (B, F)."""
        values = [X]
        for kind, style, name, source in self.jobs:
            last = values[-1]
            compute = getattr(self, "_" + kind.replace(" ", "_"))
            other = values[source] if source is not None else None
            values.append(compute(style, name, last, other))
        return close(self.find("output")(values[-1]), self.plan.ending)

    def _linear(self, style, name, X, other):
        return self.find(name)(X)

    _sequential = _batch_norm = _linear

    def _layer_norm(self, style, name, X, other):
        layer = self.find(name)
        return layer(layer(X)) if style == "twice" else layer(X)

    def _activation(self, style, name, X, other):
        which, layer = name
        return activate(X, which, style, self.find(layer))

    def _dropout(self, style, name, X, other):
        if style == "function":
            return F.dropout(X, self.dropout, training=self.training)
        if style == "torch":
            return torch.dropout(X, p=self.dropout, train=self.training)
        if style == "columns":
            return torch.feature_dropout(X, self.dropout, self.training)
        if style == "rows":
            return F.dropout1d(X, self.dropout, self.training)
        if style == "if training":
            return self.find(name)(X) if self.training else X
        return self.find(name)(X)

    def _sum(self, style, name, X, other):
        return add(X, other, style)

    def _product(self, style, name, X, other):
        if style == "function":
            return torch.mul(X, other)
        if style == "method":
            return X.mul(other)
        if style == "gate":
            return X * torch.sigmoid(other)
        if style == "in place":
            X = X.clone()
            X *= torch.tanh(other)
            return X
        return X * other

    def _cat(self, style, name, X, other):
        if style == "hstack":
            return torch.hstack([X, other])
        return torch.cat((other, X), dim=-1 if style == "cat" else 1)

    def _slice(self, style, n, X, other):
        if style == "first":
            return X[:, :n]
        if style == "last":
            return X[:, -n:]
        if style == "chunk":
            return torch.chunk(X, 2, dim=1)[1]
        return F.glu(X) if style == "glu" else X[:, 1:-1]

    def _scale(self, style, factor, X, other):
        if style == "times":
            return factor * X
        if style == "plus":
            return X + factor
        if style == "by":
            return X / factor
        return -X if style == "negative" else 1 - X

    def _embedding(self, style, name, X, other):
        keys = other[:, 0].long()
        return torch.cat([self.find(name)(keys), X], dim=1)

    def _clamp(self, style, bound, X, other):
        if style == "both":
            return X.clamp(-bound, bound)
        return torch.clamp(X, min=-bound) if style == "min" else torch.clamp(X, max=bound)

    def _keep(self, style, name, X, other):
        if style == "flatten":
            return X.flatten(1)
        if style == "view":
            return X.contiguous().view(X.size(0), -1)
        if style == "reshape":
            return X.reshape(X.shape[0], -1)
        return X.contiguous() if style == "contiguous" else self.find(name)(X)


class _Maker:
    """Makes the layers of a plan, and resolves which operands each step takes."""

    def __init__(self, plan, n_outputs, dropout, dtype):
        self.plan, self.n_outputs, self.dropout, self.dtype = plan, n_outputs, dropout, dtype
        self.widths = [N_FEATURES]
        self.layers = {}
        self.jobs = []

    def make(self):
        self.layers["shared"] = nn.Dropout(self.dropout)
        for kind, style, a, b in self.plan.steps:
            width = self.widths[-1]
            result = getattr(self, "_" + kind.replace(" ", "_"))(style, a, b, width)
            if result is not None:
                name, source, new_width = result
                self.jobs.append((kind, style, name, source))
                self.widths.append(new_width)
        self.layers["output"] = nn.Linear(self.widths[-1], self.n_outputs, dtype=self.dtype)
        return self.layers

    def _add(self, layer):
        name = f"layer{len(self.layers)}"
        self.layers[name] = layer
        return name

    def _find_linears(self, *shape):
        """Return the names of linear layers whose first sizes are these."""
        return [
            name
            for name, layer in self.layers.items()
            if type(layer) is nn.Linear
            and (layer.in_features, layer.out_features)[: len(shape)] == shape
        ]

    def _linear(self, style, a, b, width):
        known = self._find_linears(width)
        if style == "again" and known:
            name = known[b % len(known)]
            return name, None, self.layers[name].out_features
        layer = nn.Linear(width, 3 + a, bias=style != "no bias", dtype=self.dtype)
        known = self._find_linears(width, 3 + a)
        if style == "tied" and known:
            layer.weight = self.layers[known[b % len(known)]].weight
        return self._add(layer), None, 3 + a

    def _sequential(self, style, a, b, width):
        parts = [nn.Linear(width, 3 + b, dtype=self.dtype), nn.Tanh(), nn.Dropout(self.dropout)]
        if style == "nested":
            parts = [nn.Sequential(*parts), nn.Linear(3 + b, 3 + b, dtype=self.dtype)]
        return self._add(nn.Sequential(*parts)), None, 3 + b

    def _activation(self, style, a, b, width):
        which = list(LAYERS)[a % len(LAYERS)]
        name = which
        if style == "new layer":
            name = self._add(LAYERS[which]())
        elif which not in self.layers:
            inplace = {"inplace": True} if which in ("relu", "silu", "elu") and b == 0 else {}
            self.layers[which] = LAYERS[which](**inplace)
        return (which, name), None, width

    def _dropout(self, style, a, b, width):
        name = self._add(nn.Dropout(self.dropout)) if style == "layer" else "shared"
        return name, None, width

    def _batch_norm(self, style, a, b, width):
        options = {"eps": 1e-2, "momentum": (0.1, 0.4, 0.0)[a % 3], "dtype": self.dtype}
        options["affine"] = style != "no affine"
        options["track_running_stats"] = b != 0
        return self._add(nn.BatchNorm1d(width, **options)), None, width

    def _layer_norm(self, style, a, b, width):
        if width < 3:
            return None
        options = {"eps": 1e-2, "elementwise_affine": style != "no affine", "dtype": self.dtype}
        return self._add(nn.LayerNorm(width, bias=b != 0, **options)), None, width

    def _choose_operand(self, number, width):
        alike = [n for n, other in enumerate(self.widths) if other == width]
        return alike[number % len(alike)]

    def _sum(self, style, a, b, width):
        return None, self._choose_operand(b, width), width

    _product = _sum

    def _cat(self, style, a, b, width):
        source = 0 if style == "with input" else b % len(self.widths)
        both = width + self.widths[source]
        return (None, source, both) if both <= 40 else None

    def _slice(self, style, a, b, width):
        if width < 6:
            return None
        n = 3 + a % (width - 3)
        if style in ("chunk", "glu"):
            return (None, None, width // 2) if width % 2 == 0 else None
        return n, None, width - 2 if style == "middle" else n

    def _scale(self, style, a, b, width):
        return 0.5 + a / 5, None, width

    def _embedding(self, style, a, b, width):
        tables = [name for name in self.layers if type(self.layers[name]) is nn.Embedding]
        if style == "again" and tables:
            name = tables[b % len(tables)]
        else:
            options = {"padding_idx": 1} if b == 0 else {}
            table = nn.Embedding(N_CATEGORIES, 1 + a % 4, dtype=self.dtype, **options)
            name = self._add(table)
        return name, 0, width + self.layers[name].embedding_dim

    def _clamp(self, style, a, b, width):
        return 0.2 + a / 7, None, width

    def _idle(self, style, a, b, width):
        """Add a layer that nothing calls, unless it is a linear one that a later step takes."""
        if style == "linear":
            self._add(nn.Linear(3 + a, 3 + b, dtype=self.dtype))
        elif style == "tied":
            for name in self._find_linears(width):
                layer = self.layers[name]
                other = nn.Linear(layer.in_features, layer.out_features, dtype=self.dtype)
                other.weight = layer.weight
                self._add(other)
                break
        elif style == "embedding":
            self._add(
                nn.Embedding(N_CATEGORIES, 1 + a % 4, 1 if b == 0 else None, dtype=self.dtype)
            )
        elif style == "dropout":
            self._add(nn.Dropout(self.dropout))
        else:
            make = nn.BatchNorm1d if style == "batch norm" else nn.LayerNorm
            self._add(make(3 + a, dtype=self.dtype))

    def _keep(self, style, a, b, width):
        return self._add(nn.Identity()) if style in ("identity", "layer") else None, None, width
