"""Groups on GPUs are trained by one thread, in turn; whatever ends one leaves nothing behind."""

import gc
import itertools
import threading

import joblib
import numpy as np
import pytest
import skorch
import torch
from device import Graph
from parity import X, assert_same_scores, search, y
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from torch import nn

from sktune import NeuralNetClassifier
from sktune.engine.steps.recording import capture
from sktune.engine.steps.recording.run import RecordedRun

NET = NeuralNetClassifier(
    module__hidden=(8,),
    module__dtype=torch.float64,
    module__dropout=0.2,
    max_epochs=4,
    batch_size=16,
    random_state=0,
)
# groups by batch size
CANDIDATES = [{"lr": lr, "batch_size": size} for size in (8, 16, 32) for lr in (0.01, 0.03)]

pytestmark = pytest.mark.usefixtures("recording_gpu")


@pytest.fixture
def replays(monkeypatch):
    """The thread and the stream of each replay."""
    found = []
    replay = Graph.replay

    def note(self):
        found.append((threading.get_ident(), torch.cuda.current_stream().stream_id))
        replay(self)

    monkeypatch.setattr(Graph, "replay", note)
    return found


def test_one_thread_takes_the_groups_in_turn(gpu, replays):
    _, _, report = search(NET, CANDIDATES, X, y, n_jobs=3)

    assert [group["steps"] for group in report.groups] == ["recorded"] * 3
    assert {thread for thread, _ in replays} == {threading.get_ident()}
    # an epoch of each group, and then the next one of each
    streams = [stream for stream, _ in itertools.groupby(stream for _, stream in replays)]
    assert len(set(streams)) == 3
    assert streams == streams[:3] * NET.max_epochs
    assert gpu.n_streams_made <= 3


def test_groups_record_on_their_own_streams(replays, monkeypatch):
    streams = set()
    begin = Graph.capture_begin

    def note(self, *args, **kwargs):
        streams.add(torch.cuda.current_stream().stream_id)
        begin(self, *args, **kwargs)

    monkeypatch.setattr(Graph, "capture_begin", note)
    search(NET, CANDIDATES, X, y, n_jobs=3)

    assert streams == {stream for _, stream in replays}
    assert len(streams) == 3


def test_with_one_job_each_group_has_the_device_for_itself(replays):
    search(NET, CANDIDATES, X, y, n_jobs=1)

    streams = [stream for _, stream in replays]
    assert len(set(streams)) == 1


def test_results_do_not_depend_on_who_takes_turns():
    one, _, _ = search(NET, CANDIDATES, X, y, n_jobs=1)
    several, _, _ = search(NET, CANDIDATES, X, y, n_jobs=3)

    assert_same_scores(one, several, tolerance=0)


def test_two_searches_at_once_are_as_one():
    expected, _, _ = search(NET, CANDIDATES, X, y, n_jobs=3)
    with joblib.parallel_config("threading"):
        found = joblib.Parallel(2)(
            joblib.delayed(search)(NET, CANDIDATES, X, y, n_jobs=3) for _ in range(2)
        )

    for one, _, report in found:
        assert [group["steps"] for group in report.groups] == ["recorded"] * 3
        assert_same_scores(expected, one, tolerance=0)


def test_nothing_waits_for_all_streams(gpu):
    """It would break what another search records meanwhile."""
    search(NET, CANDIDATES, X, y, n_jobs=3)
    clone(NET).fit(X, y)

    assert not {"torch.cuda.synchronize", "torch.cuda.graph", "torch.cuda.empty_cache"} & set(
        gpu.counts().waited
    )


def test_the_memory_of_a_search_does_not_wait_for_the_collector(gpu):
    search(NET, CANDIDATES, X, y)
    gc.collect()
    held = gpu.counts().allocated
    gc.disable()
    try:
        for _ in range(2):
            _, nets, _ = search(NET, CANDIDATES, X, y)
            del nets
        # what is left are the nets that circles hold: their modules, and no group
        assert gpu.counts().allocated - held < 3e5
    finally:
        gc.enable()


def test_all_recordings_of_a_group_have_one_pool(monkeypatch):
    pools = []
    begin = Graph.capture_begin
    monkeypatch.setattr(
        Graph,
        "capture_begin",
        lambda self, pool=None, **options: pools.append(pool) or begin(self, pool, **options),
    )
    candidates = [{"max_epochs": n, "lr": 0.01 * n} for n in range(1, 9)]
    search(NET, candidates, X, y)

    assert len(pools) > 4
    assert len(set(pools)) == 1


def interrupt(monkeypatch):
    """Let the user interrupt the first recording."""
    compute = RecordedRun.compute

    def stop(self, *arguments):
        compute(self, *arguments)
        if torch.cuda.is_current_stream_capturing():
            raise KeyboardInterrupt("by the user")

    monkeypatch.setattr(RecordedRun, "compute", stop)


@pytest.mark.parametrize("n_jobs", [1, 3])
def test_an_interrupt_within_a_recording_ends_it(monkeypatch, n_jobs):
    expected, _, _ = search(NET, CANDIDATES, X, y)
    with monkeypatch.context() as patch:
        interrupt(patch)
        with pytest.raises(KeyboardInterrupt, match="by the user"):
            search(NET, CANDIDATES, X, y, n_jobs=n_jobs)
    assert not capture.FAILURES.reason
    again, _, report = search(NET, CANDIDATES, X, y, n_jobs=n_jobs)

    assert [group["steps"] for group in report.groups] == ["recorded"] * 3
    assert_same_scores(expected, again, tolerance=0)


