"""Steps are recorded on a GPU only; ``tests/simulated_device`` has the tests of recordings."""

import torch
from parity import X, search, y
from sklearn.base import clone

from sktune import NeuralNetClassifier
from sktune.engine.steps import recorded
from sktune.engine.steps.recorded import RecordedSteps, find_recording_blocker

NET = NeuralNetClassifier(module__hidden=(8, 4), max_epochs=6, batch_size=16, random_state=3)
_BLOCKER = RecordedSteps.blocker
LANES = [{"lr": 0.01, "module__dropout": 0.2}, {"lr": 0.03, "module__dropout": 0.5}]


def find_blockers(net, monkeypatch):
    """Return why the steps of a net would not be recorded, were its parameters on a GPU."""
    monkeypatch.setattr(recorded, "find_recording_blocker", lambda spec: "")
    seen = []

    def note(self, specs, tables, options):
        seen.append(_BLOCKER(self, specs, tables, options))
        return "it is only asked"

    monkeypatch.setattr(RecordedSteps, "blocker", note)
    search(net, LANES[:1], X, y)
    return set(seen)


def test_a_cpu_records_nothing():
    _, _, report = search(NET, LANES, X, y)

    assert {group["steps"] for group in report.groups} <= {"compiled", "stacked"}
    blockers = [group["blockers"].get("recorded") for group in report.groups]
    expected = "steps are recorded on a GPU only"
    assert set(blockers) == {expected}


def test_what_a_recording_would_drop_is_not_recorded(monkeypatch):
    normed = clone(NET).set_params(module__batch_norm=True)
    assert find_blockers(normed, monkeypatch) == {"its layers keep statistics of their own"}
    augmented = clone(NET).set_params(augment="table", augment__noise=0.1)
    assert find_blockers(augmented, monkeypatch) == {"its rows are augmented"}


def test_the_reason_names_the_device():
    spec = type("Spec", (), {})()
    spec.module = type("Module", (), {"module": torch.nn.Linear(1, 1)})()
    assert find_recording_blocker(spec) == "steps are recorded on a GPU only"
