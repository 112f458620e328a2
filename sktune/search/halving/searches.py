"""Successive halving and Hyperband."""

import numpy as np
from sklearn.model_selection import ParameterGrid

from sktune.search.halving.base import SearchInRungs, count_combinations
from sktune.search.halving.rungs import plan_halving, plan_hyperband
from sktune.search.samplers.drawing import make_drawable


class _Halving(SearchInRungs):
    """One bracket, with the attributes that scikit-learn's halving has."""

    aggressive_elimination = False

    def _plan_brackets(self, least, most, n_candidates):
        rungs, *_ = self._plan_rungs(least, most, n_candidates)
        return [rungs]

    def _plan_rungs(self, least, most, n_candidates):
        return plan_halving(
            n_candidates,
            least,
            most,
            self.factor,
            self.aggressive_elimination,
            self.min_resources == "exhaust",
        )

    def _note_plan(self, brackets, least, most):
        """Set scikit-learn's attributes."""
        (rungs,) = brackets
        self.n_resources_ = [rung.n_resources for rung in rungs]
        self.n_candidates_ = [rung.n_candidates for rung in rungs]
        self.n_remaining_candidates_ = int(np.ceil(rungs[-1].n_candidates / self.factor))
        self.n_iterations_ = len(rungs)
        _, self.n_required_iterations_, self.n_possible_iterations_ = self._plan_rungs(
            least, most, rungs[0].n_candidates
        )
        self.min_resources_ = rungs[0].n_resources
        self.max_resources_ = most


