"""What the engine tells of a group while it trains."""

from dataclasses import dataclass, field

import numpy as np


@dataclass
class EpochEvent:
    """An epoch of a group is over.

    A listener is an object with a method ``on_epoch(event)``, which may stop lanes.

    Parameters
    ----------
    epoch : int
        The number of the epoch, from 1.
    fits : list of int
        The fits that took part, by their numbers in the call of ``train_group``.
    train_loss, lr : ndarray of shape (n_fits,)
        The mean loss of each of these fits in the epoch, and the rate of its last step.
    valid_loss, valid_acc : ndarray of shape (n_fits,), or None
        The loss and the accuracy on its validation rows; None where there are none.
    seconds : float
        How long the epoch took, of all fits together.
    """

    epoch: int
    fits: list
    train_loss: np.ndarray
    lr: np.ndarray
    valid_loss: np.ndarray | None
    valid_acc: np.ndarray | None
    seconds: float
    stopped: dict = field(default_factory=dict)

    def stop(self, fit, reason):
        """Let one of the fits, by its number, end with this epoch; `reason` says why in words."""
        if fit not in self.fits:
            raise ValueError(f"a fit to be stopped must be one of {self.fits}, got {fit}")
        self.stopped[fit] = reason
