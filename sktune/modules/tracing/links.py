"""The nodes of a traced module as the links of a chain."""

from typing import NamedTuple

from torch import fx, nn

from sktune.modules.tracing.operations import (
    CASTS,
    ENDINGS,
    FUNCTIONS,
    METHODS,
    Unreadable,
    read_call,
    read_layer,
)
from sktune.modules.tracing.tracer import trace

_PREFIX = "module."
# What a node may be beside a table: its shape, and the numbers of rows and columns in it.
_SHAPE = "shape"
_N_ROWS = "number of rows"
_N_COLUMNS = "number of columns"


class Link(NamedTuple):
    """A layer of a chain.

    Attributes
    ----------
    name : str
        The name of the layer in the module; of a function, one that no layer has.
    layer : nn.Module or None
        What computes it; None if it is the layer of the module of that name.
    """

    name: str
    layer: nn.Module | None


class LinkReader:
    """Reads the nodes of a traced module, one after the other.

    Parameters
    ----------
    module : nn.Module
        In the mode that it is to be read in.
    """

    def __init__(self, module):
        self.module = module
        self.dtypes = {p.dtype for p in module.parameters()}
        # for each node that is a table the links that led to it, else what else it is
        self.values = {}

    def read(self):
        """Return the links that lead to the outputs, a list."""
        graph, lines = trace(self.module)
        for node in graph.nodes:
            if node.op == "output":
                links = self._read_output(node)
                self._check_all_are_used(graph, node, lines)
                self._check_order(links)
                return links
            try:
                self.values[node] = self._read_node(node)
            except Unreadable as error:
                raise Unreadable(f"{error}{lines.get(node, '')}") from None
        raise Unreadable("its forward returns nothing")

    def _read_node(self, node):
        """Return the value of a node."""
        if node.op == "placeholder":
            return []
        if node.op == "get_attr":
            raise Unreadable(f"it computes with {_strip(node.target)} outside of a layer")
        if not node.args or not isinstance(node.args[0], fx.Node):
            raise Unreadable(f"it calls {_name_of(node)} with something else than its input")
        source = self.values[node.args[0]]
        if isinstance(source, str):
            return _read_shape(node, source)
        if node.op == "call_module":
            return self._read_call_of_layer(node, source)
        if node.op == "call_method":
            return self._read_method(node, source)
        if node.target is getattr and node.args[1:] == ("shape",):
            return _SHAPE
        return self._add_call(FUNCTIONS, node, source)

    def _read_call_of_layer(self, node, source):
        name = _strip(node.target)
        if len(node.args) != 1 or node.kwargs:
            raise Unreadable(f"its layer {name} is called with several arguments")
        layer = self.module.get_submodule(name)
        found = read_layer(layer, name)
        if found is None:
            return source
        return [*source, Link(name, None if found is layer else found)]

    def _read_method(self, node, source):
        name = node.target
        rest = node.args[1:]
        if name == "size":
            return _read_size(rest)
        if name in ("view", "reshape"):
            self._check_view(rest)
            return source
        if name in CASTS or name == "to":
            self._check_cast(name, rest, node.kwargs)
            return source
        return self._add_call(METHODS, node, source)

    def _add_call(self, table, node, source):
        """Return the links up to a function or method that is called with a table."""
        rest = node.args[1:]
        if any(isinstance(value, fx.Node) for value in (*rest, *node.kwargs.values())):
            raise Unreadable(f"it computes {_name_of(node)} of several tensors")
        layer = read_call(table, node.target, _name_of(node), rest, node.kwargs)
        # no part of a module has a name with parentheses
        return source if layer is None else [*source, Link(f"{node.name}()", layer)]

    def _check_view(self, shape):
        """Raise unless a view of a table is the table itself, as far as the shape tells."""
        if len(shape) == 1 and isinstance(shape[0], tuple | list):
            shape = shape[0]
        sizes = [self.values[n] if isinstance(n, fx.Node) else n for n in shape]
        # That a number of columns is the right one shows where chain and module are compared.
        has_rows = bool(sizes) and sizes[0] in (_N_ROWS, -1)
        if len(sizes) != 2 or not has_rows or sizes == [-1, -1]:
            raise Unreadable("it views its input in another shape")

    def _check_cast(self, name, args, kwargs):
        """Raise unless a cast is to the type that the parameters have."""
        dtype = CASTS.get(name)
        if dtype is None:
            given = [*args, *kwargs.values()]
            dtype = given[0] if len(given) == 1 else None
        if self.dtypes != {dtype}:
            raise Unreadable("it casts its input to another type or device")

    def _read_output(self, node):
        returned = node.args[0]
        if not isinstance(returned, fx.Node) or isinstance(self.values[returned], str):
            raise Unreadable("it returns something else than one tensor")
        return self.values[returned]

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

    def _check_order(self, links):
        """Raise unless there are linear layers, each once, and an ending only at the end."""
        linears = []
        for position, link in enumerate(links):
            layer = self.module.get_submodule(link.name) if link.layer is None else link.layer
            if isinstance(layer, nn.Linear):
                linears.append(link.name)
            if isinstance(layer, ENDINGS) and position + 1 < len(links):
                raise Unreadable("it computes more after a softmax")
        if not linears:
            raise Unreadable("it has no linear layer")
        for name in linears:
            if linears.count(name) > 1:
                raise Unreadable(f"its layer {name} is used twice, with the same weights")
        self._check_parameters(linears)

    def _check_parameters(self, linears):
        """Raise unless each parameter is that of one linear layer of the chain."""
        unused = {name for name, _ in self.module.named_parameters()}
        met = set()
        for name in linears:
            unused -= {f"{name}.weight", f"{name}.bias"}
            for p in self.module.get_submodule(name).parameters():
                if id(p) in met:
                    raise Unreadable(f"its layer {name} has tied weights")
                met.add(id(p))
        if unused:
            raise Unreadable(f"its parameter {min(unused)} is not used by a linear layer")


def _strip(name):
    return name.removeprefix(_PREFIX)


def _name_of(node):
    """Return what a user calls the operation of a node."""
    if node.op == "call_module":
        return f"its layer {_strip(node.target)}"
    return getattr(node.target, "__name__", str(node.target))


def _read_size(args):
    """Return what ``x.size(...)`` of a table is."""
    if not args:
        return _SHAPE
    return _pick_size(args[0])


def _read_shape(node, source):
    """Return what an operation makes of a shape or of a part of it."""
    is_pick = node.op == "call_function" and getattr(node.target, "__name__", "") == "getitem"
    if source != _SHAPE or not is_pick:
        raise Unreadable(f"it computes {_name_of(node)} of a shape")
    return _pick_size(node.args[1])


def _pick_size(position):
    if position not in (0, 1, -1, -2):
        raise Unreadable("it takes its input for more than a table")
    return _N_ROWS if position in (0, -2) else _N_COLUMNS


def open_layers(module, links):
    """Return the layers of a chain by name, in their order.

    A layer that stands in it a second time gets another name.
    """
    layers = {}
    for link in links:
        name = link.name
        while name in layers:
            name += "+"
        layers[name] = module.get_submodule(link.name) if link.layer is None else link.layer
    return layers
