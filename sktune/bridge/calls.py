"""One call of a Parallel, whose tasks fit networks: trained together, then run task by task."""

import logging
import warnings
from contextlib import contextmanager
from numbers import Integral

import joblib
import torch
from skorch import NeuralNet

from sktune.bridge.collect import Collector, Fit, net_of
from sktune.bridge.install import hand_out
from sktune.bridge.seam import run_in_turn, run_task
from sktune.engine.executor import ProgressListener, Trainer
from sktune.estimators.base import NetworkEstimator
from sktune.runtime.generators import Course
from sktune.runtime.progress import make_bar

_logger = logging.getLogger(__name__)


class Call:
    """One call of a Parallel, of tasks in which scikit-learn fits estimators.

    Parameters
    ----------
    owner : FusingBackend
    other : joblib backend
        It would compute the call without `owner`.
    parallel : joblib.Parallel
    tasks : list of Task
    n_jobs : int
        How many tasks at once `other` would run.
    n_workers : int
        How many groups are trained at once at most.
    """

    def __init__(self, owner, other, parallel, tasks, n_jobs, n_workers):
        self.owner = owner
        self.other = other
        self.parallel = parallel
        self.n_jobs = n_jobs
        self.n_workers = n_workers
        self.jobs = [Job(self, task) for task in tasks]
        self.bar = None

    @property
    def has_networks(self):
        """Whether any task fits a network."""
        return any(job.has_network for job in self.jobs)

    @property
    def fits(self):
        """The fits of all tasks."""
        return [fit for job in self.jobs for fit in job.fits]

    def report_all(self):
        """Take note of all fits, as far as they have come."""
        for job in self.jobs:
            for fit in [job.make_fit()] if job.fits is None else job.fits:
                self.owner.report.add(fit)

    def run(self):
        """Train the networks, then run each task; return the results as joblib's generators do."""
        try:
            yield from run_in_turn(self.parallel, self._run_jobs())
        finally:
            if self.bar is not None:
                self.bar.close()
            self.report_all()

    def _run_jobs(self):
        self._train()
        for job in self.jobs:
            yield job.run, (), {}
        # each net of skorch's would have begun to draw from the global generator
        for job in self.jobs:
            if job.seed is not None and any(fit.result is not None for fit in job.fits):
                _draw_torch_seed(torch.default_generator)

    @contextmanager
    def within_tasks(self):
        """Let what a task does in parallel find what it would find without the owner."""
        with self.owner.outside():
            if self.n_jobs == 1:
                yield
                return
            backend, n_jobs = self.other.get_nested_backend()
            with joblib.parallel_config(backend=backend, n_jobs=n_jobs):
                yield

    def _train(self):
        """Train the fits that can be fused; run the tasks of the others elsewhere, if asked to."""
        tables = self._collect()
        trainer = Trainer(
            self.n_workers,
            self.owner.report,
            precision=self.owner.precision,
            max_lanes=self.owner.max_lanes,
        )
        plans = self._plan(trainer, tables)
        shows_bar = self.owner.progress or self.parallel.verbose > 0
        self.bar = make_bar(sum(map(_count_epochs, self.fits)), "epoch", shows_bar)
        trainer.listeners = [ProgressListener(self.bar), *self.owner.listeners]
        trainer.train(plans)
        alone = [job for job in self.jobs if all(fit.result is None for fit in job.fits)]
        if self.n_jobs > 1 and alone:
            self._run_elsewhere(alone)

    def _plan(self, trainer, tables):
        """Arrange the fits that have a spec in groups."""
        fits = [fit for fit in self.fits if fit.spec is not None]
        plans = trainer.plan(fits, tables)
        for fit in fits:
            if not fit.reason:
                # it will not have to be trained alone
                fit.table = None
        return plans

    def _collect(self):
        """Prepare the fits; return their tables.

        Rows are held of one fold at a time, for which the fits are prepared fold by fold. Where
        that draws random numbers they are prepared in the order of the tasks, which then find the
        generators as they were.
        """
        generator = torch.Generator()
        generator.set_state(torch.get_rng_state())
        for job in self.jobs:
            job.read(generator)
        collector = Collector(self.owner.device)
        began = collector.tracker.states
        # steps of a pipeline may have tasks of their own
        with self.within_tasks():
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
        return collector.tables.by_name

    def _collect_by_fold(self, collector):
        """Prepare fits until one draws, which is undone; return the jobs that are left."""
        began = collector.tracker.states
        by_fold = {}
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

    def _run_elsewhere(self, jobs):
        """Run tasks by the other backend, and keep their results."""
        return_as = "generator" if self.other.supports_return_generator else "list"
        parallel = joblib.Parallel(n_jobs=self.n_jobs, backend=self.other, return_as=return_as)
        with self.owner.outside():
            results = parallel(job.task.call for job in jobs)
            for job, result in zip(jobs, results, strict=True):
                job.keep(result)


class Job:
    """A task, and the fits that it will adopt."""

    def __init__(self, call, task):
        self.call = call
        self.task = task
        self.has_network = isinstance(task.last_step, NeuralNet)
        self.fits = None
        # what a net of skorch's draws from
        self.seed = None
        # the states of the random generators before its fits were prepared; None if that drew nothing
        self.before = None
        self.has_result = False
        self.result = None

    def read(self, generator):
        """Set the parameters of a network, and draw what a net of skorch's would draw from."""
        self.draws_seeds = False
        self.fold = id(self.task.arguments.get("train"))
        if not self.has_network:
            return
        try:
            net = net_of(self.task.estimator)
        except Exception:
            # a parameter that it does not have: the task will say so
            return
        if isinstance(net, NeuralNet) and not isinstance(net, NetworkEstimator):
            self.seed = _draw_torch_seed(generator)
        self.draws_seeds = not isinstance(getattr(net, "random_state", 0), Integral)

    def collect(self, collector, known):
        """Prepare the fits up to their training, or take note of the reason why not."""
        if self.has_network:
            try:
                self.fits = collector.prepare(self.task.planned_fits(known), self.seed)
            except Exception:
                # it will fail in its own place
                _logger.debug("a task cannot be read", exc_info=True)
                reason = (
                    "its task cannot be read: it has parameters or rows that do not go together"
                )
                self.fits = [Fit(reason=reason)]
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
        self.has_result = True
        self.result = result
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
                _conclude_failure(fit, has_failed)
            if fit.result is None:
                self.call.bar.update(_count_epochs(fit))
            else:
                fit.result.outputs = None
            fit.test_rows = ()
            fit.table = None


def _conclude_failure(fit, has_failed):
    """Say whose fault it was that the training of a fit failed, once the fit has run alone."""
    error = fit.failure
    fit.failure = None
    if has_failed:
        fit.reason = "its training fails, alone as well as together with others"
        return
    message = f"the fused engine failed: {type(error).__name__}: {error}; the fit ran one at a time"
    warnings.warn(message, RuntimeWarning, stacklevel=2)


def _count_epochs(fit):
    """Return the epochs of a fit, as far as they are known."""
    return 1 if fit.spec is None else fit.spec.n_epochs


def _draw_torch_seed(generator):
    """Return a number that a net of skorch's begins to draw from, which has no seed."""
    return int(torch.randint(2**62, (), generator=generator))


def _has_failed(result):
    """Tell whether a task had an error that scikit-learn has scored."""
    return isinstance(result, dict) and result.get("fit_error") is not None
