"""What spreads jobs over workers."""

from abc import ABC, abstractmethod

from sktune.engine.digest import VERSIONS
from sktune.engine.workers.devices import expect_device_type, tell_device_types
from sktune.engine.workers.jobs import check_versions
from sktune.engine.workers.packing import Packer

# How often a job is begun, if workers are lost on the way.
MOST_TRIALS = 2
# What the errors of engines are called that tell of a lost worker.
_LOST = ("KilledWorker", "FutureCancelledError", "WorkerCrashedError", "NodeDiedError")


class Engine(ABC):
    """Runs jobs on workers. An engine serves one search."""

    def __init__(self):
        # it gives the same arrays each time, so that they are sent once
        self.packer = Packer()

    @property
    @abstractmethod
    def n_workers(self):
        """How many jobs run at once."""

    @abstractmethod
    def check(self):
        """Raise an error that says what is missing, if no worker can train."""

    @abstractmethod
    def run(self, jobs, hear=None):
        """Yield the number of each job and its GroupResult, or an Exception, as they come.

        Parameters
        ----------
        jobs : list of PackedJob
        hear : callable or None
            ``hear(number, epochs)`` is called with what a worker tells of a job while it trains:
            see :class:`~sktune.engine.workers.replay.Teller`. Any thread may call it.
        """

    def find_device_types(self):
        """Return the types of the devices that workers have beside their CPUs, as a set."""
        # workers of this machine have its devices
        return set(tell_device_types())

    def make_finder(self, specs):
        """Return a function that tells on which type of device workers will train a fit.

        Parameters
        ----------
        specs : list of FitSpec
            All that it may be asked for.
        """
        types = set()
        if any(spec.is_auto or spec.device != "cpu" for spec in specs):
            types = self.find_device_types()
        return lambda spec: expect_device_type(spec, types)

    @property
    def n_threads(self):
        """How many threads each job may compute with."""
        return 1


class LostWorkerError(RuntimeError):
    """A fit was not trained, because its worker was lost each time."""


def explain_loss(error):
    """Return the error of a fit whose worker was lost each time."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return LostWorkerError(f"the worker of the fit was lost, and so was the next one: {lines[0]}")


def check_answer(answer, worker):
    """Raise a RuntimeError if a worker lacks sktune or has another version."""
    if isinstance(answer, BaseException):
        raise RuntimeError(
            f"workers must have sktune installed, got {type(answer).__name__}: {answer} on {worker}"
        ) from answer
    check_versions(answer, VERSIONS, worker)


def translate(error):
    """Return an error as it is, or one that says that the worker was lost."""
    return explain_loss(error) if type(error).__name__ in _LOST else error
