"""The backend beside other users of joblib, of scikit-learn and of the process."""

import contextlib
import io
import os
import subprocess
import sys
import time
import warnings

import joblib
import numpy as np
import pytest
import skorch
import torch
from joblib import Parallel, delayed
from parity import RAGGED, X, assert_same_scores, grid, search, y
from sklearn import config_context
from sklearn.base import BaseEstimator, ClassifierMixin, TransformerMixin, clone
from sklearn.ensemble import RandomForestClassifier
from sklearn.exceptions import FitFailedWarning
from sklearn.model_selection import GridSearchCV, cross_val_predict, cross_validate
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn

import sktune
from sktune import HoldoutSearch, NeuralNetClassifier
from sktune.bridge.fits import Fit
from sktune.engine.report import FusionReport
from sktune.engine.specs import FitResult
from sktune.evaluation import holdout

NET = NeuralNetClassifier(module__hidden=(4,), lr=0.05, max_epochs=2, random_state=0, device="cpu")


# --- calls that fit no network -------------------------------------------------------------------


class Thing:
    alive = 0

    def __init__(self):
        Thing.alive += 1

    def __del__(self):
        Thing.alive -= 1


def count_alive(thing):
    return Thing.alive


def run_lazily():
    return Parallel()(delayed(count_alive)(Thing()) for _ in range(6))


def tell_jobs():
    inner = Parallel(n_jobs=2, prefer="threads")(
        delayed(joblib.effective_n_jobs)(2) for _ in range(2)
    )
    return joblib.effective_n_jobs(2), joblib.effective_n_jobs(-1), inner


def use_again():
    parallel = Parallel()
    with contextlib.suppress(ZeroDivisionError):
        parallel(delayed(divmod)(1, 0) for _ in range(2))
    return parallel(delayed(abs)(-n) for n in range(3)), repr(parallel)


def stay_open(return_as):
    with Parallel(n_jobs=2, prefer="threads", return_as=return_as) as parallel:
        return [sorted(parallel(delayed(abs)(-n) for n in range(size))) for size in (3, 0, 2)]


def leave_early():
    parallel = Parallel(n_jobs=2, prefer="threads", return_as="generator")
    with parallel:
        left = parallel(delayed(abs)(-n) for n in range(2))
        # joblib's warning tells tasks that are done from others
        end = time.monotonic() + 10
        while parallel.n_completed_tasks < 2 and time.monotonic() < end:
            time.sleep(0.001)
    found = [*parallel(delayed(abs)(-n) for n in range(3))]
    left.close()
    return found, [*parallel(delayed(abs)(-n) for n in range(3))]


class Noting(Parallel):
    def print_progress(self):
        self.seen = [*getattr(self, "seen", []), self.n_completed_tasks]


def note_progress():
    parallel = Noting()
    parallel(delayed(abs)(-n) for n in range(3))
    return parallel.seen


def print_verbosely():
    Parallel(verbose=60)([delayed(abs)(-n) for n in range(12)])


CALLS = {
    "lazily": run_lazily,
    "generator": lambda: [*Parallel(return_as="generator")(delayed(abs)(-n) for n in range(5))],
    "threads": lambda: [
        *Parallel(2, "threading", return_as="generator")(delayed(abs)(-n) for n in range(5))
    ],
    "unordered": lambda: sorted(
        Parallel(n_jobs=2, prefer="threads", return_as="generator_unordered")(
            delayed(abs)(-n) for n in range(5)
        )
    ),
    "unknown": lambda: Parallel(return_as="a heap"),
    "no jobs": lambda: Parallel(n_jobs=0)(delayed(abs)(n) for n in range(3)),
    "no effective jobs": lambda: joblib.effective_n_jobs(0),
    "timeout": lambda: Parallel(2, timeout=0.05, prefer="threads")(
        delayed(os.read)(PIPE, 1) for _ in range(2)
    ),
    "timeout of one": lambda: Parallel(timeout=1)(delayed(abs)(n) for n in range(2)),
    "all at once": lambda: Parallel(pre_dispatch="all")(delayed(abs)(n) for n in range(3)),
    "batches": lambda: Parallel(batch_size=2)(delayed(abs)(n) for n in range(3)),
    "nothing": lambda: Parallel()([]),
    "jobs within": lambda: [tell_jobs(), *Parallel()(delayed(tell_jobs)() for _ in range(2))],
    "jobs within threads": lambda: Parallel(2, prefer="threads")(
        delayed(tell_jobs)() for _ in range(2)
    ),
    "again": use_again,
    "open": lambda: stay_open("list"),
    "open generator": lambda: stay_open("generator"),
    "left early": leave_early,
    "progress": note_progress,
    "verbose": print_verbosely,
    "an error": lambda: Parallel(2, prefer="threads")(delayed(divmod)(1, 0) for _ in range(2)),
}
PIPE, _END = os.pipe()


