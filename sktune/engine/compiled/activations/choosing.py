"""The activation of an opcode."""

import numpy as np

from sktune.engine.compiled.activations.pieces import (
    apply_leaky_relu,
    apply_relu,
    apply_softsign,
    keep_between,
    keep_beyond,
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
from sktune.engine.compiled.vectors.code import compiled, inlined
from sktune.engine.compiled.vectors.scalars import cast


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
    elif opcode in (HARDTANH, CLAMP, THRESHOLD):
        _keep_between(opcode, first, second, values, slope)
    elif opcode in (HARDSHRINK, SOFTSHRINK):
        # what a number beyond the borders, -first and first, is moved by
        moved = first if opcode == SOFTSHRINK else cast(0.0, first)
        keep_beyond((-first, first), (moved, -moved), values, slope)
    else:
        raise ValueError("a layer's opcode must be one of sktune.engine.compiled.opcodes")


@compiled
def _keep_between(opcode, first, second, values, slope):
    """Apply an activation that keeps the numbers between two borders."""
    zero = cast(0.0, values[0])
    if opcode == THRESHOLD:
        infinite = cast(np.inf, zero)
        keep_between((first, infinite), (second, infinite), second, zero, values, slope)
    else:
        at_borders = cast(1.0, zero) if opcode == CLAMP else zero
        keep_between((first, second), (first, second), first, at_borders, values, slope)
