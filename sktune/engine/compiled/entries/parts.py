"""The parts of a step, one for each operation, layer, criterion and optimizer.

A part is a function that is compiled for itself, when a network first needs it, and kept on disk.
The kernels call it by its address. Each kind of part has a signature: the arguments that the
function of an opcode takes, whether it needs them or not. The opcode is a constant of the part, so
that Numba leaves out what other opcodes need.

Numba keeps a part on disk by its code, this file's time, and the variables that it closes over: the
digest of all sources is one of them, so that an edit of any file leads to new parts.
"""

from hashlib import sha256
from pathlib import Path

import numpy as np
from numba import cfunc, from_dtype, typeof, types

from sktune.engine.compiled.criteria.choosing import compute_loss
from sktune.engine.compiled.entries.calling import make_call
from sktune.engine.compiled.entries.products import (
    sign_add_places,
    sign_multiply,
    sign_multiply_gathered,
    sign_transpose,
)
from sktune.engine.compiled.gradients.clipping import clip
from sktune.engine.compiled.gradients.penalties import penalize
from sktune.engine.compiled.operations.choosing import apply_operation, trace_operation
from sktune.engine.compiled.operations.layers import apply_layer
from sktune.engine.compiled.operations.workspace import open_workspace
from sktune.engine.compiled.spatial.products import add_places, multiply_gathered
from sktune.engine.compiled.updates import update
from sktune.engine.compiled.vectors.code import FASTMATH
from sktune.engine.compiled.vectors.products import multiply
from sktune.engine.compiled.vectors.tables import transpose

_LINK = types.Array(types.int64, 1, "C")
_SETTINGS = types.Array(types.float64, 1, "C")
_ROWS = types.Array(types.int64, 1, "C")


def digest_sources():
    """Return a digest of all files that compiled code is made of."""
    digest = sha256()
    compiled = Path(__file__).parents[1]
    package = compiled.parents[1]
    clips = package / "training" / "gradients" / "clipping.py"
    for path in [*sorted(compiled.rglob("*.py")), package / "runtime" / "seeds.py", clips]:
        digest.update(path.read_bytes())
    return digest.hexdigest()


SOURCES = digest_sources()


def _list_types(scalar):
    """Return the types of a flat array, of a table and of a workspace of some type of number."""
    flat = types.Array(scalar, 1, "C")
    table = types.Array(scalar, 2, "C")
    space = typeof(open_workspace(np.dtype(str(scalar))))
    return flat, table, space


def _sign_apply(scalar):
    flat, _, space = _list_types(scalar)
    return types.void(flat, _LINK, _SETTINGS, flat, space, types.int64, types.int64)


def _sign_trace(scalar):
    flat, _, space = _list_types(scalar)
    n = types.int64
    return types.void(flat, _LINK, _SETTINGS, types.boolean, flat, space, n, n)


def _sign_layer(scalar):
    flat, _, space = _list_types(scalar)
    step = types.UniTuple(types.int64, 3)
    return types.void(flat, _LINK, _SETTINGS, space, types.int64, types.int64, types.int64, step)


def _sign_loss(scalar):
    flat, table, space = _list_types(scalar)
    return scalar(flat, _SETTINGS, space, types.int64, table, flat, _ROWS, types.int64)


def _sign_update(scalar):
    flat, _, _ = _list_types(scalar)
    return types.void(flat, _SETTINGS, types.float64, types.int64, flat, flat, flat, flat)


def _sign_penalty(scalar):
    flat, _, _ = _list_types(scalar)
    return scalar(flat, types.Array(types.int64, 2, "C"), flat, scalar, scalar)


def _sign_clip(scalar):
    flat, _, _ = _list_types(scalar)
    return types.void(flat, _SETTINGS, flat)


call_apply = make_call(_sign_apply)
call_trace = make_call(_sign_trace)
call_layer = make_call(_sign_layer)
call_loss = make_call(_sign_loss)
call_update = make_call(_sign_update)
call_penalty = make_call(_sign_penalty)
call_clip = make_call(_sign_clip)


