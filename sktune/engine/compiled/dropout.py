"""Dropout of the compiled kernels: the masks of :mod:`sktune.modules.dropout`, to the last bit."""

import numpy as np

from sktune.engine.compiled.vectors.code import compiled
from sktune.engine.compiled.vectors.scalars import cast
from sktune.runtime.seeds import DROPOUT


@compiled
def _mix(state, value):
    """Take an integer into a hash, as :func:`sktune.runtime.seeds.mix` does."""
    state = state + np.uint64(0x9E3779B97F4A7C15) + np.uint64(value)
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return state ^ (state >> np.uint64(31))


@compiled
def find_mask_key(seed, epoch, batch, layer, call):
    """Return the two words of 32 bits that a layer's mask in a step follows from.

    They are those of :func:`sktune.runtime.seeds.mask_key`. `call` counts the calls of the layer in
    the step, from 0.
    """
    key = _mix(_mix(np.uint64(0), seed), DROPOUT)
    key = _mix(_mix(_mix(_mix(key, epoch), batch), layer), call)
    return np.uint32(key & np.uint64(0xFFFFFFFF)), np.uint32(key >> np.uint64(32))


@compiled
def _hash_counter(counter, key):
    """Return 32 random bits, as :func:`sktune.runtime.seeds.random_int16` makes them."""
    x = np.uint32(np.uint32(counter) + key[0])
    x = np.uint32(x ^ (x >> np.uint32(16)))
    x = np.uint32(x * np.uint32(0x7FEB352D))
    x = np.uint32(x ^ (x >> np.uint32(15)))
    x = np.uint32((x ^ key[1]) * np.uint32(0x846CA68B))
    return np.uint32(x ^ (x >> np.uint32(16)))


@compiled
def drop(key, limit, scale, space, values, slope, width, n):
    """Set units of a table (width, n) to 0 in place, scale the others, and multiply `slope` alike.

    The random numbers are counted over the transposed table (n, width). Number i is one half of
    the bits of counter ``i // 2``: the lower half if i is even, the upper one if it is odd.

    Parameters
    ----------
    key : tuple of two np.uint32
        From `find_mask_key`.
    limit : np.int32
        The least random number, times 65,536, of a unit that is kept.
    scale : float
        The factor of the units that are kept.
    space : Workspace
        It has the steps from one feature of the table to the next.
    values, slope : ndarray
    width, n : int
    """
    zero = cast(0.0, values[0])
    scale = cast(scale, values[0])
    bits = np.empty(n, np.uint32)
    # The 32 bits of a counter are two random numbers. These shifts bring one of them into the upper
    # half of the word, where it is compared with a threshold.
    take_upper = np.uint32(0)
    take_lower = np.uint32(16)
    # The loops over the rows stand here, not in functions, and the shifts are local: LLVM makes
    # slower code otherwise, by up to a tenth of a step. Measure train_steps after an edit.
    for feature in range(width):
        feature_values = values[feature * space.stride :][:n]
        feature_slope = slope[feature * space.stride :][:n]
        # In a table of even width, an odd feature shares the counters of the feature before it.
        if width % 2 != 0 or feature % 2 == 0:
            for i in range(n):
                position = np.uint32(i * width + feature)
                bits[i] = _hash_counter(position >> np.uint32(1), key)
        if width % 2 == 0:
            # All units of the feature take the same half of their bits.
            shift = take_lower if feature % 2 == 0 else take_upper
            for i in range(n):
                is_kept = np.int32(np.uint32(bits[i] << shift)) >= limit
                factor = scale if is_kept else zero
                feature_values[i] *= factor
                feature_slope[i] *= factor
        else:
            # Which half counts alternates.
            for i in range(n):
                # 16 if the position i * width + feature is even, else 0
                is_even = np.uint32(np.uint32(i * width + feature + 1) & np.uint32(1))
                shift = np.uint32(is_even << np.uint32(4))
                is_kept = np.int32(np.uint32(bits[i] << shift)) >= limit
                factor = scale if is_kept else zero
                feature_values[i] *= factor
                feature_slope[i] *= factor


@compiled
def drop_channels(key, limit, scale, space, values, slope, n_channels, n_places, n):
    """Do what :func:`drop` does to whole channels of `n_places` neighbouring features each.

    The random numbers are counted over a table (n, n_channels).
    """
    zero = cast(0.0, values[0])
    scale = cast(scale, values[0])
    factors = np.empty(n, values.dtype)
    for channel in range(n_channels):
        for i in range(n):
            position = np.uint32(i * n_channels + channel)
            bits = _hash_counter(position >> np.uint32(1), key)
            # the half of the bits that counts goes into the upper half of the word
            is_even = np.uint32(np.uint32(position + np.uint32(1)) & np.uint32(1))
            shift = np.uint32(is_even << np.uint32(4))
            is_kept = np.int32(np.uint32(bits << shift)) >= limit
            factors[i] = scale if is_kept else zero
        for place in range(channel * n_places, (channel + 1) * n_places):
            place_values = values[place * space.stride :][:n]
            place_slope = slope[place * space.stride :][:n]
            for i in range(n):
                place_values[i] *= factors[i]
                place_slope[i] *= factors[i]
