"""The workers of a cluster of Ray."""

from sktune.engine.digest import VERSIONS
from sktune.engine.workers.engines import MOST_TRIALS, Engine, check_answer, translate
from sktune.engine.workers.jobs import run_job


class RayEngine(Engine):
    """A cluster of Ray."""

    def __init__(self):
        super().__init__()
        self.ray = _find_ray()
        self._put = {}

    @property
    def n_workers(self):
        """The CPUs of the cluster."""
        return max(1, int(self.ray.cluster_resources().get("CPU", 1)))

    def check(self):
        """Raise a RuntimeError unless a worker has the same versions."""
        ask = self.ray.remote(_tell_versions)
        try:
            answer = self.ray.get(ask.remote())
        except Exception as error:
            answer = error
        check_answer(answer, "a worker of Ray")

    def run(self, jobs):
        """Yield what comes of jobs; Ray runs those of a lost worker once more."""
        remote = self.ray.remote(max_retries=MOST_TRIALS - 1)(run_job)
        waiting = {}
        for number, (job, arrays) in enumerate(jobs):
            waiting[remote.remote(job, *map(self._send, arrays))] = number
        try:
            while waiting:
                [reference], _ = self.ray.wait(list(waiting), num_returns=1)
                try:
                    outcome = self.ray.get(reference)
                except Exception as error:
                    outcome = translate(error)
                yield waiting.pop(reference), outcome
        finally:
            for reference in waiting:
                self.ray.cancel(reference)

    def _send(self, array):
        if array.name not in self._put:
            self._put[array.name] = self.ray.put(array)
        return self._put[array.name]


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
