"""Optuna's samplers, asked for batches."""

from contextlib import contextmanager
from copy import deepcopy

import numpy as np

from sktune.runtime.names import did_you_mean
from sktune.runtime.optional import import_optuna
from sktune.search.samplers.distributions import Point
from sktune.search.samplers.gaussian_process import GaussianProcessSampler

SAMPLERS = ("tpe", "gp")
# What tells the part of a space that has several.
_PART = "part of the space"
# Who needs Optuna, as an error says where it is missing.
_WHAT = "a sampler of Optuna's"


@contextmanager
def quiet_optuna():
    """Let Optuna print nothing of studies that are made or opened."""
    logging = import_optuna(_WHAT).logging
    before = logging.get_verbosity()
    logging.set_verbosity(logging.WARNING)
    try:
        yield
    finally:
        logging.set_verbosity(before)


class OptunaSampler:
    """Asks an Optuna sampler, in a study that lasts as long as the search.

    Parameters
    ----------
    space : Space
    sampler : optuna.samplers.BaseSampler
    """

    def __init__(self, space, sampler):
        self.space = space
        self.optuna = import_optuna(_WHAT)
        with quiet_optuna():
            self.study = self.optuna.create_study(direction="maximize", sampler=sampler)
        # the trials that are being evaluated, by their candidates
        self.running = {}

    def ask(self, n):
        """Return n candidates to be evaluated."""
        points = []
        while len(points) < n:
            trial = self.study.ask()
            part = 0
            if len(self.space.parts) > 1:
                part = trial.suggest_categorical(_PART, range(len(self.space.parts)))
            positions = []
            for name, dimension in self.space.parts[part].items():
                sampled = _suggest(trial, self._label(part, name), dimension.sampled_distribution())
                positions.append(dimension.position_of_sampled(sampled))
            point = Point(part, tuple(positions))
            self.running.setdefault(point, []).append(trial)
            points.append(point)
        return points

    def tell(self, points, scores):
        """Take the scores of candidates; NaN is a candidate that failed."""
        states = self.optuna.trial.TrialState
        for point, score in zip(points, scores, strict=True):
            has_failed = np.isnan(score)
            waiting = self.running.get(point)
            trial = waiting.pop() if waiting else self._add(point)
            if has_failed:
                self.study.tell(trial, state=states.FAIL)
            else:
                self.study.tell(trial, score)

    def _add(self, point):
        """Begin a trial of a candidate that was not asked for; return its number."""
        params = {}
        distributions = {}
        if len(self.space.parts) > 1:
            params[_PART] = point.part
            choices = range(len(self.space.parts))
            distributions[_PART] = self.optuna.distributions.CategoricalDistribution(choices)
        dimensions = self.space.parts[point.part].items()
        for (name, dimension), position in zip(dimensions, point.positions, strict=True):
            label = self._label(point.part, name)
            params[label] = dimension.sampled_at(position)
            distributions[label] = dimension.sampled_distribution()
        trial = self.optuna.create_trial(
            state=self.optuna.trial.TrialState.RUNNING, params=params, distributions=distributions
        )
        self.study.add_trial(trial)
        return len(self.study.get_trials(deepcopy=False)) - 1

    def _label(self, part, name):
        """Return what the study calls a parameter, which belongs to a part of the space."""
        return name if len(self.space.parts) == 1 else f"{part}: {name}"


def _suggest(trial, name, distribution):
    """Let a trial draw from a distribution."""
    kind = type(distribution).__name__
    if kind == "CategoricalDistribution":
        return trial.suggest_categorical(name, distribution.choices)
    low, high = distribution.low, distribution.high
    if kind == "IntDistribution":
        return trial.suggest_int(name, low, high, step=distribution.step, log=distribution.log)
    return trial.suggest_float(name, low, high, step=distribution.step, log=distribution.log)


def check_sampler(sampler):
    """Raise a ValueError unless `sampler` is a known name, an Optuna sampler, or makes one."""
    if isinstance(sampler, str):
        if sampler not in SAMPLERS:
            raise ValueError(
                f"sampler must be one of {sorted(SAMPLERS)} or an Optuna sampler, "
                f"got sampler={sampler!r}{did_you_mean(sampler, SAMPLERS)}"
            )
        return
    base = import_optuna(_WHAT).samplers.BaseSampler
    if not isinstance(sampler, base) and not callable(sampler):
        raise ValueError(
            f"sampler must be one of {sorted(SAMPLERS)} or an Optuna sampler, got {sampler!r}"
        )


def make_sampler(sampler, space, seed):
    """Return what is asked for candidates and told their scores: an object with `ask` and `tell`.

    Parameters
    ----------
    sampler : {"gp", "tpe"}, optuna.samplers.BaseSampler, or callable
        Called with ``seed=``, a callable returns an Optuna sampler. A sampler is copied: a fit
        does not change what the next one begins with.
    space : Space
    seed : int
    """
    if isinstance(sampler, str) and sampler == "gp":
        return GaussianProcessSampler(space, seed)
    optuna = import_optuna(_WHAT)
    if isinstance(sampler, str):
        sampler = optuna.samplers.TPESampler(seed=seed)
    elif isinstance(sampler, optuna.samplers.BaseSampler):
        sampler = deepcopy(sampler)
    else:
        sampler = sampler(seed=seed)
    return OptunaSampler(space, sampler)
