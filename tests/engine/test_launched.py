"""Steps by launches of a kernel: what is decided and sent by the host.

What the kernel computes is tested by Triton's interpreter, in ``tests/interpreted_kernel``.
"""

import subprocess
import sys
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from parity import search
from test_fits_as_data import X, collect, y
from torch import nn

from sktune import NeuralNetClassifier
from sktune.engine.compiled import opcodes
from sktune.engine.steps.base import StepOptions
from sktune.engine.steps.launched import backend, choice, layout
from sktune.engine.steps.launched.choice import Choice
from sktune.engine.steps.launched.columns import lane_columns, step_columns
from sktune.engine.steps.launched.constants import choose_constants
from sktune.engine.steps.launched.program import Unknown, read_program

FOLDER = Path(__file__).parents[1] / "interpreted_kernel"


@pytest.fixture(autouse=True)
def _fresh(monkeypatch):
    monkeypatch.setattr(choice, "FAILURES", choice.Failures())
    monkeypatch.setattr(choice, "mode", "auto")
    monkeypatch.setattr(choice, "_verdicts", {})
    monkeypatch.setattr(choice, "_compiled", {})


@pytest.mark.slow
def test_the_interpreted_kernel_gives_what_plain_fits_give():
    if find_spec("triton") is None:
        pytest.skip("Triton is not installed")
    command = [sys.executable, FOLDER / "run_interpreted.py", FOLDER, "-q"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-1000:]
    assert " passed" in done.stdout


def net(**options):
    options = {"module__hidden": (8,), "max_epochs": 3, "batch_size": 16, **options}
    return NeuralNetClassifier(random_state=0, **options)


def specs_of(monkeypatch, estimator, lanes=({},), **options):
    ((specs, tables),) = collect(monkeypatch, estimator, lanes, X, y, **options)
    return specs, tables


def test_a_processor_launches_nothing():
    _, _, report = search(net(), [{"lr": 0.01}, {"lr": 0.02}], X, y)

    blockers = [group["blockers"]["launched"] for group in report.groups]
    assert set(blockers) == {"a kernel is launched on a GPU only"}


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(6, 6)
        self.last = nn.Linear(6, 3)

    def forward(self, X):
        return self.last(X + self.layer(X))


REASONS = {
    "no chain": (NeuralNetClassifier(Residual, random_state=0), "no chain of linear layers"),
    "normalisation": (net(module__batch_norm=True), "no chain of linear layers"),
    "optimizer": (net(optimizer=torch.optim.NAdam), "does not know its optimizer"),
    "criterion": (net(criterion=nn.MultiMarginLoss), "does not know its criterion"),
    "activation": (net(module__activation=nn.GELU(approximate="tanh")), "approximate='tanh'"),
    "softplus": (
        net(module__activation="softplus"),
        "the kernel does not know its layer layers.1, a Softplus",
    ),
    "mish": (net(module__activation="mish"), "the kernel does not know its layer layers.1, a Mish"),
    "half": (net(module__dtype=torch.bfloat16), "not of float32 or float64"),
    "summed": (net(criterion__reduction="sum"), "does not know its criterion"),
    "amsgrad": (net(optimizer__amsgrad=True), "an option of its optimizer"),
    "clipped": (net(clip_grad_norm=1.0), "its gradients are clipped"),
    "augmented": (net(augment="table", augment__noise=0.1), "its rows are augmented"),
}


@pytest.mark.parametrize("case", REASONS)
def test_what_the_kernel_does_not_cover_is_told(monkeypatch, case):
    estimator, reason = REASONS[case]
    monkeypatch.setattr(backend, "find_device_blocker", lambda spec: "")
    monkeypatch.setattr(backend, "load_kernel", lambda: None)
    specs, tables = specs_of(monkeypatch, estimator)

    assert reason in backend.LaunchedSteps().blocker(specs, tables, StepOptions())


def test_settings_that_the_kernel_does_not_cover_are_told(monkeypatch):
    monkeypatch.setattr(backend, "find_device_blocker", lambda spec: "")
    monkeypatch.setattr(backend, "load_kernel", lambda: None)
    specs, tables = specs_of(monkeypatch, net())
    steps = backend.LaunchedSteps()

    assert steps.blocker(specs, tables, StepOptions()) == ""
    lowered = StepOptions(product_dtype=torch.bfloat16)
    assert "of another type" in steps.blocker(specs, tables, lowered)
    monkeypatch.setattr(backend, "_LARGEST", 16 * 8 - 1)
    assert "so large that torch is faster" in steps.blocker(specs, tables, StepOptions())
    choice.FAILURES.note(RuntimeError("out of registers\nat line 1"))
    reason = "a launch has failed: out of registers"
    assert steps.blocker(specs, tables, StepOptions()) == reason
    monkeypatch.setattr(choice, "mode", "0")
    assert "SKTUNE_LAUNCHED=0" in steps.blocker(specs, tables, StepOptions())


