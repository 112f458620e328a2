"""The epochs of a group that was trained elsewhere, told when it is done."""

import numpy as np

from sktune.engine.events import EpochEvent

_COLUMNS = ("train_loss", "lr", "valid_loss", "valid_acc")


def replay(results, listeners):
    """Tell listeners of each epoch of a group, from the curves of its fits.

    Parameters
    ----------
    results : list of FitResult
    listeners : list of objects with ``on_epoch``
    """
    if not listeners:
        return
    epochs = sorted({epoch for result in results for epoch in result.curve.get("epoch", [])})
    for epoch in epochs:
        event = _make_event(epoch, results)
        for listener in listeners:
            listener.on_epoch(event)


def _make_event(epoch, results):
    """Return the event of an epoch, whose number counts from 1."""
    fits = [n for n, result in enumerate(results) if epoch in result.curve.get("epoch", [])]
    curves = [results[n].curve for n in fits]
    positions = [curve["epoch"].index(epoch) for curve in curves]
    columns = dict.fromkeys(_COLUMNS)
    for name in _COLUMNS:
        if name in curves[0]:
            pairs = zip(curves, positions, strict=True)
            columns[name] = np.array([curve[name][position] for curve, position in pairs])
    seconds = sum(curve["dur"][position] for curve, position in zip(curves, positions, strict=True))
    done = {n for n, curve in zip(fits, curves, strict=True) if curve["epoch"][-1] == epoch}
    return EpochEvent(epoch, fits, **columns, seconds=seconds, done=done)
