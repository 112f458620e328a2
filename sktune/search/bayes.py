"""Bayesian optimization: each round of candidates is chosen by the scores of those before."""

from functools import partial
from numbers import Integral

import numpy as np
from sklearn import model_selection
from sklearn.utils import check_random_state

from sktune.engine.digest import digest
from sktune.runtime.optional import import_optuna
from sktune.search.rounds.evaluation import Rounds
from sktune.search.rounds.search_in_rounds import SearchInRounds
from sktune.search.rounds.session import Outcome
from sktune.search.rounds.sizes import default_batch_size
from sktune.search.samplers.batches import Asked
from sktune.search.samplers.distributions import Space
from sktune.search.samplers.optuna_samplers import check_sampler
from sktune.search.samplers.own_settings import read_own_settings
from sktune.search.samplers.studies import SearchStudy, describe_estimator, describe_space


class BayesSearchCV(SearchInRounds, model_selection.RandomizedSearchCV):
    """Search by Bayesian optimization, with cross-validation.

    A sampler chooses a batch of candidates by the scores so far; their networks are trained
    together, on the same splits in each round; the sampler is told their scores. It has the face of
    :class:`sklearn.model_selection.RandomizedSearchCV`, and takes any estimator: what is no network
    is fitted one by one. Optuna is needed: ``pip install "sktune[bayes]"``.

    Parameters
    ----------
    estimator : estimator object
        What to tune. Its own settings are the first candidate. A parameter that it does not set,
        such as ``optimizer__weight_decay``, has the default of the optimizer, module or criterion
        of its skorch net. Where that is not known, as for a module that is an instance or takes
        ``**kwargs``, the first candidate is evaluated, but the sampler is not told of it.
    param_distributions : dict or list of dicts
        Names of parameters to lists of values, to frozen distributions of one number of
        :mod:`scipy.stats`, to :class:`zero_or` and :class:`loguniform_int`, or to distributions of
        :mod:`optuna.distributions`. Of several dicts each is a space of its own, as in a search
        over kinds of models with other parameters each.
    n_iter : int, default=30
        How many candidates to evaluate, those of a `storage` that is gone on with included.
    sampler : {"gp", "tpe"}, optuna sampler, or callable, default="gp"
        ``"gp"`` is a Gaussian process, fitted once for each batch, with Thompson sampling
        (Kandasamy et al. 2018). ``"tpe"`` is Optuna's Tree-structured Parzen Estimator with its
        defaults (Bergstra et al. 2011), which learns less from a few large batches. A sampler of
        Optuna's is copied, and has a seed of its own; a callable, such as the class of one, is
        called with ``seed=``.
    batch_size : int, default=None
        How many candidates to evaluate in a round. None is what trains at no extra cost, and a
        third of `n_iter` at most: for networks on a CPU 32, on a GPU 512 fits; for what is fitted
        one by one, as many as keep `n_jobs` busy.
    storage : str or path, default=None
        Optuna's journal file, which the candidates are kept in, and in which a search that was
        broken off is gone on with: the same estimator, space, data, splits and scoring. None: each
        ``fit`` begins anew.
    random_state : int, RandomState instance or None, default=None
        Seeds the sampler.
    stop : {"auto"}, default=None
        ``"auto"`` ends the search when another batch (of ten candidates at least) is expected to
        gain less than `tol` times the standard error of the best score (corrected: Nadeau & Bengio
        2003; the idea: Makarova et al. 2022). None goes on to `n_iter`.
    patience : int, default=1
        How many rounds in a row have to say so.
    tol : float, default=0.5
        See `stop`.
    timeout : float, default=None
        Seconds until the search ends: networks that are trained together end with their epoch, and
        no other fit begins any more. The candidates that are complete are returned, and the best is
        refitted. On a CPU a round is trained a few candidates at a time, so that few are lost.
    scoring, n_jobs, refit, cv, verbose, pre_dispatch, error_score, return_train_score, \
            ensemble, ensemble_refit, max_oof_mb, cache, cache_limit, checkpoint_interval, racing
        See :class:`GridSearchCV`. With several scores, `refit` names the one that guides the
        search.

    Attributes
    ----------
    cv_results_ : dict
        As in scikit-learn.
    best_estimator_, best_score_, best_params_, best_index_, scorer_, n_splits_, refit_time_, \
    multimetric_, classes_, n_features_in_, feature_names_in_
        As in scikit-learn.
    study_ : optuna.Study
        The candidates with their parameters and scores, for the plots of
        :mod:`optuna.visualization`.
    stop_reason_ : str
        Why the search has ended, in words and numbers.
    n_rounds_ : int
        How many batches were evaluated.
    fusion_ : FusionReport
        What was trained together, and why a fit was not; ``print`` it for a summary.

    Examples
    --------
    >>> from scipy.stats import loguniform
    >>> from sklearn.datasets import load_iris
    >>> from sktune import BayesSearchCV, NeuralNetClassifier
    >>> X, y = load_iris(return_X_y=True)
    >>> net = NeuralNetClassifier(max_epochs=20, random_state=0)
    >>> space = {"lr": loguniform(1e-5, 1e-1), "module__dropout": [0.0, 0.2]}
    >>> search = BayesSearchCV(net, space, n_iter=12, cv=3, random_state=0).fit(X, y)
    >>> len(search.cv_results_["params"]), len(search.study_.trials)
    (12, 12)
    >>> search.stop_reason_
    'all 12 candidates are evaluated'
    """

    is_guided = True

    def __init__(
        self,
        estimator,
        param_distributions,
        *,
        n_iter=30,
        sampler="gp",
        batch_size=None,
        storage=None,
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
            estimator,
            param_distributions,
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
        self.sampler = sampler
        self.batch_size = batch_size
        self.storage = storage
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
        self.racing = racing

    def _check_fit(self, X, y, params):
        """Raise an error about what can be known to be wrong before anything is trained."""
        for name, value in (("n_iter", self.n_iter), ("batch_size", self.batch_size)):
            if name == "batch_size" and value is None:
                continue
            if not isinstance(value, Integral) or isinstance(value, bool) or value < 1:
                raise ValueError(f"{name} must be at least 1, got {name}={value!r}")
        if self.ensemble is not None and self.storage is not None:
            raise ValueError(
                "ensemble must be None with a storage, which keeps scores and no models, "
                f"got ensemble={self.ensemble!r}"
            )
        import_optuna("BayesSearchCV")
        check_sampler(self.sampler)
        Space(self.param_distributions).check_names(self.estimator)

    def _list_parts(self):
        """Return the parts of the space, and an empty one for the estimator as it is."""
        return [{}, *super()._list_parts()]

    def _begin_fit(self, X, y, params):
        """Note what a study has to be of to be gone on with."""
        if self.storage is None:
            return
        self._session.digests = {
            "data": digest((X, y, params)),
            "estimator": describe_estimator(self.estimator),
            "scoring": digest((self.scoring, self.refit, self.return_train_score)),
        }

    def _run_search(self, evaluate_candidates, *, callback_ctx=None):
        """Ask for a batch, evaluate it, tell its scores, until the search ends."""
        space = Space(self.param_distributions)
        study = SearchStudy(space, self.storage)
        check_splits = None
        if self.storage is not None:
            study.check({"space": describe_space(space)} | self._session.digests)
            check_splits = partial(_check_splits, study)
        rounds = Rounds(self, evaluate_candidates, callback_ctx, check_splits)
        seed = check_random_state(self.random_state).randint(2**31 - 1)
        candidates = BayesianCandidates(self, space, study, seed)
        rule = self._make_rule(space, is_adaptive=True, seed=candidates.seed)
        if candidates.found and candidates.n_left == 0:
            # scikit-learn asks for an evaluation in any case
            self._session.is_repetition = True
            rounds.evaluate([candidates.found[0][1].params])
            self.stop_reason_ = self._find_reason(rounds, rule, candidates.found, 0)
        else:
            batch_size = self.batch_size or default_batch_size(self, self.n_iter)
            self.stop_reason_ = rounds.run(candidates, batch_size, rule)
        rounds.end()
        self.study_ = study.study


def _check_splits(study, splits):
    """Refuse to go on with a study on other splits."""
    rows = [[np.asarray(part) for part in split] for split in splits]
    study.check({"splits (cv must have a random_state if it shuffles)": digest(rows)})


class BayesianCandidates(Asked):
    """The candidates of one fit of a :class:`BayesSearchCV`; the first is the estimator as it is.

    Those that a study holds already are found from the beginning.

    Parameters
    ----------
    search : BayesSearchCV
    space : Space
    study : SearchStudy
    seed : int

    Attributes
    ----------
    seed : int
        That of the sampler: a search that goes on is not to draw once more what it began with.
    """

    def __init__(self, search, space, study, seed):
        self.study = study
        self.own = read_own_settings(search.estimator, space.names)
        # of the candidates that are being evaluated
        self.trials = []
        restored = list(study.restore())
        self.seed = (seed + len(restored)) % 2**31
        super().__init__(search, search.sampler, space, search.n_iter, self.seed)
        for number, (point, rows) in enumerate(restored):
            self.found.append((point, Outcome(self._params_of(number, point), rows)))
        search._session.restored = [outcome for _, outcome in self.found]
        if search._race is not None:
            for _, outcome in self.found:
                search._race.take(outcome.rows)
        if self.found:
            self.tell(*zip(*self.found, strict=True))

    def choose(self, n):
        """Ask the sampler for candidates, of which the study notes that they are evaluated."""
        points = self.sampler.ask(n) if self.found else self._begin(n)
        n_before = len(self.found)
        candidates = [
            self._params_of(number, point) for number, point in enumerate(points, n_before)
        ]
        self.trials = self.study.begin(points, candidates)
        return points, candidates

    def _begin(self, n):
        """Return the Points of the first batch."""
        own = self.space.find_point(self.own)
        if own is not None:
            self.sampler.add(own)
        return [own, *self.sampler.ask(n - 1)]

    def _params_of(self, number, point):
        """Return the parameters of a candidate; the first has the estimator's to the last bit."""
        return self.own if number == 0 else self.params_at(point)

    def take(self, points, outcomes):
        """Tell the study and the sampler what came of the candidates."""
        complete = [outcome for outcome in outcomes if outcome.is_complete]
        metric = self.search._find_metric(complete[0]) if complete else None
        self.study.end(self.trials, outcomes, metric)
        super().take(points, outcomes)
