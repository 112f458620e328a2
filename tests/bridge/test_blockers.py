"""A fit that is not fused says why, and has the results of a plain fit."""

import re

import joblib
import numpy as np
import pytest
import skorch
import torch
from parity import (
    RAGGED,
    X,
    assert_parity,
    assert_same_net,
    assert_same_scores,
    compiled_steps,
    search,
    y,
)
from scipy import sparse
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_validate
from sklearn.pipeline import make_pipeline
from skorch.helper import SliceDict
from torch import nn
from torch.nn.functional import alpha_dropout
from torch.nn.utils import parametrizations

from sktune import MLP, NeuralNetClassifier
from sktune.bridge.blockers import why_alone
from sktune.engine.report import FusionReport
from sktune.modules.structure import as_text
from sktune.training.optimizers import OPTIMIZERS

NET = {"max_epochs": 3, "batch_size": 16, "random_state": 3}
LRS = [{"lr": 0.01}, {"lr": 0.05}]
rng = np.random.default_rng(0)
sequences = rng.normal(size=(110, 4, 2))
words = rng.integers(0, 9, size=(110, 5))


class Recurrent(nn.Module):
    kind = nn.LSTM

    def __init__(self):
        super().__init__()
        self.recurrent, self.outward = self.kind(2, 4, batch_first=True), nn.Linear(4, 3)
        self.double()

    def forward(self, X):
        return self.outward(self.recurrent(X)[0][:, -1])


class Gated(Recurrent):
    kind = nn.GRU


class Base(nn.Module):
    def __init__(self):
        super().__init__()
        self.inward, self.outward = self.build(), nn.Linear(8, 3)
        self.double()

    def build(self):
        return nn.Linear(6, 8)

    def forward(self, X):
        return self.outward(self.inward(X).relu())


class OwnRandomness(Base):
    def forward(self, X):
        return self.outward(alpha_dropout(self.inward(X), 0.5, self.training))


class Noisy(Base):
    def forward(self, X):
        return super().forward(X + torch.randn_like(X) if self.training else X)


class OwnDropout(Base):
    class Half(nn.Dropout):
        pass

    def build(self):
        return nn.Sequential(nn.Linear(6, 8), self.Half(0.5))


class DropsConstant(Base):
    """Each net has a mask of its own for what is the same in all of them."""

    def build(self):
        return nn.Sequential(nn.Linear(6, 8), nn.Dropout(0.5))

    def forward(self, X):
        return self.outward(
            self.inward[0](X).relu() * self.inward[1](torch.ones(len(X), 8).double())
        )


class WeightNormed(Base):
    """torch has no batching rule for weight_norm, and would loop over the lanes."""

    def build(self):
        return parametrizations.weight_norm(nn.Linear(6, 8))


class LoopsInEvaluation(Base):
    def forward(self, X):
        hidden = self.inward(X).relu()
        if not self.training:
            return nn.functional.linear(
                hidden, torch._weight_norm(self.outward.weight, X.new_ones(3, 1), 0)
            )
        return self.outward(hidden)


class Branching(Base):
    def forward(self, X):
        return super().forward(X) * (2 if X.sum() > 0 else 1)


class UsedAtTimes(Base):
    """Its layer gets a gradient in large batches only."""

    def __init__(self):
        super().__init__()
        self.idle = nn.Linear(3, 3).double()

    def forward(self, X):
        X = super().forward(X)
        return self.idle(X) if len(X) > 12 else X


class AssignsBuffer(Base):
    """A running mean of the rows, assigned where others would write into the buffer."""

    def __init__(self):
        super().__init__()
        self.keep(torch.zeros(6, dtype=torch.float64))

    def keep(self, mean):
        self.register_buffer("mean", mean)

    def forward(self, X):
        if self.training:
            self.mean = 0.9 * self.mean + 0.1 * X.mean(0).detach()
        return super().forward(X - self.mean)


class AssignsAttribute(AssignsBuffer):
    def keep(self, mean):
        self.mean = mean


class CountsInTensor(AssignsBuffer):
    def keep(self, mean):
        self.calls = torch.zeros(())

    def forward(self, X):
        self.calls += 1
        return Base.forward(self, X) / self.calls.double()


class Logs(Base):
    def __init__(self):
        super().__init__()
        self.shapes = []

    def forward(self, X):
        self.shapes.append(len(X))
        return super().forward(X) / len(self.shapes)


class Counting(Base):
    calls = 0

    def forward(self, X):
        self.calls += 1
        return super().forward(X) * (1 + self.calls % 3)


class Averaging(Base):
    """The running statistics are plain averages: torch reads a counter for them."""

    def build(self):
        return nn.Sequential(nn.Linear(6, 8, bias=False), nn.BatchNorm1d(8, momentum=None))


