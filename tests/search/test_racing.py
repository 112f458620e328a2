"""Candidates race over the splits: who goes on, and what a search tells of it."""

import pickle

import joblib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from parity import RAGGED
from parity import X as X_net
from parity import y as y_net
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.exceptions import FitFailedWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import (
    GroupKFold,
    LeaveOneGroupOut,
    RepeatedKFold,
    ShuffleSplit,
    cross_val_score,
)
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sktune import (
    BayesSearchCV,
    GridSearchCV,
    HoldoutSearch,
    NeuralNetClassifier,
    OneStandardError,
    RandomizedSearchCV,
)
from sktune.inspection import diagnose, importance
from sktune.inspection.records import read_search
from sktune.inspection.report.candidates import list_candidates
from sktune.search.racing import Race
from sktune.search.rounds.stopping import Deadline

NET = NeuralNetClassifier(module__hidden=(6,), batch_size=16, max_epochs=3, random_state=0)
RATES = {"lr": [1e-6, 1e-5, 1e-4, 3e-2, 1e-2, 2e-2]}
# the rows of each of the splits are a group
N_SPLITS = 4
X = np.repeat(np.arange(N_SPLITS), 4).reshape(-1, 1).astype(float)
y = np.tile([0, 1], 2 * N_SPLITS)
CV = {"cv": list(LeaveOneGroupOut().split(X, y, X[:, 0]))}
FITS = []


class Scripted(ClassifierMixin, BaseEstimator):
    """Has a given score on each split; None fails."""

    def __init__(self, scores=(0.5,) * N_SPLITS):
        self.scores = scores

    def fit(self, X, y):
        self.classes_ = np.unique(y)
        split = (set(range(N_SPLITS)) - set(X[:, 0].astype(int))).pop() if len(X) < 16 else None
        FITS.append((self.scores, split))
        if split is not None and self.scores[split] is None:
            raise ValueError("it fails")
        return self

    def predict(self, X):
        return np.full(len(X), self.classes_[0])

    def score(self, X, y):
        return self.scores[int(X[0, 0])]


def race(candidates, search=GridSearchCV, **options):
    """Fit a search over candidates with given scores; return it."""
    FITS.clear()
    space = {"scores": [tuple(scores) for scores in candidates]}
    if search is not GridSearchCV:
        options["n_iter"] = len(candidates)
    return search(Scripted(), space, **{**CV, "racing": True, **options}).fit(X, y)


def read_scores(results, n_splits=N_SPLITS, metric="score"):
    return np.column_stack([results[f"split{n}_test_{metric}"] for n in range(n_splits)])


def play(table):
    """Return on how many splits each candidate is fitted, worked out by the rule alone."""
    leader = int(np.argmax(table[:, 0]))
    line = table[leader].min()
    n_run = np.full(len(table), N_SPLITS)
    for candidate in set(range(len(table))) - {leader}:
        for n in range(1, N_SPLITS):
            if sum(table[candidate, :n]) < n * line:
                n_run[candidate] = n
                break
    return n_run


def test_who_is_below_the_worst_score_of_the_best_leaves():
    search = race(
        [
            (0.8, 0.6, 0.9, 0.7),
            (0.5, 0.9, 0.9, 0.9),
            (0.6, 0.6, 0.6, 0.6),
            (0.7, 0.4, 0.9, 0.9),
            (0.7, 0.9, 0.8, 0.9),
        ]
    )

    results = search.cv_results_
    assert results["n_splits_run"].tolist() == [4, 1, 4, 2, 4]
    assert len(FITS) == 4 + 1 + 4 + 2 + 4 + 1
    np.testing.assert_array_equal(np.isnan(read_scores(results)).sum(axis=1), [0, 3, 0, 2, 0])
    np.testing.assert_array_equal(np.isnan(results["mean_test_score"]), [0, 1, 0, 1, 0])
    assert results["rank_test_score"].tolist() == [2, 4, 3, 4, 1]
    assert np.isfinite(results["mean_fit_time"]).all()
    assert search.best_index_ == 4
    racing = search.fusion_.racing
    assert (racing.n_fits, racing.n_spared_fits) == (20, 5)
    assert racing.dropped == [
        {"candidate": 1, "n_splits": 1, "mean_score": 0.5, "line": 0.6},
        {"candidate": 3, "n_splits": 2, "mean_score": pytest.approx(0.55), "line": 0.6},
    ]
    assert "5 of 20 fits spared by racing, 2 candidates have left" in str(search.fusion_)
    assert not hasattr(search, "_race")


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.tuples(*[st.integers(-8, 8)] * N_SPLITS), min_size=1, max_size=7, unique=True).map(
        np.array
    )
)
def test_races_follow_the_rule(table):
    search = race(table.tolist())

    n_run = play(table)
    assert search.cv_results_["n_splits_run"].tolist() == n_run.tolist()
    is_run = np.arange(N_SPLITS) < n_run[:, None]
    np.testing.assert_array_equal(read_scores(search.cv_results_), np.where(is_run, table, np.nan))
    assert len(FITS) == n_run.sum() + 1
    assert search.fusion_.racing.n_spared_fits == (N_SPLITS - n_run).sum()
    complete = np.flatnonzero(n_run == N_SPLITS)
    assert search.best_index_ == complete[table[complete].mean(axis=1).argmax()]