@pytest.mark.skipif(find_spec("triton") is not None, reason="Triton is installed")
def test_the_reason_names_triton_where_it_is_missing(monkeypatch):
    monkeypatch.setattr(backend, "find_device_blocker", lambda spec: "")
    specs, tables = specs_of(monkeypatch, net())

    reason = backend.LaunchedSteps().blocker(specs, tables, StepOptions())
    assert reason.endswith("needs Triton: pip install triton")


def test_a_program_lists_the_layers_and_has_a_place_for_each_table(monkeypatch):
    estimator = net(module__hidden=(8, 5), module__activation="leaky_relu", module__dropout=0.2)
    (spec, *_), tables = specs_of(monkeypatch, estimator)
    program = read_program(spec, tables[spec.rows.table])

    assert program.widths == (6, 8, 5, 3)
    assert program.operations.tolist() == [
        [opcodes.LEAKY_RELU, 0, 0, 0],
        [opcodes.DROPOUT_LAYER, 0, 0, 0],
        [opcodes.LEAKY_RELU, 0, 0, 0],
        [opcodes.DROPOUT_LAYER, 1, 1, 0],
    ]
    assert program.settings.tolist() == [0.01, 0, 0.01, 0]
    assert program.known == 1 << opcodes.LEAKY_RELU | 1 << opcodes.DROPOUT_LAYER
    stages, size = program.place(16)
    places = stages[:, [layout.INPUTS_AT, layout.OUTPUTS_AT, layout.SLOPES_AT]]
    # the inputs of a layer are the outputs of the one before it; no two tables overlap
    widths_at = {0: 6}
    for row, width in zip(places, (8, 5, 3), strict=True):
        widths_at |= dict.fromkeys(row[1:].tolist(), width)
    assert places[1:, 0].tolist() == places[:-1, 1].tolist()
    ends = np.cumsum([16 * width for _, width in sorted(widths_at.items())])
    assert sorted(widths_at) == [0, *ends[:-1]]
    assert size == ends[-1]
    assert stages[:, layout.INPUT_SLOPES_AT].tolist() == [-1, *places[:-1, 2]]
    assert stages[:, layout.WEIGHT].tolist() == [0, 6 * 8 + 8, 6 * 8 + 8 + 8 * 5 + 5]


def test_a_layer_that_gets_another_number_of_features_is_told(monkeypatch):
    (spec, *_), _ = specs_of(monkeypatch, net())
    rows = SimpleNamespace(X=torch.zeros(4, 7), target=torch.zeros(4, dtype=torch.long))

    with pytest.raises(Unknown, match="takes another number of features"):
        read_program(spec, rows)


class WithIdle(nn.Module):
    """Its first layer and its middle one are not called."""

    def __init__(self, n_outputs=3):
        super().__init__()
        self.aux = nn.Linear(4, 2)
        self.first = nn.Linear(6, 5)
        self.norm = nn.Linear(5, 5)
        self.last = nn.Linear(5, n_outputs)

    def forward(self, X):
        return self.last(torch.tanh(self.first(X)))


def test_layers_that_nothing_calls_have_no_place(monkeypatch):
    (spec, *_), tables = specs_of(monkeypatch, NeuralNetClassifier(WithIdle))
    program = read_program(spec, tables[spec.rows.table])

    assert program.stages[:, layout.WEIGHT].tolist() == [0, 6 * 5 + 5]
    assert program.stages[:, layout.BIAS].tolist() == [6 * 5, 6 * 5 + 5 + 3 * 5]


def test_penalties_on_layers_that_nothing_calls_are_told(monkeypatch):
    (spec, *_), tables = specs_of(monkeypatch, NeuralNetClassifier(WithIdle, l2=0.1))

    with pytest.raises(Unknown, match="its penalties train a weight that no layer uses"):
        read_program(spec, tables[spec.rows.table])


@pytest.mark.parametrize("options", [{"maximize": True}, {"lr": torch.tensor(0.1)}])
def test_options_of_an_optimizer_that_the_kernel_does_not_know_are_told(monkeypatch, options):
    (spec, *_), tables = specs_of(monkeypatch, net())
    optimizer = replace(spec.optimizer, options=spec.optimizer.options | options)

    with pytest.raises(Unknown, match="an option of its optimizer|its learning rate is a tensor"):
        read_program(replace(spec, optimizer=optimizer), tables[spec.rows.table])


