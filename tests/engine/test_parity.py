"""Parity: a fit gives the same results alone and as one of many lanes."""

import itertools
import warnings

import joblib
import numpy as np
import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from parity import (
    X,
    X_reg,
    assert_parity,
    assert_same_net,
    assert_same_scores,
    compiled_steps,
    search,
    y,
    y_reg,
)
from sklearn.exceptions import FitFailedWarning
from sklearn.model_selection import KFold, cross_validate
from torch import nn

from sktune import MLP, NeuralNetClassifier, NeuralNetRegressor
from sktune.engine.group import Group
from sktune.engine.report import FusionReport
from sktune.runtime.threads import flushed_denormals


class Normalised(nn.Sequential):
    """A module without biases before the normalisation.

    The gradient of such a bias is rounding error, which Adam and related rules magnify.
    """

    def __init__(self, n_features, n_outputs, hidden, dtype=None):
        super().__init__(
            nn.Linear(n_features, hidden[0], bias=False, dtype=dtype),
            nn.BatchNorm1d(hidden[0], dtype=dtype),
            nn.ReLU(),
            nn.Dropout(0.2),
            nn.Linear(hidden[0], n_outputs, dtype=dtype),
        )


SETTINGS = {"max_epochs": 11, "batch_size": 16, "random_state": 3}
NET = {"module__hidden": (8, 5), "module__dtype": torch.float64, **SETTINGS}

# Each candidate changes what may differ between lanes: all of them train in one group.
SCHEDULES = [
    {"lr": 0.01},
    {"lr": 0.05, "lr_schedule": "step", "lr_schedule__step_size": 2, "lr_schedule__gamma": 0.6},
    {"lr": 0.03, "lr_schedule": "exponential", "lr_schedule__gamma": 0.9, "max_epochs": 4},
    {"lr": 0.02, "lr_schedule": "time", "lr_schedule__k": 0.3, "random_state": 11},
    {"lr": 0.04, "lr_schedule": "cosine", "lr_schedule__final": 0.1, "max_epochs": 7},
    {"lr": 0.06, "lr_schedule": "one_cycle", "lr_schedule__pct_start": 0.4},
    {"lr": 0.02, "lr_schedule__warmup": 1.5},
]
VARIED = {
    "sgd": [
        {"momentum": 0.0},
        {"momentum": 0.9, "dampening": 0.3, "weight_decay": 0.1},
        {"momentum": 0.5},
        {"momentum": 0.0, "dampening": 0.5, "weight_decay": 1e-3},
    ],
    "nesterov": [{"momentum": 0.9}, {"momentum": 0.3, "weight_decay": 0.05}],
    "adam": [{}, {"weight_decay": 0.1}, {"betas": (0.5, 0.9)}, {"eps": 1e-2}],
    "adamw": [
        {},
        {"weight_decay": 0.0},
        {"betas": (0.8, 0.95), "weight_decay": 0.3},
        {"eps": 1e-3},
    ],
    "adam_alike": [{}, {"weight_decay": 0.1}],
    "rmsprop": [
        {"momentum": 0.0},
        {"momentum": 0.8, "alpha": 0.9},
        {"weight_decay": 0.1, "eps": 1e-3},
    ],
    "nadam": [{}, {"momentum_decay": 0.1}, {"betas": (0.7, 0.99), "weight_decay": 0.1}],
    "nadamw": [{}, {"weight_decay": 0.2}],
    "adagrad": [
        {},
        {"lr_decay": 0.1},
        {"initial_accumulator_value": 0.5, "weight_decay": 0.1, "eps": 1e-4},
    ],
    "amsgrad": [{}, {"weight_decay": 0.1, "betas": (0.5, 0.9)}],
    "maximized": [{}, {"weight_decay": 0.1}, {"betas": (0.5, 0.9)}],
    "centered": [{}, {"momentum": 0.8, "alpha": 0.9}, {"weight_decay": 0.1, "eps": 1e-3}],
    "adamax": [{}, {"weight_decay": 0.1, "betas": (0.5, 0.9)}, {"eps": 1e-3}],
    "radam": [{}, {"weight_decay": 0.1, "betas": (0.5, 0.9)}, {"betas": (0.9, 0.99)}],
    "adadelta": [{}, {"rho": 0.5, "weight_decay": 0.1}, {"eps": 1e-3}],
}
OPTIMIZERS = {
    "sgd": {"optimizer": torch.optim.SGD},
    "nesterov": {"optimizer": torch.optim.SGD, "optimizer__nesterov": True},
    "adam": {"optimizer": torch.optim.Adam},
    "adamw": {"optimizer": torch.optim.AdamW},
    "adam_alike": {"optimizer": torch.optim.Adam},
    "rmsprop": {"optimizer": torch.optim.RMSprop},
    "nadam": {"optimizer": torch.optim.NAdam},
    "nadamw": {"optimizer": torch.optim.NAdam, "optimizer__decoupled_weight_decay": True},
    "adagrad": {"optimizer": torch.optim.Adagrad},
    "amsgrad": {"optimizer": torch.optim.AdamW, "optimizer__amsgrad": True},
    "maximized": {"optimizer": torch.optim.Adam, "optimizer__maximize": True},
    "centered": {"optimizer": torch.optim.RMSprop, "optimizer__centered": True},
    "adamax": {"optimizer": torch.optim.Adamax},
    "radam": {"optimizer": torch.optim.RAdam, "optimizer__decoupled_weight_decay": True},
    "adadelta": {"optimizer": torch.optim.Adadelta},
}
STOPS = {"early_stopping": True, "validation_fraction": 0.2, "n_iter_no_change": 3}
WEIGHTS = np.random.default_rng(0).uniform(0.2, 3, len(y))
TRAININGS = {
    "bare": ({}, [{}], {}),
    "dropout": (
        {"module__dropout": 0.4},
        [{}, {"module__dropout": 0.0}, {"module__dropout": 0.7}],
        {},
    ),
    "batch_norm": ({"module": Normalised}, [{}], {"sample_weight": WEIGHTS}),
    "penalties": ({}, [{}, {"l2": 0.03}, {"l1": 1e-4}, {"l1": 1e-3, "l2": 0.01}], {}),
    "early_stopping": (
        {**STOPS, "n_iter_no_change": 2, "class_weight": "balanced", "module__dropout": 0.2},
        [{}, {"tol": 0.1}, {"n_iter_no_change": 20}],
        {"sample_weight": WEIGHTS},
    ),
}


