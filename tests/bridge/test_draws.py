"""Random numbers of the whole process: fused fits draw, and share, what plain ones do."""

import joblib
import numpy as np
import pytest
import skorch
import torch
from sklearn.base import BaseEstimator, TransformerMixin, clone
from sklearn.decomposition import PCA
from sklearn.ensemble import RandomForestClassifier
from sklearn.kernel_approximation import RBFSampler
from sklearn.model_selection import GridSearchCV, KFold, ShuffleSplit, permutation_test_score
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn

from sktune import NeuralNetClassifier
from sktune.engine.report import FusionReport
from sktune.runtime.generators import Course, Tracker, read_generators

X = np.random.default_rng(0).normal(size=(120, 6))
y = (X[:, 0] > 0).astype(int)
UNSEEDED = NeuralNetClassifier(module__hidden=(4,), max_epochs=2, lr=0.05, device="cpu")
SEEDED = clone(UNSEEDED).set_params(random_state=0)
LRS = {"net__lr": [0.01, 0.1]}


def run_both(run):
    """Return the results of `run` without and with the backend, and the report.

    Each result comes with numbers that are drawn after it.
    """
    report, found = FusionReport(), []
    before = read_generators()
    for config in ({"backend": "sequential"}, {"backend": "sktune", "report": report}):
        np.random.seed(0)  # noqa: NPY002 (the generator that random_state=None draws from)
        torch.manual_seed(0)
        with joblib.parallel_config(**config):
            result = run()
        uniform, normal = np.random.rand(), np.random.randn()  # noqa: NPY002
        found.append((np.asarray(result), uniform, normal, float(torch.rand(()))))
    np.random.set_state(before[0])  # noqa: NPY002
    torch.set_rng_state(before[1])
    return *found, report


def assert_same_draws(run, n_alone=0):
    plain, fused, report = run_both(run)

    np.testing.assert_allclose(fused[0], plain[0], rtol=0, atol=1e-7)
    assert fused[1:] == plain[1:]
    assert len(report.alone) == n_alone, report
    return report


def score(estimator, grid, scoring="neg_log_loss"):
    found = GridSearchCV(estimator, grid, cv=3, scoring=scoring, refit=False).fit(X, y).cv_results_
    return [found[f"split{split}_test_score"] for split in range(3)]


class TorchNoise(TransformerMixin, BaseEstimator):
    def fit(self, X, y=None):
        self.factors_ = torch.randn(X.shape[1]).numpy()
        return self

    def transform(self, X):
        return X * self.factors_


class OneNumber(TorchNoise):
    def fit(self, X, y=None):
        self.factors_ = np.random.normal()  # noqa: NPY002
        return self


TRANSFORMERS = {
    "unseeded": RBFSampler(n_components=4),
    "a RandomState": RBFSampler(n_components=4, random_state=np.random.RandomState(3)),
    "PCA": PCA(3, svd_solver="randomized"),
    "torch": TorchNoise(),
    "one number": OneNumber(),
}


@pytest.mark.parametrize("net", [SEEDED, UNSEEDED], ids=["seeded", "unseeded"])
@pytest.mark.parametrize("name", TRANSFORMERS)
def test_transformers_draw_and_are_shared_as_in_plain_fits(name, net):
    assert_same_draws(lambda: score(Pipeline([("step", TRANSFORMERS[name]), ("net", net)]), LRS))


def test_a_candidate_that_draws_comes_after_some_that_do_not():
    pipeline = Pipeline([("step", StandardScaler()), ("net", SEEDED)])

    assert_same_draws(
        lambda: score(pipeline, {"step": [StandardScaler(), RBFSampler(n_components=4)], **LRS})
    )


@pytest.mark.parametrize(
    ("grid", "n_alone"),
    [
        (
            {"optimizer": [torch.optim.AdamW, torch.optim.Rprop, torch.optim.SGD]},
            3,
        ),  # left out beforehand
        ({"criterion__ignore_index": [-100, 1]}, 3),  # after the preparation
        ({"early_stopping": [True]}, 0),
    ],
)
def test_fits_that_are_left_out_draw_their_seeds_in_turn(grid, n_alone):
    assert_same_draws(lambda: score(UNSEEDED, grid), n_alone)


