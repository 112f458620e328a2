"""Groups that are trained by the workers of joblib, Dask and Ray."""

import os
import sys
import threading
import time
from contextlib import contextmanager

import joblib
import numpy as np
import pytest
import torch
from parity import RAGGED, X, grid, y
from scipy.stats import loguniform
from sklearn.base import clone
from sklearn.ensemble import RandomForestClassifier
from sklearn.exceptions import FitFailedWarning
from sklearn.model_selection import KFold
from sklearn.pipeline import Pipeline
from torch import nn

from sktune import (
    BayesSearchCV,
    GridSearchCV,
    HalvingGridSearchCV,
    HoldoutSearch,
    NeuralNetClassifier,
    RandomizedSearchCV,
    StagedSearch,
)
from sktune.engine.workers.engines import ray_engine
from sktune.engine.workers.jobs import name_worker
from sktune.runtime.progress import SearchProgress

NET = NeuralNetClassifier(
    module__hidden=(8,), max_epochs=3, batch_size=16, random_state=0, verbose=0
)
SPACE = {"lr": [0.01, 0.1], "module__dropout": [0.0, 0.3], "max_epochs": [2, 3]}
pytestmark = [
    # Dask, Ray and their servers are not ours
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture(scope="module")
def dask_client():
    distributed = pytest.importorskip("distributed")
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, dashboard_address=":0", silence_logs=50
        ) as cluster,
        distributed.Client(cluster, set_as_default=False) as client,
    ):
        yield client


@pytest.fixture(scope="module")
def ray_cluster():
    ray = pytest.importorskip("ray")
    # each worker takes seconds to import its libraries: one is enough. Ray takes our word for the
    # GPU, which torch will not find.
    ray.init(
        num_cpus=1, num_gpus=1, include_dashboard=False, logging_level="ERROR", log_to_driver=False
    )
    yield ray
    ray.shutdown()


@contextmanager
def workers_of(name, request):
    """Open a context in which groups are trained by the workers of an engine."""
    options = {"n_jobs": 2}
    if name == "dask":
        options = {"client": request.getfixturevalue("dask_client")}
    if name == "ray":
        request.getfixturevalue("ray_cluster")
        options = {}
    with joblib.parallel_config("sktune", outer=name, outer_options=options):
        yield


def assert_equal_results(one, other):
    """Compare ``cv_results_``, the times aside."""
    assert one.cv_results_.keys() == other.cv_results_.keys()
    for name, values in one.cv_results_.items():
        if not name.endswith("_time"):
            np.testing.assert_array_equal(values, other.cv_results_[name])


@pytest.fixture(scope="module")
def here():
    return GridSearchCV(NET, SPACE, cv=RAGGED).fit(X, y)


@pytest.mark.parametrize("name", ["loky", "dask", "ray"])
def test_workers_give_the_results_of_this_process(here, name, request):
    search = GridSearchCV(NET, SPACE, cv=RAGGED)
    with workers_of(name, request):
        search.fit(X, y)
    assert_equal_results(search, here)
    assert not search.fusion_.alone
    workers = {group["worker"] for group in search.fusion_.groups}
    assert workers
    assert name_worker() not in workers
    # on Ray a GPU was promised, and there is none
    assert {group["device"] for group in search.fusion_.groups} == {"cpu"}
    assert all(group["seconds"] > 0 for group in search.fusion_.groups)
    # fits that differ in their epochs only are one training
    assert sum(group["lanes"] for group in search.fusion_.groups) == 8
    assert search.fusion_.sharing.n_shared_fits == 8
    assert {group["worker"] for group in here.fusion_.groups} == {""}


def move_to_main(monkeypatch, kind):
    """Make a new class one that only this process has, as those of a script or a notebook."""
    kind.__module__ = "__main__"
    kind.__qualname__ = kind.__name__
    monkeypatch.setattr(sys.modules["__main__"], kind.__name__, kind, raising=False)
    return kind


def make_waiting_class():
    """Return a class that is trained on a worker until something of its epochs has been heard."""

    class Waits(nn.Module):
        def __init__(self, file, home):
            super().__init__()
            self.linear = nn.Linear(6, 3)
            self.file = file
            self.home = home

        def forward(self, X):
            if self.training and os.getpid() != self.home:
                with open(self.file + ".steps", "a+") as file:
                    file.write("step\n")
                    file.seek(0)
                    n_steps = len(file.read().splitlines())
                if n_steps == 20:
                    # it is time to tell
                    time.sleep(0.3)
                end = time.monotonic() + 60
                while n_steps > 30 and not os.path.exists(self.file) and time.monotonic() < end:
                    time.sleep(0.01)
            # no compiled step computes this, so that each step calls the function
            return torch.special.i0e(self.linear(X))

    return Waits


