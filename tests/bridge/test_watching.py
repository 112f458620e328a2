"""Fits with skorch's callbacks that look at epochs end in a group as they end alone."""

import numpy as np
import pytest
import torch
from parity import X, X_reg, assert_parity, assert_same_net, search, y, y_reg
from sklearn.metrics import accuracy_score, f1_score, make_scorer
from skorch.callbacks import (
    BatchScoring,
    Callback,
    EarlyStopping,
    EpochScoring,
    EpochTimer,
    GradientNormClipping,
    LRScheduler,
    ParamMapper,
    PassthroughScoring,
    PrintLog,
    ProgressBar,
)
from skorch.dataset import ValidSplit
from skorch.utils import noop
from test_skorch_nets import classifier, references
from test_skorch_nets import search as search_skorch
from torch.optim import lr_scheduler

from sktune import NeuralNetClassifier, NeuralNetRegressor

SETTINGS = {
    "module__hidden": (8, 5),
    "module__dtype": torch.float64,
    "max_epochs": 9,
    "batch_size": 16,
    "random_state": 3,
    "lr": 0.03,
    "train_split": ValidSplit(3),
}
NET = NeuralNetClassifier(**SETTINGS)


def stop(**options):
    return EarlyStopping(**{"patience": 2, "sink": noop, **options})


def schedule(policy, **options):
    return LRScheduler(policy, **options)


STOPPING = {
    "relative": [stop(threshold=0.05)],
    "absolute": [stop(threshold=0.01, threshold_mode="abs", patience=1)],
    "best": [stop(threshold=0.1, load_best=True)],
    "accuracy": [stop(monitor="valid_acc", lower_is_better=False, load_best=True, threshold=0)],
    "training": [stop(monitor="train_loss", threshold=0.2)],
    "never": [EarlyStopping(patience=50)],
}
SCHEDULES = {
    "steps": [schedule("StepLR", step_size=2, gamma=0.5)],
    "restarts": [LRScheduler(min_lr=1e-3, max_lr=0.1, base_period=3)],
    "lambda": [schedule(lr_scheduler.LambdaLR, lr_lambda=lambda epoch: 0.9**epoch)],
    "batches": [schedule("ExponentialLR", gamma=0.97, step_every="batch", event_name=None)],
    "cycle": [schedule("CyclicLR", base_lr=0.01, max_lr=0.1, step_size_up=3, cycle_momentum=False)],
    "plateau": [schedule("ReduceLROnPlateau", monitor="valid_loss", patience=1, threshold=0.2)],
    "plateau of a score": [
        ("f1", EpochScoring("f1_macro", lower_is_better=False)),
        ("lr", schedule("ReduceLROnPlateau", monitor="f1_macro", mode="max", patience=0)),
    ],
    "by epochs and stopped": [schedule("StepLR", step_size=1, gamma=0.3), stop(threshold=0.1)],
}
SCORES = {
    "name": [EpochScoring("f1_macro", lower_is_better=False, name="f1")],
    "loss": [EpochScoring("neg_log_loss", lower_is_better=None)],
    "scorer": [EpochScoring(make_scorer(f1_score, average="micro"), lower_is_better=False)],
    "function": [("acc", EpochScoring(accuracy_score, lower_is_better=False))],
    "none": [EpochScoring(None, name="own", lower_is_better=False)],
    "passed on": [("again", PassthroughScoring("train_loss", on_train=True))],
    "stopped by a score": [
        EpochScoring("f1_macro", lower_is_better=False),
        stop(monitor="f1_macro", lower_is_better=False, patience=1, load_best=True),
    ],
    "clipped": [GradientNormClipping(0.1), stop(threshold=0.1), EpochTimer(), PrintLog(sink=noop)],
}
ALL = {**STOPPING, **SCHEDULES, **SCORES}
CANDIDATES = [{"callbacks": callbacks} for callbacks in ALL.values()]


