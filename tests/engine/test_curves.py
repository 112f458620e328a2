"""Curves in columns of numbers."""

import pickle

import numpy as np
import pytest

from sktune import GridSearchCV, NeuralNetClassifier
from sktune.engine.curves import Curves
from sktune.engine.report import FusionReport

ROWS = [
    {"epoch": n, "train_loss": 1 / n, "lr": 0.1, "dur": 3.0, "train_batch_count": 2}
    for n in (1, 2, 3)
]
WITH_VALID = [{**row, "valid_loss": 2 / row["epoch"]} for row in ROWS]


def curves_of(*fits):
    curves = Curves()
    for candidate, split, rows in fits:
        curves.add(candidate, split, columns_of(rows))
    return curves


def columns_of(rows):
    return {name: [row[name] for row in rows] for name in rows[0]}


def test_rows_are_those_that_were_added():
    curves = curves_of((0, 1, ROWS), (2, 0, WITH_VALID[:1]))

    assert len(curves) == 4
    assert list(curves) == [
        {"candidate": 0, "split": 1, "epoch": 1, "train_loss": 1.0, "lr": 0.1},
        {"candidate": 0, "split": 1, "epoch": 2, "train_loss": 0.5, "lr": 0.1},
        {"candidate": 0, "split": 1, "epoch": 3, "train_loss": 1 / 3, "lr": 0.1},
        {"candidate": 2, "split": 0, "epoch": 1, "train_loss": 1.0, "lr": 0.1, "valid_loss": 2.0},
    ]
    assert curves[-1] == list(curves)[-1]
    curves.add(3, 3, columns_of(ROWS[:1]))
    assert curves[4]["candidate"] == 3


def test_columns_are_arrays_of_one_length():
    columns = curves_of((0, 1, WITH_VALID), (70_000, 0, WITH_VALID[:2])).columns

    assert list(columns) == ["candidate", "split", "epoch", "train_loss", "lr", "valid_loss"]
    assert columns["candidate"].tolist() == [0, 0, 0, 70_000, 70_000]
    assert columns["epoch"].tolist() == [1, 2, 3, 1, 2]
    assert columns["valid_loss"].tolist() == [2.0, 1.0, 2 / 3, 2.0, 1.0]
    assert "valid_loss" not in curves_of((0, 1, ROWS)).columns
    assert [len(values) for values in Curves().columns.values()] == [0] * 5


def test_places_that_are_not_known_are_none():
    assert curves_of((None, None, ROWS[:1]))[0]["candidate"] is None


@pytest.mark.parametrize("rows", [ROWS, WITH_VALID])
def test_a_pickle_holds_little_more_than_the_numbers(rows):
    curves = curves_of(*((candidate, 0, rows * 10) for candidate in range(100)))

    data = pickle.dumps(curves)

    n_numbers = 1 + (rows is WITH_VALID)
    assert len(data) < 8 * n_numbers * len(curves) + 3_000
    copy = pickle.loads(data)
    assert copy == curves
    assert copy.columns["lr"].tolist() == [0.1] * len(curves)
    copy.add(0, 1, columns_of(WITH_VALID))
    assert len(copy) == len(curves) + 3
    assert copy != curves


def test_rates_that_change_are_kept():
    curves = curves_of((0, 0, [{**row, "lr": 1 / row["epoch"]} for row in ROWS]), (0, 1, ROWS[:2]))

    copy = pickle.loads(pickle.dumps(curves))

    assert copy.columns["lr"].tolist() == [1.0, 1 / 2, 1 / 3, 0.1, 0.1]
    assert list(pickle.loads(pickle.dumps(Curves()))) == []


def test_reports_compare_by_what_they_hold():
    assert FusionReport() == FusionReport()
    assert FusionReport(curves=curves_of((0, 0, ROWS))) != FusionReport()
    assert "n_fits=1, n_rows=3" in repr(curves_of((0, 0, ROWS)))


def test_a_fitted_search_is_small():
    X = np.random.default_rng(0).normal(size=(40, 2)).astype(np.float32)
    y = np.arange(40) % 2
    net = NeuralNetClassifier(max_epochs=50, module__hidden=(2,), random_state=0, device="cpu")
    alone = NeuralNetClassifier(
        max_epochs=1, module__hidden=(2,), random_state=None, device="cpu", callbacks=[]
    )
    search = GridSearchCV(net, {"lr": np.logspace(-4, -2, 10).tolist()}, cv=2, refit=False).fit(
        X, y
    )

    assert len(search.curves_) == 10 * 2 * 50
    assert len(pickle.dumps(search.fusion_)) < 2 * 8 * 1000 + 4_000
    alone.set_params(warm_start=True)
    many = GridSearchCV(alone, {"lr": np.logspace(-4, -2, 20).tolist()}, cv=2, refit=False).fit(
        X, y
    )
    assert len(many.fusion_.alone) == 40
    assert len({id(fit["reason"]) for fit in many.fusion_.alone}) == 1
