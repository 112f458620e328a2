"""Handing back to a net what its callbacks have come to in a group."""

from copy import deepcopy

from skorch.callbacks import EarlyStopping, LRScheduler


def adopt_history(callbacks, state):
    """Return the history of a fit, and let the callbacks of its net be as the training left them.

    Parameters
    ----------
    callbacks : list of tuple of (str, Callback)
        Those of the net, which have heard nothing.
    state : TrainState
        Where the training has ended.
    """
    watcher = deepcopy(state.watcher)
    watcher.end()
    for (_, own), (_, told) in zip(callbacks, watcher.callbacks, strict=True):
        vars(own).clear()
        vars(own).update(vars(told))
    return watcher.net.history_


def connect_callbacks(callbacks, module, optimizer):
    """Let callbacks refer to the module and the optimizer of a fitted net."""
    for _, callback in callbacks:
        if isinstance(callback, LRScheduler):
            callback.lr_scheduler_.optimizer = optimizer
        keeps_weights = isinstance(callback, EarlyStopping) and callback.load_best
        if keeps_weights and callback.best_epoch_:
            # the fit has ended with these
            callback.best_model_weights_ = deepcopy(module.state_dict())
