"""The parts of compiled steps: loaded where a network needs them, told of, and their tables."""

import os
import subprocess
import sys
import time
import weakref

import numpy as np
import pytest
import torch
from sklearn.datasets import make_classification
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from sktune import GridSearchCV, NeuralNetClassifier, NeuralNetRegressor
from sktune.engine.compiled import loading, opcodes, program, updates
from sktune.engine.compiled.entries import parts, telling

X, y = make_classification(90, n_features=7, n_informative=4, n_classes=3, random_state=0)
X = X.astype(np.float32)
DTYPE = np.dtype(np.float32)


def weights(net):
    return [p.detach().numpy().copy() for p in net.module_.parameters()]


@pytest.fixture
def loaded(monkeypatch):
    """Return the parts that are loaded in a test, by their kinds and opcodes."""
    found = {}
    monkeypatch.setattr(loading, "_parts", found)
    # the trial step loads parts, too
    loading.load_kernels.cache_clear()
    return found


@pytest.mark.parametrize(
    ("kind", "loss"),
    [
        (NeuralNetClassifier, opcodes.CROSS_ENTROPY),
        (NeuralNetRegressor, opcodes.SQUARED_ERROR),
    ],
)
def test_a_network_loads_the_parts_that_it_needs(kind, loss, loaded):
    net = kind(module__hidden=(8,), module__dropout=0.0, module__activation="tanh", max_epochs=1)
    net.fit(X, y)

    assert {key[:2] for key in loaded} == {
        ("apply", opcodes.LINEAR),
        ("trace", opcodes.LINEAR),
        ("layer", opcodes.TANH),
        ("loss", loss),
        ("update", updates.ADAM),
        ("multiply", 0),
        ("transpose", 0),
    }


@pytest.mark.parametrize(
    ("rule", "option", "expected"),
    [
        (torch.optim.Adam, "amsgrad", updates.AMSGRAD),
        (torch.optim.RMSprop, "centered", updates.CENTERED_RMSPROP),
    ],
)
def test_an_option_chooses_the_part_of_an_optimizer(rule, option, expected, loaded):
    NeuralNetClassifier(optimizer=rule, max_epochs=1).set_params(
        **{f"optimizer__{option}": True}
    ).fit(X, y)

    assert {key[1] for key in loaded if key[0] == "update"} == {updates.ADAM, expected}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("loss", loading.TRIALS)
def test_a_trial_step_by_each_criterion_tells_a_wrong_outcome(dtype, loss, monkeypatch):
    kernels = loading.load_kernels(np.dtype(dtype), loss)
    assert kernels is not None

    targets, expected, gradient = loading.TRIALS[loss]
    monkeypatch.setitem(loading.TRIALS, loss, (targets, expected, [2 * x for x in gradient]))
    loading.load_kernels.cache_clear()
    with pytest.warns(RuntimeWarning, match="its code takes a step to"):
        assert loading.load_kernels(np.dtype(dtype), loss) is None
    loading.load_kernels.cache_clear()


def test_dropout_and_penalties_are_loaded_when_they_are_on(loaded):
    net = NeuralNetClassifier(module__hidden=(8,), module__dropout=0.0, max_epochs=1)
    net.fit(X, y)
    before = set(loaded)

    net.set_params(module__dropout=0.2, l1=0.01).fit(X, y)

    assert {key[:2] for key in set(loaded) - before} == {
        ("layer", opcodes.DROPOUT_LAYER),
        ("penalty", 0),
    }


def test_a_part_computes_what_its_opcode_says():
    """Parts of one kind differ by their opcodes alone, also on disk."""
    addresses = {
        parts.load_part("layer", opcode, DTYPE).address
        for opcode in (opcodes.RELU, opcodes.TANH, opcodes.SIGMOID)
    }
    assert len(addresses) == 3


def test_the_sources_are_part_of_what_is_kept(monkeypatch):
    before = parts.digest_sources()
    kept = parts.Path.read_bytes
    monkeypatch.setattr(parts.Path, "read_bytes", lambda path: kept(path) + b"#")

    assert parts.digest_sources() != before
    assert before == parts.SOURCES


def test_a_long_compilation_is_told_once(monkeypatch, capsys):
    monkeypatch.setattr(telling, "_SECONDS", 0.0)
    monkeypatch.setattr(telling, "_told", set())

    for _ in range(2):
        with telling.compiling(DTYPE), telling.compiling(DTYPE):
            time.sleep(0.05)

    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("Numba compiles training steps") == 1


