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
from sktune.engine.workers.checkpoints import SharedFolder, WorkersRecorder, go_on
from sktune.engine.workers.devices import find_device, put_specs_on
from sktune.engine.workers.packing import UnpackedArrays
from sktune.engine.workers.replay import Teller
from sktune.runtime.threads import limited_threads

_unpacked = UnpackedArrays()
# the threads of a worker share its GPU, which trains one group at a time
_GPU = Lock()
_CPU = torch.device("cpu")


@dataclass(frozen=True, eq=False)
class JobFit:
    """A fit, as a worker knows it."""

    spec: object


@dataclass(frozen=True, eq=False)
class GroupJob:
    """A group of fits for a worker.

    Parameters
    ----------
    trainings : list of Training
        Their fits are :class:`JobFit` objects.
    tables : dict of PackedTable
        The tables by their names.
    n_threads : int
        The threads that torch computes with.
    product_dtype : torch.dtype or None
    allows_tf32 : bool
        See :class:`~sktune.engine.steps.base.StepOptions`.
    listeners : list of objects with ``on_epoch``
        Those that go along with the job.
    cache : SharedFolder or None
        Where the trainings are kept on their way, if the worker sees it.
    versions : tuple of str
        The versions of torch and sktune that the job comes from.
    """

    trainings: list
    tables: dict
    n_threads: int = 1
    product_dtype: torch.dtype | None = None
    allows_tf32: bool = False
    listeners: list = field(default_factory=list)
    cache: SharedFolder | None = None
    versions: tuple = VERSIONS

    def pack(self):
        """Return the job as bytes, with the code of classes that a worker cannot import.

        Its tensors are on the CPU, as a worker may have no other device.
        """
        return cloudpickle.dumps(replace(self, trainings=_put_on(self.trainings, _CPU)))


@dataclass(frozen=True, eq=False)
class PackedJob:
    """What an engine sends to a worker.

    Parameters
    ----------
    data : bytes
        From :meth:`GroupJob.pack`.
    arrays : list of PackedArray
        Those of its tables.
    wants_gpu : bool
        Whether a worker that has a GPU trains it there.
    """

    data: bytes
    arrays: list
    wants_gpu: bool = False


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
        What a worker hands to the recorder of the group: positions and results.
    is_stored : bool
        Whether a worker has put them into the store, in a folder that it shares.
    messages : list of str
        What the user is to be warned of.
    """

    results: list
    seconds: float
    worker: str
    device: str
    steps: str
    blockers: dict
    kept: list = field(default_factory=list)
    is_stored: bool = False
    messages: list = field(default_factory=list)


def name_worker():
    """Return the name of this machine and the number of this process."""
    return f"{socket.gethostname()}:{os.getpid()}"


def run_job(job, *arrays, tell=None):
    """Train the fits of a job; return a GroupResult, or the Exception that was raised.

    Parameters
    ----------
    job : bytes
        From :meth:`GroupJob.pack`.
    *arrays : PackedArray
        Those of its tables.
    tell : callable or None
        It is called with what a :class:`~sktune.engine.workers.replay.Teller` has to tell.
    """
    try:
        job = pickle.loads(job)
        check_versions(VERSIONS, job.versions, name_worker())
        with _GPU if _computes_on_gpu(job) else nullcontext():
            return _train(job, arrays, tell)
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


def _find_device(job):
    spec = job.trainings[0].spec
    return find_device(spec.device, spec.is_auto)


def _computes_on_gpu(job):
    return _find_device(job).type == "cuda"


def _put_on(trainings, device):
    """Return trainings whose tensors are on a device, without the outputs of what is known."""
    specs = put_specs_on([fit.spec for training in trainings for fit in training.fits], device)
    specs = iter(specs)
    moved = []
    for training in trainings:
        start = training.start
        if start is not None:
            start = replace(start, outputs=None, test="").on(device)
        fits = [JobFit(next(specs)) for _ in training.fits]
        moved.append(replace(training, fits=fits, start=start))
    return moved


def _train(job, arrays, tell):
    began = perf_counter()
    device = _find_device(job)
    trainings = _put_on(job.trainings, device)
    for training in trainings:
        training.fits = [JobFit(replace(fit.spec, device=str(device))) for fit in training.fits]
    # where it was expected to compute, its trainings have their keys
    is_expected = trainings[0].device_type in (None, device.type)
    store = job.cache.open() if job.cache is not None and is_expected else None
    recorder = WorkersRecorder(trainings, store)
    tensors = {array.name: _unpacked.unpack(array, device) for array in arrays}
    tables = {name: table.unpack(tensors, device) for name, table in job.tables.items()}
    listeners = job.listeners if tell is None else [*job.listeners, Teller(tell)]
    with limited_threads(job.n_threads):
        results, steps, blockers = _train_parts(job, recorder, tables, listeners)
    handed = recorder.handed
    if device.type != "cpu":
        # they are received where there may be no such device
        results = [_bring_home(result) for result in results]
        handed = [(number, _bring_home(result)) for number, result in handed]
    return GroupResult(
        results,
        perf_counter() - began,
        name_worker(),
        str(device),
        steps,
        blockers,
        handed,
        is_stored=store is not None and store.is_writable,
        messages=[] if store is None else store.take_messages(),
    )


def _train_parts(job, recorder, tables, listeners):
    """Return the results of all trainings, how the last steps were taken, and why not otherwise.

    Usually all trainings go on from the same epoch, and are one part.
    """
    options = StepOptions(
        n_threads=job.n_threads, product_dtype=job.product_dtype, allows_tf32=job.allows_tf32
    )
    specs = [training.spec for training in recorder.trainings]
    found, parts = go_on(recorder)
    steps = "known"
    blockers = {}
    try:
        for states in parts:
            going_on = [n for n, state in enumerate(states) if state is None or not state.is_over]
            backend, blockers = choose_backend([specs[n] for n in going_on], tables, options)
            if backend is None:
                raise RuntimeError(f"a worker cannot train the fits together: {blockers}")
            results = train_group(
                specs,
                states,
                tables,
                backend=backend,
                options=options,
                listeners=listeners,
                keeper=recorder,
            )
            for n in going_on:
                joined = recorder.trainings[n].join(results[n])
                found[n] = recorder.cut(n, joined)
            steps, further = backend.told()
            blockers = {**blockers, **further}
    finally:
        recorder.flush(is_last=True)
    return [found[n] for n in range(len(specs))], steps, blockers


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
