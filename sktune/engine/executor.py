"""Where groups are trained."""

from abc import ABC, abstractmethod
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager, suppress
from functools import partial
from time import perf_counter

import torch

from sktune.engine.events import listening
from sktune.engine.group import train_group, train_in_turns
from sktune.engine.planner import plan_groups
from sktune.engine.specs import FitResult
from sktune.engine.steps.base import StepOptions, Stopped
from sktune.engine.steps.network import Unfusable
from sktune.engine.store.base import copy_error
from sktune.engine.store.recording import Recorder
from sktune.engine.store.trainings import find_trainings
from sktune.engine.workers.couriers import Courier
from sktune.engine.workers.engines.base import LostWorkerError
from sktune.engine.workers.jobs import GroupResult
from sktune.engine.workers.moving import Copies
from sktune.engine.workers.turns import Turns
from sktune.runtime.devices import list_devices
from sktune.runtime.threads import limited_threads


class Executor(ABC):
    """Runs a function on things, several at once: threads here, or other processes or machines."""

    @abstractmethod
    def run(self, function, things):
        """Yield pairs of a thing and ``function(thing)`` as they come.

        In place of what a call returns there is the Exception that it raises. Whatever ends the
        iteration early ends the calls, too.
        """


class ThreadExecutor(Executor):
    """Runs a function in threads; a single one is the thread that asks.

    Parameters
    ----------
    n_workers : int
        How many calls at once.
    stop : threading.Event
        It is set where the iteration ends early.
    """

    def __init__(self, n_workers, stop):
        self.n_workers = n_workers
        self.stop = stop

    def run(self, function, things):
        """Yield pairs of a thing and what the function makes of it, as they come."""
        if self.n_workers <= 1 or len(things) <= 1:
            for thing in things:
                yield thing, _call(function, thing)
            return
        pool = ThreadPoolExecutor(self.n_workers)
        try:
            futures = {pool.submit(_call, function, thing): thing for thing in things}
            for future in as_completed(futures):
                yield futures[future], future.result()
        except BaseException:
            self.stop.set()
            raise
        finally:
            pool.shutdown(cancel_futures=True)


def _call(function, thing):
    try:
        return function(thing)
    except Stopped:
        return None
    except Exception as error:
        # the traceback would keep the tensors of the group
        return error.with_traceback(None)