def test_steps_of_fits_that_are_left_out_draw_once():
    pipeline = Pipeline([("step", RBFSampler(n_components=4)), ("net", UNSEEDED)])

    assert_same_draws(
        lambda: score(pipeline, {"net__criterion__ignore_index": [-100, 1], **LRS}), n_alone=6
    )


SPLITTERS = {"at once": KFold(3, shuffle=True), "one by one": ShuffleSplit(3)}


@pytest.mark.parametrize("optimizer", [torch.optim.AdamW, torch.optim.Rprop])
@pytest.mark.parametrize("name", SPLITTERS)
def test_splitters_draw_between_the_fits_of_a_task(name, optimizer):
    net = clone(UNSEEDED).set_params(optimizer=optimizer)
    options = {
        "cv": SPLITTERS[name],
        "n_permutations": 2,
        "random_state": 0,
        "scoring": "neg_log_loss",
    }

    n_alone = 6 if optimizer is torch.optim.Rprop else 0
    assert_same_draws(lambda: permutation_test_score(net, X, y, **options)[1], n_alone)


def test_a_scorer_that_draws_leaves_the_next_seeds_to_plain_fits():
    def draw(net, X, y):
        return np.random.rand() + net.predict_proba(X)[0, 0]  # noqa: NPY002

    report = assert_same_draws(lambda: score(UNSEEDED, {"lr": [0.01, 0.1]}, draw), n_alone=5)
    assert "random numbers were drawn before its turn" in str(report)


def test_estimators_of_others_that_draw_between_nets():
    pipeline = Pipeline([("step", StandardScaler()), ("net", UNSEEDED)])

    assert_same_draws(
        lambda: score(pipeline, {"net": [UNSEEDED, RandomForestClassifier(3)]}), n_alone=3
    )


class DrawsWeights(nn.Module):
    def __init__(self, n_features, n_outputs, dtype=None):
        super().__init__()
        self.out = nn.Linear(n_features, n_outputs, dtype=dtype)
        self.out.weight.data *= float(np.random.rand())  # noqa: NPY002

    def forward(self, X):
        return self.out(X)


def test_modules_that_draw_their_weights_from_numpy():
    net = NeuralNetClassifier(DrawsWeights, max_epochs=2, random_state=0, device="cpu")

    assert_same_draws(lambda: score(net, {"lr": [0.01, 0.1]}))


class Zeros(nn.Module):
    def __init__(self):
        super().__init__()
        self.out = nn.Linear(6, 2).double()
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, X):
        return self.out(X)


def skorch_net(**options):
    split = skorch.dataset.ValidSplit(0.3)
    options = {
        "train_split": split,
        "criterion": nn.CrossEntropyLoss,
        "max_epochs": 2,
        "verbose": 0,
        **options,
    }
    return skorch.NeuralNetClassifier(Zeros, **options)


def read_losses(net):
    nets = []
    GridSearchCV(
        net,
        {"lr": [0.1, 0.5]},
        cv=3,
        refit=False,
        scoring=lambda net, X, y: nets.append(net) or 0.0,
    ).fit(X, y)
    return [net.history[:, "valid_loss"] for net in nets]


def test_random_validation_splits_of_skorchs_nets_draw_in_the_order_of_the_fits():
    plain, fused, report = run_both(lambda: read_losses(skorch_net()))

    np.testing.assert_allclose(fused[0], plain[0], rtol=0, atol=1e-7)
    assert fused[1:3] == plain[1:3]  # NumPy's numbers
    assert not report.alone


def test_nets_of_skorchs_that_go_alone_leave_the_generators_to_themselves():
    net = skorch_net(callbacks=[skorch.callbacks.Freezer("*.9")], iterator_train__shuffle=True)

    assert_same_draws(lambda: read_losses(net), n_alone=6)


def test_a_course_is_kept_only_where_nothing_is_drawn():
    tracker = Tracker()
    course, nothing = Course(tracker.states), Course(None)
    assert course.is_kept()
    torch.rand(())

    assert not course.is_kept()
    assert nothing.is_kept()
    assert tracker.has_moved()
    assert not tracker.has_moved()
