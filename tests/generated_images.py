"""Modules on images that hypothesis draws: random graphs of layers that look through windows."""

from dataclasses import dataclass

import torch
from generated_modules import ACTIVATION_STYLES, LAYERS, SUMS, activate, add, close
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

KINDS = {
    "conv": ["plain", "plain", "no bias", "same", "valid", "groups", "again", "tied", "nested"],
    "max pool": ["layer", "function", "adaptive layer", "adaptive function"],
    "average pool": ["layer", "function", "adaptive layer", "adaptive function"],
    "batch norm": ["plain", "no affine", "no statistics", "average"],
    "layer norm": ["plain", "no affine"],
    "dropout": [
        "layer",
        "function",
        "channels",
        "channels twice",
        "channels by function",
        "channels in place",
        "channels of torch",
    ],
    "activation": ACTIVATION_STYLES,
    "sum": [*SUMS, "itself"],
    "product": ["operator", "function", "gate", "in place"],
    "cat": ["cat", "hstack", "with input"],
    "scale": ["times", "plus", "negative", "clamp"],
    "view": ["there and back", "sizes", "shape", "unsqueeze", "unflatten", "rows", "lines"],
    "linear": ["plain"],
}
ENDINGS = ["flatten", "layer", "view", "sizes", "reshape", "mean", "global average", "hidden"]
INPUTS = ["images", "images", "sequences", "images of a table", "sequences of a table"]
# A value has at most so many numbers in a row.
MOST_NUMBERS = 900
# How many numbers choose the options of a step.
N_CHOICES = 9


@dataclass(frozen=True)
class ImagePlan:
    """What a module on images computes, and how it is written.

    Attributes
    ----------
    source : str
        One of ``INPUTS``.
    shape : tuple of int
        That of a row: (channels, places), or (channels, height, width).
    steps : tuple of (str, str, tuple of int)
        Kind, style, and numbers that choose the options.
    written : str
        One of ``ENDINGS``: how the images become a table.
    ending : str
        ``"none"``, ``"softmax"`` or ``"log_softmax"``.
    is_wide : bool
        Whether it computes in float64.
    """

    source: str
    shape: tuple
    steps: tuple
    written: str = "flatten"
    ending: str = "none"
    is_wide: bool = True

    def has(self, kind):
        """Tell whether a step is of a kind."""
        return any(step[0] == kind for step in self.steps)

    @property
    def is_normalized(self):
        """Tell whether a normalization takes away what a bias before it would add."""
        return self.has("batch norm") or self.has("layer norm")


@st.composite
def image_plans(draw, max_size=7):
    """Draw a plan."""
    source = draw(st.sampled_from(INPUTS))
    n_dimensions = 1 if source.startswith("sequences") else 2
    shape = [draw(st.integers(1, 4)), *(draw(st.integers(4, 9)) for _ in range(n_dimensions))]
    steps = []
    for _ in range(draw(st.integers(1, max_size))):
        kind = draw(st.sampled_from(["conv", *KINDS]))
        style = draw(st.sampled_from(KINDS[kind]))
        choices = draw(st.tuples(*[st.integers(0, 11)] * N_CHOICES))
        steps.append((kind, style, choices))
    return ImagePlan(
        source,
        tuple(shape),
        tuple(steps),
        draw(st.sampled_from(ENDINGS)),
        draw(st.sampled_from(["none", "none", "softmax", "log_softmax"])),
        draw(st.booleans()),
    )


