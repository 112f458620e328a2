"""Symbolic tracing of a module by :mod:`torch.fx`, and the lines of code that it went through."""

import dis
import linecache
import sys
import threading
import traceback
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import fx, nn

from sktune.modules.dropout import HashedDropout

# torch.fx changes methods of `nn.Module` while it traces: one thread at a time.
_TRACING = threading.Lock()
# Code in these folders is not the user's.
_LIBRARIES = (str(Path(torch.__file__).parent), str(Path(__file__).parents[2]))


# What a forward does beside its outputs would be done once, in place of once in a step.
_ACTIONS = {"print", "input", "open", "write", "append", "extend", "update"}
_GROWS = {"append", "extend"}
_MAKES_LIST = {"BUILD_LIST", "LIST_EXTEND"}
_DRAWS = {"rand", "randn", "rand_like", "randn_like", "randint", "normal", "bernoulli", "random"}
_SETS = {"STORE_GLOBAL": "a global variable", "STORE_ATTR": "an attribute"}


class Untraceable(Exception):
    """A module cannot be traced; the text tells why, in the user's words."""


class _Table(fx.Proxy):
    """A stand-in for a table of rows: it has two dimensions at each step of a chain.

    Where the input has more, only its own dimensions are known.
    """

    @property
    def ndim(self):
        n_dimensions = self.tracer.n_dimensions
        if n_dimensions > 2 and self.node.op != "placeholder":
            raise fx.proxy.TraceError("the dimensions of what a layer returns are not known")
        return n_dimensions

    def dim(self):
        return self.ndim


class _Root(nn.Module):
    """Calls a module with its inputs alone, so that other arguments have their defaults."""

    def __init__(self, module):
        super().__init__()
        self.module = module

    def forward(self, X):
        return self.module(X)


# Where the layers of torch are.
_LAYERS = "torch.nn.modules."
# Those that draw random numbers.
_DRAWING = (
    nn.Dropout,
    nn.Dropout1d,
    nn.Dropout2d,
    nn.Dropout3d,
    nn.AlphaDropout,
    nn.FeatureAlphaDropout,
    nn.RReLU,
)


class _Tracer(fx.Tracer):
    """Notes the line of the user's code that each operation stems from.

    Attributes
    ----------
    lines : dict of fx.Node to str
        Where each node was made.
    n_dimensions : int
        Those of the input, with that of the rows.
    """

    # A buffer may have another value in another net: it must not be taken for a constant.
    proxy_buffer_attributes = True

    def __init__(self, n_dimensions):
        super().__init__(autowrap_modules=())
        self.n_dimensions = n_dimensions
        self.thread = threading.get_ident()
        self.lines = {}

    def is_leaf_module(self, m, module_qualified_name):
        """Take the layers of torch, and dropout, for single operations."""
        if isinstance(m, HashedDropout):
            return True
        is_torchs = type(m).__module__.startswith(_LAYERS)
        return is_torchs and not isinstance(m, nn.Sequential | nn.ModuleList | nn.ModuleDict)

    def proxy(self, node):
        return _Table(node, self)

    def create_node(self, *args, **kwargs):
        node = super().create_node(*args, **kwargs)
        self.lines[node] = _find_line(sys._getframe())
        return node

    def call_module(self, m, forward, args, kwargs):
        # torch.fx has replaced the method of the class: other threads call modules, too.
        if threading.get_ident() != self.thread:
            return forward(*args, **kwargs)
        if any(part is m for part in self.root.modules()):
            return super().call_module(m, forward, args, kwargs)
        # A layer that the forward makes, such as nn.ReLU()(X), is the function that it calls.
        is_torchs = type(m).__module__.startswith(_LAYERS)
        if not is_torchs or isinstance(m, _DRAWING) or [*m.parameters(), *m.buffers()]:
            raise Untraceable(
                f"its forward calls {type(m).__name__}, which is no part of the module"
                f"{_find_line(sys._getframe())}"
            )
        return m.forward(*args, **kwargs)

    def getattr(self, attr, attr_val, parameter_proxy_cache):
        if threading.get_ident() != self.thread:
            return attr_val
        return super().getattr(attr, attr_val, parameter_proxy_cache)


