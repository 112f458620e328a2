"""Numbers on the training of each candidate: how fast it converges and how far it overfits."""

import numpy as np

# A fit has converged when this share of the fall of its loss, at most, is still to come.
_LEFT_TO_FALL = 0.01


def epochs_to_converge(curves, n_candidates):
    """Return how many epochs the fits of each candidate needed, the median over its splits.

    A fit has converged at the first epoch whose loss is at most 1 % of the fall above the lowest
    loss; the fall is from the first to the lowest loss. It is the loss on validation rows where
    the fit has one, and otherwise the training loss. A loss that never falls does not converge.

    Returns
    -------
    epochs : ndarray of float of shape (n_candidates,)
        nan where no fit has converged, or none was recorded.
    """
    epochs = np.full(n_candidates, np.nan)
    if curves is None:
        return epochs
    for candidate in range(n_candidates):
        pairs = zip(curves.train_loss[candidate], curves.valid_loss[candidate], strict=True)
        found = [find_converged(valid if np.isfinite(valid).any() else t) for t, valid in pairs]
        found = [epoch for epoch in found if epoch is not None]
        if found:
            epochs[candidate] = np.median(found)
    return epochs


def find_converged(losses):
    """Return the first epoch, from 1 on, at which a loss has converged; None if it never falls."""
    finite = np.flatnonzero(np.isfinite(losses))
    if len(finite) == 0:
        return None
    first = losses[finite[0]]
    lowest = losses[finite].min()
    if not lowest < first:
        return None
    is_close = losses[finite] <= lowest + _LEFT_TO_FALL * (first - lowest)
    return int(finite[np.argmax(is_close)]) + 1


def find_gaps(record):
    """Return how much better each candidate is on its training rows, and by what it is measured.

    Returns
    -------
    gaps : ndarray of float of shape (n_candidates,)
        Training score minus test score; without training scores, the loss on validation rows
        minus the training loss in the last epoch of each fit, the mean over the splits.
    source : {"scores", "losses", "none"}
    """
    if record.train_scores is not None:
        return record.train_scores.mean(axis=1) - record.mean_scores, "scores"
    curves = record.curves
    if curves is None or not curves.has_validation:
        return np.full(record.n_candidates, np.nan), "none"
    last = np.maximum(curves.n_epochs - 1, 0)[:, :, np.newaxis]
    with np.errstate(invalid="ignore"):
        gaps = np.take_along_axis(curves.valid_loss - curves.train_loss, last, axis=2)[:, :, 0]
    is_there = np.isfinite(gaps)
    count = is_there.sum(axis=1)
    total = np.where(is_there, gaps, 0.0).sum(axis=1)
    means = np.where(count > 0, total / np.maximum(count, 1), np.nan)
    return means, "losses"
