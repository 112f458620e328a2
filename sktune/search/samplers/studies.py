"""The Optuna study of a search: what its plots, its dashboard and a resumed search read."""

import numpy as np
from sklearn.base import BaseEstimator

from sktune.engine.digest import digest
from sktune.runtime.optional import import_optuna
from sktune.search.samplers.distributions import Choices, Number, Point, Quantiles, ZeroOr
from sktune.search.samplers.optuna_samplers import quiet_optuna

# The name of the study in a storage, and of what is noted of it and of its trials.
_NAME = "sktune"
_KEY = "sktune"
_POINT = "point"
_ROWS = "rows"


def describe_space(space):
    """Return a digest of a space, equal in every process."""
    parts = [{name: _describe(values) for name, values in part.items()} for part in space.parts]
    return digest(parts)


def _describe(dimension):
    """Return what tells a dimension from others."""
    if isinstance(dimension, ZeroOr):
        return ("zero_or", dimension.p_zero, _describe(dimension.distribution))
    if isinstance(dimension, Quantiles):
        frozen = dimension.distribution
        return (frozen.dist.name, repr(frozen.args), repr(sorted(frozen.kwds.items())))
    if isinstance(dimension, Choices):
        return ("list", [_describe_value(value) for value in dimension.values])
    return repr(dimension)


def _describe_value(value):
    return describe_estimator(value) if isinstance(value, BaseEstimator) else value


def describe_estimator(estimator):
    """Return a digest of an estimator's class and parameters, equal in every process."""
    params = estimator.get_params()
    described = {}
    for name, value in params.items():
        # the parameters of an estimator within are told by names of their own
        is_nested = isinstance(value, BaseEstimator) or name == "steps"
        described[name] = type(value).__name__ if is_nested else value
    return digest((type(estimator), described))


class SearchStudy:
    """A study whose trials are the candidates of a search, with their true parameters.

    Parameters
    ----------
    space : Space
    storage : str, path or None
        Optuna's journal file; None keeps the study in memory.

    Raises
    ------
    ValueError
        If the file cannot be opened, or holds a study of others.
    """

    def __init__(self, space, storage):
        self.optuna = import_optuna("the study of a search")
        self.states = self.optuna.trial.TrialState
        self.space = space
        self.distributions = _shown_distributions(space)
        self.study = self._open(storage)
        self._check_owner(storage)

    def _open(self, storage):
        """Return a new study, or the one that a file holds."""
        if storage is None:
            return self._create(None)
        storages = self.optuna.storages
        try:
            backend = storages.journal.JournalFileBackend(str(storage))
            return self._create(storages.JournalStorage(backend))
        # what a file of others makes Optuna raise depends on what it holds
        except Exception as error:
            raise ValueError(
                "storage must be the path of Optuna's journal file, in a folder that can be "
                f"written to, got storage={storage!r} ({type(error).__name__}: {error})"
            ) from error

    def _create(self, backend):
        # the study's own sampler is asked for nothing
        sampler = self.optuna.samplers.RandomSampler(seed=0)
        with quiet_optuna():
            return self.optuna.create_study(
                storage=backend,
                sampler=sampler,
                study_name=_NAME,
                direction="maximize",
                load_if_exists=True,
            )

    def _check_owner(self, storage):
        """Refuse a study of others; mark trials that were left running as failed."""
        trials = self.study.get_trials(deepcopy=False)
        if trials and _KEY not in self.study.user_attrs:
            raise ValueError(
                f"storage must hold a study of sktune, got another one in storage={storage!r}"
            )
        for trial in trials:
            if trial.state == self.states.RUNNING:
                self.study.tell(trial.number, state=self.states.FAIL)

    def check(self, digests):
        """Raise a ValueError if the study is of something else; note what it is of if it is new.

        `digests` are texts, by what they tell of in an error.
        """
        known = dict(self.study.user_attrs.get(_KEY, {}))
        for what, own in digests.items():
            if known.setdefault(what, own) != own:
                raise ValueError(
                    "storage must belong to the search that goes on with it, "
                    f"got the study of a search of {what} other than these"
                )
        if known != self.study.user_attrs.get(_KEY):
            self.study.set_user_attr(_KEY, known)

    def begin(self, points, candidates):
        """Return a running trial for each candidate."""
        trials = []
        for point, params in zip(points, candidates, strict=True):
            shown = self._show(params)
            noted = {_POINT: None if point is None else [point.part, list(point.positions)]}
            self.study.enqueue_trial(shown, user_attrs=noted)
            distributions = {name: self.distributions[name] for name in shown}
            trials.append(self.study.ask(distributions))
        return trials

    def end(self, trials, outcomes, metric):
        """Tell the scores of candidates to their trials."""
        for trial, outcome in zip(trials, outcomes, strict=True):
            if not outcome.is_complete:
                self.study.tell(trial, state=self.states.FAIL)
                continue
            trial.set_user_attr(_ROWS, [_as_json(row) for row in outcome.rows])
            score = outcome.score(metric)
            if np.isfinite(score):
                self.study.tell(trial, score)
            else:
                self.study.tell(trial, state=self.states.FAIL)

    def restore(self):
        """Yield the Point, or None, and the rows of each candidate that was evaluated before."""
        for trial in self.study.get_trials(deepcopy=False):
            if _ROWS not in trial.user_attrs:
                continue
            noted = trial.user_attrs[_POINT]
            point = None if noted is None else Point(noted[0], tuple(noted[1]))
            yield point, trial.user_attrs[_ROWS]

    def _show(self, params):
        """Return the parameters that a trial can hold, as it shows them."""
        shown = {}
        for name, value in params.items():
            for part in self.space.parts:
                if name not in self.distributions or name not in part:
                    continue
                try:
                    part[name].position_of(value)
                except ValueError:
                    # a setting of the estimator's own that is no value of the space
                    continue
                shown[name] = part[name].shown(value)
                break
        return shown


def _shown_distributions(space):
    """Return a distribution for each name that holds its values in all parts of a space.

    A study keeps to one distribution for a name. Where none holds numbers as well as other
    things, the name is left out.
    """
    found = {}
    for part in space.parts:
        for name, dimension in part.items():
            found.setdefault(name, []).append(dimension.shown_distribution())
    joined = {name: _join(distributions) for name, distributions in found.items()}
    return {name: distribution for name, distribution in joined.items() if distribution is not None}


def _join(distributions):
    """Return a distribution that holds what each of several holds; None if there is none."""
    kinds = {type(distribution).__name__ for distribution in distributions}
    if len(distributions) == 1:
        return distributions[0]
    if "CategoricalDistribution" not in kinds:
        low = min(distribution.low for distribution in distributions)
        high = max(distribution.high for distribution in distributions)
        log = all(distribution.log for distribution in distributions)
        return Number(low, high, log, kinds == {"IntDistribution"}).shown_distribution()
    if len(kinds) > 1:
        return None
    choices = [choice for distribution in distributions for choice in distribution.choices]
    return type(distributions[0])(list(dict.fromkeys(choices)))


def _as_json(row):
    """Return what a task told of a fit, without NumPy's types and without its traceback."""
    kept = {}
    for name, value in row.items():
        if isinstance(value, dict):
            kept[name] = {metric: float(score) for metric, score in value.items()}
        elif isinstance(value, str) or value is None:
            kept[name] = value
        else:
            kept[name] = float(value)
    return kept
