"""Which networks the compiled kernels train, and how their numbers reach the kernels.

The networks are of operations that the kernels know, where one thread computes, and narrow enough
for the cache of a core.
"""

import math
import os
import threading
from functools import partial
from typing import NamedTuple

import numpy as np
import torch

from sktune.engine.compiled import opcodes
from sktune.engine.compiled.criteria.reading import read_loss
from sktune.engine.compiled.loading import load_address, load_calls, load_kernels, load_products
from sktune.engine.compiled.opcodes import DROPOUT_INDEX, DROPOUT_LAYER, FIRST_CLIP, OPCODE
from sktune.engine.compiled.reading.keeping import Kept
from sktune.engine.compiled.reading.rows import are_entries, is_readable_table
from sktune.engine.compiled.speeds.choosing import is_one_core_faster
from sktune.modules.dropout import silence_below
from sktune.modules.function_masks import FUNCTION_INDEX
from sktune.training.optimizers import OPTIMIZERS, read_option

enabled = os.environ.get("SKTUNE_COMPILED", "1") != "0"

# The widest layer, and the most numbers of one in a batch, that the kernels are given. Searches of
# nets up to here took 0.4 to 0.55 of the time of stacked steps, on two cores of one thread each
# (1,024 units and 512 rows; 4,096 and 128; two layers of 3,000 or 4,096), and less memory where the
# nets were large. Beyond them nothing was measured.
_WIDEST = 4096
_LARGEST = 1 << 19
# The most numbers of a batch of images, in any of the tables: nets up to here took 0.3 to 0.7 of
# the time of torch's steps on one core, and nets of 2,100,000 and 2,400,000 numbers 1.05 and 1.2.
_LARGEST_IMAGES = 1 << 21
# Ctrl-C is listened to after so many steps, and after about as many products of numbers: those of
# a second.
_MOST_STEPS = 1000
_MOST_PRODUCTS = 10_000_000_000


def find_program(
    module, criterion, match, optimizer, options, batches, kept=None, *, has_penalties=False
):
    """Return what trains networks like this one on such batches, or why the kernels cannot.

    Parameters
    ----------
    module, criterion : nn.Module
        Of the network.
    match : callable
        The function of :mod:`sktune.training.losses` that brings outputs and targets together.
    optimizer : class
        Of :mod:`torch.optim`.
    options : dict
        The options of the optimizer's one group of parameters.
    batches : object
        With `rows`, a table, and `sizes`, the numbers of rows in the batches of an epoch.
    kept : Kept, default=None
        What an earlier call has read of the same module, which may have changed since.
    has_penalties : bool, default=False
        Whether l1 or l2 is not 0.

    Returns
    -------
    program : Program or str
        A str tells the reason, in the user's words.
    """
    if not enabled:
        return "compiled steps are switched off (SKTUNE_COMPILED=0)"
    if not _is_known(optimizer, options):
        return "the compiled kernels do not know its optimizer, or an option of it"
    rows = getattr(batches, "rows", None)
    if not is_readable_table(rows, next(module.parameters(), None)):
        return "its rows are no dense table of the parameters' type on the CPU"
    kept = Kept() if kept is None else kept
    graph = kept.read(module, rows.X, has_penalties=has_penalties)
    if isinstance(graph, str):
        return graph
    # without a batch there is nothing to train on, which is an error of the usual loop
    most_rows = max(batches.sizes, default=math.inf)
    reason = _find_excess(graph, most_rows)
    if reason:
        return reason
    if graph.has_batch_norm and min(batches.sizes) < 2:
        return "its batches are of one row, whose variance batch normalisation needs"
    if not are_entries(rows.X, graph.lookups):
        return "its rows hold other numbers than its embeddings have"
    loss = read_loss(opcodes, criterion, match, rows, graph)
    if loss is None:
        return "the compiled kernels do not know its criterion, or its targets do not fit to it"
    dtype = _read_dtype(module)
    kernels = load_kernels(dtype, loss.opcode)
    if kernels is None:
        return "Numba is not installed, or does not work"
    is_alone = torch.get_num_threads() == 1
    if not is_alone and not is_one_core_faster(kernels, dtype, graph):
        return "several threads compute it together"
    rule = OPTIMIZERS[optimizer]
    constant = rule.compiled.choose_constant(options)
    return kept.open(partial(Program, kernels), graph, loss, rule, constant, dtype)


def _find_excess(graph, most_rows):
    """Return why a net is too large for the kernels, or ``""``."""
    if graph.has_windows and graph.widest * most_rows > _LARGEST_IMAGES:
        return (
            f"its largest images have {graph.widest} numbers for {most_rows} rows, and compiled "
            f"steps are for {_LARGEST_IMAGES} at most"
        )
    n_units = graph.widest_linear if graph.has_windows else graph.widest
    if n_units > _WIDEST or n_units * most_rows > _LARGEST:
        return (
            f"its widest layer has {n_units} units for {most_rows} rows, and compiled steps "
            f"are for {_WIDEST} units and {_LARGEST} numbers at most"
        )
    return ""


