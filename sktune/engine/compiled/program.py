"""Which nets the compiled kernels train, and how their numbers reach them.

These are chains of linear layers, activations and dropout, where one thread computes, and narrow enough for its cache.
Numba compiles the kernels when they are first used, and keeps them on disk.
"""

import math
import os
import warnings
from functools import cache
from importlib.util import find_spec
from operator import itemgetter

import numpy as np
import torch
from torch import nn

from sktune.modules.activations import ACTIVATIONS, find_name
from sktune.modules.dropout import HashedDropout, silence_below
from sktune.modules.reading import find_chain, is_watched
from sktune.runtime.threads import flushed_denormals

enabled = os.environ.get("SKTUNE_COMPILED", "1") != "0"

_WIDEST, _LARGEST = (
    2048,
    1 << 17,
)  # features of a table, and its numbers, beyond which torch is faster
_MOST_STEPS = 1000  # between which Ctrl-C is listened to
_ADAM = ("ADAM", ("exp_avg", "exp_avg_sq"), lambda group: (*group["betas"], group["eps"]))
# Of each optimizer the kernels' rule, its state, and the three options that are its own.
_RULES = {
    torch.optim.AdamW: _ADAM,
    torch.optim.Adam: _ADAM,
    torch.optim.SGD: ("SGD", ("momentum_buffer",), itemgetter("momentum", "dampening", "nesterov")),
}
_UNKNOWN = ("amsgrad", "maximize", "differentiable", "capturable")  # options that no rule has


@cache
def load_kernels(dtype):
    """Return the module of the kernels, compiled for numbers of a type; None where there is no Numba that does it."""
    if find_spec("numba") is None:
        return None
    try:
        from sktune.engine.compiled import kernels

        _try_step(kernels, dtype)
    except Exception as error:  # a Numba that does not fit this Python or NumPy, say
        message = (
            f"Numba cannot be used, and networks train without it: {type(error).__name__}: {error}"
        )
        warnings.warn(message, RuntimeWarning, stacklevel=2)
        return None
    return kernels


def _try_step(kernels, dtype):
    """Take a step whose outcome is known; raise if it is another."""
    X, flat = np.array([[1, 0], [0, 2], [1, 1]], dtype), np.zeros(3, dtype)
    links, numbers, options = (
        np.array([(kernels.LINEAR, 2, 1, 0, 2)]),
        np.zeros((1, 2)),
        np.zeros(7),
    )
    data, rows, sizes = (X, X[:, :1].copy(), np.ones(3, dtype)), np.arange(3), np.array([3])
    how = (
        kernels.SQUARED_ERROR,
        kernels.SGD,
        options,
        flat,
        np.zeros_like(flat),
        np.zeros_like(flat),
        flat[:0],
    )
    losses = kernels.train_steps(
        links, numbers, *how, 0, data, rows, sizes, np.array([0.3]), (0, 0, 0)
    )
    if not np.allclose(losses, 2 / 3) or not np.allclose(flat, [0.4, 0.2, 0.4]):
        raise ArithmeticError(f"its code makes {flat.tolist()} of a step to [0.4, 0.2, 0.4]")


def find_program(module, criterion, optimizer, options, batches):
    """Return what trains nets like this one on such batches, or None.

    `optimizer` is its class, and `options` are those of its one group of parameters.
    """
    is_possible = enabled and torch.get_num_threads() == 1 and optimizer in _RULES
    layers = find_chain(module) if is_possible else None
    if (
        layers is None
        or any(options.get(name) for name in _UNKNOWN)
        or isinstance(options["lr"], torch.Tensor)
    ):
        return None
    linears = [layer for layer in layers.values() if isinstance(layer, nn.Linear)]
    parameters, rows = (
        [p for layer in linears for p in layer.parameters()],
        getattr(batches, "rows", None),
    )
    if not (_are_separate(parameters, module) and _is_plain(rows, parameters[0])):
        return None
    widths = [rows.X.shape[1], *(layer.out_features for layer in linears)]
    # without a batch there is nothing to train on, which is an error of the plain loop
    most_rows = max(batches.sizes, default=math.inf)
    is_narrow = max(widths) <= _WIDEST and max(widths) * most_rows <= _LARGEST
    if not is_narrow or (kernels := load_kernels(rows.X.numpy().dtype)) is None:
        return None
    chain = _read_links(kernels, layers, rows.X.shape[1])
    loss = chain and _read_loss(kernels, criterion, rows, chain[2])
    return None if loss is None else Program(kernels, *chain, loss, optimizer)


