"""The numbers of a search's one bar, and where it shows them."""

import io
import pickle
import subprocess
import sys
from threading import Thread

import numpy as np
import pytest

from sktune.runtime.progress import QuietProgress, SearchProgress, make_progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


class Written:
    """What has been written to stderr, from the beginning."""

    def __init__(self, capsys):
        self.capsys = capsys
        self.text = ""

    def getvalue(self):
        self.text += self.capsys.readouterr().err
        return self.text


@pytest.fixture
def written(capsys):
    return Written(capsys)


def last_line(stream):
    return stream.getvalue().replace("\r", "\n").strip().splitlines()[-1]


def test_total_grows_with_what_is_planned(written):
    progress = SearchProgress()
    for n_fits in (2, 3):
        progress.plan(n_fits, 10 * n_fits, "epoch")
        progress.change(n_done=10 * n_fits)
    progress.end()

    assert "50/50" in last_line(written)


def test_expected_fits_have_the_mean_of_the_epochs_so_far(written):
    progress = SearchProgress()
    progress.expect(10)
    progress.plan(4, 20, "epoch")
    progress.close()

    # 6 fits remain, of 5 epochs each
    assert "0/50" in last_line(written)


@pytest.mark.parametrize(("end", "expected"), [("end", "20/20"), ("close", "20/50")])
def test_only_a_search_that_has_ended_expects_no_more(end, expected, written):
    progress = SearchProgress()
    progress.expect(10)
    progress.plan(4, 20, "epoch")
    progress.change(n_done=20)
    getattr(progress, end)()

    assert expected in last_line(written)


def test_epochs_can_be_taken_back(written):
    progress = SearchProgress()
    progress.plan(2, 20, "epoch")
    progress.change(n_done=15, n_planned=-5)
    progress.change(n_done=-15, n_planned=5)
    progress.change(n_done=20)
    progress.end()

    assert "20/20" in last_line(written)


def test_threads_count_together(written):
    progress = SearchProgress()
    progress.plan(8, 8 * 200, "epoch")
    threads = [
        Thread(target=lambda: [progress.change(n_done=1) for _ in range(200)]) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    progress.end()

    assert "1600/1600" in last_line(written)


def test_shows_fits_in_training_and_the_loss_until_there_is_a_score(written):
    progress = SearchProgress()
    progress.plan(2, 20, "epoch")
    progress.change(n_done=2, n_alive=2, loss=0.5)
    progress.change(n_done=2, n_alive=-1, loss=np.nan)
    progress._bar.refresh()
    assert "fits=1, best_loss=0.5" in last_line(written)

    for score in (0.75, np.nan, 0.5):
        progress.note_score(score)
    progress.close()
    assert "best_score=0.75" in last_line(written)
    assert "best_loss" not in last_line(written)


@pytest.mark.parametrize(("metric", "shown"), [("b", "best_score=2"), (None, "fits=0")])
def test_of_several_scores_the_named_one_is_shown(metric, shown, written):
    progress = make_progress(True, metric)
    progress.plan(1, 1, "epoch")
    progress.note_score({"a": 1.0, "b": 2.0})
    progress.close()

    assert shown in last_line(written)
    assert ("best_score" in last_line(written)) == (metric == "b")


def test_closed_bar_stays_closed(written):
    progress = SearchProgress()
    progress.plan(1, 1, "epoch")
    progress.close()
    before = written.getvalue()
    progress.plan(1, 1, "epoch")
    progress.change(n_done=1)
    progress.close()

    assert written.getvalue() == before


def test_bar_without_fits_is_not_shown(written):
    progress = SearchProgress()
    progress.expect(3)
    progress.name_round("round 1")
    progress.end()

    assert written.getvalue() == ""


def count_states(stream, monkeypatch):
    """Return how many states a bar has written to a stream, of 200 epochs within 0.6 s."""
    monkeypatch.setattr(sys, "stderr", stream)
    now = [0.0]
    monkeypatch.setattr("tqdm.std.time", lambda: now[0])
    progress = SearchProgress()
    progress.plan(1, 200, "epoch")
    for _ in range(200):
        now[0] += 0.3
        progress.change(n_done=1)
    progress.end()
    return stream.getvalue().count("\r")


def test_file_gets_fewer_states_than_a_terminal(monkeypatch):
    # 60 seconds: one state in 10 seconds, beside the first and the last one
    assert count_states(io.StringIO(), monkeypatch) <= 9
    assert count_states(Terminal(), monkeypatch) > 50


def test_quiet_progress_writes_nothing_and_does_not_import_tqdm():
    code = (
        "import sys, threading\n"
        "from sktune.runtime.progress import make_progress\n"
        "progress = make_progress(False)\n"
        "progress.expect(2); progress.plan(1, 5, 'epoch'); progress.change(n_done=5)\n"
        "progress.name_round('round 1'); progress.note_score(1.0); progress.end()\n"
        "assert 'tqdm.auto' not in sys.modules\n"
        "assert threading.active_count() == 1\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)

    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_other_processes_get_a_quiet_one(written):
    progress = SearchProgress()
    progress.plan(1, 1, "epoch")
    copied = pickle.loads(pickle.dumps(progress))
    progress.close()

    assert type(copied) is QuietProgress
