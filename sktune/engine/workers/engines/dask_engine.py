"""The workers of a cluster of Dask."""

from collections import Counter
from contextlib import contextmanager
from functools import partial
from uuid import uuid4

from sktune.engine.workers.devices import tell_device_types
from sktune.engine.workers.engines.base import (
    MOST_TRIALS,
    Engine,
    LostWorkerError,
    check_answer,
    explain_loss,
    translate,
)
from sktune.engine.workers.jobs import run_job

# What a worker is asked before anything is trained. It is no function of sktune, which a worker may
# not have.
_ASK_VERSIONS = "__import__('sktune.engine.digest').engine.digest.VERSIONS"
# The bytes from which a job is sent to workers beside the scheduler.
_LARGE = 1 << 20
# How often something is sent whose receiver is lost, and how long each time.
_MOST_SENDINGS = 3
_SECONDS_TO_SEND = 60


class DaskEngine(Engine):
    """A cluster of Dask.

    Dask itself runs the jobs of a lost worker on another one, as often as its setting
    ``distributed.scheduler.allowed-failures`` says.

    Parameters
    ----------
    client : distributed.Client or None
        None is the one that is connected.
    """

    def __init__(self, client=None):
        super().__init__()
        self.client = _find_client() if client is None else client
        # the arrays that the cluster has, by their names: they stay there as long as these futures
        self._scattered = {}

    @property
    def n_workers(self):
        """The threads of all workers."""
        return sum(self.client.ncores().values())

    def check(self):
        """Raise a RuntimeError unless workers are connected that have the same versions."""
        if not self.n_workers:
            raise RuntimeError(
                "outer='dask' must have workers, got a cluster without one: start some by "
                "cluster.scale(2), or wait for them by client.wait_for_workers(1)"
            )
        found = self.client.run(eval, _ASK_VERSIONS, on_error="return")
        for worker, versions in found.items():
            check_answer(versions, worker)

    def find_device_types(self):
        """Return the types of the devices that workers have beside their CPUs, as a set."""
        return set().union(*self.client.run(tell_device_types).values())

    def run(self, jobs, hear=None):
        """Yield what comes of jobs; those whose arrays are lost with a worker are run once more."""
        trials = Counter()
        waiting = dict(enumerate(jobs))
        with self._hearing(hear) as topic:
            while waiting:
                trials.update(waiting.keys())
                for number, outcome in self._run_once(dict(waiting), topic):
                    is_lost = isinstance(outcome, LostWorkerError)
                    if not is_lost or trials[number] >= MOST_TRIALS:
                        del waiting[number]
                        yield number, outcome
                if waiting:
                    # their arrays may be lost, too
                    self._scattered.clear()

    @contextmanager
    def _hearing(self, hear):
        """Yield the topic of Dask's events by which workers tell of their jobs; None if not."""
        if hear is None:
            yield None
            return
        topic = f"sktune-{uuid4().hex}"
        self.client.subscribe_topic(topic, lambda event: hear(*event[1]))
        try:
            yield topic
        finally:
            self.client.unsubscribe_topic(topic)

    def _run_once(self, jobs, topic):
        from distributed import as_completed

        futures = {}
        for number, job in jobs.items():
            # Dask warns of large arguments that are not scattered
            data = self._send(job.data) if len(job.data) > _LARGE else job.data
            arrays = [self._scatter(array) for array in job.arrays]
            tell = None if topic is None else partial(_tell, topic, number)
            futures[self.client.submit(run_job, data, *arrays, tell=tell, pure=False)] = number
        try:
            for future in as_completed(futures, loop=self.client.loop):
                yield futures[future], _read_future(future)
        finally:
            # jobs that nobody waits for any more
            self.client.cancel([future for future in futures if not future.done()])

    def _scatter(self, array):
        if array.name not in self._scattered:
            # Workers pass it on among themselves. To broadcast it would wait forever for a worker
            # that is lost meanwhile.
            self._scattered[array.name] = self._send(array)
        return self._scattered[array.name]

    def _send(self, thing):
        """Return the future of a thing that a worker has; the worker may be lost just then."""
        for _ in range(_MOST_SENDINGS):
            try:
                return self.client.scatter(thing, hash=False, timeout=_SECONDS_TO_SEND)
            except (OSError, TimeoutError) as error:
                failure = error
        raise failure


def _tell(topic, number, epochs):
    """Tell the client of a job; on the worker that runs it."""
    from distributed import get_worker

    get_worker().log_event(topic, [number, epochs])


def _read_future(future):
    """Return what a job has returned, or why it has not."""
    if future.status == "cancelled":
        return explain_loss(RuntimeError("its arrays were lost with it"))
    error = future.exception()
    return future.result() if error is None else translate(error)


def _find_client():
    try:
        from distributed import get_client
    except ImportError as error:
        raise ImportError("outer='dask' needs Dask: pip install 'sktune[dask]'") from error
    try:
        return get_client()
    except ValueError as error:
        raise RuntimeError(
            "outer='dask' must have a cluster that is connected, got none: start one by "
            "`from dask.distributed import Client` and `client = Client()`"
        ) from error
