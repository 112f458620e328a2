"""A search in stages: a few parameters at a time, and all of them at last."""

import numpy as np

from sktune.search.rounds.evaluation import Rounds
from sktune.search.rounds.seam import BaseSearchCV
from sktune.search.rounds.search_in_rounds import SearchInRounds
from sktune.search.staging.plans import read_stages
from sktune.search.staging.runs import StagedRun


class StagedSearch(SearchInRounds, BaseSearchCV):
    """Search in stages: each tunes some parameters, starting from the best that is known.

    The usual way to tune a network by hand: see what the network gives as it is, find the learning
    rate, then the regularization at this learning rate, and then look at all parameters together,
    close to what was found. The last stage is needed because parameters interact: the best
    learning rate depends on the batch size, say, and no stage of a single parameter can see it.

    The estimator as it is makes the first candidate, the stage ``"baseline"``. A stage takes over
    the parameters of the best candidate so far, of whatever stage. A parameter that an earlier
    stage has tuned is looked for around its best value only, in a part `narrow` of its range. All
    candidates have the same splits, and the networks of a stage are trained together.

    Parameters
    ----------
    estimator : estimator object
        What to tune.
    stages : list of (str, dict, list of dicts, or None)
        The name of each stage and its space: names of parameters to lists of values, to
        distributions with ``rvs`` or to distributions of :mod:`optuna.distributions`. Of several
        dicts each is a space of its own, as in a search over kinds of models with other parameters
        each. None stands for the spaces of all stages before, together.
    n_iter : int or dict of int, default=20
        How many candidates a stage draws; a dict has it by the name of the stage. It is not used by
        ``"grid"``.
    sampler : {"gp", "random", "grid", "tpe"}, optuna sampler, callable, or dict of these, \
            default="gp"
        How the candidates of a stage are chosen; a dict has it by the name of the stage. All but
        ``"random"`` and ``"grid"`` choose in rounds, by the scores so far, as in
        :class:`sktune.BayesSearchCV`. They are told of the baseline and of the best candidate so
        far, where these lie in the space of the stage. A small space gives no candidate twice.
        ``"random"`` draws all candidates of a stage at once, which takes the least time, and takes
        any distribution with ``rvs``.
    narrow : float, default=0.5
        The part of a parameter's range that is left once the parameter has been tuned,
        ``0 < narrow <= 1``: of a distribution's probability, or of an ordered list of numbers.
    scoring, n_jobs, refit, cv, verbose, pre_dispatch, error_score, return_train_score, \
            ensemble, ensemble_refit, max_oof_mb, cache, cache_limit, checkpoint_interval
        As in :class:`sktune.GridSearchCV`. Under several metrics, `refit` must name the one by
        which the best candidate of a stage is chosen, or be a callable.
    random_state : int, RandomState or None, default=None
        From which the candidates follow.
    stop, patience, tol
        See :class:`sktune.BayesSearchCV`. With ``stop="auto"`` each stage ends by itself when its
        next round is expected to gain too little, and the next stage begins; a stage of
        ``"grid"`` is always evaluated as a whole.
    timeout : float, default=None
        Seconds until the whole search ends, in whatever stage that is. The candidates that are
        complete are returned, and the best is refitted.

    Attributes
    ----------
    cv_results_ : dict
        As in scikit-learn, of all stages one behind the other. ``params`` has all parameters that
        the candidate sets, those of earlier stages included; ``stage`` has the name of the stage.
    stages_ : list of dict
        For each stage its ``name``, ``n_candidates``, the ``space`` that was searched after
        narrowing, ``best_score`` until then, ``best_params`` until then, and the ``stop_reason``
        why the stage has ended, in words and numbers.
    stop_reason_ : str
        Why the search has ended.
    n_rounds_ : int
        How many batches were evaluated.
    best_params_, best_score_, best_index_, best_estimator_, fusion_
        As in :class:`sktune.GridSearchCV`.

    Raises
    ------
    ValueError
        In ``fit``: if there is no stage, two stages have one name, a space is empty or names no
        parameter of the estimator, or a setting is out of its range.

    Examples
    --------
    >>> from scipy.stats import loguniform, uniform
    >>> from sklearn.datasets import load_iris
    >>> from sktune import NeuralNetClassifier, StagedSearch
    >>> X, y = load_iris(return_X_y=True)
    >>> net = NeuralNetClassifier(max_epochs=20, random_state=0)
    >>> stages = [
    ...     ("alpha", {"lr": loguniform(1e-4, 1e-1)}),
    ...     ("regularization", {"module__dropout": uniform(0, 0.5)}),
    ...     ("all", None),
    ... ]
    >>> search = StagedSearch(net, stages, n_iter=4, cv=3, random_state=0).fit(X, y)
    >>> [(stage["name"], stage["n_candidates"]) for stage in search.stages_]
    [('baseline', 1), ('alpha', 4), ('regularization', 4), ('all', 4)]
    >>> sorted(search.cv_results_["params"][-1])
    ['lr', 'module__dropout']
    """

    def __init__(
        self,
        estimator,
        stages,
        *,
        n_iter=20,
        sampler="gp",
        narrow=0.5,
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
        self.stages = stages
        self.n_iter = n_iter
        self.sampler = sampler
        self.narrow = narrow
        self.stop = stop
        self.patience = patience
        self.tol = tol
        self.timeout = timeout
        self.ensemble = ensemble
        self.ensemble_refit = ensemble_refit
        self.max_oof_mb = max_oof_mb
        self.cache = cache
        self.cache_limit = cache_limit
        self.checkpoint_interval = checkpoint_interval
        self.random_state = random_state

    def _check_fit(self, X, y, params):
        """Raise an error about what can be known to be wrong before anything is trained."""
        read_stages(self)

    def _list_parts(self):
        """Return the parts of the spaces of all stages; the baseline is the estimator as it is."""
        return [{}, *(part for stage in read_stages(self) for part in stage.tuned)]

    def _run_search(self, evaluate_candidates, *, callback_ctx=None):
        """Evaluate the candidates of each stage, of which scikit-learn keeps the results."""
        rounds = Rounds(self, evaluate_candidates, callback_ctx)
        self._check_n_splits()
        self.stages_ = []
        self.stop_reason_ = StagedRun(self, rounds, read_stages(self)).run()
        rounds.end()