@pytest.mark.parametrize("name", ["loky", "dask", "ray"])
def test_the_bar_goes_on_while_workers_train(name, request, monkeypatch, tmp_path):
    file = tmp_path / "heard"
    n_done = []
    change = SearchProgress.change

    def note(self, *args, **options):
        change(self, *args, **options)
        if self._n_done:
            n_done.append(int(self._n_done))
            file.touch()

    monkeypatch.setattr(SearchProgress, "change", note)
    net = NeuralNetClassifier(
        move_to_main(monkeypatch, make_waiting_class()),
        module__file=str(file),
        module__home=os.getpid(),
        max_epochs=50,
        batch_size=-1,
        random_state=0,
    )
    search = GridSearchCV(net, {"lr": [0.01]}, cv=RAGGED[:1], refit=False, verbose=1)
    with workers_of(name, request):
        search.fit(X, y)
    assert search.fusion_.groups[0]["steps"] == "stacked"
    # some steps are tried before the training, which ends when the bar has moved
    assert 1 <= n_done[0] < 30
    assert n_done[-1] == 50


def test_ray_and_loky_are_taken_unasked(here, ray_cluster):
    from ray.util.joblib import register_ray

    register_ray()
    for name in ("ray", "loky"):
        search = GridSearchCV(NET, SPACE, cv=RAGGED, n_jobs=2)
        with joblib.parallel_config(name):
            search.fit(X, y)
        assert_equal_results(search, here)
        assert name_worker() not in {group["worker"] for group in search.fusion_.groups}


DISTRIBUTIONS = {"lr": loguniform(1e-3, 1e-1), "module__dropout": [0.0, 0.3]}
SEARCHES = {
    "random": RandomizedSearchCV(NET, DISTRIBUTIONS, n_iter=4, cv=RAGGED, random_state=0),
    "bayes": BayesSearchCV(
        NET, DISTRIBUTIONS, n_iter=6, batch_size=3, cv=RAGGED, random_state=0, refit=False
    ),
    "halving": HalvingGridSearchCV(
        NET, {"lr": [0.01, 0.03, 0.1, 0.3]}, factor=2, cv=RAGGED, random_state=0, refit=False
    ),
    "stages": StagedSearch(
        NET,
        [("lr", {"lr": loguniform(1e-3, 1e-1)}), ("dropout", {"module__dropout": [0.1, 0.3]})],
        n_iter=2,
        cv=RAGGED,
        random_state=0,
    ),
    "holdout": HoldoutSearch(
        GridSearchCV(NET, {"lr": [0.01, 0.1]}, cv=2), random_state=0, n_resamples=20
    ),
}


@pytest.mark.parametrize("name", SEARCHES)
def test_all_searches_go_to_the_workers(name, dask_client):
    search = clone(SEARCHES[name])
    expected = clone(search).fit(X, y)
    with joblib.parallel_config("dask", client=dask_client):
        search.fit(X, y)
    inner = getattr(search, "search_", search)
    assert_equal_results(inner, getattr(expected, "search_", expected))
    assert inner.fusion_.groups
    assert name_worker() not in {group["worker"] for group in inner.fusion_.groups}
    if name == "holdout":
        assert search.test_score_ == expected.test_score_


def test_threads_are_those_of_this_process(here):
    search = GridSearchCV(NET, SPACE, cv=RAGGED)
    with joblib.parallel_config("sktune", outer="threading"):
        search.fit(X, y)
    assert_equal_results(search, here)
    assert {group["worker"] for group in search.fusion_.groups} == {""}


def test_a_search_within_a_context_of_dask_goes_there_unasked(here, dask_client):
    search = GridSearchCV(NET, SPACE, cv=RAGGED)
    with joblib.parallel_config("dask", client=dask_client):
        search.fit(X, y)
    assert_equal_results(search, here)
    assert name_worker() not in {group["worker"] for group in search.fusion_.groups}


def test_scikit_learns_own_search_goes_there_too(here, dask_client):
    from sklearn.model_selection import GridSearchCV as Plain

    search = Plain(NET, SPACE, cv=RAGGED, n_jobs=2)
    with joblib.parallel_config("sktune", outer="dask", outer_options={"client": dask_client}):
        search.fit(X, y)
    assert_equal_results(search, here)


