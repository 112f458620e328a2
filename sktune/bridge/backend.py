"""The joblib backend ``"sktune"``: collect the tasks of a call, train their nets together, then run each task."""

import warnings
from contextlib import closing, contextmanager

import joblib
import torch
from joblib.parallel import ParallelBackendBase

from sktune.bridge.calls import Call
from sktune.bridge.seam import (
    FallbackToBackend,
    chosen_backend,
    get_active_backend,
    intercept,
    is_fit,
    other_backend,
    pass_on,
    read_tasks,
)
from sktune.engine.report import FusionReport
from sktune.runtime.devices import resolve_device
from sktune.runtime.progress import make_bar
from sktune.runtime.recorded_warnings import restore_showwarning

_NOT_GIVEN = -(10**9)  # n_jobs, which joblib hands on as a number


class FusingBackend(ParallelBackendBase):
    """A joblib backend that trains the networks of all tasks of a call together.

    It is what ``joblib.parallel_config("sktune", ...)`` chooses. `n_jobs` is the number of threads that groups of fits
    are spread over, each with its share of torch's own (default: as many as torch has). If it is given and above 1, it
    is also the number of processes for the tasks that are not fused.

    A call that fits no network, of any functions, is left to the backend that is chosen around this one, or else to
    joblib's own choice: nothing about it is different.

    Parameters
    ----------
    max_lanes : int, default=None
        Fits that are trained together at most; None is 32 on a CPU, and 512 elsewhere. Results do not depend on it.
    device : str or torch.device, default=None
        Where all networks are trained and evaluated, whatever their own `device`. None leaves that to them.
    precision : {"tf32", "bf16"}, default=None
        In what products are made in training, the sums of which stay in float32: ``"tf32"`` on GPUs that have it,
        ``"bf16"`` (8 bits of mantissa) elsewhere, too. None is the modules' own type. Evaluation, and a refit, which
        is no part of the search, are made in that always.
    report : FusionReport to be filled, default=None
    progress : bool, default=False
        Whether to show a progress bar; ``verbose`` above 0 does so, too.
    serves_one : bool, default=False
        Whether it serves one ``Parallel`` only, that of a search, and leaves alone what comes after it (a refit).
    keeper : object, default=None
        ``keeper.wrap(item)`` returns what runs in the place of a task, and ``keeper.receive(result)``
        gets the result of each, in their order, before scikit-learn does.
    """

    supports_return_generator = True
    # Fits are trained in this process; for all else the other backend is found, which has what a call requires.
    supports_sharedmem = True
    default_n_jobs = _NOT_GIVEN

    def __init__(
        self, *args, max_lanes=None, device=None, precision=None, report=None, progress=False, serves_one=False,
        keeper=None, **kwargs,
    ):  # fmt: skip
        super().__init__(*args, **kwargs)
        if precision not in (None, "tf32", "bf16"):
            raise ValueError(
                f"precision must be 'tf32', 'bf16' or None, got precision={precision!r}"
            )
        self.max_lanes = max_lanes
        self.device = device if device is None else str(resolve_device(device))
        self.precision = precision
        self.report = FusionReport() if report is None else report
        self.progress = progress
        self.serves_one = serves_one
        self.keeper = keeper
        self.is_over = False
        # what the context around this one has chosen
        around = chosen_backend()
        self.around = getattr(around, "around", around)

    @property
    def options(self):
        """What a search within this context takes over."""
        return {"max_lanes": self.max_lanes, "device": self.device, "precision": self.precision}

    @contextmanager
    def outside(self):
        """Let what is called within find what it would find without this backend."""
        is_chosen = getattr(chosen_backend(), "around", None) is self.around
        with other_backend(self.around if is_chosen else chosen_backend()):
            yield

    def find_other(self, prefer=None, require=None):
        """Return the backend that would compute a call without this one."""
        with self.outside():
            return get_active_backend(prefer=prefer, require=require)[0]

    def configure(self, n_jobs=-1, parallel=None, prefer=None, require=None, **kwargs):
        """Hand over to what looks at the tasks of a Parallel, or to the backend around if the one search is over."""
        other = self.find_other(prefer, require)
        if self.is_over:
            parallel.n_jobs = _resolve(n_jobs, other)
            raise FallbackToBackend(other)
        raise FallbackToBackend(_Watching(self, other, n_jobs))

    def effective_n_jobs(self, n_jobs):
        """Return how many tasks would run at once without this backend."""
        return self.find_other().effective_n_jobs(n_jobs)

    def get_nested_backend(self):
        """Let what a task itself does in parallel find what it would have found without this backend."""
        return self.find_other().get_nested_backend()


