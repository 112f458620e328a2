"""The rounds of one search: batches of candidates, each evaluated by one call of scikit-learn's."""

import re
import warnings
from copy import copy
from time import monotonic

from sklearn.exceptions import FitFailedWarning

from sktune.search.base import warn_of_interrupt
from sktune.search.rounds.seam import fix_splits
from sktune.search.rounds.tasks import SearchTasks

# How scikit-learn's error begins where every fit of a call has failed.
_ALL_FAILED = re.compile(r"\s*All the \d+ fits failed")


class Rounds:
    """The rounds of one search, or of a stage of it.

    Parameters
    ----------
    search : SearchInRounds
    evaluate_candidates : callable
        scikit-learn's.
    callback_ctx : CallbackContext or None
        scikit-learn's, from 1.9.
    check_splits : callable or None
        See :func:`~sktune.search.rounds.seam.fix_splits`.
    """

    def __init__(self, search, evaluate_candidates, callback_ctx=None, check_splits=None):
        self.search = search
        self.session = search._session
        self.evaluate_candidates = evaluate_candidates
        self.splits = fix_splits(search, evaluate_candidates, check_splits)
        self.tasks = SearchTasks(search, callback_ctx)
        self.task = "round"
        # what the progress bar shows; empty is the number of the round
        self.title = ""
        # what further columns of the results say of all candidates
        self.columns = {}

    def of_stage(self, name, is_one_round):
        """Return the rounds of a stage of the search, which begins.

        A stage of one round is a task itself for scikit-learn's callbacks; a stage of several has a
        task for each of them.
        """
        stage = copy(self)
        stage.title = f"stage {name!r}"
        stage.columns = {"stage": name}
        if is_one_round:
            stage.task = f"stage-{name}"
        else:
            stage.tasks = self.tasks.begin(f"stage-{name}")
        return stage

    def run(self, source, batch_size, rule=None, n_later=0):
        """Evaluate batches of candidates until the search ends; return why it does, in words.

        Parameters
        ----------
        source : Source
            Where the candidates come from.
        batch_size : int
            The candidates of a round at most. Before a timeout there are fewer.
        rule : StoppingRule or None
        n_later : int, default=0
            The candidates of later stages.
        """
        reason = ""
        while not reason:
            self.expect(source.n_left + n_later)
            n_next = min(batch_size, source.n_left)
            points, candidates = source.choose(self._count_affordable(n_next))
            outcomes = self.evaluate(candidates)
            source.take(points, outcomes)
            reason = self.search._find_reason(
                self, rule, source.found, min(batch_size, source.n_left), source.known
            )
        return reason

    def _count_affordable(self, n):
        """Return how many of n candidates are expected to be complete before the timeout."""
        seconds = self.session.seconds_each
        if seconds == 0 or self.session.deadline.seconds is None:
            return n
        return int(min(max(self.session.deadline.n_left / seconds, 1), n))

    def evaluate(self, candidates, columns=None, splits=None):
        """Return the outcomes of candidates, whose networks are trained together.

        Parameters
        ----------
        candidates : list of dict
        columns : dict of list, or None
            What further columns of the results say of each candidate.
        splits : FixedSplits or None
            None is those of the search.
        """
        more = {name: [value] * len(candidates) for name, value in self.columns.items()}
        more |= columns or {}
        began = monotonic()
        self.search.n_rounds_ = getattr(self.search, "n_rounds_", 0) + 1
        self.search._progress.name_round(self.title or f"round {self.search.n_rounds_}")
        session = self.session
        n_before = len(session.outcomes)
        session.report.n_earlier = n_before
        try:
            self._call_scikit_learn(candidates, more, splits or self.splits)
        except ValueError as error:
            # a search that has found candidates does not end with a round of worse ones
            if not session.kept or not _ALL_FAILED.match(str(error)):
                raise
            warnings.warn(str(error), FitFailedWarning, stacklevel=2)
            session.take_failed(candidates, error, self.search.error_score, more)
        except KeyboardInterrupt:
            # what earlier rounds have found is not lost
            if not session.report.is_interrupted or not session.kept:
                raise
            warn_of_interrupt(len(candidates))
            session.take_interrupted(candidates, more)
        session.seconds_each = (monotonic() - began) / len(candidates)
        return session.outcomes[n_before:]

    def _call_scikit_learn(self, candidates, more, splits):
        with self.tasks.evaluating(self.task, candidates) as arguments:
            self.evaluate_candidates(candidates, cv=splits, more_results=more, **arguments)

    @property
    def results(self):
        """``cv_results_`` so far."""
        if self.session.results is None:
            self.search._make_results()
        return self.session.results

    def expect(self, n_candidates):
        """Tell the progress bar how many candidates this round and the later ones have at most."""
        self.search._progress.expect(n_candidates * self.search.n_splits_)

    def end(self):
        """Tell the progress bar and scikit-learn's callbacks that the last round is over."""
        self.search._progress.end()
        self.tasks.end()
