"""Steps that are recorded and replayed.

In place of a CUDA graph stands a class that records torch's operations, so that no GPU is needed.
"""

from contextlib import nullcontext

import pytest
import torch
from parity import RAGGED, X, X_reg, assert_parity, search, y, y_reg
from torch.utils._python_dispatch import TorchDispatchMode

from sktune import NeuralNetClassifier, NeuralNetRegressor
from sktune.engine.compiled import program as compiled
from sktune.engine.steps import recorded


class Graph:
    """Records operations as a CUDA graph does: with the memory that they read and write."""

    made = 0
    replays = 0

    def __init__(self):
        Graph.made += 1
        self.operations = []
        # While recording, this graph computes, which a GPU does not.
        self.is_new = True
        self.recorder = Recorder(self)

    def capture_begin(self, capture_error_mode):
        assert capture_error_mode == "thread_local"
        self.recorder.__enter__()

    def capture_end(self):
        self.recorder.__exit__(None, None, None)

    def replay(self):
        """Do the operations again; the first replay finds them done by the recording."""
        Graph.replays += 1
        if self.is_new:
            self.is_new = False
            return
        with torch.no_grad():
            for operation in self.operations:
                repeat(*operation)


def tensors_in(*things):
    """Return the tensors among some things, and in the lists and tuples among them."""
    tensors = []
    for thing in things:
        parts = thing if isinstance(thing, list | tuple) else [thing]
        tensors += [part for part in parts if torch.is_tensor(part)]
    return tensors


def repeat(function, args, kwargs, outputs):
    """Call a function again, and write what it returns to the tensors that it returned before."""
    memory = {t.untyped_storage().data_ptr() for t in tensors_in(*args, *kwargs.values())}
    found = function(*args, **kwargs)
    for old, new in zip(tensors_in(outputs), tensors_in(found), strict=True):
        is_view_or_in_place = old.untyped_storage().data_ptr() in memory
        if not is_view_or_in_place:
            old.copy_(new)


class Recorder(TorchDispatchMode):
    def __init__(self, graph):
        super().__init__()
        self.graph = graph

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        assert "_local_scalar_dense" not in str(function), (
            "a recorded step must not wait for the device"
        )
        outputs = function(*args, **(kwargs or {}))
        self.graph.operations.append((function, args, kwargs or {}, outputs))
        return outputs


class Stream:
    def __init__(self, device=None):
        pass

    def wait_stream(self, stream):
        assert isinstance(stream, Stream)


@pytest.fixture
def graphs(monkeypatch):
    monkeypatch.setattr(compiled, "enabled", False)
    monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
    monkeypatch.setattr(torch.cuda, "Stream", Stream)
    monkeypatch.setattr(torch.cuda, "current_stream", Stream)
    monkeypatch.setattr(torch.cuda, "stream", nullcontext)
    monkeypatch.setattr(recorded, "FEWEST_STEPS", 1)
    monkeypatch.setattr(recorded, "find_recording_blocker", lambda spec: "")
    monkeypatch.setattr(Graph, "replays", 0)
    monkeypatch.setattr(Graph, "made", 0)
    return Graph


def net(kind=NeuralNetClassifier, **options):
    options = {
        "module__hidden": (8, 4),
        "module__dtype": torch.float64,
        "max_epochs": 6,
        "batch_size": 16,
        **options,
    }
    return kind(random_state=3, **options)


ONE_STREAM = {"cv": RAGGED[:1]}
LANES = [
    {"lr": 0.01, "module__dropout": 0.2},
    {"lr": 0.03, "optimizer__weight_decay": 0.1, "module__dropout": 0.5},
]
CASES = {
    "one_stream": (net(), LANES, ONE_STREAM),
    "ragged": (net(), LANES, {}),
    "seeds": (net(), [{**lane, "random_state": n} for n, lane in enumerate(LANES)], {}),
    "schedule": (net(lr_schedule="cosine", lr_schedule__warmup=1), LANES, {}),
    "penalties": (net(), [{**lane, "l1": 0.01, "l2": 0.1 * n} for n, lane in enumerate(LANES)], {}),
    "sgd": (
        net(optimizer=torch.optim.SGD, optimizer__momentum=0.9),
        [{"lr": 0.1}, {"lr": 0.2}],
        {},
    ),
    "nadam": (net(optimizer=torch.optim.NAdam), [{"lr": 0.01}, {"lr": 0.02}], {}),
    "adam_one_by_one": (net(), [{"optimizer__betas": (b, 0.99)} for b in (0.8, 0.9)], {}),
    "lanes_that_end": (
        net(early_stopping=True, optimizer=torch.optim.SGD, module__dropout=0.1),
        [{"lr": 0.1, "max_epochs": n} for n in (2, 4, 6)],
        {},
    ),
    "activation": (net(module__activation="gelu"), LANES, {}),
    "smoothed": (net(criterion__label_smoothing=0.1), LANES, {}),
    "class_weight": (net(class_weight={0: 2.0}), LANES, {}),
}


@pytest.mark.parametrize("name", CASES)
def test_replayed_steps_are_those_of_each_net_alone(graphs, name):
    estimator, lanes, options = CASES[name]
    report = assert_parity(estimator, lanes, X, y, **options)

    n_fits = len(lanes) * len(options.get("cv", RAGGED))
    assert sum(group["lanes"] for group in report.groups) == n_fits
    assert graphs.replays > 6
    if name == "ragged":
        # Only whole batches are steps of all lanes.
        assert graphs.made == 1


def test_replayed_steps_of_a_regression(graphs):
    assert_parity(net(NeuralNetRegressor), LANES, X_reg, y_reg)
    assert graphs.replays > 10


def test_what_cannot_be_recorded_is_taken_as_it_is(graphs, monkeypatch):
    def begin(self, capture_error_mode):
        raise RuntimeError("another capture is underway")

    monkeypatch.setattr(Graph, "capture_begin", begin)
    monkeypatch.setattr(Graph, "capture_end", lambda self: None)
    report = assert_parity(net(), LANES, X, y)

    assert [group["lanes"] for group in report.groups] == [4]
    assert graphs.made == 1
    assert not graphs.replays


def test_few_steps_are_not_recorded(graphs, monkeypatch):
    monkeypatch.setattr(recorded, "FEWEST_STEPS", 6 * 5 + 1)
    assert_parity(net(), LANES, X, y)

    assert not graphs.made


def test_a_cpu_records_nothing():
    _, _, report = search(net(), LANES, X, y)

    assert {group["steps"] for group in report.groups} <= {"compiled", "stacked"}
    blockers = [group["blockers"]["recorded"] for group in report.groups]
    assert set(blockers) == {"steps are recorded on a GPU only"}
