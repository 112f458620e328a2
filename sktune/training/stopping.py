"""Early stopping."""

import math


class BestEpoch:
    """The least loss of a fit so far, and whether the fit is to stop.

    It stops when for `n_iter_no_change` epochs no loss was at least `tol` below the least one.

    Parameters
    ----------
    net : NetworkEstimator
        Its `tol`, `n_iter_no_change` and `early_stopping` are read.

    Attributes
    ----------
    monitor : {"train_loss", "valid_loss"}
        The name of the loss.
    restores : bool
        Whether the fit ends with the weights of the best epoch.
    """

    def __init__(self, net):
        self.tol = net.tol
        self.patience = net.n_iter_no_change
        self.best = math.inf
        self.n_misses = 0
        self.monitor = "train_loss" if net.early_stopping == "train_loss" else "valid_loss"
        self.restores = self.monitor == "valid_loss"

    @classmethod
    def of(cls, net, has_valid):
        """Return a net's early stopping, or None if the net has none.

        `has_valid` tells whether the fit has validation rows.
        """
        if not net.early_stopping:
            return None
        if net.early_stopping != "train_loss" and not has_valid:
            return None
        return cls(net)

    def update(self, loss):
        """Take an epoch's loss; return whether it is the least so far, and whether to stop."""
        is_miss = loss > self.best - self.tol
        self.n_misses = self.n_misses + 1 if is_miss else 0
        is_best = loss < self.best
        self.best = min(loss, self.best)
        is_due = self.n_misses >= self.patience
        return is_best, is_due
