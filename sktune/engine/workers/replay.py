"""The epochs of a group that is trained elsewhere: as a worker tells them, and when it is done."""

from contextlib import suppress
from threading import Lock
from time import monotonic

import numpy as np

from sktune.engine.events import EpochEvent, listening

_COLUMNS = ("train_loss", "lr", "valid_loss", "valid_acc")
# A worker tells of its epochs so often at most.
_SECONDS_BETWEEN_TELLS = 0.2


class Teller:
    """A listener on a worker that tells the asking process now and then how far its group is.

    What it tells is a list with a tuple for each epoch: its number, the least training loss, and
    the numbers of the fits that end with it.

    Parameters
    ----------
    tell : callable
    seconds : float, default=0.2
        The time between two calls, at least.
    """

    def __init__(self, tell, seconds=_SECONDS_BETWEEN_TELLS):
        self.tell = tell
        self.seconds = seconds
        self.waiting = []
        self.last = monotonic()

    def on_epoch(self, event):
        """Take note of an epoch, and tell of all that have not been told yet when it is time."""
        done = sorted(event.done | event.stopped.keys())
        self.waiting.append((event.epoch, float(np.fmin.reduce(event.train_loss)), done))
        if monotonic() - self.last >= self.seconds:
            # a bar that stands still for once is no reason to end the training
            with suppress(Exception):
                self.tell(self.waiting)
            self.waiting = []
            self.last = monotonic()


class Relay:
    """Lets listeners hear of one group on a worker: at once those that count, the others later.

    A listener that counts has the attribute ``counts_epochs``: it needs of an event no more than
    the epoch, its fits, those that are done, and the least training loss.

    Parameters
    ----------
    listeners : list of objects with ``on_epoch`` or ``begin_group``
    fits : list of Fit
        Those of the group.
    """

    def __init__(self, listeners, fits):
        self.counting = [one for one in listeners if getattr(one, "counts_epochs", False)]
        self.others = [one for one in listeners if one not in self.counting]
        self.fits = fits
        self.lock = Lock()
        self.alive = set(range(len(fits)))
        # the last epoch that was told of
        self.epoch = 0
        # the context of those that count, and what it has yielded, once there is something to hear
        self.context = None
        self.heard = []
        self.is_over = False

    def hear(self, epochs):
        """Tell those that count what a :class:`Teller` tells; any thread may call this."""
        with self.lock:
            if self.is_over:
                return
            self._begin()
            for epoch, loss, done in epochs:
                # a group that has lost its worker begins anew
                if epoch > self.epoch:
                    self._tell(epoch, loss, done)

    def _begin(self):
        if self.context is None:
            self.context = listening(self.counting, self.fits)
            self.heard = self.context.__enter__()

    def _tell(self, epoch, loss, done):
        self.epoch = epoch
        event = EpochEvent(
            epoch, sorted(self.alive), np.array([loss]), np.empty(0), None, None, 0.0, set(done)
        )
        self.alive -= event.done
        for listener in self.heard:
            listener.on_epoch(event)

    def conclude(self, results):
        """Tell all listeners of what they have not heard yet; the training is over."""
        with self.lock:
            self.is_over = True
            self._begin()
            replay(results, self.heard, after=self.epoch)
            self.context.__exit__(None, None, None)
        with listening(self.others, self.fits) as listeners:
            replay(results, listeners)

    def fail(self, error):
        """Take back what was told: the training has failed."""
        with self.lock:
            self.is_over = True
            if self.context is not None:
                self.context.__exit__(type(error), error, None)


def replay(results, listeners, after=0):
    """Tell listeners of each epoch of a group, from the curves of its fits.

    Parameters
    ----------
    results : list of FitResult
    listeners : list of objects with ``on_epoch``
    after : int, default=0
        The last epoch that they have heard of.
    """
    if not listeners:
        return
    epochs = sorted({epoch for result in results for epoch in result.curve.get("epoch", [])})
    for epoch in epochs:
        if epoch <= after:
            continue
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
