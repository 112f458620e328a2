"""The joblib backend ``"sktune"``: collect the tasks of a call, train their nets together, then run each task."""

from numbers import Integral

import joblib
import torch
from joblib.parallel import ParallelBackendBase, SequentialBackend
from skorch import NeuralNet
from tqdm.auto import tqdm

from sktune.estimators import NetworkEstimator
from sktune.fused.caught import restore_showwarning
from sktune.fused.collect import Collector, Fit, net_of
from sktune.fused.plan import find_obstacle, group_lanes
from sktune.fused.replay import hand_out
from sktune.fused.run import FusionReport, Trainer
from sktune.fused.seam import FallbackToBackend, read_tasks, run_tasks
from sktune.validation import resolve_device

_NOT_GIVEN = -(10**9)  # n_jobs, which joblib hands on as a number
_MANY = 100_000  # jobs that joblib believes we run at once: enough to be handed all tasks before the first result


class FusingBackend(ParallelBackendBase):
    """A joblib backend that trains the networks of all tasks of a call together.

    It is what ``joblib.parallel_config("sktune", ...)`` chooses. `n_jobs` is the number of threads that groups of fits
    are spread over, each with its share of torch's own (default: as many as torch has). If it is given and above 1, it
    is also the number of processes for the tasks that are not fused.

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
    outer : (backend, n_jobs), default=None
        Where tasks that are not fused run. With it, this backend serves one search, and leaves what comes after
        (a refit) to `outer`, too.
    """

    supports_retrieve_callback = False
    default_n_jobs = _NOT_GIVEN

    def __init__(
        self, *args, max_lanes=None, device=None, precision=None, report=None, progress=False, outer=None, **kwargs
    ):
        super().__init__(*args, **kwargs)
        if precision not in (None, "tf32", "bf16"):
            raise ValueError(f"precision must be 'tf32', 'bf16' or None, got precision={precision!r}")
        self.max_lanes = max_lanes
        self.device = device if device is None else str(resolve_device(device))
        self.precision = precision
        self.report = FusionReport() if report is None else report
        self.progress = progress
        self.outer = outer
        self.waiting, self.is_called, self.is_over = [], False, False

    @property
    def supports_sharedmem(self):
        """Whether all tasks share the memory, also those that are not fused."""
        return self.outer is not None and getattr(self.outer[0], "supports_sharedmem", False)

    @property
    def options(self):
        """What a search within this context takes over."""
        return {"max_lanes": self.max_lanes, "device": self.device, "precision": self.precision}

    def configure(self, n_jobs=-1, parallel=None, prefer=None, require=None, **kwargs):
        """Take the settings of a call."""
        if self.is_over:
            raise FallbackToBackend(self.outer[0])
        self.waiting, self.n_jobs, self.is_called = [], n_jobs, True
        self.bar = None
        self.shows_bar = self.progress or getattr(parallel, "verbose", 0) > 0
        return self.effective_n_jobs(n_jobs)

    def effective_n_jobs(self, n_jobs):
        """Return how many tasks run at once; in a call, so many that all arrive before a result is asked for."""
        if self.is_called:
            return _MANY
        if self.outer is None:
            return _count_jobs(n_jobs)
        backend, outer_n_jobs = self.outer
        return backend.effective_n_jobs(outer_n_jobs if n_jobs is None else n_jobs)

    def get_nested_backend(self):
        """Let what a task itself does in parallel find what it would have found without us."""
        return self.outer or (SequentialBackend(nesting_level=(self.nesting_level or 0) + 1), None)

    def submit(self, func, callback=None):
        """Keep a task for later."""
        job = _Job(func, callback)
        self.waiting.append(job)
        return job

    def retrieve_result(self, out, timeout=None):
        """Return a task's result; the first call trains the nets of all that were submitted."""
        if self.waiting:
            jobs, self.waiting = self.waiting, []
            self._prepare(jobs)
        results = out.run()
        if not out.ran_elsewhere:
            self.bar.update(out.cost_alone)
        out.callback(results)  # joblib submits what is left over
        return results

    def stop_call(self):
        """End the bar."""
        if self.bar is not None:
            self.bar.close()

    def terminate(self):
        """Forget the tasks."""
        restore_showwarning()
        self.waiting, self.is_called, self.is_over = [], False, self.outer is not None

    def _prepare(self, jobs):
        self._collect(jobs)
        fits = [fit for job in jobs for fit in job.fits]
        groups = self._group(fits)
        self.stop_call()
        self.bar = tqdm(total=sum(map(_cost, fits)), unit="epoch", desc="search", disable=not self.shows_bar)
        n_workers = torch.get_num_threads() if self.n_jobs == _NOT_GIVEN else _count_jobs(self.n_jobs)
        Trainer(n_workers, self.report, self.bar, self.precision).train(groups)
        for fit in fits:
            self.report.add(fit)
            if fit.lane is not None:  # scikit-learn will take the folds' rows once more
                fit.lane.forget_rows()
        backend, n_jobs = self.outer or ("loky", _count_jobs(self.n_jobs))
        alone = [job for job in jobs if all(fit.outcome is None for fit in job.fits)]
        if n_jobs not in (None, 1) and alone:
            one_by_one = getattr(backend, "supports_return_generator", isinstance(backend, str))
            return_as = "generator" if one_by_one else "list"
            self._run_elsewhere(alone, joblib.Parallel(n_jobs=n_jobs, backend=backend, return_as=return_as))

    def _collect(self, jobs):
        """Read the tasks, in their order, and prepare their fits, fold by fold: rows are held of one fold at a time."""
        collector, by_fold, estimators = Collector(self.device), {}, set()
        for job in jobs:
            job.read(estimators)
            by_fold.setdefault(job.fold, []).append(job)
        backend, n_jobs = self.get_nested_backend()
        with joblib.parallel_config(backend, n_jobs=n_jobs):  # steps of a pipeline may have tasks of their own
            for members in by_fold.values():
                known = {}
                collector.steps.clear()
                for job in members:
                    job.collect(collector, known)

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
        return group_lanes([fit for members in alike.values() for fit in members if not fit.reason], self.max_lanes)

    def _run_elsewhere(self, jobs, parallel):
        results = iter(parallel(task.call for job in jobs for task in job.tasks))
        for job in jobs:
            job.results, job.ran_elsewhere = [next(results) for _ in job.tasks], True
            self.bar.update(job.cost_alone)


