"""The numbers of lanes and of their steps that the kernel reads; found in float64 on the host."""

import numpy as np

from sktune.engine.steps.launched import layout
from sktune.training.optimizers import OPTIMIZERS, read_option


def lane_columns(spec, rule):
    """Return the numbers of a lane (7,), see :mod:`sktune.engine.steps.launched.layout`.

    Parameters
    ----------
    spec : FitSpec
    rule : str
        The name of the optimizer's opcode.
    """
    options = spec.optimizer.options
    columns = np.zeros(layout.N_LANE_COLUMNS)
    if not _is_decoupled(spec.optimizer):
        columns[layout.DECAY] = options["weight_decay"]
    columns[layout.L1] = spec.l1
    columns[layout.L2] = spec.l2
    numbers = _RULE_NUMBERS[rule](lambda name: read_option(options, name))
    columns[layout.OPTION : layout.OPTION + len(numbers)] = numbers
    return columns


def step_columns(spec, rule, rates, n_done):
    """Return the numbers of some steps in a lane (n_steps, 3).

    Parameters
    ----------
    spec : FitSpec
    rule : str
    rates : list of float
        The learning rates of the steps.
    n_done : int
        The steps that the lane has taken before.
    """
    options = spec.optimizer.options
    rates = np.asarray(rates, dtype=np.float64)
    t = n_done + 1 + np.arange(len(rates))
    columns = np.ones((len(rates), layout.N_STEP_COLUMNS))
    columns[:, 0] = rates
    if rule == "ADAM":
        columns[:, 0] = rates / (1 - read_option(options, "beta1") ** t)
        columns[:, 1] = 1 / np.sqrt(1 - read_option(options, "beta2") ** t)
        if _is_decoupled(spec.optimizer):
            columns[:, 2] = 1 - rates * options["weight_decay"]
    elif rule == "SGD":
        # the buffer begins with the first gradient, undamped; without momentum nothing is damped
        is_damped = (t > 1) & (read_option(options, "momentum") != 0)
        columns[:, 1] = np.where(is_damped, 1 - read_option(options, "dampening"), 1.0)
    elif rule == "ADAGRAD":
        columns[:, 0] = rates / (1 + (t - 1) * read_option(options, "lr_decay"))
    return columns


def _is_decoupled(optimizer):
    return OPTIMIZERS[optimizer.type].is_decoupled(optimizer.options)


# The numbers that each update of `kernel/updates.py` reads. What is close to 0 or 1 is subtracted
# here: in float32 the difference would have few digits.
_RULE_NUMBERS = {
    "SGD": lambda read: [read("momentum")],
    "ADAM": lambda read: [1 - read("beta1"), read("beta2"), 1 - read("beta2"), read("eps")],
    "RMSPROP": lambda read: [read("alpha"), 1 - read("alpha"), read("eps"), read("momentum")],
    "ADAGRAD": lambda read: [read("eps")],
}