def observe(call):
    """Return the results or the error of a call, its warnings and its output without times."""
    out, err = io.StringIO(), io.StringIO()
    with warnings.catch_warnings(record=True) as caught, contextlib.redirect_stdout(out):
        warnings.simplefilter("always")
        with contextlib.redirect_stderr(err):
            try:
                found = call()
            except Exception as error:
                found = (type(error), str(error))
    printed = [
        line.split("| elapsed")[0] for line in (out.getvalue() + err.getvalue()).splitlines()
    ]
    return found, printed, [str(warning.message) for warning in caught]


@pytest.mark.parametrize("name", CALLS)
def test_calls_that_fit_no_network_are_those_of_joblib(name):
    expected = observe(CALLS[name])
    if name == "timeout":
        os.write(_END, b"ab")
    with joblib.parallel_config("sktune"):
        found = observe(CALLS[name])
    if name == "timeout":
        os.write(_END, b"ab")

    assert found == expected


# --- estimators of others ------------------------------------------------------------------------


class Strict(ClassifierMixin, BaseEstimator):
    """Wants its parameter each time that parameters are set."""

    calls = []

    def __init__(self, strength=1.0):
        self.strength = strength

    def set_params(self, **params):
        self.calls.append(params["strength"])
        return super().set_params(**params)

    def fit(self, X, y):
        self.classes_ = np.unique(y)
        return self

    def predict(self, X):
        return np.zeros(len(X), int)

    def transform(self, X):
        return X


class CountingPipeline(Pipeline):
    calls = []

    def set_params(self, **params):
        self.calls.append(sorted(params))
        return super().set_params(**params)


@pytest.mark.parametrize("verbose", [0, 2])
def test_parameters_are_set_as_often_as_without_us(verbose, capsys):
    pipeline = CountingPipeline([("step", Strict()), ("net", NET)])
    searches = [
        GridSearchCV(Strict(), {"strength": [0.5, 2.0]}, cv=2, refit=False, verbose=verbose),
        GridSearchCV(pipeline, {"step__strength": [0.5, 2.0], "net__lr": [0.1]}, cv=2, refit=False),
    ]
    found = []
    for backend in ("sequential", "sktune"):
        Strict.calls.clear()
        CountingPipeline.calls.clear()
        with joblib.parallel_config(backend):
            for one in searches:
                one.fit(X, y)
        printed = [
            line.split("total time")[0].rstrip(".; ")
            for line in capsys.readouterr().out.splitlines()
        ]
        found.append((Strict.calls[:], CountingPipeline.calls[:], printed))

    assert found[1] == found[0]


@pytest.mark.parametrize("n_jobs", [None, 2])
def test_a_forest_within_a_search_keeps_its_workers(n_jobs):
    seen = []

    class Forest(RandomForestClassifier):
        def fit(self, X, y):
            seen.append((joblib.effective_n_jobs(2), joblib.effective_n_jobs(None)))
            return super().fit(X, y)

        def transform(self, X):
            return self.predict_proba(X)

    forest = Forest(n_estimators=2, n_jobs=2, random_state=0)
    for estimator in (forest, make_pipeline(forest, NET)):
        counts = []
        for backend in ("threading", "sktune"):
            seen.clear()
            with (
                joblib.parallel_config("threading", n_jobs=n_jobs or 1),
                joblib.parallel_config(backend),
            ):
                GridSearchCV(estimator, {}, cv=2, refit=False, n_jobs=n_jobs).fit(X, y)
            counts.append(seen[:])
        assert counts[1] == counts[0]


# --- arguments, steps, splits and reasons --------------------------------------------------------


class Scaled(nn.Module):
    def __init__(self, n_features=6, n_outputs=3, dtype=torch.float64):
        super().__init__()
        self.layer = nn.Linear(n_features, n_outputs, dtype=dtype)

    def forward(self, X, scale=1.0):
        return self.layer(X) * scale


SCALED = {
    "ours": NeuralNetClassifier(Scaled, max_epochs=3, lr=0.1, random_state=0, device="cpu"),
    "skorch's": skorch.NeuralNetClassifier(
        Scaled, criterion=nn.CrossEntropyLoss, max_epochs=3, verbose=0, train_split=None
    ),
}