class Mixing(nn.Module):
    """A criterion whose losses of rows depend on the other rows."""

    def __init__(self, reduction="mean"):
        super().__init__()
        self.reduction = reduction

    def forward(self, outputs, target):
        losses = nn.functional.cross_entropy(outputs - outputs.mean(0), target, reduction="none")
        return losses.mean() if self.reduction == "mean" else losses


class Learned(nn.CrossEntropyLoss):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1, dtype=torch.float64))

    def forward(self, outputs, target):
        return super().forward(outputs * self.scale, target)


class OwnStep(NeuralNetClassifier):
    def train_step(self, batch, **fit_params):
        return super().train_step(batch, **fit_params)


class OwnLoss(NeuralNetClassifier):
    def get_loss(self, *args, **kwargs):
        return 2 * super().get_loss(*args, **kwargs)


class OwnCallbacks(NeuralNetClassifier):
    @property
    def _default_callbacks(self):
        return [*super()._default_callbacks, ("halve", Halving())]


class TwoModules(NeuralNetClassifier):
    def initialize_module(self):
        super().initialize_module()
        self.shift_ = nn.Linear(1, 3).double()
        return self

    def forward_iter(self, *args, **kwargs):
        return super().forward_iter(*args, **kwargs)


class Renamed(NeuralNetClassifier):
    """Overrides only what fusing leaves to the net: what comes before and after the training."""

    def __init__(self, module=MLP, *, doubled=False, **kwargs):
        super().__init__(module, **kwargs)
        self.doubled = doubled

    def initialize_module(self):
        super().initialize_module()
        if self.doubled:
            for p in self.module_.parameters():
                p.data *= 2
        return self

    def predict(self, X):
        return super().predict(X)


class OwnPenalty(NeuralNetClassifier):
    def _penalty(self):
        return 2 * super()._penalty()


class SkorchNet(skorch.NeuralNetClassifier):
    """A net of skorch's that may train in any way."""


class Weighted(nn.CrossEntropyLoss):
    """A criterion of the user's, whose weights may mean anything."""


class Halving(skorch.callbacks.Callback):
    def on_epoch_end(self, net, **kwargs):
        net.optimizer_.param_groups[0]["lr"] /= 2


class OwnDataset(skorch.dataset.Dataset):
    pass


def net(cls=NeuralNetClassifier, **params):
    return cls(**{**NET, **params})


CANNOT = "its module cannot be fused"
ALONE = {
    "callbacks": (
        net(callbacks=[Halving()], module__dtype=torch.float64),
        X,
        "its callback Halving is of a class of one's own, Halving, which may change the net",
    ),
    "callbacks_of_a_subclass": (net(OwnCallbacks), X, "OwnCallbacks overrides _default_callbacks"),
    "train_step": (net(OwnStep), X, "OwnStep overrides train_step"),
    "get_loss": (net(OwnLoss), X, "OwnLoss overrides get_loss"),
    "penalty": (net(OwnPenalty, l2=0.1), X, "OwnPenalty overrides _penalty"),
    "two_modules": (net(TwoModules), X, "parameters that are not the module's"),
    "dataset": (net(dataset=OwnDataset), X, "a dataset of its own"),
    "iterator": (net(iterator_train__drop_last=True), X, "a iterator_train of its own"),
    "warm_start": (net(warm_start=True), X, "sets warm_start"),
    "optimizer": (
        net(optimizer=torch.optim.LBFGS, optimizer__max_iter=3),
        X,
        "its optimizer LBFGS has no fused rule",
    ),
    "groups": (
        net(optimizer__param_groups=[("*.bias", {"lr": 0.1})]),
        X,
        "several groups of parameters",
    ),
    "sparse": (net(), sparse.csr_array(X), "no dense table"),
    "dict": (net(module=Base), SliceDict(X=X), "no dense table"),
    "lstm": (net(module=Recurrent), sequences, CANNOT),
    "gru": (net(module=Gated), sequences, CANNOT),
    "functional_alpha_dropout": (net(module=OwnRandomness), X, f"{CANNOT}.*random"),
    "noise": (net(module=Noisy), X, f"{CANNOT}.*random"),
    "dropout_of_a_subclass": (net(module=OwnDropout), X, f"{CANNOT}.*random"),
    "dropout_of_a_constant": (net(module=DropsConstant), X, f"{CANNOT}.*differ from net to net"),
    "weight_norm": (net(module=WeightNormed), X, f"{CANNOT}.*performance drop"),
    "loop_in_evaluation": (
        net(module=LoopsInEvaluation, early_stopping=True),
        X,
        f"{CANNOT}.*performance drop",
    ),
    "branch": (net(module=Branching), X, f"{CANNOT}.*data-dependent"),
    "used_at_times": (net(module=UsedAtTimes), X, f"{CANNOT}.*in some batches only"),
    "counting": (net(module=Counting), X, "remembers its calls"),
    "assigned_buffer": (net(module=AssignsBuffer), X, f"{CANNOT}.*buffers"),
    "assigned_attribute": (net(module=AssignsAttribute), X, "remembers its calls"),
    "counting_in_a_tensor": (net(module=CountsInTensor), X, "remembers its calls"),
    "logging": (net(module=Logs), X, "remembers its calls"),
    "averaging": (net(module=Averaging), X, CANNOT),
    "padding": (
        net(module=nn.Sequential(nn.Embedding(9, 3, 0), nn.Flatten(), nn.Linear(15, 3))),
        words,
        "padding_idx",
    ),
    "mixing_criterion": (net(criterion=Mixing), X, "no mean of the rows' own losses"),
    "learned_criterion": (net(criterion=Learned), X, "its criterion has parameters"),
    "weights_in_a_criterion_of_ones_own": (
        net(
            criterion=Weighted,
            criterion__weight=torch.ones(3, dtype=torch.float64),
            module__dtype=torch.float64,
        ),
        X,
        "no mean or sum over the rows",
    ),
    "ignored_class": (net(criterion__ignore_index=1), X, "its criterion ignores rows"),
    "skorch": (
        SkorchNet(MLP, module__n_features=6, module__n_outputs=3, verbose=0),
        None,
        "SkorchNet is neither one of sktune's nets nor of skorch's",
    ),
    "other": (make_pipeline(LogisticRegression()), None, "LogisticRegression is no network"),
}


