"""Whether a candidate's training was too slow, too fast or good, read off its training losses."""

import numpy as np

from sktune.inspection.records.shapes import is_too_fast, is_too_slow

# Curves of fewer epochs tell nothing but that they diverge.
_MIN_EPOCHS = 3
# The reference is the largest fall of the loss, from the first losses to the lowest of all.
# It is at least this share of the first losses.
_MIN_FALL = 0.01
# The share of the first losses that are below the reference's start: they are not those that jump.
_START_QUANTILE = 0.25
# A loss is clearly above another if it is by this share of the reference.
_IS_ABOVE = 0.1
# A loss rises or oscillates strongly if it climbs by this share of the reference.
_IS_RISE = 0.25
# It still falls if the later half has this share of the curve's whole fall, and if that fall is
# this many times the standard deviation around a straight line.
_LATE_SHARE = 0.05
_MIN_SIGNAL = 3.0


def name_regimes(curves):
    """Name the regime of the learning rate that the training losses of each candidate show.

    The mean over the splits is compared with those of all candidates of the search. Candidates
    whose losses mean different things (another criterion, another penalty) are compared all the
    same: the names are hints.

    Parameters
    ----------
    curves : CurveTable

    Returns
    -------
    regimes : ndarray of str of shape (n_candidates,)
        ``"too small"``
            The loss is still falling at the last epoch, and clearly above the best candidate's; or
            it falls steadily to the end, and so do those of all larger rates.
        ``"too large"``
            The loss rises, jumps, oscillates strongly or is not finite.
        ``"good"``
            None of these, and the loss has fallen.
        ``""``
            There is no curve, or the curve does not tell: fewer than three epochs, or a loss that
            stays where it was.

    Examples
    --------
    >>> from sktune.inspection.records import CurveTable, name_regimes
    >>> losses = {0: [1.0, 0.99, 0.98, 0.97], 1: [0.8, 0.3, 0.1, 0.1], 2: [1.1, 3.0, 2.0, 2.5]}
    >>> rows = [(c, e, loss) for c in losses for e, loss in enumerate(losses[c], start=1)]
    >>> candidate, epoch, loss = zip(*rows)
    >>> columns = {"candidate": candidate, "epoch": epoch, "train_loss": loss}
    >>> columns["split"] = [0] * len(rows)
    >>> name_regimes(CurveTable.from_columns(columns, n_candidates=3, n_splits=1)).tolist()
    ['too small', 'good', 'too large']
    """
    means = [_mean_curve(curves, candidate) for candidate in range(len(curves.n_epochs))]
    start, fall = _find_reference([mean for mean in means if len(mean)])
    names = []
    for candidate, mean in enumerate(means):
        name = _name_regime(mean, start, fall)
        if len(mean) >= _MIN_EPOCHS and _is_beyond(curves, candidate, means, start, fall):
            name = "too large"
        elif name == "good" and is_too_slow(curves, candidate):
            name = "too small"
        names.append(name)
    return np.array(names, dtype=object).astype(str)


def _is_beyond(curves, candidate, means, start, fall):
    """Tell whether a candidate's losses swing or rise, or jump at a rate above the best one's."""
    if is_too_fast(curves.list_fits(candidate, "train_loss")):
        return True
    rates = curves.first_rates
    # a penalty lifts curves, too, but at any rate
    is_smaller = rates[candidate] <= _find_good_rate(means, rates)
    return not is_smaller and _jumps(means[candidate], start, fall)


def _mean_curve(curves, candidate):
    """Return a candidate's mean training loss, of the epochs that all its splits have recorded.

    A split whose last loss is not finite makes the whole mean's last one nan.
    """
    n_epochs = curves.n_epochs[candidate]
    if not n_epochs.any():
        return np.empty(0)
    losses = curves.train_loss[candidate, n_epochs > 0]
    recorded = [loss[:n] for loss, n in zip(losses, n_epochs[n_epochs > 0], strict=True)]
    shortest = min(len(loss) for loss in recorded)
    # a huge loss of one split may overflow
    with np.errstate(over="ignore", invalid="ignore"):
        mean = np.mean([loss[:shortest] for loss in recorded], axis=0)
    if not all(np.isfinite(loss).all() for loss in recorded):
        mean[-1] = np.nan
    return mean


def _find_reference(means):
    """Return the loss at the start and the largest fall from there, over all candidates."""
    firsts = np.array([mean[0] for mean in means if np.isfinite(mean[0])])
    if len(firsts) == 0:
        return np.nan, np.nan
    start = float(np.quantile(firsts, _START_QUANTILE))
    lowest = min(mean[np.isfinite(mean)].min() for mean in means if np.isfinite(mean).any())
    return start, max(start - lowest, _MIN_FALL * abs(start))


def _find_good_rate(means, rates):
    """Return the learning rate of the candidate that ends lowest; nan if it is not known."""
    ends = np.array([mean[-1] if len(mean) else np.nan for mean in means])
    return np.nan if np.isnan(ends).all() else rates[np.nanargmin(ends)]


def _jumps(mean, start, fall):
    """Tell whether a curve begins far above the start, and does not come down to the lowest."""
    return mean[0] > start + fall and mean[-1] > start - fall + _IS_ABOVE * fall


def _name_regime(mean, start, fall):
    """Return the name of one mean curve's regime."""
    if len(mean) == 0:
        return ""
    if not np.isfinite(mean).all():
        return "too large"
    if len(mean) < _MIN_EPOCHS:
        return ""
    if _climbs(mean, start, fall):
        return "too large"
    lowest = start - fall
    if mean[-1] <= lowest + _IS_ABOVE * fall:
        return "good"
    if _still_falls(mean):
        return "too small"
    has_learned = mean[-1] < max(start, mean[0]) - _IS_ABOVE * fall
    return "good" if has_learned else ""


def _climbs(mean, start, fall):
    """Tell whether a curve rises from its lowest loss so far, or ends far above the start."""
    lowest_so_far = np.minimum.accumulate(mean)
    climb = (mean - lowest_so_far).max()
    return climb > _IS_RISE * fall or mean[-1] > start + _IS_RISE * fall


def _still_falls(mean):
    """Tell whether the later half of a curve falls along a line, and not only by noise."""
    late = mean[-max(_MIN_EPOCHS, len(mean) // 2) :]
    epochs = np.arange(len(late))
    slope, intercept = np.polyfit(epochs, late, 1)
    late_fall = -slope * (len(late) - 1)
    noise = (late - slope * epochs - intercept).std()
    return late_fall > _MIN_SIGNAL * noise and late_fall > _LATE_SHARE * (mean[0] - mean[-1])
