"""Reading of the operations of a module into the tables that the compiled kernels take."""

import math
from collections import Counter
from typing import NamedTuple

import numpy as np
from torch import nn

from sktune.engine.compiled import opcodes
from sktune.engine.compiled.reading.composing import compose
from sktune.engine.compiled.reading.flows import write_flows
from sktune.engine.compiled.reading.images import read_window
from sktune.engine.compiled.reading.layers import Unknown, make_row, read_in_place
from sktune.modules.tracing.links import (
    Add,
    Columns,
    Concatenation,
    Lookup,
    OnImages,
    Product,
    list_idle,
)
from sktune.modules.tracing.operations import ENDINGS
from sktune.modules.tracing.values.pools import POOLS
from sktune.training.penalties import is_penalized, list_skipped


class Buffer(NamedTuple):
    """A buffer of the module, and where its numbers begin in the state of a net."""

    name: str
    start: int
    size: int


class Graph(NamedTuple):
    """Operations and layers as the kernels read them.

    Attributes
    ----------
    links : ndarray (n_links, N_COLUMNS) of int
        See :mod:`sktune.engine.compiled.opcodes`.
    settings : ndarray (n_links, 2) of float
        See :mod:`sktune.engine.compiled.kernels`.
    widest : int
        The greatest width of a value.
    widest_linear : int
        The greatest width of a linear layer, or 0.
    n_products : int
        The products of two numbers that the outputs of a row need.
    n_outputs : int
        The width of the last value.
    ending : class or None
        The class of the softmax behind the last of the links.
    buffers : tuple of Buffer
        The buffers that a step changes.
    lookups : tuple of (int, int)
        The columns of the input that embeddings look up, with the number of their rows.
    has_batch_norm : bool
        Whether a batch must have several rows.
    has_windows : bool
        Whether there are convolutions or poolings.
    idle : tuple of str
        The names of the parameters that no layer uses.
    skipped : tuple of str
        Those of them that are not among the flat parameters, as they get no gradient.
    """

    links: np.ndarray
    settings: np.ndarray
    widest: int
    widest_linear: int
    n_products: int
    n_outputs: int
    ending: type | None
    buffers: tuple
    lookups: tuple
    has_batch_norm: bool
    has_windows: bool
    idle: tuple
    skipped: tuple


_OF_WINDOWS = (opcodes.CONVOLUTION, opcodes.MAX_POOL, opcodes.AVERAGE_POOL)


class _Value:
    """A table that operations write to: their rows of the table of links, and those of layers."""

    def __init__(self, width, operations):
        self.width = width
        self.operations = operations
        self.layers = []


