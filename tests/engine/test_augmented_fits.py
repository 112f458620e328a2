"""Augmented fits: alone, together, resumed and beside failing lanes they are the same."""

import pickle

import joblib
import numpy as np
import pytest
import torch
from parity import assert_close, assert_parity, assert_same_net, compiled_steps, search
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.exceptions import FitFailedWarning
from sklearn.model_selection import KFold, cross_validate
from test_fits_as_data import assert_joined, collect
from torch import nn

from sktune import (
    NeuralNetClassifier,
    NeuralNetRegressor,
    TableAugmentation,
)
from sktune.engine.compiled import program
from sktune.engine.group import train_group
from sktune.engine.report import FusionReport

digits = load_digits()
# 73 and 74 rows to train on
images = (digits.images[:110] / 16)[:, np.newaxis]
flat = images.reshape(110, 64)
y = digits.target[:110] % 3
y_reg = np.column_stack([flat.mean(axis=1), flat[:, 20] - flat[:, 30]])
WEIGHTS = np.random.default_rng(0).uniform(0.2, 3, 110)
RAGGED = [list(KFold(3).split(flat))[fold] for fold in (0, 2)]

SETTINGS = {"max_epochs": 4, "batch_size": 16, "random_state": 3, "lr": 0.01}
MLP_64 = {"module__hidden": (8,), "module__dtype": torch.float64}
ALL_OF_IMAGES = {
    "augment__p_flip": 0.5,
    "augment__p_flip_vertical": 0.2,
    "augment__degrees": 30.0,
    "augment__shift": 0.2,
    "augment__scale": 0.3,
    "augment__brightness": 0.4,
    "augment__contrast": 0.4,
    "augment__cutout": 0.3,
}
IMAGE_LANES = [
    {},
    {"augment__degrees": 0.0},
    {"augment__shift": 0.0, "lr": 0.05},
    {name: 0.0 for name in ALL_OF_IMAGES},
    {"random_state": 4},
]
TABLE_LANES = [
    {"augment__noise": 0.5},
    {"augment__noise": 0.5, "lr": 0.03},
    {"augment__mask": 0.2, "augment__noise": 0.1},
    {"augment__noise": 0.0},
    {"augment__noise": 0.3, "random_state": 5},
]
MIXUP_LANES = [
    {"augment__mixup": 0.4},
    {"augment__mixup": 0.0},
    {"augment__mixup": 1.0, "augment__noise": 0.1},
]


class Convolutional(nn.Module):
    def __init__(self, n_outputs=3):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(1, 4, 3, dtype=torch.float64),
            nn.ReLU(),
            nn.Flatten(),
            nn.Dropout(0.2),
            nn.Linear(144, n_outputs, dtype=torch.float64),
        )

    def forward(self, X):
        return self.layers(X)


def of_images(**options):
    return NeuralNetClassifier(
        Convolutional, augment="images", **{**SETTINGS, **ALL_OF_IMAGES, **options}
    )


def of_tables(**options):
    return NeuralNetClassifier(**{"augment": "table", **SETTINGS, **MLP_64, **options})


