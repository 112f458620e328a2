"""What is sent to workers and comes back, and how they are found wanting; without any worker."""

import pickle
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from joblib.externals.loky.process_executor import TerminatedWorkerError
from parity import RAGGED, X, grid, y
from scipy import sparse

from sktune import GridSearchCV, NeuralNetClassifier
from sktune.engine.digest import VERSIONS
from sktune.engine.specs import FitResult
from sktune.engine.workers import jobs
from sktune.engine.workers.devices import find_device
from sktune.engine.workers.engines import ray_engine
from sktune.engine.workers.engines.base import check_answer
from sktune.engine.workers.engines.dask_engine import DaskEngine
from sktune.engine.workers.engines.joblib_engine import JoblibEngine
from sktune.engine.workers.jobs import GroupJob, run_job
from sktune.engine.workers.packing import _MOST_KEPT, PackedArray, Packer, UnpackedArrays
from sktune.engine.workers.replay import replay
from sktune.training.rows import Rows


def send(rows, packer=None):
    """Return rows as a worker unpacks them, and their arrays."""
    table, arrays = (packer or Packer()).pack(rows)
    table, arrays = pickle.loads(pickle.dumps((table, arrays)))
    device = torch.device("cpu")
    tensors = {array.name: array.unpack(device) for array in arrays}
    return table.unpack(tensors, device), arrays


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("has_weight", [True, False])
def test_a_table_arrives_as_it_was(dtype, has_weight):
    table = torch.randn(5, 3).to(dtype)
    weight = np.arange(5.0) if has_weight else None
    rows = Rows(table, target=np.arange(5), weight=weight, dtype=dtype)
    found, _ = send(rows)
    for one, other in zip(found.take(slice(5)), rows.take(slice(5)), strict=True):
        assert one.dtype == other.dtype
        assert torch.equal(one, other)
    assert found.dtype == dtype


def test_a_sparse_table_arrives_as_it_was():
    table = sparse.random(6, 4, density=0.5, format="csr", random_state=0)
    rows = Rows(table, target=np.ones((6, 1)), dtype=torch.float32)
    found, _ = send(rows)
    for one, other in zip(found.take(slice(6)), rows.take(slice(6)), strict=True):
        assert torch.equal(one, other)


def test_folds_share_their_array():
    packer = Packer()
    table = torch.zeros(1000, 100)
    names = []
    for fold in range(3):
        rows = Rows(table, target=np.full(1000, fold), dtype=torch.float32)
        packed, arrays = packer.pack(rows)
        names += packed.names
    assert len(set(names)) == 4
    # Dask asks for their sizes
    assert 400_000 <= arrays[0].__sizeof__() < 401_000


def test_a_worker_unpacks_an_array_once_and_keeps_few():
    tensors = UnpackedArrays()
    packed = [PackedArray(str(n), np.zeros(2)) for n in range(_MOST_KEPT + 1)]
    first = tensors.unpack(packed[0], "cpu")
    assert tensors.unpack(packed[0], "cpu") is first
    for array in packed[1:]:
        tensors.unpack(array, "cpu")
    assert len(tensors._tensors) == _MOST_KEPT
    assert tensors.unpack(packed[0], "cpu") is not first


@pytest.mark.parametrize(
    ("name", "n_devices", "expected"),
    [
        ("cpu", 2, "cpu"),
        ("cuda", 0, "cpu"),
        ("cuda:3", 0, "cpu"),
        ("cuda", 1, "cuda:0"),
        # a worker that has one GPU of its own sees it as the first one
        ("cuda:3", 1, "cuda:0"),
        ("cuda:1", 2, "cuda:1"),
    ],
)
def test_a_worker_takes_the_device_that_it_has(monkeypatch, name, n_devices, expected):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: n_devices)
    assert str(find_device(name)) == expected


def test_another_version_is_told():
    versions = (VERSIONS[0], "9.9.9")
    job = GroupJob([], {}, versions=versions)
    error = run_job(job.pack())
    assert isinstance(error, RuntimeError)
    assert str(error).startswith(
        f"workers must have sktune 9.9.9 as this process has, got {VERSIONS[1]} on "
    )


def test_workers_of_another_version_are_told_before_anything_is_trained():
    client = SimpleNamespace(
        ncores=lambda: {"tcp://10.0.0.1:1": 4, "tcp://10.0.0.2:1": 2},
        run=lambda *args, **options: {"tcp://10.0.0.2:1": ("9.9.9", VERSIONS[1])},
    )
    engine = DaskEngine(client)
    assert engine.n_workers == 6
    with pytest.raises(RuntimeError, match=r"must have torch .*got 9\.9\.9 on tcp://10\.0\.0\.2:1"):
        engine.check()


