"""Where the kernels write gradients: which operation is the first to do so, and which adds."""

from sktune.engine.compiled.opcodes import (
    ADDED,
    BIAS,
    EMBEDDING,
    FIRST_OPERATION,
    FLOW_A,
    FLOW_B,
    IN_PLACE,
    IS_FIRST_BIAS,
    IS_FIRST_WEIGHT,
    LINEAR,
    N_PENALIZED,
    NO_SLOT,
    NOTHING,
    OPCODE,
    OPTION,
    OUT,
    SLOT,
    SLOT_A,
    SLOT_B,
    WEIGHT,
    WRITTEN,
    A,
    B,
)


def write_flows(links, *, has_layers):
    """Fill in the columns of a table of links that tell where gradients are written.

    Gradients are computed from the last operation to the first. That of a value has a table from
    the first operation that writes to it until the value is done; then another value may have it.

    Parameters
    ----------
    links : list of list of int
        The rows of the table. They are changed in place.
    has_layers : bool
        Whether layers change the input in place.
    """
    operations = [row for row in links if row[OPCODE] >= FIRST_OPERATION]
    _write_first_uses(operations)
    needed = _find_needed(operations)
    slots = {operations[-1][OUT]: IN_PLACE}
    free = []
    n_slots = 0
    for position in range(len(operations) - 1, -1, -1):
        row = operations[position]
        value = row[OUT]
        row[SLOT] = slots.get(value, NO_SLOT) if value in needed else NO_SLOT
        row[SLOT_A] = row[SLOT_B] = NO_SLOT
        row[FLOW_A] = row[FLOW_B] = NOTHING
        if row[OPCODE] == LINEAR:
            row[OPTION] = int(row[A] == 0 and not has_layers)
        if row[SLOT] == NO_SLOT:
            continue
        for source, slot, flow in _list_sources(row):
            if source not in needed:
                continue
            row[flow] = ADDED if source in slots else WRITTEN
            if source not in slots:
                if not free:
                    free.append(n_slots)
                    n_slots += 1
                slots[source] = free.pop()
            row[slot] = slots[source]
        # others of the operations before may write to the same value
        is_done = position == 0 or operations[position - 1][OUT] != value
        if is_done and slots[value] != IN_PLACE:
            free.append(slots[value])


def _list_sources(row):
    """Return the values that an operation reads, with the columns of their slots and flows."""
    if row[OPCODE] == EMBEDDING:
        return []
    sources = [(row[A], SLOT_A, FLOW_A), (row[B], SLOT_B, FLOW_B)]
    return [source for source in sources if source[0] >= 0]


def _find_needed(operations):
    """Return the values whose gradients lead to a parameter."""
    needed = set()
    for row in operations:
        has_parameters = row[WEIGHT] >= 0 or row[BIAS] >= 0
        if has_parameters or any(source in needed for source, _, _ in _list_sources(row)):
            needed.add(row[OUT])
    return needed


def _write_first_uses(operations):
    """Mark the first gradient of each parameter in a step, and the one use that is penalized."""
    met = set()
    for row in reversed(operations):
        for start, is_first in ((WEIGHT, IS_FIRST_WEIGHT), (BIAS, IS_FIRST_BIAS)):
            row[is_first] = int(row[start] not in met)
        if row[WEIGHT] in met:
            row[N_PENALIZED] = 0
        met |= {row[WEIGHT], row[BIAS]}
