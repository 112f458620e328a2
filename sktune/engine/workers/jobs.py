"""What a worker is asked for, and what it answers: a group of fits, trained where the worker is."""

import os
import pickle
import socket
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from threading import Lock
from time import perf_counter

import cloudpickle
import torch

from sktune.engine.digest import VERSIONS
from sktune.engine.group import choose_backend, train_group
from sktune.engine.steps.base import StepOptions
from sktune.engine.store.recording import Keeper
from sktune.engine.workers.packing import UnpackedArrays
from sktune.runtime.threads import limited_threads

_unpacked = UnpackedArrays()
# the threads of a worker share its GPU, which trains one group at a time
_GPU = Lock()


@dataclass(frozen=True, eq=False)
class GroupJob:
    """A group of fits for a worker.

    Parameters
    ----------
    specs : list of FitSpec
    states : list of TrainState or None
        Where the trainings go on.
    tables : dict of PackedTable
        The tables by their names.
    n_threads : int
        The threads that torch computes with.
    product_dtype : torch.dtype or None
    allows_tf32 : bool
        See :class:`~sktune.engine.steps.base.StepOptions`.
    listeners : list of objects with ``on_epoch``
        Those that go along with the job.
    wanted : list of set of int
        Of each fit, the numbers of epochs after which its result is wanted, too.
    versions : tuple of str
        The versions of torch and sktune that the job comes from.
    """

    specs: list
    states: list | None
    tables: dict
    n_threads: int = 1
    product_dtype: torch.dtype | None = None
    allows_tf32: bool = False
    listeners: list = field(default_factory=list)
    wanted: list = field(default_factory=list)
    versions: tuple = VERSIONS

    def pack(self):
        """Return the job as bytes, with the code of classes that a worker cannot import."""
        return cloudpickle.dumps(self)


@dataclass(frozen=True, eq=False)
class GroupResult:
    """What came of a group.

    Parameters
    ----------
    results : list of FitResult
    seconds : float
        How long the training took.
    worker : str
        The machine and the process that trained it; empty for this process.
    device : str
    steps : str
        How steps were taken.
    blockers : dict
        Why they were not taken in other ways, by the ways' names.
    kept : list of tuple of (int, FitResult)
        What a worker hands to the keeper of the group: positions and results.
    """

    results: list
    seconds: float
    worker: str
    device: str
    steps: str
    blockers: dict
    kept: list = field(default_factory=list)


class WorkersKeeper(Keeper):
    """Keeps results on a worker, for the keeper of the group.

    Parameters
    ----------
    wanted : list of set of int
    """

    def __init__(self, wanted):
        self.wanted = wanted
        self.kept = []

    def wants(self, number, epoch):
        """Tell whether a fit that shares this training ends here."""
        return epoch in self.wanted[number]

    def is_due(self):
        """Tell that trainings are not stored on their way."""
        return False

    def keep(self, number, result):
        """Keep a result."""
        self.kept.append((number, result))

    def flush(self):
        """Do nothing: they are sent when the group is done."""


def name_worker():
    """Return the name of this machine and the number of this process."""
    return f"{socket.gethostname()}:{os.getpid()}"


def run_job(job, *arrays):
    """Train the fits of a job; return a GroupResult, or the Exception that was raised.

    Parameters
    ----------
    job : bytes
        From :meth:`GroupJob.pack`.
    *arrays : PackedArray
        Those of its tables.
    """
    try:
        job = pickle.loads(job)
        check_versions(VERSIONS, job.versions, name_worker())
        with _GPU if _computes_on_gpu(job) else nullcontext():
            return _train(job, arrays)
    except Exception as error:
        # the traceback would keep the tensors of the group
        return error.with_traceback(None)


def check_versions(found, expected, worker):
    """Raise a RuntimeError if a worker has other versions of torch and sktune."""
    for library, ours, theirs in zip(("torch", "sktune"), expected, found, strict=True):
        if ours != theirs:
            raise RuntimeError(
                f"workers must have {library} {ours} as this process has, got {theirs} on {worker}"
            )


def _computes_on_gpu(job):
    return find_device(job.specs[0].device).type == "cuda"


def _train(job, arrays):
    began = perf_counter()
    device = find_device(job.specs[0].device)
    specs = [replace(spec, device=str(device)) for spec in job.specs]
    tensors = {array.name: _unpacked.unpack(array, device) for array in arrays}
    tables = {name: table.unpack(tensors, device) for name, table in job.tables.items()}
    options = StepOptions(
        n_threads=job.n_threads, product_dtype=job.product_dtype, allows_tf32=job.allows_tf32
    )
    keeper = WorkersKeeper(job.wanted)
    with limited_threads(job.n_threads):
        backend, blockers = choose_backend(specs, tables, options)
        if backend is None:
            raise RuntimeError(f"a worker cannot train the fits together: {blockers}")
        results = train_group(
            specs,
            job.states,
            tables,
            backend=backend,
            options=options,
            listeners=job.listeners,
            keeper=keeper,
        )
        kept = keeper.kept
        if device.type != "cpu":
            # they are received where there may be no such device
            results = [_bring_home(result) for result in results]
            kept = [(number, _bring_home(result)) for number, result in kept]
    seconds = perf_counter() - began
    steps, further = backend.told()
    blockers = {**blockers, **further}
    return GroupResult(results, seconds, name_worker(), str(device), steps, blockers, kept)


def _bring_home(result):
    """Return a FitResult whose tensors are in the memory of the CPU."""
    if result.state is None:
        return result
    state = replace(
        result.state,
        weights=_to_cpu(result.state.weights),
        optimizer=_to_cpu(result.state.optimizer),
        best_weights=_to_cpu(result.state.best_weights),
    )
    return replace(result, state=state)


def _to_cpu(values):
    """Return a dict with its tensors in the memory of the CPU; None stays None."""
    if values is None:
        return None
    return {
        name: value.cpu() if isinstance(value, torch.Tensor) else value
        for name, value in values.items()
    }


def find_device(name):
    """Return where a worker trains fits that are to be trained on the device `name`.

    A worker that has a GPU of its own sees it as the first one, and a worker that has none computes
    on its CPU.
    """
    device = torch.device(name)
    if device.type != "cuda":
        return device
    n_devices = torch.cuda.device_count()
    if n_devices == 0:
        return torch.device("cpu")
    index = device.index or 0
    return torch.device("cuda", index if index < n_devices else 0)