def lanes(optimizer, training):
    """Return candidates that differ in schedules, options of the optimizer and of the training."""
    varied = VARIED[optimizer]
    _, trainings, _ = TRAININGS[training]
    candidates = []
    for n, schedule in enumerate(SCHEDULES):
        options = varied[n % len(varied)]
        options = {f"optimizer__{name}": value for name, value in options.items()}
        candidates.append({**schedule, **options, **trainings[n % len(trainings)]})
    return candidates


def check(optimizer, training, **options):
    settings, _, fit_params = TRAININGS[training]
    net = NeuralNetClassifier(**NET, **OPTIMIZERS[optimizer], **settings)
    return assert_parity(net, lanes(optimizer, training), X, y, fit_params=fit_params, **options)


# With every optimizer once, and with each training at least once; the rest of the cross is slow.
TRIED = list(zip(OPTIMIZERS, itertools.cycle(TRAININGS), strict=False))
TRIED.remove(("nadamw", "batch_norm"))
CROSS = [(o, t) for o in OPTIMIZERS for t in TRAININGS if (o, t) not in TRIED]


@pytest.mark.parametrize(("optimizer", "training"), TRIED)
def test_lanes_end_as_plain_fits_do(optimizer, training):
    report = check(optimizer, training)

    assert len(report.groups) == 1


@pytest.mark.slow
@pytest.mark.parametrize(("optimizer", "training"), CROSS)
def test_lanes_end_as_plain_fits_do_in_every_other_combination(optimizer, training):
    check(optimizer, training)


def test_lanes_that_stop_on_their_training_loss():
    settings = {
        **NET,
        "module__dropout": 0.2,
        "early_stopping": "train_loss",
        "n_iter_no_change": 2,
    }
    candidates = [
        {"tol": 0.05},
        {"tol": 0.01, "lr": 0.1},
        {"n_iter_no_change": np.inf},
        {"early_stopping": False},
    ]
    report = assert_parity(NeuralNetClassifier(**settings), candidates, X, y)

    lengths = [
        max(row["epoch"] for row in report.curves if row["candidate"] == n) for n in range(4)
    ]
    assert lengths[0] < lengths[2] == lengths[3] == NET["max_epochs"]


