"""Reading of layers that work in place: activations, dropout and scales."""

from sktune.engine.compiled import opcodes
from sktune.modules.activations import ACTIVATIONS, find_name
from sktune.modules.dropout import HashedDropout
from sktune.modules.function_masks import FUNCTION_INDEX
from sktune.modules.tracing.links import FunctionDropout, Scale


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
    if isinstance(layer, HashedDropout):
        # its rate may be another in each lane
        return _make_dropout(layer.index, n_calls), (0.0, 0.0)
    if isinstance(layer, FunctionDropout):
        return _make_dropout(FUNCTION_INDEX, n_calls), (layer.p, 0.0)
    if find_name(layer) is None:
        return None
    return make_row(_find_opcode(link.name, layer)), (_read_option(layer), 0.0)


def _make_dropout(index, n_calls):
    """Return the row of a dropout that draws the next masks of an index."""
    row = make_row(opcodes.DROPOUT_LAYER)
    row[opcodes.DROPOUT_INDEX] = index
    row[opcodes.DROPOUT_CALL] = n_calls[index]
    n_calls[index] += 1
    return row


def _find_opcode(name, layer):
    """Return the opcode of an activation layer; raise where the kernels do not compute it."""
    activation = find_name(layer)
    for attribute, value in ACTIVATIONS[activation].compiled_form.items():
        if getattr(layer, attribute) != value:
            raise Unknown(f"its layer {name} has another {attribute} than {value!r}")
    opcode = getattr(opcodes, activation.upper(), None)
    if opcode is None:
        raise Unknown(f"its layer {name} is a {type(layer).__name__}")
    return opcode


def _read_option(layer):
    """Return the number that parametrizes an activation layer; 0 if none does."""
    option = ACTIVATIONS[find_name(layer)].option
    return 0.0 if option is None else getattr(layer, option)
