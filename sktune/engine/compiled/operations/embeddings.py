"""Embeddings of the compiled kernels: rows of a weight, looked up by a column of the inputs."""

from sktune.engine.compiled.opcodes import (
    IS_FIRST_WEIGHT,
    N_INPUTS,
    N_OUTPUTS,
    OPTION,
    OUT,
    POSITION,
    WEIGHT,
    B,
)
from sktune.engine.compiled.vectors.code import compiled
from sktune.engine.compiled.vectors.scalars import cast


@compiled
def apply_embedding(link, flat, space, n):
    """Write what an embedding holds for a column of the inputs of n rows.

    The column must hold numbers of rows of the weight, in any row of the data.
    """
    stride = space.stride
    n_dimensions = link[N_OUTPUTS]
    keys = space.tables[0, link[B] * stride :]
    weight = flat[link[WEIGHT] :]
    for d in range(n_dimensions):
        target = space.tables[link[OUT], (link[POSITION] + d) * stride :]
        for i in range(n):
            target[i] = weight[int(keys[i]) * n_dimensions + d]


@compiled
def trace_embedding(link, gradient, space, above, n_rows):
    """Write the gradient of an embedding's weight."""
    stride = space.stride
    n_dimensions = link[N_OUTPUTS]
    keys = space.tables[0, link[B] * stride :]
    gradient = gradient[link[WEIGHT] :]
    if link[IS_FIRST_WEIGHT] == 1:
        for i in range(link[N_INPUTS] * n_dimensions):
            gradient[i] = cast(0.0, gradient[0])
    for d in range(n_dimensions):
        source = above[(link[POSITION] + d) * stride :]
        for i in range(n_rows):
            key = int(keys[i])
            if key != link[OPTION]:
                gradient[key * n_dimensions + d] += source[i]
