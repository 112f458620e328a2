"""Groups that travel to workers which are in this process: what is told and kept on the way."""

import pickle
from functools import partial
from types import SimpleNamespace

import joblib
import numpy as np
import pytest
import torch
from parity import RAGGED, X, grid, y

from sktune import GridSearchCV, NeuralNetClassifier
from sktune.bridge import backend
from sktune.engine.store.folder import FolderStore
from sktune.engine.workers import devices, jobs, replay
from sktune.engine.workers.checkpoints import SharedFolder
from sktune.engine.workers.devices import expect_device_type, find_device
from sktune.engine.workers.engines import joblib_engine
from sktune.engine.workers.engines.base import Engine
from sktune.engine.workers.jobs import GroupResult, run_job
from sktune.runtime.progress import SearchProgress

NET = NeuralNetClassifier(
    module__hidden=(8,), max_epochs=6, batch_size=16, random_state=0, verbose=0
)


class WorkerInThisProcess(Engine):
    """Trains jobs one by one, as a worker would; one that is killed begins anew, once."""

    n_workers = 2

    def __init__(self, kill_at=None, types=()):
        super().__init__()
        self.kill_at = kill_at
        self.types = set(types)
        self.n_kills = 0
        self.outcomes = []

    def check(self):
        pass

    def find_device_types(self):
        return self.types

    def run(self, jobs, hear=None):
        for number, job in enumerate(jobs):
            outcome = None
            while outcome is None:
                try:
                    outcome = run_job(job.data, *job.arrays, tell=partial(self.tell, hear, number))
                except SystemExit:
                    self.n_kills += 1
            outcome = pickle.loads(pickle.dumps(outcome))
            self.outcomes.append(outcome)
            yield number, outcome

    def tell(self, hear, number, epochs):
        if hear is not None:
            hear(number, epochs)
        if not self.n_kills and epochs[-1][0] == self.kill_at:
            raise SystemExit


@pytest.fixture
def worker(monkeypatch):
    """Let searches send their groups to a worker in this process, which tells of each epoch."""
    monkeypatch.setattr(replay.Teller.__init__, "__defaults__", (0.0,))

    def make(**options):
        engine = WorkerInThisProcess(**options)
        monkeypatch.setattr(backend, "make_engine", lambda around, n_jobs: engine)
        return engine

    return make


def assert_equal_results(one, other):
    """Compare ``cv_results_``, the times aside."""
    assert one.cv_results_.keys() == other.cv_results_.keys()
    for name, values in one.cv_results_.items():
        if not name.endswith("_time"):
            np.testing.assert_array_equal(values, other.cv_results_[name])


@pytest.fixture
def trained(monkeypatch):
    """The epochs of each fit that workers have trained, call by call."""
    epochs = []
    original = jobs.train_group

    def train_group(*args, **options):
        seen = []
        listener = SimpleNamespace(on_epoch=lambda event: seen.append((event.epoch, event.fits)))
        epochs.append(seen)
        options["listeners"] = [listener, *options["listeners"]]
        return original(*args, **options)

    monkeypatch.setattr(jobs, "train_group", train_group)
    return epochs


SPACES = {
    "plain": {"lr": [0.01, 0.1]},
    "shared": {"lr": [0.01, 0.1], "max_epochs": [1, 3, 6]},
    "diverging": {"lr": [0.01, 1e30], "max_epochs": [4, 6]},
    "stopped": {
        "lr": [0.01, 0.5],
        "early_stopping": [True],
        "n_iter_no_change": [2],
        "validation_fraction": [0.3],
    },
}


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.FitFailedWarning")
@pytest.mark.filterwarnings("ignore:One or more of the test scores are non-finite")
@pytest.mark.parametrize("kill_at", [2, 4])
@pytest.mark.parametrize("name", SPACES)
def test_a_group_whose_worker_is_killed_goes_on_from_its_checkpoint(
    worker, trained, tmp_path, name, kill_at
):
    expected = GridSearchCV(NET, SPACES[name], cv=RAGGED, refit=False).fit(X, y)
    search = GridSearchCV(
        NET, SPACES[name], cv=RAGGED, refit=False, cache=tmp_path, checkpoint_interval=1e-9
    )
    engine = worker(kill_at=kill_at)
    search.fit(X, y)
    assert_equal_results(search, expected)
    assert engine.n_kills == 1
    # the epoch in which it was killed is told before it is stored
    assert [seen[0][0] for seen in trained if seen[0][0] > 1] == [kill_at]
    # a second search of one machine has nothing left to train
    del trained[:]
    worker()
    search.fit(X, y)
    assert not trained
    assert search.fusion_.sharing.n_trained_epochs == 0
    assert_equal_results(search, expected)


