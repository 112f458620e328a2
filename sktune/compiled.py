"""Which nets the compiled kernels train, and how their numbers reach them.

These are chains of linear layers, activations and dropout on a CPU, of so few numbers that one core computes a step
before several could share it. Numba compiles the kernels when they are first used, and keeps them on disk.
"""

import math
import os
import warnings
from functools import cache
from importlib.util import find_spec

import numpy as np
import torch
from torch import nn

from sktune.modules import HashedDropout, find_chain, flushed_denormals, has_hooks, silence_below

enabled = os.environ.get("SKTUNE_COMPILED", "1") != "0"

_MOST_OPERATIONS = 1 << 30  # of a step: some 10 ms of a core
_MOST_TOGETHER = 1 << 33  # rows x parameters: some half a second
_ACTIVATIONS = {
    nn.ReLU: ("RELU", None),
    nn.LeakyReLU: ("LEAKY_RELU", "negative_slope"),
    nn.ELU: ("ELU", "alpha"),
    nn.SiLU: ("SILU", None),
    nn.Tanh: ("TANH", None),
    nn.Sigmoid: ("SIGMOID", None),
}
_ADAM = ("ADAM", ("exp_avg", "exp_avg_sq"), ("beta1", "beta2", "eps"))
# Of each optimizer the kernels' rule, its state, and options; the others are those that all have in common.
_RULES = {
    torch.optim.AdamW: _ADAM,
    torch.optim.Adam: _ADAM,
    torch.optim.SGD: ("SGD", ("momentum_buffer",), ("momentum", "dampening", "nesterov")),
    torch.optim.RMSprop: ("RMSPROP", ("momentum_buffer", "square_avg"), ("alpha", "momentum", "eps")),
    torch.optim.Adagrad: ("ADAGRAD", ("sum",), ("lr_decay", "eps")),
}
_UNKNOWN = ("amsgrad", "centered", "maximize", "differentiable")  # options that no rule has


@cache
def _import_kernels():
    if find_spec("numba") is None:
        return None
    try:
        from sktune import kernels
    except Exception as error:  # a Numba that does not fit this Python or NumPy
        warnings.warn(f"Numba cannot be used, and nets train without it: {error}", RuntimeWarning, stacklevel=2)
        return None
    return kernels


def find_program(module, criterion, optimizer, options, batches):
    """Return what trains nets like this one on such batches, or None.

    `optimizer` is its class, and `options` are those of its one group of parameters.
    """
    layers = find_chain(module) if enabled and optimizer in _RULES else None
    if layers is None or any(options.get(name) for name in _UNKNOWN) or isinstance(options["lr"], torch.Tensor):
        return None
    rows, (first, *others) = getattr(batches, "rows", None), module.parameters()
    if not _are_plain(rows, first) or any(p.dtype != first.dtype or has_hooks(p) for p in (first, *others)):
        return None
    operations = 6 * max(batches.sizes, default=0) * sum(p.numel() for p in (first, *others))
    if not 0 < operations <= _MOST_OPERATIONS or (kernels := _import_kernels()) is None:
        return None
    chain = _read_links(kernels, layers, rows.X.shape[1])
    loss = chain and _read_loss(kernels, criterion, rows, chain[2])
    return None if loss is None else Program(kernels, *chain, loss, optimizer)


def _are_plain(rows, parameter):
    """Tell whether rows are such as the kernels read: a dense table of the parameters' type, on the CPU."""
    X = getattr(rows, "X", None)
    is_table = isinstance(X, torch.Tensor) and X.ndim == 2 and X.is_contiguous() and X.dtype == parameter.dtype
    is_known = is_table and X.dtype in (torch.float32, torch.float64) and len(X) and rows.target is not None
    return is_known and X.device.type == parameter.device.type == "cpu" and not torch.is_autocast_enabled("cpu")


def _read_links(kernels, layers, width):
    """Return a chain as the kernels read it, links and their numbers, and its number of outputs; or None."""
    links, numbers, place = [], [], 0
    for layer in layers.values():
        if isinstance(layer, nn.Linear):
            n_weights = layer.weight.numel()
            if layer.in_features != width:
                return None  # which its forward will complain of
            width, bias = layer.out_features, -1 if layer.bias is None else place + n_weights
            links.append((kernels.LINEAR, width, place, bias))
            place += n_weights + (0 if layer.bias is None else width)
        elif isinstance(layer, HashedDropout):
            links.append((kernels.DROPOUT_LAYER, layer.index, 0, 0))
        elif type(layer) in _ACTIVATIONS:
            links.append((getattr(kernels, _ACTIVATIONS[type(layer)][0]), 0, 0, 0))
        else:
            return None
        option = _ACTIVATIONS.get(type(layer), (None, None))[1]
        numbers.append((getattr(layer, option) if option else 0.0, 0.0))
    return np.array(links), np.array(numbers), width


