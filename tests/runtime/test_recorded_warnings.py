"""Warnings of one thread are recorded while other threads warn as well."""

import threading
import warnings

import numpy as np
import pytest
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.pipeline import make_pipeline

from sktune import GridSearchCV, NeuralNetClassifier
from sktune.runtime.recorded_warnings import recorded_warnings, repeat_warnings, restore_showwarning


def warn(text):
    warnings.warn(text, UserWarning, stacklevel=1)


def in_thread(*calls):
    thread = threading.Thread(target=lambda: [call() for call in calls])
    thread.start()
    thread.join()


@pytest.fixture
def seen():
    """Yield a list of the warnings that reach the user."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield caught


def texts(caught):
    return [str(warning.message) for warning in caught]


def test_what_a_thread_warns_of_is_recorded_and_can_be_repeated(seen):
    shown = warnings.showwarning
    with recorded_warnings() as caught:
        warn("once")
        with recorded_warnings() as inner:
            warn("within")
        warn("more")
    assert not seen
    assert [str(message) for message, *_ in caught] == ["once", "more"]
    assert [str(message) for message, *_ in inner] == ["within"]
    repeat_warnings(caught[:1])

    assert texts(seen) == ["once"]
    assert warnings.showwarning is shown


def test_other_threads_show_theirs(seen):
    with recorded_warnings() as caught:
        warn("own")
        in_thread(lambda: warn("another's"))

    assert texts(seen) == ["another's"]
    assert len(caught) == 1


def test_threads_that_take_turns_keep_theirs_apart(seen):
    other, found = recorded_warnings(), []
    started, over = threading.Event(), threading.Event()

    def run():
        with other as caught:
            warn("another's")
            started.set()
            over.wait(20)
            warn("another's last")
            found.extend(str(message) for message, *_ in caught)

    shown, thread = warnings.showwarning, threading.Thread(target=run)
    with recorded_warnings() as caught:
        warn("own")
        thread.start()
        started.wait(20)
    over.set()
    thread.join()

    assert [str(message) for message, *_ in caught] == ["own"]
    assert found == ["another's", "another's last"]
    assert not seen
    assert warnings.showwarning is shown


def test_what_is_put_back_late_swallows_nothing(seen):
    with recorded_warnings() as caught:
        late = warnings.catch_warnings()
        late.__enter__()
    late.__exit__(None, None, None)
    warn("after")
    with recorded_warnings():
        warn("recorded")

    assert texts(seen) == ["after"]
    assert not caught


@pytest.fixture
def own_showwarning():
    """Install a user-defined ``showwarning`` that records its calls."""
    calls, before = [], warnings.showwarning

    def show(message, category, filename, lineno, file=None, line=None):
        calls.append(str(message))

    show.calls = calls
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = show
        yield show
    assert warnings.showwarning is before


def test_a_showwarning_of_the_users_is_called_and_put_back(own_showwarning):
    with recorded_warnings() as caught:
        warn("own")
        in_thread(lambda: warn("another's"))
    repeat_warnings(caught)
    warn("after")

    assert own_showwarning.calls == ["another's", "own", "after"]
    assert warnings.showwarning is own_showwarning


def test_recordings_around_and_within_catch_warnings_put_back_what_they_found(own_showwarning):
    with recorded_warnings() as outer:
        with warnings.catch_warnings(record=True) as log:
            warnings.simplefilter("always")
            with recorded_warnings() as inner:
                warn("inner")
            warn("logged")
        warn("outer")

    assert [str(message) for message, *_ in inner] == ["inner"]
    assert texts(log) == ["logged"]
    assert [str(message) for message, *_ in outer] == ["outer"]
    assert warnings.showwarning is own_showwarning


def test_one_that_is_set_during_a_recording_stays(own_showwarning):
    def other(*args):
        own_showwarning.calls.append("other")

    with recorded_warnings():
        warnings.showwarning = other
    warn("after")

    assert own_showwarning.calls == ["other"]
    assert warnings.showwarning is other


@pytest.mark.parametrize("how", ["a warning", "a recording", "a search"])
def test_what_is_put_back_late_steps_down(own_showwarning, how):
    with recorded_warnings():
        late = warnings.catch_warnings()
        late.__enter__()
    late.__exit__(None, None, None)
    assert warnings.showwarning is not own_showwarning
    if how == "a warning":
        warn("seen")
    elif how == "a recording":
        with recorded_warnings():
            pass
    else:
        restore_showwarning()

    assert warnings.showwarning is own_showwarning


def test_a_failure_puts_it_back(own_showwarning):
    with pytest.raises(LookupError, match="a fault"), recorded_warnings():
        raise LookupError("a fault")

    assert warnings.showwarning is own_showwarning


class Catching(TransformerMixin, BaseEstimator):
    """Catches warnings in its fit, in this thread and in another one, and may fail."""

    def __init__(self, fails=False):
        self.fails = fails

    def fit(self, X, y=None):
        def catch():
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                warn("ignored")

        catch()
        in_thread(catch)
        warn("of a step")
        if self.fails:
            raise ValueError("no step")
        return self

    def transform(self, X):
        return X


@pytest.mark.parametrize("fails", [False, True])
def test_a_search_puts_it_back(own_showwarning, fails):
    model = make_pipeline(
        Catching(fails), NeuralNetClassifier(max_epochs=1, module__hidden=(2,), device="cpu")
    )
    X = np.random.default_rng(0).normal(size=(20, 2)).astype(np.float32)
    search = GridSearchCV(
        model, {"neuralnetclassifier__lr": [0.1]}, cv=2, refit=False, error_score="raise"
    )
    if fails:
        with pytest.raises(ValueError, match="no step"):
            search.fit(X, np.arange(20) % 2)
    else:
        search.fit(X, np.arange(20) % 2)
        assert own_showwarning.calls == ["of a step"] * 2

    assert warnings.showwarning is own_showwarning
