"""What trainings come to on their way, for other fits and for a store."""

from abc import ABC, abstractmethod
from time import monotonic

from sktune.engine.store.base import Record

# Finished fits wait so many seconds at most until they are put into the store, with others.
_LONGEST_WAIT = 1.0


class Keeper(ABC):
    """Gets results of fits while their group is trained.

    Fits are known by their positions in the call of :func:`sktune.engine.group.train_group`.
    """

    @abstractmethod
    def wants(self, number, epoch):
        """Tell whether the result of a fit after `epoch` epochs is wanted, if it goes on then."""

    @abstractmethod
    def is_due(self):
        """Tell whether the states of all fits are wanted after this epoch."""

    @abstractmethod
    def keep(self, number, result):
        """Take the result of a fit, whose state is one that can be gone on from.

        Its curve is that of the call.
        """

    @abstractmethod
    def flush(self):
        """Take note that the results of an epoch have been handed over."""


class Recorder(Keeper):
    """Keeps what the trainings of a group come to, for their fits, and in a store.

    Parameters
    ----------
    trainings : list of Training
    store : Store or None
    """

    def __init__(self, trainings, store=None):
        self.trainings = trainings
        self.store = store
        self.wanted = [training.n_epochs_wanted for training in trainings]
        self.pending = []
        # what is put as the trainings stand
        self.in_progress = []
        self.last_flush = self.last_checkpoint = monotonic()
        for training in trainings:
            # what an attempt has left that has failed
            training.kept.clear()
            training.ended = None

    def wants(self, number, epoch):
        """Tell whether a fit that shares this training ends here."""
        return epoch in self.wanted[number]

    def is_due(self):
        """Tell whether the trainings are to be put into the store as they are."""
        if self.store is None:
            return False
        is_due = self.store.wants_checkpoints(monotonic() - self.last_checkpoint)
        if is_due:
            self.last_checkpoint = monotonic()
        return is_due

    def keep(self, number, result):
        """Keep a result with the curve of all epochs."""
        training = self.trainings[number]
        result = training.join(result)
        n_epochs = len(result.curve["epoch"])
        if self.wants(number, n_epochs):
            training.kept[n_epochs] = result
        elif result.is_final:
            training.ended = result
        if self.store is None or training.key is None:
            return
        if result.error is not None and not training.spec.must_be_finite:
            # alone the fit goes on, so that this is no result
            return
        record = Record.of(result, training.spec.rows.test_digest)
        if record is None:
            return
        is_over = result.is_final or self.wants(number, n_epochs)
        (self.pending if is_over else self.in_progress).append((training.key, record))

    def flush(self, *, is_last=False):
        """Put what is pending into the store, unless more is likely to come soon."""
        has_waited = monotonic() - self.last_flush >= _LONGEST_WAIT
        if self.pending and (is_last or self.in_progress or has_waited):
            self.store.put(self.pending)
            self.pending = []
            self.last_flush = monotonic()
        if self.in_progress:
            self.store.put(self.in_progress, is_checkpoint=True)
            self.in_progress = []
