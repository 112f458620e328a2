"""The default module, and dropout whose masks are a function of the seed."""

import threading
from collections.abc import Iterable, Iterator, Mapping, Set
from contextlib import contextmanager, nullcontext
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from numbers import Integral

import torch
from torch import nn
from torch.nn.modules.module import _has_any_global_hook
from torch.nn.parameter import is_lazy
from torch.optim.optimizer import _global_optimizer_post_hooks, _global_optimizer_pre_hooks

from sktune.names import check_name
from sktune.randomness import mask_key, random_int16

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
_IDENTITY = nn.Identity
_ALIASES = {"logistic": "sigmoid", "swish": "silu", "linear": "identity"}
INITIALIZATIONS = {
    "default": None,
    "xavier": lambda layer, gain: nn.init.xavier_uniform_(layer.weight, gain),
    "he": lambda layer, gain: nn.init.normal_(layer.weight, std=2**0.5 * layer.in_features**-0.5),
    "orthogonal": lambda layer, gain: nn.init.orthogonal_(layer.weight, gain),
    "normal": lambda layer, gain: nn.init.normal_(layer.weight, std=0.05),
}
_LEAST_TO_DIVIDE = 1 << 23  # rows x parameters: some 0.4 ms of one core
_GAINS = {"gelu": "relu", "silu": "relu", "elu": "selu"}  # torch's calculate_gain knows no closer name


class MLP(nn.Module):
    """Multilayer perceptron: linear layers, each but the last followed by norm, activation and dropout.

    Parameters
    ----------
    n_features : int
        Numbers per row. Rows of more than one dimension are flattened.
    n_outputs : int
        Classes of a classifier (the outputs are logits), or targets of a regressor.
    hidden : int or iterable of int, default=(128,)
        Width of each hidden layer: a tuple, a list, an array, a range; ``()`` is a linear model.
    activation : str, or nn.Module class or instance, default="relu"
        One of relu, leaky_relu, elu, gelu, silu (or swish), tanh, sigmoid (or logistic), identity, in any case; or a
        class such as ``nn.Mish``, or an instance such as ``nn.LeakyReLU(0.2)``, of which each layer gets a copy.
    dropout : float, default=0.0
        Probability, in [0, 1), that a hidden unit is silenced in a training step.
    batch_norm : bool, default=False
        Whether batch normalisation precedes each activation. The linear layer before it has no bias: the
        normalisation would take it away again.
    init : str, default="default"
        Initial weights: ``"default"`` (torch's), ``"xavier"`` (Glorot and Bengio 2010, uniform), ``"he"``
        (He et al. 2015, normal), ``"orthogonal"`` (Saxe et al. 2014), ``"normal"`` (standard deviation 0.05).
        All but the default start from zero biases.
    dtype : torch.dtype, default=None
        Type of the parameters, hence of the whole computation; None is torch's default, float32.

    Examples
    --------
    >>> import torch
    >>> from sktune import MLP
    >>> MLP(n_features=4, n_outputs=3, hidden=(16, 8), activation="tanh")(torch.zeros(5, 4)).shape
    torch.Size([5, 3])
    """

    def __init__(
        self, n_features, n_outputs, hidden=(128,), activation="relu", dropout=0.0, batch_norm=False, init="default",
        dtype=None,
    ):  # fmt: skip
        super().__init__()
        widths = read_widths(hidden)
        make_activation = find_activation(activation)
        check_name("init", init, INITIALIZATIONS)
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout must be at least 0 and less than 1, got dropout={dropout!r}")
        layers = []
        for width in widths:
            # batch normalisation takes a bias away again: its gradient would be rounding noise alone
            layers.append(nn.Linear(n_features, width, bias=not batch_norm, dtype=dtype))
            if batch_norm:
                layers.append(nn.BatchNorm1d(width, dtype=dtype))
            if make_activation is not _IDENTITY:
                layers.append(make_activation())
            layers.append(nn.Dropout(dropout))
            n_features = width
        self.layers = nn.Sequential(*layers, nn.Linear(n_features, n_outputs, dtype=dtype))
        if init != "default":
            self._initialize(init, _find_gain(make_activation))

    def _initialize(self, init, hidden_gain):
        linears = [layer for layer in self.layers if isinstance(layer, nn.Linear)]
        for layer in linears:
            gain = hidden_gain if layer is not linears[-1] else 1.0
            INITIALIZATIONS[init](layer, gain)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)

    def forward(self, X):
        """Map (B, F) to (B, C)."""
        return self.layers(X.flatten(1) if X.ndim > 2 else X)


