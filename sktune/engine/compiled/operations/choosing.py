"""The operation of a link, forward and backward, by its opcode.

To add an operation, write its functions in a file of this package, and add its opcode to
``opcodes.py``, a case to both functions here, and a function to ``OPERATIONS`` of ``reading.py``.
Each opcode makes parts of its own of these functions: see
:mod:`sktune.engine.compiled.entries.parts`.
"""

from sktune.engine.compiled.opcodes import (
    ADD,
    AVERAGE_POOL,
    BATCH_NORM,
    CONVOLUTION,
    COPY,
    EMBEDDING,
    INPUT,
    LAYER_NORM,
    LINEAR,
    MAX_POOL,
    OUT,
    PRODUCT,
    SLOT,
    WIDTH,
)
from sktune.engine.compiled.operations.embeddings import apply_embedding, trace_embedding
from sktune.engine.compiled.operations.joins import (
    apply_copy,
    apply_product,
    apply_sum,
    trace_copy,
    trace_product,
    trace_sum,
)
from sktune.engine.compiled.operations.layers import trace_layers
from sktune.engine.compiled.operations.linear import apply_linear, trace_linear
from sktune.engine.compiled.operations.norms import (
    apply_batch_norm,
    apply_layer_norm,
    trace_batch_norm,
    trace_layer_norm,
)
from sktune.engine.compiled.operations.workspace import find_gradient
from sktune.engine.compiled.spatial.convolutions import apply_convolution, trace_convolution
from sktune.engine.compiled.spatial.pooling import (
    apply_average_pool,
    apply_max_pool,
    trace_average_pool,
    trace_max_pool,
)
from sktune.engine.compiled.vectors.code import inlined


@inlined
def apply_operation(opcode, link, options, flat, state, space, n, n_rows):
    """Compute an operation of n rows, of which `n_rows` are no padding."""
    if opcode == LINEAR:
        apply_linear(link, flat, space, n)
    elif opcode == COPY:
        apply_copy(link, space)
    elif opcode == ADD:
        apply_sum(link, options, space)
    elif opcode == PRODUCT:
        apply_product(link, space)
    elif opcode == LAYER_NORM:
        apply_layer_norm(link, options, flat, space, n)
    elif opcode == BATCH_NORM:
        apply_batch_norm(link, options, flat, state, space, n, n_rows)
    elif opcode == EMBEDDING:
        apply_embedding(link, flat, space, n)
    elif opcode == CONVOLUTION:
        apply_convolution(link, flat, space, n)
    elif opcode == MAX_POOL:
        apply_max_pool(link, space, n)
    elif opcode == AVERAGE_POOL:
        apply_average_pool(link, options, space, n)
    elif opcode != INPUT:
        raise ValueError("an operation's opcode must be one of sktune.engine.compiled.opcodes")


@inlined
def trace_operation(opcode, link, options, has_layers, flat, gradient, space, n, n_rows):
    """Write the gradients of an operation; layers in place may follow it."""
    above = find_gradient(space, link[SLOT], link[OUT])
    if opcode == LINEAR:
        trace_linear(link, flat, gradient, space, above, n, n_rows)
        return
    if has_layers:
        trace_layers(space, above, link[OUT], link[WIDTH])
    if opcode == COPY:
        trace_copy(link, space, above)
    elif opcode == ADD:
        trace_sum(link, options, space, above)
    elif opcode == PRODUCT:
        trace_product(link, space, above)
    elif opcode == LAYER_NORM:
        trace_layer_norm(link, flat, gradient, space, above, n, n_rows)
    elif opcode == BATCH_NORM:
        trace_batch_norm(link, flat, gradient, space, above, n, n_rows)
    elif opcode == EMBEDDING:
        trace_embedding(link, gradient, space, above, n_rows)
    elif opcode == CONVOLUTION:
        trace_convolution(link, flat, gradient, space, above, n, n_rows)
    elif opcode == MAX_POOL:
        trace_max_pool(link, space, above, n)
    elif opcode == AVERAGE_POOL:
        trace_average_pool(link, options, space, above, n)