def test_equal_scores_are_not_behind_by_rounding():
    # the mean of three of them is less than 0.1 times three, divided by three
    search = race([(0.1,) * 4, (0.1,) * 4, (0.7,) * 4, (0.7,) * 4])

    assert search.cv_results_["n_splits_run"].tolist() == [1, 1, 4, 4]
    rounded = [{"test_scores": 0.7 + 1e-17}] * 3
    runner = Race()
    runner.take([{"test_scores": 0.7, "fit_error": None}] * 3)
    assert not runner.is_behind(rounded)


def test_a_thousand_candidates_and_one():
    table = np.random.RandomState(0).uniform(size=(1000, N_SPLITS)).round(3)
    assert race(table.tolist()).cv_results_["n_splits_run"].tolist() == play(table).tolist()

    search = race([(0.5, 0.4, 0.3, 0.2)])
    assert search.cv_results_["n_splits_run"].tolist() == [4]
    assert search.best_score_ == pytest.approx(0.35)


@pytest.mark.filterwarnings(
    "ignore:\\s+\\d+ fits failed out of:sklearn.exceptions.FitFailedWarning"
)
@pytest.mark.filterwarnings("ignore:One or more of the test scores are non-finite:UserWarning")
def test_failed_candidates_leave_and_lead_nobody():
    search = race([(None, 0.9, 0.9, 0.9), (0.9, 0.9, None, 0.9), (0.7, 0.5, 0.6, 0.6), (0.4,) * 4])

    # the second leads on the first split, and fails later: the third is compared with
    assert search.cv_results_["n_splits_run"].tolist() == [1, 4, 4, 1]
    assert search.best_index_ == 2
    assert search.fusion_.racing.dropped[-1]["line"] == 0.5


@pytest.mark.filterwarnings(
    "ignore:\\s+\\d+ fits failed out of:sklearn.exceptions.FitFailedWarning"
)
def test_failed_fits_may_have_a_score():
    search = race([(None, 0.9, 0.9, 0.9), (0.9, 0.9, 0.8, 0.9)], error_score=0.0)

    assert search.cv_results_["n_splits_run"].tolist() == [1, 4]


def test_scores_that_are_missing_for_another_reason_are_warned_of():
    with pytest.warns(UserWarning, match="One or more of the test scores are non-finite"):
        search = race([(0.9, 0.9, 0.8, 0.9), (0.9, 0.9, 0.9, np.nan), (0.1,) * 4])

    assert search.cv_results_["n_splits_run"].tolist() == [4, 4, 1]


def test_all_have_failed():
    with pytest.raises(ValueError, match="All the 8 fits failed"):
        race([(None,) * 4, (None, None, None, None)])
    with pytest.raises(ValueError, match="it fails"):
        race([(0.9, 0.9, 0.8, 0.9), (0.9, 0.9, 0.9, None)], error_score="raise")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"racing": "yes"}, "racing must be True or False, got racing='yes'"),
        ({"racing": 1}, "racing must be True or False, got racing=1"),
        ({"refit": np.argmax}, "refit must be a bool, a name or a rule of sktune's with racing"),
        ({"scoring": ["accuracy", "f1"], "refit": False}, "refit must name the score by which"),
        ({"scoring": ["accuracy", "f1"], "refit": "r2"}, "one of .'accuracy', 'f1'., got refit='r"),
        ({"cv": ShuffleSplit(1, random_state=0)}, "racing=True must have at least 2 splits, got 1"),
    ],
)
@pytest.mark.parametrize("search", [GridSearchCV, RandomizedSearchCV])
def test_bad_input_is_refused_before_anything_is_fitted(search, options, message):
    with pytest.raises(ValueError, match=message):
        race([(0.9, 0.9, 0.8, 0.9)], search, **options)
    assert FITS == []


