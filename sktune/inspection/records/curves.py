"""Learning curves by candidate, split and epoch."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class CurveTable:
    """The losses of all fits of a search, epoch by epoch.

    A fit that has ended before others, or was not recorded, has nan from there on. What is not
    finite (a loss of a fit that has diverged) is kept as it is.

    Parameters
    ----------
    train_loss, valid_loss, lr : ndarray of shape (n_candidates, n_splits, n_epochs)
        Mean training loss, loss on validation rows, and learning rate of each epoch; nan where
        there is none.
    n_epochs : ndarray of int of shape (n_candidates, n_splits)
        How many epochs each fit has recorded; 0 for a fit without a curve.
    """

    train_loss: np.ndarray
    valid_loss: np.ndarray
    lr: np.ndarray
    n_epochs: np.ndarray

    @classmethod
    def from_columns(cls, columns, n_candidates, n_splits):
        """Arrange the columns of ``search.fusion_.curves``, or of the frame ``search.curves_``.

        Parameters
        ----------
        columns : mapping of str to array-like of shape (n_rows,)
            ``candidate``, ``split``, ``epoch``, ``train_loss``, ``lr`` and maybe ``valid_loss``,
            a row for each epoch of each fit. Rows of unknown fits (-1) are left out.
        n_candidates, n_splits : int
        """
        candidate = np.asarray(columns["candidate"], dtype=int)
        split = np.asarray(columns["split"], dtype=int)
        epoch = np.asarray(columns["epoch"], dtype=int)
        is_known = (candidate >= 0) & (candidate < n_candidates) & (split >= 0) & (split < n_splits)
        where = (candidate[is_known], split[is_known], epoch[is_known] - 1)
        most_epochs = int(epoch[is_known].max(initial=0))
        shape = (n_candidates, n_splits, most_epochs)
        arrays = {}
        for name in ("train_loss", "valid_loss", "lr"):
            arrays[name] = np.full(shape, np.nan)
            if name in columns:
                arrays[name][where] = np.asarray(columns[name], dtype=float)[is_known]
        n_epochs = np.zeros(shape[:2], dtype=int)
        np.maximum.at(n_epochs, where[:2], where[2] + 1)
        return cls(n_epochs=n_epochs, **arrays)

    def select(self, candidates):
        """Return the table of some candidates only."""
        arrays = {name: getattr(self, name)[candidates] for name in self.__dataclass_fields__}
        return CurveTable(**arrays)

    @property
    def has_validation(self):
        """Whether any fit has losses on validation rows."""
        return not np.isnan(self.valid_loss).all()

    @property
    def is_recorded(self):
        """Which candidates have at least one curve: a bool ndarray of shape (n_candidates,)."""
        return (self.n_epochs > 0).any(axis=1)

    @property
    def first_rates(self):
        """The learning rate of each candidate in its first epoch: (n_candidates,); nan if unknown.

        Splits of a candidate have one rate.
        """
        if self.lr.shape[2] == 0:
            return np.full(len(self.n_epochs), np.nan)
        firsts = self.lr[:, :, 0]
        is_there = np.isfinite(firsts)
        rates = firsts[np.arange(len(firsts)), is_there.argmax(axis=1)]
        return np.where(is_there.any(axis=1), rates, np.nan)

    def list_fits(self, candidate, name):
        """Return the losses of a candidate's fits: a list of arrays, one for each.

        Fits without a finite loss at each epoch are left out.
        """
        losses = getattr(self, name)[candidate]
        found = [loss[:n] for loss, n in zip(losses, self.n_epochs[candidate], strict=True)]
        return [loss for loss in found if len(loss) and np.isfinite(loss).all()]

    def mean_over_splits(self, name):
        """Return mean and standard deviation of a loss over the splits, by candidate and epoch.

        Parameters
        ----------
        name : {"train_loss", "valid_loss", "lr"}

        Returns
        -------
        mean, std : ndarray of shape (n_candidates, n_epochs)
            Over the splits that are still being trained; nan where there is none, and inf or nan
            where one of them is not finite.
        """
        values = getattr(self, name)
        is_there = np.arange(values.shape[2]) < self.n_epochs[:, :, np.newaxis]
        count = is_there.sum(axis=1)
        divisor = np.where(count > 0, count, 1)
        with np.errstate(invalid="ignore", over="ignore"):
            mean = np.where(is_there, values, 0.0).sum(axis=1) / divisor
            apart = np.where(is_there, values - mean[:, np.newaxis], 0.0)
            std = np.sqrt((apart**2).sum(axis=1) / divisor)
        mean[count == 0] = np.nan
        std[count == 0] = np.nan
        return mean, std
