"""scikit-learn's searches, whose networks are trained together."""

import numpy as np
from sklearn import model_selection
from sklearn.model_selection import ParameterSampler

from sktune.search.base import _FusedSearch
from sktune.search.rounds.evaluation import Rounds
from sktune.search.rounds.search_in_rounds import SearchInRounds
from sktune.search.rounds.sizes import default_batch_size
from sktune.search.rounds.sources import Listed
from sktune.search.samplers.distributions import Space
from sktune.search.samplers.drawing import make_drawable


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
        What ``predict``, ``predict_proba`` and ``score`` answer with instead of the best estimator.
        ``"folds"`` averages the models that the best candidate was given on the splits.
        ``"greedy"`` averages candidates, each of them the average of its models. They are chosen
        with replacement, so that the averaged out-of-fold predictions have the best score (Caruana
        et al. 2004). Probabilities of classifiers are averaged, and predictions of regressors.
        Under accuracy, log loss, squared and absolute error and R² all candidates are scored
        together; under other metrics, which take longer, the choice is among the 20 best. The
        models of all candidates are held in memory until the choice is made, without the state of
        their optimizers. A candidate whose parameters take ``predict_proba`` from a classifier, as
        ``loss="hinge"`` does, is left out, with a warning.
    ensemble_refit : bool, default=False
        Whether the candidates that ``"greedy"`` chooses are fitted again to all rows, in place of
        their models of the splits.
    max_oof_mb : float, default=256
        `oof_predictions_` is left out, with a warning, if it takes more MB (of 2**20 bytes).
    cache : str or path, default=None
        A folder, in which each fit that is trained together with others is recorded once it is
        complete, and the refit. The same search later trains what is missing, and a larger one what
        is new. A folder may be shared by several searches and processes. Networks need an int as
        `random_state`: otherwise each search draws seeds of its own. None records nothing.
    cache_limit : float or None, default=1024
        How many MB (of 2**20 bytes) the folder may take; the oldest fits are removed first. None is
        no limit.
    checkpoint_interval : float, default=60.0
        After so many seconds, fits in progress are recorded as well, to go on from there.
    racing : bool, default=False
        Whether candidates race over the splits. All are fitted on the first split, and the best
        there on all of them. Then a candidate goes on to each further split unless its mean score
        so far is below the worst score, on any split, of the best candidate that is complete
        (Bergman et al. 2024, "Don't waste your time: early stopping cross-validation", the
        "forgiving" rule). What is fitted has the scores that it has without a race. A winner that
        is unlucky on the first splits can be lost.

    Attributes
    ----------
    fusion_ : FusionReport
        What was trained together, and why a fit was not; ``print`` it for a summary.
    interrupted_ : bool
        Whether the search was interrupted (Ctrl-C) and ended with the candidates that were complete
        then. Where none was, there is a KeyboardInterrupt.
    cv_results_ : dict
        As in scikit-learn. The ``fit_time`` of fits trained together is their group's, divided by
        their number. With `racing` a fit that was not run has the score NaN, and so has the mean
        of its candidate, whose rank is the last one, as is that of failed candidates;
        ``n_splits_run`` is on how many splits each was fitted. Mean times are of what was run.
    ensemble_ : AverageClassifier or AverageRegressor
        With `ensemble`. ``best_estimator_`` stays the single model that is fitted to all rows.
    ensemble_weights_ : ndarray of shape (n_candidates,)
        Weight of each candidate; their sum is 1.
    ensemble_score_ : float
        Mean over the splits of the score of the averaged out-of-fold predictions, by the metric of
        ``best_score_``. It is optimistic under "greedy", whose weights were chosen by the same
        predictions. It does not tell what is gained by averaging the models of a candidate, of
        which one alone predicts each test row.
    oof_predictions_ : ndarray of float32
        With `ensemble`: what each candidate predicts for the test rows of the splits, of shape
        (n_candidates, n_rows) or (n_candidates, n_rows, n_outputs). Averaged where a row is tested
        repeatedly; nan where it is never tested, or the candidate has failed.

    Raises
    ------
    ValueError
        By ``fit``, before anything is trained, if an ensemble is asked for and there is no `refit`
        by one metric, no candidate can have ``predict_proba`` (of classifiers), or the scoring
        needs what an ensemble does not have; with `racing`, if there is one split only, or `refit`
        is a function or does not name one of several scores. A candidate that fails on a split is
        never a member.

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
    >>> _ = search.set_params(ensemble="folds").fit(X, y)
    >>> len(search.ensemble_.members_)
    3
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
        max_oof_mb=256,
        cache=None,
        cache_limit=1024,
        checkpoint_interval=60.0,
        racing=False,
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
        self.max_oof_mb = max_oof_mb
        self.cache = cache
        self.cache_limit = cache_limit
        self.checkpoint_interval = checkpoint_interval
        self.racing = racing