def read_widths(hidden):
    """Return the widths of hidden layers, ints of at least 1, as a list; `hidden` is an int or an iterable of them."""
    values = hidden.tolist() if hasattr(hidden, "tolist") else hidden
    values = [values] if isinstance(values, Integral) else values
    # An iterator would be used up by the first fit, a set has no order.
    is_list = isinstance(values, Iterable) and not isinstance(values, Iterator | Set | Mapping | str | bytes)
    widths = list(values) if is_list else [None]
    if not all(isinstance(w, Integral) and not isinstance(w, bool) and w >= 1 for w in widths):
        raise ValueError(f"hidden must be a positive int or a sequence of them, got hidden={hidden!r}")
    return [int(width) for width in widths]


def find_activation(activation):
    """Return what makes a layer of an activation: a class, or of an instance what copies it."""
    if isinstance(activation, type) and issubclass(activation, nn.Module):
        return activation
    if isinstance(activation, nn.Module):
        return _IDENTITY if type(activation) is _IDENTITY else partial(deepcopy, activation)
    names = {_simplify(name): kind for name, kind in ACTIVATIONS.items()} | {"identity": _IDENTITY}
    name = _simplify(activation) if isinstance(activation, str) else None
    found = names.get(_simplify(_ALIASES.get(name, name or "")))
    if found is None:
        known = sorted({*ACTIVATIONS, *_ALIASES, "identity"})
        check_name("activation", activation, known)
    return found


def _simplify(name):
    return name.lower().replace("_", "").replace("-", "")


def _find_gain(make_activation):
    """Return torch's gain for an activation; 1 where it knows none."""
    layer = make_activation()
    name = next((name for name, kind in ACTIVATIONS.items() if kind is type(layer)), None)
    name = name or ("selu" if isinstance(layer, nn.SELU) else "linear")
    return nn.init.calculate_gain(_GAINS.get(name, name))


@dataclass
class MaskStream:
    """Where a fit stands: what the masks of all its dropout layers are computed from."""

    seed: int
    epoch: int = 0
    batch: int = 0


_AHEAD = 1 << 17  # random numbers made at once: they stay in a core's cache until they are used


class HashedDropout(nn.Dropout):
    """``nn.Dropout`` whose mask follows from (seed of the fit, epoch, batch, layer, call), and from nothing else.

    It stands in for `layer`, the one of number `index` in its module; of Dropout1d to 3d it silences whole channels.
    The layers of a module share the `stream`.
    """

    def __init__(self, layer, index, stream):
        super().__init__(layer.p)
        self.by_channel = getattr(layer, "by_channel", not isinstance(layer, nn.Dropout))
        self.index, self.stream = index, stream
        self.lanes = None  # masks; set where many nets are trained as one
        self.alone = None  # masks of this net only
        self.place, self.n_calls = None, 0

    def forward(self, X):
        """Silence units in training mode, and scale the others so that the mean stays."""
        if not self.training or (self.p == 0 and self.lanes is None):
            return X
        if self.lanes is not None:
            return _DropLanes.apply(X, self.lane_factors)
        if self.alone is None or (self.alone.seeds, self.alone.rates) != ([self.stream.seed], [self.p]):
            self.alone = LaneMasks([self.stream.seed], [self.p])
        factors = self._factors(self.alone, (self.stream.epoch, self.stream.batch), X)[0]
        return X * factors.to(X.dtype)

    def __getstate__(self):
        return {**vars(self), "alone": None}  # what is made ahead need not be copied

    def lane_factors(self, X):
        """Return what silences units of all lanes at once, X being (L, B, ...)."""
        return self._factors(self.lanes, self.lanes.place, X[0])

    def stand_at(self, step):
        """Take note of a call in a step, (epoch, batch): a layer that is called again in it draws anew."""
        self.n_calls = self.n_calls + 1 if step == self.place else 0
        self.place = step

    def _factors(self, masks, step, X):
        """Return the next factors of all lanes for X (B, ...)."""
        self.stand_at(step)
        shape = torch.Size(X.shape[:2] + (1,) * (X.ndim - 2)) if self.by_channel else X.shape
        return masks.factors(shape, (*step, self.index, self.n_calls), X)


