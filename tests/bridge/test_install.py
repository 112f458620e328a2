"""What a fused net predicts from kept outputs, and when its parts are built."""

import pickle
import weakref
from concurrent.futures import ThreadPoolExecutor

import joblib
import numpy as np
import pytest
import skorch
import torch
from parity import (
    RAGGED,
    X,
    X_reg,
    assert_parity,
    assert_same_net,
    assert_same_scores,
    grid,
    search,
    y,
    y_reg,
)
from sklearn.base import BaseEstimator, TransformerMixin, clone
from sklearn.model_selection import GridSearchCV, _validation, cross_val_predict, cross_validate
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.parallel import Parallel, delayed
from torch import nn

from sktune import MLP, NeuralNetClassifier, NeuralNetRegressor
from sktune.bridge import collect
from sktune.engine.report import FusionReport
from sktune.estimators.components import BUILT
from sktune.estimators.fit_loop import Training

SETTINGS = {
    "module__hidden": (8,),
    "module__dtype": torch.float64,
    "lr": 0.05,
    "max_epochs": 3,
    "random_state": 0,
}
NET = NeuralNetClassifier(**SETTINGS, batch_size=16)
LANES = [
    {"lr": 0.01},
    {"lr": 0.1, "batch_size": 32},
    {"early_stopping": True, "n_iter_no_change": 1, "lr": 0.9},
]
LANES += [{"module__batch_norm": True, "module__dropout": 0.3}]


@pytest.fixture
def calls(monkeypatch):
    """The modules that a net has evaluated by itself."""
    found, evaluation_step = [], Training.evaluation_step

    def note(self, *args, **kwargs):
        found.append(self.module_)
        return evaluation_step(self, *args, **kwargs)

    monkeypatch.setattr(Training, "evaluation_step", note)
    return found


def score_by(ask, fused=True, net=NET, lanes=LANES, table=X, labels=y, **options):
    """Return what a scorer gets when it asks the nets of a search, and the nets."""
    answers, nets = [], []

    def scorer(net, X, y):
        nets.append(net)
        answers.append(ask(net, X))
        return 0.0

    options = {"cv": RAGGED, "refit": False, "error_score": "raise", **options}
    with joblib.parallel_config("sktune" if fused else "sequential"):
        GridSearchCV(net, grid(*lanes), scoring=scorer, **options).fit(table, labels)
    return answers, nets


def assert_answers(ask, **options):
    """Assert that fused nets answer a scorer as plain ones do."""
    for plain, fused in zip(
        score_by(ask, fused=False, **options)[0], score_by(ask, **options)[0], strict=True
    ):
        np.testing.assert_allclose(fused, plain, rtol=0, atol=1e-9)


def predict_proba(net, X):
    return net.predict_proba(X)


@pytest.mark.parametrize("kind", ["classifier", "regressor", "binary"])
def test_test_rows_are_predicted_beside_the_training(kind, calls):
    nets = {"classifier": NET, "binary": clone(NET).set_params(criterion=nn.BCEWithLogitsLoss)}
    nets["regressor"] = NeuralNetRegressor(**SETTINGS)
    rows, labels = (X_reg, y_reg) if kind == "regressor" else (X, y > 0 if kind == "binary" else y)
    options = {"net": nets[kind], "table": rows, "labels": labels}

    plain, _ = score_by(lambda net, X: net.predict(X), fused=False, **options)
    calls.clear()
    fused, built = score_by(lambda net, X: net.predict(X), **options)

    validated = [
        module
        for module in calls
        if module.training is False and module in [n.module_ for n in built]
    ]
    assert not validated
    for one, other in zip(plain, fused, strict=True):
        np.testing.assert_allclose(other, one, rtol=0, atol=1e-9)
    if kind != "regressor":
        assert_answers(predict_proba, **options)


def test_functions_that_know_their_test_rows(calls):
    splits = [(np.arange(0, 70), np.arange(70, 110)), (np.arange(70, 110), np.arange(0, 70))]
    for run in (
        lambda: cross_val_predict(NET, X, y, cv=splits, method="predict_proba"),
        lambda: cross_validate(NET, X, y, cv=splits, scoring=["accuracy", "neg_log_loss"])[
            "test_neg_log_loss"
        ],
    ):
        expected = run()
        calls.clear()
        with joblib.parallel_config("sktune"):
            found = run()
        assert not calls
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-9)


