"""Search in stages."""

import pickle

import numpy as np
import pytest
from scipy.stats import loguniform, uniform
from sklearn.base import clone
from sklearn.datasets import make_classification
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold, ShuffleSplit, cross_validate
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import check_estimator

from sktune import NeuralNetClassifier, StagedSearch

X, y = make_classification(60, n_features=4, flip_y=0.2, random_state=0)
NET = NeuralNetClassifier(module__hidden=(6,), max_epochs=3, random_state=0)
STAGES = [
    ("alpha", {"lr": loguniform(1e-4, 1e-1)}),
    ("regularization", {"module__dropout": uniform(0, 0.5)}),
    ("all", None),
]


def staged(estimator=NET, stages=STAGES, **options):
    settings = {"n_iter": 3, "cv": 3, "random_state": 0, **options}
    return StagedSearch(estimator, stages, **settings)


def test_each_stage_goes_on_from_the_best_so_far():
    search = staged().fit(X, y)
    results = search.cv_results_
    scores = results["mean_test_score"]

    assert results["stage"].tolist() == ["baseline"] + 3 * ["alpha"] + 3 * [
        "regularization"
    ] + 3 * ["all"]
    assert results["params"][0] == {}
    best_after = {name: np.argmax(scores[:n]) for name, n in [("baseline", 1), ("alpha", 4)]}
    lr = results["params"][best_after["alpha"]].get("lr")
    for params in results["params"][4:7]:
        assert params.get("lr") == lr
    assert [stage["best_score"] for stage in search.stages_] == [
        pytest.approx(scores[:n].max()) for n in (1, 4, 7, 10)
    ]
    assert search.best_score_ == scores.max()
    assert search.fusion_.alone == []


def test_curves_number_the_candidates_on():
    search = staged().fit(X, y)

    assert sorted(set(search.curves_["candidate"])) == list(range(10))
    assert not hasattr(search, "_report")


def test_a_stage_that_finds_nothing_better_changes_nothing():
    stages = [("good", {"C": [1.0]}), ("bad", {"C": [1e-9]}), ("other", {"fit_intercept": [False]})]
    search = staged(LogisticRegression(), stages, sampler="grid", narrow=1.0).fit(X, y)
    params = search.cv_results_["params"]

    assert params[2] == {"C": 1e-9}
    assert params[3] == {"fit_intercept": False}


def test_candidates_give_what_they_give_by_themselves():
    search = staged().fit(X, y)
    results = search.cv_results_
    for row in (0, 5, 9):
        net = clone(NET).set_params(**results["params"][row])
        alone = cross_validate(net, X, y, cv=3)["test_score"]
        fused = [results[f"split{n}_test_score"][row] for n in range(3)]
        np.testing.assert_allclose(fused, alone, atol=1e-6)


def test_a_tuned_parameter_is_looked_for_around_its_best_value():
    stages = [("alpha", {"C": loguniform(1e-4, 1e4)}), ("all", None)]
    search = staged(LogisticRegression(), stages, n_iter=20, narrow=0.1).fit(X, y)
    best = search.stages_[1]["best_params"].get("C", 1.0)
    drawn = [params["C"] for params in search.cv_results_["params"][-20:]]

    # a tenth of eight decades
    assert np.log10(max(drawn)) - np.log10(min(drawn)) <= 0.8
    assert min(drawn) <= best <= max(drawn)


def test_all_stages_have_the_same_splits():
    # On labels without a pattern each new set of splits would be a new chance to be lucky.
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 2, 60)
    stages = [(f"stage {n}", {"C": [1.0]}) for n in range(20)]
    cv = ShuffleSplit(2, test_size=0.2)
    search = staged(LogisticRegression(), stages, sampler="grid", cv=cv).fit(X, noise)

    assert len(set(search.cv_results_["mean_test_score"])) == 1


def test_a_stage_may_be_a_grid():
    stages = [("grid", {"C": [0.1, 1.0]}), ("random", {"C": loguniform(0.1, 10)})]
    search = staged(
        LogisticRegression(), stages, sampler={"grid": "grid"}, n_iter={"random": 5}
    ).fit(X, y)

    assert [stage["n_candidates"] for stage in search.stages_] == [1, 2, 5]


