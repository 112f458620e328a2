import pickle
import warnings

import joblib
import numpy as np
import pytest
from scipy.stats import gamma, loguniform, norm, randint, uniform
from sklearn import set_config
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.datasets import make_classification
from sklearn.ensemble import RandomForestClassifier
from sklearn.exceptions import FitFailedWarning
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import accuracy_score, make_scorer
from sklearn.model_selection import GroupKFold, KFold, ShuffleSplit, cross_val_score
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeClassifier
from sklearn.utils import get_tags
from sklearn.utils.estimator_checks import check_estimator

from sktune import BayesSearchCV, NeuralNetClassifier, loguniform_int, zero_or

optuna = pytest.importorskip("optuna")

X, y = make_classification(60, n_features=4, random_state=0)
SPACE = {"C": loguniform(1e-3, 1e3)}
SAMPLERS = ["tpe", "gp", optuna.samplers.RandomSampler]


def search_classical(space=None, **params):
    params = {"n_iter": 6, "cv": 3, "random_state": 0, **params}
    return BayesSearchCV(LogisticRegression(), SPACE if space is None else space, **params)


class Peak(ClassifierMixin, BaseEstimator):
    """Its score is known: the highest, 1, is where lr is 0.01 and decay is 0."""

    def __init__(self, lr=1.0, decay=0.1, fails_below=0.0):
        self.lr = lr
        self.decay = decay
        self.fails_below = fails_below

    def fit(self, X, y):
        if self.lr < self.fails_below:
            raise RuntimeError(f"lr={self.lr} is too small")
        self.classes_ = np.unique(y)
        return self

    def predict(self, X):
        return np.full(len(X), self.classes_[0])

    def score(self, X, y, sample_weight=None):
        return 1 - 0.2 * abs(np.log10(self.lr) + 2) - self.decay


def test_trains_networks_together_in_rounds():
    net = NeuralNetClassifier(max_epochs=3, random_state=0)
    space = {"lr": loguniform(1e-4, 1e-1), "optimizer__weight_decay": zero_or(loguniform(1e-6, 1))}
    search = BayesSearchCV(net, space, n_iter=7, batch_size=3, cv=2, random_state=0).fit(X, y)

    assert search.fusion_.alone == []
    assert sum(group["lanes"] for group in search.fusion_.groups) == 14
    assert search.curves_["candidate"].unique().tolist() == list(range(7))
    # what the optimizer takes where nothing is said
    own = {"lr": net.lr, "optimizer__weight_decay": 0.01}
    assert search.cv_results_["params"][0] == own
    alone = clone(net).set_params(**search.cv_results_["params"][4])
    np.testing.assert_allclose(
        cross_val_score(alone, X, y, cv=2),
        [search.cv_results_[f"split{n}_test_score"][4] for n in range(2)],
    )


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("batch_size", [None, 4])
def test_is_repeated_by_its_seed(sampler, batch_size):
    def run(seed):
        search = search_classical(
            n_iter=14, sampler=sampler, batch_size=batch_size, random_state=seed
        )
        return search.fit(X, y).cv_results_["params"]

    assert run(0) == run(0)
    assert run(0) != run(1)


@pytest.mark.parametrize("sampler", ["tpe", "gp"])
def test_learns_where_the_peak_is(sampler):
    space = {"lr": loguniform(1e-6, 1e2), "decay": zero_or(uniform(0, 1))}
    search = BayesSearchCV(
        Peak(), space, n_iter=45, batch_size=15, sampler=sampler, cv=2, random_state=0
    ).fit(X, y)

    scores = search.cv_results_["mean_test_score"]
    assert scores[30:].mean() > scores[:15].mean() + 0.2
    assert search.best_score_ > 0.9


