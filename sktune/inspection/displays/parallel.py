"""Parallel coordinates: an axis for each parameter, a line for each candidate."""

import numpy as np

from sktune.inspection.displays.axes import is_logarithmic, place_values
from sktune.inspection.displays.colors import escape
from sktune.inspection.records.parameters import format_value

# Categories beyond this many are not named.
_MOST_NAMED = 10
_LONGEST = 14
# Numbers nearer than this share of an axis would overlap.
_LEAST_APART = 0.06
_BEST_LINE = 3.0


def draw_parallel(ax, record, parameters):
    """Draw candidates as lines over the parameters' axes, coloured by the score.

    A line has a gap where a candidate does not set a parameter.

    Parameters
    ----------
    ax : matplotlib Axes
    record : SearchRecord
    parameters : list of Parameter

    Returns
    -------
    lines : matplotlib LineCollection
        From the worst candidate to the best, which lies on top and is thick.
    """
    from matplotlib.collections import LineCollection
    from matplotlib.lines import Line2D

    heights = np.column_stack([_scale_places(parameter) for parameter in parameters])
    order = np.argsort(record.mean_scores)
    order = order[np.isfinite(record.mean_scores[order])]
    x = np.arange(len(parameters))
    segments = [np.column_stack([x, heights[candidate]]) for candidate in order]
    widths = np.where(order == record.best_index, _BEST_LINE, 0.9)
    lines = LineCollection(segments, cmap="viridis", linewidths=widths, alpha=0.8)
    lines.set_array(record.mean_scores[order])
    ax.add_collection(lines)
    ax.figure.colorbar(lines, ax=ax).set_label(escape(record.scoring))
    for place, parameter in enumerate(parameters):
        ax.axvline(place, color="0.3", linewidth=0.8, zorder=3)
        _name_values(ax, place, parameter)
    labels = [escape(parameter.label) for parameter in parameters]
    rotation = 20 if len(labels) > 4 else 0
    ax.set_xticks(x, labels, rotation=rotation, ha="right" if rotation else "center")
    ax.set_yticks([])
    if np.isin(record.best_index, order):
        best = Line2D([], [], color="0.3", linewidth=_BEST_LINE, label="best")
        place = {"loc": "lower left", "bbox_to_anchor": (0, 1), "frameon": False}
        ax.legend(handles=[best], fontsize="small", **place)
    ax.set(xlim=(-0.4, len(labels) - 0.4), ylim=(-0.06, 1.06))
    return lines


def _scale_places(parameter):
    """Return the places of a parameter's values between 0 and 1."""
    places = place_values(parameter)
    if parameter.is_number and is_logarithmic(parameter):
        places = np.log(places)
    low, high = np.nanmin(places), np.nanmax(places)
    return np.full(len(places), 0.5) if low == high else (places - low) / (high - low)


def _name_values(ax, place, parameter):
    """Write few numbers, or the lowest and the highest, or the categories, beside an axis."""
    heights = _scale_places(parameter)
    if parameter.is_number:
        named = _choose_numbers(heights)
    else:
        codes = parameter.codes.tolist()
        named = [codes.index(code) for code in range(len(parameter.categories))][:_MOST_NAMED]
    box = {"facecolor": "white", "alpha": 0.8, "edgecolor": "none", "pad": 1}
    for candidate in named:
        text = format_value(parameter.values[candidate])
        text = text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"
        at = (place + 0.03, heights[candidate])
        ax.text(*at, escape(text), fontsize="small", va="center", bbox=box, zorder=4)


def _choose_numbers(heights):
    """Return candidates with the numbers to name: all where they are few and apart."""
    _, first = np.unique(heights, return_index=True)
    first = first[np.isfinite(heights[first])]
    are_apart = (np.diff(heights[first]) >= _LEAST_APART).all()
    if len(first) <= _MOST_NAMED and are_apart:
        return first
    return first[[0, -1]]
