"""One call of a Parallel: its nets are trained together, then its tasks run one by one."""

import logging
import math
import warnings
from contextlib import contextmanager
from numbers import Integral

import joblib
import torch
from skorch import NeuralNet

from sktune.bridge.collect import Collector
from sktune.bridge.fits import Fit, net_of
from sktune.bridge.install import hand_out
from sktune.bridge.listening.callbacks import CallbackListener
from sktune.bridge.listening.interrupts import Turns
from sktune.bridge.listening.progress import CallProgress
from sktune.bridge.listening.telling import ToldContext
from sktune.bridge.seam import let_begin_until, make_skipped_result, run_in_turn, run_task
from sktune.engine.executor import Trainer
from sktune.estimators.base import NetworkEstimator
from sktune.runtime.generators import Course

_logger = logging.getLogger(__name__)

_UNREADABLE = "its task cannot be read: it has parameters or rows that do not go together"


class Call:
    """One call of a Parallel, whose tasks are fits by scikit-learn.

    Parameters
    ----------
    owner : FusingBackend
    other : joblib backend
        The backend that would compute the call without `owner`.
    parallel : joblib.Parallel
    tasks : list of Task
    n_jobs : int
        How many tasks `other` would run at once.
    n_workers : int
        The largest number of groups that are trained at once.
    progress : SearchProgress
    """

    def __init__(self, owner, other, parallel, tasks, n_jobs, n_workers, progress):
        self.owner = owner
        self.other = other
        self.parallel = parallel
        self.n_jobs = n_jobs
        self.n_workers = n_workers
        self.jobs = [Job(self, task) for task in tasks]
        self.progress = CallProgress(progress)

    @property
    def has_networks(self):
        """Whether any task fits a network."""
        return any(job.has_network for job in self.jobs)

    @property
    def is_over(self):
        """Whether the time of the search is over, so that no fit begins any more."""
        return self.owner.deadline is not None and self.owner.deadline.is_over

    @property
    def fits(self):
        """The fits of all tasks."""
        return [fit for job in self.jobs for fit in job.fits]

    def report_all(self):
        """Add all fits to the report; a job that has not been prepared counts as one fit."""
        for job in self.jobs:
            fits = [job.make_unprepared_fit()] if job.fits is None else job.fits
            for fit in fits:
                self.owner.report.add(fit)

    def run(self):
        """Train the networks, then run each task; yield None first, then the results."""
        try:
            yield from run_in_turn(self.parallel, self._run_jobs())
        finally:
            self.report_all()

    def _run_jobs(self):
        """Train the networks, then yield what runs each task: a function and its arguments."""
        # of a race, whoever runs the waves tells which candidates are complete
        is_told = self.owner.race is None
        turns = Turns(self.jobs, self.owner.report, self.owner.can_end_early, warns=is_told)
        try:
            self._train()
        except KeyboardInterrupt as error:
            turns.end(error, lambda job: job.is_trained)
        for job in self.jobs:
            yield turns.run, (job,), {}
        # a plain fit of a net of skorch draws from the global generator: so does this one
        for job in self.jobs:
            if job.seed is not None and any(fit.result is not None for fit in job.fits):
                _draw_torch_seed(torch.default_generator)

    @contextmanager
    def within_tasks(self):
        """Let parallel calls within a task find the backend that they would find otherwise."""
        with self.owner.outside():
            if self.n_jobs == 1:
                yield
                return
            backend, n_jobs = self.other.get_nested_backend()
            with joblib.parallel_config(backend=backend, n_jobs=n_jobs):
                yield

    def _train(self):
        """Train the fits that can be fused; run the tasks of the others in processes, if asked."""
        # what is wrong with workers is told before anything is done
        engine = self.owner.find_engine(self.n_jobs) if self.has_networks else None
        tables = self._collect()
        trainer = Trainer(
            self.n_workers,
            self.owner.report,
            precision=self.owner.precision,
            max_lanes=self.owner.max_lanes,
            engine=engine,
            store=self.owner.store,
        )
        plans = self._plan(trainer, tables)
        self.progress.plan(self.fits)
        # those behind know of the fits that listeners before them have stopped
        trainer.listeners = [*self.owner.listeners]
        if any(fit.telling is not None for fit in self.fits):
            trainer.listeners.append(CallbackListener())
        if not self.progress.progress.is_quiet:
            trainer.listeners.append(self.progress)
        try:
            trainer.train(plans)
        finally:
            for job in self.jobs:
                job.keep_callbacks_quiet()
        alone = [job for job in self.jobs if all(fit.result is None for fit in job.fits)]
        if self.n_jobs > 1 and alone and not self.is_over:
            self._run_elsewhere(alone)

    def _plan(self, trainer, tables):
        """Return the plans of the groups, of the fits that have a spec."""
        fits = [fit for fit in self.fits if fit.spec is not None]
        # a search that may end early is to have whole candidates by then
        order = None if self.owner.deadline is None else _number_of_candidate
        plans = trainer.plan(fits, tables, order)
        for fit in fits:
            if not fit.reason:
                # the fit will not be trained alone
                fit.table = None
        return plans

    def _collect(self):
        """Prepare the fits; return their tables.

        They are prepared fold by fold, so that the rows of one fold only are held at a time. If
        that draws random numbers, they are prepared in the order of the tasks instead, and the
        generators are set back for the tasks.
        """
        generator = torch.Generator()
        generator.set_state(torch.get_rng_state())
        for job in self.jobs:
            job.read(generator)
        collector = Collector(self.owner.device, self.owner.whole_tables)
        began = collector.tracker.states
        # steps of a pipeline may have tasks of their own
        with self.within_tasks():
            remaining = self.jobs
            if not any(job.draws_seeds for job in self.jobs):
                remaining = self._collect_by_fold(collector)
            self._collect_in_order(collector, remaining)
        # tasks in other processes draw from generators of their own, in no fixed order
        if self.n_jobs == 1:
            collector.tracker.go_back(began)
        else:
            for job in self.jobs:
                job.before = None
        return collector.tables.by_name

    def _collect_by_fold(self, collector):
        """Prepare fits until one draws random numbers; return the jobs that remain.

        The preparation that has drawn is undone.
        """
        began = collector.tracker.states
        by_fold = {}
        for job in self.jobs:
            by_fold.setdefault(job.fold, []).append(job)
        for jobs in by_fold.values():
            known = {}
            collector.steps.clear()
            for job in jobs:
                job.collect(collector, known)
                if any(fit.draws for fit in job.fits):
                    collector.tracker.go_back(began)
                    job.fits = None
                    return [job for job in self.jobs if job.fits is None]
        return []

    def _collect_in_order(self, collector, jobs):
        """Prepare fits in the order of the tasks, and note where each began to draw."""
        known = {}
        for job in jobs:
            before = collector.tracker.states
            job.collect(collector, known)
            if any(fit.draws for fit in job.fits):
                job.before = before

    def _run_elsewhere(self, jobs):
        """Run tasks in the other backend, and keep their results."""
        return_as = "generator" if self.other.supports_return_generator else "list"
        parallel = joblib.Parallel(n_jobs=self.n_jobs, backend=self.other, return_as=return_as)
        with self.owner.outside():
            results = parallel(job.timed_call for job in jobs)
            for job, result in zip(jobs, results, strict=True):
                job.keep(result)