def test_an_interrupt_ends_a_fit_alone_with_the_epochs_that_are_complete(gpu, monkeypatch):
    net = clone(NET).fit(X, y)
    with monkeypatch.context() as patch:
        interrupt(patch)
        with pytest.raises(KeyboardInterrupt, match="by the user"):
            net.partial_fit(X, y)
    assert not capture.FAILURES.reason
    expected = clone(NET).fit(X, y)

    for name, value in net.module_.state_dict().items():
        assert value.equal(expected.module_.state_dict()[name])


@pytest.mark.parametrize("fails", [False, True])
def test_a_full_device_halves_groups_and_records_the_halves(gpu, monkeypatch, fails):
    """To empty the cache is a help only: it fails while another search records."""

    def refuse():
        raise RuntimeError("captures are underway")

    if fails:
        monkeypatch.setattr(torch.cuda, "empty_cache", refuse)
    candidates = [{"lr": 0.001 * n} for n in range(1, 9)]
    expected, _, _ = search(NET, candidates, X, y)
    gc.collect()
    gpu.reset()
    search(NET, candidates, X, y)
    needed = gpu.counts().peak - gpu.counts().allocated
    gc.collect()
    gpu.set_memory(int(0.7 * needed))
    found, _, report = search(NET, candidates, X, y)
    gpu.set_memory(None)

    assert len(report.groups) > 1
    assert {group["steps"] for group in report.groups} == {"recorded"}
    assert not capture.FAILURES.reason
    assert_same_scores(expected, found, tolerance=1e-12)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_modules_of_half_precision_are_recorded(dtype):
    net = clone(NET).set_params(module__dtype=dtype, max_epochs=6)
    found, nets, report = search(net, [{"lr": 0.01}, {"lr": 0.03}], X, y)
    plain, references, _ = search(net, [{"lr": 0.01}, {"lr": 0.03}], X, y, fused=False)

    assert [group["steps"] for group in report.groups] == ["recorded"]
    assert np.isfinite(found.cv_results_["mean_test_score"]).all()
    for one, other in zip(nets, references, strict=True):
        losses = [net.history[:, "train_loss"] for net in (one, other)]
        np.testing.assert_allclose(*losses, rtol=0.03)


def test_training_goes_on_where_it_ended(gpu):
    nets = {}
    for device in ("cpu", "cuda"):
        nets[device] = clone(NET).set_params(device=device, warm_start=True)
        for _ in range(2):
            nets[device].fit(X, y)
        nets[device].partial_fit(X, y)

    # a run of whole batches, and one of the last
    assert gpu.counts().replays == 3 * 2 * NET.max_epochs
    assert len(nets["cuda"].history) == len(nets["cpu"].history)
    found, expected = (nets[device].predict_proba(X) for device in ("cuda", "cpu"))
    np.testing.assert_allclose(found, expected, rtol=1e-8)


def test_a_refit_is_recorded(gpu):
    with joblib.parallel_config("sktune"):
        found = GridSearchCV(NET, {"lr": [0.01, 0.03]}, cv=3)
        found.fit(X, y)
    of_search = gpu.counts().replays
    gpu.reset()
    expected = clone(NET).set_params(**found.best_params_).fit(X, y)

    assert of_search > gpu.counts().replays == 2 * NET.max_epochs
    for one, other in zip(
        found.best_estimator_.module_.parameters(), expected.module_.parameters(), strict=True
    ):
        assert one.equal(other)


@pytest.mark.parametrize("name", ["batch_norm", "skorch"])
def test_waits_of_an_epoch_do_not_grow_with_lanes_and_steps(gpu, name):
    """Folds with a row more take a step apart; skorch's own nets draw on the host."""
    net = clone(NET).set_params(module__batch_norm=True, module__dropout=0.0)
    if name == "skorch":
        module = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3)).double()
        options = {"criterion": nn.CrossEntropyLoss, "iterator_train__shuffle": True, "verbose": 0}
        net = skorch.NeuralNetClassifier(module, device="cuda", train_split=None, **options)
    waits = {}
    for n_lanes, batch_size, n_epochs in ((2, 32, 4), (6, 8, 4), (2, 32, 8)):
        net.set_params(max_epochs=n_epochs, batch_size=batch_size)
        gpu.reset()
        rates = [{"lr": 0.01 * (1 + n)} for n in range(n_lanes)]
        _, _, report = search(net, rates, X.astype(float), y)
        assert {group["steps"] for group in report.groups} == {"recorded"}
        waits[n_lanes, batch_size, n_epochs] = gpu.counts().waits

    assert waits[2, 32, 8] - waits[2, 32, 4] == 4
    # nets of skorch's are built one by one, and predict so
    assert waits[6, 8, 4] - waits[2, 32, 4] <= (25 * 8 if name == "skorch" else 0)


def test_nobody_waits_for_the_orders_of_many_rows(gpu):
    rows = np.tile(X, (40, 1)).astype(np.float32), np.tile(y, 40)
    waits = {}
    for n_epochs in (2, 6):
        net = clone(NET).set_params(max_epochs=n_epochs, batch_size=256)
        gpu.reset()
        search(net, [{"lr": 0.01}, {"lr": 0.03}], *rows, cv=5)
        waits[n_epochs] = gpu.counts().waited

    # in an epoch 5 x 3,520 numbers of 8 bytes
    assert waits[6]["an upload"] == waits[2]["an upload"]