@pytest.mark.parametrize("n_workers", [1, 3])
def test_the_number_of_workers_does_not_matter(here, n_workers):
    distributed = pytest.importorskip("distributed")
    search = GridSearchCV(NET, SPACE, cv=RAGGED)
    with (
        distributed.LocalCluster(
            n_workers=n_workers, processes=False, dashboard_address=":0", silence_logs=50
        ) as cluster,
        distributed.Client(cluster, set_as_default=False) as client,
        joblib.parallel_config("dask", client=client),
    ):
        search.fit(X, y)
    assert_equal_results(search, here)


def test_tables_are_sent_once_for_all_rounds(dask_client, monkeypatch):
    sent = []
    original = type(dask_client).scatter

    def scatter(self, data, **options):
        sent.append(data)
        return original(self, data, **options)

    monkeypatch.setattr(type(dask_client), "scatter", scatter)
    search = BayesSearchCV(
        NET, {"lr": loguniform(1e-3, 1e-1)}, n_iter=6, batch_size=2, cv=RAGGED, random_state=0
    )
    with joblib.parallel_config("dask", client=dask_client):
        search.fit(X, y)
    assert search.n_rounds_ == 3
    # X once, and the targets of each fold
    assert sorted(array.array.shape for array in sent) == [(110,), (110,), (110, 6)]


def read_transfers(dask_worker):
    return dask_worker.transfer_outgoing_bytes_total


def test_a_large_table_goes_through_the_scheduler_once(dask_client, monkeypatch):
    from distributed.comm.tcp import TCP

    # client and scheduler are in this process: what both send
    n_sent = []
    write = TCP.write

    async def count(self, *args, **options):
        n_bytes = await write(self, *args, **options)
        n_sent.append(n_bytes)
        return n_bytes

    monkeypatch.setattr(TCP, "write", count)
    table = np.ones((4000, 3277), dtype=np.float32)
    table[::3] = 0
    net = NeuralNetClassifier(module__hidden=(2,), max_epochs=1, batch_size=-1, random_state=0)
    space = {"lr": loguniform(1e-3, 1e-1)}
    search = BayesSearchCV(
        net, space, n_iter=4, batch_size=2, cv=2, random_state=0, refit=False, stop=None
    )
    passed_on = sum(dask_client.run(read_transfers).values())
    with (
        joblib.parallel_config("dask", client=dask_client),
        joblib.parallel_config("sktune", max_lanes=1),
    ):
        search.fit(table, np.arange(4000) % 2)
    # in two rounds
    assert len(search.fusion_.groups) == 8
    assert table.nbytes > 50e6
    # from the client to the scheduler, and from there to a worker
    assert 2 * table.nbytes < sum(n_sent) < 2.1 * table.nbytes
    # and from that one to the other
    passed_on = sum(dask_client.run(read_transfers).values()) - passed_on
    assert passed_on < 1.1 * table.nbytes


class CountsThreads(nn.Linear):
    """Writes down how many threads torch computes with where it is trained."""

    def __init__(self, file, home):
        super().__init__(6, 3)
        self.file = file
        self.home = home

    def forward(self, X):
        if os.getpid() != self.home:
            with open(self.file, "a") as file:
                file.write(f"{torch.get_num_threads()}\n")
        return super().forward(X)


