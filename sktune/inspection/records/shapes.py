"""The shape of a learning curve: how steadily it falls at its end, how far it swings and rises.

Both the names of regimes in pictures and the findings of checks are read off these numbers.
"""

import numpy as np

# Fewer epochs have no shape.
LEAST_EPOCHS = 8
# A straight line has 25 % of its fall in the last quarter, an exponential that has converged to
# within 1 % has 2 %: from 12 % on, the loss falls about as fast as in the middle.
STEADY_SHARE = 0.12
# Bengio (2012), section 3.1.1: the best rate is near the largest that does not diverge. A loss
# that swings by a tenth of its fall from epoch to epoch is beyond it.
SWING_SHARE = 0.10
# A training loss that ends this share of its fall above its lowest has risen.
RISE_SHARE = 0.25
# Falls below this share of the first loss are noise.
_LEAST_FALL = 0.02
# A rate is clearly larger than another from this many times on.
_LARGER_TIMES = 1.5


def measure_late_fall(loss):
    """Return which share of its fall a loss does in the last quarter of the epochs.

    It is the fall of the lowest loss so far, so that noise is no fall. 0 for fewer than eight
    epochs, and for a loss that never falls.

    Examples
    --------
    >>> import numpy as np
    >>> from sktune.inspection.records.shapes import measure_late_fall
    >>> round(measure_late_fall(np.linspace(1, 0, 41)), 2)
    0.25
    """
    if len(loss) < LEAST_EPOCHS:
        return 0.0
    lowest = np.minimum.accumulate(loss)
    fall = lowest[0] - lowest[-1]
    before = lowest[len(loss) - 1 - len(loss) // 4]
    return float((before - lowest[-1]) / fall) if fall > 0 else 0.0


def measure_swing(losses):
    """Return by which share of its fall a loss rises from epoch to epoch, in the later half.

    Parameters
    ----------
    losses : list of ndarray of shape (n_epochs,)
        Of each fit; the median over the fits is returned, and fits of fewer than eight epochs are
        left out.

    Returns
    -------
    swing : float
        0 without any fit.
    """
    shares = [
        np.maximum(np.diff(loss[len(loss) // 2 :]), 0).mean() / _find_fall(loss)
        for loss in _leave_out_short(losses)
    ]
    return float(np.median(shares)) if shares else 0.0


def measure_rise(losses):
    """Return how far a loss ends above its lowest, as a share of its fall.

    The end is the mean of the last quarter; see :func:`measure_swing` for what is given.
    """
    shares = [
        (loss[-(len(loss) // 4) :].mean() - loss.min()) / _find_fall(loss)
        for loss in _leave_out_short(losses)
    ]
    return float(np.median(shares)) if shares else 0.0


def is_too_fast(losses):
    """Tell whether the training losses of a candidate's fits swing or rise."""
    return measure_swing(losses) >= SWING_SHARE or measure_rise(losses) >= RISE_SHARE


def is_too_slow(curves, candidate):
    """Tell whether a candidate falls steadily to its end, and so do all of clearly larger rates.

    Parameters
    ----------
    curves : CurveTable
    candidate : int
    """
    if measure_steadiness(curves, candidate) < STEADY_SHARE:
        return False
    with np.errstate(invalid="ignore"):
        is_larger = curves.first_rates > _LARGER_TIMES * curves.first_rates[candidate]
    others = [other for other in np.flatnonzero(is_larger) if curves.list_fits(other, "train_loss")]
    return all(measure_steadiness(curves, other) >= STEADY_SHARE for other in others)


def measure_steadiness(curves, candidate):
    """Return the late fall of a candidate's losses, the median over its fits.

    It is that of the losses on validation rows, where there are some. A fit that ends before
    others, such as by early stopping, has none.
    """
    losses = curves.list_fits(candidate, "valid_loss") or curves.list_fits(candidate, "train_loss")
    n_epochs = curves.train_loss.shape[2]
    shares = [measure_late_fall(loss) if len(loss) == n_epochs else 0.0 for loss in losses]
    return float(np.median(shares)) if shares else 0.0


def _leave_out_short(losses):
    return [loss for loss in losses if len(loss) >= LEAST_EPOCHS]


def _find_fall(loss):
    """Return the fall from the first loss to the lowest, and at least what is more than noise."""
    return max(loss[0] - loss.min(), _LEAST_FALL * abs(loss[0]), np.finfo(float).tiny)
