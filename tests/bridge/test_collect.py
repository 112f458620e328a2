"""What fits of a fold share, and how a fit is handed back."""

import joblib
import numpy as np
import pytest
import torch
from parity import (
    RAGGED,
    X,
    assert_parity,
    assert_same_net,
    assert_same_scores,
    search,
    takes_tensors,
    y,
)
from scipy import sparse
from sklearn.base import clone
from sklearn.exceptions import FitFailedWarning
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from sktune import NeuralNetClassifier, NeuralNetRegressor
from sktune.bridge import install as replay
from sktune.bridge.fits import Fit
from sktune.bridge.pipelines import Recorded, Recorder, fingerprint, lend
from sktune.bridge.tables import Tables
from sktune.engine import group
from sktune.engine.group import Group
from sktune.engine.specs import FitResult
from sktune.runtime.generators import Course
from sktune.training.rows import Rows

NET = NeuralNetClassifier(module__hidden=(8,), lr=0.05, max_epochs=2, batch_size=16, random_state=0)
LANES = [
    {"lr": 0.01},
    {"lr": 0.1, "random_state": 4},
    {"module__hidden": (4,)},
    {"early_stopping": True},
]


@pytest.fixture
def tables(monkeypatch):
    """For each group that is trained, where its lanes have their rows."""
    found = []

    class Noted(Group):
        def train(self, *args):
            found.append([lane.rows.X.data_ptr() for lane in self.lanes])
            return super().train(*args)

    monkeypatch.setattr(group, "Group", Noted)
    return found


def test_rows_are_on_the_device_once(tables):
    search(NET, LANES, X, y)

    assert len(tables) == 3
    assert len({*sum(tables, [])}) == 1


def test_rows_are_on_the_device_once_per_fold_and_preprocessing(tables):
    name = "neuralnetclassifier"
    lanes = [{f"{name}__{k}": v for k, v in lane.items()} for lane in LANES]
    lanes += [
        {"standardscaler__with_mean": False},
        {"standardscaler__with_mean": False, f"{name}__lr": 0.1},
    ]

    search(make_pipeline(StandardScaler(), NET), lanes, X, y)

    assert len({*sum(tables, [])}) == 2 * len(RAGGED)


def test_nets_of_other_types_have_tables_of_their_own(tables):
    rows = np.tile(X, (2, 1))
    search(NET, [{}, {"lr": 0.1}, {"module__dtype": torch.float64}], rows, np.tile(y, 2), cv=3)

    assert len({*sum(tables, [])}) == 2


def test_adopted_weights_are_copies_of_one_lane_alone(tables):
    _, nets, _ = search(NET, [{"lr": 0.01}, {"lr": 0.02}, {"lr": 0.1}], X, y)

    for net in nets:
        tensors = [*net.module_.state_dict().values()]
        tensors += [
            t for state in net.optimizer_.state_dict()["state"].values() for t in state.values()
        ]
        for tensor in tensors:
            assert tensor.untyped_storage().nbytes() == tensor.numel() * tensor.element_size()


def test_what_was_trained_for_other_rows_is_not_adopted(monkeypatch):
    hand_out = replay.hand_out

    def for_too_few_rows(fits, course):
        found = hand_out(fits, course)
        hook = vars(fits[0].net)["_hook"]
        adopt = hook.adopt
        hook.adopt = lambda net, X, fit_params: adopt(net, X[:5], fit_params)
        return found

    monkeypatch.setattr("sktune.bridge.calls.hand_out", for_too_few_rows)
    with pytest.raises(
        AssertionError, match="a fit of 73 rows was trained, one of 5 was asked for"
    ):
        search(NET, [{"lr": 0.01}], X, y, error_score="raise")


def test_the_error_of_a_lane_is_that_of_its_fit(monkeypatch):
    class Failing(Group):
        def train(self, *args):
            yield
            return [FitResult(error=ArithmeticError("as was told")) for _ in self.lanes]

    monkeypatch.setattr(group, "Group", Failing)
    with pytest.raises(ArithmeticError, match="as was told"):
        search(NET, [{"lr": 0.01}], X, y, error_score="raise")
    with pytest.raises(ValueError, match="ArithmeticError: as was told"):
        search(NET, [{"lr": 0.01}], X, y)
    assert issubclass(FitFailedWarning, RuntimeWarning)


