"""The warnings of one thread, recorded."""

import threading
import warnings
from contextlib import contextmanager

_lock = threading.RLock()
# For each thread that records: the list to which its warnings are added.
_caught = {}


class _Shown:
    """A replacement of ``warnings.showwarning`` that records the warnings of some threads.

    The warnings of all other threads are shown as before. ``catch_warnings(record=True)`` would
    swallow them.

    A thread that uses ``catch_warnings``, as scikit-learn's checks do, restores at its end the
    function that it found at its beginning, even if that is a recorder that has ended meanwhile.
    A recorder that was restored so removes itself at the next warning, at the next recording or at
    the end of a search.

    Parameters
    ----------
    show : callable
        The function that showed warnings before.

    Attributes
    ----------
    n_users : int
        The number of recordings that need this recorder.
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
        """Restore the function before this one, if no recording needs this one any more."""
        with _lock:
            if not self.n_users and warnings.showwarning is self:
                warnings.showwarning = self.show


def _stand_in():
    """Return the recorder in place of ``warnings.showwarning``, after installing it if needed."""
    shown = warnings.showwarning
    if not isinstance(shown, _Shown):
        # Within a catch_warnings block there may be another recorder outside of the block. Each
        # recorder restores the function that it has replaced itself.
        shown = _Shown(shown)
        warnings.showwarning = shown
    return shown


@contextmanager
def recorded_warnings():
    """Yield a list to which this thread's warnings are added, for :func:`repeat_warnings`."""
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
    """Restore ``warnings.showwarning`` if a recorder that has ended is in its place."""
    shown = warnings.showwarning
    if isinstance(shown, _Shown):
        shown.step_down()


def repeat_warnings(caught):
    """Issue recorded warnings again."""
    for warning in caught:
        warnings.warn_explicit(*warning)
