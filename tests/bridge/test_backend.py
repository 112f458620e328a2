"""scikit-learn's own, unmodified tools give the same results under the backend as without it."""

import warnings

import joblib
import numpy as np
import pytest
import sklearn
import torch
from parity import (
    RAGGED,
    Keep,
    X,
    X_reg,
    assert_same_net,
    assert_same_scores,
    grid,
    search,
    takes_tensors,
    y,
    y_reg,
)
from scipy import sparse
from scipy.stats import loguniform
from sklearn import model_selection
from sklearn.base import BaseEstimator, TransformerMixin, clone
from sklearn.decomposition import LatentDirichletAllocation
from sklearn.ensemble import RandomForestClassifier
from sklearn.exceptions import FitFailedWarning
from sklearn.experimental import enable_halving_search_cv  # noqa: F401
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, KFold, cross_validate, permutation_test_score
from sklearn.pipeline import FeatureUnion, Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer, MaxAbsScaler, MinMaxScaler, StandardScaler
from sklearn.random_projection import GaussianRandomProjection
from torch import nn

import sktune
from sktune import MLP, NeuralNetClassifier, NeuralNetRegressor
from sktune.bridge import calls
from sktune.engine.report import FusionReport
from sktune.estimators import fit_loop as training

NET = NeuralNetClassifier(module__hidden=(8,), lr=0.05, max_epochs=3, batch_size=32, random_state=0)
LRS = {"lr": [1e-4, 0.1]}
groups = np.arange(len(y)) % 5
weights = np.random.default_rng(0).uniform(0.2, 3, len(y))


def both(run, n_fits):
    """Return the results of `run` without and with the backend.

    Assert that `n_fits` fits were fused, and no fit ran alone.
    """
    report = FusionReport()
    plain = run()
    with joblib.parallel_config("sktune", report=report):
        fused = run()
    assert report.alone == [], report
    n_lanes = sum(group["lanes"] for group in report.groups)
    assert n_lanes + report.sharing.n_shared_fits == n_fits
    return plain, fused


def halving(cls, *space, **options):
    options = {
        "factor": 2,
        "resource": "max_epochs",
        "max_resources": 4,
        "min_resources": 1,
        **options,
    }
    return lambda: cls(NET, *space, cv=3, random_state=0, **options).fit(X, y)


SPACE = {"lr": loguniform(1e-4, 0.1)}
SEARCHES = {
    "grid": (lambda: GridSearchCV(NET, LRS, cv=3, return_train_score=True).fit(X, y), 6),
    "random": (
        lambda: model_selection.RandomizedSearchCV(NET, SPACE, n_iter=3, cv=3, random_state=0).fit(
            X, y
        ),
        9,
    ),
    "halving_grid": (
        halving(model_selection.HalvingGridSearchCV, {"lr": [1e-4, 1e-3, 0.01, 0.1]}),
        21,
    ),
    "halving_random": (halving(model_selection.HalvingRandomSearchCV, SPACE, n_candidates=4), 21),
    "halving_rows": (
        halving(
            model_selection.HalvingGridSearchCV,
            LRS,
            resource="n_samples",
            max_resources=100,
            min_resources=50,
        ),
        9,
    ),
}


@pytest.mark.parametrize("name", SEARCHES)
def test_searches(name):
    plain, fused = both(*SEARCHES[name])

    assert_same_scores(plain, fused, tolerance=0)
    assert plain.best_params_ == fused.best_params_
    np.testing.assert_array_equal(plain.predict_proba(X), fused.predict_proba(X))


