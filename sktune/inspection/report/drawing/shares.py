"""Bars of how much of the score's variance each parameter explains."""

import numpy as np

from sktune.inspection.records import label_of
from sktune.inspection.report.drawing.axes import Axes, shorten
from sktune.inspection.report.drawing.scales import Scale

_MOST_BARS = 10
_ROW = 32


def draw_shares(importance):
    """Draw the largest shares of parameters and of pairs.

    Parameters
    ----------
    importance : ParameterImportance
        With shares that are numbers.

    Returns
    -------
    svg : str
    notes : list of str
        What the picture leaves out.
    """
    keys = sorted(importance.shares, key=importance.shares.get, reverse=True)
    shown = keys[:_MOST_BARS]
    shares = np.array([importance.shares[key] for key in shown])
    high = max(float(shares.max()) * 1.08, 0.05)
    label = f"share of the variance of predicted {importance.metric}, by parameter"
    name = f"share of the variance of predicted {importance.metric}"
    height = 52 + _ROW * len(shown)
    x = Scale(0.0, high)
    axes = Axes(label, x, Scale(0.0, 1.0), name, "", width=400, height=height, has_y_ticks=False)
    css_class = "bar" if importance.is_conclusive else "bar unsure"
    for place, (key, share) in enumerate(zip(shown, shares, strict=True)):
        y = axes.top + _ROW * place
        text = " × ".join(label_of(part) for part in key)
        axes.drawing.add_text(axes.left, y + 11, f"{shorten(text, 50)}: {share:.0%}", "tick")
        width = float(axes.to_x(share)) - axes.left
        axes.drawing.add("rect", css_class, x=axes.left, y=y + 15, width=width, height=11)
    notes = []
    if len(keys) > len(shown):
        notes.append(f"The {len(shown)} largest of {len(keys)} shares are drawn.")
    return axes.drawing.to_svg(), notes
