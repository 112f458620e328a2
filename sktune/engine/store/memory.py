"""A store in the memory of the process."""

from threading import Lock

from sktune.engine.store.base import Store, pick


class MemoryStore(Store):
    """Keeps trainings in memory, for one search or for several.

    Parameters
    ----------
    max_bytes : int or None, default=None
        How much the records may take together; the oldest ones are dropped first. None is no limit.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.model_selection import GridSearchCV
    >>> import joblib
    >>> from sktune import NeuralNetClassifier
    >>> X, y = load_iris(return_X_y=True)
    >>> net = NeuralNetClassifier(random_state=0)
    >>> store = MemoryStore()
    >>> with joblib.parallel_config("sktune", store=store):
    ...     first = GridSearchCV(net, {"max_epochs": [5]}, cv=3, refit=False).fit(X, y)
    ...     second = GridSearchCV(net, {"max_epochs": [5, 10]}, cv=3, refit=False).fit(X, y)
    >>> store.n_epochs
    30
    """

    def __init__(self, max_bytes=None):
        self.max_bytes = max_bytes
        # records by key and epoch, the oldest first
        self.records = {}
        # the epochs of each key's records
        self.epochs = {}
        self.n_bytes = 0
        self.lock = Lock()

    @property
    def n_epochs(self):
        """The epochs of all trainings that are kept."""
        with self.lock:
            return sum(max(epochs) for epochs in self.epochs.values())

    def find(self, key, n_epochs):
        """Return the record that is of most use for a fit: see :class:`Store`."""
        with self.lock:
            epoch = pick(self.epochs.get(key, ()), n_epochs)
            return None if epoch is None else self.records[key, epoch]

    def put(self, records, is_checkpoint=False):
        """Keep records; the oldest ones are dropped where they take too much memory."""
        with self.lock:
            for key, record in records:
                self._drop(key, record.epoch)
                self.records[key, record.epoch] = record
                self.epochs.setdefault(key, set()).add(record.epoch)
                self.n_bytes += record.n_bytes
            while self.max_bytes is not None and self.n_bytes > self.max_bytes:
                self._drop(*next(iter(self.records)))

    def _drop(self, key, epoch):
        record = self.records.pop((key, epoch), None)
        if record is None:
            return
        self.n_bytes -= record.n_bytes
        self.epochs[key].remove(epoch)
        if not self.epochs[key]:
            del self.epochs[key]