class GraphReader:
    """Reads the links of a module, one after the other.

    Parameters
    ----------
    module : nn.Module
    links : list of OpenLink
    n_features : int
        The columns of the input.
    has_penalties : bool, default=False
        Whether penalties train the weights that no layer uses.
    """

    def __init__(self, module, links, n_features, *, has_penalties=False):
        self.idle = list_idle(module, links)
        self.skipped = list_skipped(module, self.idle, has_penalties=has_penalties)
        learned = {n: p for n, p in module.named_parameters() if n not in self.skipped}
        self.parameters = _find_starts(learned.values())
        # weights that only penalties train
        self.penalized = [p for name, p in learned.items() if name in self.idle]
        self.dtypes = {p.dtype for p in module.parameters()}
        self.buffer_names = {id(b): name for name, b in module.named_buffers()}
        self.links = compose(links)
        self.values = [_Value(n_features, [(make_row(opcodes.INPUT), (0.0, 0.0))])]
        # for the input and for each link: the value that holds what it returns
        self.numbers = [0]
        self.n_uses = Counter(source for link in self.links for source in link.sources)
        self.n_calls = Counter()
        self.buffers = []
        # where the numbers of each batch normalisation begin in the state, by its id
        self.states = {}
        self.n_state = 0
        self.lookups = []
        self.ending = None

    def read(self):
        """Return the links as a :class:`Graph`; raise :class:`Unknown` for what is not known."""
        for link in self.links:
            if isinstance(link.layer, ENDINGS):
                self.ending = type(link.layer)
                continue
            in_place = read_in_place(link, self.n_calls)
            if in_place is not None:
                number = self._find_free(link.sources[0])
                self.values[number].layers.append(in_place)
            else:
                number = self._read_operation(link)
            self.numbers.append(number)
        rows = []
        settings = []
        for number, value in enumerate(self.values):
            for row, _ in value.operations:
                row[opcodes.OUT] = number
                row[opcodes.WIDTH] = value.width
            for row, pair in value.operations + value.layers:
                rows.append(row)
                settings.append(pair)
        write_flows(rows, has_layers=bool(self.values[0].layers))
        # behind the input: no operation reads or writes them
        for p in self.penalized:
            rows.insert(1, self._make_idle(p))
            settings.insert(1, (0.0, 0.0))
        links = np.array(rows, dtype=np.int64)
        kinds = links[:, opcodes.OPCODE]
        norms = links[kinds == opcodes.BATCH_NORM]
        return Graph(
            links,
            np.array(settings, dtype=np.float64),
            max(value.width for value in self.values),
            links[kinds == opcodes.LINEAR, opcodes.N_OUTPUTS].max(initial=0),
            _count_products(links),
            self.values[-1].width,
            self.ending,
            tuple(self.buffers),
            tuple(dict.fromkeys(self.lookups)),
            bool((norms[:, opcodes.N_POSITIONS] == 1).any()),
            bool(np.isin(kinds, _OF_WINDOWS).any()),
            tuple(self.idle),
            tuple(self.skipped),
        )

    def _make_idle(self, parameter):
        """Return the row of a weight that no layer uses, and that penalties train."""
        row = make_row(opcodes.IDLE)
        row[opcodes.WIDTH] = self.values[0].width
        row[opcodes.WEIGHT] = self.parameters[id(parameter)]
        row[opcodes.N_PENALIZED] = parameter.numel()
        row[opcodes.SLOT] = opcodes.NO_SLOT
        return row

    def _find_free(self, source):
        """Return a value that holds what a link returned, and that no other link takes."""
        number = self.numbers[source]
        if self.n_uses[source] <= 1:
            return number
        width = self.values[number].width
        return self._add_value(width, [(self._make_copy(number, width, width, 0), (0.0, 0.0))])

    def _add_value(self, width, operations):
        self.values.append(_Value(width, operations))
        return len(self.values) - 1

    def _make_copy(self, source, n_inputs, n_outputs, position):
        row = make_row(opcodes.COPY, source, n_inputs, n_outputs)
        row[opcodes.POSITION] = position
        return row

    def _read_operation(self, link):
        """Add the value of an operation; return its number."""
        sources = [self.numbers[source] for source in link.sources]
        layer = link.layer.layer if isinstance(link.layer, OnImages) else link.layer
        read = _OPERATIONS.get(type(layer))
        if read is None:
            raise Unknown(f"its layer {link.name} is a {type(layer).__name__}")
        return read(self, link, sources)

    def _read_linear(self, link, sources):
        layer = link.layer
        width = self.values[sources[0]].width
        shape = (layer.out_features, width)
        self._check_form(link, layer, shape, layer.in_features == width)
        row = make_row(opcodes.LINEAR, sources[0], width, layer.out_features)
        self._set_parameters(row, layer)
        return self._add_value(layer.out_features, [(row, (0.0, 0.0))])

    def _read_layer_norm(self, link, sources):
        layer = getattr(link.layer, "layer", link.layer)
        width = self.values[sources[0]].width
        shape = tuple(layer.normalized_shape)
        self._check_form(link, layer, shape, math.prod(shape) == width)
        row = make_row(opcodes.LAYER_NORM, sources[0], width, width)
        self._set_parameters(row, layer)
        return self._add_value(width, [(row, (layer.eps, 0.0))])

    def _read_batch_norm(self, link, sources):
        layer = getattr(link.layer, "layer", link.layer)
        width = self.values[sources[0]].width
        channels, *places = getattr(link.layer, "shape", (width,))
        self._check_form(link, layer, (channels,), layer.num_features == channels)
        row = make_row(opcodes.BATCH_NORM, sources[0], width, width)
        row[opcodes.N_POSITIONS] = math.prod(places)
        self._set_parameters(row, layer)
        row[opcodes.OPTION] = int(layer.track_running_stats)
        if layer.track_running_stats:
            row[opcodes.POSITION] = self._open_state(link.name, layer)
        momentum = -1.0 if layer.momentum is None else layer.momentum
        return self._add_value(width, [(row, (layer.eps, momentum))])

    def _open_state(self, name, layer):
        """Return where the numbers of a batch normalisation begin in the state of a net."""
        buffers = [layer.running_mean, layer.running_var, layer.num_batches_tracked]
        if any(id(buffer) not in self.buffer_names for buffer in buffers):
            raise Unknown(f"its layer {name} has no running statistics to track")
        if {buffer.dtype for buffer in buffers[:2]} != self.dtypes:
            raise Unknown(f"its layer {name} has running statistics of another type")
        if id(layer) not in self.states:
            self.states[id(layer)] = self.n_state
            for buffer in buffers:
                size = buffer.numel()
                self.buffers.append(Buffer(self.buffer_names[id(buffer)], self.n_state, size))
                self.n_state += size
        return self.states[id(layer)]

    def _read_sum(self, link, sources):
        width = self.values[sources[0]].width
        row = make_row(opcodes.ADD, sources[0], width, width)
        row[opcodes.B] = sources[1]
        return self._add_value(width, [(row, (link.layer.first, link.layer.second))])

    def _read_product(self, link, sources):
        width = self.values[sources[0]].width
        row = make_row(opcodes.PRODUCT, sources[0], width, width)
        row[opcodes.B] = sources[1]
        return self._add_value(width, [(row, (0.0, 0.0))])

    def _read_columns(self, link, sources):
        start, stop = link.layer.start, link.layer.stop
        n_inputs = self.values[sources[0]].width
        copy = self._make_copy(sources[0], n_inputs, stop - start, start)
        return self._add_value(stop - start, [(copy, (0.0, 0.0))])

    def _read_concatenation(self, link, sources):
        widths = [self.values[source].width for source in sources]
        total = sum(widths)
        copies = []
        position = 0
        for source, width in zip(sources, widths, strict=True):
            copies.append((self._make_copy(source, width, total, position), (0.0, 0.0)))
            position += width
        return self._add_value(total, copies)

    def _read_lookup(self, link, sources):
        layer = link.layer.layer
        n_entries, n_dimensions = layer.weight.shape
        rows = []
        for n, column in enumerate(link.layer.columns):
            row = make_row(opcodes.EMBEDDING, 0, n_entries, n_dimensions)
            row[opcodes.B] = column
            row[opcodes.WEIGHT] = self.parameters[id(layer.weight)]
            row[opcodes.N_PENALIZED] = n_entries * n_dimensions
            row[opcodes.POSITION] = n * n_dimensions
            row[opcodes.OPTION] = -1 if layer.padding_idx is None else layer.padding_idx
            rows.append((row, (0.0, 0.0)))
            self.lookups.append((column, n_entries))
        return self._add_value(len(rows) * n_dimensions, rows)

    def _read_window(self, link, sources):
        row, settings = read_window(link, sources[0])
        if row[opcodes.OPCODE] == opcodes.CONVOLUTION:
            layer = link.layer.layer
            shape = (layer.out_channels, layer.in_channels // layer.groups, *layer.kernel_size)
            self._check_form(link, layer, shape, layer.in_channels == row[opcodes.IN_CHANNELS])
            self._set_parameters(row, layer)
        return self._add_value(row[opcodes.N_OUTPUTS], [(row, settings)])

    def _check_form(self, link, layer, shape, fits=True):
        """Raise unless a layer fits to its inputs, and has the parameters of its class.

        `shape` is that of its weight.
        """
        expected = {} if layer.weight is None else {"weight": shape}
        if layer.bias is not None:
            # that of a layer normalisation is as large as its weight
            expected["bias"] = shape if isinstance(layer, nn.LayerNorm) else shape[:1]
        found = {name: tuple(p.shape) for name, p in layer.named_parameters()}
        if found != expected or not fits:
            # its forward complains, or is none of this kind
            raise Unknown(f"its layer {link.name} is of another form, or of other inputs")

    def _set_parameters(self, row, layer):
        """Write where the parameters of a layer begin."""
        if layer.weight is not None:
            row[opcodes.WEIGHT] = self.parameters[id(layer.weight)]
            if is_penalized(layer.weight.shape):
                row[opcodes.N_PENALIZED] = layer.weight.numel()
        if layer.bias is not None:
            row[opcodes.BIAS] = self.parameters[id(layer.bias)]
            if is_penalized(layer.bias.shape):
                # that of a layer normalisation may have several dimensions
                self._penalize_bias(row, layer)

    def _penalize_bias(self, row, layer):
        """Let the penalized numbers of a row be those of the weight and of the bias behind it."""
        if row[opcodes.BIAS] != row[opcodes.WEIGHT] + layer.weight.numel():
            raise Unknown("it has a penalized bias that does not stand behind its weight")
        row[opcodes.N_PENALIZED] += layer.bias.numel()


# What reads an operation, by the class of what computes it.
_OPERATIONS = {
    nn.Linear: GraphReader._read_linear,
    nn.LayerNorm: GraphReader._read_layer_norm,
    nn.BatchNorm1d: GraphReader._read_batch_norm,
    nn.BatchNorm2d: GraphReader._read_batch_norm,
    nn.Conv1d: GraphReader._read_window,
    nn.Conv2d: GraphReader._read_window,
    **dict.fromkeys(POOLS, GraphReader._read_window),
    Add: GraphReader._read_sum,
    Product: GraphReader._read_product,
    Columns: GraphReader._read_columns,
    Concatenation: GraphReader._read_concatenation,
    Lookup: GraphReader._read_lookup,
}


def _count_products(links):
    """Return the products of two numbers that the outputs of a row need."""
    linears = links[links[:, opcodes.OPCODE] == opcodes.LINEAR]
    n_products = linears[:, opcodes.N_INPUTS] @ linears[:, opcodes.N_OUTPUTS]
    windows = links[links[:, opcodes.OPCODE] == opcodes.CONVOLUTION]
    sizes = (opcodes.IN_CHANNELS, opcodes.KERNEL_HEIGHT, opcodes.KERNEL_WIDTH)
    of_output = windows[:, sizes].prod(axis=1) // np.maximum(windows[:, opcodes.GROUPS], 1)
    return int(n_products + windows[:, opcodes.N_OUTPUTS] @ of_output)


def _find_starts(parameters):
    """Return where each of some parameters begins among all of them, by its id."""
    starts = {}
    position = 0
    for p in parameters:
        starts[id(p)] = position
        position += p.numel()
    return starts
