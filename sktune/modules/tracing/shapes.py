"""What a node may be beside a table: its shape, and the numbers of rows and columns in it."""

import operator

from sktune.modules.tracing.operations import Unreadable

SHAPE = "shape"
N_ROWS = "number of rows"
N_COLUMNS = "number of columns"
# Methods that cast.
CASTS_ELSEWHERE = ("float", "double", "long", "int", "to", "type")


def read_shape(node, source, name):
    """Return what an operation makes of a shape or of a part of it.

    Parameters
    ----------
    node : fx.Node
    source : str
        What it is called with.
    name : str
        What the operation is called in an error.
    """
    is_pick = node.target in (operator.getitem, "size")
    if source != SHAPE or not is_pick or len(node.args) != 2:
        raise Unreadable(f"it computes {name} of a shape")
    position = node.args[1]
    if position not in (0, 1, -1, -2):
        raise Unreadable("it takes its input for more than a table")
    return N_ROWS if position in (0, -2) else N_COLUMNS


def is_table_view(sizes):
    """Tell whether a view of a table is the table itself, as far as the sizes tell; else raise.

    That a number of columns is the right one shows where links and module are compared.
    """
    has_rows = bool(sizes) and sizes[0] in (N_ROWS, -1)
    if len(sizes) != 2 or not has_rows or sizes == [-1, -1]:
        raise Unreadable("it views its input in another shape")
    return True
