"""What a search in rounds keeps of its candidates while it is fitted."""

from dataclasses import dataclass, field

import numpy as np

from sktune.bridge.seam import is_lost, is_skipped
from sktune.engine.report import FusionReport
from sktune.search.rounds.stopping import Deadline


@dataclass
class Outcome:
    """What came of a candidate.

    Parameters
    ----------
    params : dict
    rows : list of dict
        What scikit-learn's tasks returned, one for each split: ``test_scores``, ``fit_time`` and
        others.
    is_complete : bool
        Whether all fits have been trained to their end, but for those that a race has spared.
    columns : dict
        What further columns of ``cv_results_`` say of the candidate.
    """

    params: dict
    rows: list
    is_complete: bool = True
    columns: dict = field(default_factory=dict)

    @property
    def has_failed(self):
        """Whether a fit has failed."""
        return any(row.get("fit_error") is not None for row in self.rows)

    @property
    def is_lost(self):
        """Whether the candidate has left a race, and was not fitted on all splits."""
        return any(map(is_lost, self.rows))

    def scores(self, metric):
        """Return the scores on the test rows of each split; NaN where it was not fitted."""
        found = [row["test_scores"] for row in self.rows]
        if isinstance(found[0], dict):
            found = [scores[metric] for scores in found]
        return np.array(found, dtype=float)

    def score(self, metric):
        """Return the mean score over the splits that were run; NaN if the candidate has failed."""
        if self.has_failed:
            return float("nan")
        are_run = [not is_lost(row) for row in self.rows]
        return float(self.scores(metric)[are_run].mean())


class Session:
    """What one ``fit`` of a search in rounds keeps until it is over.

    Parameters
    ----------
    timeout : float or None
    """

    def __init__(self, timeout=None):
        self.report = FusionReport()
        self.deadline = Deadline(timeout)
        # how many splits the results are of
        self.n_splits = None
        # the seconds that a candidate of the last round has taken
        self.seconds_each = 0.0
        # ``cv_results_`` so far; None where they have to be made anew
        self.results = None
        # outcomes of an earlier search that this one goes on with
        self.restored = []
        # what has been evaluated by this one
        self.outcomes = []
        # those of rounds in which every fit has failed, by their numbers
        self.failed = {}
        # candidates that are evaluated only because scikit-learn asks for an evaluation
        self.is_repetition = False
        # what a study has to be of to be gone on with
        self.digests = {}

    def __reduce__(self):
        # tasks in other processes get the search, and need nothing of this
        return Session, ()

    @property
    def kept(self):
        """The outcomes that belong into ``cv_results_``."""
        own = [] if self.is_repetition else self.outcomes
        return [*self.restored, *(outcome for outcome in own if outcome.is_complete)]

    def take(self, candidates, n_splits, out, columns=None):
        """Take what the tasks of all rounds have returned, and further columns of the results."""
        columns = columns or {}
        # what a callback of the user's has stopped is complete
        stopped = {
            stop["candidate"]
            for stop in self.report.stopped
            if stop["reason"] == self.deadline.reason
        }
        stopped.update(self.report.left_out)
        outcomes = []
        for number, params in enumerate(candidates):
            while len(outcomes) in self.failed:
                outcomes.append(self.failed[len(outcomes)])
            rows = out[number * n_splits : (number + 1) * n_splits]
            is_complete = len(outcomes) not in stopped and not any(map(is_skipped, rows))
            own_columns = _take_row(columns, number)
            outcomes.append(Outcome(params, rows, is_complete, own_columns))
        self.outcomes = outcomes
        self.n_splits = n_splits

    def take_interrupted(self, candidates, columns):
        """Take the candidates of a round that was interrupted before any of them was complete."""
        rows = self.kept[0].rows
        for number, params in enumerate(candidates):
            own_columns = _take_row(columns, number)
            self.outcomes.append(Outcome(params, rows, is_complete=False, columns=own_columns))

    def take_failed(self, candidates, error, error_score, columns):
        """Take the candidates of a round in which every fit has failed, with the error of these."""
        rows = (self.kept or self.outcomes)[0].rows
        for number, params in enumerate(candidates):
            failed = [_make_failed_row(row, error, error_score) for row in rows]
            outcome = Outcome(params, failed, columns=_take_row(columns, number))
            self.failed[len(self.outcomes)] = outcome
            self.outcomes.append(outcome)
        self.results = None


def _take_row(columns, number):
    return {name: values[number] for name, values in columns.items()}


def _make_failed_row(row, error, error_score):
    """Return what a task would have returned that has failed; `row` is that of another one."""
    failed = dict(row)
    for name in ("fit_time", "score_time"):
        failed[name] = float("nan")
    for name in ("test_scores", "train_scores"):
        if isinstance(row.get(name), dict):
            failed[name] = dict.fromkeys(row[name], error_score)
        elif name in row:
            failed[name] = error_score
    failed["fit_error"] = str(error)
    return failed