def test_trainings_that_are_complete_in_the_store_are_not_trained_on_a_worker(
    worker, trained, tmp_path, monkeypatch
):
    search = GridSearchCV(NET, SPACES["shared"], cv=RAGGED, refit=False, cache=tmp_path)
    expected = search.fit(X, y).cv_results_["mean_test_score"]
    # another search has stored them since this one has looked
    found = FolderStore.find
    monkeypatch.setattr(
        FolderStore, "find", lambda self, *key: found(self, *key) if is_worker else None
    )
    is_worker = False
    engine = worker()
    run = engine.run

    def run_as_worker(*args):
        nonlocal is_worker
        is_worker = True
        yield from run(*args)

    monkeypatch.setattr(engine, "run", run_as_worker)
    search.fit(X, y)
    assert not trained
    assert {group["steps"] for group in search.fusion_.groups} == {"known"}
    np.testing.assert_array_equal(search.cv_results_["mean_test_score"], expected)


def test_a_search_whose_cluster_dies_goes_on_on_this_machine(
    worker, trained, tmp_path, monkeypatch
):
    search = GridSearchCV(NET, SPACES["shared"], cv=RAGGED, refit=False)
    expected = GridSearchCV(NET, SPACES["shared"], cv=RAGGED, refit=False).fit(X, y)
    search.set_params(cache=tmp_path, checkpoint_interval=1e-9)
    engine = worker()
    run = engine.run

    def run_first(jobs, hear=None):
        yield next(run(jobs, hear))
        raise OSError("the scheduler is gone")

    engine.run = run_first
    with (
        joblib.parallel_config("sktune", max_lanes=1),
        pytest.raises(OSError, match="the scheduler is gone"),
    ):
        search.fit(X, y)
    assert len(trained) == 1
    monkeypatch.setattr(backend, "make_engine", lambda around, n_jobs: None)
    search.fit(X, y)
    assert search.fusion_.sharing.n_known_fits == 3
    assert {group["worker"] for group in search.fusion_.groups} == {""}
    assert_equal_results(search, expected)


def test_each_worker_gets_some_groups(worker):
    worker()
    # stacked steps, of which a group has several lanes
    net = NeuralNetClassifier(
        torch.nn.Sequential(torch.nn.Linear(6, 3), torch.nn.Softsign()),
        max_epochs=1,
        random_state=0,
    )
    search = GridSearchCV(net, {"lr": np.linspace(0.01, 0.1, 32)}, cv=RAGGED, refit=False)
    search.fit(X, y)
    lanes = [group["lanes"] for group in search.fusion_.groups]
    assert sum(lanes) == 64
    assert 2 * 2 <= len(lanes) <= 4 * 2
    assert min(lanes) >= 4


def test_results_are_written_once_where_the_worker_sees_the_folder(worker, tmp_path):
    engine = worker()
    search = GridSearchCV(NET, SPACES["plain"], cv=RAGGED, refit=False, cache=tmp_path).fit(X, y)
    assert all(outcome.is_stored for outcome in engine.outcomes)
    assert len(list(tmp_path.glob("*.safetensors"))) == len(search.fusion_.groups)


@pytest.mark.parametrize("is_there", [True, False])
def test_a_folder_of_the_same_path_on_another_machine_is_not_used(worker, tmp_path, is_there):
    engine = worker()
    search = GridSearchCV(NET, SPACES["plain"], cv=RAGGED, refit=False, cache=tmp_path)
    run = engine.run

    def run_elsewhere(jobs, hear=None):
        # what this machine has there is not what the worker sees
        there = tmp_path / ".mark"
        mark = there.read_text()
        if is_there:
            there.write_text("another folder")
        else:
            there.unlink()
        outcomes = list(run(jobs, hear))
        there.write_text(mark)
        yield from outcomes

    engine.run = run_elsewhere
    search.fit(X, y)
    assert not any(outcome.is_stored for outcome in engine.outcomes)
    # this process has written them when they came
    assert list(tmp_path.glob("*.safetensors"))
    del engine.outcomes[:]
    search.fit(X, y)
    assert not engine.outcomes


def test_stores_in_memory_are_shared_with_nobody():
    assert SharedFolder.of(None) is None


def test_what_a_store_on_a_worker_has_to_say_reaches_the_user(worker, tmp_path, monkeypatch):
    def fail(self, data):
        raise OSError("the disk is full")

    monkeypatch.setattr("sktune.engine.store.folder.pack", fail)
    worker()
    search = GridSearchCV(NET, SPACES["plain"], cv=RAGGED, refit=False, cache=tmp_path)
    with (
        pytest.warns(UserWarning, match=r"the disk is full$"),
        pytest.warns(UserWarning, match=r"the disk is full \(on .*:\d+\)"),
    ):
        search.fit(X, y)