@pytest.mark.parametrize("params", [{"scale": 5.0}, {"epochs": 1}], ids=["forward", "epochs"])
@pytest.mark.parametrize("is_last_step", [False, True])
@pytest.mark.parametrize("name", SCALED)
def test_arguments_of_fit_are_not_lost(name, is_last_step, params):
    net, (argument,) = SCALED[name], params
    estimator = Pipeline([("scale", StandardScaler()), ("net", net)]) if is_last_step else net
    params = {f"net__{argument}": params[argument]} if is_last_step else params
    report, found = FusionReport(), []
    for config in ({"backend": "sequential"}, {"backend": "sktune", "report": report}):
        torch.manual_seed(0)
        with joblib.parallel_config(**config):
            found.append(
                cross_validate(estimator, X, y, cv=3, params=params, return_estimator=True)[
                    "estimator"
                ]
            )
            cross_val_predict(estimator, X, y, cv=3, params=params)

    for plain, fused in zip(*found, strict=True):
        plain, fused = (fitted[-1] if is_last_step else fitted for fitted in (plain, fused))
        assert len(fused.history) == len(plain.history) == (1 if argument == "epochs" else 3)
        for one, other in zip(plain.module_.parameters(), fused.module_.parameters(), strict=True):
            torch.testing.assert_close(other, one)
    assert {fit["reason"].split(",")[0] for fit in report.alone} == {f"its fit is given {argument}"}
    assert len(report.alone) == 6


class Sampler(BaseEstimator):
    fits = []

    def fit(self, X, y):
        return self

    def fit_resample(self, X, y):
        self.fits.append(len(X))
        return np.r_[X, X[:20]], np.r_[y, y[:20]]


class Resampling(Pipeline):
    """As imbalanced-learn's: some steps make other rows."""

    def __sklearn_is_fitted__(self):
        return True

    def fit(self, X, y=None, **params):
        for _, step in self.steps[:-1]:
            if hasattr(step, "fit_resample"):
                X, y = step.fit_resample(X, y)
            else:
                X = step.fit_transform(X, y)
        self.steps[-1][1].fit(X, y)
        return self

    def predict(self, X):
        for _, step in self.steps[:-1]:
            X = step.transform(X) if hasattr(step, "transform") else X
        return self.steps[-1][1].predict(X)

    def score(self, X, y):
        return np.mean(self.predict(X) == y)


@pytest.mark.parametrize("samplers", [[("more", Sampler())], []])
def test_pipelines_with_a_fit_of_their_own_are_refused_before_anything_is_fitted(samplers):
    Sampler.fits.clear()
    pipeline, report = (
        Resampling([("scale", StandardScaler()), *samplers, ("net", NET)]),
        FusionReport(),
    )
    expected = cross_validate(pipeline, X, y, cv=3, error_score="raise")
    with joblib.parallel_config("sktune", report=report):
        found = cross_validate(pipeline, X, y, cv=3, error_score="raise")

    assert_same_scores(expected, found, tolerance=0)
    assert len(Sampler.fits) == 6 * len(samplers)
    wanted = (
        "resamples the rows, in the step 'more'" if samplers else "in a way of its own, Resampling"
    )
    assert all(wanted in fit["reason"] for fit in report.alone)
    assert len(report.alone) == 3


class Counted(TransformerMixin, BaseEstimator):
    fits = []

    def fit(self, X, y=None):
        warnings.warn("a step says", UserWarning, stacklevel=1)
        self.fits.append(len(X))
        self.mean_ = X.mean(axis=0)
        return self

    def transform(self, X):
        return X - self.mean_


class Recurrent(nn.Module):
    def __init__(self, n_features, n_outputs, dtype=None):
        super().__init__()
        self.recurrent = nn.LSTM(n_features, 3, batch_first=True, dtype=dtype)
        self.out = nn.Linear(3, n_outputs, dtype=dtype)

    def forward(self, X):
        return self.out(self.recurrent(X[:, None])[0][:, 0])


UNFUSABLE = {
    "found in a step": {"module": Recurrent},
    "found before": {"optimizer__param_groups": [("*.bias", {"lr": 0.1})]},
}


@pytest.mark.parametrize("name", UNFUSABLE)
def test_steps_of_nets_that_turn_out_unfusable_are_not_fitted_again(name):
    net = NeuralNetClassifier(max_epochs=1, random_state=0, device="cpu").set_params(
        **UNFUSABLE[name]
    )
    pipeline = make_pipeline(Counted(), Counted(), net)
    with pytest.warns(UserWarning, match="a step says") as warned:
        expected = cross_validate(pipeline, X, y, cv=3)
    Counted.fits.clear()
    report = FusionReport()
    with (
        joblib.parallel_config("sktune", report=report),
        pytest.warns(UserWarning, match="a step says") as caught,
    ):
        found = cross_validate(pipeline, X, y, cv=3)

    assert len(report.alone) == 3
    assert len(Counted.fits) == 6
    assert len(caught) == len(warned)
    assert_same_scores(expected, found, tolerance=0)