def _count_jobs(n_jobs):
    """Return how many jobs are meant, as joblib has it: 1 if none are given, and -1 is one for each core."""
    if n_jobs in (None, _NOT_GIVEN):
        return 1
    return n_jobs if n_jobs > 0 else max(joblib.cpu_count() + 1 + n_jobs, 1)


def _cost(fit):
    """Return the epochs of a fit, as far as they are known."""
    return 1 if fit.lane is None else fit.net.max_epochs


class _Job:
    """A batch of tasks, and the fits that they will adopt."""

    def __init__(self, batch, callback):
        self.batch, self.callback = batch, callback
        self.results, self.ran_elsewhere = None, False

    def read(self, estimators):
        """Read the tasks, and draw what a net of skorch's would begin to draw from."""
        self.tasks = read_tasks(self.batch, estimators)
        nets = [_net_of(task) for task in self.tasks]
        draws = [isinstance(net, NeuralNet) and not isinstance(net, NetworkEstimator) for net in nets]
        self.seeds = [int(torch.randint(2**62, ())) if does else None for does in draws]
        self.fold = id(self.tasks[0].arguments.get("train"))
        if any(not isinstance(getattr(net, "random_state", 0), Integral) for net in nets):
            self.fold = 0  # seeds are drawn in the order of the tasks

    def collect(self, collector, known):
        """Prepare the fits."""
        pairs = zip(self.tasks, self.seeds, strict=True)
        self.fits_of = [_collect(task, seed, collector, known) for task, seed in pairs]
        self.fits = [fit for fits in self.fits_of for fit in fits]

    @property
    def cost_alone(self):
        return sum(_cost(fit) for fit in self.fits if fit.outcome is None)

    def run(self):
        if self.results is not None:
            return self.results
        for fits in self.fits_of:
            hand_out(fits)
        seconds = [sum(fit.seconds for fit in fits) for fits in self.fits_of]
        try:
            return run_tasks(self.batch, self.tasks, seconds)
        finally:
            for fit in self.fits:
                if fit.outcome is not None:
                    fit.outcome.outputs, fit.outcome.tested = None, ()


def _net_of(task):
    """Return the net that a task fits, or what else it fits; None where that cannot be told."""
    try:
        return net_of(task.estimator)
    except Exception:  # a parameter that it does not have: the task will say so
        return None


def _collect(task, seed, collector, known):
    """Return the fits of a task, prepared up to their training or with the reason why not."""
    try:
        net = net_of(task.estimator)
        if isinstance(net, NeuralNet):
            fits = collector.prepare(task.planned_fits(known), seed)
        else:
            what = "it fits no estimator of its own" if net is None else f"{type(net).__name__} is no network"
            fits = [Fit(reason=what)]
    except Exception as error:  # it does not read as expected, or will fail in its own place
        fits = [Fit(reason=f"its task cannot be read: {type(error).__name__}: {error}")]
    for fit in fits:
        fit.place = task.place
    return fits


joblib.register_parallel_backend("sktune", FusingBackend)
