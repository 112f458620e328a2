"""Searches that evaluate their candidates in rounds, each one call of evaluate_candidates.

Of scikit-learn's searches some private names are built upon here and in ``seam.py``:
``_run_search``, which is called with ``evaluate_candidates``; ``_format_results``, which makes
``cv_results_`` of what the tasks returned; ``_checked_cv_orig``; and the text of an error.
``tests/search/test_rounds.py`` fails when one of them moves.
"""

import re
import warnings
from dataclasses import dataclass

import numpy as np
from sklearn.exceptions import FitFailedWarning

from sktune.engine.report import FusionReport
from sktune.search.base import _FusedSearch, make_rounds_store
from sktune.search.rounds.seam import FixedSplits
from sktune.search.rounds.stopping import Deadline, StoppingRule, check_stopping
from sktune.search.rounds.tasks import SearchTasks

# How scikit-learn's error begins where every fit of a call has failed.
_ALL_FAILED = re.compile(r"\s*All the \d+ fits failed")


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
        Whether all fits have been trained to their end.
    """

    params: dict
    rows: list
    is_complete: bool = True

    @property
    def has_failed(self):
        """Whether a fit has failed."""
        return any(row.get("fit_error") is not None for row in self.rows)

    def scores(self, metric):
        """Return the scores on the test rows of each split."""
        found = [row["test_scores"] for row in self.rows]
        if isinstance(found[0], dict):
            found = [scores[metric] for scores in found]
        return np.array(found, dtype=float)

    def score(self, metric):
        """Return the mean score; NaN if the candidate has failed."""
        return float("nan") if self.has_failed else float(self.scores(metric).mean())


class Session:
    """What one ``fit`` of a search in rounds keeps until it is over.

    Parameters
    ----------
    timeout : float or None
    """

    def __init__(self, timeout=None):
        self.report = FusionReport()
        self.deadline = Deadline(timeout)
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

    def take(self, candidates, n_splits, out):
        """Take what the tasks of all rounds have returned."""
        # what a callback of the user's has stopped is complete
        stopped = {
            stop["candidate"]
            for stop in self.report.stopped
            if stop["reason"] == self.deadline.reason
        }
        outcomes = []
        for number, params in enumerate(candidates):
            while len(outcomes) in self.failed:
                outcomes.append(self.failed[len(outcomes)])
            rows = out[number * n_splits : (number + 1) * n_splits]
            outcomes.append(Outcome(params, rows, len(outcomes) not in stopped))
        self.outcomes = outcomes

    def take_failed(self, candidates, error, error_score):
        """Take the candidates of a round in which every fit has failed, with the error of these."""
        rows = (self.kept or self.outcomes)[0].rows
        for params in candidates:
            failed = [_make_failed_row(row, error, error_score) for row in rows]
            outcome = Outcome(params, failed)
            self.failed[len(self.outcomes)] = outcome
            self.outcomes.append(outcome)


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


class Rounds:
    """The rounds of one search.

    Parameters
    ----------
    search : SearchInRounds
    evaluate_candidates : callable
        scikit-learn's.
    callback_ctx : CallbackContext or None
        scikit-learn's, from 1.9.
    check_splits : callable or None
        See :class:`FixedSplits`.
    """

    def __init__(self, search, evaluate_candidates, callback_ctx=None, check_splits=None):
        self.search = search
        self.session = search._session
        self.evaluate_candidates = evaluate_candidates
        self.splits = FixedSplits(search._checked_cv_orig, check_splits)
        self.tasks = SearchTasks(search, callback_ctx)

    def evaluate(self, candidates):
        """Return the outcomes of candidates, whose networks are trained together."""
        self.search.n_rounds_ = getattr(self.search, "n_rounds_", 0) + 1
        self.search._progress.name_round(f"round {self.search.n_rounds_}")
        session = self.session
        n_before = len(session.outcomes)
        session.report.n_earlier = n_before
        try:
            self._call_scikit_learn(candidates)
        except ValueError as error:
            # a search that has found candidates does not end with a round of worse ones
            if not session.kept or not _ALL_FAILED.match(str(error)):
                raise
            warnings.warn(str(error), FitFailedWarning, stacklevel=2)
            session.take_failed(candidates, error, self.search.error_score)
        return session.outcomes[n_before:]

    def _call_scikit_learn(self, candidates):
        with self.tasks.evaluating("round", candidates) as arguments:
            self.evaluate_candidates(candidates, cv=self.splits, **arguments)

    def expect(self, n_candidates):
        """Tell the progress bar how many candidates this round and the later ones have at most."""
        self.search._progress.expect(n_candidates * self.search.n_splits_)

    def end(self):
        """Tell the progress bar and scikit-learn's callbacks that the last round is over."""
        self.search._progress.end()
        self.tasks.end()