def test_the_bar_moves_with_the_epochs_of_a_worker(worker, monkeypatch):
    worker()
    steps = []
    original = SearchProgress.change

    def change(self, *args, **options):
        original(self, *args, **options)
        steps.append(int(self._n_done))

    monkeypatch.setattr(SearchProgress, "change", change)
    search = GridSearchCV(NET, SPACES["shared"], cv=RAGGED, refit=False, verbose=1)
    with joblib.parallel_config("sktune", max_lanes=2):
        search.fit(X, y)
    n_groups = len(search.fusion_.groups)
    assert steps == sorted(steps)
    # more than once for each group, and all in the end
    assert len(set(steps)) > 2 * n_groups
    assert steps[-1] == 2 * 2 * (1 + 3 + 6)


def test_nothing_is_told_where_nobody_counts(worker):
    engine = worker()
    heard = []
    run = engine.run
    engine.run = lambda jobs, hear=None: heard.append(hear) or run(jobs, hear)
    GridSearchCV(NET, SPACES["plain"], cv=RAGGED, refit=False).fit(X, y)
    assert heard == [None]


class Counting:
    """A listener that hears of epochs while a worker trains."""

    counts_epochs = True

    def __init__(self):
        self.events = []
        self.ended = []

    def begin_group(self, fits):
        return self

    def on_epoch(self, event):
        self.events.append((event.epoch, event.fits, sorted(event.done)))

    def end_group(self, has_failed):
        self.ended.append(has_failed)


def test_a_relay_tells_no_epoch_twice():
    listener = Counting()
    relay = replay.Relay([listener], ["one", "two"])
    relay.hear([(1, 0.5, []), (2, 0.4, [1])])
    # its worker was lost, and the next one begins anew
    relay.hear([(1, 0.5, [])])
    relay.hear([(2, 0.4, [1]), (3, 0.3, [])])
    curve = {"epoch": [1, 2, 3, 4], "train_loss": [0.1] * 4, "lr": [0.1] * 4, "dur": [0.1] * 4}
    short = {name: column[:2] for name, column in curve.items()}
    relay.conclude([SimpleNamespace(curve=curve), SimpleNamespace(curve=short)])
    relay.hear([(5, 0.1, [])])
    assert listener.events == [(1, [0, 1], []), (2, [0, 1], [1]), (3, [0], []), (4, [0], [0])]
    assert listener.ended == [False]


def test_a_relay_takes_back_what_a_group_told_that_failed():
    listener = Counting()
    relay = replay.Relay([listener], ["one"])
    relay.fail(ValueError())
    assert listener.ended == []
    relay = replay.Relay([listener], ["one"])
    relay.hear([(1, float("nan"), [])])
    relay.fail(ValueError())
    assert listener.ended == [True]


def test_a_bar_that_cannot_be_told_ends_no_training():
    def tell(epochs):
        raise OSError("the disk is full")

    teller = replay.Teller(tell, seconds=0.0)
    event = SimpleNamespace(epoch=1, train_loss=np.array([np.nan, 2.0]), done={0}, stopped={})
    teller.on_epoch(event)
    assert teller.waiting == []


def test_lines_of_a_job_are_heard_once_and_whole(tmp_path, monkeypatch):
    heard = []
    joblib_engine._tell(tmp_path, 3, [(1, 0.5, [0])])
    with open(tmp_path / "3", "a") as file:
        file.write("[[2, 0.")
    looks = []

    def wait(seconds):
        looks.append(seconds)
        if len(looks) == 3:
            with open(tmp_path / "3", "a") as file:
                file.write("25, []]]\n")
        return len(looks) > 4

    over = SimpleNamespace(wait=wait)
    joblib_engine._read(tmp_path, lambda *args: heard.append(args), over)
    assert heard == [(3, [[1, 0.5, [0]]]), (3, [[2, 0.25, []]])]


@pytest.mark.parametrize(
    ("name", "is_auto", "n_devices", "expected"),
    [
        ("cpu", True, 1, "cuda:0"),
        ("cpu", True, 0, "cpu"),
        ("cpu", False, 1, "cpu"),
        ("cuda:1", True, 0, "cpu"),
        ("cuda:1", True, 2, "cuda:1"),
        ("mps", False, 1, "cpu"),
        ("mps", True, 1, "cuda:0"),
        ("mps", True, 0, "cpu"),
    ],
)
def test_auto_is_the_device_of_the_worker(monkeypatch, name, is_auto, n_devices, expected):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: n_devices)
    assert str(find_device(name, is_auto)) == expected


