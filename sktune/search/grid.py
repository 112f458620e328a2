"""scikit-learn's searches, whose networks are trained together."""

import numpy as np
from sklearn import model_selection
from sklearn.model_selection import ParameterSampler

from sktune.search.base import _FusedSearch
from sktune.search.rounds.search_in_rounds import Rounds, SearchInRounds
from sktune.search.rounds.sizes import default_batch_size
from sktune.search.samplers.distributions import Space


class GridSearchCV(_FusedSearch, model_selection.GridSearchCV):
    """Search over every combination of the values given, with cross-validation.

    It is :class:`sklearn.model_selection.GridSearchCV`, with the same signature and meaning.
    Networks of sktune, alone or as the last step of a Pipeline, are trained together.

    Parameters
    ----------
    estimator : estimator object
        What to tune.
    param_grid : dict or list of dicts
        Names of parameters to lists of values.
    scoring, n_jobs, refit, cv, verbose, pre_dispatch, error_score, return_train_score
        As in :class:`sklearn.model_selection.GridSearchCV`. With ``refit="one_standard_error"`` the
        simplest candidate within one standard error of the best is chosen: see
        :class:`OneStandardError`. `n_jobs` is the number of threads that
        groups of networks are trained in (None: as many as torch has), and of processes for what is
        not trained so. With `verbose` above 0 a progress bar is shown on stderr.
    ensemble : {"greedy", "folds"} or None, default=None
        Whether to predict with an ensemble of the models that were trained for the folds, rather
        than with the single best estimator. ``"folds"`` averages those of the best candidate.
        ``"greedy"`` chooses candidates, with repetition, whose averaged out-of-fold predictions
        have the smallest log loss or squared error (Caruana et al. 2004). Networks that were
        trained together are kept for it; other models are fitted once more.
    ensemble_refit : bool, default=False
        Whether the members of the ensemble are fitted to all rows, each once, rather than being the
        mean of their models of the folds.

    Attributes
    ----------
    fusion_ : FusionReport
        What was trained together, and why a fit was not; ``print`` it for a summary.
    cv_results_ : dict
        As in scikit-learn. The ``fit_time`` of fits trained together is their group's, divided by
        their number.
    ensemble_ : estimator
        Where `ensemble` is set: what ``predict``, ``predict_proba`` and ``score`` use.
        ``best_estimator_`` stays the single refitted one.
    ensemble_weights_ : ndarray (n_candidates,)
        The weight of each candidate in the ensemble.
    ensemble_score_ : float
        The mean score of the ensemble's out-of-fold predictions, to be set beside ``best_score_``.
        It is optimistic, as the weights were chosen by the same predictions.
    oof_predictions_ : ndarray (n_candidates, n_rows, n_outputs) of float32, or None
        The out-of-fold predictions: probabilities of the classes, or targets; NaN for candidates
        with a failed fit and for rows that no split tests. None, with a warning, if they would take
        more than 256 MiB.

    Raises
    ------
    ValueError
        In ``fit``, for an ensemble of classifiers without ``predict_proba``, of several targets of
        classification, or under a scoring that needs ``decision_function``.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sktune import GridSearchCV, NeuralNetClassifier
    >>> X, y = load_iris(return_X_y=True)
    >>> net = NeuralNetClassifier(max_epochs=20, random_state=0)
    >>> search = GridSearchCV(net, {"lr": [1e-5, 1e-2]}, cv=3).fit(X, y)
    >>> search.best_params_
    {'lr': 0.01}
    >>> len(search.fusion_.alone)
    0
    """

    def __init__(
        self,
        estimator,
        param_grid,
        *,
        scoring=None,
        n_jobs=None,
        refit=True,
        cv=None,
        verbose=0,
        pre_dispatch="2*n_jobs",
        error_score=np.nan,
        return_train_score=False,
        ensemble=None,
        ensemble_refit=False,
    ):
        super().__init__(
            estimator=estimator,
            param_grid=param_grid,
            scoring=scoring,
            n_jobs=n_jobs,
            refit=refit,
            cv=cv,
            verbose=verbose,
            pre_dispatch=pre_dispatch,
            error_score=error_score,
            return_train_score=return_train_score,
        )
        self.ensemble = ensemble
        self.ensemble_refit = ensemble_refit