class Job:
    """A task of a call, and the fits that it makes.

    Parameters
    ----------
    call : Call
    task : Task

    Attributes
    ----------
    has_network : bool
        Whether the task fits a network.
    fits : list of Fit or None
        None before they are prepared.
    draws_seeds : bool
        Whether the seed of the network is not given.
    fold : int
        Equal for tasks on the same split.
    """

    def __init__(self, call, task):
        self.call = call
        self.task = task
        self.has_network = isinstance(task.last_step, NeuralNet)
        self.fits = None
        # the seed of the fits of a net of skorch
        self.seed = None
        # the states of the random generators before the fits were prepared; None if the
        # preparation drew nothing
        self.before = None
        self.has_result = False
        self.result = None

    @property
    def is_trained(self):
        """Whether all of its fits have been trained."""
        return bool(self.fits) and all(fit.result is not None for fit in self.fits)

    def read(self, generator):
        """Set the parameters of a network, and draw a seed for a net of skorch."""
        self.draws_seeds = False
        self.fold = id(self.task.arguments.get("train"))
        if not self.has_network:
            return
        try:
            net = net_of(self.task.estimator)
        except Exception:
            # a parameter that the estimator does not have: the task will raise the error again
            return
        if isinstance(net, NeuralNet) and not isinstance(net, NetworkEstimator):
            self.seed = _draw_torch_seed(generator)
        self.draws_seeds = not isinstance(getattr(net, "random_state", 0), Integral)

    def collect(self, collector, known):
        """Prepare the fits up to their training, or note the reason why they are not fused."""
        if self.has_network:
            self.fits = self._prepare(collector, known)
        else:
            self.fits = [self.make_unprepared_fit()]
        for fit in self.fits:
            fit.place = self.task.place

    def _prepare(self, collector, known):
        """Return the prepared fits; if an error is raised, one fit with the reason."""
        try:
            return collector.prepare(self.task.planned_fits(known), self.seed)
        except Exception:
            # the task will raise the error again
            _logger.debug("a task cannot be read", exc_info=True)
            return [Fit(reason=_UNREADABLE)]

    def make_unprepared_fit(self):
        """Return a fit that says why it is not prepared."""
        last = self.task.last_step
        if self.has_network:
            reason = "the search ended before it began"
        elif last is None:
            reason = "it fits no estimator of its own"
        else:
            reason = f"{type(last).__name__} is no network"
        return Fit(place=self.task.place, reason=reason)

    def keep_callbacks_quiet(self):
        """Let callbacks that have heard of the fit not hear of it once more."""
        told = [fit.telling for fit in self.fits if fit.telling and fit.telling.is_told]
        if told and told[0].planned.context is not None:
            # a task that is given a context has one fit
            self.task.replace_context(ToldContext(told[0]))

    def keep(self, result):
        """Keep the result of a task that was run by another backend."""
        self.has_result = True
        self.result = result
        self.call.progress.note_result(self.task, result)
        self._conclude(_has_failed(result))

    def run(self):
        """Run the task, whose fits adopt what was trained for them, and return its result."""
        if self.has_result:
            return self.result
        if self.call.is_over and all(fit.result is None for fit in self.fits):
            return self._skip()
        hook = hand_out(self.fits, Course(self.before))
        has_failed = True
        try:
            with self.call.within_tasks():
                result = run_task(self.task, sum(fit.seconds for fit in self.fits))
            has_failed = _has_failed(result)
            self.call.progress.note_result(self.task, result)
        finally:
            hook.forget_outputs()
            self._conclude(has_failed)
        return result

    @property
    def timed_call(self):
        """What another backend runs the task by, which begins no fit when the time is over."""
        deadline = self.call.owner.deadline
        if deadline is None:
            return self.task.call
        return let_begin_until(self.task.call, deadline.n_left)

    def _skip(self):
        """Return what stands for the result of a task that is not run any more."""
        for fit in self.fits:
            fit.failure = None
            fit.reason = f"{self.call.owner.deadline.reason}, it was not begun"
        self._conclude(has_failed=False)
        return make_skipped_result(self.task)

    def _conclude(self, has_failed):
        """Update the bar, and free what the fits no longer need."""
        for fit in self.fits:
            if fit.failure is not None:
                _conclude_failure(fit, has_failed)
            if not self.call.progress.progress.is_quiet:
                self.call.progress.conclude(fit)
            if fit.result is not None:
                fit.result.outputs = None
            fit.test_rows = ()
            fit.table = None


def _number_of_candidate(fit):
    """Return the number of a fit's candidate; those that have none come last."""
    candidate = fit.place[0]
    return math.inf if candidate is None else candidate


def _conclude_failure(fit, has_failed):
    """Report why a fused training failed, once the fit has run alone.

    If it has failed alone as well, the cause is the user's code or data, and not the engine.
    """
    error = fit.failure
    fit.failure = None
    if has_failed:
        fit.reason = "its training fails, alone as well as together with others"
        return
    message = f"the fused engine failed: {type(error).__name__}: {error}; the fit ran one at a time"
    warnings.warn(message, RuntimeWarning, stacklevel=2)


def _draw_torch_seed(generator):
    """Draw a seed for a net of skorch, which has none."""
    return int(torch.randint(2**62, (), generator=generator))


def _has_failed(result):
    """Tell whether the fit of a task raised an error, to which scikit-learn gives a score."""
    return isinstance(result, dict) and result.get("fit_error") is not None