OTHERS = {
    "changed": lambda X: X + 1,
    "one number": lambda X: X + np.eye(*X.shape),
    "fewer": lambda X: X[:5],
    "order": lambda X: X[::-1],
    "type": lambda X: X.astype(np.float32),
    "list": lambda X: X.tolist(),
    "tensor": torch.as_tensor,
}


@pytest.mark.parametrize("name", OTHERS)
def test_other_rows_are_predicted(name, calls):
    def ask(net, X):
        return [
            net.predict_proba(X).sum(),
            net.predict_proba(OTHERS[name](X)).sum(),
            net.predict_proba(X).sum(),
        ]

    assert_answers(ask)
    assert calls


def test_rows_that_are_changed_in_place_are_others():
    def ask(net, X):
        first = net.predict_proba(X)
        X *= -1
        return [first, net.predict_proba(X)]

    assert_answers(ask)


def test_answers_are_the_users_own():
    def ask(net, X):
        net.predict_proba(X)[:] = 0
        return net.predict_proba(X)

    assert_answers(ask)
    for nonlinearity in (None, lambda outputs: outputs.sigmoid_()):
        assert_answers(ask, net=clone(NET).set_params(predict_nonlinearity=nonlinearity))


def zero(net):
    with torch.no_grad():
        for p in net.module_.parameters():
            p.zero_()


def turn(net):
    net.module_.eval()
    net.module_.layers.append(nn.Flatten(0).eval())
    net.module_.layers.append(nn.Unflatten(0, (-1, 3)).eval())
    net.module_.layers.append(nn.Softplus().eval())