def to_mask(rows):
    mask = np.zeros(len(X), bool)
    mask[list(rows)] = True
    return mask


KINDS = {
    "range": range,
    "list": list,
    "tuple": tuple,
    "mask": to_mask,
    "list of a mask": lambda r: to_mask(r).tolist(),
}


@pytest.mark.parametrize("kind", [*KINDS, "pandas"])
def test_splits_of_any_kind_fuse(kind):
    make = pytest.importorskip("pandas").Index if kind == "pandas" else KINDS[kind]
    folds = [(range(70), range(70, 110)), (range(40, 110), range(40))]
    folds = [
        tuple(make(range(part.start, part.stop)) if kind != "range" else part for part in f)
        for f in folds
    ]
    plain, _, _ = search(NET, [{}, {"lr": 0.1}], X, y, cv=folds, fused=False)
    fused, _, report = search(NET, [{}, {"lr": 0.1}], X, y, cv=folds)

    assert not report.alone, report
    assert_same_scores(plain, fused, tolerance=1e-9)


class Picky(nn.Module):
    """Fails at rows that it meets in training only."""

    def __init__(self, n_features, n_outputs, dtype=None):
        super().__init__()
        self.out, self.worst = nn.Linear(n_features, n_outputs, dtype=dtype), 0.0

    def forward(self, X):
        if X.shape[-2] > 8:
            raise KeyError("too many rows for me")
        return self.out(X)