def _are_separate(parameters, module):
    """Tell whether parameters are all of a module's, in its order, alike in type, each with a memory of its own."""
    is_all = [id(p) for p in parameters] == [id(p) for p in module.parameters()]
    n_kept = len({p.untyped_storage().data_ptr() for p in parameters})
    are_alike = n_kept == len(parameters) and len({p.dtype for p in parameters}) == 1
    return is_all and are_alike and not any(p.numel() == 0 or is_watched(p) for p in parameters)


def _is_plain(rows, parameter):
    """Tell whether rows are such as the kernels read: a dense table of the parameters' type, on the CPU."""
    X = getattr(rows, "X", None)
    is_table = (
        isinstance(X, torch.Tensor)
        and X.ndim == 2
        and X.is_contiguous()
        and X.dtype == parameter.dtype
    )
    is_known = (
        is_table
        and X.dtype in (torch.float32, torch.float64)
        and X.numel()
        and rows.target is not None
    )
    is_usual = not (torch.is_autocast_enabled("cpu") or torch.is_inference_mode_enabled())
    return is_known and X.device.type == parameter.device.type == "cpu" and is_usual


def _read_links(kernels, layers, width):
    """Return a chain as the kernels read it, links and their numbers, and its number of outputs; or None."""
    links, numbers, place = [], [], 0
    for layer in layers.values():
        if isinstance(layer, nn.Linear):
            n_outputs = layer.out_features
            expected = [("weight", (n_outputs, width)), ("bias", (n_outputs,))][
                : 1 + (layer.bias is not None)
            ]
            if [(name, tuple(p.shape)) for name, p in layer.named_parameters()] != expected:
                return (
                    None  # which its forward will complain of, if it is no product of another kind
                )
            links.append(
                (
                    kernels.LINEAR,
                    width,
                    n_outputs,
                    place,
                    place + n_outputs * width if expected[1:] else -1,
                )
            )
            width, place = n_outputs, place + sum(p.numel() for p in layer.parameters())
        elif isinstance(layer, HashedDropout):
            links.append((kernels.DROPOUT_LAYER, layer.index, 0, 0, 0))
        else:
            opcode = _find_opcode(kernels, layer)
            if opcode is None:
                return None
            links.append((opcode, 0, 0, 0, 0))
        numbers.append((_read_option(layer), 0.0))
    return np.array(links), np.array(numbers), width


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


def _read_loss(kernels, criterion, rows, n_outputs):
    """Return the kernels' number of a criterion, or None."""
    target, n_rows, kind = rows.target, len(rows.X), type(criterion)
    if (
        kind not in (nn.MSELoss, nn.CrossEntropyLoss)
        or criterion.reduction != "mean"
        or is_watched(criterion)
    ):
        return None
    if kind is nn.MSELoss:
        is_alike = target.shape == (n_rows, n_outputs) and target.dtype == rows.X.dtype
        return kernels.SQUARED_ERROR if is_alike else None
    is_weighted = criterion.weight is not None or criterion.label_smoothing
    if is_weighted or criterion.ignore_index >= 0 or target.shape != (n_rows,):
        return None
    are_classes = target.dtype == torch.int64 and target.min() >= 0 and target.max() < n_outputs
    return kernels.CROSS_ENTROPY if are_classes else None


class Program:
    """How the kernels train nets of one chain, criterion and optimizer; `state` names the optimizer's tensors."""

    def __init__(self, kernels, links, numbers, n_outputs, loss, optimizer):
        self.kernels, self.links, self.numbers, self.n_outputs, self.loss = (
            kernels,
            links,
            numbers,
            n_outputs,
            loss,
        )
        rule, self.state, self.read_options = _RULES[optimizer]
        self.rule, self.is_decoupled = getattr(kernels, rule), optimizer is torch.optim.AdamW

    def bind(self, flat, gradient, state, data, sizes, seed, dropout, options, penalties):
        """Return a function that trains a net for an epoch, in place.

        Parameters
        ----------
        flat, gradient : ndarray (P,)
            The parameters, one behind the other, and where their gradient is written.
        state : dict of ndarray (P,)
            The optimizer's, by name.
        data : tuple
            From :func:`read_data`.
        sizes : list of int
            Of an epoch's batches.
        seed, dropout : int, list of float
            What masks follow from, and the rate of each layer of dropout.
        options, penalties : dict, tuple of float
            Those of the optimizer's group, and l1 and l2.

        Returns
        -------
        train : callable
            ``train(t, order, rates, epoch)``, of the optimizer's steps until now, rows in their order and the
            learning rate of each step, returns the losses of the steps, up to the first that is not finite.
        """
        numbers, layers = self.numbers.copy(), self.links[:, 0] == self.kernels.DROPOUT_LAYER
        numbers[layers] = [silence_below(p) for p in dropout] or 0.0
        is_decoupled = self.is_decoupled or options.get("decoupled_weight_decay", False)
        chosen = (options["weight_decay"], is_decoupled, *self.read_options(options), *penalties)
        chosen, sizes = np.array([*map(float, chosen)]), np.array(sizes, dtype=np.int64)
        first, second = (*(state[name] for name in self.state), flat[:0])[:2]
        net = self.links, numbers, self.loss, self.rule, chosen, flat, gradient, first, second

        def train(t, order, rates, epoch):
            losses = []
            for start in range(0, len(sizes), _MOST_STEPS):
                some = slice(start, start + _MOST_STEPS)
                steps = order, sizes[some], rates[some], (seed, epoch, start)
                losses += self.kernels.train_steps(*net, t + start, data, *steps).tolist()
                order = order[sizes[some].sum() :]
                if not math.isfinite(losses[-1]):
                    break
            return losses

        return train