CHANGES = {
    "weights": zero,
    "layers": turn,
    "hook": lambda net: net.module_.register_forward_hook(
        lambda module, args, outputs: outputs * 2
    ),
    "module": lambda net: setattr(net, "module_", nn.Identity()),
    "nonlinearity": lambda net: setattr(net, "predict_nonlinearity", None),
    "set_params": lambda net: net.set_params(predict_nonlinearity=None),
    "module__": lambda net: net.set_params(module__hidden=(4,)),
    "initialize": lambda net: net.initialize(n_features=6),
    "fit": lambda net: net.fit(X, y),
    "partial_fit": lambda net: net.partial_fit(X, y),
    "nothing": lambda net: None,
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_net_that_was_changed_answers_as_it_then_is(name):
    def ask(net, X):
        before = net.predict_proba(X)
        CHANGES[name](net)
        return np.hstack([before, net.predict_proba(X)])

    assert_answers(ask)


def test_a_scorer_may_load_other_weights(tmp_path):
    fitted = clone(NET).set_params(lr=0.2).fit(X[:90], y[:90])
    fitted.save_params(f_params=tmp_path / "weights.pt")

    def ask(net, X):
        net.predict(X)
        net.load_params(f_params=tmp_path / "weights.pt")
        return net.predict_proba(X)

    tests = [X[test] for _, test in RAGGED]
    for found, rows in zip(score_by(ask, lanes=[{}])[0], tests, strict=True):
        np.testing.assert_allclose(found, fitted.predict_proba(rows), rtol=0, atol=1e-6)


def test_outputs_and_table_are_let_go_after_the_task(calls):
    _, nets = score_by(predict_proba)

    for net in nets:
        *_, result, tested = vars(net)["_hook"].trained
        assert (result.outputs, tested) == (None, ())
        calls.clear()
        net.predict(X)
        assert calls == [net.module_]


def test_nets_are_built_when_they_are_looked_at():
    _, references = score_by(predict_proba, fused=False)
    _, nets = score_by(predict_proba)

    for reference, net in zip(references, nets, strict=True):
        assert not vars(net).keys() & set(BUILT)
        assert_same_net(reference, net)
        assert vars(net).keys() == vars(reference).keys()
        assert net.module_.training is reference.module_.training is False
        assert [type(c) for _, c in net.callbacks_] == [type(c) for _, c in reference.callbacks_]
        with pytest.raises(AttributeError, match="no attribute 'modules_'"):
            net.modules_  # noqa: B018


@pytest.mark.parametrize(
    "copied", [lambda net: pickle.loads(pickle.dumps(net)), joblib.hash, clone, repr]
)
def test_nets_that_are_not_built_are_copied_as_others(copied):
    _, references = score_by(predict_proba, fused=False)
    _, nets = score_by(predict_proba)

    for reference, net in zip(references, nets, strict=True):
        one, other = copied(reference), copied(net)
        if isinstance(one, NeuralNetClassifier):
            assert vars(one).keys() == vars(other).keys()
        elif copied is repr:
            assert one == other
        if hasattr(one, "module_"):
            np.testing.assert_allclose(
                other.predict_proba(X), one.predict_proba(X), rtol=0, atol=1e-9
            )


def test_a_copy_within_the_task_answers_by_itself():
    assert_answers(lambda net, X: pickle.loads(pickle.dumps(net)).predict_proba(X))


def test_what_is_not_built_is_set_as_ever():
    _, (net, *_) = score_by(predict_proba)
    module = nn.Linear(6, 3)
    net.module_ = module

    assert net.optimizer_.param_groups[0]["lr"] == 0.01
    assert net.module_ is module


def test_threads_build_a_net_once():
    _, nets = score_by(predict_proba, lanes=[{"lr": rate} for rate in np.linspace(0.01, 0.1, 20)])

    with ThreadPoolExecutor(8) as pool:
        for net in nets:
            built = list(pool.map(lambda name, net=net: getattr(net, name), BUILT * 4))
            assert len({id(part) for part in built}) == len(BUILT)
            assert [*map(id, net.module_.parameters())] == [
                *map(id, net.optimizer_.param_groups[0]["params"])
            ]


class Picky(nn.Module):
    """Fails in evaluation: for a width, or where a weight has become large."""

    def __init__(self, n_features, n_outputs, dtype=None, width=4, how="raise"):
        super().__init__()
        self.layers = MLP(n_features, n_outputs, (width,), dtype=dtype)
        self.width, self.how = width, how

    def forward(self, X):
        outputs = self.layers(X)
        if not self.training and self.width == 5:
            if self.how == "raise":
                raise RuntimeError("not for width 5")
            return outputs * torch.nan if self.how == "diverge" else outputs[:, :2]
        return outputs


@pytest.mark.parametrize("how", ["raise", "diverge", "narrow"])
@pytest.mark.parametrize("scoring", ["accuracy", "neg_log_loss"])
@pytest.mark.filterwarnings("ignore:Scoring failed")
@pytest.mark.filterwarnings("ignore:One or more of the test scores")
def test_a_module_that_fails_in_evaluation_fails_in_its_own_place(how, scoring):
    net = NeuralNetClassifier(
        Picky,
        module__how=how,
        module__dtype=torch.float64,
        lr=0.05,
        max_epochs=2,
        batch_size=16,
        random_state=0,
    )
    found = []
    for fused in (False, True):
        report = FusionReport()
        with (
            joblib.parallel_config("sktune", report=report)
            if fused
            else joblib.parallel_config("sequential")
        ):
            search = GridSearchCV(
                net, {"module__width": [4, 5], "lr": [0.01, 0.1]}, cv=RAGGED, scoring=scoring
            )
            found.append(search.set_params(refit=False).fit(X, y))
    assert sum(group["lanes"] for group in report.groups) == 8
    assert_same_scores(*found, tolerance=1e-9)


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e300])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.filterwarnings("ignore:overflow")
def test_test_rows_that_cannot_be_predicted_are_refused_as_ever(value, dtype):
    rows, labels = np.tile(X, (2, 1)).astype(dtype), np.tile(y, 2)
    net = clone(NET).set_params(module__dtype=torch.float32)
    rows[3, 2] = value
    folds = [(np.arange(60, 220), np.arange(0, 60)), (np.arange(50, 220), np.arange(10, 50))]
    messages = []
    for fused in (False, True):
        with pytest.raises(ValueError, match="X") as error:
            score_by(predict_proba, net=net, fused=fused, table=rows, labels=labels, cv=folds)
        messages.append(str(error.value))
    assert messages[0] == messages[1]


def test_a_net_with_an_evaluation_of_its_own_is_asked():
    class Doubled(NeuralNetClassifier):
        def evaluation_step(self, batch, training=False):
            return 2 * super().evaluation_step(batch, training)

    class Halved(NeuralNetClassifier):
        def forward_iter(self, X, training=False, device="cpu"):
            yield from (output / 2 for output in super().forward_iter(X, training, device))

    for kind in (Doubled, Halved):
        assert_answers(predict_proba, net=kind(**NET.get_params(deep=False)))