# of each case: a net, candidates, X, y, and options of the comparison
CASES = {
    "images": (of_images(), IMAGE_LANES, images, y, {}),
    "images of mixed rows": (of_images(), MIXUP_LANES[:2], images, y, {}),
    "flat images": (
        NeuralNetClassifier(
            augment="images",
            augment__image_shape=(8, 8),
            **{**SETTINGS, **MLP_64, **ALL_OF_IMAGES},
        ),
        IMAGE_LANES,
        flat,
        y,
        {},
    ),
    "table": (of_tables(module__dropout=0.2), TABLE_LANES, flat, y, {}),
    "weighted table": (
        of_tables(),
        TABLE_LANES,
        flat,
        y,
        {"fit_params": {"sample_weight": WEIGHTS}},
    ),
    "mixup": (of_tables(), MIXUP_LANES, flat, y, {}),
    "weighted mixup": (
        of_tables(),
        MIXUP_LANES,
        flat,
        y,
        {"fit_params": {"sample_weight": WEIGHTS}},
    ),
    "mixup of two classes": (
        of_tables(criterion=nn.BCEWithLogitsLoss),
        MIXUP_LANES,
        flat,
        y == 1,
        {},
    ),
    "smoothed mixup": (of_tables(criterion__label_smoothing=0.1), MIXUP_LANES, flat, y, {}),
    "mixup under a margin": (of_tables(criterion=nn.MultiMarginLoss), MIXUP_LANES, flat, y, {}),
    "several labels": (
        of_tables(criterion=nn.BCEWithLogitsLoss),
        MIXUP_LANES,
        flat,
        np.column_stack([y == 1, y == 2, flat[:, 20] > 0.5]),
        {},
    ),
    "class weights": (of_tables(class_weight={0: 2.0, 1: 0.5, 2: 1.0}), MIXUP_LANES, flat, y, {}),
    "other lengths": (
        of_tables(augment__noise=0.2, augment__mixup=0.5),
        [{"max_epochs": n} for n in (2, 5, 3)],
        flat,
        y,
        {},
    ),
    "other batches": (of_tables(augment__mask=0.3), [{}, {"lr": 0.1}], flat, y, {"max_lanes": 1}),
    "penalties": (of_tables(l2=0.1), TABLE_LANES, flat, y, {}),
    "regression": (
        NeuralNetRegressor(augment="table", **SETTINGS, **MLP_64),
        TABLE_LANES + MIXUP_LANES,
        flat,
        y_reg,
        {"fit_params": {"sample_weight": WEIGHTS}},
    ),
    "early stopping": (
        of_tables(early_stopping=True, n_iter_no_change=2, max_epochs=10),
        TABLE_LANES,
        flat,
        y,
        {},
    ),
    "no shuffling": (of_tables(shuffle=False), TABLE_LANES + MIXUP_LANES, flat, y, {}),
    "all rows at once": (of_tables(batch_size=-1), TABLE_LANES + MIXUP_LANES, flat, y, {}),
    "an object": (
        NeuralNetClassifier(augment=TableAugmentation(noise=0.5, mask=0.1), **SETTINGS, **MLP_64),
        [{}, {"augment__mask": 0.0}, {"augment": TableAugmentation(noise=0.1)}],
        flat,
        y,
        {},
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_lanes_end_as_plain_fits_do(name):
    net, candidates, X, targets, options = CASES[name]

    report = assert_parity(net, candidates, X, targets, cv=RAGGED, **options)

    # all strengths are of one group
    assert len(report.groups) == (4 if options.get("max_lanes") else 1)


def test_lanes_do_not_depend_on_each_other():
    candidates = TABLE_LANES + MIXUP_LANES
    _, together, _ = search(of_tables(), candidates, flat, y, cv=RAGGED)
    _, backwards, _ = search(of_tables(), candidates[::-1], flat, y, cv=RAGGED)

    for candidate in range(len(candidates)):
        other = len(candidates) - 1 - candidate
        for split in range(2):
            assert_same_net(together[2 * candidate + split], backwards[2 * other + split])


@pytest.mark.filterwarnings("ignore:One or more of the test scores")
@pytest.mark.parametrize("are_compiled", [False, True])
def test_lane_that_fails_is_isolated(monkeypatch, are_compiled):
    monkeypatch.setattr(program, "enabled", are_compiled and program.enabled)
    net = of_tables(optimizer=torch.optim.SGD)
    fine = [{"augment__noise": 0.2}, {"augment__mask": 0.5}]
    _, expected, _ = search(net, fine, flat, y, cv=RAGGED)
    too_noisy = {"augment__noise": 1e200}

    with np.errstate(all="ignore"), pytest.warns(FitFailedWarning, match="must stay finite"):
        found, nets, report = search(net, [fine[0], too_noisy, fine[1]], flat, y, cv=RAGGED)

    assert np.isnan(found.cv_results_["mean_test_score"]).tolist() == [False, True, False]
    assert [group["lanes"] for group in report.groups] == [6]
    for one, other in zip(expected, nets, strict=True):
        assert_same_net(one, other)


@pytest.mark.parametrize("are_compiled", [False, True])
@pytest.mark.parametrize("name", ["table", "weighted mixup", "regression", "flat images"])
def test_two_epochs_and_two_more_are_four(monkeypatch, name, are_compiled):
    monkeypatch.setattr(program, "enabled", are_compiled and program.enabled)
    net, candidates, X, targets, _ = CASES[name]
    for specs, tables in collect(monkeypatch, net, candidates, X, targets, RAGGED):
        whole = train_group(specs, None, tables)
        first = train_group(specs, None, tables, until=2)

        states = [result.state for result in first]
        specs, states, tables = pickle.loads(pickle.dumps((specs, states, tables)))
        second = train_group(specs, states, tables)

        assert_joined(whole, first, second)


@pytest.mark.parametrize("are_compiled", [False, True])
def test_fit_goes_on_as_if_it_had_not_stopped(are_compiled):
    with compiled_steps(are_compiled and program.enabled):
        net = of_tables(augment__noise=0.3, augment__mixup=0.4)
        whole = clone(net).set_params(max_epochs=6).fit(flat, y)

        parts = clone(net).set_params(max_epochs=2).fit(flat, y).partial_fit(flat, y)
        warm = clone(net).set_params(max_epochs=3, warm_start=True, random_state=3).fit(flat, y)
        parts.partial_fit(flat, y)

    assert_close(whole.module_.state_dict(), parts.module_.state_dict(), 1e-12)
    assert not torch.equal(warm.module_.layers[0].weight, whole.module_.layers[0].weight)
    with compiled_steps(are_compiled and program.enabled):
        warm.fit(flat, y)
    assert_close(whole.module_.state_dict(), warm.module_.state_dict(), 1e-12)


def test_strength_of_zero_is_no_augmentation(monkeypatch):
    off = {name: 0.0 for name in ALL_OF_IMAGES}
    without = NeuralNetClassifier(Convolutional, **SETTINGS)
    with_zeros = of_images(**off)
    a = clone(without).fit(images, y)
    b = clone(with_zeros).fit(images, y)

    for name, tensor in a.module_.state_dict().items():
        assert torch.equal(tensor, b.module_.state_dict()[name])
    digests = []
    for net in (without, with_zeros, of_images()):
        ((specs, _),) = collect(monkeypatch, net, [{}], images, y, RAGGED[:1])
        digests.append(specs[0].digest)
    assert digests[0] == digests[1] != digests[2]


def test_digests_tell_strengths_apart(monkeypatch):
    candidates = [{"augment__noise": 0.1}, {"augment__noise": 0.2}, {"augment__mixup": 0.1}]
    ((specs, _),) = collect(monkeypatch, of_tables(), candidates, flat, y, RAGGED[:1])

    assert len({spec.digest for spec in specs}) == 3


class Doubling:
    """An augmentation of the user's."""

    def __call__(self, X):
        return 2 * X


def test_callable_of_the_users_is_trained_alone():
    net = of_tables(augment=Doubling())
    report = FusionReport()
    with joblib.parallel_config("sktune", report=report):
        fused = cross_validate(net, flat, y, cv=RAGGED, return_estimator=True)
    plain = cross_validate(net, flat, y, cv=RAGGED, return_estimator=True)

    reasons = {fit["reason"] for fit in report.alone}
    assert reasons == {"its augment is a callable of the user's, Doubling"}
    for one, other in zip(plain["estimator"], fused["estimator"], strict=True):
        assert_same_net(one, other, rtol=0)


def test_augmented_rows_take_compiled_steps():
    candidates = TABLE_LANES + MIXUP_LANES
    _, _, report = search(of_tables(), candidates, flat, y, cv=RAGGED)

    (group,) = report.groups
    assert group["steps"] == ("compiled" if program.enabled else "stacked")


@pytest.mark.skipif(not program.enabled, reason="there are no compiled steps")
def test_blocker_of_compiled_steps_is_told():
    net = of_tables(module=Probabilities, criterion=nn.NLLLoss)
    del net.module__hidden, net.module__dtype
    report = assert_parity(net, MIXUP_LANES, flat, y, cv=RAGGED)

    (group,) = report.groups
    assert group["steps"] == "stacked"
    assert "its mixup gives a row two labels" in group["blockers"]["compiled"]


class Probabilities(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Linear(64, 3, dtype=torch.float64), nn.Softmax(dim=1))


class Embedding(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(17, 3, dtype=torch.float64)
        self.last = nn.Linear(3, 3, dtype=torch.float64)

    def forward(self, X):
        return self.last(self.embedding(X[:, 20].long()))


def test_embedded_columns_stay_as_they_are():
    # noise on a column that is an index would ask for entries that are not there
    table = np.round(flat * 16)
    net = NeuralNetClassifier(
        Embedding, augment=TableAugmentation(noise=5.0, columns=range(20)), **SETTINGS
    )
    assert_parity(net, [{}, {"augment__noise": 0.0}], table, y, cv=RAGGED)
