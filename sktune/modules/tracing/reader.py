"""The nodes of a traced module as links."""

import operator

from torch import fx, nn

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
from sktune.modules.tracing.pieces import Looked, Pieces
from sktune.modules.tracing.shapes import CASTS_ELSEWHERE, SHAPE, is_table_view, read_shape
from sktune.modules.tracing.tracer import trace

_PREFIX = "module."


class LinkReader(Pieces):
    """Reads the nodes of a traced module, one after the other.

    Parameters
    ----------
    module : nn.Module
        In the mode that it is to be read in.
    n_features : int, default=None
        The columns of its input; None if the layers must tell them.
    takes_integers : bool, default=False
        Whether its input is a table of integers.
    """

    def __init__(self, module, n_features=None, takes_integers=False):
        super().__init__(n_features, takes_integers)
        self.module = module
        self.dtypes = {p.dtype for p in module.parameters()}
        # what each node is: the number of a table, a part of one, or a str for what is no table
        self.values = {}

    def read(self):
        """Return the links that lead to the outputs, a list."""
        graph, lines = trace(self.module)
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
            return read_shape(node, source, _name_of(node))
        if node.target is operator.getitem:
            return self.pick(source, node.args[1])
        if node.target is getattr and node.args[1:] == ("shape",):
            return SHAPE
        rest = node.args[1:]
        is_view = node.target in ("view", "reshape")
        if is_view and is_table_view([self.values.get(n, n) for n in _unpack(rest)]):
            return self.as_rows(source)
        if node.target in CASTS_ELSEWHERE:
            return self.cast(source, node.target, rest, node.kwargs, self.dtypes)
        if node.target == "size":
            return read_shape(node, SHAPE, "size") if rest else SHAPE
        found = self.read_piece(node, source)
        return self._call_function(node, source) if found is None else found

    def _call_layer(self, node, source):
        name = _strip(node.target)
        if len(node.args) != 1 or node.kwargs:
            raise Unreadable(f"its layer {name} is called with several arguments")
        layer = self.module.get_submodule(name)
        if type(layer) is nn.Embedding:
            return self.look_up(source, layer, name)
        if type(layer) is nn.Flatten and isinstance(source, Looked):
            return self.as_rows(source)
        if type(layer) is nn.GLU:
            return self.gate(source, layer.dim, name)
        if layer.training != self.module.training and not isinstance(layer, nn.Identity):
            raise Unreadable(f"its layer {name} is in another mode than the module")
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
        source = self.as_table(source)
        # no part of a module has a name with parentheses
        return source if layer is None else self.add_link(f"{node.name}()", layer, (source,))

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
                return read_shape(node, self.values[value], _name_of(node))
            if is_table:
                sources.append(self.as_table(self.values[value]))
            operands.append(None if is_table else value)
        link = read_arithmetic(node.target, _name_of(node), operands, node.kwargs)
        if len(sources) == 2:
            self.expect_equal_widths(*sources, _name_of(node))
        if len(sources) != (2 if isinstance(link, Add | Product) else 1):
            raise Unreadable(f"it computes {_name_of(node)} of something else than tables")
        return self.add_link(f"{node.name}()", link, tuple(sources))

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
        sources = tuple(self.as_table(self.values[table]) for table in tables)
        if len(sources) == 1:
            return sources[0]
        width = sum(self.known_width(source) for source in sources)
        return self.add_link(f"{node.name}()", Concatenation(), sources, width)

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
            if node not in used:
                used.add(node)
                pending += node.all_input_nodes
        for node in graph.nodes:
            if node not in used and not isinstance(self.values.get(node, ""), str):
                where = lines.get(node, "")
                raise Unreadable(f"it does not use what {_name_of(node)} returns{where}")

    def _check_links(self):
        """Raise unless each parameter is that of a layer, and an ending only at the end."""
        unused = {id(p): name for name, p in self.module.named_parameters()}
        for position, link in enumerate(open_links(self.module, self.links)):
            if isinstance(link.layer, ENDINGS) and position + 1 < len(self.links):
                raise Unreadable("it computes more after a softmax")
            layer = getattr(link.layer, "layer", link.layer)
            if isinstance(layer, nn.Module):
                for p in layer.parameters():
                    unused.pop(id(p), None)
        if unused:
            raise Unreadable(f"its parameter {min(unused.values())} is not used by a layer")
        if not any(True for _ in self.module.parameters()):
            raise Unreadable("it has no linear layer")
        if self.n_features is None:
            raise Unreadable("its layers do not tell the number of columns of its input")


# For layers with parameters: the attributes of the numbers of inputs and of outputs.
_SIZES = {
    nn.Linear: [("in_features", "out_features")],
    nn.BatchNorm1d: [("num_features", None)],
    nn.LayerNorm: [("normalized_shape", None)],
}


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
