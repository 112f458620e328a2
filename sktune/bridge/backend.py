"""The joblib backend ``"sktune"``, which trains the nets of all tasks of a call together."""

import warnings
from contextlib import closing, contextmanager

import joblib
import torch
from joblib.parallel import ParallelBackendBase

from sktune.bridge.calls import Call
from sktune.bridge.listening.progress import note_result
from sktune.bridge.listening.waves import Waves
from sktune.bridge.seam import (
    FallbackToBackend,
    begin_stream,
    chosen_backend,
    get_active_backend,
    intercept,
    is_fit,
    let_begin_until,
    make_engine,
    make_stream,
    open_outer,
    other_backend,
    pass_on,
    read_tasks,
)
from sktune.bridge.tables import WholeTables
from sktune.engine.report import FusionReport
from sktune.engine.store.caching import open_cache
from sktune.runtime.devices import name_device, resolve_device
from sktune.runtime.progress import QuietProgress, SearchProgress, make_progress
from sktune.runtime.recorded_warnings import restore_showwarning

# Stands for an `n_jobs` that was not given; joblib hands it on as a number.
_NOT_GIVEN = -(10**9)


class FusingBackend(ParallelBackendBase):
    """A joblib backend that trains the networks of all tasks of a call together.

    It is the backend of ``joblib.parallel_config("sktune", ...)``. The argument `n_jobs` of that
    context is the number of threads that groups of fits are spread over, each with its share of
    torch's own threads (default: as many as torch has). If `n_jobs` is given and above 1, it is
    also the number of processes for the tasks that are not fused.

    A call that fits no network is left to the backend of the surrounding context, or else to
    joblib's default, and runs as it would run without this backend.

    Parameters
    ----------
    max_lanes : int, default=None
        The largest number of fits that are trained together. None is 32 on a CPU, and 512
        elsewhere. Results do not depend on it.
    device : str or torch.device, default=None
        Where all networks are trained and evaluated, whatever their own `device`. None leaves that
        to them. ``"cuda"`` without a number is all GPUs of the machine: each trains some groups.
    precision : {"tf32", "bf16"}, default=None
        The type of the factors of matrix products in training; their sums are float32. ``"tf32"``
        has an effect on GPUs that have it, ``"bf16"`` (8 bits of mantissa) on other devices, too.
        None is the modules' own type. Evaluations always use the modules' own type, and so does a
        refit, which is not a part of the search.
    report : FusionReport, default=None
        It is filled with what was fused, and why other fits were not.
    progress : bool or SearchProgress, default=False
        Whether to show a progress bar, one for all calls of a ``Parallel``. ``verbose`` above 0
        does so, too.
    serves_one : bool, default=False
        Whether it serves one ``Parallel`` only, that of a search, and leaves alone what comes
        after it (a refit).
    listeners : sequence of objects with ``on_epoch``, default=()
        They hear of each epoch of the fits that are trained together, and may stop fits.
    can_end_early : bool, default=False
        Whether a call that is interrupted ends with the candidates that are complete. Those whose
        numbers are in ``report.left_out`` have results that mean nothing.
    outer : {"dask", "ray", "loky", "threading"}, default=None
        Where groups of fits are trained: on the workers of a cluster of Dask or Ray that is
        connected, in processes of this machine (``"loky"``), or in threads of this process. Fits
        that are not fused go to the same workers. None is what the surrounding context of joblib
        has chosen, as ``joblib.parallel_config("dask")``, or else threads. Results do not depend
        on it.
    outer_options : dict, default=None
        What joblib's backend of this name takes, such as ``{"n_jobs": 4}`` or ``{"client":
        client}``.
    store : Store, default=None
        It knows what was trained before, and keeps what is trained now: see
        :class:`sktune.engine.store.MemoryStore`.
    cache : str or path, default=None
        A folder in place of a `store`: see :class:`sktune.GridSearchCV`.
    cache_limit : float or None, default=1024
        How many MB (of 2**20 bytes) the folder may take; the oldest fits are removed first.
    checkpoint_interval : float, default=60.0
        After so many seconds, fits in progress are recorded as well.
    deadline : object, default=None
        Once ``deadline.is_over``, no fit begins any more. ``deadline.n_left`` is how many seconds
        are left, and ``deadline.reason`` says in words what has happened. It is the first of the
        listeners.
    keeper : object, default=None
        ``keeper.wrap(item)`` returns what runs in the place of a task. ``keeper.receive(result)``
        gets the result of each, in their order, before scikit-learn does.
    race : object, default=None
        It decides which candidates go on to further splits: see
        :class:`sktune.search.racing.Race`. None fits all candidates on all splits.
    """

    supports_return_generator = True
    # Fits are trained in this process. For other tasks a backend is found that has what the call
    # requires.
    supports_sharedmem = True
    default_n_jobs = _NOT_GIVEN

    def __init__(
        self,
        *args,
        max_lanes=None,
        device=None,
        precision=None,
        report=None,
        progress=False,
        serves_one=False,
        listeners=(),
        can_end_early=False,
        outer=None,
        outer_options=None,
        store=None,
        cache=None,
        cache_limit=1024,
        checkpoint_interval=60.0,
        deadline=None,
        keeper=None,
        race=None,
        **kwargs,
    ):
        super().__init__(*args, **kwargs)
        if precision not in (None, "tf32", "bf16"):
            raise ValueError(
                f"precision must be 'tf32', 'bf16' or None, got precision={precision!r}"
            )
        self.max_lanes = max_lanes
        self.device = device if device is None else _check_device(device)
        self.precision = precision
        self.report = FusionReport() if report is None else report
        self.progress = progress
        self.serves_one = serves_one
        # the rounds of a search have the same rows
        self.whole_tables = WholeTables() if serves_one else None
        self.listeners = listeners if deadline is None else (deadline, *listeners)
        self.deadline = deadline
        self.can_end_early = can_end_early
        if store is not None and cache is not None:
            raise ValueError(f"store must be None beside a cache, got store={store!r}")
        self.store = open_cache(cache, cache_limit, checkpoint_interval) or store
        self.keeper = keeper
        self.race = race
        self.is_over = False
        # the backend of the surrounding context; if that is one of this class, what it has noted
        surrounding = chosen_backend()
        self.around = getattr(surrounding, "around", surrounding)
        self.outer_options = getattr(surrounding, "outer_options", {})
        if outer is not None or outer_options is not None:
            self.outer_options = _check_outer_options(outer, outer_options)
            self.around = open_outer(outer, self.outer_options)
        self._engine = None

    @property
    def options(self):
        """The options that a search within this context takes over."""
        return {
            "max_lanes": self.max_lanes,
            "device": self.device,
            "precision": self.precision,
            "store": self.store,
        }

    def find_engine(self, n_jobs):
        """Return what has the workers that train groups; None is this process.

        Parameters
        ----------
        n_jobs : int
            How many tasks the backend around this one would run at once.
        """
        if self._engine is None:
            self._engine = make_engine(self.around, n_jobs)
            if self._engine is not None:
                self._engine.check()
        return self._engine

    @contextmanager
    def outside(self):
        """Let calls within this context find the backend that they would find without this one."""
        is_chosen = getattr(chosen_backend(), "around", None) is self.around
        with other_backend(self.around if is_chosen else chosen_backend()):
            yield

    def find_other(self, prefer=None, require=None):
        """Return the backend that would compute a call without this one."""
        with self.outside():
            return get_active_backend(prefer=prefer, require=require)[0]

    def configure(self, n_jobs=-1, parallel=None, prefer=None, require=None, **kwargs):
        """Leave a Parallel to a backend that sees its tasks, or to the surrounding one.

        The surrounding one gets what comes after the one search that this backend serves.
        """
        other = self.find_other(prefer, require)
        if self.is_over:
            parallel.n_jobs = _resolve_n_jobs(n_jobs, other)
            raise FallbackToBackend(other)
        raise FallbackToBackend(_WatchingBackend(self, other, n_jobs))

    def effective_n_jobs(self, n_jobs):
        """Return how many tasks would run at once without this backend."""
        return self.find_other().effective_n_jobs(n_jobs)

    def get_nested_backend(self):
        """Return the backend, and its `n_jobs`, that a task would find without this backend."""
        return self.find_other().get_nested_backend()