def find_first_score(params):
    return params["scores"][0]


def test_refits_that_have_one_score():
    table = [(0.9, 0.9, 0.8, 0.9), (0.85, 0.9, 0.8, 0.9), (0.1,) * 4]

    assert race(table, refit=False).best_index_ == 0
    assert race(table, refit=OneStandardError(find_first_score)).best_index_ == 1


def test_the_score_of_refit_decides():
    def score_both(model, X, y):
        score = model.score(X, y)
        return {"high": score, "low": -score}

    table = [(0.9, 0.9, 0.8, 0.9), (0.1, 0.1, 0.2, 0.1)]
    expected = {"high": [4, 1], "low": [1, 4]}
    for refit, n_run in expected.items():
        search = race(table, scoring=score_both, refit=refit, return_train_score=True)
        assert search.cv_results_["n_splits_run"].tolist() == n_run
        lost = n_run.index(1)
        assert np.isnan(read_scores(search.cv_results_, metric="low")[lost]).sum() == 3
        assert np.isnan(search.cv_results_["mean_train_high"][lost])
    with pytest.raises(ValueError, match="refit must name the score .*'high', 'low'.*, got 'other"):
        race(table, scoring=score_both, refit="other")


def make_searches():
    options = {"cv": RAGGED, "n_jobs": 1}
    drawn = {**options, "n_iter": 6, "random_state": 0}
    pipeline = make_pipeline(StandardScaler(), NET)
    named = {"neuralnetclassifier__lr": RATES["lr"]}
    stopping = clone(NET).set_params(early_stopping=True)
    several = {"scoring": ["accuracy", "neg_log_loss"], "refit": "neg_log_loss"}
    return {
        "grid": GridSearchCV(NET, RATES, **options),
        "threads": GridSearchCV(NET, RATES, cv=RAGGED, n_jobs=2),
        "pipeline": GridSearchCV(pipeline, named, **options),
        "random": RandomizedSearchCV(NET, RATES, **drawn),
        "rounds": RandomizedSearchCV(NET, RATES, timeout=1000, **drawn),
        "two metrics": GridSearchCV(NET, RATES, **options, **several),
        "classical": GridSearchCV(LogisticRegression(), {"C": [1e-6, 1e-3, 1.0]}, **options),
        "processes": GridSearchCV(LogisticRegression(), {"C": [1e-6, 1.0]}, cv=RAGGED, n_jobs=2),
        "weights": GridSearchCV(NET, RATES, **options),
        "groups": GridSearchCV(NET, RATES, cv=GroupKFold(3)),
        "repeated": GridSearchCV(NET, RATES, cv=RepeatedKFold(n_splits=2, random_state=0)),
        "training scores": GridSearchCV(NET, RATES, **options, return_train_score=True),
        "early stopping": GridSearchCV(stopping, RATES, **options),
        "epochs": GridSearchCV(NET, {"lr": [1e-6, 3e-2], "max_epochs": [1, 3]}, **options),
    }


FIT_PARAMS = {
    "weights": {"sample_weight": np.linspace(0.5, 2.0, len(X_net))},
    "groups": {"groups": np.arange(len(X_net)) % 5},
}


@pytest.mark.parametrize("kind", make_searches())
def test_what_is_run_has_the_scores_that_it_has_without_a_race(kind):
    search = make_searches()[kind]
    params = FIT_PARAMS.get(kind, {})
    whole = clone(search).fit(X_net, y_net, **params)
    search.set_params(racing=True).fit(X_net, y_net, **params)

    metric = "neg_log_loss" if kind == "two metrics" else "score"
    n_splits = search.n_splits_
    raced = read_scores(search.cv_results_, n_splits, metric)
    is_run = ~np.isnan(raced)
    # the rest of the parameters of these searches is hopeless
    assert n_splits * len(raced) > is_run.sum() >= len(raced) + n_splits - 1
    expected = read_scores(whole.cv_results_, n_splits, metric)
    np.testing.assert_array_equal(raced[is_run], expected[is_run])
    # a winner may be lost, but the best of those that are complete is chosen
    complete = np.where(is_run.all(axis=1), expected.mean(axis=1), -np.inf)
    assert search.best_index_ == complete.argmax()
    assert search.fusion_.racing.n_spared_fits == (~is_run).sum()
    n_lanes = sum(group["lanes"] for group in search.fusion_.groups)
    if kind != "epochs":
        assert n_lanes + len(search.fusion_.alone) == is_run.sum()
    assert pickle.loads(pickle.dumps(search)).best_params_ == search.best_params_


