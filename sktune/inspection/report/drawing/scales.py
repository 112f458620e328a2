"""Scales: from numbers to places on an axis, and the numbers to write beside it."""

from dataclasses import dataclass

import numpy as np

# Where zeros stand on a logarithmic axis, and where the other numbers begin then.
_PLACE_OF_ZERO = 0.03
_BEGIN_AFTER_ZERO = 0.14
# Room beside the outermost numbers, as a share of the axis.
_MARGIN = 0.04


@dataclass(frozen=True)
class Scale:
    """Places numbers on an axis from 0 to 1.

    Parameters
    ----------
    low, high : float
        The ends, ``low < high``. Numbers beyond an end are placed at it.
    is_log : bool, default=False
        Both ends are greater than 0 then.
    has_zero : bool, default=False
        Whether zeros of a logarithmic scale have a place of their own.

    Examples
    --------
    >>> from sktune.inspection.report.drawing.scales import Scale
    >>> Scale(1.0, 100.0, is_log=True).place([1.0, 10.0, 500.0]).tolist()
    [0.0, 0.5, 1.0]
    """

    low: float
    high: float
    is_log: bool = False
    has_zero: bool = False

    @classmethod
    def around(cls, numbers, is_log=False):
        """Return a scale with room for the finite ones of some numbers.

        A logarithmic scale is linear if a number is negative or none is greater than 0.
        """
        numbers = np.asarray(numbers, dtype=float)
        finite = numbers[np.isfinite(numbers)]
        is_log = is_log and (finite >= 0).all() and (finite > 0).any()
        has_zero = bool(is_log and (finite == 0).any())
        if is_log:
            logs = np.log10(finite[finite > 0])
            low, high = _widen(logs.min(), logs.max())
            return cls(10**low, 10**high, True, has_zero)
        if len(finite) == 0:
            return cls(0.0, 1.0)
        return cls(*_widen(finite.min(), finite.max()))

    def place(self, numbers):
        """Return the places: ndarray of float, nan for what is not finite or cannot be placed."""
        numbers = np.asarray(numbers, dtype=float)
        low, high = self.low, self.high
        places = np.where(np.isfinite(numbers), numbers, np.nan)
        if self.is_log:
            low, high = np.log10(low), np.log10(high)
            places = np.log10(np.where(places > 0, places, np.nan))
        places = np.clip((places - low) / (high - low), 0, 1)
        if self.has_zero:
            places = _BEGIN_AFTER_ZERO + (1 - _BEGIN_AFTER_ZERO) * places
            places = np.where(numbers == 0, _PLACE_OF_ZERO, places)
        return places

    def ticks(self, most=5):
        """Return numbers to write beside the axis: list of (number, str)."""
        numbers = self._log_ticks(most) if self.is_log else _linear_ticks(self.low, self.high, most)
        zero = [0.0] if self.has_zero else []
        return [(number, f"{number:.5g}") for number in [*zero, *numbers]]

    def _log_ticks(self, most):
        low, high = np.log10(self.low), np.log10(self.high)
        decades = np.arange(np.ceil(low - 1e-9), np.floor(high + 1e-9) + 1)
        if len(decades) >= 2:
            step = int(np.ceil(len(decades) / most))
            return [float(10.0**decade) for decade in decades[::step]]
        # within one or two decades
        around = np.arange(np.floor(low), np.ceil(high) + 1)
        inner = [float(digit * 10.0**decade) for decade in around for digit in (1, 2, 5)]
        inner = [number for number in inner if self.low <= number <= self.high]
        return inner if len(inner) >= 2 else _linear_ticks(self.low, self.high, 3)


def _widen(low, high):
    """Return two ends with a margin; of one number, ends on both sides of it."""
    room = (high - low) * _MARGIN
    if high - low <= 1e-12 * max(abs(low), abs(high)):
        room = max(abs(low), 1.0) * 0.05
    return float(low - room), float(high + room)


def _linear_ticks(low, high, most):
    """Return multiples of 1, 2 or 5 times a power of ten, at most `most` of them."""
    rough = (high - low) / most
    power = 10.0 ** np.floor(np.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999)
    first = np.ceil(low / step)
    last = np.floor(high / step + 1e-9)
    # adding 0 makes -0 a 0
    return [float(number * step) + 0.0 for number in np.arange(first, last + 1)]
