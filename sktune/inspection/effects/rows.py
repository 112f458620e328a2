"""Group the candidates of a search by the values of one parameter."""

from dataclasses import dataclass

import numpy as np

from sktune.inspection.records.parameters import format_value


@dataclass(frozen=True)
class Row:
    """Candidates with like values of a parameter.

    Parameters
    ----------
    text : str
        The value or the range, for people.
    low, high : float
        The least and the greatest value; nan for categories and for candidates that do not set it.
    members : ndarray of bool of shape (n_candidates,)
    """

    text: str
    low: float
    high: float
    members: np.ndarray


def make_rows(parameter, n_bins, binning):
    """Return the rows of a parameter, values before bins and unset values last: a list of Row."""
    if parameter.is_number:
        rows = _rows_of_numbers(parameter, n_bins, binning)
    else:
        codes = parameter.codes
        categories = enumerate(parameter.categories)
        rows = [Row(text, np.nan, np.nan, codes == code) for code, text in categories]
    if not parameter.is_set.all():
        rows.append(Row("not set", np.nan, np.nan, ~parameter.is_set))
    return rows


def _rows_of_numbers(parameter, n_bins, binning):
    numbers = parameter.numbers
    distinct = np.unique(numbers[parameter.is_set])
    if len(distinct) <= n_bins:
        return [_row_of_value(numbers, value) for value in distinct]
    rows = []
    is_binned = parameter.is_set
    if parameter.scale == "log" and (distinct == 0).any():
        rows.append(_row_of_value(numbers, 0.0))
        is_binned = is_binned & (numbers != 0)
    is_log = parameter.scale == "log" and (numbers[is_binned] > 0).all()
    scaled = np.full(len(numbers), np.nan)
    scaled[is_binned] = np.log(numbers[is_binned]) if is_log else numbers[is_binned]
    for members in _bin(scaled, is_binned, n_bins, binning):
        low = numbers[members].min()
        high = numbers[members].max()
        text = f"{low:.3g} to {high:.3g}" if low < high else format_value(float(low))
        rows.append(Row(text, low, high, members))
    return rows


def _row_of_value(numbers, value):
    return Row(f"{value:.6g}", value, value, numbers == value)


def _bin(scaled, is_binned, n_bins, binning):
    """Yield the members of each bin that has any."""
    values = scaled[is_binned]
    if binning == "quantile":
        edges = np.unique(np.quantile(values, np.linspace(0, 1, n_bins + 1)))
    else:
        edges = np.linspace(values.min(), values.max(), n_bins + 1)
    # the inner edges alone, so that the least and the greatest value are in a bin
    bins = np.searchsorted(edges[1:-1], scaled, side="right")
    for number in range(len(edges)):
        members = is_binned & (bins == number)
        if members.any():
            yield members
