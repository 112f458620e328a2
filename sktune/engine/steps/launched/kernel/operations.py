"""Activations and dropout, each with its derivative, on a tile of a table (rows, features)."""

# Triton decides on the outer one of two nested conditions when it compiles.
# ruff: noqa: SIM102

import triton
import triton.language as tl

from sktune.engine.compiled import opcodes
from sktune.engine.steps.launched import layout

DROPOUT_LAYER = tl.constexpr(opcodes.DROPOUT_LAYER)
RELU = tl.constexpr(opcodes.RELU)
LEAKY_RELU = tl.constexpr(opcodes.LEAKY_RELU)
ELU = tl.constexpr(opcodes.ELU)
GELU = tl.constexpr(opcodes.GELU)
TANH = tl.constexpr(opcodes.TANH)
SIGMOID = tl.constexpr(opcodes.SIGMOID)
SILU = tl.constexpr(opcodes.SILU)
# the bits of these opcodes
HAS_DROPOUT_LAYER = tl.constexpr(1 << opcodes.DROPOUT_LAYER)
HAS_RELU = tl.constexpr(1 << opcodes.RELU)
HAS_LEAKY_RELU = tl.constexpr(1 << opcodes.LEAKY_RELU)
HAS_ELU = tl.constexpr(1 << opcodes.ELU)
HAS_GELU = tl.constexpr(1 << opcodes.GELU)
HAS_TANH = tl.constexpr(1 << opcodes.TANH)
HAS_SIGMOID = tl.constexpr(1 << opcodes.SIGMOID)
HAS_SILU = tl.constexpr(1 << opcodes.SILU)
_COLUMNS = tl.constexpr(layout.N_OPERATION_COLUMNS)
_RATE = tl.constexpr(layout.RATE)
_LAYER = tl.constexpr(layout.LAYER)
_CALL = tl.constexpr(layout.CALL)
_ROOT_HALF = tl.constexpr(0.7071067811865476)
# the normal distribution's density at 0
_DENSITY = tl.constexpr(0.3989422804014327)


@triton.jit
def mix(state, value):
    """Take an integer into a hash, as :func:`sktune.runtime.seeds.mix` does."""
    state = state + 0x9E3779B97F4A7C15 + value
    state = (state ^ (state >> 30)) * 0xBF58476D1CE4E5B9
    state = (state ^ (state >> 27)) * 0x94D049BB133111EB
    return state ^ (state >> 31)


@triton.jit
def keeps(key, positions, threshold):
    """Tell which units dropout keeps: :func:`sktune.runtime.seeds.random_int16`, to the last bit.

    `positions` are those of the units in a table (rows, width), counted row by row.
    """
    low = (key & 0xFFFFFFFF).to(tl.uint32)
    high = (key >> 32).to(tl.uint32)
    x = (positions >> 1).to(tl.uint32) + low
    x = x ^ (x >> 16)
    x = x * 0x7FEB352D
    x = x ^ (x >> 15)
    x = (x ^ high) * 0x846CA68B
    x = x ^ (x >> 16)
    # two numbers of 16 bits with a sign, the lower one first
    number = (x >> ((positions & 1) * 16).to(tl.uint32)) & 0xFFFF
    number = (number ^ 0x8000).to(tl.int32) - 0x8000
    return number >= threshold


@triton.jit
def _tanh(x):
    """Return tanh(x), with small relative errors near 0, too."""
    power = tl.exp(-2 * tl.abs(x))
    far = (1 - power) / (1 + power)
    far = tl.where(x < 0, -far, far)
    # the Taylor series
    square = x * x
    near = x * (1 - square * (1 / 3 - square * (2 / 15 - square * (17 / 315))))
    return tl.where(tl.abs(x) < 0.02, near, far)


@triton.jit
def _activate(code, option, values, slopes, KNOWN: tl.constexpr):
    """Apply an activation; return its outputs, and the slopes times its derivatives.

    `KNOWN` has the bits of the opcodes that the net has: there is no code for others.
    """
    # Comparisons are such that NaN remains NaN.
    is_low = values <= 0
    if HAS_RELU & KNOWN:
        if code == RELU:
            slopes = tl.where(is_low, 0.0, slopes)
            values = tl.where(is_low, 0.0, values)
    if HAS_LEAKY_RELU & KNOWN:
        if code == LEAKY_RELU:
            slopes = tl.where(is_low, slopes * option, slopes)
            values = tl.where(is_low, values * option, values)
    if HAS_ELU & KNOWN:
        if code == ELU:
            power = tl.exp(tl.where(is_low, values, 0.0))
            slopes = tl.where(is_low, slopes * option * power, slopes)
            values = tl.where(is_low, option * (power - 1), values)
    if HAS_GELU & KNOWN:
        if code == GELU:
            cumulative = 0.5 * (1 + tl.erf(values * _ROOT_HALF))
            density = _DENSITY * tl.exp(-0.5 * values * values)
            slopes = slopes * (cumulative + values * density)
            values = values * cumulative
    if HAS_TANH & KNOWN:
        if code == TANH:
            values = _tanh(values)
            slopes = slopes * (1 - values * values)
    if HAS_SIGMOID & KNOWN:
        if code == SIGMOID:
            values = 1 / (1 + tl.exp(-values))
            slopes = slopes * (values * (1 - values))
    if HAS_SILU & KNOWN:
        if code == SILU:
            sigmoid = 1 / (1 + tl.exp(-values))
            slopes = slopes * (sigmoid * (1 + values * (1 - sigmoid)))
            values = values * sigmoid
    return values, slopes


@triton.jit
def operate(
    values,
    slopes,
    rows,
    features,
    width,
    first,
    stop,
    operations,
    settings,
    thresholds,
    scales,
    key,
    KNOWN: tl.constexpr,
):
    """Apply some operations of the net to a tile; return its values, and slopes times derivatives.

    Parameters
    ----------
    values, slopes : tile (rows, features)
    rows, features : block of int
        Where the tile stands in a table of some `width`.
    first, stop : int
        The operations that are applied.
    operations, settings : pointer
        The opcodes and numbers of all operations.
    thresholds, scales : pointer
        Of the lane, by dropout layer: see :func:`sktune.modules.dropout.silence_below`.
    key : uint64
        The hash of seed, epoch and step that masks follow from.
    """
    for operation in range(first, stop):
        at = operations + operation * _COLUMNS
        code = tl.load(at)
        option = tl.load(settings + operation)
        values, slopes = _activate(code, option, values, slopes, KNOWN)
        if HAS_DROPOUT_LAYER & KNOWN:
            if code == DROPOUT_LAYER:
                rate = tl.load(at + _RATE)
                mask_key = mix(mix(key, tl.load(at + _LAYER)), tl.load(at + _CALL))
                positions = rows[:, None] * width + features[None, :]
                is_kept = keeps(mask_key, positions, tl.load(thresholds + rate))
                factors = tl.where(is_kept, tl.load(scales + rate), 0.0)
                values = values * factors
                slopes = slopes * factors
    return values, slopes
