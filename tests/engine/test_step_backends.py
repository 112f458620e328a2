"""Ways to take steps: how one is chosen, and what it takes to add one."""

import numpy as np
from parity import X, assert_same_net, search, y

from sktune import NeuralNetClassifier
from sktune.engine import group
from sktune.engine.steps import CompiledSteps, LaunchedSteps, RecordedSteps, StackedSteps

NET = NeuralNetClassifier(module__hidden=(8,), max_epochs=3, batch_size=16, random_state=0)
LANES = [{"lr": 0.01}, {"lr": 0.05}]


class LoggingSteps(StackedSteps):
    """Takes stacked steps, and notes what it is asked."""

    name = "logging"
    calls = []

    def blocker(self, specs, tables, options):
        self.calls.append("blocker")
        return super().blocker(specs, tables, options)

    def prepare(self, lanes, options):
        self.calls.append("prepare")
        super().prepare(lanes, options)

    def run_epoch(self, epoch, rates):
        self.calls.append(f"epoch {epoch}")
        return super().run_epoch(epoch, rates)

    def state(self, position):
        self.calls.append(f"state {position}")
        return super().state(position)


class Refusing(LoggingSteps):
    name = "refusing"

    def blocker(self, specs, tables, options):
        return "it refuses"


def test_a_backend_that_is_added_takes_the_steps(monkeypatch):
    monkeypatch.setattr(LoggingSteps, "calls", [])
    monkeypatch.setattr(group, "STEP_BACKENDS", [Refusing, LoggingSteps])
    _, nets, report = search(NET, LANES, X, y, n_jobs=1)
    with monkeypatch.context() as patch:
        patch.setattr(group, "STEP_BACKENDS", [StackedSteps])
        _, references, _ = search(NET, LANES, X, y, n_jobs=1)

    assert [row["steps"] for row in report.groups] == ["logging"]
    assert report.groups[0]["blockers"] == {"refusing": "it refuses"}
    epochs = [f"epoch {n}" for n in range(3)]
    states = [f"state {n}" for n in range(4)]
    assert LoggingSteps.calls == ["blocker", "prepare", *epochs, *states]
    for reference, net in zip(references, nets, strict=True):
        assert_same_net(reference, net, rtol=0)


def test_where_no_backend_can_the_last_blocker_is_the_reason(monkeypatch):
    monkeypatch.setattr(group, "STEP_BACKENDS", [Refusing])
    found, _, report = search(NET, LANES, X, y)

    assert {fit["reason"] for fit in report.alone} == {"it refuses"}
    assert np.isfinite(found.cv_results_["mean_test_score"]).all()


def test_each_way_has_a_name_of_its_own():
    names = [kind.name for kind in (LaunchedSteps, RecordedSteps, CompiledSteps, StackedSteps)]

    assert names == ["launched", "recorded", "compiled", "stacked"]
