"""The warnings of one thread, recorded."""

import threading
import warnings
from contextlib import contextmanager

_lock = threading.RLock()
_caught = {}  # by thread: the list that takes what it warns of


class _Shown:
    """Stands for ``warnings.showwarning``: records what threads that ask for it warn of, and shows the rest.

    ``catch_warnings(record=True)`` would swallow the others' warnings, and for good: a thread that catches warnings,
    as scikit-learn's checks do, puts back what it found, be it a recorder that has come to its end meanwhile. One of
    these that is put back so steps down when it is next met: at a warning, at a recording or at the end of a search.

    `show` is what it stands for: the one that showed warnings before. `n_users` counts the recordings that need it.
    """

    def __init__(self, show):
        self.show = show
        self.n_users = 0

    def __call__(self, message, category, filename, lineno, *rest):
        caught = _caught.get(threading.get_ident())
        if caught is not None:
            caught.append((message, category, filename, lineno))
            return
        self.step_down()
        self.show(message, category, filename, lineno, *rest)

    def step_down(self):
        """Put back the one before, if no recording needs this one any more."""
        with _lock:
            if not self.n_users and warnings.showwarning is self:
                warnings.showwarning = self.show


def _stand_in():
    """Return the recorder that stands for ``warnings.showwarning`` now; if there is none, a new one."""
    shown = warnings.showwarning
    if not isinstance(shown, _Shown):
        # Within someone's catch_warnings there may be another one below: each puts back what it has found itself.
        shown = _Shown(shown)
        warnings.showwarning = shown
    return shown


@contextmanager
def recorded_warnings():
    """Yield a list that takes what this thread warns of, for :func:`repeat_warnings`."""
    thread = threading.get_ident()
    caught = []
    with _lock:
        shown = _stand_in()
        shown.n_users += 1
        outer = _caught.get(thread)
        _caught[thread] = caught
    try:
        yield caught
    finally:
        with _lock:
            _caught[thread] = outer
            if outer is None:
                del _caught[thread]
            shown.n_users -= 1
            shown.step_down()


def restore_showwarning():
    """Put ``warnings.showwarning`` back if a recorder that is over stands there."""
    shown = warnings.showwarning
    if isinstance(shown, _Shown):
        shown.step_down()


def repeat_warnings(caught):
    """Warn of what was recorded."""
    for warning in caught:
        warnings.warn_explicit(*warning)
