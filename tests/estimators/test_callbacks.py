"""scikit-learn's callbacks hear of the fits of our nets, with epochs as their subtasks."""

import pickle

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.datasets import make_classification, make_regression
from skorch.callbacks import Callback
from told_callbacks import Asking, AskingForRows, Noting, needs_callbacks

from sktune import DivergenceError, NeuralNetClassifier, NeuralNetRegressor

pytestmark = needs_callbacks

# Of fewer than 100 rows a net computes in float64 within its fit.
TABLES = {
    "few": make_classification(60, 5, random_state=0),
    "many": make_classification(140, 5, random_state=0),
}
N_EPOCHS = 3


def make_net(cls=NeuralNetClassifier, **params):
    options = {"module__hidden": 4, "max_epochs": N_EPOCHS, "random_state": 0, **params}
    return cls(device="cpu", **options)


def weights(net):
    return {name: value.numpy() for name, value in net.module_.state_dict().items()}


def assert_same_weights(net, other):
    for (name, value), expected in zip(weights(net).items(), weights(other).values(), strict=True):
        np.testing.assert_array_equal(value, expected, err_msg=name)


@pytest.mark.parametrize("cls", [NeuralNetClassifier, NeuralNetRegressor])
def test_epochs_are_subtasks_of_the_fit(cls):
    X, y = TABLES["few"]
    noting = Noting()
    net = make_net(cls).set_callbacks(noting).fit(X, y.astype(np.float32))

    fit = ("fit", 0, None)
    epochs = [(fit, ("epoch", number, None)) for number in range(N_EPOCHS)]
    expected = [("setup", (fit,)), ("begin", (fit,))]
    for epoch in epochs:
        expected += [("begin", epoch), ("end", epoch)]
    expected += [("end", (fit,)), ("teardown", (fit,))]
    name = type(net).__name__
    assert noting.calls == [(hook, name, path) for hook, path in expected]


@pytest.mark.parametrize("rows", TABLES)
@pytest.mark.parametrize("params", [{}, {"module__dropout": 0.5}, {"early_stopping": True}])
def test_weights_and_history_are_those_without_callbacks(rows, params):
    X, y = TABLES[rows]
    torch.manual_seed(0)
    plain = make_net(**params).fit(X, y)
    drawn = torch.rand(1)
    torch.manual_seed(0)
    told = make_net(**params).set_callbacks(Noting(), Asking()).fit(X, y)

    assert_same_weights(told, plain)
    assert told.history[:, "train_loss"] == plain.history[:, "train_loss"]
    np.testing.assert_array_equal(told.predict_proba(X), plain.predict_proba(X))
    assert torch.equal(torch.rand(1), drawn)


@pytest.mark.parametrize("rows", TABLES)
def test_fitted_estimator_is_that_of_so_many_epochs(rows):
    X, y = TABLES[rows]
    asking = Asking()
    make_net(module__dropout=0.3).set_callbacks(asking).fit(X, y)

    assert len(asking.fitted) == N_EPOCHS
    for n_epochs, fitted in enumerate(asking.fitted, start=1):
        plain = make_net(module__dropout=0.3, max_epochs=n_epochs).fit(X, y)
        assert_same_weights(fitted, plain)
        assert {value.dtype for value in weights(fitted).values()} == {np.dtype(np.float32)}
        np.testing.assert_array_equal(fitted.predict_proba(X), plain.predict_proba(X))
        assert len(fitted.history) == n_epochs
        np.testing.assert_array_equal(
            pickle.loads(pickle.dumps(fitted)).predict(X), plain.predict(X)
        )


def test_fitted_estimator_can_be_fitted_again():
    X, y = TABLES["few"]
    asking = Asking()
    net = make_net().set_callbacks(asking).fit(X, y)
    again = clone(asking.fitted[0]).set_callbacks().fit(X, y)

    assert_same_weights(again, net)


def test_tasks_have_the_rows_and_the_weights():
    X, y = TABLES["few"]
    asking = AskingForRows()
    make_net().set_callbacks(asking).fit(X, y, sample_weight=np.ones(len(y)))

    assert asking.rows == [(name, 60, 60, 60) for name in [*N_EPOCHS * ["epoch"], "fit"]]


def test_callback_may_stop_the_fit():
    X, y = TABLES["few"]
    noting = Noting(stop_after=2)
    net = make_net(max_epochs=9).set_callbacks(noting).fit(X, y)

    assert len(net.history) == 2
    assert noting.names("end") == ["epoch", "epoch", "fit"]
    assert_same_weights(net, make_net(max_epochs=2).fit(X, y))


def test_early_stopping_ends_the_epochs():
    X, y = TABLES["few"]
    noting = Noting()
    net = make_net(max_epochs=50, early_stopping="train_loss", n_iter_no_change=1, lr=0.5)
    net.set_callbacks(noting).fit(X, y)

    assert len(net.history) < 50
    assert noting.names("end") == [*len(net.history) * ["epoch"], "fit"]


