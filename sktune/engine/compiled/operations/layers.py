"""Layers of the compiled kernels that work in place: activations, dropout and scales."""

import numpy as np

from sktune.engine.compiled.activations.choosing import activate
from sktune.engine.compiled.dropout import drop, drop_channels, find_mask_key
from sktune.engine.compiled.opcodes import (
    DROPOUT_CALL,
    DROPOUT_INDEX,
    DROPOUT_LAYER,
    N_POSITIONS,
    SCALE,
)
from sktune.engine.compiled.vectors.code import compiled, inlined
from sktune.engine.compiled.vectors.scalars import cast


@inlined
def apply_layer(opcode, link, settings, space, table, width, n, step):
    """Apply a layer in place, and multiply the slopes of its table by its derivatives.

    `step` is (seed of the fit, epoch, batch).
    """
    values = space.tables[table, : width * space.stride]
    slope = space.slopes[table, : width * space.stride]
    if opcode == DROPOUT_LAYER:
        seed, epoch, batch = step
        key = find_mask_key(seed, epoch, batch, link[DROPOUT_INDEX], link[DROPOUT_CALL])
        # The random numbers are the upper halves of 32 bits.
        limit = np.int32(settings[0] * 65536)
        n_places = link[N_POSITIONS]
        if n_places == 1:
            drop(key, limit, settings[1], space, values, slope, width, n)
        else:
            n_channels = width // n_places
            drop_channels(key, limit, settings[1], space, values, slope, n_channels, n_places, n)
    elif opcode == SCALE:
        _apply_scale(settings[0], settings[1], space.stride, values, slope, width, n)
    else:
        activate(opcode, settings[0], settings[1], values, slope)


@compiled
def _apply_scale(factor, offset, stride, values, slope, width, n):
    """Multiply n rows of a table by a factor, and add an offset."""
    factor = cast(factor, values[0])
    offset = cast(offset, values[0])
    for feature in range(width):
        # not the numbers between two features: nothing writes them anew in each step
        feature_values = values[feature * stride :][:n]
        feature_slope = slope[feature * stride :][:n]
        for i in range(n):
            feature_values[i] = feature_values[i] * factor + offset
            feature_slope[i] *= factor


@compiled
def trace_layers(space, above, table, width):
    """Replace the gradient of what layers in place return by that of what they take."""
    slope = space.slopes[table]
    for i in range(width * space.stride):
        above[i] *= slope[i]