def test_first_candidate_is_the_estimator_as_it_is():
    space = {"lr": uniform(0, 0.5), "decay": [0.1, 0.2]}

    search = BayesSearchCV(Peak(), space, n_iter=3, cv=2, random_state=0).fit(X, y)

    assert search.cv_results_["params"][0] == {"lr": 1.0, "decay": 0.1}
    # lr=1 is not in the space: the study shows what is
    assert search.study_.trials[0].params == {"decay": 0.1}


@pytest.mark.parametrize("is_in_pipeline", [False, True])
def test_first_candidate_is_told_with_the_defaults_of_the_parts_of_a_net(is_in_pipeline):
    net = NeuralNetClassifier(max_epochs=1, random_state=0)
    prefix = ""
    if is_in_pipeline:
        net = make_pipeline(StandardScaler(), net)
        prefix = "neuralnetclassifier__"
    space = {
        f"{prefix}optimizer__weight_decay": loguniform(1e-6, 1e-1),
        f"{prefix}module__dropout": uniform(0, 0.5),
    }
    search = BayesSearchCV(net, space, n_iter=2, cv=2, random_state=0).fit(X, y)

    first = search.study_.trials[0]
    assert first.state == optuna.trial.TrialState.COMPLETE
    assert first.params == {
        f"{prefix}optimizer__weight_decay": 0.01,
        f"{prefix}module__dropout": 0.0,
    }
    assert first.value == search.cv_results_["mean_test_score"][0]
    # a Point: it lies in the space, and the sampler has been told of it
    assert first.user_attrs["point"] is not None


def test_plots_of_optuna_read_the_study():
    pytest.importorskip("matplotlib").use("Agg")
    from matplotlib import pyplot
    from optuna.visualization import matplotlib as plots

    space = {"C": loguniform(1e-3, 1e3), "fit_intercept": [True, False]}
    study = search_classical(space, n_iter=8).fit(X, y).study_

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        history = plots.plot_optimization_history(study)
        importances = plots.plot_param_importances(study)
        parallel = plots.plot_parallel_coordinate(study)
    shown = [label.get_text() for label in importances.get_yticklabels()]
    scores = history.collections[0].get_offsets()[:, 1]
    pyplot.close("all")

    np.testing.assert_allclose(sorted(scores), sorted(trial.value for trial in study.trials))
    assert set(shown) == {"C", "fit_intercept"}
    assert parallel is not None


def test_splits_are_fixed_on_noise():
    rng = np.random.RandomState(0)
    noise = rng.normal(size=(200, 3))
    labels = rng.randint(2, size=200)
    # about one candidate, over and over: on other splits the best of 30 would be one of luck
    search = search_classical(
        {"C": uniform(1.0, 1e-9)}, n_iter=30, batch_size=1, cv=ShuffleSplit(3, test_size=0.2)
    ).fit(noise, labels)

    assert np.ptp(search.cv_results_["mean_test_score"]) == 0


def test_attributes_are_those_of_scikit_learns_searches():
    from sklearn.model_selection import RandomizedSearchCV

    theirs = RandomizedSearchCV(LogisticRegression(), SPACE, n_iter=6, cv=3, random_state=0)
    ours, theirs = search_classical().fit(X, y), theirs.fit(X, y)

    fitted = {name for name in vars(theirs) if name.endswith("_")}
    assert fitted <= {name for name in vars(ours) if name.endswith("_")}
    assert ours.cv_results_.keys() == theirs.cv_results_.keys()
    assert ours.classes_.tolist() == [0, 1]
    assert ours.n_features_in_ == 4
    assert get_tags(ours) == get_tags(theirs)
    assert get_tags(BayesSearchCV(Ridge(), {"alpha": [1, 2]})).estimator_type == "regressor"
    assert "_session" not in vars(ours)


def test_passes_scikit_learns_estimator_checks():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # some checks warn on purpose
        check_estimator(BayesSearchCV(GaussianNB(), {"var_smoothing": [1e-9]}, n_iter=1, cv=2))


