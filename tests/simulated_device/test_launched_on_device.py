"""Groups that a kernel is meant to train by launches: the way that they take, and what is told."""

import os
from importlib.util import find_spec

import pytest
import torch
from device import Graph
from parity import RAGGED, X, assert_parity, search, y

from sktune import NeuralNetClassifier
from sktune.engine.steps.launched import backend, choice, loading

# Triton asks as it is imported
os.environ["TRITON_INTERPRET"] = "1"
needs_triton = pytest.mark.skipif(find_spec("triton") is None, reason="Triton is not installed")
LANES = [
    {"lr": 0.01, "module__dropout": 0.2},
    {"lr": 0.03, "optimizer__weight_decay": 0.1, "module__dropout": 0.5},
]


@pytest.fixture(autouse=True)
def _device(recording_gpu, monkeypatch):
    monkeypatch.setattr(choice, "FAILURES", choice.Failures())
    monkeypatch.setattr(choice, "mode", "auto")
    monkeypatch.setattr(choice, "_COMPILATION", 0.0)
    monkeypatch.setattr(choice, "_verdicts", {})
    monkeypatch.setattr(choice, "_compiled", {})


def net(**options):
    options = {"module__hidden": (8,), "module__dtype": torch.float64, **options}
    options = {"max_epochs": 7, "batch_size": 16, **options}
    return NeuralNetClassifier(random_state=3, **options)


class Kernel:
    """Stands for the kernel: notes how it is launched."""

    def __init__(self):
        self.grids = []

    def __getitem__(self, grid):
        self.grids.append(grid)
        return self.compute


class FailingKernel(Kernel):
    def compute(self, *arguments, **constants):
        raise RuntimeError("PassManager::run failed\nand many lines more")


class InterpretedKernel(Kernel):
    """The kernel itself, interpreted on copies of what lies on the device."""

    def compute(self, *arguments, **constants):
        # one tensor may stand for several arguments
        tensors = {id(one): one for one in arguments if isinstance(one, torch.Tensor)}
        copies = {name: one.cpu() for name, one in tensors.items()}
        on_host = [copies.get(id(one), one) for one in arguments]
        loading.load_kernel()[self.grids[-1]](*on_host, **constants)
        for name, one in tensors.items():
            one.copy_(copies[name])


def use(kernel, monkeypatch, seconds=None):
    """Let a kernel be launched; an epoch takes `seconds` in each way, if they are given."""
    monkeypatch.setattr(backend, "load_kernel", lambda: kernel)
    if seconds is not None:
        note = choice.Choice.note
        monkeypatch.setattr(
            choice.Choice, "note", lambda self, way, _: note(self, way, seconds[way])
        )


def ways_of(monkeypatch):
    """Return a list that the way of each epoch will be added to."""
    ways = []
    decide = choice.Choice.launches

    def note(self, n_epochs):
        ways.append("launched" if decide(self, n_epochs) else "recorded")
        return ways[-1] == "launched"

    monkeypatch.setattr(choice.Choice, "launches", note)
    return ways


@pytest.mark.skipif(find_spec("triton") is not None, reason="Triton is installed")
def test_without_triton_steps_are_recorded_and_the_reason_names_it(gpu):
    _, _, report = search(net(), LANES, X, y)

    (group,) = report.groups
    assert group["steps"] == "recorded"
    assert group["blockers"]["launched"].endswith("needs Triton: pip install triton")


@pytest.mark.parametrize("obstacle", [None, "another capture is underway"])
def test_a_launch_that_fails_is_told_and_replaced(gpu, monkeypatch, obstacle):
    kernel = FailingKernel()
    use(kernel, monkeypatch)
    monkeypatch.setattr(choice, "mode", "1")
    monkeypatch.setattr(Graph, "obstacle", obstacle)
    report = assert_parity(net(), LANES, X, y)

    (group,) = report.groups
    assert group["steps"] == ("stacked" if obstacle else "recorded")
    assert group["blockers"]["launched"] == "a launch has failed: PassManager::run failed"
    assert ("recorded" in group["blockers"]) == (obstacle is not None)
    # nothing is tried again after the first failure in a process
    assert kernel.grids == [(4,)]