@pytest.mark.parametrize("name", ["loky", "dask"])
def test_threads_of_a_worker_are_bounded(name, request, tmp_path):
    file = tmp_path / "threads"
    net = NeuralNetClassifier(
        CountsThreads,
        module__file=str(file),
        module__home=os.getpid(),
        max_epochs=2,
        random_state=0,
        verbose=0,
    )
    search = GridSearchCV(net, {"lr": [0.01, 0.1]}, cv=RAGGED, refit=False)
    with workers_of(name, request):
        search.fit(X, y)
    share = max(1, joblib.cpu_count() // 2) if name == "loky" else 1
    found = {int(line) for line in file.read_text().split()}
    assert found
    assert max(found) <= share


def test_models_without_a_network_go_to_the_same_workers(dask_client):
    pipeline = Pipeline([("model", NET)])
    candidates = grid({"model": NET}, {"model": ProcessId()})
    search = GridSearchCV(pipeline, candidates, cv=RAGGED, refit=False, error_score="raise")
    with joblib.parallel_config("dask", client=dask_client):
        search.fit(X, y)
    own = search.cv_results_["split0_test_score"][1]
    assert own != os.getpid()
    assert len(search.fusion_.alone) == 2


class ProcessId(RandomForestClassifier):
    """Its score is the number of the process in which it was fitted."""

    def fit(self, X, y):
        self.pid_ = os.getpid()
        return self

    def score(self, X, y):
        return self.pid_


class Dies(nn.Module):
    """Kills any worker that trains it, as often as there are files to take away."""

    def __init__(self, folder="", home=0):
        super().__init__()
        self.folder = folder
        self.home = home
        self.linear = nn.Linear(6, 3)

    def forward(self, X):
        is_worker = os.getpid() != self.home
        if is_worker and self.training and self.folder and os.listdir(self.folder):
            os.remove(os.path.join(self.folder, os.listdir(self.folder)[0]))
            os._exit(1)
        return self.linear(X)


def make_deaths(folder, n_deaths):
    for n in range(n_deaths):
        (folder / str(n)).touch()
    return str(folder)


class DiesLate(nn.Module):
    """Kills its worker in the middle of the training, once; a file counts its steps."""

    def __init__(self, file="", home=0, after=0):
        super().__init__()
        self.file = file
        self.home = home
        self.after = after
        self.linear = nn.Linear(6, 3)

    def forward(self, X):
        if self.training and self.file and os.getpid() != self.home:
            with open(self.file, "a+") as file:
                file.seek(0)
                lines = file.read().splitlines()
                dies = "killed" not in lines and len(lines) >= self.after
                file.write("killed\n" if dies else "step\n")
            if dies:
                os._exit(1)
        # no compiled step computes this, so that each step calls the function
        return torch.special.i0e(self.linear(X))


# joblib starts all of its workers anew, which takes seconds
@pytest.mark.parametrize("name", ["dask", pytest.param("loky", marks=pytest.mark.slow)])
def test_a_lost_worker_costs_no_result(name, request, tmp_path):
    file = tmp_path / "steps"
    net = NeuralNetClassifier(
        DiesLate,
        module__home=os.getpid(),
        module__after=20,
        max_epochs=40,
        batch_size=-1,
        random_state=0,
        verbose=0,
    )
    # folds of one size, so that a step is one call
    search = GridSearchCV(net, {"lr": [0.01, 0.02, 0.05, 0.1]}, cv=KFold(2), refit=False)
    expected = clone(search).fit(X, y)
    search.set_params(
        estimator__module__file=str(file), cache=tmp_path / "cache", checkpoint_interval=1e-9
    )
    with workers_of(name, request), joblib.parallel_config("sktune", max_lanes=8):
        search.fit(X, y)
    assert_equal_results(search, expected)
    assert {group["steps"] for group in search.fusion_.groups} == {"stacked"}
    lines = file.read_text().splitlines()
    before = lines.index("killed")
    n_groups = len(search.fusion_.groups)
    # all steps once, and those that are tried before the training; but not those before it twice
    assert n_groups * 40 <= lines.count("step") < n_groups * 40 + before
    # a second search of one machine finds what the workers have stored
    again = clone(search).fit(X, y)
    assert again.fusion_.sharing.n_trained_epochs == 0
    assert_equal_results(again, expected)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:One or more of the test scores are non-finite")
def test_a_fit_that_kills_every_worker_fails_alone(tmp_path, request):
    net = NeuralNetClassifier(
        Dies, module__home=os.getpid(), max_epochs=2, lr=0.1, random_state=0, verbose=0
    )
    candidates = grid({"module__folder": ""}, {"module__folder": make_deaths(tmp_path, 99)})
    search = GridSearchCV(net, candidates, cv=RAGGED, refit=False)
    message = "the worker of the fit was lost, and so was the next one"
    with workers_of("loky", request), pytest.warns(FitFailedWarning, match=message):
        search.fit(X, y)
    good, bad = search.cv_results_["mean_test_score"]
    assert np.isfinite(good)
    assert np.isnan(bad)


def make_class():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3))

        def forward(self, X):
            return self.layers(X)

    return Net


