"""When a search may stop: nothing more to gain that the folds could tell, or no time left."""

from dataclasses import dataclass
from numbers import Integral, Real
from time import monotonic, time

import numpy as np
from scipy.stats import f as f_distribution

from sktune.engine.steps.base import Stopped
from sktune.search.samplers.gaussian_process import Surrogate, draw_candidates, pick_best

# Scores that are needed before anything can be expected of the next ones.
_FEWEST = 10
# The candidates that are looked ahead to at least: a single one is hardly ever expected to gain
# anything, and a search of classical models has rounds of one.
_LEAST_AHEAD = 10
# Draws from the surrogate, the mean of which is what a batch is expected to gain.
_N_DRAWS = 256
# The level of the test whether candidates differ at all.
_LEVEL = 0.01
# A score so many interquartile ranges below the lower quartile counts as one at that border.
_FAR = 3.0


def check_stopping(search):
    """Raise a ValueError unless `stop`, `patience`, `tol` and `timeout` of a search are of use."""
    if search.stop not in ("auto", None):
        raise ValueError(f"stop must be 'auto' or None, got stop={search.stop!r}")
    patience = search.patience
    if not isinstance(patience, Integral) or isinstance(patience, bool) or patience < 1:
        raise ValueError(f"patience must be an int of at least 1, got patience={patience!r}")
    for name, value in (("tol", search.tol), ("timeout", search.timeout)):
        if name == "timeout" and value is None:
            continue
        is_number = isinstance(value, Real) and not isinstance(value, bool)
        if not is_number or not value > 0:
            raise ValueError(f"{name} must be a number above 0, got {name}={value!r}")


class Deadline:
    """A listener that ends all fits with the epoch in which the time is over, and begins no more.

    Parameters
    ----------
    seconds : float or None
        None is no limit.
    """

    # groups that other processes or machines train end in time, too
    goes_along = True
    # whether it is with a worker, whose group has begun
    is_elsewhere = False

    def __init__(self, seconds):
        self.seconds = seconds
        self.end = np.inf if seconds is None else monotonic() + seconds

    def __getstate__(self):
        # the clocks that tell the time of day are the same on all machines
        return {"seconds": self.seconds, "end": time() + self.end - monotonic()}

    def __setstate__(self, state):
        self.is_elsewhere = True
        self.seconds = state["seconds"]
        self.end = monotonic() + state["end"] - time()

    @property
    def reason(self):
        """Why a fit has been stopped, in words."""
        return f"the timeout of {self.seconds} s is over"

    @property
    def n_left(self):
        """The seconds that are left; infinity if there is no limit."""
        return max(self.end - monotonic(), 0.0)

    @property
    def is_over(self):
        """Whether the time is over."""
        return monotonic() >= self.end

    def begin_group(self, fits):
        """Begin a group, unless the time is over."""
        if self.is_over and not self.is_elsewhere:
            raise Stopped
        return self

    def end_group(self, has_failed):
        """Do nothing: a group needs no end."""

    def on_epoch(self, event):
        """Stop all fits of a group if the time is over."""
        if self.is_over:
            for fit in event.fits:
                event.stop(fit, self.reason)


def corrected_standard_error(scores, n_train, n_test):
    """Return the standard error of the mean of a candidate's scores on several splits.

    The splits share training rows, for which the variance is multiplied with
    ``1/k + n_test/n_train`` in place of ``1/k`` (Nadeau & Bengio 2003, "Inference for the
    generalization error", section 3).

    Parameters
    ----------
    scores : array-like of shape (k,)
    n_train, n_test : float
        The rows to train on and to score on, of a split.
    """
    factor = 1 / len(scores) + n_test / n_train
    return float(np.sqrt(factor) * np.std(scores, ddof=1))