FUNCTIONS = {
    "cross_val_score": (lambda: model_selection.cross_val_score(NET, X, y, cv=3), 3),
    "cross_val_predict": (
        lambda: model_selection.cross_val_predict(NET, X, y, cv=3, method="predict_proba"),
        3,
    ),
    "learning_curve": (
        lambda: model_selection.learning_curve(NET, X, y, cv=3, train_sizes=[0.5, 1.0]),
        6,
    ),
    "validation_curve": (
        lambda: model_selection.validation_curve(
            NET, X, y, param_name="lr", param_range=[1e-3, 0.1], cv=3
        ),
        6,
    ),
    "permutation_test_score": (
        lambda: model_selection.permutation_test_score(
            NET, X, y, cv=3, n_permutations=2, random_state=0
        )[:2],
        6,  # and the true labels, which scikit-learn scores outside of joblib
    ),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions(name):
    plain, fused = both(*FUNCTIONS[name])

    for ours, theirs in zip(fused, plain, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-12)


def test_cross_validate_of_several_metrics():
    options = {"cv": 3, "return_train_score": True, "scoring": ["accuracy", "neg_log_loss"]}
    plain, fused = both(lambda: cross_validate(NET, X, y, return_estimator=True, **options), 3)

    assert_same_scores(plain, fused, tolerance=1e-12)
    for reference, net in zip(plain["estimator"], fused["estimator"], strict=True):
        assert_same_net(reference, net)


@pytest.mark.parametrize("n_jobs", [1, 2, -1, None])
def test_n_jobs(n_jobs):
    found = GridSearchCV(NET, LRS, scoring=["accuracy", "f1_macro"], refit="f1_macro", cv=3)
    numbers = iter([1, n_jobs])  # the plain one in this process: others take seconds to start
    plain, fused = both(lambda: clone(found).set_params(n_jobs=next(numbers)).fit(X, y), 6)

    assert_same_scores(plain, fused, tolerance=0)


@pytest.mark.parametrize("pre_dispatch", [1, "n_jobs", "all"])
def test_pre_dispatch(pre_dispatch):
    plain, fused = both(
        lambda: GridSearchCV(NET, LRS, cv=3, pre_dispatch=pre_dispatch).fit(X, y), 6
    )

    assert_same_scores(plain, fused, tolerance=0)


def test_groups():
    cv = model_selection.GroupKFold(3)
    plain, fused = both(lambda: GridSearchCV(NET, LRS, cv=cv).fit(X, y, groups=groups), 6)

    assert_same_scores(plain, fused, tolerance=0)


def test_fit_params_are_sliced_for_each_fold():
    zeroed = np.where(groups == 0, 0.0, weights)  # rows of weight 0 are left out
    for weight in (weights, zeroed):
        plain, fused = both(
            lambda w=weight: cross_validate(
                NET, X, y, params={"sample_weight": w}, return_estimator=True
            ),
            5,
        )
        for reference, net in zip(plain["estimator"], fused["estimator"], strict=True):
            assert_same_net(reference, net)


def test_metadata_routing():
    with sklearn.config_context(enable_metadata_routing=True):
        net = clone(NET).set_fit_request(sample_weight=True).set_score_request(sample_weight=True)
        plain, fused = both(
            lambda: GridSearchCV(net, LRS, cv=3).fit(X, y, sample_weight=weights), 6
        )
        unweighted = GridSearchCV(clone(NET), LRS, cv=3).fit(X, y)

    assert_same_scores(plain, fused, tolerance=1e-12)
    assert fused.best_score_ != unweighted.best_score_


def test_a_random_splitter_splits_once():
    def run():
        cv = KFold(3, shuffle=True, random_state=np.random.RandomState(0))
        return model_selection.permutation_test_score(
            NET, X, y, cv=cv, n_permutations=2, random_state=0
        )[:2]

    plain, fused = both(run, 6)

    assert plain[0] == fused[0]
    np.testing.assert_array_equal(plain[1], fused[1])


def test_a_splitter_with_metadata_of_its_own():
    class Splitter(KFold):
        def split(self, X, y=None, groups=None, first=0):
            return super().split(X[first:], y[first:])

    with sklearn.config_context(enable_metadata_routing=True):
        cv = Splitter(3).set_split_request(first=True)
        options = {"cv": cv, "n_permutations": 2, "random_state": 0, "params": {"first": 20}}
        plain, fused = both(lambda: permutation_test_score(NET, X, y, **options)[1], 6)

    np.testing.assert_array_equal(fused, plain)


@pytest.mark.parametrize("random_state", [None, np.random.RandomState(5)])
def test_fits_draw_their_seeds_in_order(random_state):
    net = clone(NET).set_params(random_state=random_state)

    def run():
        before = np.random.get_state()  # noqa: NPY002
        np.random.seed(0)  # noqa: NPY002 (the generator that random_state=None draws from)
        try:
            return cross_validate(net, X, y, cv=3, return_estimator=True)
        finally:
            np.random.set_state(before)  # noqa: NPY002

    plain, fused = both(run, 3)

    for reference, other in zip(plain["estimator"], fused["estimator"], strict=True):
        assert_same_net(reference, other)


@pytest.mark.parametrize("kind", [list, np.asarray, "pandas", "polars"])
def test_tables_of_every_kind(kind):
    table = pytest.importorskip(kind).DataFrame(X) if isinstance(kind, str) else kind(X)
    labels = list(y) if kind is list else y

    plain, fused = both(lambda: cross_validate(NET, table, labels, cv=3), 3)

    assert_same_scores(plain, fused, tolerance=0)


def test_integers_reach_an_embedding_as_such():
    rows = np.random.default_rng(0).integers(0, 9, size=(110, 5))
    module = nn.Sequential(nn.Embedding(9, 4), nn.Flatten(), nn.Linear(20, 3))

    plain, fused = both(
        lambda: cross_validate(NeuralNetClassifier(module, max_epochs=3, random_state=0), rows, y),
        5,
    )

    assert_same_scores(plain, fused, tolerance=1e-6)


def test_scores_in_float32():
    rows, labels = np.tile(X, (3, 1)).astype(np.float32), np.tile(y, 3)
    rows += np.random.default_rng(0).normal(0, 0.1, rows.shape).astype(np.float32)
    space = {
        "lr": [1e-5, 1e-3, 0.03],
        "module__dropout": [0.0, 0.3],
        "optimizer__weight_decay": [0.0, 0.1],
    }
    net = clone(NET).set_params(max_epochs=10)

    plain, fused = both(lambda: GridSearchCV(net, space, cv=3).fit(rows, labels), 36)

    one, other = (found.cv_results_["mean_test_score"] for found in (plain, fused))
    assert fused.best_estimator_.module_.layers[0].weight.dtype == torch.float32
    np.testing.assert_allclose(other, one, rtol=0, atol=0.005)
    clear = np.subtract.outer(one, one) > 0.01
    assert (np.subtract.outer(other, other)[clear] > 0).all()


# --- independence --------------------------------------------------------------------------------

CANDIDATES = [
    {"lr": 0.01, "module__dropout": 0.3},
    {"lr": 0.1, "l2": 0.01},
    {"lr": 0.03, "max_epochs": 5, "random_state": 7},
    {"lr": 0.05, "module__hidden": (4,)},
    {"lr": 0.02, "optimizer__weight_decay": 0.3, "lr_schedule": "cosine"},
]
WAYS = {
    "in_ones": {"max_lanes": 1},
    "in_threes": {"max_lanes": 3},
    "in_threads": {"max_lanes": 3, "n_jobs": 2},
    "in_one_thread": {"n_jobs": 1},
}


def fitted(candidates, **options):
    """Return nets by candidate and fold."""
    _, nets, report = search(NET, candidates, X, y, **options)
    assert not report.alone
    n_folds = len(RAGGED)
    return [nets[n * n_folds : (n + 1) * n_folds] for n in range(len(candidates))]


def assert_same_nets(one, other):
    for nets, others in zip(one, other, strict=True):
        for reference, net in zip(nets, others, strict=True):
            assert_same_net(reference, net, rtol=1e-9)


@pytest.fixture(scope="module")
def reference():
    return fitted(CANDIDATES)


@pytest.mark.parametrize("way", WAYS)
def test_results_do_not_depend_on_how_the_work_is_cut(way, reference):
    assert_same_nets(reference, fitted(CANDIDATES, **WAYS[way]))


def test_results_do_not_depend_on_order_or_company(reference):
    order = [3, 0, 4, 2, 1]
    assert_same_nets([reference[n] for n in order], fitted([CANDIDATES[n] for n in order]))
    assert_same_nets(reference[:2], fitted(CANDIDATES[:2]))
    assert_same_nets(reference[2:], fitted(CANDIDATES[2:]))


def test_folds_do_not_depend_on_each_other(reference):
    for number, split in enumerate(RAGGED):
        _, nets, _ = search(NET, CANDIDATES, X, y, cv=[split])
        assert_same_nets([[folds[number]] for folds in reference], [[net] for net in nets])


# --- isolation -----------------------------------------------------------------------------------


class Raising(MLP):
    def __init__(self, n_features, n_outputs, hidden=(8,), dropout=0.0, fails=False, dtype=None):
        super().__init__(n_features, n_outputs, hidden, dropout=dropout, dtype=dtype)
        self.fails = fails

    def forward(self, X):
        if self.fails:
            raise RuntimeError("no forward")
        return super().forward(X)


class PickyScore(Keep):
    def __call__(self, net, X, y, sample_weight=None):
        if net.lr == 0.09:
            raise RuntimeError("no score")
        return super().__call__(net, X, y)


FAILURES = {
    "diverges": (
        {"lr": 1e20, "optimizer": torch.optim.SGD},
        {"optimizer": torch.optim.SGD},
        "DivergenceError",
    ),
    "diverges_at_once": ({"lr": 1e300, "l2": 1.0}, {"l2": 1.0}, "DivergenceError"),
    "raises": ({"module__fails": True}, {}, "no forward"),
    "cannot_be_built": ({"module__hidden": (0,)}, {}, "hidden must be"),
    "cannot_be_trained": ({"max_epochs": "many"}, {}, "max_epochs"),
}
GOOD = [{"lr": 0.01}, {"lr": 0.05, "l2": 1e-3}, {"lr": 0.02, "random_state": 5}]


CASES = [(name, Raising) for name in FAILURES] + [
    (name, MLP) for name in ("diverges", "diverges_at_once")
]


@pytest.mark.parametrize(("name", "module"), CASES)  # an MLP takes compiled steps
def test_a_failing_lane_fails_alone(name, module):
    failing, common, message = FAILURES[name]
    good = [common | candidate for candidate in GOOD]
    net = clone(NET).set_params(module=module, module__dtype=torch.float64)
    expected, references, _ = search(net, good, X, y)

    with pytest.warns(FitFailedWarning, match=message) as caught, np.errstate(all="ignore"):
        found, nets, report = search(
            net, [good[0], {**common, **failing}, *good[1:]], X, y, error_score=-1.0
        )

    assert [w.category for w in caught] == [FitFailedWarning]
    assert "2 fits failed out of a total of 8" in str(caught[0].message)
    assert sum(group["lanes"] for group in report.groups) == 8 - len(report.alone)
    scores = found.cv_results_["mean_test_score"]
    assert scores[1] == -1.0
    np.testing.assert_array_equal(scores[[0, 2, 3]], expected.cv_results_["mean_test_score"])
    assert len(nets) == 6  # a net that failed is not scored
    for reference, other in zip(references, nets, strict=True):
        assert_same_net(reference, other)


@pytest.mark.parametrize("name", FAILURES)
def test_a_failure_is_raised_where_the_user_wants_it(name):
    failing, _, message = FAILURES[name]
    net = clone(NET).set_params(module=Raising)
    kind = sktune.DivergenceError if "Div" in message else Exception

    with pytest.raises(kind, match="stay finite" if "Div" in message else message):
        search(net, [GOOD[0], failing], X, y, error_score="raise")


def test_a_group_that_diverges_as_a_whole_is_scored_as_such():
    with pytest.raises(ValueError, match=r"All the 2 fits failed(.|\n)*DivergenceError"):
        search(NET, [{"lr": 1e20, "optimizer": torch.optim.SGD}], X, y)


def test_large_but_finite_weights_do_not_fail_for_a_neighbours_penalty():
    common = {
        "optimizer": torch.optim.SGD,
        "max_epochs": 2,
        "module__hidden": (),
        "module__dtype": torch.float64,
    }
    lanes = [common | {"lr": 1e200}, common | {"lr": 0.1, "l2": 0.1, "l1": 0.1}]

    plain, _, _ = search(NET, lanes, X, y, fused=False)
    fused, _, report = search(NET, lanes, X, y)

    assert len(report.groups) == 1
    assert_same_scores(plain, fused, tolerance=0)


def test_a_failing_scorer_fails_alone():
    report = FusionReport()
    options = {"cv": RAGGED, "scoring": PickyScore(), "refit": False, "error_score": -1.0}
    with (
        joblib.parallel_config("sktune", report=report),
        pytest.warns(UserWarning, match="no score"),
    ):
        found = GridSearchCV(NET, {"lr": [0.01, 0.09, 0.05]}, **options).fit(X, y)
    expected = GridSearchCV(NET, {"lr": [0.01, 0.05]}, **options).fit(X, y)

    scores = found.cv_results_["mean_test_score"]
    assert scores[1] == -1.0
    np.testing.assert_array_equal(scores[[0, 2]], expected.cv_results_["mean_test_score"])
    assert len(report.alone) == 0


# --- pipelines -----------------------------------------------------------------------------------


class Counting(TransformerMixin, BaseEstimator):
    """Scales, and counts its fits by setting."""

    fits = []

    def __init__(self, scale=1.0, note=None):
        self.scale, self.note = scale, note

    def fit(self, X, y=None):
        self.fits.append((self.scale, len(X)))
        self.mean_ = X.mean(axis=0)
        return self

    def transform(self, X):
        return (X - self.mean_) * self.scale


def test_preprocessing_is_fitted_once_per_fold_and_setting():
    pipeline = make_pipeline(Counting(), Counting(2.0), clone(NET))
    space = {"counting-1__scale": [0.5, 1.0], "neuralnetclassifier__lr": [1e-3, 0.01, 0.1]}

    Counting.fits.clear()
    plain = GridSearchCV(pipeline, space, cv=3, refit=False).fit(X, y)
    assert len(Counting.fits) == 2 * 3 * 3 * 2
    report = FusionReport()
    Counting.fits.clear()
    with joblib.parallel_config("sktune", report=report):
        fused = GridSearchCV(pipeline, space, cv=3, refit=False).fit(X, y)

    assert len(Counting.fits) == 2 * 3 * 2
    assert not report.alone
    assert_same_scores(plain, fused, tolerance=0)


@pytest.mark.parametrize(
    ("step", "values"),
    [
        ("counting__note", [lambda: 1, lambda: 2]),  # which joblib cannot hash
        ("counting__scale", [lambda: 0, 3.0]),
        (
            "counting",
            ["passthrough", StandardScaler(copy=False), StandardScaler(with_std=False, copy=False)],
        ),
    ],
)
def test_settings_do_not_get_each_others_preprocessing(step, values):
    class Lenient(Counting):
        def transform(self, X):
            return X * (self.scale() if callable(self.scale) else self.scale)

    pipeline = make_pipeline(Lenient(), clone(NET))
    pipeline.steps[0] = ("counting", pipeline.steps[0][1])

    plain, fused = both(
        lambda: GridSearchCV(pipeline, {step: values}, cv=3, refit=False).fit(X, y), 3 * len(values)
    )

    assert_same_scores(plain, fused, tolerance=0)


def test_parameters_of_a_pipelines_fit():
    pipeline = make_pipeline(StandardScaler(), clone(NET))
    params = {"neuralnetclassifier__sample_weight": weights}
    plain, fused = both(lambda: cross_validate(pipeline, X, y, params=params), 5)

    assert_same_scores(plain, fused, tolerance=0)


# joblib warns where writing to the disk takes long, as it does on a busy machine
@pytest.mark.filterwarnings("ignore:Persisting input arguments took:UserWarning")
def test_pipelines_keep_a_memory_of_their_own(tmp_path):
    pipeline = make_pipeline(Counting(), clone(NET), memory=joblib.Memory(tmp_path, verbose=0))
    plain, fused = both(lambda: cross_validate(pipeline, X, y, return_estimator=True), 5)

    assert_same_scores(plain, fused, tolerance=0)
    assert all(fitted.memory.location == tmp_path for fitted in fused["estimator"])


def test_a_pipeline_that_remembers_nothing_still_does():
    pipeline = make_pipeline(StandardScaler(), clone(NET))
    _, fused = both(lambda: cross_validate(pipeline, X, y, return_estimator=True), 5)

    assert all(fitted.memory is None for fitted in fused["estimator"])


LANES = {"net__lr": [0.01, 0.1]}


class Recurrent(nn.Module):
    """A module that vmap has no rule for: its fits run one at a time."""

    def __init__(self, n_features, n_outputs, dtype=None):
        super().__init__()
        self.recurrent = nn.LSTM(n_features, 4, batch_first=True, dtype=dtype)
        self.out = nn.Linear(4, n_outputs, dtype=dtype)

    def forward(self, X):
        return self.out(self.recurrent(X[:, None])[0][:, 0])


def drawing(**options):
    """Return a step that draws random numbers and has no digest: its class is local."""

    class Projection(GaussianRandomProjection):
        pass

    return Projection(3, **options)


def seeded(run):
    """Return a function that runs `run` with NumPy's generator in the same state each time."""

    def repeated():
        before = np.random.get_state()  # noqa: NPY002
        np.random.seed(0)  # noqa: NPY002
        try:
            return run()
        finally:
            np.random.set_state(before)  # noqa: NPY002

    return repeated


MEMORIES = {"none": None, "empty": joblib.Memory(None)}
DRAWING = {"hashed": lambda **options: GaussianRandomProjection(3, **options), "unhashed": drawing}


@pytest.mark.parametrize("memory", MEMORIES.values(), ids=MEMORIES)
@pytest.mark.parametrize("step", DRAWING.values(), ids=DRAWING)
def test_steps_draw_from_a_generator_of_their_own(step, memory):
    pipeline = Pipeline(
        [("step", step(random_state=np.random.RandomState(0))), ("net", NET)], memory=memory
    )

    plain, fused = both(lambda: GridSearchCV(pipeline, LANES, cv=3, refit=False).fit(X, y), 6)

    assert_same_scores(plain, fused, tolerance=0)


@pytest.mark.parametrize("memory", MEMORIES.values(), ids=MEMORIES)
@pytest.mark.parametrize("step", DRAWING.values(), ids=DRAWING)
def test_steps_draw_once(step, memory):
    pipeline = Pipeline([("step", step()), ("net", NET)], memory=memory)
    folds = sorted(
        KFold(4).split(X), key=lambda fold: -id(fold[0])
    )  # any order but that of their addresses

    plain, fused = both(
        seeded(lambda: cross_validate(pipeline, X, y, cv=folds, scoring="neg_log_loss")), 4
    )

    assert_same_scores(plain, fused, tolerance=1e-12)


def test_steps_that_cannot_be_hashed_are_fitted_once_per_fit():
    class Local(Counting):
        pass

    Counting.fits.clear()
    both(lambda: cross_validate(make_pipeline(Local(), NET), X, y, cv=3), 3)

    assert len(Counting.fits) == 2 * 3


class Noisy(Counting):
    def fit(self, X, y=None):
        warnings.warn("a step says", UserWarning, stacklevel=1)
        return super().fit(X, y)


@pytest.mark.parametrize("is_hashed", [True, False])
@pytest.mark.parametrize("memory", MEMORIES.values(), ids=MEMORIES)
def test_warnings_of_a_step_reach_the_user_once_per_fit(memory, is_hashed):
    class Unhashed(Noisy):
        pass

    step = Noisy() if is_hashed else Unhashed()
    pipeline = Pipeline([("step", step), ("net", NET)], memory=memory)
    with joblib.parallel_config("sktune"), pytest.warns(UserWarning, match="a step says") as caught:
        GridSearchCV(
            pipeline, LANES | {"net__module__hidden": [(8,), (4,)]}, cv=3, refit=False
        ).fit(X, y)

    assert len(caught) == 12


@pytest.mark.parametrize("net", [NET, clone(NET).set_params(random_state=np.random.RandomState(3))])
def test_a_task_of_several_fits_draws_on(net):
    pipeline = make_pipeline(
        GaussianRandomProjection(3, random_state=np.random.RandomState(0)), net
    )
    options = {"cv": 3, "n_permutations": 2, "random_state": 0, "scoring": "neg_log_loss"}

    for estimator in (pipeline, net):
        plain, fused = both(lambda e=estimator: permutation_test_score(e, X, y, **options)[1], 6)
        np.testing.assert_allclose(fused, plain, rtol=0, atol=1e-12)


NESTED = {
    "pipeline": (make_pipeline(StandardScaler(), MinMaxScaler()), "minmaxscaler", "passthrough"),
    "union": (
        FeatureUnion([("one", StandardScaler()), ("other", MinMaxScaler())]),
        "other",
        MaxAbsScaler(),
    ),
}


@pytest.mark.parametrize("name", NESTED)
def test_candidates_replace_steps_within_steps(name):
    step, inner, other = NESTED[name]
    pipeline = Pipeline([("step", step), ("net", NET)])
    space = {f"step__{inner}": [MinMaxScaler(), other], **LANES}

    plain, fused = both(lambda: GridSearchCV(pipeline, space, cv=3, refit=False).fit(X, y), 12)

    assert_same_scores(plain, fused, tolerance=0)


def test_steps_of_fits_that_are_not_fused_are_of_their_own():
    class Local(GaussianRandomProjection):
        fitted = []

        def fit(self, X, y=None):
            self.fitted.append(self)
            return super().fit(X, y)

    net = NeuralNetClassifier(Recurrent, max_epochs=2, random_state=np.random.RandomState(1))
    pipeline = Pipeline([("step", Local(3, random_state=np.random.RandomState(0))), ("net", net)])
    search = GridSearchCV(pipeline, LANES, cv=2, refit=False)
    plain, report = clone(search).fit(X, y), FusionReport()
    with joblib.parallel_config("sktune", report=report):
        fused = search.fit(X, y)

    assert len(report.alone) == 4
    assert_same_scores(plain, fused, tolerance=0)
    in_turn = Local.fitted[-4:]  # those of the tasks
    assert len({id(step) for step in in_turn}) == 4
    assert not {id(step) for step in in_turn} & {id(step) for step in Local.fitted[:-4]}


class InPlace(TransformerMixin, BaseEstimator):
    """Writes into the rows that it gets."""

    def __init__(self, factor=1.0):
        self.factor = factor

    def fit(self, X, y=None):
        return self

    def transform(self, X):
        X[:] = X * self.factor
        return X


IN_PLACE = {
    "pandas": [
        StandardScaler(copy=False, with_mean=False),
        MinMaxScaler(copy=False),
        "passthrough",
        InPlace(3.0),
    ],
    "pandas out": [InPlace(3.0), "passthrough", InPlace(0.1)],
    "sparse": [
        MaxAbsScaler(copy=False),
        StandardScaler(copy=False, with_mean=False),
        "passthrough",
    ],
    "torch": [InPlace(3.0), "passthrough", InPlace(0.1)],
}


def dense(X):
    return X.toarray() if sparse.issparse(X) else X


@pytest.mark.parametrize(
    "kind", ["pandas", "pandas out", "sparse", pytest.param("torch", marks=takes_tensors)]
)
def test_transformers_that_write_into_their_rows(kind):
    pandas = pytest.importorskip("pandas")
    make = {"sparse": sparse.csr_matrix, "torch": torch.tensor}.get(kind, pandas.DataFrame)
    first = MinMaxScaler().set_output(transform="pandas") if kind == "pandas out" else "passthrough"
    last = FunctionTransformer(dense, accept_sparse=True)
    pipeline = Pipeline([("first", first), ("step", None), ("last", last), ("net", NET)])

    search = GridSearchCV(
        pipeline, {"step": IN_PLACE[kind]}, cv=3, refit=False, scoring="neg_log_loss"
    )
    plain, fused = both(lambda: search.fit(make(X.copy()), y).cv_results_, 3 * len(IN_PLACE[kind]))

    assert_same_scores(plain, fused, tolerance=1e-12)


def score_of_a_clone(estimator, X, y):
    return clone(estimator).fit(X, y).score(X, y)


def score_of_another_fit(estimator, X, y):
    return estimator.fit(X, y).score(X, y) - estimator.score(X + 1, y)


@pytest.mark.parametrize("scoring", [score_of_a_clone, score_of_another_fit])
def test_scorers_that_fit_once_more(scoring):
    space = {"net__lr": [0.01, 0.1], "net__module__hidden": [(8,), (4,)]}
    for step in (StandardScaler(), make_pipeline(StandardScaler())):
        pipeline = Pipeline([("step", step), ("net", NET)])
        search = GridSearchCV(
            pipeline, space, cv=3, refit=False, scoring={"again": scoring, "before": "accuracy"}
        )
        plain, fused = both(lambda s=search: clone(s).fit(X, y), 12)

        assert_same_scores(plain, fused, tolerance=0)


def test_a_scorer_may_fit_a_clone_between_the_fits_of_a_task():
    pipeline = make_pipeline(StandardScaler(), NET)
    options = {"cv": 3, "n_permutations": 2, "random_state": 0, "scoring": score_of_a_clone}
    plain, fused = both(lambda: permutation_test_score(pipeline, X, y, **options)[1], 6)

    np.testing.assert_array_equal(fused, plain)


def test_memories_that_candidates_set(tmp_path):
    pipeline = Pipeline([("step", Counting()), ("net", NET)])
    memories = [None, joblib.Memory(None), joblib.Memory(tmp_path, verbose=0)]
    search = GridSearchCV(pipeline, {"memory": memories, **LANES}, cv=3, refit=False)
    plain = clone(search).fit(X, y)
    Counting.fits.clear()
    with joblib.parallel_config("sktune"):
        fused = clone(search).fit(X, y)

    assert len(Counting.fits) == 3
    for name in ("mean_test_score", "std_test_score"):
        np.testing.assert_array_equal(fused.cv_results_[name], plain.cv_results_[name])


# --- what else there is --------------------------------------------------------------------------


def test_warnings_of_a_fit_reach_the_user():
    rows = np.c_[X, X[:, 0] * 1e6]
    with joblib.parallel_config("sktune"), pytest.warns(UserWarning, match="scale") as caught:
        cross_validate(NET, rows, y, cv=3)

    assert len(caught) == 3


def test_fitted_nets_are_of_their_own():
    _, fused = both(lambda: cross_validate(NET, X, y, cv=3, return_estimator=True), 3)
    one, other, _ = fused["estimator"]
    before = other.predict_proba(X)
    one.partial_fit(X, y)

    np.testing.assert_array_equal(other.predict_proba(X), before)
    for net in fused["estimator"]:
        assert "_hook" not in vars(net) or not vars(net)["_hook"].waiting
        clone(net).fit(X, y)


def test_a_fitted_net_trains_on_as_a_plain_one():
    plain, fused = both(lambda: cross_validate(NET, X, y, cv=3, return_estimator=True), 3)
    for reference, net in zip(plain["estimator"], fused["estimator"], strict=True):
        assert_same_net(reference.partial_fit(X, y), net.partial_fit(X, y))


def test_regressors_and_the_searches_of_sktune():
    net = NeuralNetRegressor(max_epochs=3, random_state=0)
    ours = sktune.GridSearchCV(net, LRS, cv=3).fit(X_reg, y_reg)
    theirs = GridSearchCV(net, LRS, cv=3).fit(X_reg, y_reg)

    assert_same_scores(theirs, ours, tolerance=1e-12)
    assert not ours.fusion_.alone
    assert "6 fits fused in 1 groups" in str(ours.fusion_)


@pytest.mark.parametrize("kind", ["GridSearchCV", "RandomizedSearchCV"])
def test_curves_are_those_of_plain_fits(kind):
    options = {"n_iter": 2, "random_state": 0} if "Random" in kind else {}
    net = clone(NET).set_params(early_stopping=True)
    found = getattr(sktune, kind)(net, LRS, cv=RAGGED, refit=False, **options).fit(X, y)
    curves = found.curves_.set_index(["candidate", "split"])

    assert len(curves) == 2 * 2 * NET.max_epochs
    for candidate, params in enumerate(found.cv_results_["params"]):
        for split, (train, _) in enumerate(RAGGED):
            history = clone(net).set_params(**params).fit(X[train], y[train]).history
            rows = curves.loc[candidate, split]
            for column in ("train_loss", "valid_loss", "epoch"):
                np.testing.assert_allclose(rows[column], history[:, column])
            assert set(rows["lr"]) == {params["lr"]}


@pytest.mark.parametrize("verbose", [0, 1])
def test_there_is_one_bar_where_it_is_wanted(verbose, capsys):
    sktune.GridSearchCV(NET, LRS, cv=3, verbose=verbose).fit(X, y)

    err = capsys.readouterr().err
    assert bool(err) == bool(verbose)
    if verbose:
        last = err.replace("\r", "\n").strip().splitlines()[-1]
        assert err.count("\n") == 1  # a second bar would begin a line of its own
        assert "18/18" in last
        assert "best_score=" in last


def test_other_estimators_run_as_ever():
    report = FusionReport()
    model = LogisticRegression()
    plain = cross_validate(model, X, y)
    with joblib.parallel_config("sktune", report=report):
        fused = cross_validate(model, X, y)

    assert_same_scores(plain, fused, tolerance=0)
    assert {fit["reason"] for fit in report.alone} == {"LogisticRegression is no network"}
    assert grid({}) == [{}]


def test_rows_are_taken_for_networks_only(monkeypatch):
    def planned_fits(self, known):
        raise AssertionError("rows were taken")

    monkeypatch.setattr("sktune.bridge.seam.Task.planned_fits", planned_fits)
    report = FusionReport()
    pipeline = Pipeline([("scale", StandardScaler()), ("last", NET)])
    with joblib.parallel_config("sktune", report=report):
        GridSearchCV(pipeline, {"last": [LogisticRegression()]}, cv=2, refit=False).fit(X, y)

    assert [fit["reason"] for fit in report.alone] == ["LogisticRegression is no network"] * 2


def test_fit_times_are_a_share_of_the_groups():
    found = sktune.GridSearchCV(NET, LRS, cv=3).fit(X, y)

    seconds = sum(group["seconds"] for group in found.fusion_.groups)
    assert found.cv_results_["mean_fit_time"].sum() * 3 >= seconds


@pytest.mark.parametrize(
    "estimator", [NET, make_pipeline(StandardScaler(), NET), LogisticRegression()]
)
def test_the_device_of_a_search_is_that_of_all_its_nets(estimator):
    with joblib.parallel_config("sktune", device="cpu"):
        found = cross_validate(clone(estimator), X, y, cv=2, return_estimator=True)

    for fitted in found["estimator"]:
        net = fitted[-1] if isinstance(fitted, Pipeline) else fitted
        assert getattr(net, "device", "cpu") == "cpu"
    assert estimator is not NET or NET.device == "auto"


def test_a_device_that_is_not_there_is_refused_beforehand():
    with pytest.raises(
        ValueError,
        match="device must be 'auto' or a torch device on this machine, got device='cuda:9'",
    ):
        joblib.parallel_config("sktune", device="cuda:9")


def test_steps_that_candidates_replace_are_trained_once(monkeypatch):
    others = [clone(NET).set_params(lr=0.01), clone(NET).set_params(module__hidden=(4,))]
    pipeline = Pipeline([("scale", StandardScaler()), ("net", LogisticRegression())])
    candidates = {
        "net": others,
        "net__max_epochs": [2, 3],
        "scale": ["passthrough", StandardScaler()],
    }
    search = GridSearchCV(pipeline, candidates, cv=2, refit=False, error_score="raise")
    plain = clone(search).fit(X, y)
    report, alone = FusionReport(), []
    # A plain fit calls this function in each epoch. A patched method of the net would prevent
    # fusing.
    hears = training.hears_batches
    monkeypatch.setattr(training, "hears_batches", lambda *args: alone.append(1) or hears(*args))
    with joblib.parallel_config("sktune", report=report, device="cpu"):
        fused = clone(search).fit(X, y)

    assert not alone
    assert not report.alone
    assert_same_scores(plain, fused, tolerance=0)
    for net in fused.param_grid["net"]:  # the user's own stay as they were
        assert net.device == "auto"
        assert not hasattr(net, "module_")


def test_a_candidate_that_cannot_be_set_fails_as_it_would():
    search = GridSearchCV(NET, {"rate": [1]}, cv=2)
    for config in ({"backend": "sequential"}, {"backend": "sktune"}):
        with joblib.parallel_config(**config), pytest.raises(ValueError, match="rate"):
            search.fit(X, y)


# --- other users of joblib -----------------------------------------------------------------------


def test_others_are_told_of_as_many_jobs_as_they_would_get(monkeypatch):
    asked = []
    monkeypatch.setattr("sktune.bridge.calls.Call._run_elsewhere", lambda *args: asked.append(args))
    with joblib.parallel_config("sktune"):
        assert joblib.effective_n_jobs() == joblib.cpu_count()
        assert joblib.effective_n_jobs(3) == 3
        forest = RandomForestClassifier(3, random_state=0).fit(X, y)
        LatentDirichletAllocation(2, max_iter=1).fit(abs(X))
        found = GridSearchCV(forest, {"max_depth": [2]}, cv=2).fit(X, y)
        np.testing.assert_array_equal(
            found.predict(X), clone(found.best_estimator_).fit(X, y).predict(X)
        )
        with pytest.raises(ZeroDivisionError, match="by zero"):
            joblib.Parallel()(joblib.delayed(divmod)(1, 0) for _ in range(2))
        assert joblib.effective_n_jobs() == joblib.cpu_count()

    assert not asked


def test_others_share_memory_where_they_require_it():
    names = set()
    with joblib.parallel_config("sktune", n_jobs=2):
        joblib.Parallel(require="sharedmem")(joblib.delayed(names.add)(n) for n in range(3))

    assert names == {0, 1, 2}


def test_a_search_within_one_that_requires_shared_memory_is_fused():
    with joblib.parallel_config("threading", n_jobs=2, require="sharedmem"):
        found = sktune.GridSearchCV(NET, LRS, cv=2).fit(X, y)

    assert not found.fusion_.alone
    assert sum(group["lanes"] for group in found.fusion_.groups) == 4


@pytest.mark.parametrize("n_jobs", [None, 2])
def test_a_refit_is_told_of_the_jobs_outside(n_jobs):
    class Asking(Counting):
        def fit(self, X, y=None):
            self.n_jobs_ = joblib.effective_n_jobs()
            return super().fit(X, y)

    pipeline = Pipeline([("step", Asking()), ("net", NET)])
    with joblib.parallel_config("threading", n_jobs=2):
        found = sktune.GridSearchCV(pipeline, LANES, cv=2, n_jobs=n_jobs).fit(X, y)

    assert found.best_estimator_[0].n_jobs_ == 2


def test_what_catches_warnings_meanwhile_swallows_none_afterwards():
    others = []  # of another thread, say: begun while a search prepares a fit, and over after it

    class Meanwhile(Counting):
        def fit(self, X, y=None):
            if not others:
                others.append(warnings.catch_warnings())
                others[0].__enter__()
            return super().fit(X, y)

    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        with joblib.parallel_config("sktune"):
            cross_validate(make_pipeline(Meanwhile(), NET), X, y, cv=RAGGED[:1])
        others[0].__exit__(None, None, None)
        warnings.warn("after all", UserWarning, stacklevel=1)

    assert [str(warning.message) for warning in seen] == ["after all"]


def test_our_searches_take_the_options_of_the_context_around_them():
    search = sktune.GridSearchCV(NET, LRS, cv=2, refit=False)
    with joblib.parallel_config("sktune", n_jobs=1, max_lanes=1, device="cpu"):
        search.fit(X, y)

    assert [group["lanes"] for group in search.fusion_.groups] == [1] * 4
    assert search.fit(X, y).fusion_.groups[0]["lanes"] > 1


class Own(nn.Module):
    """A module that is not a chain of layers."""

    def __init__(self, hidden):
        super().__init__()
        self.inward, self.outward = nn.Linear(6, hidden), nn.Linear(hidden, 3)

    def forward(self, X):
        return self.outward(self.inward(X).relu())


@pytest.mark.parametrize("module", [MLP, Own])
@pytest.mark.parametrize("n_jobs", [1, 2])
def test_products_of_a_lower_precision(module, n_jobs):
    net = clone(NET).set_params(
        module=module, max_epochs=20, **({} if module is MLP else {"module__hidden": 8})
    )
    results = {}
    for precision in (None, "tf32", "bf16"):
        with joblib.parallel_config("sktune", n_jobs=n_jobs, precision=precision):
            results[precision] = cross_validate(net, X, y, cv=2, scoring="neg_log_loss")[
                "test_score"
            ]

    np.testing.assert_array_equal(results["tf32"], results[None])  # a CPU has none
    np.testing.assert_allclose(results["bf16"], results[None], rtol=0.05)
    assert (results["bf16"] != results[None]).all()
    assert torch.get_float32_matmul_precision() == "highest"


def test_a_precision_that_is_unknown():
    with pytest.raises(
        ValueError, match="precision must be 'tf32', 'bf16' or None, got precision='fp8'"
    ):
        joblib.parallel_config("sktune", precision="fp8")


class NoTrainer:
    """Does not train."""

    def plan(self, fits, tables, order=None):
        return []

    def train(self, plans):
        pass


def test_minus_one_job_is_one_for_each_core(monkeypatch):
    with joblib.parallel_config("sktune"):
        assert joblib.effective_n_jobs(-1) == joblib.cpu_count()
        assert joblib.effective_n_jobs(None) == 1
        assert joblib.effective_n_jobs(3) == 3
    with joblib.parallel_config("sktune", n_jobs=-1):
        assert joblib.effective_n_jobs(None) == joblib.cpu_count()

    chosen = []
    monkeypatch.setattr(
        calls,
        "Trainer",
        lambda n_workers, *args, **options: chosen.append(n_workers) or NoTrainer(),
    )
    for options in ({}, {"n_jobs": -1}, {"n_jobs": 5}):
        with joblib.parallel_config("sktune", **options):
            cross_validate(NET, X, y, cv=2)
    assert chosen == [torch.get_num_threads(), joblib.cpu_count(), 5]
