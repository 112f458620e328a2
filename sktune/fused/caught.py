"""The warnings of one thread, recorded."""

import threading
import warnings
from contextlib import contextmanager


class _Shown:
    """Stands for ``warnings.showwarning``: records what threads that ask for it warn of, and shows the rest.

    ``catch_warnings(record=True)`` would swallow the others' warnings, and for good: a thread that catches warnings,
    as scikit-learn's checks do, puts back what it found, be it a recorder that has come to its end meanwhile.
    """

    def __init__(self):
        self.caught, self.show, self.lock = {}, warnings.showwarning, threading.Lock()

    def __call__(self, message, category, filename, lineno, *rest):
        caught = self.caught.get(threading.get_ident())
        if caught is None:
            self.show(message, category, filename, lineno, *rest)
        else:
            caught.append((message, category, filename, lineno))

    @contextmanager
    def recorded(self):
        """Yield a list that takes what this thread warns of, for :func:`repeat_warnings`."""
        thread, caught = threading.get_ident(), []
        with self.lock:
            if warnings.showwarning is not self:
                self.show, warnings.showwarning = warnings.showwarning, self
            outer, self.caught[thread] = self.caught.get(thread), caught
        try:
            yield caught
        finally:
            with self.lock:
                self.caught[thread] = outer
                if outer is None:
                    del self.caught[thread]
                if not self.caught and warnings.showwarning is self:
                    warnings.showwarning = self.show


recorded_warnings = _Shown().recorded


def repeat_warnings(caught):
    """Warn of what was recorded."""
    for warning in caught:
        warnings.warn_explicit(*warning)
