"""A Bayesian sampler for one stage of a search, which begins with what is known before."""

import numpy as np
from sklearn.utils import check_random_state

from sktune.search.samplers.distributions import Space
from sktune.search.samplers.optuna_samplers import make_sampler


class StageSampler:
    """Asked for candidates of a stage, and told their scores.

    Parameters
    ----------
    sampler : {"tpe", "gp"}, optuna sampler, or callable
        See :class:`sktune.BayesSearchCV`.
    space : dict
        Names of parameters to distributions or lists of values.
    seed : int
    """

    def __init__(self, sampler, space, seed):
        self.space = Space(space)
        self.sampler = make_sampler(sampler, self.space, seed)
        self.rng = check_random_state(seed)
        self.known = set()

    @property
    def n_left(self):
        """How many candidates are not known yet, where the space is small; else infinity."""
        if not self.space.is_small:
            return np.inf
        return self.space.n_values - len(self.known)

    def tell_known(self, params, score):
        """Take the score of a candidate of earlier stages, if it lies in the space."""
        point = self.space.find_point(params)
        if point is not None and np.isfinite(score) and point not in self.known:
            self.known.add(point)
            self.sampler.tell([point], [float(score)])

    def ask(self, n):
        """Return the Points of n candidates; known ones of a small space are replaced."""
        points = []
        for point in self.sampler.ask(n):
            if self.space.is_small and point in self.known:
                free = [other for other in self.space.list_points() if other not in self.known]
                point = free[self.rng.randint(len(free))]
            self.known.add(point)
            points.append(point)
        return points

    def params_at(self, point):
        """Return the parameters of a Point."""
        return self.space.params_at(point)

    def tell(self, points, scores):
        """Take the scores of candidates; what is not finite counts as failed."""
        scores = [float(score) if np.isfinite(score) else float("nan") for score in scores]
        self.sampler.tell(points, scores)
