"""What a worker keeps of its trainings: for the process that asked, and in a shared folder."""

from dataclasses import dataclass, replace
from functools import lru_cache

import torch

from sktune.engine.specs import TrainState
from sktune.engine.store.files import MARK
from sktune.engine.store.folder import FolderStore
from sktune.engine.store.recording import Recorder


@dataclass(frozen=True)
class SharedFolder:
    """The folder of a cache, which workers may see, too.

    Parameters
    ----------
    path : str
    max_bytes : int or None
    checkpoint_interval : float
        See :class:`~sktune.engine.store.folder.FolderStore`.
    mark : str
        The text that tells this folder from another one of the same path on a worker.
    """

    path: str
    max_bytes: int | None
    checkpoint_interval: float
    mark: str

    @classmethod
    def of(cls, store):
        """Return the folder of a store; None if it has none that others could see."""
        mark = store.find_mark() if isinstance(store, FolderStore) else None
        if mark is None:
            return None
        path = str(store.folder.absolute())
        return cls(path, store.max_bytes, store.checkpoint_interval, mark)

    def open(self):
        """Return a store of this folder; None if this process does not see it."""
        store = _open_folder(self)
        if store is not None and store.find_mark() == self.mark:
            return store
        _open_folder.cache_clear()
        return None


# what a worker has read of a folder serves its next groups
@lru_cache(maxsize=4)
def _open_folder(shared):
    # a folder that is not there is none of ours, and is not made
    try:
        with open(f"{shared.path}/{MARK}") as file:
            if file.read() != shared.mark:
                return None
    except OSError:
        return None
    return FolderStore(shared.path, shared.max_bytes, shared.checkpoint_interval)


class WorkersRecorder(Recorder):
    """Keeps what the trainings of a group come to, for the process that asked and in a store.

    Parameters
    ----------
    trainings : list of Training
    store : Store or None
    """

    def __init__(self, trainings, store=None):
        super().__init__(trainings, store)
        # what that process is handed: positions and results, with the curves of its call
        self.handed = []
        self.first_epochs = [training.first_epoch for training in trainings]

    def keep(self, number, result):
        """Keep a result, and hand it over unless it is a checkpoint for the store only."""
        joined = self.trainings[number].join(result)
        is_over = result.is_final or self.wants(number, len(joined.curve["epoch"]))
        if is_over or self.store is None:
            self.hand_over(number, joined)
        super().keep(number, result)

    def hand_over(self, number, result):
        """Hand over a result, whose curve is that of all epochs."""
        self.handed.append((number, self.cut(number, result)))

    def cut(self, number, result):
        """Return a result with the curve of the epochs that the worker was asked for."""
        first = self.first_epochs[number]
        curve = {name: column[first:] for name, column in result.curve.items()}
        return replace(result, curve=curve)


def go_on(recorder):
    """Let trainings go on from what the store has of them: a worker was lost, or another search.

    Parameters
    ----------
    recorder : WorkersRecorder

    Returns
    -------
    results : dict of int to FitResult
        Those of the trainings that are complete, by their positions.
    parts : list of list of TrainState
        The states from which all trainings go on, a list for each number of epochs that are done;
        those of the other lists are over in each.
    """
    results = {}
    by_epoch = {}
    for number, training in enumerate(recorder.trainings):
        record = None if recorder.store is None else _find_later(training, recorder.store)
        if record is not None:
            results |= _adopt(recorder, number, record)
        if number not in results:
            by_epoch.setdefault(training.first_epoch, []).append(number)
    n = len(recorder.trainings)
    parts = []
    for numbers in by_epoch.values():
        states = [TrainState(is_over=True)] * n
        for number in numbers:
            start = recorder.trainings[number].start
            states[number] = None if start is None else start.state
        parts.append(states)
    return results, parts


def _find_later(training, store):
    """Return a record beyond the start of a training; None without one for each fit before."""
    if training.key is None:
        return None
    record = store.find(training.key, training.spec.n_epochs)
    if record is None or record.epoch <= training.first_epoch or not record.suits(training.spec):
        return None
    are_there = all(_has(store, training.key, n) for n in _list_passed(training, record))
    return record if are_there else None


def _list_passed(training, record):
    """Return the numbers of epochs of fits that have ended by the time of a record."""
    wanted = sorted(training.n_epochs_wanted)
    return [n for n in wanted if training.first_epoch < n <= record.epoch]


def _has(store, key, n_epochs):
    record = store.find(key, n_epochs)
    return record is not None and record.epoch == n_epochs


def _adopt(recorder, number, record):
    """Hand over what is known of a training, and let it go on from there if it is not over."""
    training = recorder.trainings[number]
    spec = training.spec
    for n_epochs in _list_passed(training, record):
        _hand_over(recorder, number, recorder.store.find(training.key, n_epochs))
    if record.answers(spec.n_epochs):
        if record.epoch not in training.n_epochs_wanted:
            # it has ended early
            _hand_over(recorder, number, record)
        return {number: recorder.cut(number, record.result_for(spec))}
    training.start = record.on(torch.device(spec.device))
    return {}


def _hand_over(recorder, number, record):
    """Hand over a record, with the state from which the training would go on."""
    result = record.result_for(recorder.trainings[number].spec)
    recorder.hand_over(number, replace(result, state=record.state))
