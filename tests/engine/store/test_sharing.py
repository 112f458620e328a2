"""Fits that differ in their numbers of epochs only are one training, with equal results."""

import joblib
import numpy as np
import pytest
import skorch
import torch
from parity import RAGGED, Keep, X, X_reg, assert_parity, assert_same_net, search, y, y_reg
from sklearn.datasets import make_classification
from sklearn.exceptions import FitFailedWarning
from sklearn.model_selection import GridSearchCV, RepeatedKFold, cross_validate
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils import check_random_state
from torch import nn

import sktune
from sktune import NeuralNetClassifier, NeuralNetRegressor
from sktune.engine import digest, executor
from sktune.engine.report import FusionReport
from sktune.engine.store import MemoryStore

EPOCHS = [{"max_epochs": n} for n in (5, 2, 9, 5)]
SETTINGS = {"module__hidden": (8,), "module__dropout": 0.2, "batch_size": 16, "random_state": 0}
STOPS = {"early_stopping": True, "n_iter_no_change": 2, "lr": 0.1}
X_long, y_long = make_classification(240, n_features=6, n_informative=4, random_state=0)


def ours(**options):
    return NeuralNetClassifier(**{**SETTINGS, **options})


class Gated(nn.Module):
    """A module of the user's that is no chain of layers."""

    def __init__(self, n_features, n_outputs):
        super().__init__()
        self.first = nn.Linear(n_features, 8)
        self.gate = nn.Linear(n_features, 8)
        self.last = nn.Linear(8, n_outputs)
        self.double()

    def forward(self, X):
        return self.last(torch.tanh(self.first(X)) * torch.sigmoid(self.gate(X)))


def halved(t, max_epochs):
    return 0.5 ** np.floor(t)


halved.looks_at_max_epochs = False


CASES = {
    "adamw": (ours(), X, y),
    "momentum": (ours(optimizer=torch.optim.SGD, optimizer__momentum=0.9), X, y),
    "early stopping": (ours(**STOPS), X, y),
    "training loss": (ours(early_stopping="train_loss", n_iter_no_change=2, tol=0.1), X, y),
    "warmup": (ours(lr_schedule="step", lr_schedule__warmup=3), X, y),
    "schedule of the user's": (ours(lr_schedule=halved), X, y),
    "float32": (ours(module__batch_norm=True), X_long, y_long),
    "class weights": (ours(class_weight={0: 2.0, 1: 0.5}), X, y),
    "regression": (NeuralNetRegressor(**SETTINGS), X_reg, y_reg),
    "module of the user's": (NeuralNetClassifier(Gated, random_state=0), X, y),
    "pipeline": (make_pipeline(StandardScaler(), ours()), X, y),
}


def named(net, candidates):
    prefix = "neuralnetclassifier__" if hasattr(net, "steps") else ""
    return [{prefix + name: value for name, value in one.items()} for one in candidates]


@pytest.mark.parametrize("name", CASES)
def test_results_are_those_of_separate_fits(name):
    net, *data = CASES[name]
    if name == "pipeline":
        plain, _, _ = search(net, named(net, EPOCHS), *data, fused=False)
        fused, _, report = search(net, named(net, EPOCHS), *data)
        for column in ("split0_test_score", "split1_test_score"):
            np.testing.assert_array_equal(plain.cv_results_[column], fused.cv_results_[column])
    else:
        report = assert_parity(net, EPOCHS, *data)

    assert report.sharing.n_shared_fits == 6
    assert report.sharing.n_trained_epochs <= 2 * 9
    assert report.sharing.reasons == {}
    assert "fits were trained for other fits as well" in str(report)


def test_a_grid_over_epochs_costs_the_longest_fit():
    with joblib.parallel_config("sktune"):
        found = sktune.GridSearchCV(ours(), {"max_epochs": [5, 10, 20, 40]}, cv=RAGGED).fit(X, y)

    sharing = found.fusion_.sharing
    assert sharing.n_trained_epochs == 2 * 40
    assert sharing.n_shared_epochs == 2 * (5 + 10 + 20)
    curves = found.curves_
    assert curves.groupby("candidate").epoch.max().tolist() == [5, 10, 20, 40]


def test_outputs_for_the_test_rows_are_those_of_each_epoch(monkeypatch):
    asked = []
    build = sktune.bridge.install.HandOver.build_parts
    monkeypatch.setattr(
        sktune.bridge.install.HandOver,
        "build_parts",
        lambda hook, net: asked.append(net) or build(hook, net),
    )
    grid = {"max_epochs": [2, 9]}
    found = sktune.GridSearchCV(ours(), grid, cv=RAGGED, scoring="neg_log_loss", refit=False)
    losses = found.fit(X, y).cv_results_["mean_test_score"]
    assert asked == []
    alone = [
        cross_validate(ours(max_epochs=n), X, y, cv=RAGGED, scoring="neg_log_loss")["test_score"]
        for n in (2, 9)
    ]
    np.testing.assert_allclose(losses, np.mean(alone, axis=1), rtol=1e-6)
    assert losses[0] != losses[1]