def check_code(module):
    """Raise :class:`Untraceable` if the ``forward`` of a part does what no graph holds.

    It is not called for that. What functions do that it calls is found out by the tracing.

    Parameters
    ----------
    module : nn.Module
    """
    for part in module.modules():
        code = getattr(type(part).forward, "__code__", None)
        if code is None or code.co_filename.startswith(_LIBRARIES):
            continue
        names = set(code.co_names)
        actions = names & _ACTIONS - _find_growing(code)
        if actions:
            raise Untraceable(f"its forward calls {min(actions)}")
        if names & _DRAWS:
            raise Untraceable(
                f"its forward draws random numbers in a way of its own, by {min(names & _DRAWS)}"
            )
        for step in dis.get_instructions(code):
            if step.opname in _SETS:
                raise Untraceable(f"its forward sets {_SETS[step.opname]}, {step.argval}")


def _find_growing(code):
    """Return which of ``append`` and ``extend`` are called of lists that the code makes itself."""
    steps = list(dis.get_instructions(code))
    own = set()
    others = set()
    outside = set()
    for before, step in zip(steps, steps[1:], strict=False):
        if step.opname == "STORE_FAST":
            (own if before.opname in _MAKES_LIST else others).add(step.argval)
    for before, step in zip(steps, steps[1:], strict=False):
        if step.argval in _GROWS and step.opname in ("LOAD_ATTR", "LOAD_METHOD"):
            is_own = before.opname.startswith("LOAD_FAST") and before.argval in own - others
            if not is_own:
                outside.add(step.argval)
    return _GROWS - outside


def trace(module, n_dimensions=2):
    """Return the operations of a module called with a table, and where each was written.

    Parameters
    ----------
    module : nn.Module
        Its ``forward`` is called once, with a stand-in for the table. All names of the graph begin
        with ``module.``.
    n_dimensions : int, default=2
        Those of its input, with that of the rows.

    Returns
    -------
    graph : fx.Graph
    lines : dict of fx.Node to str
        Such as ``", in net.py, line 12: return x + y"``; empty where no line is known.

    Raises
    ------
    Untraceable
        If the module cannot be traced.
    """
    with _TRACING:
        tracer = _Tracer(n_dimensions)
        with _telling_reasons(), _counting_rows(module):
            graph = tracer.trace(_Root(module))
    return graph, tracer.lines


def _count_rows(thing):
    """Return what ``len`` does; of a stand-in it is a number that the graph holds."""
    return thing.size(0) if isinstance(thing, fx.Proxy) else len(thing)


@contextmanager
def _counting_rows(module):
    """Let the forwards of a module's parts call ``len`` of a stand-in, in a block.

    Python asks ``len`` for a number. So their files get a function of this name, which other
    threads may call, too: for all else it is what it was.
    """
    changed = []
    for part in module.modules():
        code = getattr(type(part).forward, "__code__", None)
        names = getattr(type(part).forward, "__globals__", None)
        if code is None or code.co_filename.startswith(_LIBRARIES):
            continue
        if "len" in code.co_names and "len" not in names:
            names["len"] = _count_rows
            changed.append(names)
    try:
        yield
    finally:
        for names in changed:
            del names["len"]


@contextmanager
def _telling_reasons():
    """Turn whatever tracing raises into a reason in the user's words."""
    try:
        yield
    except Untraceable:
        raise
    except fx.proxy.TraceError as error:
        raise Untraceable(
            f"its forward has control flow on its data{_find_line_of_error(error)}"
        ) from error
    except Exception as error:
        first_line = (str(error).splitlines() or [""])[0]
        cause = f"{type(error).__name__}: {first_line}"
        raise Untraceable(
            f"its forward cannot be traced{_find_line_of_error(error)} ({cause})"
        ) from error


def _find_line(frame):
    """Return the innermost line of the user's code that led to a frame."""
    while frame is not None:
        path = frame.f_code.co_filename
        if not path.startswith(_LIBRARIES) and not path.startswith("<frozen"):
            return _describe(path, frame.f_lineno)
        frame = frame.f_back
    return ""


def _find_line_of_error(error):
    """Return the innermost line of the user's code that an error went through."""
    for entry in reversed(traceback.extract_tb(error.__traceback__)):
        if not entry.filename.startswith(_LIBRARIES):
            return _describe(entry.filename, entry.lineno)
    return ""


def _describe(path, number):
    code = linecache.getline(path, number).strip()
    return f", in {Path(path).name}, line {number}" + (f": {code}" if code else "")
