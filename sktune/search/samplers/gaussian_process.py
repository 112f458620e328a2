"""A Gaussian process of the scores of a search, and the sampler that draws candidates by it."""

import warnings

import numpy as np
from scipy.linalg import cholesky
from scipy.optimize import minimize
from scipy.stats import norm, rankdata
from sklearn.exceptions import ConvergenceWarning
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import ConstantKernel, Matern, WhiteKernel

from sktune.search.samplers.distributions import Point

# How many candidates are drawn anew for each batch to be chosen from, and how many near the best.
_N_DRAWN = 800
_N_NEAR = 200
_N_BEST = 5
# How far from the best ones these are, in the unit interval of each dimension.
_NEAR = 0.1
# Of these, as many are drawn from the process together: those whose mean plus so many standard
# deviations is the highest. The others are almost never the best of a draw, and the time of draws
# grows with the cube of their number.
_N_PROMISING = 300
_N_DEVIATIONS = 3.0
# Candidates that are drawn without a model, as Optuna's TPE does; more where a space has several
# parts, each of which must have been seen, but no more than a short search can spare.
_N_STARTUP = 10
_N_STARTUP_OF_PART = 6
_MOST_STARTUP = 20
# The optimization of the kernel's numbers ends at the latest after so many steps.
_MOST_STEPS = 30
# From so many scores these numbers are found at most, and so many the process knows at most: the
# time grows with the square of the first number in each step, and with the cube of the second.
_MOST_FITTED = 200
_MOST_KNOWN = 1000
# A sampler finds the kernel's numbers anew once it knows so many times as many scores.
_GROWTH = 1.1


class Surrogate:
    """A Gaussian process (Matérn 5/2, a length for each feature, white noise) of scores.

    Parameters
    ----------
    features : ndarray of shape (n, n_features)
    targets : ndarray of shape (n,)
        Of about zero mean and unit variance.
    least_noise : float
        The variance of the targets that is known to be noise.
    kernel : kernel of scikit-learn's or None
        The ``kernel`` of an earlier surrogate, whose numbers are taken; None finds them.

    Attributes
    ----------
    kernel : kernel of scikit-learn's
    """

    def __init__(self, features, targets, least_noise=1e-4, kernel=None):
        if kernel is None:
            rows = _thin_out(targets, _MOST_FITTED)
            kernel = _find_kernel(features[rows], targets[rows], least_noise)
        self.kernel = kernel
        rows = _thin_out(targets, _MOST_KNOWN)
        self.process = GaussianProcessRegressor(kernel, optimizer=None, alpha=1e-8)
        self.process.fit(features[rows], targets[rows])

    def predict(self, features):
        """Return the expected scores, without noise."""
        return self.process.predict(features)

    def rank_promising(self, features, n):
        """Return the positions of the n with the highest mean plus standard deviations."""
        mean, deviation = self.process.predict(features, return_std=True)
        noise = self.process.kernel_.k2.noise_level
        # the variance that scikit-learn returns has the noise in it
        deviation = np.sqrt(np.maximum(deviation**2 - noise, 0.0))
        return np.argsort(-(mean + _N_DEVIATIONS * deviation), kind="stable")[:n]

    def draw(self, features, n_draws, rng):
        """Return draws of all scores together, without noise: shape (n_draws, n)."""
        mean, covariance = self.process.predict(features, return_cov=True)
        noise = self.process.kernel_.k2.noise_level
        # the covariance that scikit-learn returns has the noise on its diagonal
        diagonal = np.diag(covariance) - noise
        np.fill_diagonal(covariance, np.maximum(diagonal, 0.0) + 1e-6)
        factor = _factorize(covariance)
        return mean + rng.standard_normal((n_draws, len(features))) @ factor.T


def _find_kernel(features, targets, least_noise):
    """Return the kernel whose numbers make the scores most likely."""
    matern = Matern(np.full(features.shape[1], 0.5), (0.05, 20.0), nu=2.5)
    noise = WhiteKernel(max(0.1, least_noise), (least_noise, max(2.0, 2 * least_noise)))
    kernel = ConstantKernel(1.0, (1e-3, 20.0)) * matern + noise
    process = GaussianProcessRegressor(kernel, optimizer=_maximize, alpha=1e-8)
    with warnings.catch_warnings():
        # a length at its bound is a parameter that does not matter
        warnings.simplefilter("ignore", ConvergenceWarning)
        return process.fit(features, targets).kernel_


