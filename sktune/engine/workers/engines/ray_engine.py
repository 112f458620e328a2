"""The workers of a cluster of Ray."""

from contextlib import contextmanager
from functools import partial

from sktune.engine.digest import VERSIONS
from sktune.engine.workers.engines.base import MOST_TRIALS, Engine, check_answer, translate
from sktune.engine.workers.jobs import run_job


class RayEngine(Engine):
    """A cluster of Ray."""

    def __init__(self):
        super().__init__()
        self.ray = _find_ray()
        self._put = {}

    @property
    def n_workers(self):
        """The GPUs of the cluster; its CPUs if it has none."""
        return self._n_gpus or max(1, int(self.ray.cluster_resources().get("CPU", 1)))

    @property
    def _n_gpus(self):
        return int(self.ray.cluster_resources().get("GPU", 0))

    def check(self):
        """Raise a RuntimeError unless a worker has the same versions."""
        # the worker that is asked trains, too: another one would have to import its libraries
        ask = self.ray.remote(**self._make_options(wants_gpu=True))(_tell_versions)
        try:
            answer = self.ray.get(ask.remote())
        except Exception as error:
            answer = error
        check_answer(answer, "a worker of Ray")

    def find_device_types(self):
        """Return the types of the devices that workers have beside their CPUs, as a set."""
        # a worker sees a GPU where Ray has given it one
        return {"cuda"} if self._n_gpus else set()

    def run(self, jobs, hear=None):
        """Yield what comes of jobs; Ray runs those of a lost worker once more."""
        with self._hearing(hear) as queue:
            waiting = {self._submit(number, job, queue): number for number, job in enumerate(jobs)}
            told = None if queue is None else queue.actor.get.remote()
            try:
                while waiting:
                    pending = [*waiting] if told is None else [*waiting, told]
                    [reference], _ = self.ray.wait(pending, num_returns=1)
                    if reference == told:
                        hear(*self.ray.get(told))
                        told = queue.actor.get.remote()
                        continue
                    try:
                        outcome = self.ray.get(reference)
                    except Exception as error:
                        outcome = translate(error)
                    yield waiting.pop(reference), outcome
            finally:
                for reference in waiting:
                    self.ray.cancel(reference)

    def _submit(self, number, job, queue):
        options = self._make_options(job.wants_gpu)
        tell = None if queue is None else partial(_tell, queue, number)
        arrays = [self._send(array) for array in job.arrays]
        return self.ray.remote(**options)(run_job).remote(job.data, *arrays, tell=tell)

    def _make_options(self, wants_gpu):
        """Return how Ray is to run a task."""
        options = {"max_retries": MOST_TRIALS - 1}
        if wants_gpu and self._n_gpus:
            # Ray would end a worker with a GPU after each call, and start another one
            options |= {"num_gpus": 1, "max_calls": 0}
        return options

    @contextmanager
    def _hearing(self, hear):
        """Yield a queue of Ray's by which workers tell of their jobs; None if nobody hears."""
        if hear is None:
            yield None
            return
        from ray.util.queue import Queue

        queue = Queue(actor_options={"num_cpus": 0})
        try:
            yield queue
        finally:
            queue.shutdown(force=True)

    def _send(self, array):
        if array.name not in self._put:
            self._put[array.name] = self.ray.put(array)
        return self._put[array.name]


def _tell(queue, number, epochs):
    """Tell the driver of a job; on the worker that runs it, which does not wait for an answer."""
    queue.actor.put.remote((number, epochs))


def _find_ray():
    try:
        import ray
    except ImportError as error:
        raise ImportError("outer='ray' needs Ray: pip install 'sktune[ray]'") from error
    if not ray.is_initialized():
        raise RuntimeError(
            "outer='ray' must have a cluster that is connected, got none: start one by "
            "`import ray` and `ray.init()`"
        )
    return ray


def _tell_versions():
    return VERSIONS