@pytest.mark.parametrize("name", ALONE)
def test_what_is_not_fused_says_why(name):
    # compiled steps train some of them together, torch's steps do not
    with compiled_steps(name not in ("averaging", "padding")):
        check_that_it_trains_alone(name)


def check_that_it_trains_alone(name):
    estimator, rows, reason = ALONE[name]
    if rows is None:
        rows = X.astype(np.float32) if name == "skorch" else X
        report = FusionReport()
        with joblib.parallel_config("sktune", report=report):
            cross_validate(estimator, rows, y, cv=2, error_score="raise")
        n_fits = 2
    else:
        plain, references, _ = search(estimator, LRS, rows, y, fused=False)
        fused, nets, report = search(estimator, LRS, rows, y)
        assert_same_scores(plain, fused, tolerance=1e-12)
        for reference, other in zip(references, nets, strict=True):
            assert_same_net(reference, other)
        n_fits = 4

    assert not report.groups
    assert len(report.alone) == n_fits
    for fit in report.alone:
        assert re.search(reason, fit["reason"])
    assert f"{n_fits} fits one at a time" in str(report)


@pytest.mark.parametrize("setting", [{"compile": True}, {"verbose": 1}, {"warm_start": True}])
def test_settings_that_are_not_fused_say_so(setting):
    assert why_alone(net(**setting)) == f"it sets {next(iter(setting))}"


@pytest.mark.parametrize("split", [skorch.dataset.ValidSplit(0.3), lambda dataset, y: None])
def test_splits_that_draw_or_are_of_ones_own_say_so(split):
    assert why_alone(net(train_split=split)) == "it has a train_split of its own"


def test_a_subclass_may_change_what_runs_as_ever():
    assert_parity(net(Renamed), [{"doubled": False}, {"doubled": True}], X, y)


def scaled(factor):
    class Net(Base):
        def forward(self, X):
            return super().forward(X) * factor

    return Net


def mean_times(factor):
    class Loss(nn.CrossEntropyLoss):
        def forward(self, outputs, target):
            return super().forward(outputs, target) * factor

    return Loss


@pytest.mark.parametrize(("name", "make"), [("module", scaled), ("criterion", mean_times)])
def test_classes_of_one_name_are_not_taken_for_each_other(name, make):
    candidates = [{name: make(factor)} for factor in (1, 0.1, 5)]

    assert_parity(net(module=Base), candidates, X, y)


def test_outputs_that_do_not_match_the_classes_fail_as_they_would():
    wrong = net(module=MLP, module__hidden=(4,), module__n_outputs=7)
    for config in ({"backend": "sequential"}, {"backend": "sktune"}):
        with (
            joblib.parallel_config(**config),
            pytest.raises(ValueError, match="one column per class"),
        ):
            cross_validate(wrong, X, y, cv=2, error_score="raise")


def test_numbers_of_numpy_are_numbers():
    assert as_text(np.int64(3)) == as_text(np.array([1, 3])[1])