def test_a_cache_knows_what_was_raced(tmp_path):
    raced = GridSearchCV(NET, RATES, cv=RAGGED, cache=tmp_path, racing=True).fit(X_net, y_net)
    whole = clone(raced).set_params(racing=False).fit(X_net, y_net)

    n_spared = raced.fusion_.racing.n_spared_fits
    assert whole.fusion_.sharing.n_trained_epochs == 3 * n_spared > 0
    is_run = np.arange(2) < raced.cv_results_["n_splits_run"][:, None]
    expected = np.where(is_run, read_scores(whole.cv_results_, 2), np.nan)
    np.testing.assert_array_equal(read_scores(raced.cv_results_, 2), expected)
    again = clone(raced).fit(X_net, y_net)
    assert again.fusion_.sharing.n_trained_epochs == 0
    np.testing.assert_array_equal(read_scores(again.cv_results_, 2), expected)


def test_other_doors_lead_to_the_same_race():
    search = GridSearchCV(NET, RATES, cv=RAGGED, racing=True)
    expected = clone(search).fit(X_net, y_net)
    for context in (
        {"outer": "loky", "outer_options": {"n_jobs": 2}},
        {"max_lanes": 2},
        {"n_jobs": 2},
    ):
        with joblib.parallel_config("sktune", **context):
            found = clone(search).fit(X_net, y_net)
        np.testing.assert_array_equal(
            read_scores(found.cv_results_, 2), read_scores(expected.cv_results_, 2)
        )
        assert found.fusion_.racing == expected.fusion_.racing
    search.set_params(cv=2)
    sealed = HoldoutSearch(search, random_state=0).fit(X_net, y_net)
    n_run = sealed.search_.cv_results_["n_splits_run"]
    assert f"6 candidates × 2 folds = {n_run.sum()} of 12 fits, raced, in" in sealed.summary()
    # searches in a cross-validation race each by themselves
    scores = cross_val_score(search, X_net, y_net, cv=2)
    np.testing.assert_array_equal(scores, cross_val_score(search, X_net, y_net, cv=2, n_jobs=2))


def test_an_ensemble_is_of_complete_candidates():
    grid = {"C": [1e-6, 1.0, 10.0]}
    options = {"cv": RAGGED, "scoring": "accuracy", "ensemble": "greedy", "racing": True}
    search = GridSearchCV(LogisticRegression(), grid, **options).fit(X_net, y_net)

    assert search.cv_results_["n_splits_run"].tolist() == [1, 2, 2]
    assert search.ensemble_weights_[0] == 0
    assert np.isnan(search.oof_predictions_[0]).all()
    assert len(search.ensemble_.members_) % 2 == 0


class Late(Deadline):
    """Its time is over once so many fits are counted."""

    n_fits = 0

    @property
    def is_over(self):
        return len(FITS) >= self.n_fits

    @property
    def n_left(self):
        return 0.0 if self.is_over else 100.0


