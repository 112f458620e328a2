"""What halving and Hyperband have in common."""

from collections.abc import Mapping
from math import inf, prod

import numpy as np
from sklearn.base import is_classifier
from sklearn.model_selection import ParameterSampler, check_cv
from sklearn.utils import check_random_state

from sktune.search.halving.brackets import Bracket, BracketRun
from sktune.search.halving.resources import (
    check_candidates,
    check_resources,
    find_limits,
    find_resource,
    name_of_epochs,
)
from sktune.search.halving.rungs import Plan
from sktune.search.rounds.evaluation import Rounds
from sktune.search.rounds.seam import BaseSearchCV
from sktune.search.rounds.search_in_rounds import SearchInRounds
from sktune.search.samplers.own_settings import read_own_settings
from sktune.search.settable import check_settable


class SearchInRungs(SearchInRounds, BaseSearchCV):
    """A search in which fewer and fewer candidates get more and more resources."""

    is_guided = True
    # the other reasons to end are those of searches whose candidates have equal resources
    stop = None
    patience = 1
    tol = 0.25

    def __init__(
        self,
        estimator,
        *,
        factor=3,
        resource="auto",
        max_resources="auto",
        min_resources="exhaust",
        scale_schedule=False,
        baseline=True,
        cv=None,
        scoring=None,
        refit=True,
        error_score=np.nan,
        return_train_score=False,
        random_state=None,
        n_jobs=None,
        verbose=0,
        pre_dispatch="2*n_jobs",
        timeout=None,
        ensemble=None,
        ensemble_refit=False,
        max_oof_mb=256,
        cache=None,
        cache_limit=1024,
        checkpoint_interval=60.0,
    ):
        super().__init__(
            estimator=estimator,
            scoring=scoring,
            n_jobs=n_jobs,
            refit=refit,
            cv=cv,
            verbose=verbose,
            pre_dispatch=pre_dispatch,
            error_score=error_score,
            return_train_score=return_train_score,
        )
        self.factor = factor
        self.resource = resource
        self.max_resources = max_resources
        self.min_resources = min_resources
        self.scale_schedule = scale_schedule
        self.baseline = baseline
        self.random_state = random_state
        self.timeout = timeout
        self.ensemble = ensemble
        self.ensemble_refit = ensemble_refit
        self.max_oof_mb = max_oof_mb
        self.cache = cache
        self.cache_limit = cache_limit
        self.checkpoint_interval = checkpoint_interval

    def plan(self, X, y=None):
        """Return what ``fit`` is going to do, without doing it.

        Parameters
        ----------
        X, y
            As for ``fit``.

        Returns
        -------
        plan : Plan
            ``print`` it for a table; ``brackets``, ``n_candidates``, ``n_fits`` and
            ``n_resources`` are its numbers.
        """
        check_resources(self)
        splitter = check_cv(self.cv, y, classifier=is_classifier(self.estimator))
        n_splits = splitter.get_n_splits(X, y)
        resource = find_resource(self)
        limits = find_limits(self, resource, X, y, n_splits)
        brackets = self._plan_brackets(*limits, self._count_candidates(*limits))
        goes_on = resource == name_of_epochs(self.estimator) and not self.scale_schedule
        return Plan(brackets, resource, n_splits, goes_on)

    def _check_fit(self, X, y, params):
        """Raise an error about what can be known to be wrong before anything is trained."""
        check_resources(self)
        resource = find_resource(self)
        n_splits = check_cv(self.cv, y, classifier=is_classifier(self.estimator)).get_n_splits(
            X, y, params.get("groups")
        )
        limits = find_limits(self, resource, X, y, n_splits)
        n_candidates = self._count_candidates(*limits)
        rungs = self._plan_brackets(*limits, n_candidates)
        # a generator is left as it is: the search itself draws from it
        state = check_random_state(self.random_state).get_state()
        drawn = self._draw_candidates(rungs, _copy_of(state))
        candidates = [params for bracket in drawn for params in bracket]
        for of_one in candidates[:1] + candidates[-1:]:
            check_settable(self._space_name, self.estimator, of_one)
        check_candidates(self, candidates)
        self._n_rows = X.shape[0] if hasattr(X, "shape") else len(X)
        self._limits = limits

    def fit(self, X, y=None, **params):
        """Run fit with all candidates, rung by rung.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
        y : array-like of shape (n_samples,) or (n_samples, n_outputs), default=None
        **params : dict
            Further arguments of the estimator's ``fit``, of the splitter and of the scorer.

        Returns
        -------
        self : object
        """
        try:
            return super().fit(X, y, **params)
        finally:
            vars(self).pop("_n_rows", None)
            vars(self).pop("_limits", None)

    def _run_search(self, evaluate_candidates, *, callback_ctx=None):
        """Evaluate the rungs of all brackets."""
        rounds = Rounds(self, evaluate_candidates, callback_ctx)
        least, most = self._limits
        brackets = self._plan_brackets(least, most, self._count_candidates(least, most))
        rng = check_random_state(self.random_state)
        drawn = self._draw_candidates(brackets, rng)
        seed = self.random_state
        if not isinstance(seed, int | np.integer):
            seed = rng.randint(2**31 - 1)
        running = [Bracket(*pair) for pair in zip(brackets, drawn, strict=True)]
        self._note_plan(brackets, least, most)
        self.resource_ = find_resource(self)
        run = BracketRun(self, rounds, running, self.resource_, self._n_rows, seed)
        self.stop_reason_ = run.run()
        rounds.end()

    def _draw_candidates(self, brackets, rng):
        """Return the candidates of the first rung of each bracket.

        A space of lists may have fewer than a bracket could take.
        """
        own = self._read_own_settings() if self.baseline else None
        first = [] if own is None else [own]
        found = []
        for rungs in brackets:
            n_drawn = min(rungs[0].n_candidates - len(first), count_combinations(self._space))
            drawn = ParameterSampler(self._space, n_drawn, random_state=rng) if n_drawn else []
            found.append([*first, *drawn])
            first = []
        return found

    def _read_own_settings(self):
        """Return what the estimator has for the parameters that are searched."""
        space = self._space
        parts = [space] if isinstance(space, Mapping) else space
        names = list(dict.fromkeys(name for part in parts for name in part))
        return read_own_settings(self.estimator, names)

    def _list_eligible(self):
        """Return the candidates that may be members of an ensemble: those of the last rungs."""
        return find_finalists(self.cv_results_)

    @staticmethod
    def _select_best_index(refit, refit_metric, results):
        """Return the candidate to refit, one of those that have got most resources."""
        rows = find_finalists(results)
        part = {name: np.ma.asarray(column)[rows] for name, column in results.items()}
        part["params"] = [results["params"][row] for row in rows]
        return int(rows[SearchInRounds._select_best_index(refit, refit_metric, part)])


def find_finalists(results):
    """Return the rows of the last rungs, of those that have got most resources.

    Parameters
    ----------
    results : dict
        ``cv_results_`` with ``bracket``, ``iter`` and ``n_resources``.
    """
    bracket, iteration, n_resources = (
        np.asarray(results[name]) for name in ("bracket", "iter", "n_resources")
    )
    is_last = np.array(
        [iteration[row] == iteration[bracket == bracket[row]].max() for row in range(len(bracket))]
    )
    most = n_resources[is_last].max()
    return np.flatnonzero(is_last & (n_resources == most))


def count_combinations(space):
    """Return how many candidates a space has; infinity if it has distributions."""
    parts = [space] if isinstance(space, Mapping) else space
    n = 0
    for part in parts:
        if any(hasattr(values, "rvs") for values in part.values()):
            return inf
        n += prod(len(values) for values in part.values())
    return n


def _copy_of(state):
    """Return a generator in some state."""
    copy = np.random.RandomState()
    copy.set_state(state)
    return copy