def test_folds_may_differ_in_their_number_of_batches():
    # 64 and 65 rows to train on: 4 batches of 16, and a fifth.
    X_few = X[:97]
    y_few = y[:97]
    splits = [list(KFold(3).split(X_few))[fold] for fold in (0, 2)]
    candidates = [
        {"lr": 0.05},
        {"lr": 0.02, "lr_schedule": "cosine"},
        {"lr_schedule": "one_cycle", "l2": 0.1},
    ]

    report = assert_parity(NeuralNetClassifier(**NET), candidates, X_few, y_few, cv=splits)

    assert [group["lanes"] for group in report.groups] == [6]


class FocalLoss(nn.Module):
    """Lin et al. 2017."""

    def __init__(self, gamma=2.0, reduction="mean"):
        super().__init__()
        self.gamma = gamma
        self.reduction = reduction

    def forward(self, outputs, target):
        log_p = outputs.log_softmax(-1).gather(-1, target.unsqueeze(-1)).squeeze(-1)
        losses = -log_p * (1 - log_p.exp()) ** self.gamma
        return losses.mean() if self.reduction == "mean" else losses


class SmoothLoss(nn.CrossEntropyLoss):
    """Reads the classes from the last axis, unlike its parent."""

    def forward(self, outputs, target):
        losses = FocalLoss(0.5, "none")(outputs, target)
        return losses.mean() if self.reduction == "mean" else losses


class WithSoftmax(MLP):
    def forward(self, X):
        return super().forward(X).softmax(-1)


class WithSigmoid(MLP):
    def forward(self, X):
        return super().forward(X).sigmoid()


class Flat(MLP):
    """Returns (n,) for a single target."""

    def forward(self, X):
        return super().forward(X)[:, 0]


binary = (y > 0).astype(int)
CLASSIFICATIONS = {
    "label_smoothing": ({"criterion__label_smoothing": 0.1}, y),
    "nll": ({"criterion": nn.NLLLoss, "module": WithSoftmax}, y),
    "bce_with_logits": ({"criterion": nn.BCEWithLogitsLoss}, binary),
    "bce_flat": ({"criterion": nn.BCEWithLogitsLoss, "module": Flat}, binary),
    "bce": ({"criterion": nn.BCELoss, "module": WithSigmoid}, binary),
    "margin": ({"criterion": nn.MultiMarginLoss}, y),
    "focal": ({"criterion": FocalLoss, "criterion__gamma": 1.5}, y),
    "subclass": ({"criterion": SmoothLoss}, y),
    "two_classes": ({}, binary),
    "labels": ({}, np.c_[binary, 1 - binary, y > 1]),
    "labels_bce": ({"criterion": nn.BCELoss, "module": WithSigmoid}, np.c_[binary, y > 1]),
}
REGRESSIONS = {
    "mse": ({}, y_reg[:, 0]),
    "mse_of_two": ({}, y_reg),
    "mse_flat": ({"module": Flat}, y_reg[:, 0]),
    "l1": ({"criterion": nn.L1Loss}, y_reg),
    "huber": ({"criterion": nn.HuberLoss, "criterion__delta": 0.5}, y_reg),
    "smooth_l1": ({"criterion": nn.SmoothL1Loss, "criterion__beta": 0.5}, y_reg[:, 0]),
}
FRACTIONS = 1 / (1 + np.exp(-y_reg))
REGRESSIONS |= {
    "bce_with_logits": ({"criterion": nn.BCEWithLogitsLoss}, FRACTIONS[:, 0]),
    "bce_with_logits_of_two": ({"criterion": nn.BCEWithLogitsLoss}, FRACTIONS),
    "bce": ({"criterion": nn.BCELoss, "module": WithSigmoid}, FRACTIONS),
    "shares_of_classes": (
        {"criterion": nn.CrossEntropyLoss},
        FRACTIONS / FRACTIONS.sum(axis=1, keepdims=True),
    ),
}
FEW = [{"lr": 0.01, "random_state": 1}, {"lr": 0.03, "l2": 0.01}]