def test_is_an_ordinary_estimator():
    search = search_classical(n_iter=3).fit(X, y)

    again = pickle.loads(pickle.dumps(search))
    np.testing.assert_array_equal(again.predict(X), search.predict(X))
    assert len(again.study_.trials) == 3
    assert cross_val_score(clone(search), X, y, cv=2).shape == (2,)
    # another fit begins anew
    assert len(search.fit(X, y).study_.trials) == 3


def test_runs_tasks_in_other_processes():
    alone = search_classical(batch_size=3).fit(X, y)
    with joblib.parallel_config("loky", n_jobs=2):
        search = search_classical(batch_size=3).fit(X, y)

    assert search.cv_results_["params"] == alone.cv_results_["params"]


@pytest.mark.parametrize("sampler", ["tpe", "gp"])
def test_several_scores_and_the_one_that_guides(sampler):
    scoring = {"hit": "accuracy", "miss": "neg_log_loss"}
    search = search_classical(sampler=sampler, scoring=scoring, refit="miss").fit(X, y)

    np.testing.assert_array_equal(
        [trial.value for trial in search.study_.trials], search.cv_results_["mean_test_miss"]
    )
    assert search.best_score_ == search.cv_results_["mean_test_miss"].max()
    with pytest.raises(ValueError, match="refit must name the score that guides .*got refit=False"):
        search_classical(scoring=scoring, refit=False).fit(X, y)


@pytest.mark.parametrize("batch_size", [1, 4])
def test_failed_fits_are_told_as_failed(batch_size):
    space = {"lr": loguniform(1e-4, 1)}
    search = BayesSearchCV(
        Peak(fails_below=1e-2), space, n_iter=12, batch_size=batch_size, cv=2, random_state=0
    )

    with (
        pytest.warns(FitFailedWarning, match="is too small"),
        pytest.warns(UserWarning, match="non-finite"),
    ):
        search.fit(X, y)

    has_failed = [params["lr"] < 1e-2 for params in search.cv_results_["params"]]
    assert any(has_failed)
    assert np.isnan(search.cv_results_["mean_test_score"]).tolist() == has_failed
    states = [trial.state == optuna.trial.TrialState.FAIL for trial in search.study_.trials]
    assert states == has_failed
    with pytest.raises(RuntimeError, match="is too small"):
        clone(search).set_params(error_score="raise").fit(X, y)


def test_a_number_as_error_score_is_no_score_to_the_sampler():
    space = {"lr": loguniform(1e-4, 1)}
    search = BayesSearchCV(Peak(fails_below=1e-2), space, n_iter=8, cv=2, random_state=0)
    with pytest.warns(FitFailedWarning, match="is too small"):
        search.set_params(error_score=0.0).fit(X, y)

    states = [trial.state == optuna.trial.TrialState.FAIL for trial in search.study_.trials]
    assert states == (search.cv_results_["mean_test_score"] == 0).tolist()


def test_pipelines_groups_and_weights():
    model = make_pipeline(StandardScaler(), LogisticRegression())
    space = {"logisticregression__C": loguniform(1e-3, 1e3)}
    groups = np.arange(60) % 6
    search = BayesSearchCV(model, space, n_iter=4, cv=GroupKFold(3), random_state=0)
    search.fit(X, y, groups=groups, logisticregression__sample_weight=np.ones(60))

    assert search.n_splits_ == 3
    assert search.score(X, y) > 0.5


def test_metadata_is_routed():
    weights = np.arange(60) + 1.0
    set_config(enable_metadata_routing=True)
    try:
        model = LogisticRegression().set_fit_request(sample_weight=True)
        scorer = make_scorer(accuracy_score).set_score_request(sample_weight=True)
        search = BayesSearchCV(model, SPACE, n_iter=3, cv=3, scoring=scorer, random_state=0)
        weighted = search.fit(X, y, sample_weight=weights).cv_results_["mean_test_score"]
        plain = clone(search).fit(X, y).cv_results_["mean_test_score"]
    finally:
        set_config(enable_metadata_routing=False)

    assert (weighted != plain).any()


