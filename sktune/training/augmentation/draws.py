"""Random numbers of augmentation: a pure function of seed, epoch, batch, operation and row."""

from functools import lru_cache

import torch
from scipy.special import betaincinv, ndtri

from sktune.runtime.seeds import AUGMENT, number_key, random_int16

# Operations: what numbers are drawn for. The values are arbitrary but must never change.
FLIP = 0
FLIP_VERTICAL = 1
AFFINE = 2
BRIGHTNESS = 3
CONTRAST = 4
CUTOUT = 5
NOISE = 6
MASK = 7
MIXUP = 8
PARTNER = 9

# How many values a random number has.
_N_VALUES = 1 << 16
# How many quantiles of a beta distribution are drawn from.
_N_QUANTILES = 1 << 12


class Draws:
    """The random numbers for the rows of batches of an epoch that follow one another.

    An operation gets the same numbers whatever other operations draw, and each batch the same
    whatever batches are asked for together.

    Parameters
    ----------
    seed : int
        The seed of the fit.
    epoch : int
        From 0.
    first_batch : int
        The number of the first of the batches in the epoch.
    sizes : list of int
        How many rows each of the batches has.
    dtype : torch.dtype
        The floating type of what is returned.
    device : torch.device
    """

    def __init__(self, seed, epoch, first_batch, sizes, dtype, device):
        self.seed = seed
        self.epoch = epoch
        self.first_batch = first_batch
        self.sizes = sizes
        self.dtype = dtype
        self.device = device

    def integers(self, operation, n):
        """Return uniform integers from 0 to 65,535, n for each row: an int32 Tensor (R, n)."""
        keys = [
            number_key(self.seed, AUGMENT, self.epoch, self.first_batch + position, operation)
            for position in range(len(self.sizes))
        ]
        keys = torch.tensor(keys, dtype=torch.int32, device=self.device)
        bits = random_int16(keys, max(self.sizes) * n)  # (n_batches, most rows * n)
        if min(self.sizes) == max(self.sizes):
            bits = bits.reshape(-1, n)
        else:
            parts = zip(bits, self.sizes, strict=True)
            bits = torch.cat([part[: size * n] for part, size in parts]).view(-1, n)
        return bits.to(torch.int32) + _N_VALUES // 2

    def uniform(self, operation, n):
        """Return numbers between 0 and 1, n for each row: a Tensor (R, n)."""
        return (self.integers(operation, n).to(self.dtype) + 0.5) / _N_VALUES

    def around_zero(self, operation, n):
        """Return numbers between -1 and 1, n for each row: a Tensor (R, n)."""
        return 2 * self.uniform(operation, n) - 1

    def normal(self, operation, n):
        """Return normally distributed numbers, n for each row: a Tensor (R, n).

        Each is one of 65,536 quantiles, which end at 4.3 standard deviations.
        """
        table = _normal_quantiles(self.dtype, self.device)
        return table.index_select(0, self.integers(operation, n).view(-1)).view(-1, n)

    def beta(self, operation, alpha):
        """Return numbers of a symmetric beta distribution, one for each row: a Tensor (R,).

        Each is one of 4,096 quantiles.
        """
        table = _beta_quantiles(alpha).to(self.dtype).to(self.device)
        positions = self.integers(operation, 1).view(-1) // (_N_VALUES // _N_QUANTILES)
        return table.index_select(0, positions)

    def partners(self):
        """Return a row of the same batch for each row, each row once: a LongTensor (R,)."""
        numbers = self.integers(PARTNER, 2)
        order = numbers[:, 0].long() * _N_VALUES + numbers[:, 1]
        found = []
        start = 0
        for part in order.split(self.sizes):
            found.append(part.argsort(stable=True) + start)
            start += len(part)
        return torch.cat(found)


def _midpoints(n):
    """Return the middles of n equal parts of the numbers between 0 and 1, in float64."""
    return ((torch.arange(n, dtype=torch.float64) + 0.5) / n).numpy()


@lru_cache(maxsize=8)
def _normal_quantiles(dtype, device):
    # a device may have no float64
    return torch.from_numpy(ndtri(_midpoints(_N_VALUES))).to(dtype).to(device)


@lru_cache(maxsize=256)
def _beta_quantiles(alpha):
    return torch.from_numpy(betaincinv(alpha, alpha, _midpoints(_N_QUANTILES)))
