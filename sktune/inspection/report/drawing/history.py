"""The losses of a single fit, epoch by epoch."""

import numpy as np

from sktune.inspection.report.drawing.axes import Axes
from sktune.inspection.report.drawing.curves import choose_epochs, find_scale
from sktune.inspection.report.drawing.scales import Scale


def draw_history(curves):
    """Draw the losses of one fit.

    Parameters
    ----------
    curves : dict of str to ndarray of shape (n_epochs,)
        Losses by the CSS class of their line, some of them finite; nan leaves a gap.

    Returns
    -------
    svg : str
    notes : list of str
        What the picture leaves out.
    """
    losses = np.array(list(curves.values()))
    n_epochs = losses.shape[1]
    scale, n_cut = find_scale(losses, losses[:0])
    epochs = choose_epochs(n_epochs, 1)
    x_scale = Scale(1.0, float(max(n_epochs, 2)))
    axes = Axes("loss by epoch", x_scale, scale, "epoch", "loss", width=400, height=260)
    for css_class, loss in curves.items():
        line = axes.to_x(epochs + 1), axes.to_y(loss[epochs])
        axes.drawing.add_lines([line], f"curve {css_class}")
    notes = []
    if n_cut:
        notes.append("Losses above the axis are drawn at its upper end.")
    if len(epochs) < n_epochs:
        notes.append(f"Of {n_epochs} epochs, {len(epochs)} are drawn, evenly spaced.")
    return axes.drawing.to_svg(), notes
