"""Names of scikit-learn's callbacks that are built upon: each test says what has moved."""

import inspect

import pytest
import sklearn
from packaging.version import parse as parse_version
from sklearn.base import clone
from told_callbacks import Asking, AskingForRows, Noting, Propagated, needs_callbacks

from sktune import NeuralNetClassifier
from sktune.estimators.callbacks import seam

has_them = parse_version(sklearn.__version__) >= parse_version("1.9.dev0")


def test_callbacks_are_found_where_scikit_learn_has_them():
    assert has_them == seam.HAS_CALLBACKS, "sklearn.callback has moved"


def test_without_callbacks_nets_are_as_ever():
    net = NeuralNetClassifier()

    assert hasattr(net, "set_callbacks") == seam.HAS_CALLBACKS
    assert seam.list_callbacks(net) == []
    assert seam.list_propagated(None) == []
    with seam.managed_callbacks(net), seam.propagating(None, net), seam.without_callbacks(net):
        assert not any("callback" in name for name in vars(net) if name != "callbacks")


@needs_callbacks
def test_estimators_keep_callbacks_under_the_name_that_is_read():
    net = NeuralNetClassifier().set_callbacks(Noting())

    assert "_skl_callbacks" in vars(net), "callbacks are kept under another name"
    assert seam.list_callbacks(clone(net)) == seam.list_callbacks(net)
    with seam.without_callbacks(net):
        assert seam.list_callbacks(net) == []
    assert len(seam.list_callbacks(net)) == 1
    seam.forget_callbacks(net)
    assert seam.list_callbacks(net) == []


@needs_callbacks
def test_context_has_what_is_called():
    net = NeuralNetClassifier().set_callbacks(Noting())
    context = seam.begin_context(net, 2)

    assert seam.list_handed_on(context) == seam.list_callbacks(net), "_callbacks has moved"
    for name in ("call_on_fit_task_begin", "call_on_fit_task_end"):
        parameters = inspect.signature(getattr(context, name)).parameters
        missing = {"estimator", "X", "y", "metadata", "reconstruction_attributes"} - {*parameters}
        assert not missing, f"{name} no longer takes {missing}"
    epoch = context.subcontext(task_name="epoch")
    assert (epoch.task_id, epoch.parent) == (0, context)


@needs_callbacks
@pytest.mark.parametrize("depth", [None, 0, 1, 2])
def test_propagation_is_that_of_scikit_learn(depth):
    callback = Propagated(depth)
    outer = NeuralNetClassifier().set_callbacks(callback, Noting())
    inner = NeuralNetClassifier()
    context = seam.begin_context(outer, 1).subcontext(task_name="inner")
    with seam.propagating(context, inner):
        found = seam.list_callbacks(inner)
        assert found == seam.list_propagated(context)
        nested = seam.begin_context(inner, 1).subcontext(task_name="nested")
        assert seam.list_propagated(nested) == seam.list_propagated(context, 1)
    assert found == ([] if depth == 0 else [callback])
    assert [seam.is_propagated(callback) for callback in (callback, Noting())] == [True, False]


@needs_callbacks
def test_hooks_say_what_they_ask_for():
    assert seam.asks_for(Noting()) == set()
    assert seam.asks_for(AskingForRows()) == {"X", "y", "metadata"}
    assert seam.asks_for(Asking()) == {"X", "y", "metadata", "fitted_estimator"}


@needs_callbacks
def test_callbacks_of_scikit_learn_ask_for_what_is_known():
    from sklearn.callback import ProgressBar, ScoringMonitor

    assert seam.asks_for(ScoringMonitor) >= {"fitted_estimator"}
    assert seam.asks_for(ProgressBar) == set()


@needs_callbacks
def test_tasks_are_given_their_context():
    from sklearn.model_selection import _validation

    parameters = inspect.signature(_validation._fit_and_score).parameters
    assert {"callback_ctx", "caller"} <= {*parameters}, "_fit_and_score takes no callback_ctx"