def test_lists_give_no_more_candidates_than_they_have():
    stages = [("one", {"C": [0.1, 1.0]})]
    search = staged(LogisticRegression(), stages, n_iter=9, sampler="random").fit(X, y)

    assert search.stages_[1]["n_candidates"] == 2
    # the baseline is one of them, and is not evaluated once more
    search.set_params(sampler="gp").fit(X, y)
    assert [params.get("C") for params in search.cv_results_["params"]] == [None, 0.1]


def test_pipelines_metrics_and_groups():
    pipeline = make_pipeline(StandardScaler(), clone(NET))
    stages = [("alpha", {"neuralnetclassifier__lr": loguniform(1e-4, 1e-1)})]
    metrics = {"scoring": ["accuracy", "neg_log_loss"], "refit": "neg_log_loss"}
    search = staged(pipeline, stages, cv=GroupKFold(3), **metrics)
    search.fit(X, y, groups=np.arange(60) % 3)
    results = search.cv_results_

    assert search.best_index_ == np.argmin(results["rank_test_neg_log_loss"])
    assert search.stages_[-1]["best_score"] == results["mean_test_neg_log_loss"].max()


def test_refit_may_choose_itself():
    def first(results):
        return 0

    several = {"refit": first, "scoring": ["accuracy", "neg_log_loss"]}
    search = staged(sampler="random", **several).fit(X, y)

    assert search.best_index_ == 0
    assert [stage["best_score"] for stage in search.stages_] == 4 * [None]
    with pytest.raises(ValueError, match="refit must name .* with sampler='random' and without"):
        staged(**several).fit(X, y)


def test_what_only_draws_is_for_random_stages():
    class Drawn:
        def rvs(self, random_state=None):
            return random_state.uniform(0.5, 2)

    stages = [("one", {"C": Drawn()})]
    search = staged(LogisticRegression(), stages, sampler="random").fit(X, y)

    assert len(search.cv_results_["params"]) == 4
    with pytest.raises(ValueError, match="sampler='random' and without stop, stage 'one' takes"):
        staged(LogisticRegression(), stages).fit(X, y)


def test_it_follows_from_its_seed_and_can_be_pickled():
    search = staged().fit(X, y)
    again = pickle.loads(pickle.dumps(staged().fit(X, y)))

    assert again.best_params_ == search.best_params_
    np.testing.assert_array_equal(again.predict(X), search.predict(X))


# some checks warn on purpose
@pytest.mark.filterwarnings("ignore")
def test_it_passes_scikit_learns_estimator_checks():
    stages = [("strength", {"var_smoothing": [1e-9]}), ("all", None)]
    check_estimator(staged(GaussianNB(), stages, n_iter=2, cv=2))


BAD = [
    ({"stages": []}, "stages must have at least one stage, got none"),
    ({"stages": ["alpha"]}, r"a stage must be a pair \(name, space\), got 'alpha'"),
    ({"stages": [("a", {"C": [1]}), ("a", None)]}, "stages must have different names, .* got 'a'"),
    ({"stages": [("baseline", {"C": [1]})]}, "none 'baseline', got 'baseline'"),
    ({"stages": [("a", None)]}, "the first stage must have a space, got None for 'a'"),
    ({"stages": [("a", {})]}, "stage 'a' must have a dict of parameters as its space, or .* {}"),
    ({"stages": [("a", {"D": [1]})]}, "stage 'a' must name parameters of the estimator, got 'D'"),
    ({"stages": [("a", {"C": 1})]}, "must have a distribution or a list of values, got 1"),
    ({"stages": [("a", {"C": []})]}, r"must have a distribution or a list of values, got \[\]"),
    ({"n_iter": 0}, "n_iter must be at least 1, got n_iter=0 for stage 'a'"),
    ({"n_iter": {"b": 3}}, "a stage in n_iter must be one of .'a'., got 'b'"),
    ({"sampler": "gird"}, "sampler must be one of .*, got 'gird'; did you mean 'grid'"),
    ({"sampler": "grid", "stages": [("a", {"C": uniform()})]}, "lists of values only"),
    ({"narrow": 0}, "narrow must be above 0 and at most 1, got narrow=0"),
    ({"scoring": ["accuracy", "f1"], "refit": False}, "refit must name the metric"),
    ({"stages": {"a": {"C": [1]}}}, "stages must be a list of pairs"),
    ({"stages": [("a", [{"C": [1]}, {}])]}, "or a list of such dicts, got"),
    ({"stages": [("a", {"C": [1]}), ("b", [{"CC": [1]}])]}, "stage 'b' must name .* got 'CC'"),
    ({"timeout": 0}, "timeout must be a number above 0, got timeout=0"),
    ({"stop": "soon"}, "stop must be 'auto' or None, got stop='soon'"),
    ({"stop": "auto", "scoring": ["f1", "accuracy"], "refit": False}, "or a stage stops, where"),
    ({"stop": "auto", "cv": ShuffleSplit(1)}, "must have at least 2 splits"),
]


