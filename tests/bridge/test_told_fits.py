"""Callbacks of scikit-learn's hear of fits while these are trained together."""

import joblib
import numpy as np
import pytest
from parity import X, y
from sklearn import model_selection
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_validate
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from told_callbacks import Asking, AskingForRows, Noting, Propagated, needs_callbacks

import sktune
from sktune import NeuralNetClassifier
from sktune.engine.report import FusionReport

pytestmark = needs_callbacks

N_EPOCHS = 3
NET = NeuralNetClassifier(module__hidden=4, max_epochs=N_EPOCHS, random_state=0, device="cpu")
PIPELINE = make_pipeline(StandardScaler(), NET)
GRID = {"lr": [1e-3, 1e-2]}


def grid_of(estimator):
    prefix = "neuralnetclassifier__" if hasattr(estimator, "steps") else ""
    return {prefix + name: values for name, values in GRID.items()}


def search(module, estimator, *callbacks, **params):
    options = {"cv": 2, "refit": False, **params}
    found = module.GridSearchCV(estimator, grid_of(estimator), **options)
    return found.set_callbacks(*callbacks).fit(X, y)


def reasons(found):
    return {fit["reason"] for fit in found.fusion_.alone}


def group_by_task(calls):
    """Return the calls of each task of the search, in their order."""
    tasks = {}
    for hook, name, path in calls:
        key = path[2][:2] if len(path) > 2 else path
        tasks.setdefault(key, []).append((hook, name, path))
    return tasks


@pytest.mark.parametrize("depth", [0, 1, None])
@pytest.mark.parametrize("estimator", [NET, PIPELINE], ids=["net", "pipeline"])
def test_callbacks_of_a_search_hear_what_scikit_learn_tells_them(estimator, depth):
    ours, theirs = Propagated(depth), Propagated(depth)
    if depth is None and estimator is PIPELINE:
        # the scaler hears of its own fit
        estimator = make_pipeline(FunctionTransformer(), NET)
        with pytest.warns(UserWarning, match="does not support callbacks"):
            search(model_selection, estimator, theirs)
        with pytest.warns(UserWarning, match="does not support callbacks"):
            search(sktune, estimator, ours)
    else:
        search(model_selection, estimator, theirs)
        search(sktune, estimator, ours)

    # the tasks of a search come in another order, those of a fit in the same one
    assert group_by_task(ours.calls) == group_by_task(theirs.calls)


@pytest.mark.parametrize("estimator", [NET, PIPELINE], ids=["net", "pipeline"])
def test_callbacks_of_a_search_that_are_not_handed_on(estimator):
    ours, theirs = Noting(), Noting()
    found = search(sktune, estimator, ours)
    search(model_selection, estimator, theirs)

    assert not found.fusion_.alone
    assert group_by_task(ours.calls) == group_by_task(theirs.calls)


@pytest.mark.parametrize("estimator", [NET, PIPELINE], ids=["net", "pipeline"])
def test_own_callbacks_of_a_net_in_a_search(estimator):
    calls = []
    for module in (sktune, model_selection):
        noting = Noting()
        own = clone(estimator)
        (own if own.__class__ is NET.__class__ else own[-1]).set_callbacks(noting)
        found = search(module, own)
        calls.append(group_by_task(noting.calls))
        if module is sktune:
            assert not found.fusion_.alone

    assert calls[0] == calls[1]


@pytest.mark.parametrize("estimator", [NET, PIPELINE], ids=["net", "pipeline"])
def test_own_callbacks_of_a_net_in_cross_validation(estimator):
    calls = []
    for is_fused in (True, False):
        noting = Noting()
        own = clone(estimator)
        (own if own.__class__ is NET.__class__ else own[-1]).set_callbacks(noting)
        report = FusionReport()
        if is_fused:
            with joblib.parallel_config("sktune", report=report):
                cross_validate(own, X, y, cv=3)
            assert not report.alone
        else:
            cross_validate(own, X, y, cv=3)
        calls.append(sorted(map(str, noting.calls)))

    assert calls[0] == calls[1]


def test_epochs_are_told_while_the_group_trains():
    """The epochs of all fits go hand in hand, and come before any score."""
    noting = Propagated()

    def score(net, X, y):
        noting.calls.append(("score", "", ((), ("score", 0, None))))
        return net.score(X, y)

    found = search(sktune, NET, noting, scoring=score)

    assert not found.fusion_.alone
    hooks = [hook for hook, _, path in noting.calls if path[-1][0] in ("epoch", "score")]
    assert hooks.index("score") == 4 * 2 * N_EPOCHS
    ends = [
        path[-1][1] for hook, _, path in noting.calls if hook == "end" and path[-1][0] == "epoch"
    ]
    assert ends == [epoch for epoch in range(N_EPOCHS) for _ in range(4)]