def _read_dtype(module):
    """Return the NumPy type of a module's parameters."""
    return next(module.parameters()).detach().numpy().dtype


def _is_known(optimizer, options):
    """Tell whether the kernels take the steps of an optimizer with such options."""
    rule = OPTIMIZERS.get(optimizer)
    if rule is None or rule.compiled is None:
        return False
    if any(options.get(name) for name in rule.compiled.unsupported):
        return False
    return not isinstance(options["lr"], torch.Tensor)


class Program:
    """How the kernels train networks of the same operations, criterion and optimizer.

    Parameters
    ----------
    kernels : module
        From :func:`~sktune.engine.compiled.loading.load_kernels`.
    graph : Graph
        The operations and layers.
    loss : Loss
        The criterion.
    rule : OptimizerRule
        The optimizer.
    constant : str
        The name of its opcode, under the options that networks trained together have in common.
    dtype : numpy.dtype
        That of the parameters.

    Attributes
    ----------
    n_outputs : int
        The outputs of a network.
    dropout_calls : list of int
        The indices of the layers of dropout, in the order in which a step calls them.
    drops_by_function : bool
        Whether the module calls ``F.dropout`` or another dropout function.
    buffers : tuple of Buffer
        The buffers of a network that steps change, as parts of its flat buffers (S,).
    idle : frozenset of str
        The names of the parameters that no layer uses.
    skipped : frozenset of str
        Those of them that steps leave alone. The others are weights that penalties train.
    """

    def __init__(self, kernels, graph, loss, rule, constant, dtype):
        self.kernels = kernels
        self.graph = graph
        self.loss = loss
        self.rule = rule
        # of each thread, the tables that it writes to
        self.own = threading.local()
        self.n_outputs = graph.n_outputs
        self.buffers = graph.buffers
        self.idle = frozenset(graph.idle)
        self.skipped = frozenset(graph.skipped)
        is_dropout = graph.links[:, OPCODE] == DROPOUT_LAYER
        indices = graph.links[is_dropout, DROPOUT_INDEX].tolist()
        self.dropout_calls = [index for index in indices if index != FUNCTION_INDEX]
        self.drops_by_function = FUNCTION_INDEX in indices
        # what all networks need is compiled now; dropout, where its rate is not 0
        load_calls(kernels, graph.links[~is_dropout], dtype)
        self.products = load_products(kernels, dtype, has_windows=graph.has_windows)
        self.of_step = (
            load_address(kernels, "loss", loss.opcode, dtype),
            load_address(kernels, "update", getattr(kernels, constant), dtype),
        )

    def bind(
        self, flat, gradient, buffers, state, data, sizes, seed, dropout, options, penalties, clips
    ):
        """Return a function that trains a network for an epoch, in place.

        Parameters
        ----------
        flat, gradient : ndarray (P,)
            The parameters that are not skipped, one behind the other, and where their gradient is
            written.
        buffers : ndarray (S,)
            The numbers of :attr:`buffers`.
        state : dict of ndarray (P,)
            The optimizer's, by name, in the order of its entry in ``OPTIMIZERS``.
        data : Data
            From :func:`read_data`.
        sizes : list of int
            Of an epoch's batches.
        seed : int
            From which the masks of dropout follow.
        dropout : list of float
            The rate of each layer of dropout, by its index.
        options : dict
            Those of the optimizer's group.
        penalties : tuple of float
            The factors l1 and l2.
        clips : tuple of Clip
            The turns of gradient clipping.

        Returns
        -------
        train : callable
            ``train(t, order, rates, epoch)``, of the optimizer's steps until now, rows in their
            order and the learning rate of each step, returns the losses of the steps, up to the
            first that is not finite. ``train(..., block, steps)`` takes a slice of the epoch's
            steps only, on other data than `data`.
        """
        sizes = np.array(sizes, dtype=np.int64)
        # the kernels take three state arrays, in the order of the entry in OPTIMIZERS
        arrays = self._open_state(state, flat)
        links, factors = self._list_layers(dropout)
        of_penalty = 0
        if any(penalties):
            of_penalty = load_address(self.kernels, "penalty", 0, flat.dtype)
        of_clip = load_address(self.kernels, "clip", 0, flat.dtype) if clips else 0
        net = (
            links,
            load_calls(self.kernels, links, flat.dtype),
            factors,
            (*self.of_step, of_penalty, of_clip),
            self.loss.list_options(has_weights=data.has_weights),
            self._pack_options(options, penalties, clips),
            flat,
            gradient,
            buffers,
            *arrays,
        )

        most_steps = self._count_steps_at_once(sizes.max(initial=1))
        # by what the layout of the workspace follows from
        layout = (links.tobytes(), sizes.max(initial=0))

        def train(t, order, rates, epoch, block=data, steps=None):
            losses = []
            space = self._open_space(layout, links, flat.dtype)
            steps = slice(0, len(sizes)) if steps is None else steps
            for start in range(steps.start, steps.stop, most_steps):
                some = slice(start, min(start + most_steps, steps.stop))
                losses += self.kernels.train_steps(
                    *net,
                    space,
                    t + start,
                    block[:3],
                    order,
                    sizes[some],
                    rates[some],
                    (seed, epoch, start),
                ).tolist()
                order = order[sizes[some].sum() :]
                if not math.isfinite(losses[-1]):
                    # the tables hold what is not finite, too
                    self.own.layout = None
                    break
            for name, array in zip(state, arrays, strict=False):
                state[name][...] = array
            return losses

        return train

    def list_learned(self, module, parameters):
        """Return the parameters of a module that steps train, among all of its `parameters`."""
        if not self.skipped:
            return parameters
        return [p for name, p in module.named_parameters() if name not in self.skipped]

    def _count_steps_at_once(self, n_rows):
        """Return how many steps of at most so many rows are taken in a call."""
        # those of the outputs, and of the gradients of weights and inputs
        n_products = 3 * n_rows * max(self.graph.n_products, 1)
        return max(1, min(_MOST_STEPS, _MOST_PRODUCTS // n_products))

    def _open_space(self, layout, links, dtype):
        """Return the tables of this thread; a network of another layout gets new ones."""
        if getattr(self.own, "layout", None) != layout:
            self.own.space = self.kernels.make_workspace(links, layout[1], dtype, self.products)
            self.own.layout = layout
        return self.own.space

    def _open_state(self, state, flat):
        """Return three arrays of the type of the parameters, for the kernels to write to."""
        arrays = [array.astype(flat.dtype, copy=False) for array in state.values()]
        return [*arrays, flat[:0], flat[:0], flat[:0]][:3]

    def _list_layers(self, dropout):
        """Return the layers and their factors, for some rates of the layers of dropout.

        The factors of a layer of dropout are its threshold and scale. A layer whose rate is 0 keeps
        all units as they are, and is left out; the masks of the others follow from their own
        numbers, and stay what they are.
        """
        links = self.graph.links
        factors = self.graph.settings.copy()
        is_dropout = links[:, OPCODE] == DROPOUT_LAYER
        if not is_dropout.any():
            return links, factors
        rates = [
            # the rate of a function is part of its call
            factor if index == FUNCTION_INDEX else dropout[index]
            for index, factor in zip(
                links[is_dropout, DROPOUT_INDEX], factors[is_dropout, 0], strict=True
            )
        ]
        factors[is_dropout] = [silence_below(rate) for rate in rates]
        is_left_out = is_dropout.copy()
        is_left_out[is_dropout] = [rate == 0 for rate in rates]
        return links[~is_left_out], factors[~is_left_out]

    def _pack_options(self, options, penalties, clips):
        """Return the options of a step in the kernels' order."""
        is_decoupled = self.rule.is_decoupled(options)
        values = [options["weight_decay"], is_decoupled, bool(options.get("maximize"))]
        values += [read_option(options, name) for name in self.rule.compiled.options]
        values += [0.0] * (FIRST_CLIP - len(values))
        for clip in clips:
            values += [clip.norm_type, clip.limit]
        values += penalties
        return np.array(values, dtype=np.float64)


class Data(NamedTuple):
    """Rows as the kernels take them.

    Attributes
    ----------
    X, target, weight : ndarray (N, F), (N, C), (N,)
        Of one type; targets stand in columns, and each row has a weight.
    has_weights : bool
        Whether the rows had weights of their own.
    """

    X: np.ndarray
    target: np.ndarray
    weight: np.ndarray
    has_weights: bool


def read_data(rows, dtype, loss):
    """Return the :class:`Data` of rows, in the type of a network's parameters, for a :class:`Loss`.

    The weight of a row is multiplied by that of its class, where classes have weights.
    """
    X = rows.X.numpy().reshape(len(rows.X), -1).astype(dtype, copy=False)
    target = rows.target.to(torch.as_tensor(X[:0]).dtype).reshape(len(X), -1).numpy()
    has_weights = rows.weight is not None
    weight = rows.weight.numpy() if has_weights else np.ones(len(X), X.dtype)
    if loss.is_of_all_classes:
        target = np.column_stack([target, weight]).astype(X.dtype)
    if loss.class_weight is not None:
        weight = weight * loss.class_weight.numpy().astype(X.dtype)[rows.target.numpy()]
    # of one layout, so that the kernels are compiled for no other
    return Data(X, np.ascontiguousarray(target), np.ascontiguousarray(weight), has_weights)


def read_order(batches, epoch):
    """Return the rows that an epoch takes, in their order; raise for one that is not there."""
    order = batches.order(epoch)
    if order is None:
        return np.arange(sum(batches.sizes))
    return torch.arange(len(batches.rows.X))[order].numpy()