class HalvingGridSearchCV(_Halving):
    """Successive halving over every combination of the values given.

    The face is that of :class:`sklearn.model_selection.HalvingGridSearchCV`: all candidates get few
    resources, the best ``1 / factor`` of them get `factor` times as many, and so on. Where the
    resource is a network's epochs, the splits stay the same and the survivors go on from where they
    stand: a rung costs the epochs that it adds, and each score is that of a training from the
    beginning. The candidates of a rung are trained together.

    Parameters
    ----------
    estimator : estimator object
        What to tune. That rungs go on asks for an int as the `random_state` of the network.
    param_grid : dict or list of dicts
        Names of parameters to lists of values.
    factor : float, default=3
        From rung to rung the candidates are divided by it, and their resources multiplied.
    resource : str, default="auto"
        What candidates get more of: ``"max_epochs"`` (``"net__max_epochs"`` in a Pipeline with a
        step ``net``), ``"n_samples"`` or any other parameter with a positive int. ``"auto"`` is the
        epochs of a network, and ``"n_samples"`` for other estimators.
    max_resources : int or "auto", default="auto"
        The resources of a candidate at most. ``"auto"`` is the `max_epochs` of the network, or the
        number of rows.
    min_resources : int, "exhaust" or "smallest", default="exhaust"
        The resources of the first rung. ``"exhaust"``: such that the last rung gets
        `max_resources`. ``"smallest"``: 1, and of rows two for each split and class.
    aggressive_elimination : bool, default=False
        As in scikit-learn: whether the first rung is repeated with fewer candidates until those
        that are left suit the resources.
    scale_schedule : bool, default=False
        A schedule of the learning rate that depends on the number of epochs, as ``"cosine"`` does,
        is refused where the epochs are the resource, because rungs would have different schedules.
        True lets each rung be trained from the beginning, with the schedule at its length.
    baseline : bool, default=False
        Whether the estimator as it is becomes the first candidate, beside those of the grid.
    scoring, n_jobs, refit, cv, verbose, pre_dispatch, error_score, return_train_score, cache, \
            cache_limit, checkpoint_interval
        As in :class:`sktune.GridSearchCV`. The best candidate is one of the last rung. Several
        metrics need a `refit` that names the one which decides.
    random_state : int, RandomState or None, default=None
        From which rows are drawn, where ``resource="n_samples"``.
    timeout : float or None, default=None
        Seconds after which the search ends with what is complete.
    ensemble : {"greedy", "folds"} or None, default=None
        As in :class:`sktune.GridSearchCV`: an average of models that were trained anyway. Members
        are candidates of the last rungs that have got most resources; models of earlier rungs are
        freed as soon as their rung is over.
    ensemble_refit, max_oof_mb
        As in :class:`sktune.GridSearchCV`.

    Attributes
    ----------
    cv_results_ : dict
        As in scikit-learn, with ``iter``, ``n_resources`` and ``bracket`` (0) of each evaluation.
    resource_ : str
        What the candidates got more of.
    n_resources_, n_candidates_ : list of int
        Of each rung.
    n_iterations_, n_required_iterations_, n_possible_iterations_, n_remaining_candidates_, \
            min_resources_, max_resources_ : int
        As in scikit-learn.
    stop_reason_ : str
        Why the search has ended.
    fusion_ : FusionReport
        ``fusion_.sharing`` tells how many epochs were trained, and how many were known.
    ensemble_, ensemble_weights_, ensemble_score_, oof_predictions_
        With `ensemble`, as in :class:`sktune.GridSearchCV`. Evaluations in earlier rungs have the
        weight 0, and their predictions are nan.

    See Also
    --------
    HalvingRandomSearchCV : The same over candidates that are drawn.
    HyperbandSearchCV : Several brackets, for when the right number of candidates is not known.

    Notes
    -----
    Of equal scores, the later candidate goes on; in scikit-learn that depends on the machine. The
    number of rungs is counted exactly; scikit-learn's logarithm has one too few for 243 candidates
    and a factor of 3.

    References
    ----------
    K. Jamieson and A. Talwalkar, "Non-stochastic best arm identification and hyperparameter
    optimization", AISTATS 2016.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sktune import HalvingGridSearchCV, NeuralNetClassifier
    >>> X, y = load_iris(return_X_y=True)
    >>> net = NeuralNetClassifier(max_epochs=9, random_state=0)
    >>> grid = {"lr": [1e-4, 1e-3, 1e-2], "module__dropout": [0.0, 0.2, 0.4]}
    >>> search = HalvingGridSearchCV(net, grid, cv=3)
    >>> print(search.plan(X, y))
    bracket  rung  candidates  max_epochs
          0     0           9           1
          0     1           3           3
          0     2           1           9
    9 candidates, which go on from where they stand: 63 of max_epochs on 3 splits
    >>> search.fit(X, y).fusion_.sharing.n_trained_epochs
    63
    """

    _space_name = "param_grid"

    def __init__(
        self,
        estimator,
        param_grid,
        *,
        factor=3,
        resource="auto",
        max_resources="auto",
        min_resources="exhaust",
        aggressive_elimination=False,
        scale_schedule=False,
        baseline=False,
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
            estimator,
            factor=factor,
            resource=resource,
            max_resources=max_resources,
            min_resources=min_resources,
            scale_schedule=scale_schedule,
            baseline=baseline,
            cv=cv,
            scoring=scoring,
            refit=refit,
            error_score=error_score,
            return_train_score=return_train_score,
            random_state=random_state,
            n_jobs=n_jobs,
            verbose=verbose,
            pre_dispatch=pre_dispatch,
            timeout=timeout,
            ensemble=ensemble,
            ensemble_refit=ensemble_refit,
            max_oof_mb=max_oof_mb,
            cache=cache,
            cache_limit=cache_limit,
            checkpoint_interval=checkpoint_interval,
        )
        self.param_grid = param_grid
        self.aggressive_elimination = aggressive_elimination

    @property
    def _space(self):
        return self.param_grid

    def _list_grid(self):
        """Return the candidates; with the estimator as it is, if that is asked for."""
        grid = list(ParameterGrid(self.param_grid))
        own = self._read_own_settings() if self.baseline else None
        return grid if own is None or own in grid else [own, *grid]

    def _count_candidates(self, least, most):
        return len(self._list_grid())

    def _draw_candidates(self, brackets, rng):
        """Return all candidates of the grid, for the one bracket."""
        return [self._list_grid()]