@pytest.mark.parametrize("estimator", [NET, PIPELINE], ids=["net", "pipeline"])
@pytest.mark.parametrize(
    "make", [Noting, lambda: Propagated(1), AskingForRows], ids=["noting", "propagated", "rows"]
)
def test_results_are_those_without_callbacks(estimator, make):
    options = {"refit": True, "return_train_score": True}
    plain = search(sktune, estimator, **options)
    told = search(sktune, estimator, make(), **options)

    for name, values in plain.cv_results_.items():
        if "time" not in name:
            np.testing.assert_array_equal(told.cv_results_[name], values, err_msg=name)
    np.testing.assert_array_equal(
        told.best_estimator_.predict_proba(X), plain.best_estimator_.predict_proba(X)
    )
    assert not told.fusion_.alone
    assert str(told.fusion_.curves.columns) == str(plain.fusion_.curves.columns)


def test_tasks_have_their_rows_and_weights():
    rows = []
    weight = np.ones(len(y))
    for module in (sktune, model_selection):
        asking = AskingForRows()
        found = module.GridSearchCV(clone(NET).set_callbacks(asking), GRID, cv=2, refit=False)
        found.fit(X, y, sample_weight=weight)
        rows.append(sorted(asking.rows))
        if module is sktune:
            assert not found.fusion_.alone

    assert rows[0] == rows[1]
    assert ("epoch", 55, 55, 55) in rows[0]


def test_fitted_estimators_are_given_by_fits_that_are_trained_alone():
    asking = Asking()
    found = search(sktune, clone(NET).set_callbacks(asking))

    assert len(asking.fitted) == 4 * N_EPOCHS
    assert reasons(found) == {"its callback Asking asks for a fitted estimator at each epoch"}


def test_scoring_monitor_in_a_search():
    from sklearn.callback import ScoringMonitor

    logs = []
    for module in (sktune, model_selection):
        monitor = ScoringMonitor(scoring="accuracy")
        search(module, clone(NET).set_callbacks(monitor))
        rows = monitor.get_logs().data
        logs.append([(row["task_id_path"], row["task_name"], row["accuracy"]) for row in rows])

    assert logs[0] == logs[1]
    assert len([name for _, name, _ in logs[0] if name == "epoch"]) == 4 * N_EPOCHS


def test_callbacks_of_pipelines_that_are_not_told_together():
    X_asking = AskingForRows()
    cases = {
        "its Pipeline has callbacks of its own": clone(PIPELINE).set_callbacks(Noting()),
        "its callback AskingForRows asks for the rows within a Pipeline": make_pipeline(
            StandardScaler(), clone(NET).set_callbacks(X_asking)
        ),
        "its Pipeline's step 'standardscaler' has callbacks": make_pipeline(
            StandardScaler().set_callbacks(Noting()), clone(NET)
        ),
    }
    for reason, pipeline in cases.items():
        assert reasons(search(sktune, pipeline)) == {reason}
    assert {row[0] for row in X_asking.rows} == {"epoch", "fit"}

    noting = Propagated(None)
    found = search(sktune, PIPELINE, noting)
    assert reasons(found) == {"its Pipeline's step 'standardscaler' has callbacks"}


def test_steps_with_callbacks_hear_of_each_fit_once():
    calls = []
    for module in (sktune, model_selection):
        noting = Noting()
        search(module, make_pipeline(StandardScaler().set_callbacks(noting), clone(NET)))
        calls.append(sorted(map(str, noting.calls)))

    assert calls[0] == calls[1]


def test_scikit_learn_refuses_propagated_callbacks_within_a_search():
    net = clone(NET).set_callbacks(Propagated())
    for module in (sktune, model_selection):
        with pytest.raises(TypeError, match="can't have auto-propagated callbacks"):
            search(module, net, error_score="raise")


def test_callback_may_stop_a_fused_fit():
    noting = Noting(stop_after=2)
    found = search(sktune, clone(NET).set_callbacks(noting), refit=True)
    expected = search(sktune, clone(NET).set_params(max_epochs=2))

    assert not found.fusion_.alone
    np.testing.assert_array_equal(
        found.cv_results_["mean_test_score"], expected.cv_results_["mean_test_score"]
    )
    assert {stop["reason"] for stop in found.fusion_.stopped} == {
        "a callback of scikit-learn's has stopped it"
    }
    assert len(found.fusion_.curves) == 4 * 2