@pytest.mark.parametrize("sampler", ["tpe", "gp"])
def test_spaces_of_other_parameters_each(sampler):
    model = make_pipeline(StandardScaler(), LogisticRegression())
    forest = RandomForestClassifier(n_estimators=3, random_state=0)
    space = [
        {"logisticregression": [LogisticRegression()], "logisticregression__C": uniform(0.1, 9)},
        {
            "logisticregression": [forest, DecisionTreeClassifier(random_state=0)],
            "logisticregression__max_depth": randint(1, 6),
        },
    ]
    search = BayesSearchCV(model, space, n_iter=15, cv=2, sampler=sampler, random_state=0)
    search.fit(X, y)

    kinds = {type(p["logisticregression"]).__name__ for p in search.cv_results_["params"]}
    assert kinds == {"LogisticRegression", "RandomForestClassifier", "DecisionTreeClassifier"}
    shown = search.study_.trials[0].params
    assert shown == {
        "logisticregression": "0: LogisticRegression()",
        "logisticregression__C": 1.0,
    }


@pytest.mark.parametrize("sampler", ["tpe", "gp"])
def test_a_small_space_is_searched_once(sampler):
    space = {"C": [0.1, 1.0, 10.0], "fit_intercept": [True, False]}
    search = search_classical(space, sampler=sampler, n_iter=20, batch_size=4).fit(X, y)

    params = [tuple(p.values()) for p in search.cv_results_["params"]]
    assert len(params) == len(set(params)) == 6
    assert search.stop_reason_ == "all 6 candidates are evaluated"


def test_study_shows_true_parameters_and_draws():
    space = {"lr": norm(2, 0.1), "decay": zero_or(gamma(2, scale=0.01), p_zero=0.5)}
    search = BayesSearchCV(Peak(), space, n_iter=12, cv=2, random_state=0).fit(X, y)

    pairs = zip(search.study_.trials[1:], search.cv_results_["params"][1:], strict=True)
    assert all(trial.params == params for trial, params in pairs)
    assert 0.0 in [trial.params["decay"] for trial in search.study_.trials]
    assert search.study_.best_value == search.best_score_


def test_storage_resumes_a_search(tmp_path):
    path = tmp_path / "journal.log"
    first = search_classical(storage=path, n_iter=4).fit(X, y)
    second = search_classical(storage=path, n_iter=6).fit(X, y)
    third = search_classical(storage=path, n_iter=6).fit(X, y)

    assert second.cv_results_["params"][:4] == first.cv_results_["params"]
    assert len(second.cv_results_["params"]) == len(second.study_.trials) == 6
    np.testing.assert_array_equal(
        second.cv_results_["mean_test_score"][:4], first.cv_results_["mean_test_score"]
    )
    assert len({p["C"] for p in second.cv_results_["params"]}) == 6
    assert third.cv_results_["params"] == second.cv_results_["params"]
    assert third.best_params_ == second.best_params_
    assert len(third.study_.trials) == 6