class LaneMasks:
    """The masks of one dropout layer in many nets trained as one: a seed and a rate of each, and where they stand.

    A net alone has them of a single lane.
    """

    def __init__(self, seeds, rates):
        self.seeds, self.rates, self.place = seeds, rates, (0, 0)
        self.distinct = list(dict.fromkeys(seeds))
        self.like = None  # type and device of what follows
        self.held = None  # numbers to take in place of a step's own

    def select(self, lanes):
        """Return the masks of some lanes only."""
        return LaneMasks([self.seeds[lane] for lane in lanes], [self.rates[lane] for lane in lanes])

    def factors(self, shape, place, X):
        """Return (L, *shape), or what broadcasts to it; the same numbers as in each net alone."""
        if self.like != (X.dtype, X.device):  # once: a module keeps to its type
            self.like = (X.dtype, X.device)
            self.limits = [column.to(X.device, wide_dtype(X.dtype)) for column in limits(self.rates)]
            self.rows = torch.tensor([self.distinct.index(seed) for seed in self.seeds], device=X.device)
            self.ahead = {}  # epoch, batch and numbers of the next steps, by layer and call
        numbers = self.numbers(place, shape.numel(), X.device) if self.held is None else self.held
        if len(self.rates) > 1:
            if len(self.distinct) > 1:
                numbers = numbers[self.rows]
            numbers = keep_factors(numbers, *self.limits)
        return numbers.view(-1, *shape)

    def numbers(self, place, n, device):
        """Return a step's random numbers, or of a lane alone its factors: (distinct seeds, n).

        They are made for some steps ahead: of a small hash, most is the time to call it.
        """
        epoch, batch, *rest = place
        made_in, first, made = self.ahead.get(tuple(rest), (None, 0, ()))
        if made_in != epoch or not 0 <= batch - first < len(made) or made.shape[2] < n:
            most = _AHEAD // n // len(self.distinct) // (1 + rest[-1])  # fewer for each call: there may be very many
            first, batches = batch, range(batch, batch + max(1, min(8 + 2 * batch, most)))
            keys = [mask_key(seed, epoch, b, *rest) for b in batches for seed in self.distinct]
            made = random_int16(torch.tensor(keys, dtype=torch.int32, device=device), n)
            made = made if len(self.rates) > 1 else keep_factors(made, *self.limits)
            made = made.reshape(len(batches), len(self.distinct), n)
            self.ahead[tuple(rest)] = (epoch, first, made)
        return made[batch - first, :, :n]  # a shorter row is the beginning of a longer one


def silence_below(p):
    """Return from which of 65,536 numbers, -32,768 and up, on a unit is kept, and what the kept are multiplied by."""
    return min(round(p * 65536), 65535) - 32768, 1 / (1 - p)


def limits(rates):
    """Return columns (L, 1) of :func:`silence_below`."""
    return torch.tensor([silence_below(p) for p in rates], dtype=torch.float64).split(1, 1)


def keep_factors(bits, threshold, scale):
    """Turn uniform int16 numbers into factors, 0 below the threshold; `bits` may be one row for all lanes."""
    factors = torch.empty(max(len(scale), len(bits)), bits.shape[1], dtype=scale.dtype, device=bits.device)
    return torch.ge(bits.to(scale.dtype), threshold, out=factors).mul_(scale)  # to bool and back would be 6 x slower


class _DropLanes(torch.autograd.Function):
    """Drop units of all lanes at once: vmap hands the stacked tensor over."""

    @staticmethod
    def forward(X, lane_factors):
        raise TypeError("dropout must be of numbers that differ from net to net")

    @staticmethod
    def setup_context(ctx, inputs, output):
        pass

    @staticmethod
    def vmap(info, in_dims, X, lane_factors):
        X = X.movedim(in_dims[0], 0)  # (L, B, ...)
        return X * lane_factors(X).to(X.dtype), 0


_SERVED = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, HashedDropout)


def dropout_layers(module):
    """Return the layers that :func:`serve_dropout` put into a module."""
    return [layer for layer in module.modules() if isinstance(layer, HashedDropout)]


def serve_dropout(module, seed):
    """Put :class:`HashedDropout` in the place of a module's dropout layers; return their common stream."""
    stream = MaskStream(seed)
    served = {}
    for name, layer in list(module.named_modules(remove_duplicate=False)):
        if type(layer) in _SERVED and layer.p < 1 and name:
            if layer not in served:
                served[layer] = HashedDropout(layer, len(served), stream)
            parent, _, attribute = name.rpartition(".")
            setattr(module.get_submodule(parent), attribute, served[layer])
    return stream


