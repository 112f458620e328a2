"""Values of a traced module: tables, columns of them, and what an embedding looks up."""

import math
from typing import NamedTuple

import torch
from torch import nn

from sktune.modules.tracing.links import Columns, Link, Product
from sktune.modules.tracing.operations import CASTS, Unreadable

_INTEGERS = (torch.int64, torch.int32)


class Piece(NamedTuple):
    """Columns of a table that were picked, and not yet computed with.

    `source` is the number of the table. `is_single` tells that it has one dimension.
    """

    source: int
    start: int
    stop: int
    is_single: bool = False
    is_integer: bool = False


class Looked(NamedTuple):
    """The rows of an embedding for several columns: three dimensions (B, columns, dimensions).

    `number` is that of the flat table.
    """

    number: int
    n_columns: int


class View(NamedTuple):
    """A table whose rows are seen in a shape of their own: (B, *shape).

    `number` is that of the table.
    """

    number: int
    shape: tuple


class Pieces:
    """The links read so far, and the widths of their values.

    Parameters
    ----------
    shape : tuple of int or None
        That of a row of the input; None until a layer tells the columns.
    takes_integers : bool
        Whether the input is a table of integers.
    """

    def __init__(self, shape, takes_integers):
        self.shape = shape
        self.n_features = None if shape is None else math.prod(shape)
        self.takes_integers = takes_integers
        self.links = []
        # of each value; None for those that are as wide as the input
        self.widths = [None]

    def open_input(self):
        """Return the value of the input."""
        is_image = self.shape is not None and len(self.shape) > 1
        if is_image and self.takes_integers:
            raise Unreadable("its rows are arrays of integers")
        if is_image:
            return View(0, self.shape)
        if not self.takes_integers:
            return 0
        return Piece(0, 0, self.known_width(0), is_integer=True)

    def add_link(self, name, layer, sources, width=None, columns=None, shape=None):
        """Add a link; return the number of its value. A `width` of None is that of the source."""
        self.links.append(Link(name, layer, sources, columns, shape))
        self.widths.append(self.widths[sources[0]] if width is None else width)
        return len(self.links)

    def known_width(self, value):
        """Return the columns of a table; raise if they are not known."""
        width = self.widths[value]
        width = self.n_features if width is None else width
        if width is None:
            raise Unreadable("its layers do not tell the number of columns of its input")
        return width

    def expect_width(self, value, n, name):
        """Raise unless a table has n columns; the first layer tells the columns of the input."""
        if self.widths[value] is None and self.n_features is None:
            self.n_features = n
        if self.known_width(value) != n:
            raise Unreadable(f"{name} is called with another number of columns than it takes")

    def expect_equal_widths(self, a, b, name):
        """Raise unless two tables have as many columns."""
        if self.widths[a] is None and self.widths[b] is None:
            return
        if self.widths[a] is None:
            a, b = b, a
        self.expect_width(b, self.known_width(a), name)

    def as_table(self, value):
        """Return the number of a table; columns that were picked become one."""
        if isinstance(value, int):
            return value
        if isinstance(value, View):
            raise Unreadable(f"it takes arrays of shape {value.shape} for a table")
        if not isinstance(value, Piece) or value.is_single or value.is_integer:
            raise Unreadable("it computes with something else than a table of numbers")
        if (value.start, value.stop) == (0, self.known_width(value.source)):
            return value.source
        columns = Columns(value.start, value.stop)
        width = value.stop - value.start
        return self.add_link(f"columns {value.start}:{value.stop}", columns, (value.source,), width)

    def as_piece(self, value):
        """Return a table as columns of it, all of them."""
        if isinstance(value, int):
            return Piece(value, 0, self.known_width(value))
        if not isinstance(value, Piece):
            raise Unreadable("it picks from something else than a table")
        return value

    def as_rows(self, value):
        """Return what a view as a table makes of a value."""
        if isinstance(value, Looked):
            return value.number
        if isinstance(value, Piece) and value.is_single:
            raise Unreadable("it views a column in another shape")
        return value

    def pick(self, value, index):
        """Return some columns of a table, or a part of what was split."""
        if isinstance(value, tuple) and not isinstance(value, Piece | Looked | View):
            if not isinstance(index, int):
                raise Unreadable("it picks several parts at once")
            return value[index]
        is_column = isinstance(index, tuple) and len(index) == 2
        if not is_column or index[0] not in (slice(None), Ellipsis):
            raise Unreadable("it picks something else than columns")
        piece = self.as_piece(value)
        width = piece.stop - piece.start
        if isinstance(index[1], int) and not piece.is_single and -width <= index[1] < width:
            start = piece.start + index[1] % width
            return piece._replace(start=start, stop=start + 1, is_single=True)
        if piece.is_single and index[1] is None:
            return piece._replace(is_single=False)
        is_slice = isinstance(index[1], slice) and index[1].step in (None, 1)
        if not is_slice or piece.is_single:
            raise Unreadable("it picks other than neighbouring columns")
        start, stop, _ = index[1].indices(width)
        return self._narrow(piece, start, stop)

    def _narrow(self, piece, start, stop):
        if stop <= start:
            raise Unreadable("it picks no column")
        return piece._replace(start=piece.start + start, stop=piece.start + stop)

    def read_piece(self, node, value):
        """Return what a function makes of columns, or None if it is none of these functions."""
        name = getattr(node.target, "__name__", str(node.target))
        rest = list(node.args[1:])
        options = dict(node.kwargs)
        if name in ("chunk", "split"):
            dim = rest.pop(1) if len(rest) > 1 else options.pop("dim", 0)
            if dim not in (1, -1) or len(rest) != 1 or options:
                raise Unreadable(f"it computes {name} of other than columns")
            return self._split(value, name, rest[0])
        if name == "glu":
            dim = rest[0] if rest else options.get("dim", -1)
            return self.gate(value, dim, name)
        if name == "squeeze" and isinstance(value, Looked) and value.n_columns == 1:
            return value.number if rest == [1] or rest == [-2] else None
        if isinstance(value, Piece) and name in ("unsqueeze", "squeeze") and rest in ([1], [-1]):
            is_single = name == "squeeze"
            if value.is_single != is_single and value.stop - value.start == 1:
                return value._replace(is_single=is_single)
        return None

    def _split(self, value, name, sizes):
        piece = self.as_piece(value)
        width = piece.stop - piece.start
        if name == "chunk":
            sizes = -(-width // sizes)
        if isinstance(sizes, int):
            sizes = [min(sizes, width - start) for start in range(0, width, sizes)]
        parts = []
        start = 0
        for size in sizes:
            parts.append(self._narrow(piece, start, start + size))
            start += size
        return tuple(parts)

    def gate(self, value, dim, name):
        """Return the value of a gated linear unit: one half times the sigmoid of the other."""
        if dim not in (1, -1):
            raise Unreadable(f"{name} gates other than columns")
        halves = self._split(value, "chunk", 2)
        if len(halves) != 2 or self._size(halves[0]) != self._size(halves[1]):
            raise Unreadable(f"{name} is called with an odd number of columns")
        first, second = map(self.as_table, halves)
        second = self.add_link("sigmoid()", nn.Sigmoid(), (second,))
        return self.add_link("gate()", Product(), (first, second))

    @staticmethod
    def _size(piece):
        return piece.stop - piece.start

    def cast(self, value, method, args, kwargs, dtypes):
        """Return what a cast makes of a value: tables stay of the type of the parameters."""
        given = [*args, *kwargs.values()]
        dtype = {"long": torch.int64, "int": torch.int32, **CASTS}.get(method)
        if dtype is None:
            dtype = given[0] if len(given) == 1 else None
        is_integer = isinstance(value, Piece) and value.is_integer
        if dtype in _INTEGERS:
            return self.as_piece(value)._replace(is_integer=True)
        is_exact = not is_integer or self.takes_integers
        if dtypes != {dtype} or not is_exact:
            raise Unreadable("it casts its input to another type or device")
        return value._replace(is_integer=False) if is_integer else value

    def look_up(self, value, layer, name):
        """Return the value of an embedding that is called with columns of the input."""
        if not isinstance(value, Piece) or value.source != 0 or not value.is_integer:
            raise Unreadable(f"its layer {name} looks up something else than columns of its input")
        if layer.max_norm is not None or layer.sparse or layer.scale_grad_by_freq:
            raise Unreadable(f"its layer {name} has an option max_norm, sparse or by frequency")
        columns = tuple(range(value.start, value.stop))
        width = len(columns) * layer.embedding_dim
        number = self.add_link(name, None, (0,), width, columns)
        return number if value.is_single else Looked(number, len(columns))
