"""One progress bar over the fits of a search, whatever joblib backend runs them."""

import contextlib
import threading

from joblib import parallel_config

# The only names here that joblib does not document: `FallbackToBackend`, which a backend raises to
# be replaced by another one, and `Parallel.n_completed_tasks`, read below.
# tests/test_search.py fails when either of them moves.
from joblib.parallel import FallbackToBackend, ParallelBackendBase, get_active_backend
from tqdm.auto import tqdm

__all__ = ["fits_progress"]

SECONDS_BETWEEN_LOOKS = 0.1


@contextlib.contextmanager
def fits_progress(n_fits):
    """Show how many of `n_fits` tasks the next :class:`joblib.Parallel` call has completed.

    Nothing runs differently: a backend that only asks to be replaced by the one in force comes to
    know the ``Parallel`` object, and a thread reads its count of completed tasks.

    Parameters
    ----------
    n_fits : callable
        Returns the number of fits; called when the work starts.

    Yields
    ------
    ProgressBar
        Use its ``finish`` to show a last note beside the bar.
    """
    progress = ProgressBar(n_fits)
    introduction = _Introduction(progress.watch)
    try:
        yield progress
    finally:
        introduction.withdraw()
        progress.close()


class ProgressBar:
    """A tqdm bar that follows a running :class:`joblib.Parallel`."""

    def __init__(self, n_fits):
        self._n_fits = n_fits
        self._bar = None
        self._parallel = None
        self._thread = None
        self._stop = threading.Event()

    def watch(self, parallel):
        """Open the bar and follow `parallel` until closed."""
        self._parallel = parallel
        # The tiny delay keeps the bar off the screen until the first fit is done: scikit-learn
        # has a line to print before.
        self._bar = tqdm(total=self._n_fits(), desc="fits", unit="fit", delay=1e-9)
        self._thread = threading.Thread(target=self._follow, daemon=True)
        self._thread.start()

    def finish(self, **notes):
        """Bring the bar up to date and show `notes` beside it."""
        if self._bar is not None:
            self._stop_following()
            self._bar.set_postfix(**notes)

    def close(self):
        """Close the bar, also after a failure."""
        if self._bar is not None:
            self._stop_following()
            self._bar.close()

    def _follow(self):
        while not self._stop.wait(SECONDS_BETWEEN_LOOKS):
            self._look()

    def _look(self):
        # joblib sets the attribute when the call starts; until then no task is done.
        n_done = getattr(self._parallel, "n_completed_tasks", 0)
        if n_done > self._bar.n:
            self._bar.update(min(n_done, self._bar.total) - self._bar.n)

    def _stop_following(self):
        self._stop.set()
        self._thread.join()
        self._look()


class _Introduction(ParallelBackendBase):
    """A joblib backend that meets the next ``Parallel`` object and steps aside at once.

    ``Parallel`` looks for a backend when it is made and configures it before the first task. This
    one answers by naming the backend that would have run the tasks anyway, and takes itself out of
    joblib's configuration, so that whatever runs inside the tasks finds the user's settings.
    """

    def __init__(self, meet):
        backend, n_jobs = get_active_backend()
        super().__init__(nesting_level=backend.nesting_level)
        self._backend = backend
        self._meet = meet
        # `Parallel` reads these before it configures the backend.
        self.default_n_jobs = backend.default_n_jobs
        self.uses_threads = getattr(backend, "uses_threads", False)
        self.supports_sharedmem = getattr(backend, "supports_sharedmem", False)
        self._config = parallel_config(backend=self, n_jobs=n_jobs)

    def effective_n_jobs(self, n_jobs):
        """Answer as the backend that will run the tasks."""
        return self._backend.effective_n_jobs(n_jobs)

    def configure(self, n_jobs=1, parallel=None, **backend_kwargs):
        """Step aside."""
        self.withdraw()
        self._meet(parallel)
        raise FallbackToBackend(self._backend)

    def withdraw(self):
        """Give joblib its configuration back; harmless when done twice."""
        if self._config is not None:
            self._config.unregister()
            self._config = None
