"""Processes and threads of this machine, by joblib."""

from collections import Counter

import joblib
from joblib.externals.loky.process_executor import TerminatedWorkerError

from sktune.engine.workers.engines import MOST_TRIALS, Engine, explain_loss
from sktune.engine.workers.jobs import run_job


class JoblibEngine(Engine):
    """A backend of joblib's own, ``"loky"`` or ``"threading"``.

    Parameters
    ----------
    backend : str or joblib backend
    n_jobs : int
    """

    def __init__(self, backend, n_jobs=-1, **options):
        super().__init__()
        self.backend = backend
        self.n_jobs = n_jobs
        self.options = options

    @property
    def n_workers(self):
        """How many processes or threads there are."""
        with joblib.parallel_config(self.backend, n_jobs=self.n_jobs, **self.options):
            return joblib.effective_n_jobs(self.n_jobs)

    @property
    def n_threads(self):
        """Its share of the cores."""
        return max(1, joblib.cpu_count() // self.n_workers)

    def check(self):
        """Do nothing: the workers are copies of this process."""

    def run(self, jobs):
        """Yield what comes of jobs; those of a worker that is lost are run once more."""
        waiting = dict(enumerate(jobs))
        trials = Counter()
        while waiting:
            trials.update(waiting.keys())
            try:
                for number, outcome in self._run_once(waiting):
                    del waiting[number]
                    yield number, outcome
            except TerminatedWorkerError as error:
                given_up = [number for number in waiting if trials[number] >= MOST_TRIALS]
                for number in given_up:
                    del waiting[number]
                    yield number, explain_loss(error)

    def _run_once(self, waiting):
        parallel = joblib.Parallel(
            n_jobs=self.n_jobs,
            backend=self.backend,
            return_as="generator_unordered",
            batch_size=1,
            **self.options,
        )
        return parallel(
            joblib.delayed(_run_numbered)(number, job, *tables)
            for number, (job, tables) in list(waiting.items())
        )


def _run_numbered(number, job, *tables):
    return number, run_job(job, *tables)