class RandomizedSearchCV(SearchInRounds, model_selection.RandomizedSearchCV):
    """Search over candidates drawn from distributions, with cross-validation.

    It is :class:`sklearn.model_selection.RandomizedSearchCV`, whose networks are trained as in
    :class:`GridSearchCV`.

    Parameters
    ----------
    param_distributions : dict or list of dicts
        Names of parameters to lists of values or to distributions with ``rvs``, as in
        :mod:`scipy.stats` and :mod:`sktune.search.spaces`.
    n_iter : int, default=10
        How many candidates to draw.
    random_state : int, RandomState or None, default=None
        From which the candidates follow.
    estimator, scoring, n_jobs, refit, cv, verbose, pre_dispatch, error_score, return_train_score, \
            ensemble, ensemble_refit
        See :class:`GridSearchCV`, also for the attributes.
    stop, patience, tol, timeout
        See :class:`BayesSearchCV`. With `stop` or `timeout` the candidates, which are the same, are
        evaluated in rounds on the same splits; without them all are evaluated at once.

    Attributes
    ----------
    stop_reason_ : str
        Why the search has ended, in words and numbers.

    Examples
    --------
    >>> from scipy.stats import loguniform
    >>> from sklearn.datasets import load_iris
    >>> from sktune import NeuralNetClassifier, RandomizedSearchCV
    >>> X, y = load_iris(return_X_y=True)
    >>> net = NeuralNetClassifier(max_epochs=20, random_state=0)
    >>> space = {"lr": loguniform(1e-4, 1e-1), "module__dropout": [0.0, 0.2]}
    >>> search = RandomizedSearchCV(net, space, n_iter=4, cv=3, random_state=0).fit(X, y)
    >>> len(search.cv_results_["params"])
    4
    """

    def __init__(
        self,
        estimator,
        param_distributions,
        *,
        n_iter=10,
        scoring=None,
        n_jobs=None,
        refit=True,
        cv=None,
        verbose=0,
        pre_dispatch="2*n_jobs",
        random_state=None,
        error_score=np.nan,
        return_train_score=False,
        stop=None,
        patience=1,
        tol=0.25,
        timeout=None,
        ensemble=None,
        ensemble_refit=False,
    ):
        super().__init__(
            estimator=estimator,
            param_distributions=param_distributions,
            n_iter=n_iter,
            scoring=scoring,
            n_jobs=n_jobs,
            refit=refit,
            cv=cv,
            verbose=verbose,
            pre_dispatch=pre_dispatch,
            random_state=random_state,
            error_score=error_score,
            return_train_score=return_train_score,
        )
        self.ensemble = ensemble
        self.ensemble_refit = ensemble_refit
        self.stop = stop
        self.patience = patience
        self.tol = tol
        self.timeout = timeout

    def _run_search(self, evaluate_candidates, *, callback_ctx=None):
        """Evaluate all candidates at once, or in rounds if the search may stop before their end."""
        if self.stop is None and self.timeout is None:
            # older releases of scikit-learn do not have the argument
            context = {} if callback_ctx is None else {"callback_ctx": callback_ctx}
            super()._run_search(evaluate_candidates, **context)
            self.stop_reason_ = "all candidates are evaluated"
            return
        sampler = ParameterSampler(
            self.param_distributions, self.n_iter, random_state=self.random_state
        )
        candidates = list(sampler)
        space = None if self.stop is None else Space(self.param_distributions)
        rule = self._make_rule(space, is_adaptive=False, seed=0)
        rounds = Rounds(self, evaluate_candidates, callback_ctx)
        size = default_batch_size(self, len(candidates))
        found = []
        reason = ""
        while not reason:
            batch = candidates[len(found) : len(found) + size]
            outcomes = rounds.evaluate(batch)
            points = [None if space is None else space.find_point(params) for params in batch]
            found += zip(points, outcomes, strict=True)
            n_next = min(size, len(candidates) - len(found))
            reason = self._find_reason(rounds, rule, found, n_next)
        rounds.end()
        self.stop_reason_ = reason
