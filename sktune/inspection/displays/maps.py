"""Two parameters as a map: a heat map for a grid, otherwise points before a background."""

import numpy as np

from sktune.inspection.displays.axes import is_logarithmic, place_values, set_axis, shorten
from sktune.inspection.displays.backgrounds import find_background
from sktune.inspection.displays.colors import escape
from sktune.inspection.records.parameters import format_value

# Points are smaller beyond this many, where they would hide each other.
_FEW = 100
# About this many values are named beside a heat map.
_MOST_NAMED = 12


def draw_map(ax, record, parameters, has_background=True):
    """Draw two parameters, coloured by the score.

    Parameters
    ----------
    ax : matplotlib Axes
    record : SearchRecord
    parameters : list of Parameter
        Two.
    has_background : bool, default=True
        Whether points of numbers have a background where
        :func:`~sktune.inspection.displays.backgrounds.find_background` can tell one.

    Returns
    -------
    drawn : matplotlib QuadMesh or PathCollection
        A heat map where each pair of values has one candidate, and otherwise points.
    places : list of ndarray of shape (n_candidates,)
        Where each candidate stands, on either axis.
    """
    places = find_cells(parameters)
    if places is None:
        places = [place_values(parameter) for parameter in parameters]
        drawn = _draw_points(ax, record.mean_scores, places)
        for axis, parameter in zip((ax.xaxis, ax.yaxis), parameters, strict=True):
            set_axis(axis, parameter)
        if has_background:
            _draw_background(ax, record.mean_scores, parameters, drawn.norm)
    else:
        drawn = _draw_cells(ax, record.mean_scores, places)
        for axis, parameter, cells in zip((ax.xaxis, ax.yaxis), parameters, places, strict=True):
            _name_cells(axis, parameter, cells)
    ax.figure.colorbar(drawn, ax=ax).set_label(escape(record.scoring))
    return drawn, places


def find_cells(parameters):
    """Return column and row of each candidate in a grid; None if they are no full grid.

    Examples
    --------
    >>> from sktune.inspection.displays.maps import find_cells
    >>> from sktune.inspection.records.parameters import make_parameter
    >>> lr = make_parameter("lr", [0.1, 0.1, 0.2, 0.2], [True] * 4)
    >>> size = make_parameter("batch_size", [8, 64, 64, 8], [True] * 4)
    >>> find_cells([lr, size])
    [array([0, 0, 1, 1]), array([0, 1, 1, 0])]
    >>> find_cells([lr, lr]) is None
    True
    """
    all_places = np.array([place_values(parameter) for parameter in parameters])
    if np.isnan(all_places).any():
        return None
    cells = [np.unique(places, return_inverse=True)[1] for places in all_places]
    n_cells = [place.max() + 1 for place in cells]
    n_pairs = len(set(zip(*cells, strict=True)))
    is_full = n_pairs == len(cells[0]) == n_cells[0] * n_cells[1]
    return cells if is_full and min(n_cells) > 1 else None


def _draw_cells(ax, scores, cells):
    """Draw a heat map of cells of equal size; a candidate without a score is an empty cell."""
    columns, rows = cells
    table = np.full((rows.max() + 1, columns.max() + 1), np.nan)
    table[rows, columns] = np.where(np.isfinite(scores), scores, np.nan)
    edges = {"edgecolor": "white", "linewidth": 0.5}
    # cells are centred on their numbers
    x = np.arange(table.shape[1] + 1) - 0.5
    y = np.arange(table.shape[0] + 1) - 0.5
    return ax.pcolormesh(x, y, np.ma.masked_invalid(table), cmap="viridis", **edges)


def _draw_points(ax, scores, places):
    """Draw a point for each candidate with a score; the best ones lie on top."""
    x, y = places
    order = np.argsort(scores)
    order = order[np.isfinite(scores + x + y)[order]]
    points = {"s": 45, "edgecolor": "0.4", "linewidth": 0.4}
    if len(order) > _FEW:
        points = {"s": 12, "linewidth": 0}
    return ax.scatter(x[order], y[order], c=scores[order], cmap="viridis", **points)


def _draw_background(ax, scores, parameters, norm):
    """Draw predicted scores between the points, in paler colours, where they are known."""
    if not all(parameter.is_number for parameter in parameters):
        return
    are_log = [is_logarithmic(parameter) for parameter in parameters]
    places = [place_values(parameter) for parameter in parameters]
    for place, parameter, is_log in zip(places, parameters, are_log, strict=True):
        if is_log:
            # there is nothing between zero and the smallest value
            place[parameter.numbers == 0] = np.nan
    background = find_background(places, are_log, scores)
    if background is None:
        return
    limits = ax.get_xlim(), ax.get_ylim()
    drawn = {"cmap": "viridis", "norm": norm, "alpha": 0.45, "zorder": 0}
    drawn |= {"shading": "nearest", "linewidth": 0, "rasterized": True}
    ax.pcolormesh(background.x, background.y, background.scores, **drawn)
    ax.set(xlim=limits[0], ylim=limits[1])
    label = f"background: Gaussian process ({background.explained:.0%} of left-out variance)"
    ax.fill_between([], [], color="0.8", label=label)


def _name_cells(axis, parameter, cells):
    """Name the columns or the rows of a heat map by the values."""
    _, first = np.unique(cells, return_index=True)
    step = -(-len(first) // _MOST_NAMED)
    named = [format_value(parameter.values[candidate]) for candidate in first[::step]]
    texts = [escape(shorten(text)) for text in named]
    axis.set_ticks(np.arange(len(first))[::step], texts)
    axis.set_label_text(escape(parameter.label))
    is_long = sum(map(len, texts)) > 50
    if is_long and axis is axis.axes.xaxis:
        axis.axes.tick_params(axis="x", rotation=45)
