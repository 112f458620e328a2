"""The joblib backend ``"sktune"``: collect the tasks of a call, train their nets together, then run each task."""

import logging
import warnings
from contextlib import contextmanager
from numbers import Integral

import joblib
import torch
from joblib.parallel import ParallelBackendBase
from skorch import NeuralNet
from tqdm.auto import tqdm

from sktune.bridge.caught_warnings import restore_showwarning
from sktune.bridge.collect import Collector, Fit, net_of
from sktune.bridge.generators import Course
from sktune.bridge.install import hand_out
from sktune.bridge.planner import find_obstacle, group_lanes
from sktune.bridge.seam import (
    FallbackToBackend,
    chosen_backend,
    get_active_backend,
    intercept,
    is_fit,
    other_backend,
    pass_on,
    read_tasks,
    run_in_turn,
    run_task,
)
from sktune.engine.executor import FusionReport, Trainer, conclude_failure
from sktune.estimators.base import NetworkEstimator
from sktune.runtime.devices import resolve_device

_logger = logging.getLogger(__name__)
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
    """

    supports_return_generator = True
    # Fits are trained in this process; for all else the other backend is found, which has what a call requires.
    supports_sharedmem = True
    default_n_jobs = _NOT_GIVEN

    def __init__(
        self, *args, max_lanes=None, device=None, precision=None, report=None, progress=False, serves_one=False,
        **kwargs,
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
        """Return the results of a call, in a generator whose first one, None, tells that the work has begun."""
        tasks = _begin(tasks)
        call = None
        if tasks.first and is_fit(tasks.first[0]):
            items = list(tasks)
            call = _Call(self, read_tasks(items))
            tasks = _make_rest(items, tasks.n_tasks)
        if call is None or not call.has_networks:
            if call is not None:
                call.report_all()
                yield from self._pass_on_with_bar(tasks, len(items))
            else:
                yield from self._pass_on(tasks)
            return
        del tasks
        if self.parallel.timeout is not None:
            message = f"fits that are trained together have no timeout: timeout={self.parallel.timeout} is not used"
            warnings.warn(message, UserWarning, stacklevel=3)
        yield from call.run()

    def _pass_on_with_bar(self, tasks, n_fits):
        with _make_bar(n_fits, "fit", self.owner.progress) as bar:
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


class _NoBar:
    """Stands for a bar that is not wanted: tqdm would start a thread even for one that it does not show."""

    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass

    def update(self, n=1):
        pass

    def set_postfix(self, **numbers):
        pass

    def close(self):
        pass


def _make_bar(total, unit, is_shown):
    return tqdm(total=total, unit=unit, desc="search") if is_shown else _NoBar()


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


class _Call:
    """One call of a Parallel, of tasks in which scikit-learn fits estimators."""

    def __init__(self, watching, tasks):
        self.owner, self.other, self.parallel = watching.owner, watching.other, watching.parallel
        self.asked = watching.n_jobs
        self.jobs = [_Job(self, task) for task in tasks]
        self.bar = None

    @property
    def has_networks(self):
        """Whether any task fits a network."""
        return any(job.has_network for job in self.jobs)

    @property
    def n_jobs(self):
        """How many tasks at once the other backend would run."""
        return self.other.effective_n_jobs(_resolve(self.asked, self.other))

    def report_all(self):
        """Take note of all fits, as far as they have come."""
        for job in self.jobs:
            for fit in [job.make_fit()] if job.fits is None else job.fits:
                self.owner.report.add(fit)

    def run(self):
        """Train the networks together, then run each task; return the results as joblib's generators do."""
        try:
            yield from run_in_turn(self.parallel, self._run_jobs())
        finally:
            if self.bar is not None:
                self.bar.close()
            self.report_all()

    def _run_jobs(self):
        self._prepare()
        for job in self.jobs:
            yield job.run, (), {}
        for job in self.jobs:
            if job.seed is not None and any(fit.outcome is not None for fit in job.fits):
                _draw_torch_seed(torch.default_generator)

    @contextmanager
    def within_tasks(self):
        """Let what a task does in parallel find what it would find without this backend."""
        with self.owner.outside():
            if self.n_jobs == 1:
                yield
                return
            backend, n_jobs = self.other.get_nested_backend()
            with joblib.parallel_config(backend=backend, n_jobs=n_jobs):
                yield

    def _prepare(self):
        self._collect()
        fits = [fit for job in self.jobs for fit in job.fits]
        groups = self._group(fits)
        shows_bar = self.owner.progress or self.parallel.verbose > 0
        self.bar = _make_bar(sum(map(_cost, fits)), "epoch", shows_bar)
        n_workers = torch.get_num_threads() if self.asked == _NOT_GIVEN else _count_jobs(self.asked)
        Trainer(n_workers, self.owner.report, self.bar, self.owner.precision).train(groups)
        for fit in fits:
            if fit.lane is not None:  # scikit-learn will take the folds' rows once more
                fit.lane.forget_rows()
        alone = [job for job in self.jobs if all(fit.outcome is None for fit in job.fits)]
        if self.n_jobs > 1 and alone:
            self._run_elsewhere(alone)

    def _collect(self):
        """Prepare the fits.

        Rows are held of one fold at a time, for which the fits are prepared fold by fold. Where that draws random
        numbers they are prepared in the order of the tasks, which then find the generators as they were.
        """
        generator = torch.Generator()
        generator.set_state(torch.get_rng_state())
        for job in self.jobs:
            job.read(generator)
        collector = Collector(self.owner.device)
        began = collector.tracker.states
        with self.within_tasks():  # steps of a pipeline may have tasks of their own
            left = self.jobs
            if not any(job.draws_seeds for job in self.jobs):
                left = self._collect_by_fold(collector)
            self._collect_in_order(collector, left)
        # tasks in other processes draw from generators of their own: there is no order to be kept
        if self.n_jobs == 1:
            collector.tracker.go_back(began)
        else:
            for job in self.jobs:
                job.before = None

    def _collect_by_fold(self, collector):
        """Prepare fits until one draws, which is undone; return the jobs that are left."""
        began, by_fold = collector.tracker.states, {}
        for job in self.jobs:
            by_fold.setdefault(job.fold, []).append(job)
        for members in by_fold.values():
            known = {}
            collector.steps.clear()
            for job in members:
                job.collect(collector, known)
                if any(fit.draws for fit in job.fits):
                    collector.tracker.go_back(began)
                    job.fits = None
                    return [job for job in self.jobs if job.fits is None]
        return []

    def _collect_in_order(self, collector, jobs):
        known = {}
        for job in jobs:
            before = collector.tracker.states
            job.collect(collector, known)
            if any(fit.draws for fit in job.fits):
                job.before = before

    def _group(self, fits):
        """Return the fits that are trained together, in lists."""
        alike = {}
        for fit in fits:
            if fit.lane is not None:
                alike.setdefault(fit.kind, []).append(fit)
        for members in alike.values():
            reason = find_obstacle(members)
            for fit in members:
                fit.reason = reason
                if not reason:
                    fit.table = None
        fused = [fit for members in alike.values() for fit in members if not fit.reason]
        return group_lanes(fused, self.owner.max_lanes)

    def _run_elsewhere(self, jobs):
        one_by_one = self.other.supports_return_generator
        return_as = "generator" if one_by_one else "list"
        parallel = joblib.Parallel(n_jobs=self.n_jobs, backend=self.other, return_as=return_as)
        with self.owner.outside():
            results = parallel(job.task.call for job in jobs)
            for job, result in zip(jobs, results, strict=True):
                job.keep(result)


