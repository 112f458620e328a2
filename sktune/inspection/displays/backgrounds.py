"""What a map shows between its points: the mean of a Gaussian process, where it can be trusted."""

import warnings
from dataclasses import dataclass

import numpy as np
from scipy.linalg import cho_solve
from sklearn.exceptions import ConvergenceWarning
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel

# Fewer candidates, or fewer different values of a parameter, tell nothing between them.
_LEAST_CANDIDATES = 20
_LEAST_VALUES = 5
# Of more candidates, evenly spaced ones by their score are enough.
_MOST_CANDIDATES = 150
# The variance of left-out candidates that must be explained.
_LEAST_EXPLAINED = 0.3
# Shown is where the mean is known better than to this share of the scores' own spread.
_MOST_UNSURE = 0.5
# Points of the background, by axis.
_N_CELLS = 60


@dataclass(frozen=True)
class Background:
    """Predicted mean scores on a grid of two parameters.

    Parameters
    ----------
    x, y : ndarray of shape (n_cells,)
        The middles of the cells, on the axes of the map.
    scores : masked array of shape (n_cells, n_cells)
        Row by row of `y`; masked where the prediction is not known well enough.
    explained : float
        The share of the variance of left-out candidates that the predictions explain.
    """

    x: np.ndarray
    y: np.ndarray
    scores: np.ma.MaskedArray
    explained: float


def find_background(places, are_log, scores):
    """Return what lies between the points of a map; None if nobody can tell.

    A Gaussian process (Rasmussen and Williams 2006, algorithm 2.1) with a squared-exponential
    kernel and noise is fitted to the scores over both parameters, on the scales of the axes. All
    other parameters are noise to it. It is shown if it explains at least 30 % of the variance of
    candidates that are left out one by one (their equations 5.10 to 5.12), and only where the
    standard deviation of its mean is below half of that of the scores.

    Parameters
    ----------
    places : list of ndarray of shape (n_candidates,)
        Where each candidate stands on either axis; nan for those without a place.
    are_log : list of bool
        Whether the axes are logarithmic.
    scores : ndarray of shape (n_candidates,)

    Returns
    -------
    background : Background or None
        None for fewer than 20 candidates with a score, or five values of a parameter.
    """
    is_there = np.isfinite(scores) & np.isfinite(places[0]) & np.isfinite(places[1])
    axes = [
        np.log(place[is_there]) if is_log else place[is_there]
        for place, is_log in zip(places, are_log, strict=True)
    ]
    if is_there.sum() < _LEAST_CANDIDATES or min(len(set(axis)) for axis in axes) < _LEAST_VALUES:
        return None
    scores = scores[is_there]
    mean, spread = scores.mean(), scores.std()
    if spread == 0:
        return None
    chosen = _choose(scores)
    lows = [axis.min() for axis in axes]
    widths = [np.ptp(axis) for axis in axes]
    scaled = [(axis - low) / width for axis, low, width in zip(axes, lows, widths, strict=True)]
    process = _fit(np.column_stack(scaled)[chosen], (scores[chosen] - mean) / spread)
    explained = _explain_left_out(process)
    if explained < _LEAST_EXPLAINED:
        return None
    steps = np.linspace(0, 1, _N_CELLS)
    x, y = np.meshgrid(steps, steps)
    means, deviations = _predict(process, np.column_stack([x.ravel(), y.ravel()]))
    shown = np.ma.array(mean + spread * means, mask=deviations > _MOST_UNSURE).reshape(x.shape)
    ends = [low + steps * width for low, width in zip(lows, widths, strict=True)]
    x, y = (np.exp(end) if is_log else end for end, is_log in zip(ends, are_log, strict=True))
    return Background(x, y, shown, explained)


def _choose(scores):
    """Return the positions of the candidates to fit to: all, or evenly spaced ones by score."""
    order = np.argsort(scores)
    if len(order) <= _MOST_CANDIDATES:
        return order
    return order[np.linspace(0, len(order) - 1, _MOST_CANDIDATES).round().astype(int)]


def _fit(X, scores):
    """Return a Gaussian process of scores of unit variance, by the greatest likelihood."""
    smooth = ConstantKernel(1.0, (1e-2, 1e2)) * RBF([0.3, 0.3], (0.05, 10.0))
    kernel = smooth + WhiteKernel(0.1, (1e-4, 1e1))
    process = GaussianProcessRegressor(kernel)
    with warnings.catch_warnings():
        # a hyperparameter at the end of its range is allowed: an effect may be linear, or noise
        warnings.simplefilter("ignore", ConvergenceWarning)
        return process.fit(X, scores)


def _explain_left_out(process):
    """Return the share of variance that predictions of left-out candidates explain."""
    inverse = cho_solve((process.L_, True), np.eye(len(process.X_train_)))
    # eq. 5.12: the difference of a left-out score and its prediction
    errors = process.alpha_.ravel() / np.diag(inverse)
    return 1 - np.mean(errors**2) / np.var(process.y_train_)


def _predict(process, X):
    """Return the mean at some places, and its standard deviation."""
    means, deviations = process.predict(X, return_std=True)
    # the noise of a single score is no doubt about the mean
    noise = process.kernel_.k2.noise_level
    return means, np.sqrt(np.maximum(deviations**2 - noise, 0))
