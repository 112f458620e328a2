"""The learning rate of each step."""

from dataclasses import dataclass, field

import numpy as np

from sktune.training.schedules import lr_factors


@dataclass(frozen=True)
class LRSchedule:
    """The schedule that a call of ``fit`` or ``partial_fit`` trains by.

    Parameters
    ----------
    schedule : str or callable
        See :func:`sktune.training.schedules.lr_factors`.
    n_epochs : int
        The epochs that the call trains for.
    params : dict
        Parameters of the schedule, among them ``warmup``.
    first_epoch : int, default=0
        The epoch of the history in which the call began.
    """

    schedule: object
    n_epochs: int
    params: dict = field(default_factory=dict)
    first_epoch: int = 0

    @property
    def is_constant(self):
        """Whether the rates are left to the optimizer, and to a scheduler of the user's."""
        return self.schedule == "constant" and not self.params.get("warmup")

    def factors(self, epoch, n_steps):
        """Return the factors on the learning rate of an epoch's steps; None where it is constant.

        `epoch` counts from 0 over the whole history.
        """
        if self.is_constant:
            return None
        times = epoch - self.first_epoch + np.arange(n_steps) / n_steps
        return lr_factors(self.schedule, times, self.n_epochs, **self.params).tolist()

    def rates(self, group, epoch, n_steps):
        """Return the learning rates of an epoch's steps, for a group of an optimizer's parameters.

        `group` is a dict of the group's options: ``lr``, and ``initial_lr`` where a schedule
        multiplies that.
        """
        return scale_rates(group, self.factors(epoch, n_steps), n_steps)


def scale_rates(group, factors, n_steps):
    """Return the learning rates of steps from :meth:`LRSchedule.factors`, for a group."""
    if factors is None:
        return [group["lr"]] * n_steps
    return [group["initial_lr"] * factor for factor in factors]