def _read_loss(kernels, criterion, rows, n_outputs):
    """Return the kernels' number of a criterion, or None."""
    target, n_rows = rows.target, len(rows.X)
    if has_hooks(criterion) or getattr(criterion, "reduction", None) != "mean":
        return None
    if type(criterion) is nn.MSELoss:
        is_alike = target.shape == (n_rows, n_outputs) and target.dtype == rows.X.dtype
        return kernels.SQUARED_ERROR if is_alike else None
    if type(criterion) is not nn.CrossEntropyLoss or criterion.weight is not None:
        return None
    if criterion.ignore_index >= 0 or criterion.label_smoothing or target.shape != (n_rows,):
        return None
    are_classes = target.dtype == torch.int64 and target.min() >= 0 and target.max() < n_outputs
    return kernels.CROSS_ENTROPY if are_classes else None


class Program:
    """How the kernels train nets of one chain, criterion and optimizer.

    `state` names the optimizer's tensors; numbers reach it flat, as ``(P,)`` arrays in the order of the parameters.
    """

    def __init__(self, kernels, links, numbers, n_outputs, loss, optimizer):
        self.kernels, self.links, self.numbers, self.n_outputs, self.loss = kernels, links, numbers, n_outputs, loss
        rule, self.state, self.options = _RULES[optimizer]
        self.rule, self.is_decoupled = getattr(kernels, rule), optimizer is torch.optim.AdamW

    @flushed_denormals()
    def train(self, flat, state, t, data, order, sizes, rates, place, dropout, options, penalties=(0.0, 0.0)):
        """Train a net for an epoch, in place; return the losses of its steps, up to the first that is not finite.

        `state` are the optimizer's arrays after `t` steps, `data` is from :func:`read_data`, `order` and `sizes` are
        the rows to take and the batches that they make, `rates` the learning rates of the steps, `place` the seed of
        the fit and the epoch, `dropout` the rates of the layers, `options` those of the optimizer, and `penalties`
        l1 and l2.
        """
        numbers, layers = self.numbers.copy(), self.links[:, 0] == self.kernels.DROPOUT_LAYER
        numbers[layers] = [silence_below(p) for p in dropout] or 0.0
        chosen = np.array([*self._read_options(options), *penalties])
        first, second = (*(state[name] for name in self.state), flat[:0])[:2]
        sizes, rates, losses = np.array(sizes, dtype=np.int64), np.array(rates, dtype=np.float64), []
        together = max(1, _MOST_TOGETHER // (max(sizes) * len(flat)))
        for start in range(0, len(sizes), together):  # between calls, Ctrl-C is listened to
            some = slice(start, start + together)
            losses += self.kernels.train_steps(
                self.links, numbers, self.loss, self.rule, chosen, flat, first, second, t + start, data,
                order, sizes[some], rates[some], (*place, start),
            ).tolist()  # fmt: skip
            order = order[sizes[some].sum() :]
            if not math.isfinite(losses[-1]):
                break
        return losses

    def _read_options(self, group):
        group = {**group, **dict(zip(("beta1", "beta2"), group.get("betas", ()), strict=False))}
        group["decoupled"] = self.is_decoupled or group.get("decoupled_weight_decay", False)
        names = ("weight_decay", "decoupled", *self.options)
        return [float(group.get(name, 0.0)) for name in names] + [0.0] * (5 - len(names))

    def train_module(self, optimizer, *args):
        """Do what :meth:`train` does, with the parameters and the state that torch's optimizer holds.

        `args` are those of :meth:`train` from `data` to `dropout`, and `penalties`.
        """
        (group,) = optimizer.param_groups
        parameters, is_counted = group["params"], not isinstance(optimizer, torch.optim.SGD)
        kept = [name for name in self.state if name != "momentum_buffer" or group["momentum"]]
        t = 0
        for p in parameters:
            state = optimizer.state[p]
            if is_counted:
                t = int(state.setdefault("step", torch.tensor(0.0)))
            else:
                t = int(state.get("momentum_buffer") is not None)
            for name in kept:
                if state.get(name) is None:
                    state[name] = torch.zeros_like(p)
        flat = _join(parameters)
        arrays = {name: _join(optimizer.state[p][name] for p in parameters) for name in kept}
        arrays |= {name: torch.zeros_like(flat) for name in self.state if name not in kept}
        *args, penalties = args
        moving = {name: tensor.numpy() for name, tensor in arrays.items()}
        losses = self.train(flat.numpy(), moving, t, *args, group, penalties)
        _part(flat, parameters)
        for name in kept:
            _part(arrays[name], [optimizer.state[p][name] for p in parameters])
        for p in parameters if is_counted else ():
            optimizer.state[p]["step"] += len(losses)
        return losses


def _join(tensors):
    return torch.cat([tensor.detach().reshape(-1) for tensor in tensors])


@torch.no_grad()
def _part(flat, tensors):
    for tensor, values in zip(tensors, flat.split([tensor.numel() for tensor in tensors]), strict=True):
        tensor.copy_(values.view_as(tensor))


def read_data(rows):
    """Return rows as the kernels take them: X, targets in columns of the same type, and a weight for each row."""
    X = rows.X.numpy()
    target = rows.target.to(rows.X.dtype).reshape(len(X), -1).numpy()
    return X, target, np.ones(len(X), X.dtype) if rows.weight is None else rows.weight.numpy()


def read_order(batches, epoch):
    """Return the rows that an epoch takes, in their order."""
    order = batches.order(epoch)
    return np.arange(sum(batches.sizes)) if order is None else order.numpy()
