"""Searches that evaluate their candidates in rounds, each one call of evaluate_candidates.

Of scikit-learn's searches some private names are built upon here, in ``evaluation.py`` and in
``seam.py``: ``_run_search``, which is called with ``evaluate_candidates``; ``_format_results``,
which makes ``cv_results_`` of what the tasks returned; and the text of an error.
``tests/search/test_rounds.py`` fails when one of them moves.
"""

from collections.abc import Mapping

import numpy as np

from sktune.search.base import _FusedSearch, make_rounds_store
from sktune.search.rounds.session import Session
from sktune.search.rounds.stopping import StoppingRule, check_stopping


class SearchInRounds(_FusedSearch):
    """What searches in rounds have in common, beside a search of scikit-learn's as another base."""

    # whether the scores of a round tell which candidates the next one has
    is_guided = False

    def fit(self, X, y=None, **params):
        """Run fit with the candidates of each round, as in scikit-learn."""
        check_stopping(self)
        self._check_fit(X, y, params)
        if self.is_guided or self.stop is not None:
            self._check_guide()
        self._session = Session(self.timeout)
        vars(self).pop("n_rounds_", None)
        try:
            self._begin_fit(X, y, params)
            return super().fit(X, y, **params)
        finally:
            del self._session

    def _complete_results(self):
        """Add the candidates of a last round in which every fit has failed."""
        if len(self._session.kept) > len(self.cv_results_["params"]):
            self.cv_results_ = self._make_results()

    def _check_fit(self, X, y, params):
        """Raise an error about what can be known to be wrong before anything is trained."""

    def _check_guide(self):
        """Raise a ValueError if there are several scores, and `refit` names none of them."""
        # what a function of the user's returns is not known yet
        if isinstance(self.scoring, (list, tuple, set, Mapping)):
            self._name_guide(self.scoring)

    def _name_guide(self, names):
        """Return the name of the score that guides the search, one of several."""
        metric = getattr(self.refit, "metric", self.refit)
        if not isinstance(metric, str) or metric not in names:
            raise ValueError(
                "refit must name the score that guides the search, one of "
                f"{sorted(names)}, got refit={self.refit!r}"
            )
        return metric

    def _begin_fit(self, X, y, params):
        """Note in the session what the rounds have to know of the data."""

    def _fusing_options(self):
        options = super()._fusing_options()
        options["report"] = self._session.report
        if self.timeout is not None:
            options["deadline"] = self._session.deadline
        return options

    def _make_store(self):
        """Return a store, so that a round knows what those before it have trained."""
        return super()._make_store() or make_rounds_store()

    def _drop_models(self, kept):
        """Forget the fold models of candidates that are not complete."""
        outcomes = self._session.outcomes
        kept.drop(
            [n for n, outcome in enumerate(outcomes) if not outcome.is_complete], self.n_splits_
        )

    def _find_left_out(self):
        """Return no candidates: those that are not complete are not kept in the first place."""
        return set()

    def _format_results(self, candidate_params, n_splits, out, more_results=None):
        """Make ``cv_results_`` of the candidates that are complete, and of restored ones."""
        self._session.take(candidate_params, n_splits, out, more_results)
        return self._make_results()

    def _make_results(self):
        kept = self._session.kept
        if not kept:
            raise ValueError(
                "timeout must leave the time for one round of candidates, "
                f"got timeout={self.timeout}, after which none was complete"
            )
        candidates = [outcome.params for outcome in kept]
        rows = [row for outcome in kept for row in outcome.rows]
        # a search has either candidates of a storage or further columns
        columns = {name: [outcome.columns[name] for outcome in kept] for name in kept[-1].columns}
        n_splits = self._session.n_splits
        self._session.results = super()._format_results(candidates, n_splits, rows, columns)
        return self._session.results

    def _find_metric(self, outcome):
        """Return the name of the score that guides the search; a ValueError if there is none."""
        scores = outcome.rows[0]["test_scores"]
        if not isinstance(scores, dict):
            return "score"
        return self._name_guide(scores)

    def _check_n_splits(self):
        """Refuse to stop by the error of a score that is not known."""
        if self.stop is not None and self.n_splits_ < 2:
            raise ValueError(
                "stop='auto' must have at least 2 splits to tell the error of a score by, "
                f"got {self.n_splits_}"
            )

    def _make_rule(self, space, is_adaptive, seed):
        """Return the rule by which the search stops; None if there is none."""
        if self.stop is None:
            return None
        self._check_n_splits()
        return StoppingRule(space, self.tol, self.patience, is_adaptive, seed)

    def _find_reason(self, rounds, rule, found, n_next, known=()):
        """Return why to stop after a round, or an empty text.

        `found` are pairs of a Point and an Outcome of the candidates so far, and `known` those of
        earlier stages that the rule for stopping knows, too.
        """
        n_complete = sum(outcome.is_complete for _, outcome in found)
        if rounds.session.report.is_interrupted:
            return f"the search was interrupted, {n_complete} candidates are complete"
        has_more = n_next > 0 or n_complete < len(found)
        if has_more and rounds.session.deadline.is_over:
            return f"the timeout of {self.timeout} s is over, {n_complete} candidates are complete"
        if n_next < 1:
            return f"all {len(found)} candidates are evaluated"
        if rule is None:
            return ""
        scored = [
            (point, outcome)
            for point, outcome in [*known, *found]
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