class FakeRay:
    """A cluster of Ray with some CPUs and GPUs."""

    def __init__(self, **resources):
        self.cluster_resources = lambda: resources


@pytest.mark.parametrize(
    ("resources", "n_workers", "types", "options"),
    [
        ({"CPU": 8.0}, 8, set(), {}),
        ({"CPU": 8.0, "GPU": 2.0}, 2, {"cuda"}, {"num_gpus": 1, "max_calls": 0}),
    ],
)
def test_ray_gives_each_group_a_gpu_if_it_has_any(
    monkeypatch, resources, n_workers, types, options
):
    monkeypatch.setattr(ray_engine, "_find_ray", lambda: FakeRay(**resources))
    engine = ray_engine.RayEngine()
    assert engine.n_workers == n_workers
    assert engine.find_device_types() == types
    assert engine._make_options(wants_gpu=True) == {"max_retries": 1, **options}
    assert engine._make_options(wants_gpu=False) == {"max_retries": 1}


@pytest.mark.parametrize("n_losses", [0, 1, 2, 4])
def test_jobs_that_joblib_loses_are_run_again_and_then_one_by_one(monkeypatch, n_losses):
    engine = JoblibEngine("loky", n_jobs=2)
    lost = []
    together = []

    def run_together(jobs, folder):
        together.append(sorted(jobs))
        for number in jobs:
            if number == 1 and len(lost) < n_losses:
                lost.append(number)
                raise TerminatedWorkerError("a worker stopped")
            yield number, "trained"

    monkeypatch.setattr(engine, "_run_together", run_together)
    outcomes = dict(engine.run(["a job", "one that kills", "a job"]))
    assert sorted(outcomes) == [0, 1, 2]
    assert outcomes[0] == outcomes[2] == "trained"
    expected = [[[0, 1, 2]], [[0, 1, 2], [1, 2]], [[0, 1, 2], [1, 2], [1], [2]]]
    assert together == expected[min(n_losses, 2)]
    if n_losses < 3:
        assert outcomes[1] == "trained"
    else:
        assert str(outcomes[1]).startswith("the worker of the fit was lost, and so was the next")


def test_a_worker_without_sktune_is_told():
    with pytest.raises(RuntimeError, match="must have sktune installed, got ModuleNotFoundError"):
        check_answer(ModuleNotFoundError("No module named 'sktune'"), "tcp://10.0.0.1:8786")


def test_what_a_worker_raises_comes_back_without_a_traceback(monkeypatch):
    def fail(job, arrays, tell):
        raise MemoryError("not enough memory")

    monkeypatch.setattr(jobs, "_train", fail)
    monkeypatch.setattr(jobs, "_computes_on_gpu", lambda job: False)
    error = run_job(GroupJob([], {}).pack())
    assert isinstance(error, MemoryError)
    assert error.__traceback__ is None


class Heard:
    """A listener that keeps all events."""

    def __init__(self):
        self.events = []

    def on_epoch(self, event):
        self.events.append(event)


def test_a_replay_tells_what_was_told_while_the_group_trained(monkeypatch):
    live = Heard()
    trained = []
    original = jobs.train_group

    def train(*args, **options):
        trained.append(original(*args, **options | {"listeners": [live]}))
        return trained[0]

    monkeypatch.setattr("sktune.engine.executor.train_group", train)
    net = NeuralNetClassifier(
        max_epochs=4, batch_size=16, early_stopping=True, n_iter_no_change=1, random_state=0
    )
    candidates = grid({"lr": 0.01}, {"lr": 0.5}, {"max_epochs": 2}, {"lr": 1e4})
    GridSearchCV(net, candidates, cv=RAGGED[:1], refit=False).fit(X, y)
    again = Heard()
    replay(trained[0], [again])
    assert len(live.events) > 1
    for one, other in zip(live.events, again.events, strict=True):
        assert (one.epoch, one.fits, one.done) == (other.epoch, other.fits, other.done)
        for name in ("train_loss", "lr", "valid_loss", "valid_acc"):
            np.testing.assert_array_equal(getattr(one, name), getattr(other, name))


def test_a_replay_of_fits_that_have_failed_tells_of_the_others():
    curve = {"epoch": [1], "train_loss": [0.5], "lr": [0.1], "dur": [0.01]}
    heard = Heard()
    replay([FitResult(error=ValueError()), FitResult(SimpleNamespace(), curve)], [heard])
    assert [(event.epoch, event.fits) for event in heard.events] == [(1, [1])]
