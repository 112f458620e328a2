"""Seeds, and random numbers that are a pure function of (seed, place).

Every random choice of a fit follows from one integer, the seed of the fit: initial weights, batches, dropout masks.
Nothing depends on what ran before, on the number of threads, on the device, or on the fits trained beside it.
"""

import threading
from contextlib import contextmanager
from numbers import Integral

import torch
from sklearn.utils import check_random_state

# Streams: what a number is drawn for. The values are arbitrary but must never change.
INIT, SHUFFLE, DROPOUT, SPLIT, FORWARD = range(1, 6)

_MASK64 = (1 << 64) - 1
_global_generator = threading.RLock()


def draw_seed(random_state):
    """Return the seed of one fit, an int in [0, 2**32).

    An int is its own seed; a ``RandomState`` or None (NumPy's global one) is drawn from, as in scikit-learn.
    """
    generator = check_random_state(random_state)
    return (
        int(random_state)
        if isinstance(random_state, Integral)
        else int(generator.randint(2**31 - 1))
    )


def mix(*values):
    """Hash integers into one of 64 bits (Steele et al. 2014, splitmix64, chained over the values)."""
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


def mask_key(seed, *place):
    """Return the two int32 words that choose a dropout mask: seed of the fit, then epoch, batch, layer, call."""
    word = mix(seed, DROPOUT, *place)
    return _signed(word), _signed(word >> 32)


def random_int16(keys, n):
    """Return uniform 16-bit integers, one row for each key.

    Each int32 counter is hashed by two xorshift-multiply rounds (C. Wellons' "lowbias32"), the second word of
    the key entering between the rounds, and gives two numbers. A shorter row is the beginning of a longer one.
    `keys` are int32 (L, 2), from :func:`mask_key`; the result is int16 (L, n), on the same device.
    """
    counters = torch.arange((n + 1) // 2, dtype=torch.int32, device=keys.device)
    x = counters + keys[:, :1]  # (L, n / 2)
    shifted = torch.empty_like(x)

    def fold(bits):  # x ^= x >> bits; >> on int32 drags the sign along, which the mask takes off
        torch.bitwise_right_shift(x, bits, out=shifted)
        x.bitwise_xor_(shifted.bitwise_and_((1 << (32 - bits)) - 1))

    fold(16)
    x.mul_(_signed(0x7FEB352D))
    fold(15)
    x.bitwise_xor_(keys[:, 1:])
    x.mul_(_signed(0x846CA68B))
    fold(16)
    return x.view(torch.int16)[:, :n]  # (L, n)


@contextmanager
def seeded(seed, device="cpu"):
    """Run a block on torch's global generators, seeded, and put their states back afterwards.

    Modules draw their initial weights (and some of them more) from the global generators, which are one per
    process: a lock keeps two threads from drawing from each other's. Yields a function that tells whether anything
    has been drawn since the block began.
    """
    generators = [torch.default_generator]
    if torch.device(device).type == "cuda":
        index = torch.empty(0, device=device).device.index  # the one that "cuda" means
        generators.append(torch.cuda.default_generators[index])
    with _global_generator:
        before = [generator.get_state() for generator in generators]
        begun = [generator.manual_seed(seed >> 1).get_state() for generator in generators]
        try:
            yield (
                lambda: (
                    not all(
                        torch.equal(g.get_state(), state)
                        for g, state in zip(generators, begun, strict=True)
                    )
                )
            )
        finally:
            for generator, state in zip(generators, before, strict=True):
                generator.set_state(state)
