"""The nodes of a traced module as links."""

import operator

import torch
from torch import fx, nn

from sktune.modules.dropout import HashedDropout
from sktune.modules.function_masks import calls_dropout
from sktune.modules.tracing.joins import ARITHMETIC, CONCATENATIONS, read_arithmetic
from sktune.modules.tracing.links import Add, Concatenation, FunctionDropout, Product, open_links
from sktune.modules.tracing.operations import (
    ENDINGS,
    FUNCTIONS,
    METHODS,
    Unreadable,
    read_call,
    read_layer,
)
from sktune.modules.tracing.tracer import trace
from sktune.modules.tracing.values.images import Images
from sktune.modules.tracing.values.pieces import Looked, View
from sktune.modules.tracing.values.pools import POOL_FUNCTIONS, POOLS
from sktune.modules.tracing.values.shapes import (
    CASTS_ELSEWHERE,
    N_COLUMNS,
    N_ROWS,
    Shape,
    Size,
    as_option,
    as_sizes,
    read_shape,
)

_PREFIX = "module."


class LinkReader(Images):
    """Reads the nodes of a traced module, one after the other.

    Parameters
    ----------
    module : nn.Module
        In the mode that it is to be read in.
    shape : tuple of int, default=None
        That of a row of its input; None if the layers must tell the columns.
    takes_integers : bool, default=False
        Whether its input is a table of integers.
    """

    def __init__(self, module, shape=None, takes_integers=False):
        super().__init__(shape, takes_integers)
        self.module = module
        self.dtypes = {p.dtype for p in module.parameters()}
        # what each node is: the number of a table, a part or a view of one, or a str for what is no
        # table
        self.values = {}

    def read(self):
        """Return the links that lead to the outputs, a list."""
        graph, lines = trace(self.module, 1 + len(self.shape or (1,)))
        for node in graph.nodes:
            try:
                if node.op == "output":
                    self._read_output(node)
                    self._check_all_are_used(graph, node, lines)
                    self._check_links()
                    return self.links
                self.values[node] = self._read_node(node)
            except Unreadable as error:
                where = lines.get(node, "")
                text = str(error)
                raise Unreadable(text if where in text else f"{text}{where}") from None
        raise Unreadable("its forward returns nothing")

    def _read_node(self, node):
        """Return the value of a node."""
        if node.op == "placeholder":
            return self.open_input()
        if node.op == "get_attr":
            raise Unreadable(f"it computes with {_strip(node.target)} outside of a layer")
        if node.target in CONCATENATIONS:
            return self._concatenate(node)
        if node.target in ARITHMETIC:
            return self._read_arithmetic(node)
        if not node.args or not isinstance(node.args[0], fx.Node):
            what = _name_of(node)
            if what not in {_name_of_target(target) for target in FUNCTIONS}:
                raise Unreadable(f"it computes {what}")
            raise Unreadable(f"it calls {what} with something else than its input")
        source = self.values[node.args[0]]
        if node.op == "call_module":
            return self._call_layer(node, source)
        if isinstance(source, str):
            return self._read_shape(node, source)
        if node.target is operator.getitem:
            return self.pick(source, node.args[1])
        if node.target is getattr and node.args[1:] == ("shape",):
            return self._find_shape(source)
        rest = node.args[1:]
        if node.target in ("view", "reshape", torch.reshape):
            return self.view(source, as_sizes([self.values.get(n, n) for n in _unpack(rest)]))
        if node.target in CASTS_ELSEWHERE:
            return self.cast(source, node.target, rest, node.kwargs, self.dtypes)
        if node.target == "size":
            shape = self._find_shape(source)
            return self._read_shape(node, shape) if rest else shape
        found = self._read_images(node, source)
        if found is None:
            found = self.read_piece(node, source)
        return self._call_function(node, source) if found is None else found

    def _read_shape(self, node, source):
        operands = [self.values.get(n, n) if isinstance(n, fx.Node) else n for n in node.args]
        return read_shape(node, source, operands, _name_of(node))

    def _find_shape(self, source):
        """Return the shape of a value."""
        if isinstance(source, View):
            return Shape((N_ROWS, *(Size(n) for n in source.shape)))
        return Shape((N_ROWS, N_COLUMNS))

    def _read_images(self, node, source):
        """Return what a function of images makes of a value, or None if it is none of these."""
        if not isinstance(source, int | View):
            return None
        name = _name_of(node)
        rest = [self._open(value) for value in node.args[1:]]
        options = dict(node.kwargs)
        make = POOL_FUNCTIONS.get(node.target)
        if make is not None:
            rest = [as_option(value) for value in rest]
            options = {option: as_option(self._open(value)) for option, value in options.items()}
            layer = read_call(POOL_FUNCTIONS, node.target, name, rest, options)
            return self.call_on_images(source, layer, name, f"{node.name}()")
        if name == "mean" and isinstance(source, View):
            return self._average(source, f"{node.name}()", rest, options)
        return self.reshape(source, name, rest, options)

    def _open(self, argument):
        """Return an argument of a node, with the values of nodes in place of these."""
        if isinstance(argument, tuple | list):
            return type(argument)(map(self._open, argument))
        return self.values[argument] if isinstance(argument, fx.Node) else argument

    def _average(self, source, name, rest, options):
        """Return the value of a mean over the places of each channel."""
        dims = options.pop("dim", options.pop("axis", None))
        given = rest if dims is None else [dims, *rest]
        try:
            return self.average(source, name, *given, **options)
        except TypeError:
            raise Unreadable("it calls mean with other arguments than expected") from None

    def _call_layer(self, node, source):
        name = _strip(node.target)
        if len(node.args) != 1 or node.kwargs:
            raise Unreadable(f"its layer {name} is called with several arguments")
        layer = self.module.get_submodule(name)
        if type(layer) is nn.Embedding:
            return self.look_up(source, layer, name)
        if type(layer) is nn.Flatten and isinstance(source, Looked | View):
            return self.flatten(source, layer.start_dim, layer.end_dim)
        if type(layer) is nn.Unflatten:
            return self.unflatten(source, layer.dim, layer.unflattened_size)
        if type(layer) is nn.GLU:
            return self.gate(source, layer.dim, name)
        if layer.training != self.module.training and not isinstance(layer, nn.Identity):
            raise Unreadable(f"its layer {name} is in another mode than the module")
        if isinstance(layer, HashedDropout) and layer.by_channel:
            return self.drop_channels(source, layer, name, None)
        is_view = isinstance(source, View)
        if isinstance(layer, _IMAGE_LAYERS) and (is_view or type(layer) is not nn.BatchNorm1d):
            return self._call_image_layer(source, layer, name)
        if is_view and not isinstance(layer, (nn.Linear, *ENDINGS)):
            return self._call_on_view(source, layer, name)
        found = read_layer(layer, name)
        source = self.as_table(source)
        if found is None:
            return source
        width = None
        for attribute, outputs in _SIZES.get(type(layer), ()):
            n = getattr(layer, attribute)
            self.expect_width(source, n if isinstance(n, int) else n[0], name)
            width = getattr(layer, outputs) if outputs else None
        return self.add_link(name, None if found is layer else found, (source,), width)

    def _call_image_layer(self, source, layer, name):
        if type(layer) not in _IMAGE_LAYERS:
            raise Unreadable(f"its layer {name} is a {type(layer).__name__}")
        if getattr(layer, "padding_mode", "zeros") != "zeros":
            raise Unreadable(f"its layer {name} pads with other numbers than zeros")
        if getattr(layer, "return_indices", False):
            raise Unreadable(f"its layer {name} returns the places of its numbers")
        return self.call_on_images(source, layer, name, name)

    def _call_on_view(self, source, layer, name):
        """Return what a layer makes of a view that takes rows of any shape."""
        if isinstance(layer, nn.LayerNorm) and tuple(layer.normalized_shape) == source.shape:
            return self.call_by_number(source, layer, name, None)
        found = read_layer(layer, name)
        if found is None:
            return source
        return self.call_by_number(source, layer, name, None if found is layer else found)

    def _call_function(self, node, source):
        """Return the value of a function or method that is called with one table."""
        table = METHODS if node.op == "call_method" else FUNCTIONS
        rest = node.args[1:]
        if any(isinstance(value, fx.Node) for value in (*rest, *node.kwargs.values())):
            raise Unreadable(f"it computes {_name_of(node)} of several tensors")
        if isinstance(source, Looked) and _name_of(node) == "flatten":
            return self.as_rows(source)
        layer = read_call(table, node.target, _name_of(node), rest, node.kwargs)
        if isinstance(layer, FunctionDropout):
            self._check_masks()
        if layer is None:
            return source if isinstance(source, View) else self.as_table(source)
        # no part of a module has a name with parentheses
        name = f"{node.name}()"
        if isinstance(layer, FunctionDropout) and layer.by_channel:
            return self.drop_channels(source, layer, name, layer)
        if isinstance(source, View) and not isinstance(layer, ENDINGS):
            return self.call_by_number(source, layer, name, layer)
        return self.add_link(name, layer, (self.as_table(source),))

    def _check_masks(self):
        """Raise unless calls of a dropout function have masks that follow from the seed."""
        if not self.module.training:
            raise Unreadable("it drops units in evaluation, too")
        if not calls_dropout(self.module):
            raise Unreadable("it calls a dropout function outside of its methods: use nn.Dropout")

    def _read_arithmetic(self, node):
        """Return the value of a sum, a product or the like, of tables and numbers."""
        operands = []
        sources = []
        for value in node.args:
            is_table = isinstance(value, fx.Node)
            if is_table and isinstance(self.values[value], str):
                return self._read_shape(node, self.values[value])
            if is_table:
                sources.append(self.values[value])
            operands.append(None if is_table else value)
        shape = self._find_common_shape(sources, _name_of(node))
        sources = [self.as_number(source) for source in sources]
        link = read_arithmetic(node.target, _name_of(node), operands, node.kwargs)
        if len(sources) == 2:
            self.expect_equal_widths(*sources, _name_of(node))
        if len(sources) != (2 if isinstance(link, Add | Product) else 1):
            raise Unreadable(f"it computes {_name_of(node)} of something else than tables")
        return self.as_view(self.add_link(f"{node.name}()", link, tuple(sources)), shape)

    def _find_common_shape(self, sources, name):
        """Return the shape of the rows of several values; one of a single dimension for tables."""
        shapes = {source.shape if isinstance(source, View) else (1,) for source in sources}
        if len(shapes) > 1:
            raise Unreadable(f"it computes {name} of rows of several shapes")
        return next(iter(shapes), (1,))

    def _concatenate(self, node):
        """Return the value of tables side by side."""
        tables, *rest = node.args or (None,)
        options = dict(node.kwargs)
        dim = rest[0] if rest else options.pop("dim", options.pop("axis", 0))
        is_flat = _name_of(node) == "hstack" or dim in (1, -1)
        if options or not is_flat or not isinstance(tables, tuple | list):
            raise Unreadable(f"it computes {_name_of(node)} of other than columns")
        if not all(isinstance(table, fx.Node) for table in tables):
            raise Unreadable(f"it computes {_name_of(node)} of something else than tables")
        values = [self.values[table] for table in tables]
        if len(values) == 1:
            return values[0] if isinstance(values[0], View) else self.as_table(values[0])
        shape = (1,)
        if any(isinstance(value, View) for value in values):
            shape = self._join_channels(values, dim, _name_of(node))
        sources = tuple(self.as_number(value) for value in values)
        width = sum(self.known_width(source) for source in sources)
        joined = self.add_link(f"{node.name}()", Concatenation(), sources, width)
        return self.as_view(joined, shape)

    def _join_channels(self, values, dim, name):
        """Return the shape of rows whose channels stand one behind the other."""
        places = {value.shape[1:] if isinstance(value, View) else None for value in values}
        if len(places) != 1 or (name != "hstack" and dim != 1):
            raise Unreadable(f"it computes {name} of other than channels of one shape")
        return (sum(value.shape[0] for value in values), *next(iter(places)))

    def _read_output(self, node):
        returned = node.args[0]
        if not isinstance(returned, fx.Node) or isinstance(self.values[returned], str):
            raise Unreadable("it returns something else than one tensor")
        if self.as_table(self.values[returned]) != len(self.links):
            raise Unreadable("it does not return what it computes last")

    def _check_all_are_used(self, graph, output, lines):
        """Raise if a table is computed that does not lead to the outputs."""
        used = set()
        pending = [output]
        while pending:
            node = pending.pop()
            if node in used:
                continue
            used.add(node)
            # a shape does not lead to the numbers that it is the shape of
            if not isinstance(self.values.get(node), str):
                pending += node.all_input_nodes
        for node in graph.nodes:
            if node not in used and not isinstance(self.values.get(node, ""), str):
                where = lines.get(node, "")
                raise Unreadable(f"it does not use what {_name_of(node)} returns{where}")

    def _check_links(self):
        """Raise unless a layer has parameters, and an ending stands only at the end.

        Parameters of other layers are idle: their gradients prove it when the links are compared
        with the module.
        """
        has_parameters = False
        for position, link in enumerate(open_links(self.module, self.links)):
            if isinstance(link.layer, ENDINGS) and position + 1 < len(self.links):
                raise Unreadable("it computes more after a softmax")
            layer = getattr(link.layer, "layer", link.layer)
            if isinstance(layer, nn.Module):
                has_parameters = has_parameters or any(True for _ in layer.parameters())
        if not has_parameters:
            raise Unreadable("it has no linear layer")
        if self.n_features is None:
            raise Unreadable("its layers do not tell the number of columns of its input")


# For layers with parameters: the attributes of the numbers of inputs and of outputs.
_SIZES = {
    nn.Linear: [("in_features", "out_features")],
    nn.BatchNorm1d: [("num_features", None)],
    nn.LayerNorm: [("normalized_shape", None)],
}


_IMAGE_LAYERS = (nn.Conv1d, nn.Conv2d, nn.BatchNorm1d, nn.BatchNorm2d, *POOLS)


def _unpack(shape):
    """Return the sizes that ``view`` is called with, as numbers or as one tuple."""
    if len(shape) == 1 and isinstance(shape[0], tuple | list):
        return list(shape[0])
    return list(shape)


def _strip(name):
    return name.removeprefix(_PREFIX)


def _name_of(node):
    """Return what a user calls the operation of a node."""
    if node.op == "call_module":
        return f"its layer {_strip(node.target)}"
    return _name_of_target(node.target)


def _name_of_target(target):
    return getattr(target, "__name__", str(target))