def test_fingerprints_are_equal_for_equal_things_only():
    assert fingerprint((StandardScaler(), 1)) == fingerprint((StandardScaler(), 1))
    assert fingerprint((StandardScaler(), 1)) != fingerprint((StandardScaler(with_std=False), 1))
    # what cannot be pickled is equal to nothing
    steps = [FunctionTransformer(lambda X: X) for _ in range(5)]
    assert len({fingerprint((step, 1)) for step in steps}) == 5


def test_who_writes_into_a_table_that_is_lent_spoils_nobodys():
    table = np.zeros((3, 2))
    with pytest.raises(ValueError, match="read-only"):
        lend(table)[:] = 1
    for table in ([[1.0, 2.0]], torch.ones(1, 2), sparse.csr_matrix([[1.0, 2.0]])):
        before = np.asarray(table.toarray() if sparse.issparse(table) else table).copy()
        lent = lend(table)
        lent[0] = lent[0] * 3
        np.testing.assert_array_equal(table.toarray() if sparse.issparse(table) else table, before)


def make_step(calls):
    def fit(transformer, X, y, **kwargs):
        calls.append(transformer)
        return [*X, transformer], transformer.upper()

    return fit


def test_steps_are_shared_along_the_chain():
    fitted, calls = {}, []

    def run_pipeline(key, *names):
        planned, rows = Fit(key=key), [key]
        fit = Recorder(planned, fitted, None).cache(make_step(calls), ignore=["caller"])
        for name in names:
            rows, step = fit(name, rows, None, caller=object())
            assert step == name.upper()
        assert [step for _, step in planned.steps] == [name.upper() for name in names]
        return rows

    assert run_pipeline("fold 1", "a", "b") == ["fold 1", "a", "b"]
    assert run_pipeline("fold 1", "a", "c") == ["fold 1", "a", "c"]
    assert run_pipeline("fold 2", "a", "b") == ["fold 2", "a", "b"]
    assert run_pipeline("fold 2", "b") == ["fold 2", "b"]
    assert calls == ["a", "b", "c", "a", "b", "b"]


def test_recorded_steps_answer_in_their_order():
    calls = []
    steps = [(2, ["A"]), (3, ["B"])]
    recorded = Fit(key="fold 1", steps=steps, result=FitResult())
    fit = Recorded(recorded, None, Course(None), give_up=pytest.fail).cache(make_step(calls))

    table, step = fit(object(), ["rows"], None)
    assert (len(table), step) == steps[0]
    table, step = fit(object(), ["rows", "a"], None, caller=None)
    step.append("written")
    assert len(table) == 3
    assert steps[1][1] == ["B"]
    assert not calls


def test_a_subclass_may_build_its_module_of_any_number():
    class Scaled(NeuralNetClassifier):
        def initialize_module(self):
            super().initialize_module()
            with torch.no_grad():
                for p in self.module_.parameters():
                    p.mul_(10 * self.lr)
            return self

    class Smoothed(NeuralNetClassifier):
        def initialize_criterion(self):
            self.criterion_ = torch.nn.CrossEntropyLoss(label_smoothing=self.l2)
            return self

    options = {"module__hidden": (8,), "max_epochs": 2, "batch_size": 16, "random_state": 0}
    assert_parity(Scaled(**options), [{"lr": 0.01}, {"lr": 0.2}, {"lr": 0.01}], X, y)
    assert_parity(Smoothed(**options), [{"l2": 0.1}, {"l2": 0.4}], X, y)


def test_rows_of_one_memory_are_one_only_where_they_look_alike():
    table, tables = torch.zeros(4, 6), Tables()
    looks = [table, table.view(4, 2, 3), table.view(torch.int32), table]
    rows = [Rows(look, target=np.zeros(4), dtype=torch.float32) for look in looks]
    one, image, integers, other = (tables.add(part)[0] for part in rows)

    assert one == other
    assert len({one, image, integers}) == 3
    assert list(tables.by_name.values()) == rows[:3]
    square = torch.arange(16.0).view(4, 4)
    turned = [Rows(look, target=np.zeros(4), dtype=torch.float32) for look in (square, square.T)]
    assert tables.add(turned[0])[0] != tables.add(turned[1])[0]


