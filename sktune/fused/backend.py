"""The joblib backend ``"sktune"``: collect the tasks of a call, train their nets together, then run each task."""

from __future__ import annotations

import joblib
from joblib.parallel import ParallelBackendBase, SequentialBackend

from sktune.fused.collect import Collector, Fit, hand_out
from sktune.fused.plan import group_lanes
from sktune.fused.run import FusionReport, Trainer, sort_out
from sktune.fused.seam import read_tasks, run_tasks

_MANY = 100_000  # jobs that joblib believes we run at once: enough to be handed all tasks before the first result
_MAX_LANES = 32


class FusingBackend(ParallelBackendBase):
    """A joblib backend that trains the networks of all tasks of a call together.

    It is what ``joblib.parallel_config("sktune", ...)`` chooses. What it does not recognise runs as it would have
    run. `n_jobs` is the number of threads that groups of fits are spread over.

    Parameters
    ----------
    max_lanes : int, default=32
        Fits that are trained together at most. Results do not depend on it.
    report : FusionReport, default=None
        To be filled.
    """

    supports_retrieve_callback = False
    supports_sharedmem = True
    default_n_jobs = 1

    def __init__(self, nesting_level=None, inner_max_num_threads=None, max_lanes=_MAX_LANES, report=None, **kwargs):
        super().__init__(nesting_level, inner_max_num_threads, **kwargs)
        self.max_lanes = max_lanes
        self.report = FusionReport() if report is None else report
        self.waiting = []

    def configure(self, n_jobs=1, parallel=None, prefer=None, require=None, **kwargs):
        """Take the settings of a call."""
        self.parallel, self.waiting = parallel, []
        self.n_workers = n_jobs if n_jobs > 0 else max(1, joblib.cpu_count() + 1 + n_jobs)
        return self.effective_n_jobs(n_jobs)

    def effective_n_jobs(self, n_jobs):
        """Return a number so large that all tasks arrive before the first result is asked for."""
        return _MANY

    def get_nested_backend(self):
        """Let what a task does in parallel run one after the other."""
        return SequentialBackend(nesting_level=(self.nesting_level or 0) + 1), None

    def submit(self, func, callback=None):
        """Keep a task for later."""
        job = _Job(func, callback)
        self.waiting.append(job)
        return job

    def retrieve_result(self, out, timeout=None):
        """Return a task's result; the first call trains the nets of all that were submitted."""
        if self.waiting:
            jobs, self.waiting = self.waiting, []
            self._train(jobs)
        results = out.run()
        out.callback(results)  # joblib submits what is left over
        return results

    def terminate(self):
        """Forget the tasks."""
        self.waiting = []

    def _train(self, jobs):
        collector, known = Collector(), {}
        for job in jobs:
            job.collect(collector, known)
        fits = [fit for job in jobs for fits in job.fits for fit in fits]
        groups = sort_out(group_lanes([fit for fit in fits if fit.lane is not None], self.max_lanes))
        Trainer(self.n_workers, self.report, getattr(self.parallel, "verbose", 0)).train(groups)
        for fit in fits:
            self.report.add(fit)


class _Job:
    """A batch of tasks, and the fits that each of them will adopt."""

    def __init__(self, batch, callback):
        self.batch, self.callback = batch, callback

    def collect(self, collector, known):
        self.steps = collector.steps
        self.tasks = read_tasks(self.batch)
        self.fits = [_collect(task, collector, known) for task in self.tasks]

    def run(self):
        for fits in self.fits:
            hand_out(fits)
        seconds = [sum(fit.seconds for fit in fits) for fits in self.fits]
        pipelines = [fits[0].pipeline for fits in self.fits if fits and fits[0].pipeline is not None]
        with self.steps.installed(pipelines):
            return run_tasks(self.batch, self.tasks, seconds)


def _collect(task, collector, known):
    """Return the fits of a task, prepared up to their training or with the reason why not."""
    try:
        planned = task.planned_fits(known)
    except Exception as error:  # it does not read as expected, or will fail in its own place
        return [Fit(task.place, reason=f"its task cannot be read: {type(error).__name__}: {error}")]
    fits = [collector.prepare(fit) for fit in planned]
    for fit in fits:
        fit.place = task.place
    return fits


joblib.register_parallel_backend("sktune", FusingBackend)
