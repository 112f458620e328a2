"""A search in stages: a few parameters at a time, and all of them at last."""

from collections.abc import Mapping
from functools import partial
from numbers import Integral, Real

import numpy as np
from sklearn.base import clone
from sklearn.model_selection import ParameterGrid, ParameterSampler
from sklearn.utils import check_random_state

from sktune.runtime.names import check_name
from sktune.search.base import _FusedSearch, make_rounds_store
from sktune.search.narrowing import narrow_space
from sktune.search.rounds.seam import BaseSearchCV, fix_splits
from sktune.search.rounds.sizes import default_batch_size
from sktune.search.rounds.tasks import SearchTasks
from sktune.search.samplers.distributions import Space
from sktune.search.samplers.optional import import_optuna
from sktune.search.samplers.optuna_samplers import check_sampler
from sktune.search.samplers.own_settings import read_own_settings
from sktune.search.samplers.stage_sampler import StageSampler

SAMPLERS = ("grid", "random", "tpe", "gp")
# What a stage has that an option given as a dict does not name.
_DEFAULTS = {"n_iter": 20, "sampler": "random"}


class StagedSearch(_FusedSearch, BaseSearchCV):
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
    stages : list of (str, dict or None)
        The name of each stage and its space: names of parameters to lists of values or to
        distributions with ``rvs``. None stands for the spaces of all stages before, together.
    n_iter : int or dict of int, default=20
        How many candidates a stage draws; a dict has it by the name of the stage. It is not used by
        ``"grid"``.
    sampler : {"random", "grid", "tpe", "gp"}, optuna sampler, callable, or dict of these, \
            default="random"
        How the candidates of a stage are chosen; a dict has it by the name of the stage. All but
        the first two choose in rounds, by the scores so far, as in :class:`sktune.BayesSearchCV`.
        They are told of the baseline and of the best candidate so far, where these lie in the
        space of the stage. A small space gives no candidate twice.
    narrow : float, default=0.5
        The part of a parameter's range that is left once the parameter has been tuned,
        ``0 < narrow <= 1``: of a distribution's probability, or of an ordered list of numbers.
    scoring, n_jobs, refit, cv, verbose, pre_dispatch, error_score, return_train_score, \
            ensemble, ensemble_refit, max_oof_mb, cache, cache_limit, checkpoint_interval
        As in :class:`sktune.GridSearchCV`. Under several metrics, `refit` must name the one by
        which the best candidate of a stage is chosen, or be a callable.
    random_state : int, RandomState or None, default=None
        From which the candidates follow.

    Attributes
    ----------
    cv_results_ : dict
        As in scikit-learn, of all stages one behind the other. ``params`` has all parameters that
        the candidate sets, those of earlier stages included; ``stage`` has the name of the stage.
    stages_ : list of dict
        For each stage its ``name``, ``n_candidates``, the ``space`` that was searched after
        narrowing, ``best_score`` until then, and ``best_params`` until then.
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
        sampler="random",
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
        self.ensemble = ensemble
        self.ensemble_refit = ensemble_refit
        self.max_oof_mb = max_oof_mb
        self.cache = cache
        self.cache_limit = cache_limit
        self.checkpoint_interval = checkpoint_interval
        self.random_state = random_state

    def fit(self, X, y=None, **params):
        """Run the stages one after the other.

        Parameters
        ----------
        X, y, **params
            As in :class:`sktune.GridSearchCV`.

        Returns
        -------
        self : object
        """
        self._check_settings()
        try:
            return super().fit(X, y, **params)
        finally:
            vars(self).pop("_report", None)

    def _fusing_options(self):
        options = super()._fusing_options()
        self._report = options["report"]
        return options

    def _make_store(self):
        """Return a store, so that a stage knows what those before it have trained."""
        return super()._make_store() or make_rounds_store()

    def _run_search(self, evaluate_candidates, *, callback_ctx=None):
        """Evaluate the candidates of each stage, of which scikit-learn keeps the results."""
        splits = fix_splits(self)
        rng = check_random_state(self.random_state)
        self.stages_ = []
        n_evaluated = 0
        tasks = SearchTasks(self, callback_ctx)

        def evaluate(name, candidates, stage=None):
            nonlocal n_evaluated
            self._progress.name_round(f"stage {name!r}")
            # scikit-learn numbers the candidates of each call from 0
            self._report.n_earlier = n_evaluated
            n_evaluated += len(candidates)
            # scikit-learn extends the column by that of each round
            more = {"stage": [name] * len(candidates)}
            # a stage is a task itself, or has one for each of its rounds
            outer = tasks if stage is None else stage
            task = f"stage-{name}" if stage is None else "round"
            with outer.evaluating(task, candidates) as arguments:
                return evaluate_candidates(candidates, cv=splits, more_results=more, **arguments)

        self._progress.expect(self._count_fits(self.stages) + self.n_splits_)
        results = evaluate("baseline", [{}])
        best_params = self._note_stage("baseline", {}, results)
        tuned = {}
        for number, (name, space) in enumerate(self.stages):
            self._progress.expect(self._count_fits(self.stages[number:]))
            whole = dict(tuned) if space is None else space
            # where the baseline is the best, its values are the estimator's
            best_values = {**read_own_settings(self.estimator, tuned), **best_params}
            center = {key: best_values[key] for key in tuned if key in best_values}
            narrowed = narrow_space(whole, center, self.narrow)
            if self._is_bayesian(name):
                stage = tasks.begin(f"stage-{name}")
                results = self._search_in_rounds(
                    name, narrowed, results, partial(evaluate, stage=stage), rng
                )
                stage.end()
            else:
                drawn = self._draw(name, narrowed, rng)
                results = evaluate(name, [{**best_params, **candidate} for candidate in drawn])
            best_params = self._note_stage(name, narrowed, results)
            tuned.update(whole)
        self._progress.end()
        tasks.end()

    def _count_fits(self, stages):
        """Return how many fits stages have; a small space may give fewer in the end."""
        n_candidates = 0
        for name, space in stages:
            n_own = self._read_option("n_iter", name)
            if space is not None and _is_list_only(space):
                n_values = len(ParameterGrid(space))
                is_grid = self._read_option("sampler", name) == "grid"
                n_own = n_values if is_grid else min(n_own, n_values)
            n_candidates += n_own
        return n_candidates * self.n_splits_

    def _note_stage(self, name, space, results):
        """Note what a stage has found; return the parameters of the best candidate so far."""
        best = self._find_best(results)
        n_earlier = sum(stage["n_candidates"] for stage in self.stages_)
        self.stages_.append(
            {
                "name": name,
                "n_candidates": len(results["params"]) - n_earlier,
                "space": space,
                "best_score": self._read_score(results, best),
                "best_params": results["params"][best],
            }
        )
        return results["params"][best]

    def _is_bayesian(self, name):
        """Tell whether a stage chooses its candidates by the scores so far."""
        sampler = self._read_option("sampler", name)
        return not isinstance(sampler, str) or sampler not in ("grid", "random")

    def _search_in_rounds(self, name, space, results, evaluate, rng):
        """Let a Bayesian sampler choose the candidates of a stage; return all results so far."""
        sampler = StageSampler(self._read_option("sampler", name), space, rng.randint(2**31 - 1))
        own = read_own_settings(self.estimator, space)
        column = f"mean_test_{self._name_metric(results)}"
        best = self._find_best(results)
        best_params = results["params"][best]
        for row in (best, 0):
            sampler.tell_known({**own, **results["params"][row]}, results[column][row])
        n_iter = self._read_option("n_iter", name)
        n_done = 0
        batch_size = default_batch_size(self, n_iter)
        while n_done < n_iter and sampler.n_left > 0:
            points = sampler.ask(int(min(batch_size, n_iter - n_done, sampler.n_left)))
            candidates = [{**best_params, **sampler.params_at(point)} for point in points]
            results = evaluate(name, candidates)
            sampler.tell(points, results[column][-len(points) :])
            n_done += len(points)
        return results

    def _draw(self, name, space, rng):
        """Return the candidates of a stage."""
        grid = ParameterGrid(space) if _is_list_only(space) else None
        if self._read_option("sampler", name) == "grid":
            return list(grid)
        n_iter = self._read_option("n_iter", name)
        if grid is not None:
            # ParameterSampler warns where there are not as many
            n_iter = min(n_iter, len(grid))
        return list(ParameterSampler(space, n_iter, random_state=rng))

    def _read_option(self, option, name):
        """Return what `n_iter` or `sampler` is for a stage."""
        value = getattr(self, option)
        if isinstance(value, Mapping):
            return value.get(name, _DEFAULTS[option])
        return value

    def _find_best(self, results):
        """Return the row of the best candidate so far."""
        if callable(self.refit):
            return self.refit(results)
        return int(np.argmin(results[f"rank_test_{self._name_metric(results)}"]))

    def _read_score(self, results, row):
        """Return a candidate's mean score; None where a callable chooses among several metrics."""
        if callable(self.refit) and "mean_test_score" not in results:
            return None
        return float(results[f"mean_test_{self._name_metric(results)}"][row])

    def _name_metric(self, results):
        """Return the name under which the results have the metric that chooses."""
        if "rank_test_score" in results:
            return "score"
        if not isinstance(self.refit, str):
            raise ValueError(
                "refit must name the metric by which stages choose where there are several, "
                f"got refit={self.refit!r}"
            )
        return self.refit

    def _check_settings(self):
        """Raise for a setting that cannot be used, before anything is trained."""
        if not isinstance(self.narrow, Real) or not 0 < self.narrow <= 1:
            raise ValueError(f"narrow must be above 0 and at most 1, got narrow={self.narrow!r}")
        names = _check_stages(self.stages)
        for option in _DEFAULTS:
            value = getattr(self, option)
            if isinstance(value, Mapping):
                for name in value:
                    check_name(f"a stage in {option}", name, names)
        tuned = {}
        for name, space in self.stages:
            _check_n_iter(name, self._read_option("n_iter", name))
            sampler = self._read_option("sampler", name)
            if isinstance(sampler, str):
                check_name("sampler", sampler, SAMPLERS)
            _check_space(name, space or {}, self.estimator)
            tuned.update(space or {})
            if self._is_bayesian(name):
                self._check_bayesian(sampler, tuned if space is None else space)
            if self._read_option("sampler", name) == "grid" and not _is_list_only(space or {}):
                raise ValueError(
                    f"stage {name!r} must have lists of values only for sampler='grid', "
                    "got a distribution"
                )

    def _check_bayesian(self, sampler, space):
        """Raise for what a Bayesian stage cannot use."""
        import_optuna()
        check_sampler(sampler)
        Space(space)
        has_several = self.scoring is not None and not isinstance(self.scoring, str)
        has_several = has_several and not callable(self.scoring)
        if has_several and not isinstance(self.refit, str):
            raise ValueError(
                "refit must name the metric by which a Bayesian stage chooses where there are "
                f"several, got refit={self.refit!r}"
            )