@pytest.mark.parametrize("name", CLASSIFICATIONS)
def test_criteria_of_classifiers(name):
    settings, labels = CLASSIFICATIONS[name]
    net = NeuralNetClassifier(**{**NET, "max_epochs": 4}, **settings, **STOPS)

    assert_parity(net, FEW, X, labels)
    assert_parity(net, FEW[:1], X, labels, fit_params={"sample_weight": WEIGHTS})


@pytest.mark.parametrize("name", REGRESSIONS)
def test_criteria_of_regressors(name):
    settings, targets = REGRESSIONS[name]
    net = NeuralNetRegressor(**{**NET, "max_epochs": 4}, **settings, **STOPS)

    assert_parity(net, FEW, X_reg, targets)
    assert_parity(net, FEW[:1], X_reg, targets, fit_params={"sample_weight": WEIGHTS})


def test_candidates_of_different_criteria_train_in_groups_of_their_own():
    gammas = [{"criterion__gamma": 1.0}, {"criterion__gamma": 3.0}]
    smoothings = [{"criterion__label_smoothing": 0.0}, {"criterion__label_smoothing": 0.2}]
    weights = [{"criterion__pos_weight": torch.tensor(w, dtype=torch.float64)} for w in (1.0, 5.0)]
    nets = {FocalLoss: gammas, nn.CrossEntropyLoss: smoothings, nn.BCEWithLogitsLoss: weights}
    for criterion, candidates in nets.items():
        net = NeuralNetClassifier(**{**NET, "max_epochs": 3}, criterion=criterion)
        report = assert_parity(net, candidates, X, binary)
        assert len(report.groups) == 2


@settings(
    derandomize=True, max_examples=8, deadline=None, phases=[Phase.generate]
)  # to shrink takes minutes
@given(data=st.data())
def test_random_configurations(data):
    optimizer = data.draw(st.sampled_from(list(OPTIMIZERS)))
    shared = {
        "batch_size": data.draw(st.sampled_from([7, 16, 200])),
        "shuffle": data.draw(st.booleans()),
        "module__activation": data.draw(st.sampled_from(["relu", "tanh", "gelu"])),
        "early_stopping": data.draw(st.booleans()),
        "n_iter_no_change": 2,
        "module__hidden": data.draw(st.sampled_from([(), (4,), (6, 3)])),
    }
    values = st.sampled_from(VARIED[optimizer]).map(
        lambda v: {f"optimizer__{name}": value for name, value in v.items()}
    )
    lane = st.fixed_dictionaries(
        {
            "lr": st.floats(1e-4, 0.05),
            "max_epochs": st.integers(1, 5),
            "random_state": st.integers(0, 3),
            "module__dropout": st.sampled_from([0.0, 0.3]),
            "l2": st.sampled_from([0.0, 0.01]),
            "lr_schedule": st.sampled_from(
                ["constant", "step", "exponential", "time", "cosine", "one_cycle"]
            ),
        }
    )
    candidates = data.draw(st.lists(st.builds(dict.__or__, lane, values), min_size=1, max_size=3))

    assert_parity(NeuralNetClassifier(**OPTIMIZERS[optimizer], **shared), candidates, X, y)


def test_numbers_below_the_normal_ones_are_0_in_training_only():
    tiny = torch.tensor(torch.finfo(torch.float32).tiny)
    for setting in (False, True):
        torch.set_flush_denormal(setting)
        try:
            with flushed_denormals():
                assert tiny / 2 == 0
            assert bool(tiny / 2 == 0) is setting
        finally:
            torch.set_flush_denormal(False)


def test_a_group_trains_without_numbers_below_the_normal_ones(monkeypatch):
    found, close = [], Group._close_epoch
    monkeypatch.setattr(
        Group, "_close_epoch", lambda *args: found.append(float(tiny / 2)) or close(*args)
    )
    tiny = torch.tensor(torch.finfo(torch.float32).tiny)
    search(NeuralNetClassifier(max_epochs=1, random_state=0), [{}], X, y)

    assert found == [0.0]
    assert tiny / 2 > 0


OF_FEW_ROWS = {
    "mlp": {"module__dropout": 0.3},
    "batch_norm": {"module__batch_norm": True},
    "early_stopping": {**STOPS, "module__batch_norm": True},
    "weights": {"criterion__label_smoothing": 0.1},
    "sgd": {"optimizer": torch.optim.SGD, "optimizer__momentum": 0.9},
}