@pytest.mark.parametrize(
    ("n_fits", "kept"), [(3, []), (6, [0]), (8, [0, 2]), (10, [0, 2, 3]), (11, [0, 1, 2, 3])]
)
def test_what_a_timeout_leaves(n_fits, kept, monkeypatch):
    monkeypatch.setattr("sktune.search.rounds.session.Deadline", Late)
    monkeypatch.setattr(Late, "n_fits", n_fits)
    # a round has the four of them: the first leads, the third leaves, and later the fourth
    table = [(0.9, 0.8, 0.8, 0.8), (0.9, 0.9, 0.8, 0.9), (0.1,) * 4, (0.8, 0.7, 0.9, 0.9)]
    monkeypatch.setattr("sktune.search.grid.default_batch_size", lambda *_: 4)
    monkeypatch.setattr(
        "sktune.search.grid.ParameterSampler",
        lambda *_, **__: [{"scores": scores} for scores in table],
    )
    if not kept:
        with pytest.raises(ValueError, match="timeout must leave the time"):
            race(table, RandomizedSearchCV, timeout=50.0)
        return
    search = race(table, RandomizedSearchCV, timeout=50.0)

    found = search.cv_results_
    # whoever has had no time left is not there; whoever has left the race is
    assert [params["scores"] for params in found["params"]] == [table[number] for number in kept]
    assert ("the timeout of 50.0 s is over" in search.stop_reason_) == (len(kept) < 4)
    assert np.isfinite(found["mean_test_score"][search.best_index_])


def test_an_interrupt_leaves_what_is_complete():
    n_scored = 0

    def score(model, X, y):
        nonlocal n_scored
        n_scored += 1
        if n_scored == 9:
            raise KeyboardInterrupt("from the keyboard")
        return model.score(X, y)

    table = [(0.9, 0.8, 0.8, 0.8), (0.9, 0.9, 0.8, 0.9), (0.1,) * 4, (0.8, 0.8, 0.9, 0.9)]
    with pytest.warns(UserWarning, match="the search was interrupted, 1 of its last 4 candidates"):
        search = race(table, scoring=score)

    assert search.interrupted_
    # the first is complete, the third has left
    assert [params["scores"] for params in search.cv_results_["params"]] == [table[0], table[2]]
    assert search.cv_results_["n_splits_run"].tolist() == [4, 1]
    assert search.best_index_ == 0
    n_scored = 4
    with pytest.raises(KeyboardInterrupt, match="from the keyboard"):
        race([*table, *table[::-1]], scoring=score)


def search_by_bayes(**options):
    pytest.importorskip("optuna")
    space = {"C": np.logspace(-6, 1, 30).tolist()}
    settings = {"n_iter": 9, "batch_size": 3, "random_state": 0, "cv": RAGGED, "racing": True}
    return BayesSearchCV(LogisticRegression(), space, **{**settings, **options})


def test_a_bayesian_search_knows_the_best_of_earlier_rounds(tmp_path):
    path = tmp_path / "journal.log"
    search = search_by_bayes(storage=path).fit(X_net, y_net)

    dropped = search.fusion_.racing.dropped
    assert {row["candidate"] // 3 for row in dropped} > {0}
    lines = [row["line"] for row in dropped]
    n_run = search.cv_results_["n_splits_run"]
    assert np.flatnonzero(n_run < 2).tolist() == [row["candidate"] for row in dropped]
    # the sampler is told the mean of what was run
    told = [trial.value for trial in search.study_.trials]
    scores = read_scores(search.cv_results_, 2)
    np.testing.assert_allclose(told, np.nanmean(scores, axis=1))
    again = search_by_bayes(storage=path, n_iter=12).fit(X_net, y_net)
    assert again.cv_results_["n_splits_run"][:9].tolist() == n_run.tolist()
    assert all(row["line"] >= max(lines) - 0.1 for row in again.fusion_.racing.dropped)
    assert again.fusion_.racing.n_fits == 3 * 2


def test_a_candidate_that_has_left_has_not_failed():
    table = [(0.9, 0.8, 0.9, 0.8), (0.1,) * 4, (None, 0.9, 0.9, 0.9)]
    with pytest.warns(FitFailedWarning, match="1 fits failed"):
        search = race(table)

    record = read_search(search)
    assert record.has_failed.tolist() == [False, False, True]
    assert record.is_spared.sum(axis=1).tolist() == [0, 3, 3]
    texts = {row[0]: row[2] for row in list_candidates(record).rows}
    assert (texts["1"], texts["2"]) == ("left the race", "failed")
    (found,) = [f for f in diagnose(search) if f.code == "failed-fits"]
    assert "1 of 6 fits have no finite score" in found.text
    means = {name: search.cv_results_[name] for name in ("params", "n_splits_run")}
    means["mean_test_score"] = search.cv_results_["mean_test_score"]
    assert read_search(means).is_spared.ravel().tolist() == [False, True, True]
    # those that have left are told apart by the first split, which all were fitted on
    assert "2 candidates, 1 without a score" in str(importance(search))