class SearchInRounds(_FusedSearch):
    """What searches in rounds have in common, beside a search of scikit-learn's as another base."""

    def fit(self, X, y=None, **params):
        """Run fit with the candidates of each round, as in scikit-learn."""
        check_stopping(self)
        self._check_fit(X, y, params)
        self._session = Session(self.timeout)
        vars(self).pop("n_rounds_", None)
        try:
            self._begin_fit(X, y, params)
            super().fit(X, y, **params)
            if len(self._session.kept) > len(self.cv_results_["params"]):
                # the last round has failed, and scikit-learn does not know of its candidates
                self.cv_results_ = self._make_results()
            return self
        finally:
            del self._session

    def _check_fit(self, X, y, params):
        """Raise an error about what can be known to be wrong before anything is trained."""

    def _begin_fit(self, X, y, params):
        """Note in the session what the rounds have to know of the data."""

    def _fusing_options(self):
        options = super()._fusing_options()
        options["report"] = self._session.report
        if self.timeout is not None:
            options["listeners"] = (self._session.deadline,)
        return options

    def _make_store(self):
        """Return a store, so that a round knows what those before it have trained."""
        return super()._make_store() or make_rounds_store()

    def _end_ensemble(self, kept, X, y, params):
        """Build the ensemble of the candidates that are complete."""
        outcomes = self._session.outcomes
        kept.drop(
            [n for n, outcome in enumerate(outcomes) if not outcome.is_complete], self.n_splits_
        )
        super()._end_ensemble(kept, X, y, params)

    def _format_results(self, candidate_params, n_splits, out, more_results=None):
        """Make ``cv_results_`` of the candidates that are complete, and of restored ones."""
        self._session.take(candidate_params, n_splits, out)
        return self._make_results(more_results)

    def _make_results(self, more_results=None):
        kept = self._session.kept
        if not kept:
            raise ValueError(
                "timeout must leave the time for one round of candidates, "
                f"got timeout={self.timeout}, after which none was complete"
            )
        candidates = [outcome.params for outcome in kept]
        rows = [row for outcome in kept for row in outcome.rows]
        return super()._format_results(candidates, self.n_splits_, rows, more_results)

    def _find_metric(self, outcome):
        """Return the name of the score that guides the search; a ValueError if there is none."""
        scores = outcome.rows[0]["test_scores"]
        if not isinstance(scores, dict):
            return "score"
        metric = getattr(self.refit, "metric", self.refit)
        if not isinstance(metric, str) or metric not in scores:
            raise ValueError(
                "refit must name the score that guides the search, one of "
                f"{sorted(scores)}, got refit={self.refit!r}"
            )
        return metric

    def _make_rule(self, space, is_adaptive, seed):
        """Return the rule by which the search stops; None if there is none."""
        if self.stop is None:
            return None
        if self.n_splits_ < 2:
            raise ValueError(
                "stop='auto' must have at least 2 splits to tell the error of a score by, "
                f"got {self.n_splits_}"
            )
        return StoppingRule(space, self.tol, self.patience, is_adaptive, seed)

    def _find_reason(self, rounds, rule, found, n_next):
        """Return why to stop after a round, or an empty text.

        `found` are pairs of a Point and an Outcome of the candidates so far.
        """
        if rounds.session.deadline.is_over:
            n_complete = sum(outcome.is_complete for _, outcome in found)
            return f"the timeout of {self.timeout} s is over, {n_complete} candidates are complete"
        if n_next < 1:
            return f"all {len(found)} candidates are evaluated"
        if rule is None:
            return ""
        scored = [
            (point, outcome)
            for point, outcome in found
            if point is not None and not outcome.has_failed and outcome.is_complete
        ]
        if not scored:
            return ""
        metric = self._find_metric(scored[0][1])
        scored = [(p, o.scores(metric)) for p, o in scored]
        scored = [(p, scores) for p, scores in scored if np.isfinite(scores).all()]
        points = [point for point, _ in scored]
        fold_scores = [scores for _, scores in scored]
        return rule.check(points, fold_scores, *rounds.splits.mean_sizes, n_next)
