"""joblib's ``Parallel``: the backend in use, and how the results of a call are replaced.

joblib tells a backend of a call before the tasks of the call can be seen. So each call is begun
with one job, which joblib computes in ``Parallel._get_sequential_output``. :func:`intercept`
replaces that method. The replacement sees the tasks, and either returns results of its own or has
the same ``Parallel`` begin anew with another backend (:func:`pass_on`).
"""

from contextlib import contextmanager

import joblib
from joblib.parallel import FallbackToBackend, default_parallel_config, get_active_backend
from joblib.parallel import _backend as _in_thread

__all__ = [
    "FallbackToBackend",
    "chosen_backend",
    "fused_tasks",
    "get_active_backend",
    "intercept",
    "other_backend",
    "pass_on",
    "run_in_turn",
]

# For `Parallel._managed_backend`. joblib reads 0 as false; that it is not the object `False`, which
# joblib itself sets, tells whether joblib has changed the attribute meanwhile.
_OPENS_ITSELF = 0


def fused_tasks(**options):
    """Return a context in which the calls of one search are fused, and no others.

    Within a context of the backend ``"sktune"`` the options of that context hold; `options`, which
    are those of :class:`~sktune.bridge.backend.FusingBackend`, take precedence.
    """
    options = getattr(chosen_backend(), "options", {}) | options
    # where shared memory is required, joblib may begin with another number of jobs than the
    # context tells
    _, n_jobs = get_active_backend()
    if n_jobs is not None:
        options["n_jobs"] = n_jobs
    return joblib.parallel_config("sktune", serves_one=True, **options)


def chosen_backend():
    """Return the backend that the surrounding context has chosen, or else joblib's default."""
    return _find_config()["backend"]


@contextmanager
def other_backend(backend):
    """Let calls find another backend; all other settings of joblib stay as they are.

    `backend` is what :func:`chosen_backend` has returned elsewhere.
    """
    config = _find_config()
    _in_thread.config = {**config, "backend": backend}
    try:
        yield
    finally:
        _in_thread.config = config


def _find_config():
    """Return joblib's settings in this thread."""
    return getattr(_in_thread, "config", default_parallel_config)


def intercept(parallel, take):
    """Have ``take(tasks)`` compute the results of the calls of a Parallel that has one job.

    `take` is a generator function. The first item that its generator yields is None and tells that
    the work has begun; the results follow.
    """
    parallel._get_sequential_output = take


def pass_on(parallel, tasks, backend, n_jobs):
    """Have a call computed by another backend, with no other change; yield None, then the results.

    This is called within the function that was given to :func:`intercept`, which is put back in
    the end.
    """
    take = parallel._get_sequential_output
    own_backend = parallel._backend
    is_managed = parallel._managed_backend
    del parallel._get_sequential_output
    parallel._backend = backend
    parallel.n_jobs = n_jobs
    # the Parallel begins anew, and opens and closes the backend by itself, also within a ``with``
    # block of its own
    parallel._running = False
    parallel._managed_backend = _OPENS_ITSELF
    try:
        outputs = joblib.Parallel.__call__(parallel, tasks)
        yield
        yield from outputs
    finally:
        parallel._backend = own_backend
        parallel._get_sequential_output = take
        # otherwise the ``with`` block has ended before its results were taken
        if parallel._managed_backend is _OPENS_ITSELF:
            parallel._managed_backend = is_managed


def run_in_turn(parallel, tasks):
    """Have a call computed in this thread, one task after the other; yield as :func:`pass_on`."""
    take = parallel._get_sequential_output
    del parallel._get_sequential_output
    try:
        yield from parallel._get_sequential_output(tasks)
    finally:
        parallel._get_sequential_output = take
