"""Steps that are recorded: what is planned on the host.

What a GPU does with it is tested on a simulated one, by ``make gpu-simulated``.
"""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from parity import X, search, y
from sklearn.base import clone

from sktune import NeuralNetClassifier
from sktune.engine.steps import recorded
from sktune.engine.steps.recorded import RecordedSteps, find_recording_blocker
from sktune.engine.steps.recording.plan import EpochPlan
from sktune.training.batches import Batches
from sktune.training.rows import Rows

NET = NeuralNetClassifier(module__hidden=(8,), max_epochs=3, batch_size=16, random_state=0)


def make_lane(n_rows, seed=0, stream=None, batch_size=16):
    rows = Rows(torch.zeros(200, 2), target=np.zeros(200, dtype=int), dtype=torch.float32)
    batches = Batches(rows, torch.arange(n_rows), batch_size, seed=seed)
    return SimpleNamespace(batches=batches, stream=stream or object(), rows=rows)


def test_a_cpu_records_nothing():
    _, _, report = search(NET, [{"lr": 0.01}, {"lr": 0.02}], X, y)

    assert {group["steps"] for group in report.groups} <= {"compiled", "stacked"}
    blockers = [group["blockers"]["recorded"] for group in report.groups]
    assert set(blockers) == {"steps are recorded on a GPU only"}


def test_augmented_rows_are_not_recorded(monkeypatch):
    monkeypatch.setattr(recorded, "find_recording_blocker", lambda spec: "")
    found = []
    blocker = RecordedSteps.blocker

    def note(self, specs, tables, options):
        found.append(blocker(self, specs, tables, options))
        return "it is only asked"

    monkeypatch.setattr(RecordedSteps, "blocker", note)
    net = clone(NET).set_params(augment="table", augment__noise=0.1)
    search(net, [{"lr": 0.01}], X, y)

    assert set(found) == {"its rows are augmented"}


def test_the_reason_names_the_device():
    spec = SimpleNamespace(module=SimpleNamespace(module=torch.nn.Linear(1, 1)))

    assert find_recording_blocker(spec) == "steps are recorded on a GPU only"


def test_whole_batches_make_one_run_and_a_ragged_one_is_filled_up():
    lanes = [make_lane(73), make_lane(74)]
    plan = EpochPlan(lanes, pads=True)
    plan.divide(bytes_of_row=1)

    assert [(run.first, run.n_steps, run.n_rows, run.is_ragged) for run in plan.runs] == [
        (0, 4, 16, False),
        (4, 1, 10, True),
    ]
    assert not plan.apart
    orders = plan.orders(epoch=2)
    expected = [lane.batches.order(2) for lane in lanes]
    assert orders.shape == (2, 74)
    assert orders[1].equal(expected[1])
    assert orders[0, :73].equal(expected[0])
    # the row that is missing is the first one once more
    assert orders[0, 73] == expected[0][0]
    weights = plan.weights(plan.runs[1], torch.device("cpu"), torch.float64)
    np.testing.assert_allclose(weights.mean(1), 1.0)
    assert weights[0, 9] == 0
    assert weights[1].unique().tolist() == [1.0]
    assert plan.weights(plan.runs[0], torch.device("cpu"), torch.float64) is None


def test_modules_that_look_at_all_rows_of_a_batch_take_ragged_steps_apart():
    plan = EpochPlan([make_lane(73), make_lane(74)], pads=False)
    plan.divide(bytes_of_row=1)

    assert [run.n_steps for run in plan.runs] == [4]
    assert plan.apart == [4]


def test_a_step_that_some_folds_do_not_take_is_apart():
    # 64 and 66 rows: 4 batches of 16, and a fifth of 2
    plan = EpochPlan([make_lane(64), make_lane(66)], pads=True)
    plan.divide(bytes_of_row=1)

    assert plan.has_more_steps
    assert plan.apart == [4]
    assert [run.n_steps for run in plan.runs] == [4]


def test_lanes_of_a_stream_share_its_order():
    stream = object()
    plan = EpochPlan(
        [make_lane(64, stream=stream), make_lane(64), make_lane(64, stream=stream)], True
    )

    assert len(plan.orders(0)) == 2
    assert plan.stream_of.tolist() == [0, 1, 0]


@pytest.mark.parametrize("longest", [1, 8, 64])
def test_runs_are_as_long_as_memory_allows(longest):
    plan = EpochPlan([make_lane(199, batch_size=2), make_lane(199, batch_size=2)], True)
    # 64 MB for all steps of a run, of 2 rows each
    plan.divide((1 << 26) // (2 * longest))

    assert max(run.n_steps for run in plan.runs) == longest
    assert sum(run.n_steps for run in plan.runs) == len(plan.most)


def test_an_order_that_is_not_shuffled_is_that_of_the_table():
    lanes = [make_lane(64, seed=None), make_lane(64, seed=None)]

    assert EpochPlan(lanes, True).orders(3)[0].tolist() == list(range(64))