class HalvingRandomSearchCV(_Halving):
    """Successive halving over candidates drawn from distributions.

    The face is that of :class:`sklearn.model_selection.HalvingRandomSearchCV`; see
    :class:`HalvingGridSearchCV` for what happens.

    Parameters
    ----------
    estimator : estimator object
        What to tune.
    param_distributions : dict or list of dicts
        Names of parameters to lists of values or to distributions, Optuna's among them, as in
        :class:`sktune.RandomizedSearchCV`.
    n_candidates : int or "exhaust", default="exhaust"
        How many candidates the first rung has. ``"exhaust"``: as many as let the last rung get
        `max_resources`, beginning with `min_resources`.
    min_resources : int, "exhaust" or "smallest", default="smallest"
        The resources of the first rung.
    baseline : bool, default=True
        Whether the first candidate is the estimator as it is, in place of one that is drawn.
    random_state : int, RandomState or None, default=None
        From which candidates and rows are drawn.
    factor, resource, max_resources, aggressive_elimination, scale_schedule, scoring, n_jobs, \
            refit, cv, verbose, pre_dispatch, error_score, return_train_score, timeout, ensemble, \
            ensemble_refit, max_oof_mb, cache, cache_limit, checkpoint_interval
        See :class:`HalvingGridSearchCV`, also for the attributes.

    Examples
    --------
    >>> from scipy.stats import loguniform
    >>> from sklearn.datasets import load_iris
    >>> from sktune import HalvingRandomSearchCV, NeuralNetClassifier
    >>> X, y = load_iris(return_X_y=True)
    >>> net = NeuralNetClassifier(max_epochs=9, random_state=0)
    >>> space = {"lr": loguniform(1e-4, 1e-1)}
    >>> search = HalvingRandomSearchCV(net, space, cv=3, random_state=0).fit(X, y)
    >>> search.n_candidates_, search.n_resources_
    ([9, 3, 1], [1, 3, 9])
    """

    _space_name = "param_distributions"

    def __init__(
        self,
        estimator,
        param_distributions,
        *,
        n_candidates="exhaust",
        factor=3,
        resource="auto",
        max_resources="auto",
        min_resources="smallest",
        aggressive_elimination=False,
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
            estimator,
            factor=factor,
            resource=resource,
            max_resources=max_resources,
            min_resources=min_resources,
            scale_schedule=scale_schedule,
            baseline=baseline,
            cv=cv,
            scoring=scoring,
            refit=refit,
            error_score=error_score,
            return_train_score=return_train_score,
            random_state=random_state,
            n_jobs=n_jobs,
            verbose=verbose,
            pre_dispatch=pre_dispatch,
            timeout=timeout,
            ensemble=ensemble,
            ensemble_refit=ensemble_refit,
            max_oof_mb=max_oof_mb,
            cache=cache,
            cache_limit=cache_limit,
            checkpoint_interval=checkpoint_interval,
        )
        self.param_distributions = param_distributions
        self.n_candidates = n_candidates
        self.aggressive_elimination = aggressive_elimination

    @property
    def _space(self):
        return make_drawable(self.param_distributions)

    def _count_candidates(self, least, most):
        n = self.n_candidates
        if n != "exhaust":
            _check_count("n_candidates", n, "'exhaust' or an int of at least 1")
        elif self.min_resources == "exhaust":
            raise ValueError("n_candidates and min_resources must not both be 'exhaust'")
        else:
            n = int(most // least)
        # a space of lists may have fewer
        return min(n, count_combinations(self._space) + bool(self.baseline))


class HyperbandSearchCV(SearchInRungs):
    """Hyperband: several brackets of successive halving, which are trained together.

    Each bracket divides about the same resources in its own way: from many candidates with short
    first rungs to few candidates that all get everything. So it need not be known how early a good
    candidate shows. The first rungs of all brackets are one call, their second rungs are the next,
    and so on. Where the resource is a network's epochs, candidates go on from where they stand.

    Parameters
    ----------
    estimator : estimator object
        What to tune.
    param_distributions : dict or list of dicts
        Names of parameters to lists of values or to distributions, Optuna's among them, as in
        :class:`sktune.RandomizedSearchCV`.
    factor : float, default=3
        η of the paper: from rung to rung the candidates of a bracket are divided by it.
    max_resources : int or "auto", default="auto"
        R of the paper, the resources of a candidate at most. ``"auto"`` is the `max_epochs` of the
        network, or the number of rows.
    min_resources : int or "smallest", default="smallest"
        The least resources of a first rung. ``"smallest"``: 1, and of rows two for each split and
        class.
    baseline : bool, default=True
        Whether the first candidate of the first bracket is the estimator as it is.
    random_state : int, RandomState or None, default=None
        From which candidates and rows are drawn.
    resource, scale_schedule, scoring, n_jobs, refit, cv, verbose, pre_dispatch, error_score, \
            return_train_score, timeout, ensemble, ensemble_refit, max_oof_mb, cache, cache_limit, \
            checkpoint_interval
        See :class:`HalvingGridSearchCV`. The best candidate is one of those that have got most.

    Attributes
    ----------
    brackets_ : list of dict
        Of each bracket ``n_candidates`` and ``n_resources``, a list for its rungs.
    cv_results_ : dict
        With ``bracket``, ``iter`` and ``n_resources`` of each evaluation.
    resource_, stop_reason_, fusion_
        See :class:`HalvingGridSearchCV`.

    References
    ----------
    L. Li, K. Jamieson, G. DeSalvo, A. Rostamizadeh and A. Talwalkar, "Hyperband: a novel
    bandit-based approach to hyperparameter optimization", JMLR 18 (2018), algorithm 1.

    Examples
    --------
    >>> from scipy.stats import loguniform
    >>> from sklearn.datasets import load_iris
    >>> from sktune import HyperbandSearchCV, NeuralNetClassifier
    >>> X, y = load_iris(return_X_y=True)
    >>> net = NeuralNetClassifier(max_epochs=9, random_state=0)
    >>> search = HyperbandSearchCV(net, {"lr": loguniform(1e-4, 1e-1)}, cv=3, random_state=0)
    >>> search.fit(X, y).brackets_[0]
    {'n_candidates': [9, 3, 1], 'n_resources': [1, 3, 9]}
    >>> search.brackets_[1:]
    [{'n_candidates': [5, 1], 'n_resources': [3, 9]}, {'n_candidates': [3], 'n_resources': [9]}]
    """

    _space_name = "param_distributions"

    def __init__(
        self,
        estimator,
        param_distributions,
        *,
        factor=3,
        resource="auto",
        max_resources="auto",
        min_resources="smallest",
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
            estimator,
            factor=factor,
            resource=resource,
            max_resources=max_resources,
            min_resources=min_resources,
            scale_schedule=scale_schedule,
            baseline=baseline,
            cv=cv,
            scoring=scoring,
            refit=refit,
            error_score=error_score,
            return_train_score=return_train_score,
            random_state=random_state,
            n_jobs=n_jobs,
            verbose=verbose,
            pre_dispatch=pre_dispatch,
            timeout=timeout,
            ensemble=ensemble,
            ensemble_refit=ensemble_refit,
            max_oof_mb=max_oof_mb,
            cache=cache,
            cache_limit=cache_limit,
            checkpoint_interval=checkpoint_interval,
        )
        self.param_distributions = param_distributions

    @property
    def _space(self):
        return make_drawable(self.param_distributions)

    def _count_candidates(self, least, most):
        # the brackets tell
        return None

    def _plan_brackets(self, least, most, n_candidates):
        return plan_hyperband(least, most, self.factor)

    def _note_plan(self, brackets, least, most):
        """Set ``brackets_``."""
        self.brackets_ = [
            {
                "n_candidates": [rung.n_candidates for rung in rungs],
                "n_resources": [rung.n_resources for rung in rungs],
            }
            for rungs in brackets
        ]
        self.max_resources_ = most


def _check_count(name, value, requirement):
    is_count = isinstance(value, int | np.integer) and not isinstance(value, bool)
    if not is_count or value < 1:
        raise ValueError(f"{name} must be {requirement}, got {name}={value!r}")
