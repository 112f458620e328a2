"""How augmentation meets the batches of a fit."""

import torch

from sktune.runtime.dtypes import wide_dtype
from sktune.training.augmentation.base import mix_rows
from sktune.training.augmentation.callables import CallableAugmentation
from sktune.training.augmentation.draws import Draws


class Augmenter:
    """Changes the batches of one fit.

    Parameters
    ----------
    augmentation : Augmentation or CallableAugmentation
    seed : int
        The seed of the fit.
    mixes_targets : bool
        Whether mixup mixes targets: those of a regressor. A classifier's loss is mixed instead.
    """

    def __init__(self, augmentation, seed, *, mixes_targets):
        self.augmentation = augmentation
        self.seed = seed
        self.mixes_targets = mixes_targets

    @property
    def has_two_targets(self):
        """Whether a row has two targets."""
        return self.augmentation.mixes_rows and not self.mixes_targets

    @torch.no_grad()
    def change(self, block, epoch, first_batch, sizes):
        """Return the changed rows of batches that follow one another.

        Parameters
        ----------
        block : tuple of Tensor
            (X, target, weight), without the target or the weight where there are none. X may be
            written to.
        epoch, first_batch : int
            The numbers of the epoch and of the first of the batches, from 0.
        sizes : list of int
            How many rows each batch has.

        Returns
        -------
        block : tuple of Tensor
            (X, target, weight) as before. Where a row has two targets: (X, target, weight, other
            target, its weight).
        """
        X, *others = block
        if isinstance(self.augmentation, CallableAugmentation):
            return self._call(block, epoch, first_batch, sizes)
        dtype = wide_dtype(X.dtype)
        draws = Draws(self.seed, epoch, first_batch, sizes, dtype, X.device)
        X = self.augmentation.change(X, draws).to(X.dtype)
        if not self.augmentation.mixes_rows:
            return X, *others
        return mix_rows(X, others, self.augmentation, draws, mixes_targets=self.mixes_targets)

    def _call(self, block, epoch, first_batch, sizes):
        """Return batches that a function of the user's has changed, one after the other."""
        if len(sizes) == 1:
            # it may be anything that a module takes
            return self.augmentation.call(block, self.seed, epoch, first_batch)
        batches = zip(*(part.split(sizes) for part in block), strict=True)
        changed = [
            self.augmentation.call(batch, self.seed, epoch, number)
            for number, batch in enumerate(batches, start=first_batch)
        ]
        return tuple(torch.cat(parts) for parts in zip(*changed, strict=True))