class GeneratedImages(nn.Module):
    """A module that computes what a plan says.

    Parameters
    ----------
    plan : ImagePlan
    n_outputs : int
    dropout : float, default=0.3
        The rate of all dropout.
    """

    def __init__(self, plan, n_outputs, dropout=0.3):
        super().__init__()
        self.plan = plan
        self.dropout = dropout
        self.layers = nn.ModuleDict()
        maker = _Maker(self)
        self.jobs = tuple(maker.make(n_outputs))
        self.to(torch.float64 if plan.is_wide else torch.float32)
        self.train()

    def forward(self, X):
        """Return the outputs for images (B, C, ...), or for a table of them (B, F)."""
        values = [self.see(X)]
        for job in self.jobs:
            values.append(self.compute(job, values))
        table = self.flatten(values[-1])
        return close(self.layers["output"](table), self.plan.ending)

    def see(self, X):
        """Return the images that the module takes, or those of a table."""
        if not self.plan.source.endswith("of a table"):
            return X
        if self.plan.written in ("view", "sizes"):
            return X.view(X.size(0), *self.plan.shape)
        if self.plan.written == "layer":
            return nn.Unflatten(1, self.plan.shape)(X)
        return X.reshape(-1, *self.plan.shape)

    def compute(self, job, values):
        """Return what a step makes of the values before it."""
        kind, style, name, source = job
        other = values[source] if source is not None else None
        return getattr(self, "_" + kind.replace(" ", "_"))(style, name, values[-1], other)

    def flatten(self, X):
        """Return the table of images."""
        written = self.plan.written
        if written == "layer":
            return self.layers["flat"](X)
        if written == "view":
            return X.contiguous().view(X.size(0), -1)
        if written == "sizes":
            n = X.shape[1] * X.shape[2]
            return X.reshape(X.shape[0], n * X.shape[3] if "images" in self.plan.source else n)
        if written == "reshape":
            return torch.reshape(X, (-1, self.layers["output"].in_features))
        if written == "mean":
            return X.mean((2, 3)) if "images" in self.plan.source else X.mean(dim=-1)
        if written == "global average":
            return self.layers["average"](X).flatten(1)
        if written == "hidden":
            return F.relu(self.layers["hidden"](torch.flatten(X, 1)))
        return X.flatten(start_dim=1)

    def _conv(self, style, name, X, other):
        return self.layers[name](X)

    _batch_norm = _layer_norm = _conv

    def _max_pool(self, style, name, X, other):
        return name(X) if callable(name) else self.layers[name](X)

    _average_pool = _max_pool

    def _dropout(self, style, name, X, other):
        of_channels = F.dropout1d if len(self.plan.shape) == 2 else F.dropout2d
        if style == "function":
            return F.dropout(X, self.dropout, training=self.training)
        if style == "channels by function":
            return of_channels(X, p=self.dropout, training=self.training)
        if style == "channels in place":
            return of_channels(X.clone(), self.dropout, self.training, inplace=True)
        if style == "channels of torch":
            return torch.feature_dropout(X, self.dropout, train=self.training)
        layer = self.layers[name]
        return layer(F.relu(layer(X))) if style == "channels twice" else layer(X)

    def _activation(self, style, name, X, other):
        which, layer = name
        return activate(X, which, style, self.layers[layer])

    def _sum(self, style, name, X, other):
        if style == "itself":
            return X + X
        return add(X, 0.5 * other if style == "difference" else other, style)

    def _product(self, style, name, X, other):
        if style == "function":
            return torch.mul(X, torch.tanh(other))
        if style == "in place":
            X = X.clone()
            X *= torch.tanh(other)
            return X
        return X * torch.sigmoid(other) if style == "gate" else X * torch.tanh(other)

    def _cat(self, style, name, X, other):
        return torch.hstack([X, other]) if style == "hstack" else torch.cat((other, X), dim=1)

    def _scale(self, style, factor, X, other):
        if style == "times":
            return factor * X
        if style == "clamp":
            return X.clamp(-factor, 2 * factor)
        return X + factor if style == "plus" else -X

    def _view(self, style, shape, X, other):
        if style == "there and back":
            return X.flatten(1).view(X.size(0), *shape)
        if style == "sizes":
            return X.flatten(1).reshape(X.size(0), X.size(1), -1).view(-1, *shape)
        if style == "shape":
            sizes = X.shape
            return torch.flatten(X, 1).reshape(sizes)
        if style == "unsqueeze":
            return torch.squeeze(X.unsqueeze(1), 1)
        if style == "unflatten":
            return torch.unflatten(X.flatten(1), 1, shape)
        # other channels, or other places
        return X.reshape(X.shape[0], *shape)

    def _linear(self, style, name, X, other):
        return self.layers[name[0]](X.flatten(1)).unflatten(1, name[1])


