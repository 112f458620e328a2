"""The legend of losses by epoch."""

from sktune.inspection.displays.colors import add_color_key
from sktune.inspection.records import name_regimes

# Candidates of a regime are listed up to this many, and counted beyond it: a long line of the
# legend would take its width from the axes.
_MOST_LISTED = 3


def add_loss_legend(ax, record, losses, parameter, shown):
    """Explain colours, kinds of lines, the best candidate and the regimes.

    Parameters
    ----------
    ax : matplotlib Axes
    record : SearchRecord
    losses : dict of (str, str)
        Label and style of line of each kind of loss, by name.
    parameter : Parameter or None
        What the lines are coloured by.
    shown : ndarray of int
        The candidates that are drawn.
    """
    from matplotlib.lines import Line2D

    handles = add_color_key(ax, parameter) if parameter is not None else []
    for label, style in losses.values():
        handles.append(Line2D([], [], color="0.3", linestyle=style, label=label))
    if record.best_index in shown:
        label = f"best ({record.best_index})"
        handles.append(Line2D([], [], color="0.3", linewidth=3, label=label))
    # a regime compares candidates, so that a single one has none
    if record.n_candidates > 1:
        for text in list_regimes(name_regimes(record.curves), shown):
            handles.append(Line2D([], [], linestyle="", label=text))
    # above the axes, where it hides no line
    place = {"loc": "lower left", "bbox_to_anchor": (0, 1), "ncols": 3, "frameon": False}
    ax.legend(handles=handles, fontsize="small", **place)


def list_regimes(regimes, shown):
    """Return a text for each regime that is shown, with its candidates or their number.

    Examples
    --------
    >>> import numpy as np
    >>> from sktune.inspection.displays.loss_legend import list_regimes
    >>> regimes = np.array(["good", "good", "good", "good", "too large", ""])
    >>> list_regimes(regimes, np.arange(6))
    ['α good: 4 candidates', 'α too large: no. 4']
    """
    texts = []
    for regime in ("too small", "good", "too large"):
        held = shown[regimes[shown] == regime]
        if len(held) > _MOST_LISTED:
            texts.append(f"α {regime}: {len(held)} candidates")
        elif len(held):
            texts.append(f"α {regime}: no. {', '.join(map(str, held))}")
    return texts