def test_launches_can_be_switched_off(gpu, monkeypatch):
    use(FailingKernel(), monkeypatch)
    monkeypatch.setattr(choice, "mode", "0")
    _, _, report = search(net(), LANES, X, y)

    (group,) = report.groups
    assert group["steps"] == "recorded"
    reason = "launches are switched off (SKTUNE_LAUNCHED=0)"
    assert group["blockers"]["launched"] == reason


def test_groups_that_need_much_memory_are_recorded(gpu, monkeypatch):
    kernel = FailingKernel()
    use(kernel, monkeypatch)
    monkeypatch.setattr(choice, "mode", "1")
    monkeypatch.setattr(backend, "_MOST_BYTES", 4 * 16 * (6 + 2 * 8 + 2 * 3) * 8 - 1)
    _, _, report = search(net(), LANES, X, y)

    (group,) = report.groups
    assert group["steps"] == "recorded"
    assert group["blockers"]["launched"].startswith("what its layers compute takes 0 MiB")
    assert not kernel.grids


def test_short_trainings_are_not_worth_a_compilation(gpu, monkeypatch):
    kernel = FailingKernel()
    use(kernel, monkeypatch)
    monkeypatch.setattr(choice, "_COMPILATION", 10.0)
    _, _, report = search(net(), LANES, X, y)

    (group,) = report.groups
    assert group["steps"] == "recorded"
    assert "too short to find out" in group["blockers"]["launched"]
    assert not kernel.grids


@needs_triton
@pytest.mark.parametrize("is_faster", [True, False])
@pytest.mark.parametrize("optimizer", [torch.optim.SGD, torch.optim.AdamW])
def test_the_faster_way_is_taken_and_told(gpu, monkeypatch, is_faster, optimizer):
    kernel = InterpretedKernel()
    use(kernel, monkeypatch, {"recorded": 0.5, "launched": 0.2 if is_faster else 0.8})
    ways = ways_of(monkeypatch)
    monkeypatch.setattr("parity.compiled.enabled", False)
    report = assert_parity(net(optimizer=optimizer), LANES, X, y, cv=RAGGED)

    (group,) = report.groups
    winner = "launched" if is_faster else "recorded"
    assert group["steps"] == winner
    (other,) = {"launched", "recorded"} - {winner}
    expected = "an epoch took 500.00 ms recorded, 200.00 ms launched"
    assert group["blockers"][other].startswith(expected if is_faster else "an epoch took 500.00 ms")
    assert ways == ["recorded"] * 2 + ["launched"] * 2 + [winner] * 3
    # what was found holds for the next group
    ways.clear()
    search(net(optimizer=optimizer), LANES, X, y, cv=RAGGED)
    assert ways == [winner] * 7


@needs_triton
def test_groups_are_launched_in_turn(gpu, monkeypatch):
    use(InterpretedKernel(), monkeypatch)
    monkeypatch.setattr(choice, "mode", "1")
    begun = []
    begin = backend.LaunchedSteps.begin_epoch

    def note(self, epoch, rates):
        begun.append(self.lanes[0].spec.sampling.batch_size)
        return begin(self, epoch, rates)

    monkeypatch.setattr(backend.LaunchedSteps, "begin_epoch", note)
    lanes = [{"batch_size": size, "max_epochs": 2} for size in (16, 32)]
    _, _, report = search(net(), lanes, X, y, n_jobs=2)

    assert [group["steps"] for group in report.groups] == ["launched"] * 2
    assert begun in ([16, 32, 16, 32], [32, 16, 32, 16])


@needs_triton
def test_lanes_that_are_done_are_not_launched(gpu, monkeypatch):
    kernel = InterpretedKernel()
    use(kernel, monkeypatch)
    monkeypatch.setattr(choice, "mode", "1")
    monkeypatch.setattr("parity.compiled.enabled", False)
    lanes = [{"max_epochs": n, "lr": 0.01 * n} for n in (1, 3, 4)]
    assert_parity(net(), lanes, X, y, cv=RAGGED[:1])

    assert kernel.grids == [(3,), (2,), (2,), (1,)]
