"""The run of a search in rungs: all brackets advance together."""

import numpy as np

from sktune.search.halving.resources import ROWS
from sktune.search.halving.splits import SampledSplits


class Bracket:
    """Candidates of which fewer and fewer go on.

    Parameters
    ----------
    rungs : list of Rung
    candidates : list of dict
        Those of the first rung.
    """

    def __init__(self, rungs, candidates):
        self.rungs = rungs
        self.candidates = candidates
        self.n_done = 0
        # the numbers of the evaluations of its last rung
        self.evaluations = range(0)

    @property
    def is_over(self):
        """Whether all rungs are evaluated."""
        return self.n_done == len(self.rungs) or not self.candidates

    @property
    def rung(self):
        """The rung that is next."""
        return self.rungs[self.n_done]

    @property
    def n_left(self):
        """How many evaluations are left."""
        return sum(rung.n_candidates for rung in self.rungs[self.n_done :])

    def take(self, outcomes, scores, factor):
        """Take what came of the candidates of a rung, of which the best go on.

        Of equal scores, that of the later candidate counts as the better one.
        Candidates that have failed come last.
        """
        n_kept = int(np.ceil(self.rung.n_candidates / factor))
        self.n_done += 1
        if not self.is_over:
            n_kept = self.rung.n_candidates
        order = np.argsort(np.where(np.isnan(scores), -np.inf, scores), kind="stable")
        self.candidates = [self.candidates[n] for n in order[-n_kept:]]


class BracketRun:
    """One fit of a search in rungs.

    Parameters
    ----------
    search : SearchInRungs
    rounds : Rounds
    brackets : list of Bracket
    resource : str
    n_rows : int
    seed : int
        From which rows are drawn, where these are the resource.
    """

    def __init__(self, search, rounds, brackets, resource, n_rows, seed):
        self.search = search
        self.rounds = rounds
        self.brackets = brackets
        self.resource = resource
        self.n_rows = n_rows
        self.seed = seed

    def run(self):
        """Evaluate all rungs; return why the search ends, in words."""
        while True:
            active = [bracket for bracket in self.brackets if not bracket.is_over]
            if not active:
                n_rungs = sum(len(bracket.rungs) for bracket in self.brackets)
                return f"all {n_rungs} rungs are evaluated"
            for together in self._divide(active):
                self.rounds.expect(sum(bracket.n_left for bracket in self.brackets))
                self._evaluate(together)
                reason = self._find_reason()
                if reason:
                    return reason

    def _find_reason(self):
        session = self.rounds.session
        n_complete = len(session.kept)
        if session.report.is_interrupted:
            return f"the search was interrupted, {n_complete} evaluations are complete"
        is_all = all(bracket.is_over for bracket in self.brackets)
        if session.deadline.is_over and not is_all:
            seconds = self.search.timeout
            return f"the timeout of {seconds} s is over, {n_complete} evaluations are complete"
        return ""

    def _divide(self, brackets):
        """Return lists of the brackets whose next rungs are evaluated by one call."""
        if self.resource != ROWS:
            return [brackets]
        # one call of scikit-learn's has one splitter
        by_rows = {}
        for bracket in brackets:
            by_rows.setdefault(bracket.rung.n_resources, []).append(bracket)
        return list(by_rows.values())

    def _evaluate(self, brackets):
        """Evaluate the next rung of brackets, whose networks are trained together."""
        candidates = []
        columns = {"bracket": [], "iter": [], "n_resources": []}
        for bracket in brackets:
            rung = bracket.rung
            for params in bracket.candidates:
                candidates.append(self._give(params, rung.n_resources))
                columns["bracket"].append(rung.bracket)
                columns["iter"].append(rung.iteration)
                columns["n_resources"].append(rung.n_resources)
        splits = None
        if self.resource == ROWS:
            fraction = brackets[0].rung.n_resources / self.n_rows
            splits = SampledSplits(self.rounds.splits, fraction, self.seed)
        n_before = len(self.rounds.session.outcomes)
        outcomes = self.rounds.evaluate(candidates, columns, splits)
        for bracket in brackets:
            n = len(bracket.candidates)
            mine, outcomes = outcomes[:n], outcomes[n:]
            self._free_models(bracket, n_before, mine)
            n_before += n
            bracket.take(mine, self._read_scores(mine), self.search.factor)

    def _free_models(self, bracket, first, outcomes):
        """Free what an ensemble could take of a bracket's earlier rung, once a later one is there.

        The evaluations of this rung have numbers from `first` on.
        """
        kept = self.search._kept
        if kept is None or not any(outcome.is_complete for outcome in outcomes):
            return
        kept.forget(bracket.evaluations, self.search.n_splits_)
        bracket.evaluations = range(first, first + len(outcomes))

    def _give(self, params, n_resources):
        return params if self.resource == ROWS else {**params, self.resource: n_resources}

    def _read_scores(self, outcomes):
        """Return the mean scores of outcomes; NaN for those that have failed or are incomplete."""
        metric = self.search._find_metric(outcomes[0])
        return np.array([o.score(metric) if o.is_complete else np.nan for o in outcomes])