class _Maker:
    """Makes the layers of a module, and tries each step on rows of zeros."""

    def __init__(self, module):
        self.module = module
        self.plan = module.plan
        self.values = [torch.zeros(2, *self.plan.shape)]
        self.layers = module.layers
        self.one = len(self.plan.shape) == 2
        self.by_dimension = 0 if self.one else 1

    def make(self, n_outputs):
        """Return what the module computes, step by step."""
        self.layers["flat"] = nn.Flatten()
        jobs = []
        for kind, style, choices in self.plan.steps:
            job = getattr(self, "_" + kind.replace(" ", "_"))(style, choices)
            value = self._try((kind, style, *job)) if job is not None else None
            if value is not None:
                jobs.append((kind, style, *job))
                self.values.append(value)
            # else its layer stays, and nothing calls it
        last = self.values[-1]
        self.layers["average"] = (nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool1d)[self.one](1)
        width = last[0].numel()
        if self.plan.written == "hidden":
            self.layers["hidden"] = nn.Linear(width, 5)
            width = 5
        if self.plan.written in ("mean", "global average"):
            width = last.shape[1]
        self.layers["output"] = nn.Linear(width, n_outputs)
        return jobs

    def _try(self, job):
        """Return what a step makes of zeros, or None if it cannot be taken."""
        self.module.eval()
        try:
            with torch.no_grad():
                value = self.module.compute(job, self.values)
        except (RuntimeError, ValueError):
            value = None
        is_sound = value is not None and 0 < value[0].numel() <= MOST_NUMBERS
        return value if is_sound and value.isfinite().all() else None

    @property
    def shape(self):
        """Return the shape of a row of the last value."""
        return tuple(self.values[-1].shape[1:])

    def _add(self, layer):
        name = f"layer{len(self.layers)}"
        while name in self.layers:
            name += "a"
        self.layers[name] = layer
        return name

    def _by_dimension(self, a, b):
        return a if self.one else (a, b)

    def _conv(self, style, choices):
        a, b, c, d, e, f, g, h, i = choices
        make = nn.Conv1d if self.one else nn.Conv2d
        n = self.shape[0]
        known = [
            name for name, layer in self.layers.items()
            if type(layer) is make and layer.in_channels == n
        ]  # fmt: skip
        if style == "again" and known:
            return known[i % len(known)], None
        groups = n if style == "groups" and n <= 9 else 1
        options = {
            "kernel_size": self._by_dimension(1 + a % 3, 1 + b % 3),
            "stride": self._by_dimension((1, 1, 2, 3)[c % 4], (1, 1, 2, 3)[d % 4]),
            "padding": self._by_dimension(e % 3, f % 3),
            "dilation": self._by_dimension(1 + (g % 4) // 2, 1 + (h % 4) // 2),
        }
        if style in ("same", "valid"):
            options |= {"padding": style}
        if style == "same":
            options |= {"stride": 1}
        n_outputs = (
            groups * (1 + i % 3) if groups > 1 else (1, 2, 3, 4, 5, 6, 7, 8, 9, 12, 13, 4)[i]
        )
        has_bias = style != "no bias" and not self.plan.is_normalized
        layer = make(n, n_outputs, groups=groups, bias=has_bias, **options)
        if style == "tied":
            alike = [name for name in known if self.layers[name].weight.shape == layer.weight.shape]
            if alike:
                layer.weight = self.layers[alike[0]].weight
        return self._add(nn.Sequential(layer, nn.Tanh()) if style == "nested" else layer), None

    def _max_pool(self, style, choices):
        if style.startswith("adaptive"):
            return self._adaptive_pool(style, choices, "max")
        a, b, c, d, e, f, g, h, i = choices
        options = self._list_pool_options(choices)
        options |= {"dilation": self._by_dimension(1 + g // 9, 1 + h // 9)}
        return self._open_pool(style, "max", options), None

    def _average_pool(self, style, choices):
        if style.startswith("adaptive"):
            return self._adaptive_pool(style, choices, "avg")
        options = self._list_pool_options(choices)
        options |= {"count_include_pad": choices[6] % 2 == 0}
        if not self.one and choices[7] > 9:
            options |= {"divisor_override": choices[7] - 7}
        return self._open_pool(style, "avg", options), None

    def _list_pool_options(self, choices):
        a, b, c, d, e, f, _, _, i = choices
        kernel = 1 + a % 3, 1 + b % 3
        options = {"kernel_size": self._by_dimension(*kernel), "ceil_mode": i % 2 == 1}
        if c != 0:
            options["stride"] = self._by_dimension(1 + c % 3, 1 + d % 3)
        options["padding"] = self._by_dimension(e % (kernel[0] // 2 + 1), f % (kernel[1] // 2 + 1))
        return options

    def _adaptive_pool(self, style, choices, which):
        sizes = []
        for n, choice in zip(self.shape[1:], choices, strict=False):
            divisors = [k for k in range(1, n + 1) if n % k == 0]
            sizes.append(divisors[choice % len(divisors)])
        if not self.one and choices[2] == 0:
            sizes[0] = None
        size = sizes[0] if self.one else tuple(sizes)
        return self._open_pool(style, f"adaptive_{which}", {"output_size": size}), None

    def _open_pool(self, style, which, options):
        """Return the name of a layer, or a function."""
        if style.endswith("layer"):
            name = "".join(part.capitalize() for part in which.split("_"))
            return self._add(getattr(nn, f"{name}Pool{1 if self.one else 2}d")(**options))
        function = getattr(F, f"{which}_pool{1 if self.one else 2}d")
        return _Call(function, tuple(options.items()))

    def _batch_norm(self, style, choices):
        options = {"eps": 1e-2, "affine": style != "no affine"}
        options["momentum"] = None if style == "average" else (0.1, 0.4, 0.0)[choices[0] % 3]
        options["track_running_stats"] = style != "no statistics"
        make = nn.BatchNorm1d if self.one else nn.BatchNorm2d
        return self._add(make(self.shape[0], **options)), None

    def _layer_norm(self, style, choices):
        if self.values[-1][0].numel() < 3:
            return None
        return self._add(nn.LayerNorm(self.shape, 1e-2, style != "no affine")), None

    def _dropout(self, style, choices):
        if style in ("function", "channels by function", "channels in place", "channels of torch"):
            return None, None
        of_channels = (nn.Dropout2d, nn.Dropout1d)[self.one]
        make = of_channels if style.startswith("channels") else nn.Dropout
        return self._add(make(self.module.dropout)), None

    def _activation(self, style, choices):
        which = list(LAYERS)[choices[0] % len(LAYERS)]
        return (which, self._add(LAYERS[which]())), None

    def _choose(self, choice, shape):
        alike = [n for n, other in enumerate(self.values) if tuple(other.shape[1:]) == shape]
        return alike[choice % len(alike)]

    def _sum(self, style, choices):
        return None, self._choose(choices[0], self.shape)

    _product = _sum

    def _cat(self, style, choices):
        places = self.shape[1:]
        alike = [n for n, v in enumerate(self.values) if tuple(v.shape[2:]) == places]
        is_input = style == "with input" and alike[0] == 0
        return None, 0 if is_input else alike[choices[0] % len(alike)]

    def _scale(self, style, choices):
        return 0.5 + choices[0] / 5, None

    def _view(self, style, choices):
        channels, *places = self.shape
        if style == "lines":
            return (channels * places[0], *(places[1:] or [1]))[:2] + (1,) * (1 - self.one), None
        if style == "rows":
            return (places[0], channels, *places[1:]), None
        return self.shape, None

    def _linear(self, style, choices):
        shape = tuple(2 + choice % 3 for choice, _ in zip(choices, self.shape, strict=False))
        n = 1
        for size in shape:
            n *= size
        name = self._add(nn.Linear(self.values[-1][0].numel(), n))
        return (name, shape), None


@dataclass(frozen=True)
class _Call:
    """A function with options."""

    function: object
    options: tuple

    def __call__(self, X):
        return self.function(X, **dict(self.options))