def test_the_numbers_of_steps_are_those_of_the_optimizer(monkeypatch):
    lanes = [{"optimizer__betas": (0.8, 0.9), "optimizer__weight_decay": 0.1, "l2": 0.3}]
    (spec, *_), _ = specs_of(monkeypatch, net(), lanes)
    found = step_columns(spec, "ADAM", [0.5, 0.25], n_done=2)

    np.testing.assert_allclose(found[:, 0], [0.5 / (1 - 0.8**3), 0.25 / (1 - 0.8**4)])
    np.testing.assert_allclose(found[:, 1], [(1 - 0.9**3) ** -0.5, (1 - 0.9**4) ** -0.5])
    np.testing.assert_allclose(found[:, 2], [0.95, 0.975])
    np.testing.assert_allclose(lane_columns(spec, "ADAM"), [0, 0, 0.3, 0.2, 0.9, 0.1, 1e-8])


def test_the_first_step_of_momentum_is_not_damped(monkeypatch):
    momentum = {"optimizer__momentum": 0.9, "optimizer__dampening": 0.4}
    estimator = net(optimizer=torch.optim.SGD, **momentum, optimizer__weight_decay=0.1)
    (spec, *_), _ = specs_of(monkeypatch, estimator)

    assert step_columns(spec, "SGD", [1, 1], n_done=0)[:, 1].tolist() == [1, 0.6]
    assert step_columns(spec, "SGD", [1, 1], n_done=1)[:, 1].tolist() == [0.6, 0.6]
    assert lane_columns(spec, "SGD").tolist() == [0.1, 0, 0, 0.9, 0, 0, 0]


@pytest.mark.parametrize(
    ("hidden", "batch_size", "tile", "n_warps"),
    [((8,), 8, (16, 16), 4), ((33,), 48, (64, 64), 8), ((500,), 20, (32, 64), 4)],
)
def test_tiles_are_powers_of_2_that_fit_batches_and_layers(
    monkeypatch, hidden, batch_size, tile, n_warps
):
    estimator = net(module__hidden=hidden, batch_size=batch_size)
    (spec, *_), tables = specs_of(monkeypatch, estimator)
    rows = SimpleNamespace(dtype=torch.float32, weight=None)
    program = read_program(spec, tables[spec.rows.table])
    constants = choose_constants(program, [SimpleNamespace(spec=spec, rows=rows)])

    found = (constants.ROWS, constants.COLUMNS)
    assert found == tile
    assert constants.options["num_warps"] == n_warps
    assert constants.PRECISION == "ieee"


def test_each_way_is_measured_after_an_epoch_that_sets_it_up():
    found = Choice("group", "kernel")
    for seconds in (9.0, 5.0):
        assert not found.launches(n_epochs=100)
        assert found.measures("recorded")
        found.note("recorded", seconds)
    assert not found.measures("recorded")
    for seconds in (7.0, 3.0):
        assert found.launches(n_epochs=100)
        assert found.measures("launched")
        found.note("launched", seconds)

    assert found.launches(n_epochs=1)
    assert not found.measures("launched")
    assert found.verdict == choice.Verdict(recorded=5.0, launched=3.0, compilation=7.0)
    expected = "an epoch took 5000.00 ms recorded, 3000.00 ms launched; the first launch, 7.0 s"
    assert found.explain() == expected
    # another group like this one need not measure
    assert Choice("group", "kernel").launches(n_epochs=1)
    assert not Choice("another", "kernel").launches(n_epochs=1)


def test_launches_that_are_slower_are_not_taken():
    found = Choice("group", "kernel")
    for way in ("recorded", "recorded", "launched", "launched"):
        found.note(way, 2.0)

    assert not found.launches(n_epochs=100)


def test_a_kernel_is_not_compiled_for_a_short_training():
    found = Choice("group", "kernel")
    found.note("recorded", 1.0)
    found.note("recorded", 1.0)

    assert not found.launches(n_epochs=9)
    assert found.launches(n_epochs=11)
    # once it is compiled, it can be tried
    Choice("another", "kernel").note("launched", 5.0)
    assert found.launches(n_epochs=2)


@pytest.mark.parametrize("mode", ["0", "1"])
def test_the_user_can_decide(monkeypatch, mode):
    monkeypatch.setattr(choice, "mode", mode)
    found = Choice("group", "kernel")

    assert found.launches(n_epochs=1) == (mode == "1")
    assert not found.measures("launched")
    assert found.explain() == f"SKTUNE_LAUNCHED is {mode}"


def test_after_a_failure_nothing_is_launched(monkeypatch):
    monkeypatch.setattr(choice, "mode", "1")
    choice.FAILURES.note(RuntimeError())

    assert not Choice("group", "kernel").launches(n_epochs=1)
    assert Choice("group", "kernel").explain() == "a launch has failed: RuntimeError"