def find_chain(module):
    """Return a module's layers, by name, where they in their order are all that it is; else None."""
    chain = module.layers if type(module) is MLP else module
    if type(chain) is not nn.Sequential or not len(chain):
        return None
    known = (nn.Linear, *ACTIVATIONS.values())
    layers = {f"layers.{name}" if chain is not module else name: layer for name, layer in chain.named_children()}
    simple = all(type(m) in known or (isinstance(m, HashedDropout) and not m.by_channel) for m in layers.values())
    plain = len(layers) == len(chain) and not any(getattr(m, "inplace", False) for m in layers.values())
    whole = len(list(module.modules())) == len(layers) + 1 + (chain is not module)
    learned = [p.requires_grad for p in module.parameters()]
    is_free = learned and all(learned) and not any(map(is_watched, module.modules()))
    return layers if simple and plain and whole and is_free else None


def find_width(module):
    """Return the most numbers that a layer makes of a row, where the layers are known; else None."""
    if type(module) is not MLP and find_chain(module) is None:
        return None
    linears = [layer for layer in module.modules() if isinstance(layer, nn.Linear)]
    return max((layer.out_features for layer in linears), default=1)


def is_watched(thing):
    """Tell whether someone waits for calls of a module, a parameter or an optimizer, or has put other methods in.

    The names of torch's registers are private; ``tests/test_compiled.py`` fails when they move.
    """
    if isinstance(thing, torch.Tensor):
        return bool(thing._backward_hooks or thing._post_accumulate_grad_hooks)
    registers = [value for name, value in vars(thing).items() if name.endswith("_hooks")]
    registers += [_has_any_global_hook(), _global_optimizer_pre_hooks, _global_optimizer_post_hooks]
    has_own_methods = any(callable(getattr(type(thing), name, None)) for name in vars(thing))
    return any(registers) or has_own_methods or has_other_forward(thing)


# What the modules compute that are trained without calling them, as it was when they were imported.
_FORWARDS = {
    kind: kind.forward
    for kind in (
        *(MLP, HashedDropout, nn.Sequential, nn.Linear),
        *(nn.CrossEntropyLoss, nn.MSELoss),
        *ACTIVATIONS.values(),
    )
}


def has_other_forward(module):
    """Tell whether the class of a module computes something else than when it was imported."""
    kind = type(module)
    return kind in _FORWARDS and kind.forward is not _FORWARDS[kind]


def few_threads(module, n_rows):
    """Compute with one thread what is too little to divide: on busy cores, threads would but wait for each other."""
    # a lazy parameter has no size before the first batch
    n_parameters = sum(p.numel() for p in module.parameters() if not is_lazy(p))
    is_little = n_rows * n_parameters < _LEAST_TO_DIVIDE
    return limited_threads(1) if is_little else nullcontext()


_limited = threading.local()  # the limit within which a thread computes
_limits = {"n": 0, "before": 1}  # how many limits there are, and torch's setting before the first of them
_limits_lock = threading.Lock()


@contextmanager
def limited_threads(n_threads):
    """Let torch compute with some threads.

    The setting is a thread's own, but what was last set anywhere is what new threads begin with: it is put back to
    what it was before any thread was within a limit.
    """
    outer, setting = getattr(_limited, "n_threads", None), torch.get_num_threads()  # a new thread's begins when asked
    with _limits_lock:
        if not _limits["n"]:
            _limits["before"] = setting
        _limits["n"] += 1
    _limited.n_threads = n_threads
    torch.set_num_threads(n_threads)
    try:
        yield
    finally:
        with _limits_lock:
            _limits["n"] -= 1
        _limited.n_threads = outer
        torch.set_num_threads(outer or _limits["before"])


@contextmanager
def flushed_denormals():
    """Let this thread take numbers below the normal ones for 0: it computes with them many times as slowly.

    Moments of weights whose gradients have ceased fade into them, and stay there.
    """
    was_flushed = not torch.full((), torch.finfo(torch.float32).tiny).div(2)
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(was_flushed)


def floating_dtype(module):
    """Return the type that a module computes in; torch's default for one that has no such parameters."""
    return next((p.dtype for p in module.parameters() if p.is_floating_point()), torch.get_default_dtype())


def wide_dtype(dtype):
    """Return the type for what is finer than a module's numbers, such as rates and counts: float32 at least."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def narrow(tensors, dtype):
    """Return a dict of tensors, those of float64 in another floating type; what is no tensor stays."""
    return {
        name: value.to(dtype) if isinstance(value, torch.Tensor) and value.dtype == torch.float64 else value
        for name, value in tensors.items()
    }


def keeps_integers(X, module):
    """Tell whether an array goes to a module as integers, which an embedding looks rows up by."""
    return X.dtype.kind in "iu" and any(isinstance(m, nn.Embedding | nn.EmbeddingBag) for m in module.modules())
