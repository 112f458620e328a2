"""The score of each candidate against its value of one parameter."""

import numpy as np

from sktune.inspection.effects.rows import make_rows
from sktune.inspection.report.drawing.axes import Axes, shorten
from sktune.inspection.report.drawing.scales import Scale

_N_BINS = 8
_MOST_CATEGORIES = 20
_ROW = 34
# Scores this many interquartile ranges below the lower quartile are drawn at the edge.
_FAR = 3.0


def draw_effect(record, parameter):
    """Draw the scores of all candidates by the values of a parameter.

    Parameters
    ----------
    record : SearchRecord
        With at least one finite score.
    parameter : Parameter

    Returns
    -------
    svg : str
    notes : list of str
        What the picture leaves out.
    """
    scores = record.mean_scores
    scale, n_far = _find_score_scale(scores, record.best_index)
    draw = _draw_numbers if parameter.is_number else _draw_categories
    svg, notes = draw(record, parameter, scale)
    n_failed = int((~np.isfinite(scores)).sum())
    n_unset = int((np.isfinite(scores) & ~parameter.is_set).sum()) if parameter.is_number else 0
    if n_far:
        notes.append(f"{n_far} far lower scores are drawn at the edge.")
    if n_unset:
        notes.append(f"{n_unset} candidates do not set it.")
    if n_failed:
        notes.append(f"{n_failed} candidates have no score.")
    return svg, notes


def _find_score_scale(scores, best):
    """Return the scale of scores, and how many lie below its lower end."""
    finite = scores[np.isfinite(scores)]
    low, high = np.quantile(finite, [0.25, 0.75])
    limit = low - _FAR * (high - low)
    if high == low:
        limit = -np.inf
    # the best is always within, whatever chose it
    if best is not None and np.isfinite(scores[best]):
        limit = min(limit, scores[best])
    inside = finite[finite >= limit]
    return Scale.around(inside), len(finite) - len(inside)


def _draw_numbers(record, parameter, scale):
    numbers = parameter.numbers
    x_scale = Scale.around(numbers, parameter.scale == "log")
    label = f"{record.scoring} against {parameter.label}, a point for each candidate"
    ticks = _tick_values(numbers, x_scale)
    axes = Axes(label, x_scale, scale, parameter.label, record.scoring, x_ticks=ticks)
    x = axes.to_x(numbers)
    y = axes.to_y(record.mean_scores)
    axes.drawing.add_points(x, y, "point")
    rows = make_rows(parameter, _N_BINS, "quantile")
    middles = [_middle_of(x, y, row.members) for row in rows if np.isfinite(row.low)]
    middles = np.array([middle for middle in middles if middle is not None]).reshape(-1, 2)
    if len(middles) > 1:
        axes.drawing.add_lines([middles.T], "trend")
    if record.best_index is not None:
        best = [record.best_index]
        axes.drawing.add_points(x[best], y[best], "point best")
    return axes.drawing.to_svg(), []


def _tick_values(numbers, scale):
    """Return the values themselves as ticks if they are few and far enough apart; else None."""
    distinct = np.unique(numbers[np.isfinite(numbers)])
    is_few = 1 < len(distinct) <= 5 and np.diff(scale.place(distinct)).min() >= 0.13
    return [(float(number), f"{number:.4g}") for number in distinct] if is_few else None


def _middle_of(x, y, members):
    """Return the median coordinates of some candidates with a score; None if there are none."""
    members = members & np.isfinite(x) & np.isfinite(y)
    if not members.any():
        return None
    return float(np.median(x[members])), float(np.median(y[members]))


def _draw_categories(record, parameter, scale):
    rows = make_rows(parameter, _N_BINS, "quantile")
    order = sorted(range(len(rows)), key=lambda number: -int(rows[number].members.sum()))
    shown = sorted(order[:_MOST_CATEGORIES])
    height = 52 + _ROW * len(shown)
    label = f"{record.scoring} by {parameter.label}, a point for each candidate"
    axes = Axes(label, scale, Scale(0.0, 1.0), record.scoring, "", height=height, has_y_ticks=False)
    x = axes.to_x(record.mean_scores)
    for place, number in enumerate(shown):
        row = rows[number]
        y = axes.top + _ROW * place
        axes.drawing.add_text(axes.left, y + 10, shorten(row.text, 52), "tick")
        _draw_row(axes.drawing, x, y + 22, row.members, record.best_index)
    notes = []
    if len(rows) > len(shown):
        notes.append(f"The {len(shown)} most frequent of {len(rows)} values are drawn.")
    return axes.drawing.to_svg(), notes


def _draw_row(drawing, x, y, members, best):
    """Draw the candidates of one category, a little apart from each other, and their median."""
    numbers = np.flatnonzero(members & np.isfinite(x))
    # the golden ratio spreads any number of points evenly
    spread = (np.arange(len(x)) * 0.618 % 1 - 0.5) * 9
    drawing.add_points(x[numbers], y + spread[numbers], "point")
    if len(numbers):
        median = float(np.median(x[numbers]))
        drawing.add_line(median, y - 7, median, y + 7, "trend")
    if best in numbers:
        drawing.add_points(x[[best]], np.array([y + spread[best]]), "point best")
