"""Reading of layers that work in place: activations, dropout and scales."""

import math

from sktune.engine.compiled import opcodes
from sktune.modules.activations import ACTIVATIONS, find_name
from sktune.modules.dropout import HashedDropout
from sktune.modules.function_masks import FUNCTION_INDEX
from sktune.modules.tracing.links import Clamp, FunctionDropout, OnImages, Scale


class Unknown(Exception):
    """The kernels do not compute a layer; the text tells which and why, in the user's words."""


def make_row(opcode, source=-1, n_inputs=0, n_outputs=0):
    """Return a row of the table of links."""
    row = [0] * opcodes.N_COLUMNS
    row[opcodes.OPCODE] = opcode
    if opcode >= opcodes.FIRST_OPERATION:
        row[opcodes.A] = source
        row[opcodes.B] = -1
        row[opcodes.WEIGHT] = -1
        row[opcodes.BIAS] = -1
    row[opcodes.N_INPUTS] = n_inputs
    row[opcodes.N_OUTPUTS] = n_outputs
    row[opcodes.N_POSITIONS] = 1
    return row


def read_in_place(link, n_calls):
    """Return row and settings of a layer that works in place; None if it is an operation.

    Parameters
    ----------
    link : OpenLink
    n_calls : Counter
        How often the masks of an index were drawn before in a step; a layer of dropout is counted.
    """
    layer = link.layer
    if isinstance(layer, Scale):
        return make_row(opcodes.SCALE), (layer.factor, layer.offset)
    n_places = 1
    if isinstance(layer, OnImages) and isinstance(layer.layer, HashedDropout | FunctionDropout):
        n_places = math.prod(layer.shape[1:])
        layer = layer.layer
    if isinstance(layer, HashedDropout):
        # its rate may be another in each lane
        return _make_dropout(layer.index, n_places, n_calls), (0.0, 0.0)
    if isinstance(layer, FunctionDropout):
        return _make_dropout(FUNCTION_INDEX, n_places, n_calls), (layer.p, 0.0)
    if type(layer) is Clamp:
        return make_row(opcodes.CLAMP), (layer.low, layer.high)
    name = find_name(layer)
    if name is None:
        return None
    opcode = getattr(opcodes, name.upper(), None)
    if opcode is None:
        raise Unknown(f"its layer {link.name} is a {type(layer).__name__}")
    options = [getattr(layer, option) for option in ACTIVATIONS[name].options]
    first, second = [*options, 0.0, 0.0][:2]
    return make_row(opcode), (first, second)


def _make_dropout(index, n_places, n_calls):
    """Return the row of a dropout of so many places at once: the next masks of an index."""
    row = make_row(opcodes.DROPOUT_LAYER)
    row[opcodes.N_POSITIONS] = n_places
    row[opcodes.DROPOUT_INDEX] = index
    row[opcodes.DROPOUT_CALL] = n_calls[index]
    n_calls[index] += 1
    return row