@flushed_denormals()
def train_module(program, optimizer, batches, epoch, rates, seed, dropout, penalties):
    """Train the module whose parameters one of torch's optimizers holds, for an epoch; return the steps' losses."""
    (group,) = optimizer.param_groups
    parameters = group["params"]
    t, kept = _open_state(optimizer, program.state)
    for p in parameters:
        p.grad = torch.zeros_like(p)
    tensors = {"flat": parameters, "gradient": [p.grad for p in parameters]}
    tensors |= {name: [optimizer.state[p][name] for p in parameters] for name in kept}
    flats = {
        name: torch.cat([t.detach().reshape(-1) for t in of_all])
        for name, of_all in tensors.items()
    }
    arrays = {
        name: flats.get(name, torch.zeros_like(flats["flat"])).numpy()
        for name in (*program.state, *flats)
    }
    whole = (
        arrays.pop("flat"),
        arrays.pop("gradient"),
        arrays,
        read_data(batches.rows),
        batches.sizes,
    )
    train = program.bind(*whole, seed, dropout, group, penalties)
    losses = train(t, read_order(batches, epoch), np.array(rates, dtype=np.float64), epoch)
    with torch.no_grad():
        for name, of_all in tensors.items():
            for tensor, values in zip(
                of_all, flats[name].split([t.numel() for t in of_all]), strict=True
            ):
                tensor.copy_(values.view_as(tensor))
    for state in optimizer.state.values():
        if "step" in state:
            state["step"] += len(losses)
    return losses


def has_one_count(optimizer):
    """Tell whether an optimizer has taken the same number of steps with all parameters; a part may have been frozen."""
    states = [
        optimizer.state.get(p, {}) for group in optimizer.param_groups for p in group["params"]
    ]
    return (
        len(
            {
                (float(state.get("step", 0)), state.get("momentum_buffer") is None)
                for state in states
            }
        )
        == 1
    )


def count_dtype(group):
    """Return the type in which torch's optimizers count the steps of a group of parameters."""
    is_wide = torch.get_default_dtype() == torch.float64 and not group.get("fused")
    return torch.float64 if is_wide else torch.float32


def _open_state(optimizer, names):
    """Return how many steps an optimizer has taken, and which of its tensors it keeps, as it would when it begins."""
    (group,) = optimizer.param_groups
    is_counted, t = type(optimizer) is not torch.optim.SGD, 0
    kept = [name for name in names if name != "momentum_buffer" or group["momentum"]]
    for p in group["params"] if is_counted or kept else ():
        state = optimizer.state[p]
        count = torch.tensor(0.0, dtype=count_dtype(group))
        t = int(
            state.setdefault("step", count)
            if is_counted
            else state.get("momentum_buffer") is not None
        )
        state.update((name, torch.zeros_like(p)) for name in kept if state.get(name) is None)
    return t, kept


def read_data(rows):
    """Return rows as the kernels take them: X, targets in columns of the same type, and a weight for each row."""
    X = rows.X.numpy()
    target = rows.target.to(rows.X.dtype).reshape(len(X), -1).numpy()
    return X, target, np.ones(len(X), X.dtype) if rows.weight is None else rows.weight.numpy()


def read_order(batches, epoch):
    """Return the rows that an epoch takes, in their order; raise for one that is not there."""
    order = batches.order(epoch)
    return (
        np.arange(sum(batches.sizes))
        if order is None
        else torch.arange(len(batches.rows.X))[order].numpy()
    )