def test_what_was_running_is_told_as_failed(tmp_path):
    path = tmp_path / "journal.log"
    search = search_classical(storage=path, n_iter=2).fit(X, y)
    search.study_.ask()

    again = clone(search).set_params(n_iter=3).fit(X, y)

    states = [trial.state.name for trial in again.study_.trials]
    assert states == ["COMPLETE", "COMPLETE", "FAIL", "COMPLETE"]
    assert len(again.cv_results_["params"]) == 3


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"param_distributions": {"C": loguniform(1e-2, 1)}}, "space"),
        ({"estimator__tol": 0.1}, "estimator"),
        ({"scoring": "neg_log_loss"}, "scoring"),
        ({"cv": KFold(3, shuffle=True, random_state=1)}, "splits"),
    ],
)
def test_storage_of_another_search_is_refused(tmp_path, change, what):
    search = search_classical(storage=tmp_path / "journal.log", n_iter=2).fit(X, y)

    with pytest.raises(ValueError, match=f"storage must belong to .*of a search of {what}"):
        clone(search).set_params(n_iter=3, **change).fit(X, y)
    with pytest.raises(ValueError, match="storage must belong to .*of a search of data"):
        clone(search).fit(X + 1, y)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"n_iter": 0}, "n_iter must be at least 1, got n_iter=0"),
        ({"batch_size": 0}, "batch_size must be at least 1, got batch_size=0"),
        ({"sampler": "tpee"}, "got sampler='tpee'; did you mean 'tpe'"),
        ({"sampler": 3}, r"sampler must be one of \['gp', 'tpe'\] or an Optuna sampler, got 3"),
        ({"param_distributions": {"c": [1]}}, "parameters of the estimator, got 'c'"),
        ({"param_distributions": {"max_itr": [1]}}, "did you mean 'max_iter'"),
        ({"param_distributions": {}}, "must name at least one parameter"),
        ({"param_distributions": {"C": []}}, "the values of 'C' must be a list that is not empty"),
        ({"param_distributions": {"C": object()}}, "the values of 'C' must be a list"),
        ({"timeout": 0}, "timeout must be a number above 0, got timeout=0"),
        ({"tol": -1}, "tol must be a number above 0, got tol=-1"),
        ({"patience": 0}, "patience must be an int of at least 1, got patience=0"),
        ({"stop": "soon"}, "stop must be 'auto' or None, got stop='soon'"),
        ({"storage": "/nowhere/at/all/j.log"}, "storage must be the path of Optuna's journal"),
    ],
)
def test_bad_input_is_named_before_anything_is_trained(params, message, monkeypatch):
    def fit(self, X, y):
        raise AssertionError("nothing must be trained")

    monkeypatch.setattr(LogisticRegression, "fit", fit)

    with pytest.raises(ValueError, match=message):
        search_classical().set_params(**params).fit(X, y)


def test_a_file_of_others_is_refused(tmp_path):
    path = tmp_path / "text"
    path.write_text("no journal\n")

    with pytest.raises(ValueError, match="storage must be the path of Optuna's journal"):
        search_classical(storage=path).fit(X, y)


def test_optuna_is_asked_for_where_it_is_missing(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "optuna", None)

    with pytest.raises(ImportError, match=r"^BayesSearchCV needs Optuna: pip install 'sktune\[b"):
        search_classical().fit(X, y)


def test_takes_optunas_own_distributions():
    distributions = optuna.distributions
    space = {
        "C": distributions.FloatDistribution(1e-4, 1, log=True),
        "max_iter": distributions.IntDistribution(200, 210, step=5),
        "fit_intercept": distributions.CategoricalDistribution((True, False)),
        "random_state": loguniform_int(1, 3),
    }
    search = search_classical(space).fit(X, y)

    later = search.cv_results_["params"][1:]
    assert {type(params["random_state"]) for params in later} == {int}
    assert {params["max_iter"] for params in later} <= {200, 205, 210}


def test_a_last_round_that_fails_is_in_the_results():
    space = {"lr": [1.0, 1e-3]}
    search = BayesSearchCV(
        Peak(fails_below=1e-2), space, n_iter=2, batch_size=1, cv=2, random_state=0
    )
    with (
        pytest.warns(FitFailedWarning, match="too small"),
        pytest.warns(UserWarning, match="non-finite"),
    ):
        search.fit(X, y)

    assert search.cv_results_["params"] == [{"lr": 1.0}, {"lr": 1e-3}]
    assert np.isnan(search.cv_results_["mean_test_score"]).tolist() == [False, True]
    assert search.best_index_ == 0