def _is_list_only(space):
    """Tell whether a space consists of lists of values."""
    return not any(hasattr(values, "rvs") for values in space.values())


def _check_stages(stages):
    """Raise unless stages are pairs of different names and spaces; return the names."""
    if len(stages) == 0:
        raise ValueError("stages must have at least one stage, got none")
    names = []
    for stage in stages:
        is_pair = isinstance(stage, tuple | list) and len(stage) == 2
        if not is_pair or not isinstance(stage[0], str):
            raise ValueError(f"a stage must be a pair (name, space), got {stage!r}")
        name, space = stage
        if name == "baseline" or name in names:
            raise ValueError(f"stages must have different names, none 'baseline', got {name!r}")
        if space is None and not names:
            raise ValueError(f"the first stage must have a space, got None for {name!r}")
        if space is not None and (not isinstance(space, Mapping) or not space):
            raise ValueError(
                f"stage {name!r} must have a dict of parameters as its space, got {space!r}"
            )
        names.append(name)
    return names


def _check_n_iter(name, n_iter):
    """Raise unless a stage's number of candidates can be used."""
    if not isinstance(n_iter, Integral) or isinstance(n_iter, bool) or n_iter < 1:
        raise ValueError(f"n_iter must be at least 1, got n_iter={n_iter!r} for stage {name!r}")


def _check_space(name, space, estimator):
    """Raise unless a space names parameters of the estimator, and has values for each."""
    for parameter, values in space.items():
        if hasattr(values, "rvs"):
            value = values.rvs(random_state=0)
        elif isinstance(values, str) or not hasattr(values, "__len__") or len(values) == 0:
            raise ValueError(
                f"parameter {parameter!r} of stage {name!r} must have a distribution or a list "
                f"of values, got {values!r}"
            )
        else:
            value = values[0]
        try:
            clone(estimator).set_params(**{parameter: value})
        except ValueError as error:
            raise ValueError(
                f"stage {name!r} must name parameters of the estimator, got {parameter!r}: {error}"
            ) from error
