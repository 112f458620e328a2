"""Seeds, and random numbers that are a pure function of a seed and a position.

Every random choice of a fit follows from one integer, the seed of the fit: initial weights,
batches, dropout masks, augmentation. Nothing depends on what ran before, on the number of threads,
on the device, or on the fits trained beside it.
"""

import threading
from contextlib import contextmanager
from numbers import Integral

import torch
from sklearn.utils import check_random_state

# Streams: what a number is drawn for. The values are arbitrary but must never change.
INIT = 1
SHUFFLE = 2
DROPOUT = 3
SPLIT = 4
FORWARD = 5
AUGMENT = 6

_MASK64 = (1 << 64) - 1
# Held while torch's global generators are seeded.
_global_generators = threading.RLock()


def draw_seed(random_state):
    """Return the seed of one fit, an int in [0, 2**32).

    Parameters
    ----------
    random_state : int, RandomState instance or None
        An int is the seed itself. The seed is drawn from a ``RandomState``, or, for None, from
        NumPy's global one, as in scikit-learn.

    Raises
    ------
    ValueError
        If scikit-learn takes no such `random_state`.
    """
    # It checks an int as well.
    generator = check_random_state(random_state)
    if isinstance(random_state, Integral):
        return int(random_state)
    return int(generator.randint(2**31 - 1))


def mix(*values):
    """Hash integers into one of 64 bits (splitmix64, Steele et al. 2014, chained over values)."""
    state = 0
    for value in values:
        state = (state + 0x9E3779B97F4A7C15 + (int(value) & _MASK64)) & _MASK64
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & _MASK64
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & _MASK64
        state ^= state >> 31
    return state


def permutation(n_rows, seed, epoch):
    """Return the order of the rows in an epoch, a LongTensor (n_rows,) on the CPU."""
    generator = torch.Generator().manual_seed(mix(seed, SHUFFLE, epoch) >> 1)
    return torch.randperm(n_rows, generator=generator)


def _signed(word):
    """Read the low 32 bits as a two's-complement integer, which is what an int32 tensor holds."""
    word &= 0xFFFFFFFF
    return word - (1 << 32) if word >= 1 << 31 else word


def mask_key(seed, *position):
    """Return the two int32 words that a dropout mask follows from.

    Parameters
    ----------
    seed : int
        The seed of the fit.
    *position : int
        Epoch, batch, layer and call.
    """
    return number_key(seed, DROPOUT, *position)


def number_key(seed, stream, *position):
    """Return the two int32 words that the random numbers of a stream at a position follow from."""
    word = mix(seed, stream, *position)
    return _signed(word), _signed(word >> 32)


def random_int16(keys, n):
    """Return uniform 16-bit integers, one row for each key.

    Each int32 counter is hashed by two xorshift-multiply rounds (C. Wellons' "lowbias32"), the
    second word of the key entering between the rounds, and gives two numbers. A shorter row is the
    beginning of a longer one.

    Parameters
    ----------
    keys : int32 Tensor (L, 2)
        From :func:`mask_key` or :func:`number_key`.
    n : int
        Numbers in a row.

    Returns
    -------
    numbers : int16 Tensor (L, n)
        On the device of `keys`.
    """
    counters = torch.arange((n + 1) // 2, dtype=torch.int32, device=keys.device)
    x = counters + keys[:, :1]  # (L, n / 2)
    shifted = torch.empty_like(x)

    def fold(bits):
        """Compute ``x ^= x >> bits`` in place, for x without a sign."""
        torch.bitwise_right_shift(x, bits, out=shifted)
        # The shift of an int32 copies the sign bit into the upper bits, which must be 0.
        without_sign = shifted.bitwise_and_((1 << (32 - bits)) - 1)
        x.bitwise_xor_(without_sign)

    fold(16)
    x.mul_(_signed(0x7FEB352D))
    fold(15)
    x.bitwise_xor_(keys[:, 1:])
    x.mul_(_signed(0x846CA68B))
    fold(16)
    return x.view(torch.int16)[:, :n]  # (L, n)


@contextmanager
def seeded(seed, device="cpu"):
    """Seed torch's global generators for a block, and restore their states afterwards.

    Modules draw from them: their initial weights, and some modules also in their forward. All
    threads of a process share these generators, so that a lock lets one block run at a time.

    Parameters
    ----------
    seed : int
    device : str or torch.device, default="cpu"
        Where the module computes. The CPU's generator is seeded in any case.

    Yields
    ------
    has_drawn : callable
        ``has_drawn()`` tells whether anything has been drawn since the block began.
    """
    generators = _list_generators(device)
    with _global_generators:
        states_before = [generator.get_state() for generator in generators]
        seeded_states = [generator.manual_seed(seed >> 1).get_state() for generator in generators]

        def has_drawn():
            return any(
                not torch.equal(generator.get_state(), state)
                for generator, state in zip(generators, seeded_states, strict=True)
            )

        try:
            yield has_drawn
        finally:
            for generator, state in zip(generators, states_before, strict=True):
                generator.set_state(state)


def _list_generators(device):
    """Return torch's global generators that modules on a device draw from."""
    generators = [torch.default_generator]
    if torch.device(device).type == "cuda":
        # "cuda" without a number is the current device.
        index = torch.empty(0, device=device).device.index
        generators.append(torch.cuda.default_generators[index])
    return generators