def _make_apply(opcode, sources):
    def apply(flat, link, settings, state, space, n, n_rows):
        _ = sources
        apply_operation(opcode, link, settings, flat, state, space, n, n_rows)

    return apply


def _make_trace(opcode, sources):
    def trace(flat, link, settings, has_layers, gradient, space, n, n_rows):
        _ = sources
        trace_operation(opcode, link, settings, has_layers, flat, gradient, space, n, n_rows)

    return trace


def _make_layer(opcode, sources):
    def layer(flat, link, settings, space, table, width, n, step):
        _ = sources
        apply_layer(opcode, link, settings, space, table, width, n, step)

    return layer


def _make_loss(opcode, sources):
    def loss(flat, options, space, n_outputs, target, weight, rows, n):
        _ = sources
        return compute_loss(opcode, options, space, n_outputs, target, weight, rows, n)

    return loss


def _make_update(opcode, sources):
    def take_step(flat, options, rate, t, gradient, first, second, third):
        _ = sources
        update(opcode, options, rate, t, flat, gradient, first, second, third)

    return take_step


def _make_penalty(opcode, sources):
    def penalty(flat, links, gradient, l1, l2):
        _ = opcode, sources
        return penalize(links, flat, gradient, l1, l2)

    return penalty


def _make_clip(opcode, sources):
    def clip_gradient(flat, turns, gradient):
        _ = opcode, sources
        clip(turns, gradient)

    return clip_gradient


def _make_multiply(opcode, sources):
    def multiply_tables(c, c_row, a, a_row, a_column, b, b_row, shape, bias, bias_row):
        _ = opcode, sources
        multiply(c, c_row, a, a_row, a_column, b, b_row, shape, bias, bias_row)

    return multiply_tables


def _make_transpose(opcode, sources):
    def transpose_table(a, a_row, b, b_row, n_rows, n_columns):
        _ = opcode, sources
        transpose(a, a_row, b, b_row, n_rows, n_columns)

    return transpose_table


def _make_multiply_gathered(opcode, sources):
    def multiply_rows(c, c_row, a, a_row, b, a_at, b_at, n, n_rows, n_columns, bias, bias_row):
        _ = opcode, sources
        multiply_gathered(c, c_row, a, a_row, b, a_at, b_at, n, n_rows, n_columns, bias, bias_row)

    return multiply_rows


def _make_add_places(opcode, sources):
    def add_sums(c, c_row, c_column, a, a_row, a_place, b, b_row, b_place, shape):
        _ = opcode, sources
        add_places(c, c_row, c_column, a, a_row, a_place, b, b_row, b_place, shape)

    return add_sums


# For each kind: what makes the function of an opcode, and its signature.
_KINDS = {
    "apply": (_make_apply, _sign_apply),
    "trace": (_make_trace, _sign_trace),
    "layer": (_make_layer, _sign_layer),
    "loss": (_make_loss, _sign_loss),
    "update": (_make_update, _sign_update),
    "penalty": (_make_penalty, _sign_penalty),
    "clip": (_make_clip, _sign_clip),
    "multiply": (_make_multiply, sign_multiply),
    "transpose": (_make_transpose, sign_transpose),
    "multiply_gathered": (_make_multiply_gathered, sign_multiply_gathered),
    "add_places": (_make_add_places, sign_add_places),
}


def load_part(kind, opcode, dtype):
    """Return a part for some type of number; it is compiled if it is not on disk.

    Parameters
    ----------
    kind : str
        A key of the table above.
    opcode : int
        0 where a kind has one part only.
    dtype : numpy.dtype

    Returns
    -------
    part : CFunc
        With its `address`.
    """
    make, sign = _KINDS[kind]
    compile_part = cfunc(
        sign(from_dtype(dtype)),
        cache=True,
        nopython=True,
        fastmath=FASTMATH,
        error_model="numpy",
    )
    return compile_part(make(int(opcode), SOURCES))