def assert_same_records(nets, others):
    """Assert that all columns of histories but the times are equal, and the callbacks."""
    for plain, fused in zip(nets, others, strict=True):
        for one, other in zip(plain.history, fused.history, strict=True):
            assert one.keys() == other.keys()
            for name in one.keys() - {"batches", "dur"}:
                np.testing.assert_allclose(other[name], one[name], rtol=1e-8, err_msg=name)
        for (name, one), (_, other) in zip(plain.callbacks_, fused.callbacks_, strict=True):
            assert vars(one).keys() == vars(other).keys(), name
            # a table that nobody reads is not put together
            if name == "print_log":
                continue
            for key, value in vars(one).items():
                if isinstance(value, float | int) and key != "epoch_start_time_":
                    np.testing.assert_allclose(vars(other)[key], value, rtol=1e-8, err_msg=key)


def assert_fused_as_alone(net, candidates, X, y, **options):
    report = assert_parity(net, candidates, X, y, **options)
    _, plain, _ = search(net, candidates, X, y, fused=False, **options)
    _, fused, _ = search(net, candidates, X, y, **options)
    assert_same_records(plain, fused)
    return report, plain, fused


def test_callbacks_of_all_kinds_mix_in_a_group():
    report, plain, _ = assert_fused_as_alone(NET, CANDIDATES, X, y)

    assert report.alone == []
    # those whose callbacks hear of validation batches have smaller ones
    assert len(report.groups) == 4
    assert sum(group["lanes"] for group in report.groups) == 2 * len(CANDIDATES)
    lengths = {len(net.history) for net in plain}
    # some stop early, others do not
    assert min(lengths) < 6 < max(lengths) == 9


def test_callbacks_do_something():
    _, nets, _ = search(NET, [{}, {"callbacks": SCHEDULES["steps"]}], X, y)

    assert not torch.equal(nets[0].module_.layers[0].weight, nets[2].module_.layers[0].weight)
    assert nets[2].history[:, "event_lr"] == [0.03] * 2 + [0.015] * 2 + [0.0075] * 2 + [
        0.00375
    ] * 2 + [0.001875]


def test_settings_of_callbacks_are_searched():
    net = NeuralNetClassifier(**SETTINGS, callbacks=[("stop", EarlyStopping)])
    net.set_params(callbacks__valid_acc=None)
    candidates = [
        {"callbacks__stop__patience": 1, "callbacks__stop__threshold": 0.2},
        {"callbacks__stop__patience": 3, "lr": 0.1},
        {"callbacks__print_log": None},
        {"callbacks__stop": None, "callbacks__train_loss__lower_is_better": False},
        {"callbacks__stop": None, "callbacks__epoch_timer": None},
    ]

    assert_fused_as_alone(net, candidates, X, y)


def test_regressors_are_served():
    net = NeuralNetRegressor(**SETTINGS)
    candidates = [
        {"callbacks": [EpochScoring("r2", lower_is_better=False), stop(threshold=0.2)]},
        {"callbacks": SCHEDULES["plateau"]},
    ]

    assert_fused_as_alone(net, candidates, X_reg, y_reg)


def test_own_early_stopping_goes_along_with_callbacks():
    settings = {**SETTINGS, "train_split": None, "early_stopping": True, "n_iter_no_change": 2}
    net = NeuralNetClassifier(**settings)
    labels = np.array(["a", "b", "c"])[y]
    candidates = [
        {"callbacks": SCHEDULES["steps"], "tol": 0.1},
        {"callbacks": SCORES["name"]},
    ]

    assert_fused_as_alone(net, candidates, X, labels)


SKORCH = [
    {"callbacks": STOPPING["best"], "lr": 0.3},
    {"callbacks": SCHEDULES["restarts"]},
    {"callbacks": SCHEDULES["plateau of a score"]},
    {"callbacks": SCHEDULES["batches"]},
    {"callbacks": SCORES["stopped by a score"]},
    {"callbacks": SCORES["none"]},
    {"callbacks": [GradientNormClipping(0.1)]},
    {"callbacks__valid_acc": None, "callbacks__print_log": None},
]