def _count_jobs(n_jobs):
    """Return how many jobs are meant, as joblib has it: -1 is one for each core."""
    return n_jobs if n_jobs > 0 else max(joblib.cpu_count() + 1 + n_jobs, 1)


def _cost(fit):
    """Return the epochs of a fit, as far as they are known."""
    return 1 if fit.lane is None else fit.net.max_epochs


def _draw_torch_seed(generator):
    """Return a number that a net of skorch's begins to draw from, which has no seed of its own."""
    return int(torch.randint(2**62, (), generator=generator))


class _Job:
    """A task, and the fits that it will adopt."""

    def __init__(self, call, task):
        self.call, self.task = call, task
        self.has_network = isinstance(task.last_step, NeuralNet)
        self.fits = self.seed = None
        # the states of the random generators before its fits were prepared; None if that drew nothing
        self.before = None
        self.has_result, self.result = False, None

    def read(self, generator):
        """Set the parameters of a network, and draw what a net of skorch's would begin to draw from."""
        self.draws_seeds = False
        self.fold = id(self.task.arguments.get("train"))
        if not self.has_network:
            return
        try:
            net = net_of(self.task.estimator)
        except Exception:  # a parameter that it does not have: the task will say so
            return
        if isinstance(net, NeuralNet) and not isinstance(net, NetworkEstimator):
            self.seed = _draw_torch_seed(generator)
        self.draws_seeds = not isinstance(getattr(net, "random_state", 0), Integral)

    def collect(self, collector, known):
        """Prepare the fits up to their training, or take note of the reason why not."""
        if self.has_network:
            try:
                self.fits = collector.prepare(self.task.planned_fits(known), self.seed)
            except Exception:  # it will fail in its own place
                _logger.debug("a task cannot be read", exc_info=True)
                self.fits = [
                    Fit(
                        reason="its task cannot be read: it has parameters or rows that do not go together"
                    )
                ]
        else:
            self.fits = [self.make_fit()]
        for fit in self.fits:
            fit.place = self.task.place

    def make_fit(self):
        """Return what stands for a fit that is not prepared."""
        last = self.task.last_step
        if self.has_network:
            reason = "the search ended before it began"
        elif last is None:
            reason = "it fits no estimator of its own"
        else:
            reason = f"{type(last).__name__} is no network"
        return Fit(place=self.task.place, reason=reason)

    def keep(self, result):
        """Take the result that the task had elsewhere."""
        self.has_result, self.result = True, result
        self._conclude(_has_failed(result))

    def run(self):
        """Run the task, whose fits adopt what was trained for them; return its result."""
        if self.has_result:
            return self.result
        hook = hand_out(self.fits, Course(self.before))
        has_failed = True
        try:
            with self.call.within_tasks():
                result = run_task(self.task, sum(fit.seconds for fit in self.fits))
            has_failed = _has_failed(result)
        finally:
            hook.forget_outputs()
            self._conclude(has_failed)
        return result

    def _conclude(self, has_failed):
        for fit in self.fits:
            if fit.failure is not None:
                conclude_failure(fit, has_failed)
            if fit.outcome is None:
                self.call.bar.update(_cost(fit))
            else:
                fit.outcome.outputs = None
                fit.tested = ()
            fit.table = None


def _has_failed(result):
    """Tell whether a task had an error that scikit-learn has scored."""
    return isinstance(result, dict) and result.get("fit_error") is not None


joblib.register_parallel_backend("sktune", FusingBackend)
