"""Products and transposed tables, as parts that other parts call.

A part that contained them would be compiled with a copy of them, which would take longer than all
the rest of it. So they are compiled once for a type of number, and a workspace holds their
addresses.
"""

from typing import NamedTuple

from numba import types

from sktune.engine.compiled.entries.calling import make_call


class Products(NamedTuple):
    """The addresses of the parts; they are 0 where nothing is called."""

    multiply: int = 0
    transpose: int = 0
    # of convolutions
    multiply_gathered: int = 0
    add_places: int = 0


def sign_multiply(scalar):
    """Return the signature of :func:`~sktune.engine.compiled.vectors.products.multiply`."""
    table = types.Array(scalar, 1, "C")
    n = types.int64
    return types.void(table, n, table, n, n, table, n, types.UniTuple(n, 3), table, n)


def sign_transpose(scalar):
    """Return the signature of :func:`~sktune.engine.compiled.vectors.tables.transpose`."""
    table = types.Array(scalar, 1, "C")
    n = types.int64
    return types.void(table, n, table, n, n, n)


def sign_multiply_gathered(scalar):
    """Return the signature of ``multiply_gathered`` in `sktune.engine.compiled.spatial`."""
    table = types.Array(scalar, 1, "C")
    places = types.Array(types.int64, 1, "C")
    n = types.int64
    return types.void(table, n, table, n, table, places, places, n, n, n, table, n)


def sign_add_places(scalar):
    """Return the signature of ``add_places`` in `sktune.engine.compiled.spatial`."""
    table = types.Array(scalar, 1, "C")
    n = types.int64
    return types.void(table, n, n, table, n, n, table, n, n, types.UniTuple(n, 4))


call_multiply = make_call(sign_multiply)
call_transpose = make_call(sign_transpose)
call_multiply_gathered = make_call(sign_multiply_gathered)
call_add_places = make_call(sign_add_places)
