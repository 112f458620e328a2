"""What a node may be beside a table: its shape, and the numbers of rows and columns in it."""

import math
import operator

from sktune.modules.tracing.operations import Unreadable

N_ROWS = "number of rows"
N_COLUMNS = "number of columns"
# Methods that cast.
CASTS_ELSEWHERE = ("float", "double", "long", "int", "to", "type")


class Shape(str):
    """The shape of a table or of a view of it: the sizes of its dimensions, the rows first."""

    def __new__(cls, sizes):
        """Make a shape of sizes: N_ROWS, N_COLUMNS and :class:`Size`."""
        shape = super().__new__(cls, "shape")
        shape.sizes = tuple(sizes)
        return shape


class Size(str):
    """A number of channels, or of places of a view."""

    @property
    def n(self):
        """Return the number."""
        return int(self)


def read_shape(node, source, operands, name):
    """Return what an operation makes of a shape or of a size.

    Parameters
    ----------
    node : fx.Node
    source : str
        What it is called with first.
    operands : list
        All that it is called with.
    name : str
        What the operation is called in an error.
    """
    is_product = node.target in (operator.mul, "mul")
    if is_product and all(isinstance(value, Size | int) for value in operands):
        return Size(math.prod(map(int, operands)))
    is_pick = node.target in (operator.getitem, "size")
    if not isinstance(source, Shape) or not is_pick or len(operands) != 2:
        raise Unreadable(f"it computes {name} of a shape")
    sizes, position = source.sizes, operands[1]
    if isinstance(position, slice) and node.target is operator.getitem:
        return Shape(sizes[position])
    if not isinstance(position, int) or not -len(sizes) <= position < len(sizes):
        raise Unreadable("it takes its input for more than a table")
    return sizes[position]


def as_sizes(values):
    """Return the sizes that a view is asked for, with numbers in place of :class:`Size`."""
    if len(values) == 1 and isinstance(values[0], Shape):
        values = values[0].sizes
    return [value.n if isinstance(value, Size) else value for value in values]


def as_option(value):
    """Return an option of a function, with numbers in place of :class:`Size` and :class:`Shape`."""
    if isinstance(value, Shape):
        return tuple(as_sizes([value]))
    if isinstance(value, tuple | list):
        return type(value)(as_sizes(value))
    return as_sizes([value])[0]


def is_table_view(sizes):
    """Tell whether a view of a table is the table itself, as far as the sizes tell; else raise.

    That a number of columns is the right one shows where links and module are compared.
    """
    has_rows = bool(sizes) and sizes[0] in (N_ROWS, -1)
    if len(sizes) != 2 or not has_rows or sizes == [-1, -1]:
        raise Unreadable("it views its input in another shape")
    return True
