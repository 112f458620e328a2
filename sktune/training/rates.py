"""The learning rate of each step: by its schedule, and by the size of batches."""

import math
from dataclasses import dataclass, field
from numbers import Integral

import numpy as np

from sktune.runtime.names import check_name
from sktune.training.schedules import looks_at_max_epochs, lr_factors

# Factors on the learning rate, of the ratio of the batch size to that which the rate is meant for.
LR_SCALINGS = {
    # Goyal et al. 2017, section 2.1
    "linear": lambda ratio: ratio,
    # Krizhevsky 2014, section 5: it keeps the variance of an update
    "sqrt": math.sqrt,
}
_SETS_RATE = {"lr", "optimizer__lr"}


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

    @property
    def looks_at_max_epochs(self):
        """Whether the rates depend on the number of epochs planned."""
        return looks_at_max_epochs(self.schedule)

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


def find_lr_factor(net):
    """Return the factor on a network's learning rate that its batch size calls for.

    Parameters
    ----------
    net : NetworkEstimator
        It need not be initialized.

    Raises
    ------
    ValueError
        If `lr_scaling` is not known, or the number of rows of a batch is not.
    """
    scaling = getattr(net, "lr_scaling", None)
    if scaling is None:
        return 1.0
    check_name("lr_scaling", scaling, LR_SCALINGS)
    batch_size = net.get_params_for("iterator_train").get("batch_size", net.batch_size)
    if not isinstance(batch_size, Integral) or batch_size < 1:
        raise ValueError(
            f"batch_size must be a number of rows under lr_scaling={scaling!r}, "
            f"got batch_size={batch_size!r}"
        )
    return LR_SCALINGS[scaling](batch_size / net.lr_scaling_batch_size)


class ScalesRates:
    """Lets the optimizer of a skorch net have the learning rates that its batch size calls for.

    The parameters `lr`, `optimizer__lr` and those of groups stay as the user has set them.
    """

    def get_params_for_optimizer(self, prefix, named_parameters):
        """Return the arguments that an optimizer is built from, as in skorch, its rates scaled."""
        arguments, options = super().get_params_for_optimizer(prefix, named_parameters)
        factor = find_lr_factor(self)
        if factor == 1:
            return arguments, options
        groups, *others = arguments
        scaled = [_scale(group, factor) for group in groups]
        return (scaled, *others), _scale(options, factor)

    def set_params(self, **params):
        """Set hyperparameters; an unknown name raises and shows the nearest known one.

        What a trained module or criterion was built from takes effect with the next ``fit`` or
        ``partial_fit``, which builds them anew: until then the net predicts as before. skorch would
        build them at once, untrained; so does a net that has not been trained. The numbers of an
        optimizer change where they are.
        """
        if not self.initialized_:
            return super().set_params(**params)
        before = find_lr_factor(self)
        super().set_params(**params)
        after = find_lr_factor(self)
        if (before, after) == (1, 1):
            return self
        for k, group in enumerate(self.optimizer_.param_groups):
            # skorch has set the rate as it was given
            is_set = _SETS_RATE & params.keys() or f"optimizer__param_groups__{k}__lr" in params
            factor = after if is_set else after / before
            group.update(_scale(group, factor))
        return self


def _scale(options, factor):
    """Return options of an optimizer or of a group, with the rates multiplied by a factor."""
    rates = {name: options[name] * factor for name in ("lr", "initial_lr") if name in options}
    return {**options, **rates}
