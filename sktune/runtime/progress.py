"""One progress bar over a whole search, however many rounds it has."""

import sys
from threading import Lock

import numpy as np

# Seconds between two states of a bar that is written to a file.
_SECONDS_IN_FILE = 10.0


class SearchProgress:
    """The bar of a search: it counts the epochs of all fits, over all rounds and stages.

    Several threads may tell it of what they have done. The bar appears with the first fits that are
    planned. Its total grows with the rounds; fits that a search expects beyond those are counted
    with as many epochs as the fits so far have had.

    Parameters
    ----------
    metric : str or None, default=None
        The name of the score that the bar shows, where there are several.
    """

    is_quiet = False

    def __init__(self, metric=None):
        self.metric = metric
        self.is_over = False
        self._lock = Lock()
        self._bar = None
        self._description = "search"
        self._n_done = 0
        self._n_planned = 0
        self._n_fits = 0
        self._n_expected = 0
        self._n_alive = 0
        self._least_loss = np.inf
        self._best_score = -np.inf

    def __reduce__(self):
        # processes that a search starts have nothing to show
        return QuietProgress, ()

    @property
    def _total(self):
        """The epochs of the whole search, as far as they are known or can be expected."""
        if not self._n_fits:
            return self._n_planned
        return self._n_planned + round(self._n_expected * self._n_planned / self._n_fits)

    def expect(self, n_fits):
        """Set how many fits the search is going to have, beyond those planned already."""
        with self._lock:
            self._n_expected = n_fits
            self._show()

    def name_round(self, name):
        """Show the name of the round or the stage that begins."""
        with self._lock:
            self._description = f"search, {name}" if name else "search"
            if self._bar is not None:
                self._bar.set_description(self._description, refresh=False)

    def plan(self, n_fits, n_epochs, unit):
        """Add fits, and all of their epochs, to what is to be done."""
        with self._lock:
            self._n_fits += n_fits
            self._n_expected = max(0, self._n_expected - n_fits)
            self._n_planned += n_epochs
            if self._bar is None and not self.is_over:
                self._bar = _make_bar(self._total, unit, self._description)
            self._show()

    def change(self, n_done=0, n_planned=0, n_alive=0, loss=np.inf):
        """Take note of epochs that are done, or are to be done, and of fits in training.

        Parameters
        ----------
        n_done, n_planned, n_alive : int, default=0
            What is added to each; below 0 it is taken away.
        loss : float, default=inf
            The least training loss of an epoch.
        """
        with self._lock:
            self._n_done += n_done
            self._n_planned += n_planned
            self._n_alive += n_alive
            self._least_loss = np.fmin(self._least_loss, loss)
            self._show()

    def note_score(self, scores):
        """Take note of the score of a candidate: a number, or a dict of them by metric."""
        if isinstance(scores, dict):
            scores = scores.get(self.metric, np.nan)
        with self._lock:
            self._best_score = np.fmax(self._best_score, scores)

    def end(self):
        """End the bar where the search has ended: no more fits are expected."""
        with self._lock:
            self._n_expected = 0
            self._close()

    def close(self):
        """End the bar as it is, if it has not ended yet."""
        with self._lock:
            self._close()

    def _show(self):
        """Bring the bar up to date; tqdm decides whether it is time to draw it."""
        if self._bar is None:
            return
        self._bar.total = self._total
        numbers = {"fits": self._n_alive}
        if np.isfinite(self._best_score):
            numbers["best_score"] = f"{self._best_score:.4g}"
        elif np.isfinite(self._least_loss):
            numbers["best_loss"] = f"{self._least_loss:.3g}"
        self._bar.set_postfix(numbers, refresh=False)
        self._bar.update(self._n_done - self._bar.n)

    def _close(self):
        self.is_over = True
        if self._bar is not None:
            self._show()
            self._bar.close()
            self._bar = None


class QuietProgress(SearchProgress):
    """Stands for the bar of a search that is to show nothing: it counts nothing."""

    is_quiet = True

    def expect(self, n_fits):
        """Do nothing."""

    def name_round(self, name):
        """Do nothing."""

    def plan(self, n_fits, n_epochs, unit):
        """Do nothing."""

    def change(self, n_done=0, n_planned=0, n_alive=0, loss=np.inf):
        """Do nothing."""

    def note_score(self, scores):
        """Do nothing."""


def make_progress(is_shown, metric=None):
    """Return the progress of a search, which shows a bar or nothing."""
    return SearchProgress(metric) if is_shown else QuietProgress()


def _make_bar(total, unit, description):
    # a search that shows nothing does not need tqdm, which starts a thread for its bars
    from tqdm.auto import tqdm

    seconds = 0.1
    if not _is_redrawn(tqdm):
        seconds = _SECONDS_IN_FILE
    return tqdm(total=total, unit=unit, desc=description, mininterval=seconds)


def _is_redrawn(bar_class):
    """Tell whether a bar of tqdm's replaces its last state: in a terminal or a notebook."""
    in_notebook = any(kind.__module__ == "tqdm.notebook" for kind in bar_class.__mro__)
    return in_notebook or sys.stderr.isatty()