@dataclass
class StoppingRule:
    """Stop when the next batch is expected to gain less than the folds can tell apart.

    The idea is that of Makarova et al. 2022, "Automatic termination for hyperparameter
    optimization": to go on is of no use where the regret is below the error of the score itself.

    Parameters
    ----------
    space : Space
    tol : float
        The part of the standard error of the best score that a batch must be expected to gain.
    patience : int
        The checks in a row that have to say so.
    is_adaptive : bool
        Whether the next batch will be chosen by the scores so far, and not drawn blindly.
    seed : int
    """

    space: object
    tol: float
    patience: int
    is_adaptive: bool
    seed: int
    n_in_a_row: int = 0

    def check(self, points, fold_scores, n_train, n_test, n_next):
        """Return why to stop, in words and numbers; an empty text is to go on.

        Parameters
        ----------
        points : list of Point
            The candidates so far.
        fold_scores : ndarray of shape (n_candidates, n_splits)
        n_train, n_test : float
            The rows of a split.
        n_next : int
            The candidates of the next batch. What ten are expected to gain counts if it has fewer.
        """
        n_ahead = max(n_next, _LEAST_AHEAD)
        fold_scores = np.asarray(fold_scores, dtype=float)
        if len(points) < _FEWEST:
            return ""
        scores = fold_scores.mean(axis=1)
        # a few splits of one candidate tell its error badly: it is the median of the better half
        better = fold_scores[scores >= np.median(scores)]
        errors = [corrected_standard_error(own, n_train, n_test) for own in better]
        error = float(np.median(errors))
        gain = 0.0
        if _do_differ(fold_scores):
            gain = self.expect_gain(points, scores, _estimate_noise(fold_scores), n_ahead)
        # a best score without any spread, such as a perfect one, leaves nothing to tell apart
        self.n_in_a_row = self.n_in_a_row + 1 if gain <= self.tol * error else 0
        if self.n_in_a_row < self.patience:
            return ""
        return (
            f"another {n_ahead} candidates are expected to gain {gain:.2g}; "
            f"the folds cannot tell {error:.2g} apart"
        )

    def expect_gain(self, points, scores, noise, n_next):
        """Return by how much the best of the next candidates is expected to be better.

        `noise` is the part of the variance of the scores that says nothing of the candidates.
        """
        scores = _lift_outliers(scores)
        spread = scores.std()
        if spread == 0:
            return 0.0
        rng = np.random.RandomState(self.seed)
        targets = (scores - scores.mean()) / spread
        least_noise = min(max(noise / spread**2, 1e-4), 1.0)
        surrogate = Surrogate(self.space.features(points), targets, least_noise)
        if self.is_adaptive:
            candidates = draw_candidates(self.space, points, targets, rng)
        else:
            candidates = self.space.draw(n_next, rng)
        features = self.space.features([*candidates, *points])
        draws = surrogate.draw(features, _N_DRAWS + n_next, rng)
        # the best so far is the one that is expected to be: the best score is one with luck
        expected = surrogate.predict(features[len(candidates) :])
        incumbent = draws[:, len(candidates) + int(expected.argmax())]
        picks = np.arange(len(candidates))
        if self.is_adaptive:
            # a sampler is taken to choose as Thompson sampling does
            picks = pick_best(draws[_N_DRAWS:, : len(candidates)])
        gains = draws[:_N_DRAWS, picks].max(axis=1) - incumbent[:_N_DRAWS]
        return float(np.maximum(gains, 0.0).mean() * spread)


def _do_differ(fold_scores):
    """Tell whether candidates differ by more than chance, by an F test of scores (n, n_splits).

    It is that of an analysis of variance with two factors, candidates and splits. Without it a
    Gaussian process finds some pattern in any noise.
    """
    n_candidates, n_splits = fold_scores.shape
    means = fold_scores.mean(axis=1, keepdims=True)
    left = fold_scores - means - fold_scores.mean(axis=0) + fold_scores.mean()
    freedom = (n_candidates - 1, (n_candidates - 1) * (n_splits - 1))
    between = n_splits * means.var(ddof=1)
    within = (left**2).sum() / freedom[1]
    if within == 0:
        return bool(between > 0)
    return bool(f_distribution.sf(between / within, *freedom) < _LEVEL)


def _estimate_noise(fold_scores):
    """Return the variance of a mean score that is noise, from an array (n_candidates, n_splits).

    It is what is left of the scores without the effects of candidates and of splits, as in an
    analysis of variance with two factors. Its median over the candidates does without outliers.
    """
    n_splits = fold_scores.shape[1]
    left = fold_scores - fold_scores.mean(axis=1, keepdims=True)
    left = left - np.median(left, axis=0)
    variances = (left**2).sum(axis=1) / (n_splits - 1)
    return float(np.median(variances)) / n_splits


def _lift_outliers(scores):
    """Lift scores far below the others, of trainings that came to nothing, which hide all else."""
    lower, upper = np.quantile(scores, [0.25, 0.75])
    return np.maximum(scores, lower - _FAR * (upper - lower))