class _WatchingBackend(ParallelBackendBase):
    """Sees the tasks of each call of one Parallel, and trains their fits together.

    Parameters
    ----------
    owner : FusingBackend
        It has the options.
    other : joblib backend
        It computes the calls that fit no network.
    n_jobs : int
        The number of jobs that the Parallel asks for.
    """

    # All are claimed here; `other`, where it computes the call, refuses what it does not support.
    supports_timeout = True
    supports_return_generator = True
    supports_sharedmem = True
    uses_threads = True

    def __init__(self, owner, other, n_jobs):
        super().__init__(nesting_level=owner.nesting_level)
        self.owner = owner
        self.other = other
        self.n_jobs = n_jobs

    def configure(self, n_jobs=1, parallel=None, **kwargs):
        """Have joblib begin each call with one job."""
        parallel.n_jobs = _resolve_n_jobs(self.n_jobs, self.other)
        # raises an error for 0 jobs
        self.other.effective_n_jobs(parallel.n_jobs)
        self.parallel = parallel
        self.progress = self._begin_progress()
        intercept(parallel, self._compute)
        return 1

    def effective_n_jobs(self, n_jobs):
        """Return how many jobs joblib is to begin with."""
        return 1

    def terminate(self):
        """Take note that the Parallel is done."""
        restore_showwarning()
        self.progress.close()
        self.owner.is_over = self.owner.serves_one

    def _begin_progress(self):
        """Return the progress of the search, or one of the Parallel's own."""
        if isinstance(self.owner.progress, SearchProgress):
            return self.owner.progress
        return make_progress(self.owner.progress)

    def _compute(self, tasks):
        """Yield None when the work begins, then the results of a call."""
        with closing(self._compute_all(tasks)) as results:
            for number, result in enumerate(results):
                if number > 0 and self.owner.keeper is not None:
                    self.owner.keeper.receive(result)
                yield result

    def _compute_all(self, tasks):
        tasks = begin_stream(tasks)
        if not (tasks.first and is_fit(tasks.first[0])):
            yield from self._pass_on(tasks)
            return
        items = list(tasks)
        if self.owner.keeper is not None:
            items = [self.owner.keeper.wrap(item) for item in items]
        n_tasks = tasks.n_tasks
        # whoever computes the call holds the tasks from here on
        del tasks
        if self.owner.race is None:
            yield from self._compute_fits(items, n_tasks)
            return
        yield None
        yield from Waves(items, self.owner, self._compute_wave).run(self.progress)

    def _compute_wave(self, items):
        """Return the results of tasks that fit; empty their list."""
        _, *results = self._compute_fits(items, len(items))
        return results

    def _compute_fits(self, items, n_tasks):
        """Yield None, then the results of tasks that fit; empty their list."""
        call = self._make_call(read_tasks(items))
        if not call.has_networks:
            call.report_all()
            places = [job.task.progress for job in call.jobs]
            # the stream alone holds the tasks from here on
            del call
            if self.owner.deadline is not None:
                items[:] = [let_begin_until(item, self.owner.deadline.n_left) for item in items]
            yield from self._pass_on_with_bar(make_stream(items, n_tasks), places)
            return
        if self.parallel.verbose > 0 and isinstance(self.progress, QuietProgress):
            self.progress = make_progress(True)
        if self.parallel.timeout is not None:
            message = (
                "fits that are trained together have no timeout: "
                f"timeout={self.parallel.timeout} is not used"
            )
            warnings.warn(message, UserWarning, stacklevel=5)
        # the call alone holds the tasks from here on
        items.clear()
        yield from call.run()

    def _make_call(self, tasks):
        n_jobs = self.other.effective_n_jobs(self._resolve_n_jobs())
        is_given = self.n_jobs != _NOT_GIVEN
        n_workers = _count_jobs(self.n_jobs) if is_given else torch.get_num_threads()
        return Call(self.owner, self.other, self.parallel, tasks, n_jobs, n_workers, self.progress)

    def _resolve_n_jobs(self):
        """Return how many jobs the call asks for: else what `outer_options` or the backend says."""
        if self.n_jobs == _NOT_GIVEN and "n_jobs" in self.owner.outer_options:
            return self.owner.outer_options["n_jobs"]
        return _resolve_n_jobs(self.n_jobs, self.other)

    def _pass_on_with_bar(self, tasks, places):
        self.progress.plan(len(places), len(places), "fit")
        scores = {}
        for number, result in enumerate(self._pass_on(tasks)):
            # the first item is no result: it tells that the work has begun
            if number > 0:
                note_result(self.progress, scores, places[number - 1], result)
                self.progress.change(n_done=1)
            yield result

    def _pass_on(self, tasks):
        """Have the tasks computed as they would be without this backend."""
        n_jobs = _resolve_n_jobs(self.n_jobs, self.other)
        if not self.owner.serves_one:
            yield from pass_on(self.parallel, tasks, self.other, n_jobs)
            return
        # a search of sktune fuses its own fits only, not those that its estimators make in `fit`
        with self.owner.outside():
            yield from pass_on(self.parallel, tasks, self.other, n_jobs)


def _check_device(device):
    """Return the name of a device that is there; ``"auto"`` stays, as workers may have others."""
    resolved = name_device(device, resolve_device(device))
    is_auto = isinstance(device, str) and device == "auto"
    return "auto" if is_auto else resolved


def _check_outer_options(outer, options):
    """Return the options of `outer`, with as many jobs as there are cores if they do not say."""
    if outer is None:
        raise ValueError(f"outer_options must come with outer, got outer_options={options!r} alone")
    if options is not None and not isinstance(options, dict):
        raise TypeError(f"outer_options must be a dict or None, got outer_options={options!r}")
    return {"n_jobs": -1} | (options or {})


def _resolve_n_jobs(n_jobs, backend):
    """Return how many jobs a call asks for: a backend's default if it does not say."""
    return backend.default_n_jobs if n_jobs == _NOT_GIVEN else n_jobs


def _count_jobs(n_jobs):
    """Return how many jobs are meant, as joblib has it: -1 is one for each core."""
    if n_jobs > 0:
        return n_jobs
    return max(joblib.cpu_count() + 1 + n_jobs, 1)


joblib.register_parallel_backend("sktune", FusingBackend)
