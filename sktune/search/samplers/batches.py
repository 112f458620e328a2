"""Batches of candidates that a sampler chooses by the scores so far."""

import numpy as np
from sklearn.utils import check_random_state

from sktune.search.rounds.sources import Source
from sktune.search.samplers.optuna_samplers import make_sampler


class BatchSampler:
    """Asked for batches of candidates, and told their scores; a small space gives none twice.

    In a small space a candidate that the sampler asks for once more is replaced by one that is not
    known yet. The sampler is told the score of both.

    Parameters
    ----------
    sampler : {"gp", "tpe"}, optuna sampler, or callable
        See :class:`sktune.BayesSearchCV`.
    space : Space
    seed : int
    """

    def __init__(self, sampler, space, seed):
        self.space = space
        self.sampler = make_sampler(sampler, space, seed)
        self.rng = check_random_state(seed)
        # of all candidates so far, by their Points; None until it is told
        self.scores = {}
        # what the sampler has asked for once more, and waits for
        self.repeated = []

    @property
    def n_left(self):
        """How many candidates are not known yet, where the space is small; else infinity."""
        if not self.space.is_small:
            return np.inf
        return self.space.n_values - len(self.scores)

    def add(self, point):
        """Take note of a candidate that is evaluated without being asked for."""
        self.scores.setdefault(point, None)

    def ask(self, n):
        """Return the Points of n candidates, fewer where a small space has no more."""
        points = []
        for point in self.sampler.ask(n) if n > 0 else []:
            if self.space.is_small and point in self.scores:
                self.repeated.append(point)
                free = [other for other in self.space.list_points() if other not in self.scores]
                if not free:
                    break
                point = free[self.rng.randint(len(free))]
            self.add(point)
            points.append(point)
        return points

    def tell(self, points, scores):
        """Take the scores of candidates; what is not finite counts as failed."""
        for point, score in zip(points, scores, strict=True):
            self.scores[point] = float(score) if np.isfinite(score) else float("nan")
        told = [*points, *(point for point in self.repeated if self.scores[point] is not None)]
        self.repeated = [point for point in self.repeated if self.scores[point] is None]
        self.sampler.tell(told, [self.scores[point] for point in told])


class Asked(Source):
    """Candidates of a search that a sampler chooses.

    Parameters
    ----------
    search : SearchInRounds
    sampler : {"gp", "tpe"}, optuna sampler, or callable
        See :class:`sktune.BayesSearchCV`.
    space : Space
    n_iter : int
        How many candidates to evaluate.
    seed : int
    """

    def __init__(self, search, sampler, space, n_iter, seed):
        super().__init__()
        self.search = search
        self.space = space
        self.n_iter = n_iter
        self.sampler = BatchSampler(sampler, space, seed)

    @property
    def n_left(self):
        """How many candidates all further rounds have."""
        n_left = min(self.n_iter - len(self.found), self.sampler.n_left)
        return int(max(n_left, 0))

    def choose(self, n):
        """Ask the sampler for n candidates."""
        points = self.sampler.ask(n)
        return points, [self.params_at(point) for point in points]

    def params_at(self, point):
        """Return the parameters of a candidate."""
        return self.space.params_at(point)

    def know(self, points, outcomes):
        """Tell the sampler of candidates of earlier stages."""
        super().know(points, outcomes)
        self.tell(points, outcomes)

    def take(self, points, outcomes):
        """Tell the sampler what came of the candidates."""
        super().take(points, outcomes)
        self.tell(points, outcomes)

    def tell(self, points, outcomes):
        """Tell the sampler the scores of candidates that are in the space and complete."""
        pairs = [
            (point, outcome)
            for point, outcome in zip(points, outcomes, strict=True)
            if point is not None and outcome.is_complete
        ]
        if not pairs:
            return
        metric = self.search._find_metric(pairs[0][1])
        scores = [outcome.score(metric) for _, outcome in pairs]
        self.sampler.tell([point for point, _ in pairs], scores)