class Trainer:
    """Trains the fits of a search, and takes note of how it went.

    Parameters
    ----------
    n_workers : int
        The groups that are trained at once at most. They share torch's threads.
    report : FusionReport
    listeners : list of objects with ``on_epoch`` or ``begin_group``
        See :func:`sktune.engine.events.listening`.
    precision : {"tf32", "bf16"} or None
        See :class:`sktune.bridge.backend.FusingBackend`.
    max_lanes : int or None
        The fits of a group at most.
    engine : Engine or None
        It has the workers that train; None is threads of this process.
    store : Store or None
        It knows what was trained before, and keeps what is trained now.
    """

    def __init__(
        self,
        n_workers,
        report,
        listeners=(),
        precision=None,
        max_lanes=None,
        engine=None,
        store=None,
    ):
        self.engine = engine
        self.n_workers = n_workers
        self.report = report
        self.listeners = listeners
        self.precision = precision
        self.max_lanes = max_lanes
        self.store = store
        product_dtype = torch.bfloat16 if precision == "bf16" else None
        self.options = StepOptions(product_dtype=product_dtype, allows_tf32=precision == "tf32")

    def plan(self, fits, tables, order=None):
        """Arrange fits in groups; those that cannot be trained together get a `reason`.

        The fits of the plans are :class:`Training` objects, each of one or several fits. A fit
        whose training is known gets its `result`. See
        :func:`~sktune.engine.planner.plan_groups` for the `order`, which is one of fits.
        """
        n_workers = self.n_workers
        n_threads = torch.get_num_threads()
        n_devices = min((_count_devices(fit.spec) for fit in fits), default=1)
        if n_devices > 1:
            # one thread takes the groups of all GPUs in turn
            n_workers = n_devices
        find_type = None
        if self.engine is not None:
            find_type = self.engine.make_finder([fit.spec for fit in fits])
            n_workers = self.engine.n_workers
            n_threads = n_workers * self.engine.n_threads
        trainings = find_trainings(fits, self.store, self.precision, self.report.sharing, find_type)
        plans = plan_groups(
            trainings,
            tables,
            max_lanes=self.max_lanes,
            n_workers=n_workers,
            n_threads=n_threads,
            options=self.options,
            order=None if order is None else lambda one: min(map(order, one.fits)),
            has_own_devices=self.engine is not None or n_devices > 1,
            find_type=find_type,
        )
        for training in trainings:
            for fit in training.fits:
                fit.reason = training.reason
        if self.store is not None:
            self.store.tell()
        return plans

    def train(self, plans):
        """Train groups: set each fit's `result`, or a `reason` why it has to be trained alone."""
        if not plans:
            return
        began = perf_counter()
        trainings = [training for plan in plans for training in plan.fits]
        # this thread computes as well, with no more than its share of torch's threads
        n_threads = max(plan.options.n_threads for plan in plans)
        try:
            with limited_threads(n_threads):
                while plans:
                    failed = []
                    for plan, outcome in self._run(plans):
                        failed += self._conclude(plan, outcome)
                    plans = failed
        except KeyboardInterrupt:
            for training in trainings:
                self._rescue(training)
            raise
        finally:
            self.report.seconds += perf_counter() - began
            if self.store is not None:
                self.store.tell()

    def _run(self, plans):
        """Yield pairs of a plan and what came of it, a GroupResult or an Exception."""
        here = plans
        if self.engine is not None:
            courier = Courier(self.engine, self.listeners, self.store, self.precision)
            jobs, here = courier.pack(plans)
            yield from courier.run(jobs)
        on_gpus = [plan for plan in here if plan.device.type == "cuda"]
        others = [plan for plan in here if plan.device.type != "cuda"]
        executor = ThreadExecutor(min(self.n_workers, len(others)), self.options.stop)
        yield from executor.run(self._train_group, others)
        copies = Copies()
        yield from Turns(self.n_workers).run(partial(self._begin_group, copies), on_gpus)

    def _train_group(self, plan):
        """Return what came of a group that is trained in this thread."""
        began = perf_counter()
        backend = plan.new_backend()
        with limited_threads(plan.options.n_threads), self._attending(plan) as options:
            results = train_group(plan.specs, plan.states, plan.tables, backend=backend, **options)
        return _make_result(plan, results, backend, plan.device, perf_counter() - began)

    def _begin_group(self, copies, plan, device):
        """Return a generator that trains a group on a GPU, with copies of its rows there."""
        return self._train_in_turns(plan, device, *copies.move(plan.specs, plan.tables, device))

    def _train_in_turns(self, plan, device, specs, tables):
        """Train a group; pause where it would wait for the device."""
        began = perf_counter()
        backend = plan.new_backend()
        with self._attending(plan) as options:
            results = yield from train_in_turns(
                specs, plan.states, tables, backend=backend, **options
            )
        return _make_result(plan, results, backend, device, perf_counter() - began)

    @contextmanager
    def _attending(self, plan):
        """Let listeners and the store hear of a group; yield the options of its training."""
        recorder = Recorder(plan.fits, self.store)
        fits = [training.lead for training in plan.fits]
        with listening(self.listeners, fits) as listeners:
            try:
                yield {"options": plan.options, "listeners": listeners, "keeper": recorder}
            finally:
                recorder.flush(is_last=True)

    def _conclude(self, plan, outcome):
        """Give the fits of a group what came of it; return the plans that are to be tried again."""
        if outcome is None:
            # the training was told to stop
            return []
        if isinstance(outcome, Exception):
            return self._recover(plan, outcome)
        row = {
            "lanes": len(plan.fits),
            "seconds": outcome.seconds,
            "device": outcome.device,
            "worker": outcome.worker,
            "compiled": outcome.steps == "compiled",
            "steps": outcome.steps,
            "blockers": outcome.blockers,
        }
        self.report.groups.append(row)
        n_fits = sum(len(training.fits) for training in plan.fits)
        for training, result in zip(plan.fits, outcome.results, strict=True):
            self._hand_out(training, result, outcome.seconds / n_fits)
            training.lead.group = row
        return []

    def _rescue(self, training):
        """Give fits their results that are complete, although their group is not."""
        for fit in training.fits:
            result = training.kept.get(fit.spec.n_epochs, training.ended)
            is_missing = fit.result is None and not fit.reason
            if not is_missing or result is None:
                continue
            if result.error is None or fit.spec.must_be_finite:
                fit.result = training.result_of(fit, result)

    def _hand_out(self, training, result, seconds):
        """Give the fits of a training what came of it."""
        sharing = self.report.sharing
        sharing.n_trained_epochs += len(result.curve.get("epoch", ()))
        result = training.join(result)
        for fit in training.fits:
            own = training.result_of(fit, result)
            fit.seconds = seconds
            if own.error is None or fit.spec.must_be_finite:
                fit.result = own
            else:
                fit.reason = "it left the finite numbers"
            if training.start is not None:
                sharing.note_known(training.first_epoch)
            if fit is not training.lead:
                n_epochs = len(own.curve.get("epoch", ()))
                sharing.note_shared(max(n_epochs - training.first_epoch, 0))
        training.kept.clear()

    def _recover(self, plan, error):
        """Halve a group that fails: the device cannot hold it, or one fit is to blame."""
        if isinstance(error, Unfusable):
            # the module of all of them is to blame
            for training in plan.fits:
                for fit in training.fits:
                    fit.reason = f"its module cannot be fused: {error}"
            return []
        if isinstance(error, LostWorkerError):
            for training in plan.fits:
                for fit in training.fits:
                    fit.result = FitResult(error=copy_error(error))
            return []
        if len(plan.fits) > 1:
            if plan.device.type == "cuda":
                # it fails while another group is recorded, and is a help only
                with suppress(RuntimeError):
                    torch.cuda.empty_cache()
            return plan.halve()
        (training,) = plan.fits
        for fit in training.fits:
            if _is_memory_error(error):
                fit.result = FitResult(error=copy_error(error))
            else:
                # or the user's module or data are to blame: that shows when a fit is trained alone
                fit.failure = error
                fit.reason = "the fused engine failed"
        return []


def _make_result(plan, results, backend, device, seconds):
    """Return what came of a group that was trained in this process."""
    steps, blockers = backend.told()
    return GroupResult(
        results,
        seconds,
        worker="",
        device=str(device),
        steps=steps,
        blockers={**plan.blockers, **blockers},
    )


def _count_devices(spec):
    """Return how many devices a fit may be trained on."""
    return len(list_devices(torch.device(spec.device)))


def _is_memory_error(error):
    texts = ("not enough memory", "can't allocate memory", "out of memory")
    return isinstance(error, MemoryError) or any(text in str(error) for text in texts)