def test_what_is_loaded_is_not_told(capsys):
    with telling.compiling(DTYPE):
        pass
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("batch_size", [16, 33, 200])
def test_what_a_workspace_held_before_reaches_no_parameter(batch_size, monkeypatch):
    kernels = loading.load_kernels(DTYPE)
    make = kernels.make_workspace

    def make_used(*args):
        space = make(*args)
        for name in ("tables", "gradients", "inputs", "transposed", "product", "sums", "moments"):
            getattr(space, name)[...] = 1e6
        return space

    module = nn.Sequential(
        *(nn.Linear(7, 9), nn.BatchNorm1d(9), nn.ReLU(), nn.Dropout(0.2)),
        *(nn.Linear(9, 5), nn.LayerNorm(5), nn.GELU(), nn.Linear(5, 3)),
    )
    net = NeuralNetClassifier(module, batch_size=batch_size, max_epochs=3, random_state=0)
    expected = weights(net.fit(X, y))
    monkeypatch.setattr(kernels, "make_workspace", make_used)

    for one, other in zip(weights(net.fit(X, y)), expected, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.filterwarnings("ignore")
def test_lanes_share_a_workspace_until_one_diverges(monkeypatch):
    kernels = loading.load_kernels(DTYPE)
    made = []
    make = kernels.make_workspace

    def count(*args):
        made.append(args)
        return make(*args)

    monkeypatch.setattr(kernels, "make_workspace", count)
    net = NeuralNetClassifier(max_epochs=3, batch_size=30, optimizer=torch.optim.SGD)
    search = GridSearchCV(net, {"lr": [0.01, 0.02, 0.03]}, cv=3, refit=False, n_jobs=1).fit(X, y)
    assert len(made) == len(search.fusion_.groups)

    made.clear()
    grid = {"lr": [1e300, 0.02, 0.03]}
    search = GridSearchCV(net, grid, cv=3, refit=False, n_jobs=1).fit(X, y)
    assert len(made) > len(search.fusion_.groups)
    assert np.isfinite(search.cv_results_["mean_test_score"][1:]).all()


class _CountBytes(TorchDispatchMode):
    """Counts the bytes of the tensors that operations make, at their most."""

    def __init__(self):
        super().__init__()
        self.now = 0
        self.most = 0
        self.known = set()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, (tuple, list)) else [out]:
            if isinstance(tensor, torch.Tensor):
                self._note(tensor.untyped_storage())
        return out

    def _note(self, storage):
        key = storage.data_ptr()
        if key in self.known:
            return
        self.known.add(key)
        self.now += storage.nbytes()
        self.most = max(self.most, self.now)
        weakref.finalize(storage, self._forget, key, storage.nbytes())

    def _forget(self, key, n_bytes):
        self.known.discard(key)
        self.now -= n_bytes


@pytest.mark.parametrize("hidden", [(128,), (32, 32), (256,)])
def test_lanes_take_no_more_memory_than_stacked_ones(hidden, monkeypatch):
    """Beside parameters and the optimizer's state, of which both keep the same."""
    rows = np.random.default_rng(0).normal(size=(256, 64)).astype(np.float32)
    labels = np.arange(256) % 10
    kernels = loading.load_kernels(DTYPE)
    n_bytes = []
    make = kernels.make_workspace

    def count(*args):
        space = make(*args)
        n_bytes.append(sum(part.nbytes for part in space if isinstance(part, np.ndarray)))
        return space

    monkeypatch.setattr(kernels, "make_workspace", count)
    net = NeuralNetClassifier(max_epochs=1, batch_size=64, module__hidden=hidden, random_state=0)
    search = GridSearchCV(net, {"lr": [0.01, 0.02, 0.03, 0.04]}, cv=2, refit=False, n_jobs=1)
    search.fit(rows, labels)
    assert search.fusion_.groups[0]["compiled"]

    from sktune.engine.steps import stacked

    counted = _CountBytes()
    run_epoch = stacked.StackedSteps.run_epoch

    def run_counted(self, *args):
        with counted:
            return run_epoch(self, *args)

    monkeypatch.setattr(program, "enabled", False)
    monkeypatch.setattr(stacked.StackedSteps, "run_epoch", run_counted)
    search.fit(rows, labels)
    assert not search.fusion_.groups[0]["compiled"]
    # a group has one workspace, whatever the number of its lanes
    assert 0 < max(n_bytes) <= counted.most


TRAIN = """
import hashlib
import sys
import warnings

import numpy as np
import torch
from numba.core import event
from sklearn.datasets import make_classification
from torch import nn

from sktune import NeuralNetClassifier

warnings.simplefilter("ignore")
compiled = event.RecordingListener()
event.register("numba:run_pass", compiled)
X, y = make_classification(150, n_features=20, n_informative=9, n_classes=3, random_state=0)
X = X.astype(np.float32)


class Normed(nn.Module):
    def __init__(self, n_features, n_outputs):
        super().__init__()
        self.first = nn.Linear(n_features, 37)
        self.batch_norm = nn.BatchNorm1d(37)
        self.layer_norm = nn.LayerNorm(37)
        self.last = nn.Linear(37, n_outputs)

    def forward(self, X):
        hidden = torch.tanh(self.batch_norm(self.first(X)))
        return self.last(hidden + self.layer_norm(hidden))


SETTINGS = [
    {"module__hidden": (128,), "batch_size": 64},
    {"module__dropout": 0.2, "l1": 1e-3, "l2": 1e-3, "clip_grad_norm": 0.5},
    {"module": Normed, "optimizer": torch.optim.SGD, "optimizer__momentum": 0.9},
]
for settings in SETTINGS:
    settings = {"batch_size": 41, **settings}
    net = NeuralNetClassifier(max_epochs=5, random_state=0, **settings).fit(X, y)
    numbers = b"".join(tensor.numpy().tobytes() for tensor in net.module_.state_dict().values())
    print(hashlib.sha256(numbers).hexdigest())
print(len(compiled.buffer), file=sys.stderr)
"""


def test_new_code_and_code_from_the_disk_compute_the_same_bits(tmp_path):
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}

    def train():
        done = subprocess.run(
            [sys.executable, "-c", TRAIN], env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        return done

    compiling, loading_only = train(), train()

    n_passes = [int(done.stderr.split()[-1]) for done in (compiling, loading_only)]
    assert n_passes[0] > 0
    assert n_passes[1] == 0
    assert len(compiling.stdout.split()) == 3
    assert loading_only.stdout == compiling.stdout