@pytest.mark.parametrize("name", ["loky", "dask", "ray"])
def test_a_class_of_a_notebook_travels(monkeypatch, name, request):
    kind = move_to_main(monkeypatch, make_class())
    net = NeuralNetClassifier(kind, max_epochs=2, random_state=0, verbose=0)
    search = GridSearchCV(net, {"lr": [0.01, 0.1]}, cv=RAGGED, refit=False).fit(X, y)
    expected = search.cv_results_["mean_test_score"]
    with workers_of(name, request):
        search.fit(X, y)
    assert all(group["worker"] for group in search.fusion_.groups), search.fusion_.groups
    np.testing.assert_array_equal(search.cv_results_["mean_test_score"], expected)


class Handle:
    """What stays in its process."""

    def __deepcopy__(self, memo):
        return self

    def __reduce__(self):
        raise TypeError("a handle stays in its process")


class Handled(nn.Linear):
    def __init__(self, handle):
        super().__init__(6, 3)
        self.handle = handle


def test_what_cannot_be_sent_is_trained_here_and_says_so(request):
    net = NeuralNetClassifier(
        Handled, module__handle=Handle(), max_epochs=2, lr=0.1, random_state=0, verbose=0
    )
    search = GridSearchCV(net, {"lr": [0.01, 0.1]}, cv=RAGGED, refit=False)
    expected = GridSearchCV(net, {"lr": [0.01, 0.1]}, cv=RAGGED, refit=False).fit(X, y)
    with workers_of("loky", request):
        search.fit(X, y)
    assert_equal_results(search, expected)
    for group in search.fusion_.groups:
        assert group["worker"] == ""
        reason = "the fits cannot be sent to workers: a handle stays in its process"
        assert group["blockers"]["workers"] == reason


def test_a_timeout_ends_what_workers_train(request):
    net = NeuralNetClassifier(
        module__hidden=(8,), max_epochs=10**6, batch_size=16, random_state=0, verbose=0
    )
    space = {"lr": [1e-3, 1e-2]}
    search = RandomizedSearchCV(net, space, n_iter=2, cv=RAGGED, timeout=1, refit=False)
    # nothing is complete after a second, and nobody waits for a million epochs
    with workers_of("loky", request), pytest.raises(ValueError, match="timeout must leave"):
        search.fit(X, y)


def test_two_searches_share_a_cluster(here, dask_client):
    found = []

    def fit():
        search = GridSearchCV(NET, SPACE, cv=RAGGED)
        with joblib.parallel_config("dask", client=dask_client):
            found.append(search.fit(X, y))

    threads = [threading.Thread(target=fit) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 2
    for search in found:
        assert_equal_results(search, here)


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        (
            {"outer": "dsk"},
            ValueError,
            "outer must be one of .*got outer='dsk'; did you mean 'dask'",
        ),
        ({"outer": 3}, ValueError, "outer must be one of .*got outer=3$"),
        ({"outer_options": {}}, ValueError, "outer_options must come with outer"),
        ({"outer": "loky", "outer_options": 2}, TypeError, "outer_options must be a dict or None"),
        ({"outer": "dask"}, RuntimeError, "must have a cluster that is connected, got none"),
    ],
)
def test_bad_options_are_told(options, error, match):
    pytest.importorskip("distributed")
    with pytest.raises(error, match=match):
        joblib.parallel_config("sktune", **options)


def test_ray_has_to_be_connected(monkeypatch):
    ray = pytest.importorskip("ray")
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    with pytest.raises(RuntimeError, match=r"must have a cluster .*`ray.init\(\)`"):
        ray_engine.RayEngine()


@pytest.mark.parametrize(("name", "module"), [("dask", "distributed"), ("ray", "ray")])
def test_an_engine_that_is_not_installed_is_named(monkeypatch, name, module):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=rf"pip install 'sktune\[{name}\]'"):
        joblib.parallel_config("sktune", outer=name)


def test_a_cluster_without_workers_is_told(here):
    distributed = pytest.importorskip("distributed")
    search = GridSearchCV(NET, SPACE, cv=RAGGED)
    options = {"wait_for_workers_timeout": 0}
    with (
        distributed.LocalCluster(
            n_workers=0, processes=False, dashboard_address=":0", silence_logs=50
        ) as cluster,
        distributed.Client(cluster, set_as_default=False) as client,
        joblib.parallel_config("dask", client=client, **options),
        pytest.raises(RuntimeError, match="must have workers, got a cluster without one"),
    ):
        search.fit(X, y)


def test_torch_threads_are_left_as_they_were(request):
    before = torch.get_num_threads()
    with workers_of("loky", request):
        GridSearchCV(NET, SPACE, cv=RAGGED).fit(X, y)
    assert torch.get_num_threads() == before
