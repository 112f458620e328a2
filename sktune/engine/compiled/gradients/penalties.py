"""Penalties of the compiled kernels on the weights of a network."""

import numpy as np

from sktune.engine.compiled.opcodes import FIRST_OPERATION, IDLE, N_PENALIZED, OPCODE, WEIGHT
from sktune.engine.compiled.vectors.code import compiled
from sktune.engine.compiled.vectors.scalars import cast
from sktune.engine.compiled.vectors.sums import add_sizes, add_squares


@compiled
def penalize(links, flat, gradient, l1, l2):
    """Add the gradient of the penalties on all weights; return the penalties."""
    absolute = cast(0.0, flat[0])
    squares = cast(0.0, flat[0])
    for link in range(len(links)):
        if links[link, OPCODE] >= FIRST_OPERATION and links[link, N_PENALIZED] > 0:
            start = links[link, WEIGHT]
            stop = start + links[link, N_PENALIZED]
            w = flat[start:stop]
            g = gradient[start:stop]
            absolute += add_sizes((w,), (), len(w))
            squares += add_squares((w,), (), len(w))
            if links[link, OPCODE] == IDLE:
                # no operation has written it
                for i in range(len(g)):
                    g[i] = cast(0.0, flat[0])
            for i in range(len(w)):
                g[i] += l1 * np.sign(w[i]) + (l2 + l2) * w[i]
    # Where a penalty is 0, its sum may be infinite.
    l1_penalty = l1 * absolute if l1 > 0 else l1
    l2_penalty = l2 * squares if l2 > 0 else l2
    return l1_penalty + l2_penalty
