"""Warnings that are recorded for one thread, in the company of others."""

import threading
import warnings

import pytest

from sktune.fused.caught import recorded_warnings, repeat_warnings


def warn(text):
    warnings.warn(text, UserWarning, stacklevel=1)


def in_thread(*calls):
    thread = threading.Thread(target=lambda: [call() for call in calls])
    thread.start()
    thread.join()


@pytest.fixture
def seen():
    """What reaches the user."""
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