def _thin_out(targets, n):
    """Return the positions of n targets: the best half of them, and others evenly by rank."""
    if len(targets) <= n:
        return np.arange(len(targets))
    order = np.argsort(-targets, kind="stable")
    n_best = n // 2
    others = np.linspace(n_best, len(targets) - 1, n - n_best).round().astype(int)
    return np.sort(np.concatenate([order[:n_best], order[others]]))


def _maximize(objective, start, bounds):
    """Optimize the numbers of a kernel: few steps find all that so few scores tell."""
    options = {"maxiter": _MOST_STEPS}
    found = minimize(objective, start, method="L-BFGS-B", jac=True, bounds=bounds, options=options)
    return found.x, found.fun


def _factorize(covariance):
    """Return the Cholesky factor of a matrix that rounding may have left without one."""
    jitter = 1e-6
    while True:
        try:
            return cholesky(covariance, lower=True)
        except np.linalg.LinAlgError:
            covariance = covariance + jitter * np.eye(len(covariance))
            jitter *= 10


def rank_to_normal(scores):
    """Return the normal quantiles of the scores' ranks; what failed counts as worse than all.

    So one score far below the others, of a training that diverged, does not hide how these differ.
    """
    scores = np.where(np.isfinite(scores), scores, -np.inf)
    return norm.ppf((rankdata(scores) - 0.5) / len(scores))


def draw_candidates(space, points, scores, rng):
    """Return what a batch is chosen from: candidates of the whole space, and some near the best."""
    candidates = space.draw(_N_DRAWN, rng)
    best = np.argsort(scores)[::-1][:_N_BEST]
    for index in best:
        point = points[index]
        for _ in range(_N_NEAR // _N_BEST):
            step = rng.normal(scale=_NEAR, size=len(point.positions))
            positions = np.clip(np.array(point.positions) + step, 0.0, 1.0)
            candidates.append(Point(point.part, tuple(positions.tolist())))
    return candidates


class GaussianProcessSampler:
    """Thompson sampling: each candidate of a batch is the best one of a draw from the process.

    The process is fitted once for each batch (Kandasamy et al. 2018, "Parallelised Bayesian
    optimisation via Thompson sampling").

    Parameters
    ----------
    space : Space
    seed : int
    """

    def __init__(self, space, seed):
        self.space = space
        self.rng = np.random.RandomState(seed)
        self.n_startup = max(_N_STARTUP, min(_N_STARTUP_OF_PART * len(space.parts), _MOST_STARTUP))
        # of all candidates, by their Points
        self.scores = {}
        # the last one that was found, and from how many scores
        self.kernel = None
        self.n_fitted = 0

    def ask(self, n):
        """Return n candidates to be evaluated."""
        return [self.space.settle(point) for point in self._choose(n)]

    def _choose(self, n):
        points = list(self.scores)
        scores = np.array(list(self.scores.values()))
        if np.isfinite(scores).sum() < self.n_startup:
            return self.space.draw(n, self.rng)
        targets = rank_to_normal(scores)
        surrogate = self._fit(self.space.features(points), targets)
        candidates = draw_candidates(self.space, points, targets, self.rng)
        features = self.space.features(candidates)
        # a batch must have enough to choose from
        kept = surrogate.rank_promising(features, max(_N_PROMISING, 4 * n))
        draws = surrogate.draw(features[kept], n, self.rng)
        return [candidates[kept[index]] for index in pick_best(draws)]

    def _fit(self, features, targets):
        """Return the process of the scores, with the kernel of before where these are few more."""
        is_known = len(targets) < _GROWTH * self.n_fitted
        surrogate = Surrogate(features, targets, kernel=self.kernel if is_known else None)
        if not is_known:
            self.kernel = surrogate.kernel
            self.n_fitted = len(targets)
        return surrogate

    def tell(self, points, scores):
        """Take the scores of candidates; NaN is a candidate that failed."""
        for point, score in zip(points, scores, strict=True):
            # a candidate that is told twice has been evaluated once
            self.scores.setdefault(point, score)


def pick_best(draws):
    """Return the position of the best candidate of each draw that no draw before has taken."""
    free = np.ones(draws.shape[1], dtype=bool)
    picks = []
    for draw in draws:
        index = int(np.argmax(np.where(free, draw, -np.inf)))
        free[index] = False
        picks.append(index)
    return picks