@pytest.mark.parametrize(
    ("device", "is_auto", "types", "expected"),
    [
        ("cpu", True, {"cuda"}, "cuda"),
        ("cpu", False, {"cuda"}, "cpu"),
        ("cuda:0", True, set(), "cpu"),
        ("cuda:0", False, {"cuda"}, "cuda"),
        ("mps", True, {"mps"}, "mps"),
        ("mps", False, {"cuda"}, "cpu"),
    ],
)
def test_a_device_is_expected_before_anything_is_sent(device, is_auto, types, expected):
    spec = SimpleNamespace(device=device, is_auto=is_auto)
    assert expect_device_type(spec, types) == expected


class OnGpu(WorkerInThisProcess):
    """Says that it has a GPU, on which it has trained."""

    def run(self, jobs, hear=None):
        for number, outcome in super().run(jobs, hear):
            if self.is_lying:
                outcome = GroupResult(**{**vars(outcome), "device": "cuda:0", "is_stored": False})
            yield number, outcome

    is_lying = True


@pytest.fixture
def gpu_worker(monkeypatch):
    def make(types, is_lying=True):
        engine = OnGpu(types=types)
        engine.is_lying = is_lying
        # the worker would store what it takes for the results of a CPU
        monkeypatch.setattr(SharedFolder, "of", lambda store: None)
        monkeypatch.setattr(backend, "make_engine", lambda around, n_jobs: engine)
        return engine

    return make


def make_cached(folder, **options):
    return GridSearchCV(
        NET, {"lr": [0.01, 0.1], "max_epochs": [2, 6]}, cv=RAGGED, cache=folder, refit=False
    ).set_params(**options)


@pytest.mark.parametrize("types", [{"cuda"}, set()])
def test_what_a_gpu_has_trained_is_no_result_of_a_cpu(gpu_worker, monkeypatch, tmp_path, types):
    # expected or not, as where one worker of many has a GPU
    gpu_worker(types)
    make_cached(tmp_path).fit(X, y)
    monkeypatch.setattr(backend, "make_engine", lambda around, n_jobs: None)
    on_cpu = make_cached(tmp_path).fit(X, y)
    assert on_cpu.fusion_.sharing.n_known_fits == 0
    # but it is one of the next GPU, wherever that is
    gpu_worker({"cuda"})
    assert make_cached(tmp_path).fit(X, y).fusion_.sharing.n_known_fits == 8
    # and the CPU's own is known now
    monkeypatch.setattr(backend, "make_engine", lambda around, n_jobs: None)
    assert make_cached(tmp_path).fit(X, y).fusion_.sharing.n_known_fits == 8


def test_what_a_cpu_has_trained_in_the_place_of_a_gpu_is_no_result_of_a_gpu(
    gpu_worker, monkeypatch, tmp_path
):
    gpu_worker({"cuda"}, is_lying=False)
    make_cached(tmp_path).fit(X, y)
    assert make_cached(tmp_path).fit(X, y).fusion_.sharing.n_known_fits == 0
    monkeypatch.setattr(backend, "make_engine", lambda around, n_jobs: None)
    assert make_cached(tmp_path).fit(X, y).fusion_.sharing.n_known_fits == 8


def test_what_went_on_on_another_device_is_not_kept(gpu_worker, monkeypatch, tmp_path):
    monkeypatch.setattr(backend, "make_engine", lambda around, n_jobs: None)
    make_cached(tmp_path, param_grid={"lr": [0.01, 0.1], "max_epochs": [2]}).fit(X, y)
    # it goes on from what a CPU has begun, where nobody has expected a GPU
    gpu_worker(set())
    on_gpu = make_cached(tmp_path).fit(X, y)
    assert on_gpu.fusion_.sharing.n_known_epochs == 16
    for types, n_known in ((set(), 16), ({"cuda"}, 0)):
        gpu_worker(types, is_lying=False)
        assert make_cached(tmp_path).fit(X, y).fusion_.sharing.n_known_epochs == n_known


def test_fits_of_a_named_device_and_of_any_are_apart(gpu_worker):
    gpu_worker({"cuda"}, is_lying=False)
    candidates = grid({"device": "auto"}, {"device": "cpu"})
    search = GridSearchCV(NET, candidates, cv=RAGGED, refit=False).fit(X, y)
    assert len(search.fusion_.groups) == 2
    # on one machine they are one training
    assert devices.find_device("cpu") == torch.device("cpu")


def test_the_device_of_the_context_may_be_that_of_the_worker(worker):
    engine = worker()
    asked = []
    engine.find_device_types = lambda: asked.append("auto") or set()
    for device in ("auto", "cpu"):
        with joblib.parallel_config("sktune", device=device):
            GridSearchCV(NET, SPACES["plain"], cv=RAGGED, refit=False).fit(X, y)
    assert asked == ["auto"]
