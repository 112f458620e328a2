"""Sums, products and copies of whole tables, in the compiled kernels."""

from sktune.engine.compiled.opcodes import (
    ADDED,
    FLOW_A,
    FLOW_B,
    N_INPUTS,
    N_OUTPUTS,
    NOTHING,
    OUT,
    POSITION,
    SLOT_A,
    SLOT_B,
    A,
    B,
)
from sktune.engine.compiled.vectors.code import compiled
from sktune.engine.compiled.vectors.scalars import cast


@compiled
def _find_parts(link, space):
    """Return where the features begin that a copy reads and writes, and the numbers of them."""
    # Features are picked if it reads fewer than there are, else they are put side by side.
    start = link[POSITION] * space.stride
    size = min(link[N_INPUTS], link[N_OUTPUTS]) * space.stride
    if link[N_INPUTS] > link[N_OUTPUTS]:
        return start, 0, size
    return 0, start, size


@compiled
def apply_copy(link, space):
    """Copy features of a value to features of another one."""
    read, written, size = _find_parts(link, space)
    source = space.tables[link[A], read : read + size]
    target = space.tables[link[OUT], written : written + size]
    for i in range(size):
        target[i] = source[i]


@compiled
def trace_copy(link, space, above):
    """Hand the gradient of features that were copied to those that they are copies of."""
    if link[FLOW_A] == NOTHING:
        return
    read, written, size = _find_parts(link, space)
    below = space.gradients[link[SLOT_A]]
    is_part = link[N_INPUTS] > link[N_OUTPUTS]
    if is_part and link[FLOW_A] != ADDED:
        # the features that were not picked
        for i in range(link[N_INPUTS] * space.stride):
            below[i] = cast(0.0, below[0])
    _hand_on(ADDED if is_part else link[FLOW_A], below[read:], above[written:], size, 1.0)


@compiled
def _hand_on(flow, below, above, size, factor):
    """Write or add a gradient, times a factor."""
    factor = cast(factor, above[0])
    if flow == ADDED:
        for i in range(size):
            below[i] += factor * above[i]
    else:
        for i in range(size):
            below[i] = factor * above[i]


@compiled
def apply_sum(link, factors, space):
    """Compute the sum of two values, each times a factor."""
    a = space.tables[link[A]]
    b = space.tables[link[B]]
    target = space.tables[link[OUT]]
    first = cast(factors[0], a[0])
    second = cast(factors[1], a[0])
    for i in range(link[N_OUTPUTS] * space.stride):
        target[i] = first * a[i] + second * b[i]


@compiled
def trace_sum(link, factors, space, above):
    """Hand the gradient of a sum to its summands."""
    size = link[N_OUTPUTS] * space.stride
    if link[FLOW_A] != NOTHING:
        _hand_on(link[FLOW_A], space.gradients[link[SLOT_A]], above, size, factors[0])
    if link[FLOW_B] != NOTHING:
        _hand_on(link[FLOW_B], space.gradients[link[SLOT_B]], above, size, factors[1])


@compiled
def apply_product(link, space):
    """Compute the product of two values, element by element."""
    a = space.tables[link[A]]
    b = space.tables[link[B]]
    target = space.tables[link[OUT]]
    for i in range(link[N_OUTPUTS] * space.stride):
        target[i] = a[i] * b[i]


@compiled
def trace_product(link, space, above):
    """Hand the gradient of a product to its factors."""
    size = link[N_OUTPUTS] * space.stride
    if link[FLOW_A] != NOTHING:
        other = space.tables[link[B]]
        _hand_on_product(link[FLOW_A], space.gradients[link[SLOT_A]], above, other, size)
    if link[FLOW_B] != NOTHING:
        other = space.tables[link[A]]
        _hand_on_product(link[FLOW_B], space.gradients[link[SLOT_B]], above, other, size)


@compiled
def _hand_on_product(flow, below, above, other, size):
    """Write or add a gradient times another table."""
    if flow == ADDED:
        for i in range(size):
            below[i] += above[i] * other[i]
    else:
        for i in range(size):
            below[i] = above[i] * other[i]
