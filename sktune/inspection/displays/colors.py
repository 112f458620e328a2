"""Colours by the values of a parameter."""

import numpy as np

from sktune.inspection.records.parameters import format_value

_MAP = "viridis"
_UNSET = "0.6"


def escape(text):
    """Return a text in which a dollar sign begins no formula."""
    return str(text).replace("$", r"\$")


def make_norm(parameter):
    """Return matplotlib's norm and the values to colour by; zeros on a log scale are masked.

    Parameters
    ----------
    parameter : Parameter
        Of numbers.

    Returns
    -------
    norm : matplotlib Normalize
    numbers : ndarray of shape (n_candidates,)
        nan where there is no value on the scale.
    """
    from matplotlib.colors import LogNorm, Normalize

    numbers = np.where(np.isfinite(parameter.numbers), parameter.numbers, np.nan)
    is_log = parameter.scale == "log" and (numbers > 0).any()
    if is_log:
        numbers = np.where(numbers > 0, numbers, np.nan)
    if np.isnan(numbers).all():
        return Normalize(0, 1), numbers
    norm = LogNorm if is_log else Normalize
    return norm(np.nanmin(numbers), np.nanmax(numbers)), numbers


def color_candidates(parameter):
    """Return a colour for each candidate: an ndarray of shape (n_candidates, 4).

    Numbers are coloured on their scale, categories in even steps. Candidates without a value,
    and zeros on a logarithmic scale, are grey.
    """
    from matplotlib import colormaps
    from matplotlib.colors import to_rgba

    if parameter.is_number:
        norm, numbers = make_norm(parameter)
        shares = np.asarray(norm(np.ma.masked_invalid(numbers)).filled(np.nan), dtype=float)
    else:
        codes = parameter.codes.astype(float)
        shares = np.where(codes < 0, np.nan, codes / max(1, len(parameter.categories) - 1))
    # the bright end of the map is hard to see on white
    colors = colormaps[_MAP](0.9 * np.nan_to_num(shares))
    colors[np.isnan(shares)] = to_rgba(_UNSET)
    return colors


def add_color_key(ax, parameter):
    """Add a colour bar for numbers; return handles for categories, and for what is grey.

    Parameters
    ----------
    ax : matplotlib Axes
    parameter : Parameter

    Returns
    -------
    handles : list of matplotlib Line2D
    """
    from matplotlib import colormaps
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import ListedColormap
    from matplotlib.lines import Line2D

    if parameter.is_number:
        norm, _ = make_norm(parameter)
        shown = ListedColormap(colormaps[_MAP](np.linspace(0, 0.9, 256)))
        bar = ax.figure.colorbar(ScalarMappable(norm, shown), ax=ax)
        bar.set_label(escape(parameter.label))
        return _explain_grey(parameter)
    colors = color_candidates(parameter)
    handles = []
    for category in parameter.categories:
        first = [format_value(value) for value in parameter.values].index(category)
        handles.append(Line2D([], [], color=colors[first], label=escape(category)))
    return handles


def _explain_grey(parameter):
    """Return a handle for the numbers that have no place on the colour bar, if there are some."""
    from matplotlib.lines import Line2D

    _, numbers = make_norm(parameter)
    is_grey = np.isnan(numbers)
    meanings = []
    if (is_grey & (parameter.numbers == 0)).any():
        meanings.append("0")
    if (is_grey & (parameter.numbers != 0)).any():
        meanings.append("no number")
    label = f"{parameter.label}: {' or '.join(meanings)}"
    return [Line2D([], [], color=_UNSET, label=escape(label))] if meanings else []
