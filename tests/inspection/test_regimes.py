"""Regimes of the learning rate are read off training losses."""

import numpy as np
import pytest
from sklearn.datasets import load_iris

import sktune
from sktune.inspection.advice.context import Context
from sktune.inspection.advice.curve_rules import find_lr_too_large, find_lr_too_small
from sktune.inspection.records import CurveTable, name_regimes, read_search

EPOCHS = np.arange(20)
NOISE = np.random.default_rng(0).normal(size=20)
FAST = 0.9 * 0.6**EPOCHS + 0.05
SWINGING = np.where(EPOCHS % 2, 0.3, 0.8) - EPOCHS / 100
CURVES = {
    "still falling": (1.0 - 0.005 * EPOCHS, "too small"),
    "still falling with noise": (1.0 - 0.02 * EPOCHS + 0.01 * NOISE, "too small"),
    "fast": (FAST, "good"),
    "fast with noise": (FAST + 0.01 * NOISE, "good"),
    "levels off high": (0.5 + 0.5 * 0.5**EPOCHS, "good"),
    "levels off high with noise": (0.5 + 0.5 * 0.5**EPOCHS + 0.01 * NOISE, "good"),
    "rises": (0.3 + 0.05 * EPOCHS, "too large"),
    "oscillates": (0.5 + 0.3 * (-1.0) ** EPOCHS, "too large"),
    "jumps and comes back": (np.where(EPOCHS == 1, 20.0, FAST), "too large"),
    "falls from far above": (200 * 0.8**EPOCHS, "too large"),
    "ends in nan": (np.where(EPOCHS == 19, np.nan, FAST), "too large"),
    "inf": (np.full(20, np.inf), "too large"),
    "stays": (1.0 + 0.001 * NOISE, ""),
    "none": (np.empty(0), ""),
    "two epochs": (np.array([1.0, 0.9]), ""),
}


def make_table(curves, n_splits=1):
    """Return a CurveTable in which all splits of a candidate have the same training losses."""
    columns = {"candidate": [], "split": [], "epoch": [], "train_loss": []}
    for candidate, losses in enumerate(curves):
        for split in range(n_splits):
            columns["candidate"] += [candidate] * len(losses)
            columns["split"] += [split] * len(losses)
            columns["epoch"] += list(range(1, len(losses) + 1))
            columns["train_loss"] += list(losses)
    return CurveTable.from_columns(columns, len(curves), n_splits)


@pytest.mark.parametrize("scale", [1.0, 1e-4, 1e4])
@pytest.mark.parametrize("shift", [0.0, -0.5])
def test_names(scale, shift):
    table = make_table([scale * (losses + shift) for losses, _ in CURVES.values()])
    names = dict(zip(CURVES, name_regimes(table).tolist(), strict=True))
    assert names == {name: expected for name, (_, expected) in CURVES.items()}


def test_one_split_that_diverges_is_enough():
    table = make_table([FAST, FAST], n_splits=3)
    table.train_loss[1, 2, 4] = np.inf
    table.n_epochs[1, 2] = 5
    assert name_regimes(table).tolist() == ["good", "too large"]


def test_splits_that_end_early_make_no_jump():
    table = make_table([FAST], n_splits=2)
    table.train_loss[0, 1] += 1.0
    table.n_epochs[0, 1] = 8
    assert name_regimes(table).tolist() == ["good"]


def test_one_candidate_is_its_own_reference():
    assert name_regimes(make_table([FAST])).tolist() == ["good"]
    # a straight line to the end
    assert name_regimes(make_table([1.0 - 0.005 * EPOCHS])).tolist() == ["too small"]
    assert name_regimes(make_table([0.3 + 0.05 * EPOCHS])).tolist() == ["too large"]
    assert name_regimes(make_table([np.full(20, np.nan)])).tolist() == ["too large"]


def with_rates(table, rates):
    table.lr[:] = np.reshape(rates, (-1, 1, 1))
    return table


def test_a_jump_at_the_largest_rate_is_too_large():
    # far above the others in the first epoch, and then not as low as they
    jump = np.where(EPOCHS == 0, 9.0, 0.5)
    curves = [FAST, FAST, FAST, jump]
    names = name_regimes(with_rates(make_table(curves), [0.01, 0.01, 0.01, 1.0]))
    assert names.tolist() == ["good", "good", "good", "too large"]
    # at a small rate, it is a penalty that lifts the curve
    lifted = name_regimes(with_rates(make_table(curves), [0.01, 0.01, 0.01, 0.001]))
    assert lifted[3] == "good"


def test_a_line_to_the_end_is_too_slow_unless_larger_rates_level_off():
    line = 1.0 - 0.05 * EPOCHS
    slow = name_regimes(with_rates(make_table([line, line + 0.01]), [0.1, 0.2]))
    assert slow.tolist() == ["too small", "too small"]
    level = name_regimes(with_rates(make_table([line, 0.6 + 0.4 * FAST]), [0.1, 0.2]))
    assert level[0] == "good"


@pytest.mark.parametrize("losses", [SWINGING, FAST + (EPOCHS / 20) ** 4])
def test_pictures_and_checks_judge_alike(losses):
    table = make_table([losses])
    net = sktune.NeuralNetClassifier(max_epochs=20)
    context = Context(None, table, 0, net, net, net)

    assert name_regimes(table).tolist() == ["too large"]
    assert find_lr_too_large(context) is not None
    assert find_lr_too_small(context) is None


def test_no_curves_at_all():
    assert name_regimes(make_table([np.empty(0)] * 2)).tolist() == ["", ""]


def test_a_search_over_learning_rates():
    X, y = load_iris(return_X_y=True)
    X = (X - X.mean(axis=0)) / X.std(axis=0)
    # 0.1 is left out: its loss falls well and oscillates by a third of its fall, near the limit
    rates = [1e-5, 1e-3, 3e-2, 1.0, 10.0]
    net = sktune.NeuralNetClassifier(max_epochs=20, random_state=0)
    search = sktune.GridSearchCV(net, {"lr": rates}, cv=2, refit=False).fit(X, y)
    names = name_regimes(read_search(search).curves)
    expected = ["too small", "too small", "good", "too large", "too large"]
    assert names.tolist() == expected
