"""Which nets the kernel trains, and the tables that tell it what to compute."""

from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import torch
from torch import nn

from sktune.engine.compiled import opcodes
from sktune.engine.compiled.criteria.reading import Loss, read_loss
from sktune.engine.steps.launched import layout
from sktune.modules.activations import ACTIVATIONS, find_name
from sktune.modules.dropout import HashedDropout
from sktune.modules.reading import read_chain
from sktune.modules.tracing.links import name_parameter
from sktune.training.optimizers import OPTIMIZERS
from sktune.training.penalties import is_penalized

# Optimizers by the names of their opcodes: those of `kernel/updates.py`.
RULES = {"SGD": 0, "ADAM": 1, "RMSPROP": 2, "ADAGRAD": 3}
# Options of these that the kernel does not know.
_OPTIONS = ("amsgrad", "maximize", "centered")
# Activations by name: those of `kernel/operations.py`.
_ACTIVATIONS = ("relu", "leaky_relu", "elu", "gelu", "tanh", "sigmoid", "silu")
# The most outputs of a net: a row of them is held by registers.
_MOST_OUTPUTS = 1024
_NOT_READ = "its module is no chain of linear layers, activations and dropout"


class Unknown(Exception):
    """The kernel does not compute something; the text says why, in the user's words."""


@dataclass(frozen=True)
class Program:
    """What the kernel computes in nets of one architecture.

    Parameters
    ----------
    widths : tuple of int
        The features of the input, and of the outputs of each linear layer.
    stages : ndarray of int32 (n_stages, N_STAGE_COLUMNS)
        The linear layers with what follows them; the columns of places are those for tables of one
        row, see :meth:`place`.
    operations : ndarray of int32 (n_operations, N_OPERATION_COLUMNS)
    settings : ndarray of float64 (n_operations,)
        What parametrizes an operation.
    loss : Loss
    rule : str
        The name of the optimizer's opcode.
    """

    widths: tuple
    stages: np.ndarray
    operations: np.ndarray
    settings: np.ndarray
    loss: Loss
    rule: str

    @property
    def known(self):
        """The bits of the opcodes of all operations."""
        return sum(1 << code for code in set(self.operations[:, layout.OPCODE].tolist()))

    def place(self, n_rows):
        """Return the stages for batches of at most so many rows, and the numbers a lane keeps."""
        stages = self.stages.copy()
        inputs = 0
        free = self.widths[0] * n_rows
        slopes = -1
        for stage, width in zip(stages, self.widths[1:], strict=True):
            outputs = free
            stage[layout.INPUTS_AT] = inputs
            stage[layout.INPUT_SLOPES_AT] = slopes
            stage[layout.OUTPUTS_AT] = outputs
            slopes = outputs + width * n_rows
            stage[layout.SLOPES_AT] = slopes
            free = slopes + width * n_rows
            inputs = outputs
        return stages, free


def read_program(spec, rows):
    """Return the program of a fit's net.

    Parameters
    ----------
    spec : FitSpec
    rows : Rows
        The table that it trains on.

    Raises
    ------
    Unknown
        If the kernel cannot train it.
    """
    module = spec.module.module
    layers = read_chain(module)
    if isinstance(layers, str):
        raise Unknown(f"{_NOT_READ}: {layers}")
    layers = list(layers.items())
    ending = None
    if isinstance(layers[-1][1], nn.LogSoftmax):
        ending = nn.LogSoftmax
        layers = layers[:-1]
    reader = _Reader(rows.X.shape[1], _find_starts(module, _list_skipped(spec, layers)))
    for name, layer in layers:
        reader.read(name, layer)
    n_outputs = reader.widths[-1]
    if len(reader.widths) == 1 or n_outputs > _MOST_OUTPUTS:
        raise Unknown(f"it has no linear layer, or more than {_MOST_OUTPUTS} outputs")
    if spec.n_outputs not in (None, n_outputs):
        raise Unknown("its module has another number of outputs than its targets need")
    graph = SimpleNamespace(n_outputs=n_outputs, ending=ending)
    loss = read_loss(opcodes, spec.loss.criterion, spec.loss.match, rows, graph)
    if loss is None or not _is_known(loss):
        raise Unknown("the kernel does not know its criterion, or its targets do not fit to it")
    return Program(*reader.tables(), loss, _read_rule(spec.optimizer))


