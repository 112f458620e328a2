"""Processes and threads of this machine, by joblib."""

import json
from collections import Counter
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Event, Thread

import joblib
from joblib.externals.loky.process_executor import TerminatedWorkerError

from sktune.engine.workers.engines.base import MOST_TRIALS, Engine, explain_loss
from sktune.engine.workers.jobs import run_job

# What jobs tell is looked for so often.
_SECONDS_BETWEEN_LOOKS = 0.2


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

    def run(self, jobs, hear=None):
        """Yield what comes of jobs; those of a worker that is lost are run once more.

        joblib gives up all jobs when it loses a worker, so it is not known who is to blame: jobs
        that are lost twice are run one by one.
        """
        waiting = dict(enumerate(jobs))
        with _hearing(hear) as folder:
            for _ in range(MOST_TRIALS):
                if not waiting:
                    return
                # what is lost stays in `waiting`
                with suppress(TerminatedWorkerError):
                    for number, outcome in self._run_together(dict(waiting), folder):
                        del waiting[number]
                        yield number, outcome
            for number, job in waiting.items():
                try:
                    [outcome] = self._run_together({number: job}, folder)
                except TerminatedWorkerError as error:
                    outcome = (number, explain_loss(error))
                yield outcome

    def _run_together(self, jobs, folder):
        parallel = joblib.Parallel(
            # a single one would be run in this process
            n_jobs=max(2, self.n_workers),
            backend=self.backend,
            return_as="generator_unordered",
            batch_size=1,
            **self.options,
        )
        return parallel(
            joblib.delayed(_run_numbered)(number, job.data, folder, *job.arrays)
            for number, job in jobs.items()
        )


def _run_numbered(number, data, folder, *arrays):
    tell = None if folder is None else partial(_tell, folder, number)
    return number, run_job(data, *arrays, tell=tell)


def _tell(folder, number, epochs):
    """Write a line of what a job tells into its file."""
    with open(Path(folder) / str(number), "a") as file:
        file.write(json.dumps(epochs) + "\n")


@contextmanager
def _hearing(hear):
    """Yield a folder in which jobs tell of themselves; None if nobody hears.

    joblib has no way from its workers to the process that waits for them. They are on one machine.
    """
    if hear is None:
        yield None
        return
    over = Event()
    with TemporaryDirectory(prefix="sktune-") as folder:
        thread = Thread(target=_read, args=(Path(folder), hear, over), daemon=True)
        thread.start()
        try:
            yield folder
        finally:
            over.set()
            thread.join()


def _read(folder, hear, over):
    """Hear of the lines that are added to the files of a folder, until it is over."""
    positions = Counter()
    while not over.wait(_SECONDS_BETWEEN_LOOKS):
        for path in folder.iterdir():
            with open(path) as file:
                file.seek(positions[path.name])
                # a line that is being written is left for the next time
                for line in iter(file.readline, ""):
                    if not line.endswith("\n"):
                        break
                    positions[path.name] = file.tell()
                    hear(int(path.name), json.loads(line))