@pytest.mark.parametrize("name", OF_FEW_ROWS)
def test_few_rows_leave_modules_of_float32(name):
    """The steps are computed in float64, and the weights rounded to float32.

    So fits differ in the last digit at most.
    """
    net = NeuralNetClassifier(**SETTINGS, module__hidden=(8,), **OF_FEW_ROWS[name])
    plain, references, _ = search(net, [{"lr": 0.01}, {"lr": 0.05}], X, y, fused=False)
    fused, nets, report = search(net, [{"lr": 0.01}, {"lr": 0.05}], X, y)

    assert report.alone == []
    assert_same_scores(plain, fused, tolerance=0)
    for reference, other in zip(references, nets, strict=True):
        np.testing.assert_allclose(other.predict_proba(X), reference.predict_proba(X), atol=3e-7)
        assert "_narrow_to" not in vars(other)
        assert_same_net(reference, other, rtol=3e-7)


@pytest.mark.filterwarnings("ignore:One or more of the test scores")
def test_a_rate_that_few_rows_could_only_bear_in_float64_fails_alike():
    net = NeuralNetRegressor(**SETTINGS, module__hidden=(8,), optimizer=torch.optim.SGD)
    candidates = [{"lr": 0.01}, {"lr": 1e12}, {"lr": 1e30}]
    with np.errstate(all="ignore"), pytest.warns(FitFailedWarning):
        plain, *_ = search(net, candidates, X, X[:, 0], fused=False)
    with np.errstate(all="ignore"), pytest.warns(FitFailedWarning):
        fused, *_ = search(net, candidates, X, X[:, 0])

    assert_same_scores(plain, fused, tolerance=1e-7)
    assert np.isnan(plain.cv_results_["mean_test_score"]).tolist() == [False, True, True]


HALVES = {
    "adamw": {"optimizer": torch.optim.AdamW},
    "sgd": {"optimizer": torch.optim.SGD},
    "rmsprop": {"optimizer": torch.optim.RMSprop, "lr": 1e-3},
    "penalties": {"l1": 1e-3, "l2": 1e-3, "module__batch_norm": True},
}


@pytest.mark.parametrize("name", HALVES)
def test_half_precision_trains_fused_as_alone(name):
    """Rates, betas, eps and counts of bfloat16 would be others: beta2 = 0.999 would be 1."""
    net = NeuralNetClassifier(
        **{"lr": 0.02, **HALVES[name]}, max_epochs=8, batch_size=16, random_state=0
    )
    net.set_params(module__hidden=(8,), module__dropout=0.2, module__dtype=torch.bfloat16)
    options = {"scoring": "neg_log_loss", "cv": 2, "return_estimator": True}
    plain = cross_validate(net, X, y, **options)
    report = FusionReport()
    with joblib.parallel_config("sktune", report=report):
        fused = cross_validate(net, X, y, **options)

    assert report.alone == []
    np.testing.assert_allclose(fused["test_score"], plain["test_score"], atol=0.02)
    for estimator in (*plain["estimator"], *fused["estimator"]):
        found = estimator.predict_proba(X)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found.sum(1), 1, atol=1e-6)


@pytest.mark.parametrize("are_compiled", [False, True])
@pytest.mark.parametrize("early_stopping", [False, True])
def test_lanes_that_diverge_make_numpy_warn_of_nothing(are_compiled, early_stopping):
    """One fold has a step more than the other; one rate makes losses infinite, another NaN."""
    net = NeuralNetRegressor(
        optimizer=torch.optim.SGD, batch_size=16, max_epochs=2, random_state=0, device="cpu"
    )
    net.set_params(early_stopping=early_stopping, validation_fraction=0.2)
    folds = [(np.arange(33), np.arange(60, 80)), (np.arange(41), np.arange(60, 80))]
    rates = [{"lr": 1e-3}, {"lr": 1e100}, {"lr": 1e160}]

    with warnings.catch_warnings(record=True) as caught, compiled_steps(are_compiled):
        warnings.simplefilter("always")
        _, _, report = search(net, rates, X_reg, y_reg, cv=folds)

    # scikit-learn's own, which is a RuntimeWarning, too, tells of the fits that failed.
    assert {w.category for w in caught} == {FitFailedWarning, UserWarning}
    assert not report.alone