def test_partial_fit_is_a_fit_of_its_own():
    X, y = TABLES["few"]
    noting = Noting()
    net = make_net(max_epochs=2).set_callbacks(noting)
    net.partial_fit(X, y).partial_fit(X, y)

    assert noting.names("end") == 2 * ["epoch", "epoch", "fit"]
    assert_same_weights(net, make_net(max_epochs=2).partial_fit(X, y).partial_fit(X, y))


@pytest.mark.parametrize(
    ("params", "error", "match"),
    [({"lr": 1e30}, DivergenceError, "loss"), ({"lr": -1.0}, ValueError, "lr must be")],
)
def test_callbacks_are_torn_down_where_the_fit_fails(params, error, match):
    X, y = TABLES["many"]
    noting = Noting()
    net = make_net(**params).set_callbacks(noting)
    before = set(vars(net))
    with pytest.raises(error, match=match):
        net.fit(X, y)

    assert noting.names("setup") == noting.names("teardown")
    assert set(vars(net)) == before


def test_error_of_a_callback_is_raised():
    class Failing(Noting):
        def on_fit_task_end(self, estimator, context):
            raise RuntimeError("no more epochs")

    X, y = TABLES["few"]
    failing = Failing()
    with pytest.raises(RuntimeError, match="no more epochs"):
        make_net().set_callbacks(failing).fit(X, y)

    assert failing.names("setup", "teardown") == ["fit", "fit"]


def test_callback_of_skorch_may_interrupt_an_epoch():
    class Interrupting(Callback):
        def on_batch_end(self, net, **kwargs):
            if len(net.history) == 2:
                raise KeyboardInterrupt

    X, y = TABLES["few"]
    noting = Noting()
    make_net(callbacks=[Interrupting()]).set_callbacks(noting).fit(X, y)

    assert noting.names("begin") == ["fit", "epoch", "epoch"]
    assert noting.names("end") == ["epoch", "epoch", "fit"]


def test_callback_of_skorch_may_change_the_number_of_epochs():
    class Longer(Callback):
        def on_train_begin(self, net, **kwargs):
            net.set_params(max_epochs=5)

    X, y = TABLES["few"]
    noting = Noting()
    make_net(callbacks=[Longer()]).set_callbacks(noting).fit(X, y)

    assert noting.names("end") == [*5 * ["epoch"], "fit"]


def test_clone_keeps_callbacks_as_scikit_learns_does_and_fit_leaves_nothing():
    from sklearn.linear_model import LogisticRegression

    X, y = TABLES["few"]
    noting = Noting()
    found = []
    for estimator in (make_net(), LogisticRegression()):
        copied = clone(estimator.set_callbacks(noting))
        found.append(copied._skl_callbacks is estimator._skl_callbacks)
        copied.set_callbacks()
        found.append(hasattr(copied, "_skl_callbacks"))
    assert found == [True, False, True, False]

    net = make_net()
    names = set(vars(make_net().fit(X, y)))
    net.set_callbacks(noting).fit(X, y)
    assert set(vars(net)) - names == {"_skl_callbacks"}
    assert "_skl_callbacks" not in net.get_params()


def test_fitted_net_with_callbacks_can_be_pickled():
    X, y = TABLES["few"]
    net = make_net().set_callbacks(Noting()).fit(X, y)
    copied = pickle.loads(pickle.dumps(net))

    np.testing.assert_array_equal(copied.predict(X), net.predict(X))
    assert len(copied._skl_callbacks) == 1


def test_scoring_monitor_scores_each_epoch():
    from sklearn.callback import ScoringMonitor

    X, y = TABLES["few"]
    monitor = ScoringMonitor(scoring=["accuracy", "neg_log_loss"])
    net = make_net().set_callbacks(monitor).fit(X, y)

    log = [row for row in monitor.get_logs().data if row["task_name"] == "epoch"]
    assert [row["task_id"] for row in log] == [0, 1, 2]
    for n_epochs, row in enumerate(log, start=1):
        assert row["accuracy"] == make_net(max_epochs=n_epochs).fit(X, y).score(X, y)
    assert log[-1]["accuracy"] == net.score(X, y)


def test_scoring_monitor_scores_a_regressor_with_weights():
    from sklearn.callback import ScoringMonitor

    X, y = make_regression(60, 4, random_state=0)
    weight = np.linspace(0.1, 1, 60)
    monitor = ScoringMonitor(scoring="r2")
    net = make_net(NeuralNetRegressor).set_callbacks(monitor).fit(X, y, sample_weight=weight)

    last = [row for row in monitor.get_logs().data if row["task_name"] == "epoch"][-1]
    assert last["r2"] == pytest.approx(net.score(X, y, sample_weight=weight))


def test_progress_bar_shows_the_epochs(capsys):
    pytest.importorskip("rich", reason="scikit-learn's ProgressBar needs rich")
    from sklearn.callback import ProgressBar

    X, y = TABLES["few"]
    make_net().set_callbacks(ProgressBar()).fit(X, y)

    shown = capsys.readouterr().out
    assert "NeuralNetClassifier - fit" in shown
    assert "100%" in shown


def test_what_is_no_callback_is_refused():
    with pytest.raises(TypeError, match="FitCallback protocol"):
        make_net().set_callbacks("progress")