def to_images(X):
    return X.reshape(len(X), 2, 3)


class OnImages(torch.nn.Module):
    def __init__(self, n_outputs, dtype=None):
        super().__init__()
        self.out = torch.nn.Linear(3, n_outputs)

    def forward(self, X):
        return self.out(X.mean(1) if X.ndim == 3 else X[:, :3])


@takes_tensors
def test_tables_of_one_memory_and_several_shapes():
    net = NeuralNetClassifier(OnImages, lr=0.05, max_epochs=2, batch_size=16, random_state=0)
    pipeline = Pipeline([("step", None), ("net", net)])
    rows = torch.tensor(X, dtype=torch.float32)

    for step in (FunctionTransformer(to_images), "passthrough"):
        search = GridSearchCV(
            pipeline, {"step": [step, FunctionTransformer(to_images), "passthrough"]}, cv=3
        )
        search.set_params(scoring="neg_log_loss", refit=False)
        plain = clone(search).fit(rows, y)
        with joblib.parallel_config("sktune"):
            fused = clone(search).fit(rows, y)
        assert_same_scores(plain, fused, tolerance=1e-5)


def test_folds_whose_targets_are_alike_keep_their_own_rows():
    targets = np.zeros(len(X))
    net = NeuralNetRegressor(module__hidden=(8,), max_epochs=2, batch_size=16, random_state=0)

    folds = [
        (np.arange(0, 80), np.arange(80, 110)),
        (np.arange(30, 110), np.arange(30)),
    ]  # of the same size
    assert_parity(net, [{"lr": 0.01}, {"lr": 0.1}], X, targets, cv=folds)


def test_fits_that_hold_out_other_rows_keep_their_own_batches():
    lanes = [{"early_stopping": True, "validation_fraction": fraction} for fraction in (0.1, 0.2)]

    assert_parity(NET, [*lanes, {}], X, y)


def test_dropout_of_a_fit_that_begins_like_another():
    lanes = [{"module__dropout": rate} for rate in (0.5, 0.0, 0.25)]
    net = clone(NET).set_params(module__dropout=0.1, module__hidden=(8, 4))
    report = assert_parity(net, [{}, *lanes], X, y)
    _, nets, _ = search(net, lanes, X, y)

    assert [group["lanes"] for group in report.groups] == [8]
    assert [net.module_.layers[2].p for net in nets] == [0.5, 0.5, 0.0, 0.0, 0.25, 0.25]


def test_parameters_that_only_some_candidates_set():
    lanes = [
        {"optimizer__weight_decay": 0.3},
        {},
        {"optimizer__betas": (0.5, 0.9)},
        {"lr_schedule": "cosine"},
    ]

    assert_parity(NET, lanes, X, y)


@pytest.mark.parametrize("kind", ["pandas", "list", "float32", "sparse"])
def test_tables_of_any_kind_end_as_alone(kind):
    pandas = pytest.importorskip("pandas")
    make = {
        "pandas": pandas.DataFrame,
        "list": np.ndarray.tolist,
        "float32": np.float32,
        "sparse": sparse.csr_array,
    }
    rows = make[kind](X)
    reports = [search(NET, LANES, rows, y, fused=fused) for fused in (False, True)]

    for reference, other in zip(reports[0][1], reports[1][1], strict=True):
        assert_same_net(reference, other)
    assert len(reports[1][2].alone) == (len(LANES) * 2 if kind == "sparse" else 0)


def test_a_value_too_large_in_a_row_that_no_fit_takes_stays_out_of_the_table():
    rows, labels = np.tile(X, (2, 1)), np.tile(y, 2)
    rows[0, 0] = 1e300
    folds = [(np.arange(10, 220), np.arange(1, 10)), (np.arange(20, 220), np.arange(1, 20))]

    _, references, _ = search(NET, [{}, {"lr": 0.1}], rows, labels, cv=folds, fused=False)
    _, nets, report = search(NET, [{}, {"lr": 0.1}], rows, labels, cv=folds)

    assert not report.alone
    for reference, other in zip(references, nets, strict=True):  # in float32
        assert_same_net(reference, other, rtol=1e-3)
