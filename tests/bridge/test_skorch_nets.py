"""skorch's own nets, fused: each ends as ``torch.manual_seed(seed); net.fit(X, y)`` ends."""

from contextlib import nullcontext

import joblib
import numpy as np
import pytest
import skorch
import torch
from parity import Keep, assert_same_net, grid
from sklearn.base import clone
from sklearn.datasets import make_classification, make_regression
from sklearn.model_selection import GridSearchCV, KFold, cross_validate, permutation_test_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn

from sktune.engine.report import FusionReport

X, y = make_classification(110, n_features=6, n_informative=4, n_classes=3, random_state=0)
FOLDS = [list(KFold(3).split(X))[fold] for fold in (0, 2)]  # of 73 rows and of 74
QUIET = {"verbose": 0, "max_epochs": 4, "batch_size": 16, "lr": 0.1}


class Net(nn.Module):
    def __init__(self, rate=0.0, rate_in=0.0, n_outputs=3, probabilities=False):
        super().__init__()
        last = [nn.Softmax(-1)] if probabilities else []
        layers = [
            nn.Dropout(rate_in),
            nn.Linear(6, 8),
            nn.ReLU(),
            nn.Dropout(rate),
            nn.Linear(8, n_outputs),
        ]
        self.layers = nn.Sequential(*layers, *last).double()

    def forward(self, X):
        return self.layers(X)


class WithIdle(Net):
    """A net with a layer that nothing calls."""

    def __init__(self, n_outputs=3):
        super().__init__()
        self.aux = nn.Linear(8, 2).double()
        self.norm = nn.BatchNorm1d(8).double()


def classifier(**options):
    return skorch.NeuralNetClassifier(Net, **{"criterion": nn.CrossEntropyLoss, **QUIET, **options})


def search(net, candidates, X, y, score=None, **options):
    """Return the nets that a fused search fitted, and its report."""
    keep, report = Keep(score), FusionReport()
    torch.manual_seed(0)
    with joblib.parallel_config("sktune", report=report, **options):
        GridSearchCV(net, grid(*candidates), cv=FOLDS, scoring=keep, refit=False).fit(X, y)
    return keep.nets, report


def references(net, candidates, X, y):
    """Return the same fits, one at a time."""
    torch.manual_seed(0)
    fits = [(candidate, train) for candidate in candidates for train, _ in FOLDS]
    seeds = [int(torch.randint(2**62, ())) for _ in fits]
    nets = []
    for seed, (candidate, train) in zip(seeds, fits, strict=True):
        torch.manual_seed(seed)
        own = clone(candidate, safe=False)
        nets.append(clone(net).set_params(**own).fit(X[train], y[train]))
    return nets


LANES = [{"lr": 0.1}, {"lr": 0.2, "max_epochs": 2, "optimizer__weight_decay": 0.1}]
X_reg, y_reg = make_regression(110, n_features=6, n_targets=2, random_state=0)
CASES = {
    "standard": (classifier(), LANES),
    "shuffled": (classifier(iterator_train__shuffle=True), LANES),
    "no validation": (
        classifier(train_split=None, callbacks="disable", iterator_train__shuffle=True),
        LANES,
    ),
    "dropout": (
        classifier(iterator_train__shuffle=True, module__rate=0.2),
        [*LANES, {"module__rate": 0.5, "module__rate_in": 0.1}],
    ),
    "adam": (classifier(optimizer=torch.optim.Adam, train_split=None, module__rate=0.3), LANES),
    "idle layers": (
        skorch.NeuralNetClassifier(
            WithIdle, criterion=nn.CrossEntropyLoss, **QUIET, optimizer__momentum=0.9
        ),
        LANES,
    ),
    "whole batch": (classifier(batch_size=-1), LANES),
    "probabilities": (classifier(criterion=nn.NLLLoss, module__probabilities=True), LANES),
    "no device": (classifier(device=None), LANES),
    "any split": (classifier(train_split=skorch.dataset.ValidSplit(0.3, random_state=1)), LANES),
}


@pytest.mark.parametrize("name", CASES)
def test_fits_end_as_alone(name):
    net, candidates = CASES[name]
    nets, report = search(net, candidates, X, y)

    assert not report.alone, report
    assert [group["lanes"] for group in report.groups] == [2 * len(candidates)]
    for reference, other in zip(references(net, candidates, X, y), nets, strict=True):
        assert type(other) is type(net)
        assert_same_net(reference, other)
        np.testing.assert_array_equal(reference.predict(X), other.predict(X))


def test_regressors_and_binary_classifiers_end_as_alone():
    regressor = skorch.NeuralNetRegressor(Net, module__n_outputs=2, **QUIET)
    binary = skorch.NeuralNetBinaryClassifier(Net, module__n_outputs=1, **QUIET)
    for net, rows, targets in ((regressor, X_reg, y_reg / 100), (binary, X, (y > 0).astype(float))):
        nets, report = search(net, LANES, rows, targets)

        assert not report.alone, report
        for reference, other in zip(references(net, LANES, rows, targets), nets, strict=True):
            assert_same_net(reference, other)


class Tagger(nn.Module):
    """Tells a class of each of six positions."""

    def __init__(self):
        super().__init__()
        self.convolve = nn.Conv1d(1, 3, 3, padding=1).double()

    def forward(self, X):
        return self.convolve(X.unsqueeze(1))


def test_many_classes_of_a_row():
    net = skorch.NeuralNet(
        Tagger, nn.CrossEntropyLoss, train_split=skorch.dataset.ValidSplit(3), **QUIET
    )
    tags = (X > 0).astype(np.int64) + (X > 1)
    nets, report = search(net, LANES, X, tags, score=lambda net, X, y: 0.0)

    assert [group["lanes"] for group in report.groups] == [4], report
    for reference, other in zip(references(net, LANES, X, tags), nets, strict=True):
        assert_same_net(reference, other)