@pytest.mark.parametrize("shuffle", [False, True])
def test_skorchs_own_nets_are_served(shuffle):
    net = classifier(max_epochs=7, iterator_train__shuffle=shuffle)

    nets, report = search_skorch(net, SKORCH, X, y)

    assert report.alone == [], report
    plain = references(net, SKORCH, X, y)
    for reference, other in zip(plain, nets, strict=True):
        assert_same_net(reference, other)
    assert_same_records(plain, nets)


def test_messages_are_printed_as_alone(capsys):
    printing = [{"callbacks": [EarlyStopping(patience=1, threshold=0.5, load_best=True)]}]
    net = classifier(max_epochs=5, verbose=0)
    lines = []
    printing[0]["callbacks"][0].sink = lines.append
    net.set_params(**printing[0])

    nets, _ = search_skorch(net, [{}], X, y)

    for fitted in nets:
        assert len(fitted.history) < 5
        assert fitted.callbacks[0] is dict(fitted.callbacks_)["EarlyStopping"]
        assert fitted.callbacks[0].misses_ == 1


class Own(Callback):
    def on_epoch_end(self, net, **kwargs):
        pass


class OwnPolicy(lr_scheduler.StepLR):
    pass


def own_score(net, X, y):
    return 0.0


REFUSED = {
    "its callback Own is of a class of one's own, Own, which may change the net": [Own()],
    "its callback mine is of a class of one's own, Own, which may change the net": [("mine", Own)],
    "its callback BatchScoring scores single batches": [BatchScoring("accuracy")],
    "its callback ProgressBar counts single batches": [ProgressBar()],
    "its callback ParamMapper changes the module": [ParamMapper("*.weight")],
    "its callback EpochScoring scores the training rows": [EpochScoring("accuracy", on_train=True)],
    "its callback EpochScoring predicts anew after each epoch (use_caching=False)": [
        EpochScoring("f1_macro", use_caching=False)
    ],
    "its callback EpochScoring scores by a function of one's own, which may read the module": [
        EpochScoring(own_score)
    ],
    "its callback PassthroughScoring passes on 'other', which is no loss of the net's": [
        PassthroughScoring("other")
    ],
    "its callback LRScheduler has a policy of one's own, OwnPolicy": [
        LRScheduler(OwnPolicy, step_size=1)
    ],
    "its callback LRScheduler changes the momentum, unless cycle_momentum=False": [
        LRScheduler(lr_scheduler.OneCycleLR, max_lr=0.1, total_steps=100, step_every="batch")
    ],
    "its callback LRScheduler monitors by a function of one's own, which may read the module": [
        LRScheduler("ReduceLROnPlateau", monitor=lambda net: 1.0)
    ],
    "its callback LRScheduler monitors single batches": [
        LRScheduler("ReduceLROnPlateau", step_every="batch")
    ],
    "two of its callbacks load the weights of their best epoch": [
        ("one", stop(load_best=True)),
        ("two", stop(load_best=True, patience=3)),
    ],
}


def test_what_may_do_more_is_named():
    candidates = [{"callbacks": callbacks} for callbacks in REFUSED.values()]
    net = NeuralNetClassifier(**{**SETTINGS, "max_epochs": 2})

    with np.errstate(all="ignore"):
        found, _, report = search(net, candidates, X, y, error_score=0.0)

    reasons = [fit["reason"] for fit in report.alone if fit["split"] == 0]
    assert reasons == list(REFUSED)


def test_conflicting_settings_are_named():
    net = NeuralNetClassifier(**{**SETTINGS, "max_epochs": 2})
    both = {"callbacks": SCHEDULES["steps"], "lr_schedule": "cosine"}
    restored = {"callbacks": STOPPING["best"], "early_stopping": True, "train_split": None}

    _, _, report = search(net, [both, restored], X, y)

    assert [fit["reason"] for fit in report.alone if fit["split"] == 0] == [
        "both lr_schedule and a callback set its learning rate",
        "a callback and early_stopping both load the weights of their best epoch",
    ]