class RandomizedSearchCV(SearchInRounds, model_selection.RandomizedSearchCV):
    """Search over candidates drawn from distributions, with cross-validation.

    It is :class:`sklearn.model_selection.RandomizedSearchCV`, whose networks are trained as in
    :class:`GridSearchCV`.

    Parameters
    ----------
    param_distributions : dict or list of dicts
        Names of parameters to lists of values, to distributions with ``rvs``, as those of
        :mod:`scipy.stats`, :class:`zero_or` and :class:`loguniform_int`, or to distributions of
        :mod:`optuna.distributions`.
    n_iter : int, default=10
        How many candidates to draw.
    random_state : int, RandomState or None, default=None
        From which the candidates follow.
    estimator, scoring, n_jobs, refit, cv, verbose, pre_dispatch, error_score, return_train_score, \
            ensemble, ensemble_refit, max_oof_mb, cache, cache_limit, checkpoint_interval, racing
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
        tol=0.5,
        timeout=None,
        ensemble=None,
        ensemble_refit=False,
        max_oof_mb=256,
        cache=None,
        cache_limit=1024,
        checkpoint_interval=60.0,
        racing=False,
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
        self.max_oof_mb = max_oof_mb
        self.cache = cache
        self.cache_limit = cache_limit
        self.checkpoint_interval = checkpoint_interval
        self.racing = racing
        self.stop = stop
        self.patience = patience
        self.tol = tol
        self.timeout = timeout

    def _run_search(self, evaluate_candidates, *, callback_ctx=None):
        """Evaluate all candidates at once, or in rounds if the search may stop before their end."""
        if self.stop is None and self.timeout is None:
            self._evaluate_at_once(evaluate_candidates, callback_ctx)
            self.stop_reason_ = "all candidates are evaluated"
            return
        candidates = list(self._make_sampler())
        space = None if self.stop is None else Space(self.param_distributions)
        rounds = Rounds(self, evaluate_candidates, callback_ctx)
        rule = self._make_rule(space, is_adaptive=False, seed=0)
        size = default_batch_size(self, len(candidates))
        self.stop_reason_ = rounds.run(Listed(candidates, space), size, rule)
        rounds.end()

    def _make_sampler(self):
        """Return what draws the candidates."""
        space = make_drawable(self.param_distributions)
        return ParameterSampler(space, self.n_iter, random_state=self.random_state)

    def _evaluate_at_once(self, evaluate_candidates, callback_ctx):
        """Evaluate all candidates in one task, as scikit-learn does."""
        sampler = self._make_sampler()
        if callback_ctx is None:
            # older releases of scikit-learn do not have the argument
            evaluate_candidates(sampler)
            return
        context = callback_ctx.subcontext(
            task_name="search",
            max_subtasks=len(sampler) * self.n_splits_,
            sequential_subtasks=False,
        )
        context.call_on_fit_task_begin(estimator=self)
        evaluate_candidates(sampler, callback_ctx=context)
        context.call_on_fit_task_end(estimator=self)