def test_candidates_and_splits_that_are_alike_are_trained_once():
    twice = [*RAGGED, *RAGGED]
    found = sktune.GridSearchCV(ours(max_epochs=3), {"lr": [0.01, 0.01]}, cv=twice, refit=False)
    sharing = found.fit(X, y).fusion_.sharing

    assert sharing.n_trained_epochs == 2 * 3
    assert (sharing.n_shared_fits, sharing.n_shared_epochs) == (6, 18)
    assert len(set(found.cv_results_["mean_test_score"])) == 1
    other = RepeatedKFold(n_splits=2, n_repeats=2, random_state=0)
    assert found.set_params(cv=other).fit(X, y).fusion_.sharing.n_shared_fits == 4


@pytest.mark.parametrize("schedule", ["cosine", "one_cycle", lambda t, max_epochs: 1 - t / 100])
def test_a_schedule_that_looks_at_max_epochs_is_not_shared(schedule):
    net = ours(lr_schedule=schedule)
    report = assert_parity(net, EPOCHS, X, y)

    # two candidates are the same
    assert report.sharing.n_trained_epochs == 2 * (5 + 2 + 9)
    assert report.sharing.reasons == {"its schedule looks at max_epochs": 8}
    assert "8 fits not shared: its schedule looks at max_epochs" in str(report)


def test_fits_that_draw_their_seeds_are_not_shared():
    def run(is_fused):
        check_random_state(None).seed(0)
        torch.manual_seed(0)
        found, nets, report = search(
            ours(random_state=None), EPOCHS, X, y, fused=is_fused, n_jobs=1 if is_fused else None
        )
        return nets, report, check_random_state(None).rand(), torch.rand(1).item()

    plain, _, *drawn = run(False)
    fused, report, *drawn_as_well = run(True)

    assert drawn == drawn_as_well
    assert report.sharing.n_shared_fits == 0
    for one, other in zip(plain, fused, strict=True):
        assert_same_net(one, other)


def test_the_generators_are_left_as_by_separate_fits():
    def run(is_fused):
        net = ours(random_state=0, early_stopping=True, validation_fraction=0.3)
        check_random_state(None).seed(0)
        torch.manual_seed(0)
        search(net, EPOCHS, X, y, fused=is_fused)
        return check_random_state(None).rand(), torch.rand(1).item()

    assert run(True) == run(False)


def test_skorchs_own_nets_say_why_they_are_not_shared():
    module = nn.Sequential(nn.Linear(6, 3)).double()
    net = skorch.NeuralNetClassifier(module, criterion=nn.CrossEntropyLoss, verbose=0)
    _, _, report = search(net, EPOCHS, X, y)

    assert report.sharing.n_trained_epochs == 2 * 21
    (reason,) = report.sharing.reasons
    assert reason == "skorch's own nets draw from torch's generator, in which no two begin alike"


@pytest.mark.filterwarnings("ignore:One or more of the test scores are non-finite")
def test_a_fit_that_ends_before_the_loss_is_infinite_has_not_failed():
    net = NeuralNetRegressor(
        module__hidden=(), optimizer=torch.optim.SGD, batch_size=16, lr=5.0, random_state=0
    )
    alone = []
    for n in range(1, 40):
        try:
            net.set_params(max_epochs=n).fit(X_reg, y_reg)
        except ArithmeticError as error:
            alone.append(str(error))
            break
    candidates = [{"max_epochs": k} for k in (n - 2, n + 1, n + 9)]
    with pytest.warns(FitFailedWarning, match="2 fits failed out of a total of 3"):
        found, nets, report = search(
            net, candidates, X_reg, y_reg, cv=[(np.arange(110), np.arange(9))]
        )
    scores = found.cv_results_["mean_test_score"]

    assert np.isnan(scores).tolist() == [False, True, True]
    assert report.sharing.n_shared_fits == 2
    assert report.sharing.n_trained_epochs == n
    assert_same_net(net.set_params(max_epochs=n - 2).fit(X_reg, y_reg), nets[0])


def test_fits_of_a_training_that_fails_in_the_engine_are_trained_alone(monkeypatch):
    def fail(*args, **options):
        raise ZeroDivisionError("a fault of the engine")

    plain, references, _ = search(ours(), EPOCHS, X, y, fused=False)
    monkeypatch.setattr(executor, "train_group", fail)
    with pytest.warns(RuntimeWarning, match="a fault of the engine"):
        _, nets, report = search(ours(), EPOCHS, X, y)

    assert len(report.alone) == 8
    assert report.sharing.n_shared_fits == 0
    for one, other in zip(references, nets, strict=True):
        assert_same_net(one, other)


