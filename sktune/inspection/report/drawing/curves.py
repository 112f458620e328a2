"""The loss of each candidate, epoch by epoch."""

import numpy as np

from sktune.inspection.report.drawing.axes import Axes
from sktune.inspection.report.drawing.scales import Scale

# Points of all curves together: what a page of 2 MB has room for.
MOST_POINTS = 30_000
_MOST_POINTS_OF_ONE = 60
MOST_CURVES = 2_000
# Losses whose largest is this many times the smallest are on a logarithmic scale.
_LOG_FROM = 20
_N_TOP = 10


def draw_curves(record, name, label, *, most_curves=MOST_CURVES, most_points=MOST_POINTS):
    """Draw the mean over the splits of each candidate's loss.

    The ten best candidates by score are darker, and the best is the darkest.

    Parameters
    ----------
    record : SearchRecord
        With at least one finite loss of that name.
    name : {"train_loss", "valid_loss"}
    label : str
        What the vertical axis shows.
    most_curves : int, default=2000
        Of more candidates, the ten best are drawn, and others evenly spaced.
    most_points : int, default=30000
        So many points all curves have together, but a curve has at least eight.

    Returns
    -------
    svg : str
    notes : list of str
        What the picture leaves out.
    """
    means, _ = record.curves.mean_over_splits(name)
    order = np.argsort(-np.nan_to_num(record.mean_scores, nan=-np.inf), kind="stable")
    shown = _choose_candidates(means, order, most_curves)
    # a search without any score has no best candidate
    best = [record.best_index] if record.best_index in shown else []
    scale, n_cut = find_scale(means[shown], means[best])
    epochs = choose_epochs(means.shape[1], len(shown), most_points)
    x_scale = Scale(1.0, float(max(means.shape[1], 2)))
    text = f"{label} by epoch, a line for each of {len(shown)} candidates"
    axes = Axes(text, x_scale, scale, "epoch", label, width=400, height=260)
    top = set(order[:_N_TOP].tolist())
    others = [number for number in shown if number not in top]
    leading = [number for number in shown if number in top and number != record.best_index]
    for members, css_class in ((others, ""), (leading, "top")):
        _add(axes, means, members, epochs, css_class)
    _add(axes, means, best, epochs, "best")
    return axes.drawing.to_svg(), _list_notes(means, shown, n_cut, epochs)


def _choose_candidates(means, order, most):
    """Return the candidates to draw; of more than `most`, the best ones and evenly spaced others.

    `order` has all candidates, the best first.
    """
    there = np.flatnonzero(np.isfinite(means).any(axis=1))
    if len(there) > most:
        best = order[np.isin(order, there)][:_N_TOP]
        others = np.setdiff1d(there, best)
        places = np.linspace(0, len(others) - 1, most - len(best)).round().astype(int)
        there = np.union1d(best, others[places])
    return there.tolist()


def choose_epochs(n_epochs, n_curves, most_points=MOST_POINTS):
    """Return the positions of the epochs to draw: all, or evenly spaced ones with both ends."""
    most = int(np.clip(most_points // max(n_curves, 1), 8, _MOST_POINTS_OF_ONE))
    if n_epochs <= most:
        return np.arange(n_epochs)
    return np.unique(np.linspace(0, n_epochs - 1, most).round().astype(int))


def find_scale(means, best):
    """Return the vertical scale, and how many curves leave it.

    A single diverging candidate is not to flatten all others: the scale ends at three times the
    98 % quantile of the losses.
    """
    finite = means[np.isfinite(means)]
    high = 3 * np.quantile(finite, 0.98) if finite.min() >= 0 else finite.max()
    of_best = best[np.isfinite(best)]
    high = max(high, of_best.max(initial=-np.inf))
    n_cut = int((means > high).any(axis=1).sum())
    inside = finite[finite <= high]
    positive = inside[inside > 0]
    is_log = len(positive) == len(inside) and positive.max() / positive.min() > _LOG_FROM
    return Scale.around(inside, is_log), n_cut


def _add(axes, means, members, epochs, css_class):
    """Draw the curves of some candidates; those of a single epoch are points."""
    x = axes.to_x(epochs + 1)
    losses = means[members][:, epochs]
    if len(epochs) == 1:
        y = axes.to_y(losses[:, 0])
        axes.drawing.add_points(np.tile(x, len(y)), y, f"point {css_class}".strip())
        return
    axes.drawing.add_lines(((x, axes.to_y(loss)) for loss in losses), f"curve {css_class}".strip())


def _list_notes(means, shown, n_cut, epochs):
    notes = []
    n_without = len(means) - int(np.isfinite(means).any(axis=1).sum())
    if n_without:
        notes.append(f"{n_without} candidates have no finite loss and are not drawn.")
    n_left_out = len(means) - n_without - len(shown)
    if n_left_out:
        notes.append(f"{len(shown)} candidates are drawn, with the best; {n_left_out} are not.")
    if n_cut:
        notes.append(f"Losses above the axis are drawn at its upper end (candidates: {n_cut}).")
    if len(epochs) < means.shape[1]:
        notes.append(f"Of {means.shape[1]} epochs, {len(epochs)} are drawn, evenly spaced.")
    return notes