@pytest.mark.parametrize(("options", "match"), BAD)
def test_bad_settings_are_named(options, match):
    settings = {"stages": [("a", {"C": [1.0]})], **options}

    with pytest.raises(ValueError, match=match):
        staged(LogisticRegression(), **settings).fit(X, y)


BAYESIAN = ["tpe", "gp", "optuna"]


def _make_sampler(kind):
    if kind != "optuna":
        return kind
    return pytest.importorskip("optuna").samplers.RandomSampler(seed=0)


@pytest.mark.parametrize("kind", BAYESIAN)
def test_stages_may_be_bayesian(kind):
    pytest.importorskip("optuna")

    def run(seed):
        # 13 candidates: the samplers have learned from some rounds
        search = staged(sampler=_make_sampler(kind), n_iter=13, cv=2, random_state=seed)
        return search.fit(X, y)

    search = run(0)
    results = search.cv_results_

    assert [stage["n_candidates"] for stage in search.stages_] == [1, 13, 13, 13]
    assert results["stage"].tolist()[:15] == ["baseline"] + 13 * ["alpha"] + ["regularization"]
    assert results["params"][0] == {}
    assert sorted(set(search.curves_["candidate"])) == list(range(40))
    assert results["params"] == run(0).cv_results_["params"]
    if kind != "optuna":
        assert results["params"] != run(1).cv_results_["params"]
    low, high = search.stages_[-1]["space"]["lr"].ppf([0.0, 1.0])
    drawn = [params["lr"] for params in results["params"][-13:]]
    assert low * 0.999 <= min(drawn) <= max(drawn) <= high * 1.001


def test_a_bayesian_stage_is_told_of_the_best_and_of_the_baseline(monkeypatch):
    pytest.importorskip("optuna")
    from sktune.search.samplers.batches import BatchSampler

    told = []

    def tell(self, points, scores):
        told.extend((self.space.params_at(p), s) for p, s in zip(points, scores, strict=True))

    monkeypatch.setattr(BatchSampler, "tell", tell)
    stages = [("grid", {"C": [1e-9, 1e-8, 10.0]}), ("all", None)]
    sampler = {"grid": "grid", "all": "tpe"}
    search = staged(LogisticRegression(C=1e-8), stages, sampler=sampler, narrow=1.0).fit(X, y)

    assert told[:2] == [
        ({"C": 10.0}, search.stages_[1]["best_score"]),
        ({"C": 1e-8}, search.stages_[0]["best_score"]),
    ]


def test_a_small_space_gives_no_candidate_twice():
    pytest.importorskip("optuna")
    stages = [("few", {"C": [0.1, 1.0, 10.0]})]
    search = staged(LogisticRegression(), stages, sampler="tpe", n_iter=9).fit(X, y)

    # C=1 is the estimator's own, which the baseline has evaluated
    assert sorted(params["C"] for params in search.cv_results_["params"][1:]) == [0.1, 10.0]


def test_bayesian_stages_name_what_they_cannot_use():
    pytest.importorskip("optuna")
    space = [("a", {"C": [1.0]})]
    with pytest.raises(ValueError, match="got 'tpee'; did you mean 'tpe'"):
        staged(LogisticRegression(), space, sampler="tpee").fit(X, y)
    with pytest.raises(ValueError, match="sampler must be one of .* or an Optuna sampler, got 3"):
        staged(LogisticRegression(), space, sampler=3).fit(X, y)
    several = {"scoring": ["accuracy", "f1"], "refit": False}
    with pytest.raises(ValueError, match="refit must name the metric by which a Bayesian stage"):
        staged(LogisticRegression(), space, sampler="gp", **several).fit(X, y)