def test_splits_may_share_their_training_rows():
    train = np.arange(80)
    folds = [(train, np.arange(80, 100)), (train, np.arange(90, 110)), (train, np.arange(80, 90))]

    assert_answers(predict_proba_sum, cv=folds)


def predict_proba_sum(net, X):
    return net.predict_proba(X).sum(0)


def score_lr(net, X, y):
    return net.lr


def score_task(net, parameters):
    """Return a task of a search: a fit on one split with a candidate's parameters."""
    train, test = RAGGED[0]
    return delayed(_validation._fit_and_score)(
        net,
        X,
        y,
        scorer=score_lr,
        train=train,
        test=test,
        verbose=0,
        parameters=parameters,
        fit_params=None,
        score_params=None,
    )


def test_tasks_that_share_an_estimator_set_their_own_parameters():
    rates = [0.01, 0.02, 0.03]
    optimizers = (torch.optim.SGD, torch.optim.ASGD, torch.optim.Rprop)
    other_optimizers = (torch.optim.SGD, torch.optim.SGD, torch.optim.AdamW)
    for backend in ("sequential", "sktune"):
        with joblib.parallel_config(backend):
            net = clone(NET)
            tasks = [
                score_task(net, {"lr": lr, "compile": False, "optimizer": optimizer})
                for lr, optimizer in zip(rates, optimizers, strict=True)
            ]
            assert [result["test_scores"] for result in Parallel()(tasks)] == rates
            for task, optimizer in zip(tasks, other_optimizers, strict=True):
                task[2]["parameters"]["optimizer"] = optimizer
            assert [result["test_scores"] for result in Parallel()(tasks)] == rates


def test_outputs_are_kept_as_long_as_they_are_few(monkeypatch, calls):
    monkeypatch.setattr(collect, "_MOST_OUTPUTS", 2 * 37 * 3)
    lanes = [{"lr": rate} for rate in (0.01, 0.02, 0.03)]

    assert_answers(predict_proba, lanes=lanes)
    calls.clear()
    score_by(predict_proba, lanes=lanes)
    assert len(calls) == 4


@pytest.mark.parametrize("max_lanes", [1, 3, 32])
def test_answers_do_not_depend_on_the_group(max_lanes):
    lanes = [*LANES, {"max_epochs": 1}, {"max_epochs": 5}]
    assert_parity(NET, lanes, X, y, max_lanes=max_lanes)


def test_train_scores_pipelines_and_masks():
    masks = [
        (np.isin(np.arange(110), train), np.isin(np.arange(110), test)) for train, test in RAGGED
    ]
    assert_parity(NET, LANES[:2], X, y, cv=masks)
    lanes = [
        {f"neuralnetclassifier__{name}": value for name, value in lane.items()} for lane in LANES
    ]
    for net, candidates in ((NET, LANES), (make_pipeline(StandardScaler(), NET), lanes)):
        found = [
            search(net, candidates, X, y, fused=fused, return_train_score=True)[0]
            for fused in (False, True)
        ]
        assert_same_scores(*found, tolerance=1e-9)


@pytest.mark.parametrize("optimizer", [torch.optim.Adagrad, torch.optim.SGD, torch.optim.AdamW])
def test_optimizers_know_frozen_weights(optimizer):
    class Frozen(MLP):
        def __init__(self, n_features, n_outputs, dtype=None):
            super().__init__(n_features, n_outputs, (8,), dtype=dtype)
            self.layers[0].weight.requires_grad_(False)

    net = NeuralNetClassifier(
        Frozen,
        optimizer=optimizer,
        module__dtype=torch.float64,
        lr=0.05,
        max_epochs=2,
        batch_size=16,
        random_state=0,
    )
    assert_parity(net, [{"lr": 0.01}, {"lr": 0.1}], X, y)
    (plain, *_), (fused, *_) = (
        score_by(predict_proba, net=net, lanes=[{}], fused=way)[1] for way in (False, True)
    )
    assert vars(plain.optimizer_).keys() == vars(fused.optimizer_).keys()
    assert plain.optimizer_.defaults == fused.optimizer_.defaults


