"""Processes and threads of this machine, by joblib."""

from contextlib import suppress

import joblib
from joblib.externals.loky.process_executor import TerminatedWorkerError

from sktune.engine.workers.engines import MOST_TRIALS, Engine, explain_loss
from sktune.engine.workers.jobs import run_job


class JoblibEngine(Engine):
    """A backend of joblib's own, such as ``"loky"``.

    Parameters
    ----------
    backend : str
    n_jobs : int
        How many workers; -1 is one for each core.
    **options
        What the backend takes.
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
        """Yield what comes of jobs; those of a worker that is lost are run once more.

        joblib gives up all jobs when it loses a worker, so it is not known who is to blame: jobs
        that are lost twice are run one by one.
        """
        waiting = dict(enumerate(jobs))
        for _ in range(MOST_TRIALS):
            # what is lost stays in `waiting`
            with suppress(TerminatedWorkerError):
                for number, outcome in self._run_together(dict(waiting)):
                    del waiting[number]
                    yield number, outcome
        for number, job in waiting.items():
            try:
                [outcome] = self._run_together({number: job})
            except TerminatedWorkerError as error:
                outcome = (number, explain_loss(error))
            yield outcome

    def _run_together(self, jobs):
        parallel = joblib.Parallel(
            # a single one would be run in this process
            n_jobs=max(2, self.n_workers),
            backend=self.backend,
            return_as="generator_unordered",
            batch_size=1,
            **self.options,
        )
        return parallel(
            joblib.delayed(_run_numbered)(number, job, *arrays)
            for number, (job, arrays) in jobs.items()
        )


def _run_numbered(number, job, *arrays):
    return number, run_job(job, *arrays)