class _Reader:
    """Reads the layers of a chain one by one.

    Parameters
    ----------
    n_features : int
        Of the rows.
    starts : dict of int
        Where each parameter begins among all of them, by name.
    """

    def __init__(self, n_features, starts):
        self.widths = [n_features]
        self.starts = starts
        self.stages = []
        self.operations = []
        self.settings = []
        # how many times each dropout layer was called
        self.n_calls = {}

    def read(self, name, layer):
        """Take the next layer of the chain."""
        if isinstance(layer, nn.Linear):
            if layer.in_features != self.widths[-1]:
                raise Unknown(f"its layer {name} takes another number of features than it gets")
            self.widths.append(layer.out_features)
            stage = np.zeros(layout.N_STAGE_COLUMNS, dtype=np.int32)
            stage[layout.N_INPUTS] = layer.in_features
            stage[layout.N_OUTPUTS] = layer.out_features
            stage[layout.WEIGHT] = self.starts[name_parameter(name, "weight")]
            stage[layout.BIAS] = self.starts.get(name_parameter(name, "bias"), -1)
            stage[layout.FIRST] = len(self.operations)
            self.stages.append(stage)
        elif isinstance(layer, HashedDropout):
            call = self.n_calls.get(layer.index, 0)
            self.n_calls[layer.index] = call + 1
            self._add(opcodes.DROPOUT_LAYER, 0.0, layer.index, layer.index, call)
        else:
            self._read_activation(name, layer)
        for stage in self.stages[-1:]:
            stage[layout.STOP] = len(self.operations)

    def _read_activation(self, name, layer):
        known = find_name(layer)
        if known is None:
            raise Unknown(f"{_NOT_READ}: its layer {name} is a {type(layer).__name__}")
        if known not in _ACTIVATIONS:
            raise Unknown(f"the kernel does not know its layer {name}, a {type(layer).__name__}")
        if known == "gelu" and layer.approximate != "none":
            raise Unknown(f"its layer {name} has approximate={layer.approximate!r}")
        # each has one option at most
        options = [getattr(layer, option) for option in ACTIVATIONS[known].options]
        self._add(getattr(opcodes, known.upper()), *(options or [0.0]))

    def _add(self, opcode, setting, *others):
        row = np.zeros(layout.N_OPERATION_COLUMNS, dtype=np.int32)
        row[: 1 + len(others)] = [opcode, *others]
        self.operations.append(row)
        self.settings.append(setting)

    def tables(self):
        """Return widths, stages, operations and settings."""
        columns = layout.N_OPERATION_COLUMNS
        return (
            tuple(self.widths),
            np.stack(self.stages),
            np.array(self.operations, dtype=np.int32).reshape(-1, columns),
            np.array(self.settings, dtype=np.float64),
        )


def _list_skipped(spec, layers):
    """Return the names of the parameters of a fit's module that no layer has."""
    used = {id(p) for _, layer in layers for p in layer.parameters()}
    named = spec.module.module.named_parameters()
    idle = {name: p for name, p in named if id(p) not in used}
    if spec.has_penalties and any(is_penalized(p.shape) for p in idle.values()):
        raise Unknown("its penalties train a weight that no layer uses")
    return idle


def _find_starts(module, skipped):
    """Return where each parameter of a module begins among those not skipped, by name."""
    starts = {}
    start = 0
    for name, p in module.named_parameters():
        if name not in skipped:
            starts[name] = start
            start += p.numel()
    return starts


def _is_known(loss):
    """Tell whether the kernel computes a criterion: with one option, as a mean over all rows."""
    is_mean = not loss.is_sum and loss.class_weight is None
    return is_mean and len(loss.options) == 1 and loss.opcode != opcodes.PROBABILITY_NLL


def _read_rule(optimizer):
    rule = OPTIMIZERS.get(optimizer.type)
    if rule is None or rule.compiled is None or rule.compiled.constant not in RULES:
        raise Unknown("the kernel does not know its optimizer")
    if any(optimizer.options.get(name) for name in (*_OPTIONS, *rule.compiled.unsupported)):
        raise Unknown("the kernel does not know an option of its optimizer")
    if isinstance(optimizer.options["lr"], torch.Tensor):
        raise Unknown("its learning rate is a tensor")
    return rule.compiled.constant