def test_nets_have_criteria_of_their_own():
    criterion = {
        "criterion": nn.BCEWithLogitsLoss,
        "criterion__pos_weight": torch.tensor(2.0, dtype=torch.float64),
    }
    _, nets = score_by(
        predict_proba, net=clone(NET).set_params(**criterion), labels=y > 0, lanes=[{}, {"lr": 0.1}]
    )

    assert len({net.criterion_.pos_weight.data_ptr() for net in nets}) == len(nets) == 4


class CountsEvaluations(nn.Module):
    """Counts in a buffer, and in an attribute, how often it is evaluated."""

    def __init__(self, n_features, n_outputs, **options):
        super().__init__()
        self.layer, self.n = nn.Linear(n_features, n_outputs, **options), 0
        self.register_buffer("m", torch.zeros(()))

    def forward(self, X):
        if not self.training:
            self.n, self.m = self.n + 1, self.m + 1
        return self.layer(X)


def test_a_module_that_counts_evaluations_is_evaluated():
    for fused in ("sequential", "sktune"):
        with joblib.parallel_config(fused):
            net = NeuralNetClassifier(CountsEvaluations, max_epochs=2, random_state=0)
            nets = cross_validate(net, X, y, cv=2, return_estimator=True)["estimator"]
        assert [(other.module_.n, float(other.module_.m)) for other in nets] == [(1, 1.0)] * 2


def test_a_net_whose_module_was_set_can_be_pickled():
    with joblib.parallel_config("sktune"):
        net, *_ = cross_validate(NET, X, y, cv=2, return_estimator=True)["estimator"]
    assert {"module_", "optimizer_", "classes_"} <= {*dir(net)}
    net.module_ = torch.nn.Linear(6, 3)

    loaded = pickle.loads(pickle.dumps(net))
    assert torch.equal(loaded.module_.weight, net.module_.weight)
    assert loaded.optimizer_.state_dict()["state"]


class Halve(TransformerMixin, BaseEstimator):
    tables = []

    def fit(self, X, y=None):
        return self

    def transform(self, X):
        halved = X / 2
        Halve.tables.append(weakref.ref(halved))
        return halved


def test_tables_of_pipelines_are_not_kept():
    counts = []

    def score(net, X, y):
        counts.append(sum(table() is not None for table in Halve.tables))
        return 0.0

    Halve.tables.clear()
    pipeline = Pipeline([("a", Halve()), ("b", Halve()), ("net", NET)])
    with joblib.parallel_config("sktune"):
        cross_validate(pipeline, X, y, cv=5, scoring=score)

    assert len(Halve.tables) == 10
    assert max(counts) <= 2, "tables of folds that are over are kept"


def test_a_pipeline_tells_of_its_steps_once(capsys):
    with joblib.parallel_config("sktune"):
        cross_validate(Pipeline([("a", Halve()), ("net", NET)], verbose=True), X, y, cv=3)

    assert capsys.readouterr().out.count("[Pipeline]") == 6


@pytest.mark.parametrize("batch_size", [5, -1])
@pytest.mark.parametrize("callbacks", [None, "disable"])
def test_histories_of_skorchs_nets_have_the_keys_of_plain_ones(batch_size, callbacks):
    torch.manual_seed(0)
    net = skorch.NeuralNetClassifier(
        nn.Linear(6, 3), criterion=nn.CrossEntropyLoss, verbose=0, max_epochs=2
    )
    net.set_params(batch_size=batch_size, callbacks=callbacks)
    rows = X.astype(np.float32)
    found = []
    for fused in ("sequential", "sktune"):
        torch.manual_seed(0)
        with joblib.parallel_config(fused):
            found.append(
                cross_validate(net, rows, y, cv=RAGGED, return_estimator=True)["estimator"]
            )

    for plain, other in zip(*found, strict=True):
        assert plain.history[-1].keys() == other.history[-1].keys()
        for key in plain.history[-1].keys() - {"batches", "dur"}:
            np.testing.assert_allclose(
                other.history[:, key], plain.history[:, key], rtol=1e-4, err_msg=key
            )
        n_batches = 1 if batch_size == -1 else 3
        assert other.history[:, "valid_batch_count"] == [n_batches] * 2
