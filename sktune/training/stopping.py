"""Early stopping."""

import math


class BestEpoch:
    """Whose loss was the least so far, and whether it is time to stop.

    It is due when the loss has not fallen by the net's `tol` below the least one for `n_iter_no_change` epochs.
    `monitor` is the name of that loss, and `restores` tells whether the weights of the best epoch are to come back.
    """

    def __init__(self, net):
        self.tol, self.patience = net.tol, net.n_iter_no_change
        self.best, self.n_misses = math.inf, 0
        self.monitor = "train_loss" if net.early_stopping == "train_loss" else "valid_loss"
        self.restores = self.monitor == "valid_loss"

    @classmethod
    def of(cls, net, has_valid):
        """Return that of a fit with or without rows held out; None if it is not to stop early."""
        if not net.early_stopping or (net.early_stopping != "train_loss" and not has_valid):
            return None
        return cls(net)

    def update(self, loss):
        """Take an epoch's loss; return whether it is the least so far, and whether to stop."""
        self.n_misses = self.n_misses + 1 if loss > self.best - self.tol else 0
        is_best = loss < self.best
        self.best = min(loss, self.best)
        return is_best, self.n_misses >= self.patience