@pytest.mark.parametrize("options", [{"max_lanes": 1}, {"max_lanes": 3}, {"n_jobs": 2}])
def test_fits_do_not_depend_on_those_beside_them(options):
    net = classifier(iterator_train__shuffle=True, module__rate=0.3)
    together, _ = search(net, LANES, X, y)
    apart, _ = search(net, LANES, X, y, **options)

    for one, other in zip(together, apart, strict=True):
        assert_same_net(one, other)


def test_last_step_of_a_pipeline():
    report = FusionReport()
    pipeline = make_pipeline(StandardScaler(), classifier())
    with joblib.parallel_config("sktune", report=report):
        scores = cross_validate(pipeline, X, y, cv=3, error_score="raise", return_estimator=True)

    assert sum(group["lanes"] for group in report.groups) == 3, report.alone
    for fitted, score in zip(scores["estimator"], scores["test_score"], strict=True):
        assert fitted.score(X, y) > 0.3 < score
        assert type(fitted[-1]) is skorch.NeuralNetClassifier


@pytest.mark.parametrize(
    ("net", "reason"),
    [
        (
            classifier(callbacks=[skorch.callbacks.Freezer("*.9")]),
            "callback Freezer changes the module",
        ),
        (classifier(iterator_train__drop_last=True), "iterator_train of its own"),
        (
            classifier(train_split=lambda dataset, y=None, **params: (dataset, None)),
            "train_split of its own",
        ),
        (classifier(warm_start=True), "sets warm_start"),
        (classifier(optimizer=torch.optim.Rprop), "Rprop has no fused rule"),
    ],
)
def test_what_is_not_standard_goes_alone(net, reason):
    report = FusionReport()
    with joblib.parallel_config("sktune", report=report):
        cross_validate(net, X, y, cv=2, error_score="raise")

    assert reason in str(report)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"max_epochs": 0}, None),  # initial weights are scored
        ({"max_epochs": 2.0}, TypeError),
        ({"batch_size": -2}, ValueError),
        ({"batch_size": 0}, ValueError),
        ({"batch_size": 8.5}, ValueError),
    ],
)
def test_unusual_lengths_of_training_mean_what_skorch_says(options, error):
    report = FusionReport()
    for config in ({"backend": "sequential"}, {"backend": "sktune", "report": report}):
        with joblib.parallel_config(**config), pytest.raises(error) if error else nullcontext():
            found = cross_validate(classifier(**options), X, y, cv=2, error_score="raise")
            assert np.isfinite(found["test_score"]).all()

    assert "max_epochs or batch_size is unusual" in str(report)


@pytest.mark.parametrize("n_jobs", [None, 2])
def test_a_diverged_net_is_scored_as_skorch_scores_it(n_jobs):
    search = GridSearchCV(
        classifier(),
        {"lr": [0.1, 1e300]},
        cv=FOLDS,
        n_jobs=n_jobs,
        error_score="raise",
        refit=False,
    )
    report = FusionReport()
    plain = clone(search).fit(X, y)
    with joblib.parallel_config("sktune", report=report, n_jobs=n_jobs):
        fused = clone(search).fit(X, y)

    assert [(fit["candidate"], fit["reason"]) for fit in report.alone] == [
        (1, "it left the finite numbers")
    ] * 2
    # those that go on alone are not counted among the fused
    assert sum(group["lanes"] for group in report.groups) == 2
    assert fused.cv_results_["mean_test_score"][1] == plain.cv_results_["mean_test_score"][1]


def test_nets_with_other_validation_splits_have_their_own_batches():
    net = classifier(iterator_train__shuffle=True)
    splits = [skorch.dataset.ValidSplit(0.3, random_state=state) for state in (0, 1)]
    candidates = [{"train_split": split} for split in splits]
    nets, report = search(net, candidates, X, y)

    assert [group["lanes"] for group in report.groups] == [4], report
    for reference, other in zip(references(net, candidates, X, y), nets, strict=True):
        assert_same_net(reference, other)


class FailsOnce(Net):
    """Cannot be built in one of the folds' preparations."""

    n_built = 0

    def __init__(self, at=-1):
        super().__init__()
        FailsOnce.n_built += 1
        if FailsOnce.n_built == at:
            raise RuntimeError("not this time")


def test_a_fit_that_runs_alone_between_others_does_not_take_the_next_ones_result():
    def predictions(at):
        net = skorch.NeuralNetClassifier(
            FailsOnce, module__at=at, criterion=nn.CrossEntropyLoss, **QUIET
        )
        found, report = [], FusionReport()
        FailsOnce.n_built = 0
        torch.manual_seed(0)
        with joblib.parallel_config("sktune", report=report):
            permutation_test_score(
                net,
                X,
                y,
                cv=3,
                n_permutations=1,
                random_state=0,
                scoring=lambda net, *_: found.append(net.predict_proba(X)) or 0,
            )
        return found, report

    expected, _ = predictions(at=-1)
    found, report = predictions(at=5)  # the true labels are scored before, outside of joblib

    assert [fit["reason"] for fit in report.alone] == ["its fit fails before the training begins"]
    assert [
        np.array_equal(one, other) for one, other in zip(found[3:], expected[3:], strict=True)
    ] == [
        True,
        False,
        True,
    ]
    assert not np.array_equal(found[4], expected[5])


def test_rows_of_another_type_fail_as_they_would():
    report = FusionReport()
    with (
        joblib.parallel_config("sktune", report=report),
        pytest.raises(RuntimeError, match="dtype"),
    ):
        cross_validate(classifier(), X.astype(np.float32), y, cv=2, error_score="raise")

    assert "of the module's type" in str(report)