def test_report_names_candidate_and_split():
    _, _, report = search(net(), [{"lr": 0.01}, {"lr": 0.01, "warm_start": True}], X, y)

    places = [(fit["candidate"], fit["split"]) for fit in report.alone]
    assert places == [(1, 0), (1, 1)]
    assert {(row["candidate"], row["split"]) for row in report.curves} == {(0, 0), (0, 1)}
    assert str(report).splitlines()[1:] == ["2 fits one at a time", "  2: it sets warm_start"]


class Bagged(nn.Module):
    def __init__(self):
        super().__init__()
        self.bag, self.outward = nn.EmbeddingBag(9, 4), nn.Linear(4, 3)
        self.double()

    def forward(self, X):
        return self.outward(self.bag(X))


class Clipped(nn.Sequential):
    def __init__(self, **options):
        super().__init__(nn.Embedding(9, 4, **options), nn.Flatten(), nn.Linear(20, 3))
        self.double()


class Spectral(Base):
    def build(self):
        return parametrizations.spectral_norm(nn.Linear(6, 8))


class OldStyle(Base):
    def build(self):
        layer = nn.Linear(6, 8)
        layer.register_forward_hook(lambda layer, rows, output: output * 2)
        return layer


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.attention, self.outward = (
            nn.MultiheadAttention(2, 1, batch_first=True),
            nn.Linear(2, 3),
        )
        self.double()

    def forward(self, X):
        return self.outward(self.attention(X, X, X, need_weights=False)[0].mean(1))


def hook_into_chain():
    """Return a chain of layers, one of which has a hook."""
    chain = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3)).double()
    chain[0].register_forward_hook(lambda layer, rows, output: output * 2)
    return chain


EITHER = {
    "bag": (net(module=Bagged), words),
    "max_norm": (net(module=Clipped, module__max_norm=0.5), words),
    "sparse_gradient": (net(module=Clipped, module__sparse=True, optimizer=torch.optim.SGD), words),
    "scaled_gradient": (net(module=Clipped, module__scale_grad_by_freq=True), words),
    "spectral_norm": (net(module=Spectral), X),
    "hook": (net(module=OldStyle), X),
    "hook_in_a_chain": (net(module=hook_into_chain()), X),
    "attention": (net(module=Attention), sequences),
    "instance_norm": (
        net(module=nn.Sequential(nn.InstanceNorm1d(4), nn.Flatten(), nn.Linear(8, 3)).double()),
        sequences,
    ),
    "callbacks_disabled": (net(callbacks="disable"), X),
}


@pytest.mark.parametrize("name", EITHER)
def test_fused_or_not_the_results_are_the_plain_ones(name):
    estimator, rows = EITHER[name]
    _, references, _ = search(estimator, LRS, rows, y, fused=False)
    _, nets, report = search(estimator, LRS, rows, y)

    assert sum(group["lanes"] for group in report.groups) + len(report.alone) == 4
    for reference, other in zip(references, nets, strict=True):
        assert_same_net(reference, other)


def test_a_random_state_is_not_drawn_from_twice():
    generator = np.random.RandomState(0)
    for module in (OwnRandomness, Base):
        estimator = net(module=module, random_state=generator)
        plain = GridSearchCV(estimator, {"lr": [0.01, 0.02]}, cv=RAGGED, refit=False).fit(X, y)
        with joblib.parallel_config("sktune"):
            fused = GridSearchCV(estimator, {"lr": [0.01, 0.02]}, cv=RAGGED, refit=False).fit(X, y)
        assert_same_scores(plain, fused, tolerance=0)


def test_labels_given_beforehand_are_those_of_the_candidate():
    candidates = [{"classes": [0, 1, 2]}, {"classes": [-1, 0, 1]}, {"classes": [0, 1, 5]}]
    few = y < 2
    _, references, _ = search(net(), candidates, X[few], y[few], cv=2, fused=False)
    _, nets, report = search(net(), candidates, X[few], y[few], cv=2)

    assert not report.alone
    for reference, other in zip(references, nets, strict=True):
        assert_same_net(reference, other)


def test_nets_of_different_kinds_do_not_share_a_group():
    candidates = [
        {"batch_size": 16},
        {"batch_size": 32},
        {"module__hidden": (4,)},
        {"module__activation": "tanh"},
        {"shuffle": False},
        {"optimizer": torch.optim.SGD},
        {"early_stopping": True},
    ]
    _, _, report = search(net(), candidates, X, y)

    # whether rows are shuffled is a matter of a lane's own batches
    assert sorted(group["lanes"] for group in report.groups) == [2] * (len(candidates) - 2) + [4]
    assert torch.optim.AdamW in OPTIMIZERS
