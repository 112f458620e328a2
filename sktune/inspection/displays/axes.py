"""Places of a parameter's values on an axis: linear, logarithmic or categories."""

import numpy as np

from sktune.inspection.displays.colors import escape

# Texts of categories are cut at this length, and slanted from this many on.
_LONGEST = 24
_MANY = 6


def place_values(parameter):
    """Return where each candidate stands on the parameter's axis: ndarray of (n_candidates,).

    Zeros of a logarithmic scale stand at the left of the smallest value, a category at its
    number. nan where a candidate does not set the parameter.
    """
    if not parameter.is_number:
        return np.where(parameter.codes < 0, np.nan, parameter.codes)
    numbers = np.where(np.isfinite(parameter.numbers), parameter.numbers, np.nan)
    if not is_logarithmic(parameter):
        return numbers
    return np.where(numbers == 0, place_of_zero(parameter), numbers)


def is_logarithmic(parameter):
    """Tell whether the axis is logarithmic: its scale is, and some value is above zero."""
    return parameter.scale == "log" and bool((parameter.numbers > 0).any())


def place_of_zero(parameter):
    """Return where zeros stand on a logarithmic axis: left of the smallest value."""
    positive = parameter.numbers[parameter.numbers > 0]
    decades = np.log10(positive.max() / positive.min())
    return positive.min() / 10 ** max(0.5, 0.15 * decades)


def set_axis(axis, parameter):
    """Set scale, ticks and label of a matplotlib axis (``ax.xaxis`` or ``ax.yaxis``)."""
    axis.set_label_text(escape(parameter.label))
    ax = axis.axes
    is_x = axis is ax.xaxis
    if not parameter.is_number:
        texts = [escape(shorten(category)) for category in parameter.categories]
        axis.set_ticks(range(len(texts)), texts)
        if is_x and len(texts) >= _MANY:
            ax.tick_params(axis="x", rotation=45)
    elif is_logarithmic(parameter):
        _set_log(ax, is_x)
        if (parameter.numbers == 0).any():
            _label_zero(axis, parameter)


def _set_log(ax, is_x):
    """Make an axis logarithmic."""
    if is_x:
        ax.set_xscale("log")
    else:
        ax.set_yscale("log")


def _label_zero(axis, parameter):
    """Label the place of zeros 0, and the powers of ten above it as they are."""
    positive = parameter.numbers[parameter.numbers > 0]
    low = int(np.ceil(np.log10(positive.min()) - 1e-9))
    high = int(np.floor(np.log10(positive.max()) + 1e-9))
    step = max(1, (high - low) // 5)
    powers = list(range(low, high + 1, step))
    places = [place_of_zero(parameter)] + [10.0**power for power in powers]
    axis.set_ticks(places, ["0"] + [rf"$10^{{{power}}}$" for power in powers])
    axis.set_ticks([], minor=True)


def shorten(text):
    """Return the beginning of a long text: 24 characters."""
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"
