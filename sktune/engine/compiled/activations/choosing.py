"""The activation of an opcode."""

import numpy as np

from sktune.engine.compiled.activations.pieces import (
    apply_leaky_relu,
    apply_pieces,
    apply_relu,
    apply_softsign,
)
from sktune.engine.compiled.activations.smooth import (
    apply_elu,
    apply_gelu,
    apply_mish,
    apply_sigmoid,
    apply_silu,
    apply_softplus,
    apply_tanh,
)
from sktune.engine.compiled.opcodes import (
    CLAMP,
    ELU,
    GELU,
    HARDSHRINK,
    HARDTANH,
    LEAKY_RELU,
    MISH,
    RELU,
    SIGMOID,
    SILU,
    SOFTPLUS,
    SOFTSHRINK,
    SOFTSIGN,
    TANH,
    THRESHOLD,
)
from sktune.engine.compiled.vectors import cast, compiled, inlined


@inlined
def activate(opcode, first, second, values, slope):
    """Apply an activation in place, and multiply `slope` by its derivatives.

    Parameters
    ----------
    opcode : int
    first, second : float
        What parametrizes the activation: for instance the slope of a leaky ReLU, or two limits.
    values, slope : ndarray (n,)
    """
    first = cast(first, values[0])
    second = cast(second, values[0])
    if opcode == RELU:
        apply_relu(values, slope)
    elif opcode == LEAKY_RELU:
        apply_leaky_relu(first, values, slope)
    elif opcode == ELU:
        apply_elu(first, values, slope)
    elif opcode == GELU:
        apply_gelu(values, slope)
    elif opcode == TANH:
        apply_tanh(values, slope)
    elif opcode == SIGMOID:
        apply_sigmoid(values, slope)
    elif opcode == SILU:
        apply_silu(values, slope)
    elif opcode == MISH:
        apply_mish(values, slope)
    elif opcode == SOFTPLUS:
        apply_softplus(first, second, values, slope)
    elif opcode == SOFTSIGN:
        apply_softsign(values, slope)
    else:
        _apply_pieces(opcode, first, second, values, slope)


@compiled
def _apply_pieces(opcode, first, second, values, slope):
    """Apply an activation of three pieces: which stay, and what is added."""
    zero = cast(0.0, values[0])
    low = first
    high = second
    is_inclusive = opcode != CLAMP
    keeps_middle = True
    to_low = first
    to_high = second
    if opcode == THRESHOLD:
        high = cast(np.inf, zero)
        to_low = second
        to_high = high
    elif opcode in (HARDSHRINK, SOFTSHRINK):
        low = -first
        high = first
        is_inclusive = False
        keeps_middle = False
        to_low = first if opcode == SOFTSHRINK else zero
        to_high = -to_low
    elif opcode not in (HARDTANH, CLAMP):
        raise ValueError("a layer's opcode must be one of sktune.engine.compiled.opcodes")
    added = (to_low, to_high)
    apply_pieces((low, high), is_inclusive, keeps_middle, added, values, slope)