def test_fits_that_a_listener_stops_say_so():
    class Stop:
        def on_epoch(self, event):
            if event.epoch == 4:
                for fit in event.fits:
                    event.stop(fit, "it is late")

    report = FusionReport()
    with joblib.parallel_config("sktune", report=report, listeners=(Stop(),)):
        keep = Keep()
        candidates = {"max_epochs": [2, 6, 9]}
        GridSearchCV(ours(), candidates, cv=RAGGED[:1], refit=False, scoring=keep).fit(X, y)

    assert [len(net.history) for net in keep.nets] == [2, 4, 4]
    assert [stop["candidate"] for stop in report.stopped] == [1, 2]


def test_all_searches_share_over_their_rounds():
    space = {"max_epochs": [2, 3, 4], "lr": [0.01, 0.1]}
    random = sktune.RandomizedSearchCV(
        ours(), space, n_iter=6, cv=RAGGED, stop="auto", random_state=0, refit=False
    )
    sharing = random.fit(X, y).fusion_.sharing
    assert random.n_rounds_ > 1
    assert sharing.n_known_fits > 0
    assert sharing.n_trained_epochs < 2 * 2 * (2 + 3 + 4)
    bayes = sktune.BayesSearchCV(
        ours(), space, n_iter=7, batch_size=2, cv=RAGGED, random_state=0, refit=False
    )
    n_own = 2 * ours().max_epochs
    sharing = bayes.fit(X, y).fusion_.sharing
    assert sharing.n_known_fits > 0
    assert sharing.n_trained_epochs < 2 * 2 * (2 + 3 + 4) + n_own
    stages = [("epochs", {"max_epochs": [2, 4]}), ("all", {"max_epochs": [2, 3, 4, 9]})]
    staged = sktune.StagedSearch(
        ours(max_epochs=3), stages, sampler="grid", narrow=1.0, cv=RAGGED, refit=False
    )
    sharing = staged.fit(X, y).fusion_.sharing
    # a fit of 2 epochs does not follow from one of 3
    assert sharing.n_trained_epochs == 2 * (3 + 2 + 1 + 5)
    assert sharing.n_known_fits > 0


def test_a_fit_without_a_digest_is_trained_and_says_so():
    class Handle:
        def __reduce_ex__(self, protocol):
            raise TypeError("a handle of the operating system cannot be pickled")

        def __deepcopy__(self, memo):
            return self

    class Unpicklable(Gated):
        def __init__(self, n_features, n_outputs):
            super().__init__(n_features, n_outputs)
            self.handle = Handle()

    report = assert_parity(NeuralNetClassifier(Unpicklable, random_state=0), EPOCHS, X, y)
    assert report.sharing.n_shared_fits == 0
    (reason,) = report.sharing.reasons
    assert "cannot be pickled" in reason


def test_a_table_is_hashed_once_in_a_fit(monkeypatch):
    hashed = []
    feed = digest._feed_tensor
    monkeypatch.setattr(
        digest,
        "_FEEDS",
        tuple(
            (kind, (lambda h, t: hashed.append(t.shape) or feed(h, t)) if one is feed else one)
            for kind, one in digest._FEEDS
        ),
    )
    stages = [("epochs", {"max_epochs": [2, 4]}), ("rates", {"lr": [0.1, 0.2]})]
    search = sktune.StagedSearch(ours(max_epochs=3), stages, sampler="grid", cv=3)
    search.fit(X_long, y_long)

    assert hashed.count(X_long.shape) == 1
    assert search.fusion_.sharing.n_known_fits > 0


@pytest.mark.parametrize("kind", [float, np.float64])
def test_a_fit_with_dropout_is_known_whatever_it_was_prepared_with(kind):
    # fits that differ in their rates are prepared as followers of the first of them
    net = ours(module__dropout=0.1)
    rates = [kind(0.0), kind(0.2), kind(0.4)]
    store = MemoryStore()
    with joblib.parallel_config("sktune", store=store):
        sktune.GridSearchCV(net, {"module__dropout": rates}, cv=RAGGED, refit=False).fit(X, y)
        for rate in reversed(rates):
            space = {"module__dropout": [rate]}
            again = sktune.GridSearchCV(net, space, cv=RAGGED, refit=False).fit(X, y)
            assert again.fusion_.sharing.n_trained_epochs == 0


def test_cross_validations_share_in_the_context():
    report = FusionReport()
    with joblib.parallel_config("sktune", report=report):
        cross_validate(ours(max_epochs=2), X, y, cv=[*RAGGED, *RAGGED])

    assert report.sharing.n_trained_epochs == 2 * 2