MISTAKES = {
    "a parameter": (NET, {"lr": -1.0}, "lr must be"),
    "a module": (NET, {"module": Scaled, "module__n_features": 5}, "shapes cannot be multiplied"),
    "rows": (NET, {"module": Picky}, "too many rows for me"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_of_the_users_are_no_failures_of_the_engine(name):
    net, params, message = MISTAKES[name]
    report = FusionReport()
    net = clone(net).set_params(**{n: v for n, v in params.items() if n != "lr"})
    if "module" in params:
        net.__dict__.pop("module__hidden")
    candidates = grid({"lr": params.get("lr", 0.1)}, {"lr": 0.2})
    options = {"cv": RAGGED, "refit": False, "error_score": 0.0}
    found = []
    for config in ({"backend": "sequential"}, {"backend": "sktune", "report": report}):
        with joblib.parallel_config(**config), warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            # all fits fail, or one only
            with (
                pytest.raises(ValueError, match=message)
                if "module" in params
                else contextlib.nullcontext()
            ):
                GridSearchCV(net, candidates, **options).fit(X, y)
        found.append([warning.category for warning in caught])

    assert found[1] == found[0]
    assert set(found[1]) <= {FitFailedWarning}
    for fit in report.alone:
        assert "Error" not in fit["reason"]
        assert "fails" in fit["reason"]


# How the scripts begin that run in processes of their own.
OWN_NET = """
import os, sys, threading, torch, numpy as np
torch.set_num_threads(2)
from torch import nn
from sktune import GridSearchCV, NeuralNetClassifier

class Own(nn.Module):
    def __init__(self, n_features, n_outputs):
        super().__init__()
        self.one, self.other = nn.Linear(n_features, 64), nn.Linear(64, n_outputs)
    def forward(self, X):
        return self.other(self.one(X).relu())
"""
FORK = """

X = np.random.default_rng(0).normal(size=(1500, 64)).astype(np.float32)
y = (X[:, 0] > 0).astype(int)
net = NeuralNetClassifier(Own, max_epochs=1, random_state=0, device="cpu")
GridSearchCV(net, {"lr": [1e-3, 1e-2]}, cv=3).fit(X, y)
child = os.fork()
if not child:
    GridSearchCV(net, {"lr": [1e-3, 1e-2]}, cv=3).fit(X, y)
    torch.randn(600, 600) @ torch.randn(600, 600)
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="there are no forks on this system")
def test_a_search_in_a_forked_child_after_a_search():
    environment = {k: v for k, v in os.environ.items() if k != "OMP_NUM_THREADS"}
    environment["PYTHONPATH"] = os.pathsep.join(
        [os.path.dirname(sktune.__path__[0]), environment.get("PYTHONPATH", "")]
    )
    subprocess.run([sys.executable, "-c", OWN_NET + FORK], env=environment, check=True, timeout=120)


THREADS = """

X = np.random.default_rng(0).normal(size=(int(sys.argv[1]), 20)).astype(np.float32)
y = (X[:, 0] > 0).astype(int)
net = NeuralNetClassifier(Own, max_epochs=1, random_state=0, device="cpu")
def count():
    return len(os.listdir("/proc/self/task")), threading.active_count()
before = count()
search = GridSearchCV(net, {"lr": [1e-3, 1e-2]}, cv=2, refit=False).fit(X, y)
assert len(search.fusion_.alone) == 0
assert count() == before, (count(), before)
"""


@pytest.mark.slow
@pytest.mark.skipif(
    not os.path.isdir("/proc/self/task"), reason="the system does not tell its threads so"
)
@pytest.mark.parametrize("n_rows", [150, 20_000])
def test_a_search_of_small_nets_leaves_no_threads(n_rows):
    environment = {k: v for k, v in os.environ.items() if k != "OMP_NUM_THREADS"}
    environment["PYTHONPATH"] = os.pathsep.join(
        [os.path.dirname(sktune.__path__[0]), environment.get("PYTHONPATH", "")]
    )
    subprocess.run(
        [sys.executable, "-c", OWN_NET + THREADS, str(n_rows)],
        env=environment,
        check=True,
        timeout=120,
    )


def test_epochs_of_none_are_those_of_the_net():
    expected = cross_validate(NET, X, y, cv=3, params={"epochs": None}, error_score="raise")
    report = FusionReport()
    with joblib.parallel_config("sktune", report=report):
        found = cross_validate(NET, X, y, cv=3, params={"epochs": None}, error_score="raise")

    assert not report.alone
    assert_same_scores(expected, found, tolerance=1e-6)


def test_fits_given_up_are_no_more_counted_among_the_fused():
    report = FusionReport()
    one, other = report.groups.extend([{"lanes": 2}, {"lanes": 1}]) or report.groups
    result = FitResult(curve={"train_loss": []})
    for fit in (Fit(group=one, result=result), Fit(group=one), Fit(group=other), Fit()):
        report.add(fit)

    assert report.groups == [{"lanes": 1}]
    assert len(report.alone) == 3


def find_routed_scores(search, is_fused, monkeypatch):
    with monkeypatch.context() as patch:
        if not is_fused:
            patch.setattr(holdout, "fused_tasks", lambda *args: contextlib.nullcontext())
        torch.manual_seed(0)
        tuned = HoldoutSearch(search, random_state=0, n_resamples=10).fit(X, y, scale=5.0)
    return [*tuned.cv_results_["mean_test_score"], tuned.test_score_, tuned.baseline_score_]


needs_requests = pytest.mark.skipif(
    "set_fit_request" not in vars(skorch.NeuralNet),
    reason="before skorch 1.4 a net can request no arguments of its forward",
)


@pytest.mark.parametrize("is_routed", [False, pytest.param(True, marks=needs_requests)])
def test_arguments_of_forward_are_kept_beside_a_sealed_test_set(is_routed, monkeypatch):
    with config_context(enable_metadata_routing=is_routed):
        net = clone(SCALED["ours"])
        net = net.set_fit_request(scale=True) if is_routed else net
        search = GridSearchCV(
            net, {"lr": [0.05, 0.1]}, cv=2, scoring="neg_log_loss", error_score="raise"
        )
        plain, fused = [
            find_routed_scores(search, is_fused, monkeypatch) for is_fused in (False, True)
        ]

    np.testing.assert_allclose(fused, plain, rtol=0, atol=1e-7)
    without = GridSearchCV(SCALED["ours"], {"lr": [0.05, 0.1]}, cv=2, scoring="neg_log_loss")
    assert abs(HoldoutSearch(without, random_state=0).fit(X, y).test_score_ - plain[-2]) > 1e-4


@needs_requests
@pytest.mark.parametrize("name", SCALED)
def test_routed_arguments_of_forward_are_kept(name):
    report, found = FusionReport(), []
    with config_context(enable_metadata_routing=True):
        net = clone(SCALED[name]).set_fit_request(scale=True)
        pipeline = make_pipeline(StandardScaler(), net)
        for config in ({"backend": "sequential"}, {"backend": "sktune", "report": report}):
            torch.manual_seed(0)
            with joblib.parallel_config(**config):
                params = {"scoring": "neg_log_loss", "cv": 2, "params": {"scale": 5.0}}
                found.append(
                    [cross_validate(each, X, y, **params)["test_score"] for each in (net, pipeline)]
                )

    np.testing.assert_allclose(found[1], found[0], rtol=0, atol=1e-7)
    assert {fit["reason"].split(",")[0] for fit in report.alone} == {"its fit is given scale"}
