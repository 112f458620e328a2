"""A store in a folder, from which a search that was broken off goes on."""

import warnings
from collections import OrderedDict
from contextlib import suppress
from pathlib import Path
from threading import Lock
from time import monotonic

from sktune.engine.store.base import Store, pick
from sktune.engine.store.files import (
    DamagedFileError,
    list_files,
    read_mark,
    read_whole,
    remove_abandoned,
    write_durably,
)
from sktune.engine.store.packing import ForeignFileError, pack, read_index, unpack

# What other processes have written is looked for again after so many seconds.
_SECONDS_BETWEEN_LOOKS = 1.0
# Files whose records are held in memory: those of a group are asked for one after the other.
_N_FILES_HELD = 4


class FolderStore(Store):
    """Keeps trainings in a folder, for this process and for later ones, several at once.

    What cannot be read is left out with a warning and trained again, and what cannot be written is
    not kept: no fault of the disk ends a search. Files have no pickles in them, so that a folder of
    somebody else's runs no code.

    Parameters
    ----------
    folder : str or path
        It is made if it is not there.
    max_bytes : int or None, default=None
        How much its files may take together; the oldest ones are removed first. None is no limit.
    checkpoint_interval : float, default=60.0
        After so many seconds trainings in progress are kept, too, with the state of the optimizer.

    Raises
    ------
    ValueError
        If there is a file in the place of the folder.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> import joblib
    >>> from sklearn.datasets import load_iris
    >>> from sktune import GridSearchCV, NeuralNetClassifier
    >>> X, y = load_iris(return_X_y=True)
    >>> search = GridSearchCV(NeuralNetClassifier(random_state=0), {"lr": [0.001, 0.01]}, cv=3)
    >>> with TemporaryDirectory() as folder:
    ...     for _ in range(2):
    ...         with joblib.parallel_config("sktune", store=FolderStore(folder)):
    ...             print(search.fit(X, y).fusion_.sharing.n_trained_epochs > 0)
    True
    False
    """

    is_durable = True

    def __init__(self, folder, max_bytes=None, checkpoint_interval=60.0):
        self.folder = Path(folder)
        self.max_bytes = max_bytes
        self.checkpoint_interval = checkpoint_interval
        self.lock = Lock()
        # of each file that was read: its size and its time, and the keys and epochs of its records
        self.files = {}
        self.indexes = {}
        # where the records of a key are: by epoch, the name of the file and the place in it
        self.places = {}
        # the keys of trainings in progress that files hold, until later records replace them
        self.in_progress = {}
        # files that are no records, or are damaged
        self.ignored = set()
        self.held = OrderedDict()
        self.messages = []
        self.last_look = None
        self.is_writable = True
        if self.folder.exists() and not self.folder.is_dir():
            raise ValueError(f"cache must be a folder, got a file: {str(folder)!r}")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            remove_abandoned(self.folder)
        except OSError as error:
            self._stop_writing(error)

    def find(self, key, n_epochs):
        """Return the record that is of most use for a fit: see :class:`Store`."""
        with self.lock:
            self._look()
            while True:
                places = self.places.get(key, {})
                epoch = pick(places, n_epochs)
                if epoch is None:
                    return None
                name, number = places[epoch]
                records = self._read(name)
                if records is not None and number < len(records):
                    if records[number].epoch == epoch:
                        return records[number]
                    self._ignore(name, "its header does not go with its records")
                elif records is not None:
                    self._ignore(name, "it holds fewer records than its header says")

    def put(self, records, is_checkpoint=False):
        """Write records into a file; where that fails, nothing is written from then on."""
        if not self.is_writable:
            return
        with self.lock:
            try:
                data = pack(records, is_checkpoint)
                name = write_durably(self.folder, data)
                self._look(is_forced=True)
                self._drop_progress([key for key, _ in records], besides=name)
                self._limit_size()
            except Exception as error:
                self._stop_writing(error)

    def wants_checkpoints(self, seconds):
        """Tell whether trainings in progress are to be put."""
        return self.is_writable and seconds >= self.checkpoint_interval

    def take_messages(self):
        """Return what went wrong since the last time, as texts."""
        with self.lock:
            messages = self.messages
            self.messages = []
        return messages

    def tell(self):
        """Warn of what went wrong since the last time."""
        for message in self.take_messages():
            warnings.warn(message, UserWarning, stacklevel=2)

    def find_mark(self):
        """Return a text by which other processes know that they see this folder; None without one.

        The folder gets it in a file when somebody asks for the first time.
        """
        if not self.is_writable:
            return None
        with suppress(OSError):
            return read_mark(self.folder)
        return None

    def look_again(self):
        """Take note of what other processes have just written."""
        with self.lock:
            self._look(is_forced=True)

    def _look(self, *, is_forced=False):
        """Take note of files that have come or gone."""
        is_recent = self.last_look is not None and (
            monotonic() - self.last_look < _SECONDS_BETWEEN_LOOKS
        )
        if is_recent and not is_forced:
            return
        self.last_look = monotonic()
        try:
            found = list_files(self.folder)
        except OSError:
            # there is no folder, which the constructor has told
            found = {}
        for name in self.files.keys() - found.keys():
            self._forget(name)
        for name in sorted(found.keys() - self.files.keys() - self.ignored):
            self._read_index(name, found[name])

    def _read_index(self, name, status):
        """Take note of the records of a file."""
        try:
            with open(self.folder / name, "rb") as file:
                index, is_checkpoint = read_index(file)
        except FileNotFoundError:
            return
        except (OSError, ForeignFileError) as error:
            self._ignore(name, error)
            return
        self.files[name] = status
        self.indexes[name] = index
        for number, (key, epoch) in enumerate(index):
            self.places.setdefault(key, {})[epoch] = (name, number)
        if is_checkpoint:
            self.in_progress[name] = {key for key, _ in index}

    def _read(self, name):
        """Return the records of a file; None if it is gone or damaged."""
        if name in self.held:
            self.held.move_to_end(name)
            return self.held[name]
        try:
            records = unpack(read_whole(self.folder / name))
        except FileNotFoundError:
            self._forget(name)
            return None
        except (OSError, MemoryError, DamagedFileError, ForeignFileError) as error:
            self._ignore(name, error)
            return None
        self.held[name] = records
        while len(self.held) > _N_FILES_HELD:
            self.held.popitem(last=False)
        return records

    def _ignore(self, name, error):
        """Leave a file out from now on, with a warning."""
        self._forget(name)
        self.ignored.add(name)
        self.messages.append(
            f"the file {name} of the cache {str(self.folder)!r} is not used, "
            f"what it should hold is trained again: {error}"
        )

    def _forget(self, name):
        """Forget the records of a file."""
        self.files.pop(name, None)
        self.held.pop(name, None)
        self.in_progress.pop(name, None)
        for key, epoch in self.indexes.pop(name, ()):
            places = self.places.get(key, {})
            # a later file may have the same record
            if epoch in places and places[epoch][0] == name:
                del places[epoch]
            if not places:
                self.places.pop(key, None)

    def _drop_progress(self, keys, besides):
        """Remove files of trainings in progress once later records hold all of these."""
        for name, waiting in list(self.in_progress.items()):
            if name == besides:
                continue
            waiting.difference_update(keys)
            if not waiting:
                self._remove(name)

    def _limit_size(self):
        """Remove the oldest files where all together take too much."""
        if self.max_bytes is None:
            return
        by_age = sorted(self.files, key=lambda name: self.files[name][1])
        n_bytes = sum(size for size, _ in self.files.values())
        for name in by_age:
            if n_bytes <= self.max_bytes:
                return
            n_bytes -= self.files[name][0]
            self._remove(name)

    def _remove(self, name):
        (self.folder / name).unlink(missing_ok=True)
        self._forget(name)

    def _stop_writing(self, error):
        """Go on without writing, with a warning."""
        self.is_writable = False
        self.messages.append(
            f"the cache {str(self.folder)!r} cannot be written, "
            f"the search goes on without recording: {type(error).__name__}: {error}"
        )
