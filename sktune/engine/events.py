"""What the engine tells of a group while it trains."""

from abc import ABC, abstractmethod
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np


@dataclass
class EpochEvent:
    """An epoch of a group is over.

    A listener is an object with a method ``on_epoch(event)``, which may stop lanes. One that has to
    know the fits of a group has a method ``begin_group(fits)`` instead: see :func:`listening`.

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
    done : set of int
        Those of the fits that end with this epoch: it is their last, or they stop early or fail.
    stopped : dict
        The fits that listeners have stopped, with the reasons; they end with this epoch, too.
    """

    epoch: int
    fits: list
    train_loss: np.ndarray
    lr: np.ndarray
    valid_loss: np.ndarray | None
    valid_acc: np.ndarray | None
    seconds: float
    done: set = field(default_factory=set)
    stopped: dict = field(default_factory=dict)

    def stop(self, fit, reason):
        """Let one of the fits, by its number, end with this epoch; `reason` says why in words."""
        if fit not in self.fits:
            raise ValueError(f"a fit to be stopped must be one of {self.fits}, got {fit}")
        self.stopped[fit] = reason


@contextmanager
def listening(listeners, fits):
    """Let listeners hear of one group: yield those that ``train_group`` is to be given.

    Of a listener with a method ``begin_group(fits)`` that is the object which the method returns.
    It has ``on_epoch(event)``, in whose events the fits have their numbers in `fits`, and
    ``end_group(has_failed)``, which is called when the training is over or has raised an error. A
    group that has failed may begin anew, as several smaller ones.

    Parameters
    ----------
    listeners : list
    fits : list of Fit
    """
    heard = []
    groups = []
    has_failed = True
    try:
        for listener in listeners:
            if hasattr(listener, "begin_group"):
                listener = listener.begin_group(fits)
                groups.append(listener)
            heard.append(listener)
        yield heard
        has_failed = False
    finally:
        for group in groups:
            group.end_group(has_failed)


class EpochWatcher(ABC):
    """What looks at each epoch of one fit, and may end it or set its learning rates.

    It is part of the fit's spec as it is before the training, and of its state as it is afterwards.
    The engine copies it by ``deepcopy`` wherever a training begins or goes on.

    Attributes
    ----------
    needs_outputs : bool
        Whether it asks for the module's outputs for the validation rows.
    is_stopped : bool
        Whether it has ended the fit.
    """

    needs_outputs = False
    is_stopped = False

    @abstractmethod
    def begin(self):
        """Hear that the training begins, or goes on."""

    @abstractmethod
    def begin_epoch(self, n_steps):
        """Hear that an epoch begins; return the learning rates of its steps, or None."""

    @abstractmethod
    def end_epoch(self, record, outputs):
        """Hear that an epoch is over.

        Parameters
        ----------
        record : dict of float
            The columns of the curve, by name: see :class:`~sktune.engine.specs.FitResult`.
        outputs : Tensor of shape (n_valid, ...) or None

        Returns
        -------
        is_best, is_due : bool
            Whether the weights are to be kept for the end of the fit, and whether the fit ends.
        """