def test_callback_that_stops_fits_leaves_candidates_complete_in_rounds():
    pytest.importorskip("optuna", reason="a Bayesian search needs optuna")
    net = clone(NET).set_callbacks(Noting(stop_after=2))
    found = sktune.BayesSearchCV(net, {"lr": [1e-3, 1e-2, 1e-1]}, n_iter=3, cv=2, batch_size=2)
    found.fit(X, y)

    assert len(found.cv_results_["params"]) == 3


@pytest.mark.parametrize("n_jobs", [1, 3])
def test_groups_in_threads_tell_one_at_a_time(n_jobs):
    entered = []

    class OneAtATime(Propagated):
        def on_fit_task_end(self, estimator, context):
            entered.append(1)
            assert len(entered) == 1
            super().on_fit_task_end(estimator, context)
            entered.pop()

    noting = OneAtATime()
    with joblib.parallel_config("sktune", max_lanes=2, n_jobs=n_jobs):
        found = sktune.GridSearchCV(NET, {"lr": [1e-4, 1e-3, 1e-2, 1e-1]}, cv=2, refit=False)
        found.set_callbacks(noting).fit(X, y)

    assert len(found.fusion_.groups) >= 4
    assert not found.fusion_.alone
    assert noting.names("end").count("epoch") == 8 * N_EPOCHS


def test_error_of_a_callback_fails_the_fit_as_it_would_alone():
    class Failing(Noting):
        def on_fit_task_end(self, estimator, context):
            super().on_fit_task_end(estimator, context)
            if context.task_name == "epoch" and estimator.lr == 1e-2:
                raise RuntimeError("no more epochs")

    net = clone(NET)
    found = None
    failing = Failing()
    with pytest.warns(model_selection._validation.FitFailedWarning, match="no more epochs"):
        found = search(sktune, net.set_callbacks(failing), error_score=-1.0)

    assert found.cv_results_["mean_test_score"][1] == -1.0
    plain = search(sktune, clone(NET))
    assert found.cv_results_["mean_test_score"][0] == plain.cv_results_["mean_test_score"][0]
    assert failing.names("setup") == failing.names("teardown")


def test_interrupt_by_a_callback_ends_the_search():
    class Interrupting(Noting):
        def on_fit_task_end(self, estimator, context):
            if context.task_name == "epoch":
                raise KeyboardInterrupt("enough")

    interrupting = Interrupting()
    with pytest.raises(KeyboardInterrupt, match="enough"):
        search(sktune, clone(NET).set_callbacks(interrupting))

    assert interrupting.names("setup") == interrupting.names("teardown")


def test_diverging_fits_are_told_to_their_end():
    noting = Noting()
    net = clone(NET).set_callbacks(noting)
    found = sktune.GridSearchCV(net, {"lr": [1e-3, 1e30]}, cv=2, refit=False, error_score=0.0)
    with pytest.warns(model_selection._validation.FitFailedWarning, match="2 fits failed"):
        found.fit(X, y)

    assert noting.names("setup") == noting.names("teardown")
    assert noting.names("begin").count("epoch") == noting.names("end").count("epoch")


def test_other_estimators_and_fits_alone_are_told_by_scikit_learn():
    others = [
        (LogisticRegression(), {"C": [0.1, 1.0]}),
        (clone(NET).set_params(warm_start=True), GRID),
    ]
    for estimator, grid in others:
        calls = []
        for module in (sktune, model_selection):
            noting = Propagated()
            found = module.GridSearchCV(estimator, grid, cv=2, refit=False)
            found.set_callbacks(noting).fit(X, y)
            calls.append(group_by_task(noting.calls))
        assert calls[0] == calls[1]


@pytest.mark.parametrize("n_jobs", [1, 2])
def test_progress_bar_of_scikit_learn_in_a_search(n_jobs, capsys):
    pytest.importorskip("rich", reason="scikit-learn's ProgressBar needs rich")
    from sklearn.callback import ProgressBar

    found = search(sktune, NET, ProgressBar(), n_jobs=n_jobs)

    assert not found.fusion_.alone
    shown = capsys.readouterr().out
    assert "GridSearchCV - fit" in shown
    assert "candidate-split-evaluation | NeuralNetClassifier - fit" in shown