def _resolve(n_jobs, backend):
    """Return how many jobs a call asks for."""
    return backend.default_n_jobs if n_jobs == _NOT_GIVEN else n_jobs


class _Watching(ParallelBackendBase):
    """Looks at each call of one Parallel: its fits are trained together; a call without any is `other`'s."""

    # whether it is so is for `other` to say, which is asked in its turn
    supports_timeout = supports_return_generator = supports_sharedmem = True
    uses_threads = True

    def __init__(self, owner, other, n_jobs):
        super().__init__(nesting_level=owner.nesting_level)
        self.owner, self.other, self.n_jobs = owner, other, n_jobs

    def configure(self, n_jobs=1, parallel=None, **kwargs):
        """Have joblib begin each call with one job."""
        parallel.n_jobs = _resolve(self.n_jobs, self.other)
        self.other.effective_n_jobs(parallel.n_jobs)  # 0 is an error
        self.parallel = parallel
        intercept(parallel, self._take)
        return 1

    def effective_n_jobs(self, n_jobs):
        """Return how many jobs joblib is to begin with."""
        return 1

    def terminate(self):
        """Take note that the Parallel is done."""
        restore_showwarning()
        self.owner.is_over = self.owner.serves_one

    def _take(self, tasks):
        """Return the results of a call in a generator; a first None tells that the work has begun."""
        with closing(self._compute(tasks)) as results:
            for number, result in enumerate(results):
                if number > 0 and self.owner.keeper is not None:
                    self.owner.keeper.receive(result)
                yield result

    def _compute(self, tasks):
        tasks = _begin(tasks)
        if not (tasks.first and is_fit(tasks.first[0])):
            yield from self._pass_on(tasks)
            return
        items = list(tasks)
        if self.owner.keeper is not None:
            items = [self.owner.keeper.wrap(item) for item in items]
        call = self._make_call(read_tasks(items))
        if not call.has_networks:
            call.report_all()
            tasks = _make_rest(items, tasks.n_tasks)
            yield from self._pass_on_with_bar(tasks, len(items))
            return
        if self.parallel.timeout is not None:
            message = (
                "fits that are trained together have no timeout: "
                f"timeout={self.parallel.timeout} is not used"
            )
            warnings.warn(message, UserWarning, stacklevel=4)
        del tasks, items
        yield from call.run()

    def _make_call(self, tasks):
        n_jobs = self.other.effective_n_jobs(_resolve(self.n_jobs, self.other))
        is_given = self.n_jobs != _NOT_GIVEN
        n_workers = _count_jobs(self.n_jobs) if is_given else torch.get_num_threads()
        return Call(self.owner, self.other, self.parallel, tasks, n_jobs, n_workers)

    def _pass_on_with_bar(self, tasks, n_fits):
        with make_bar(n_fits, "fit", self.owner.progress) as bar:
            for number, result in enumerate(self._pass_on(tasks)):
                # the first one only tells that the work has begun
                bar.update(number > 0)
                yield result

    def _pass_on(self, tasks):
        n_jobs = _resolve(self.n_jobs, self.other)
        if not self.owner.serves_one:
            yield from pass_on(self.parallel, tasks, self.other, n_jobs)
            return
        # a search of sktune's fuses its own fits only, and not those that its estimators make in their fit
        with self.owner.outside():
            yield from pass_on(self.parallel, tasks, self.other, n_jobs)


class _Rest:
    """Tasks of which none is held longer than until it is asked for, as joblib's own backends hold none."""

    def __init__(self, first, n_tasks, rest=()):
        self.first, self.n_tasks, self.rest = first, n_tasks, rest

    def __iter__(self):
        first, rest = self.first, self.rest
        del self.first, self.rest
        first.reverse()
        while first:
            yield first.pop()
        yield from rest


class _SizedRest(_Rest):
    """Tasks whose number is known: joblib tells it where it prints its progress."""

    def __len__(self):
        return self.n_tasks


def _begin(tasks):
    """Take the first task; return what yields all of them."""
    n_tasks = len(tasks) if hasattr(tasks, "__len__") else None
    rest = iter(tasks)
    first = []
    for task in rest:
        first.append(task)
        break
    return _make_rest(first, n_tasks, rest)


def _make_rest(first, n_tasks, rest=()):
    return _Rest(first, n_tasks, rest) if n_tasks is None else _SizedRest(first, n_tasks, rest)


def _count_jobs(n_jobs):
    """Return how many jobs are meant, as joblib has it: -1 is one for each core."""
    return n_jobs if n_jobs > 0 else max(joblib.cpu_count() + 1 + n_jobs, 1)


joblib.register_parallel_backend("sktune", FusingBackend)
