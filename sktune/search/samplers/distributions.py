"""Search spaces as samplers know them: each parameter as a number from 0 to 1, and back.

A :class:`Dimension` maps the unit interval to the values of one parameter, as the quantile function
of its distribution does. So equal steps in the interval are equally likely, which is the scale
that a Gaussian process needs; Optuna samples what it has a distribution for by that, and all else
by the position in the interval.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from numbers import Real

import numpy as np
from sklearn.utils import check_random_state

from sktune.runtime.optional import import_optuna
from sktune.search.narrowing import NarrowedDistribution
from sktune.search.settable import check_settable
from sktune.search.spaces import loguniform_int, zero_or

# Where quantile functions are cut off: that of a normal distribution is infinite at 0 and 1.
_EDGE = 2.0**-20
# Of a space with no more candidates than these none is evaluated twice.
SMALL = 10_000


def _import_distributions():
    """Return ``optuna.distributions``."""
    return import_optuna("a sampler or a study of Optuna's").distributions


class Dimension(ABC):
    """The values of one parameter, in the order of the positions from 0 to 1."""

    # the number of values; None is not finite
    n_values = None

    @abstractmethod
    def value_at(self, position):
        """Return the value at a position from 0 to 1."""

    @abstractmethod
    def position_of(self, value):
        """Return a position at which `value` is; a ValueError if it is at none."""

    @abstractmethod
    def sampled_distribution(self):
        """Return the Optuna distribution that its samplers draw from."""

    def sampled_at(self, position):
        """Return what an Optuna sampler calls the value at a position."""
        return self.value_at(position)

    def position_of_sampled(self, sampled):
        """Return the position of what an Optuna sampler has drawn."""
        return self.position_of(sampled)

    @abstractmethod
    def shown_distribution(self):
        """Return the Optuna distribution that holds the values themselves, for a study to show."""

    def shown(self, value):
        """Return what a study shows of a value."""
        return value

    def features_at(self, position):
        """Return what a Gaussian process sees of a position: a list of numbers from 0 to 1."""
        return [position]

    def list_positions(self):
        """Return the positions of all values, if there is a number of these."""
        raise TypeError(f"the values of a dimension must be finite, got {self!r}")


@dataclass(frozen=True)
class Number(Dimension):
    """A float or an int between two bounds, both included, on a linear or a logarithmic scale.

    Parameters
    ----------
    low, high : float or int
    log : bool
    is_int : bool
    step : float, int or None
        Values are ``low``, ``low + step`` and so on; None is 1 for an int, and any float.
    """

    low: Real
    high: Real
    log: bool = False
    is_int: bool = False
    step: Real | None = None

    @property
    def n_values(self):
        """How many values there are; None is not finite."""
        step = self._step
        return None if step is None else int(round((self.high - self.low) / step)) + 1

    @property
    def _step(self):
        return 1 if self.is_int and self.step is None else self.step

    @property
    def _edges(self):
        """Return where the positions 0 and 1 are, on the scale of the number."""
        # half a step on either side gives the two ends their full share of the rounding
        half = (self._step or 0) / 2
        low = self.low - half
        high = self.high + half
        return (np.log(low), np.log(high)) if self.log else (low, high)

    def list_positions(self):
        """Return the positions of all values."""
        values = [self.low + n * self._step for n in range(self.n_values)]
        return [self.position_of(value) for value in values]

    def value_at(self, position):
        """Return the value at a position from 0 to 1."""
        low, high = self._edges
        value = low + position * (high - low)
        if self.log:
            value = np.exp(value)
        if self._step is not None:
            value = self.low + self._step * np.rint((value - self.low) / self._step)
        value = min(max(value, self.low), self.high)
        return int(value) if self.is_int else float(value)

    def position_of(self, value):
        """Return the position of a value."""
        is_number = isinstance(value, Real) and not isinstance(value, bool)
        if not is_number or not self.low <= value <= self.high:
            raise ValueError(f"a value must be from {self.low} to {self.high}, got {value!r}")
        if self.is_int and value != int(value):
            raise ValueError(f"a value must be a whole number, got {value!r}")
        low, high = self._edges
        if low == high:
            return 0.5
        value = np.log(value) if self.log else value
        return float((value - low) / (high - low))

    def ppf(self, q):
        """Return the values at positions from 0 to 1, a float or an array: as scipy's do."""
        values = [self.value_at(position) for position in np.ravel(q)]
        return np.array(values).reshape(np.shape(q))[()]

    def cdf(self, value):
        """Return the position of a value, as scipy's distributions do."""
        return self.position_of(min(max(value, self.low), self.high))

    def rvs(self, size=None, random_state=None):
        """Draw a value, or an array of shape `size`, as scipy's distributions do."""
        draws = self.ppf(check_random_state(random_state).uniform(size=size))
        return draws if size is not None else as_python(draws)

    def sampled_distribution(self):
        """Return the Optuna distribution of the same name."""
        distributions = _import_distributions()
        if self.is_int:
            step = 1 if self.step is None else self.step
            return distributions.IntDistribution(self.low, self.high, self.log, step)
        return distributions.FloatDistribution(self.low, self.high, self.log, self.step)

    def shown_distribution(self):
        """Return the Optuna distribution of the same name."""
        return self.sampled_distribution()


@dataclass(frozen=True, eq=False)
class Choices(Dimension):
    """The entries of a list, each as likely as the others.

    Numbers in ascending or descending order keep their order; other entries have none.
    """

    values: tuple

    @property
    def n_values(self):
        """How many entries there are."""
        return len(self.values)

    def list_positions(self):
        """Return the positions of all entries."""
        return [self.position_of_sampled(index) for index in range(self.n_values)]

    def value_at(self, position):
        """Return the entry at a position from 0 to 1."""
        return self.values[self.sampled_at(position)]

    def position_of(self, value):
        """Return the position of the first entry that equals a value."""
        for index, other in enumerate(self.values):
            if are_equal(value, other):
                return self.position_of_sampled(index)
        raise ValueError(f"a value must be one of {list(self.values)!r}, got {value!r}")

    def sampled_distribution(self):
        """Return the distribution of the entries' numbers."""
        return _import_distributions().CategoricalDistribution(range(self.n_values))

    def sampled_at(self, position):
        """Return the number of the entry at a position."""
        return min(int(position * self.n_values), self.n_values - 1)

    def position_of_sampled(self, sampled):
        """Return the position in the middle of an entry's share."""
        return (sampled + 0.5) / self.n_values

    def shown_distribution(self):
        """Return the distribution of the entries, or of their texts."""
        shown = [self.shown(value) for value in self.values]
        choices = list(dict.fromkeys(shown))
        return _import_distributions().CategoricalDistribution(choices)

    def shown(self, value):
        """Return an entry that Optuna can keep, or its text."""
        kinds = (bool, int, float, str)
        if value is None or type(value) in kinds:
            return value
        # the number tells entries of equal texts apart
        position = self.position_of(value)
        return f"{self.sampled_at(position)}: {value!r}"

    def features_at(self, position):
        """Return the position of an entry in an order, or else a column for each entry."""
        if self._is_sorted or self.n_values == 1:
            return [position]
        index = self.sampled_at(position)
        return [float(index == other) for other in range(self.n_values)]

    @property
    def _is_sorted(self):
        are_numbers = all(
            isinstance(value, Real) and not isinstance(value, bool) for value in self.values
        )
        if not are_numbers:
            return False
        steps = np.diff(np.array(self.values, dtype=float))
        return bool((steps > 0).all() or (steps < 0).all())


@dataclass(frozen=True, eq=False)
class Quantiles(Dimension):
    """A scipy distribution that Optuna has no name for, by its quantile function.

    Optuna samples the position.
    """

    distribution: object

    @property
    def is_int(self):
        """Whether the distribution is discrete."""
        return hasattr(self.distribution.dist, "pmf")

    def value_at(self, position):
        """Return the quantile at a position."""
        value = self.distribution.ppf(min(max(position, _EDGE), 1 - _EDGE))
        return int(value) if self.is_int else float(value)

    def position_of(self, value):
        """Return the probability of what is below a value, and half of the value's own."""
        is_number = isinstance(value, Real) and not isinstance(value, bool)
        low, high = self.value_at(0.0), self.value_at(1.0)
        if not is_number or not low <= value <= high:
            raise ValueError(f"a value must be from {low} to {high}, got {value!r}")
        position = self.distribution.cdf(value)
        if self.is_int:
            position -= self.distribution.pmf(value) / 2
        return float(position)

    def sampled_distribution(self):
        """Return the distribution of the position."""
        return _import_distributions().FloatDistribution(0.0, 1.0)

    def sampled_at(self, position):
        """Return the position."""
        return position

    def position_of_sampled(self, sampled):
        """Return the position."""
        return sampled

    def shown_distribution(self):
        """Return one between the smallest and the largest quantile."""
        return Number(
            self.value_at(0.0), self.value_at(1.0), is_int=self.is_int
        ).shown_distribution()


@dataclass(frozen=True, eq=False)
class ZeroOr(Quantiles):
    """Zero up to the position `p_zero`, and another dimension's values from there."""

    distribution: Dimension
    p_zero: float

    is_int = False

    def value_at(self, position):
        """Return 0.0 or the value of the other dimension."""
        if position <= self.p_zero:
            return 0.0
        return float(self.distribution.value_at((position - self.p_zero) / (1 - self.p_zero)))

    def position_of(self, value):
        """Return the middle of what is zero, or the position of a value beyond."""
        if value == 0 and self.p_zero > 0:
            return self.p_zero / 2
        return self.p_zero + (1 - self.p_zero) * self.distribution.position_of(value)

    def shown_distribution(self):
        """Return one that holds zero and the values of the other dimension."""
        ends = (0.0, float(self.distribution.value_at(0.0)), float(self.distribution.value_at(1.0)))
        return Number(min(ends), max(ends)).shown_distribution()

    def features_at(self, position):
        """Return whether it is zero, and the position in the other dimension."""
        if position <= self.p_zero:
            return [1.0, 0.0]
        return [0.0, (position - self.p_zero) / (1 - self.p_zero)]


@dataclass(frozen=True, eq=False)
class Narrowed(Quantiles):
    """The part of another dimension between two of its positions."""

    distribution: Dimension
    low: float
    high: float

    @property
    def n_values(self):
        """Unknown: None, as of what is not finite."""
        return None

    @property
    def is_int(self):
        """Whether the other dimension has whole numbers."""
        return bool(self.distribution.is_int)

    def value_at(self, position):
        """Return the value of the other dimension."""
        return self.distribution.value_at(self.low + position * (self.high - self.low))

    def position_of(self, value):
        """Return the position of a value, which must lie in the part."""
        position = (self.distribution.position_of(value) - self.low) / (self.high - self.low)
        if -1e-9 <= position <= 1 + 1e-9:
            return min(max(float(position), 0.0), 1.0)
        # of zero or of a whole number the middle may lie beyond an edge that cuts its share
        for edge in (0.0, 1.0):
            if self.value_at(edge) == value:
                return edge
        raise ValueError(f"a value must lie in the narrowed range, got {value!r}")


def make_dimension(name, values):
    """Return the Dimension of what a space gives for a parameter.

    Raises
    ------
    ValueError
        If it is an empty list, or a distribution without a quantile function.
    """
    if isinstance(values, Dimension):
        return values
    if isinstance(values, loguniform_int):
        return Number(int(values.low), int(values.high), log=True, is_int=True)
    if isinstance(values, zero_or):
        return ZeroOr(make_dimension(name, values.distribution), values.p_zero)
    if isinstance(values, NarrowedDistribution):
        whole = make_dimension(name, values.distribution)
        return Narrowed(whole, float(values.low), float(values.high))
    if type(values).__module__ == "optuna.distributions":
        return _read_optuna(values)
    if hasattr(values, "ppf") and hasattr(values, "dist"):
        return _read_scipy(name, values)
    is_list = isinstance(values, (Sequence, np.ndarray)) and not isinstance(values, (str, bytes))
    if is_list and len(values) > 0:
        return Choices(tuple(as_python(value) for value in values))
    raise ValueError(
        f"the values of {name!r} must be a list that is not empty, a frozen scipy distribution of "
        f"one number, zero_or, loguniform_int or an Optuna distribution, got {values!r}"
    )


def as_python(value):
    """Return a NumPy number as Python's own; other values as they are."""
    return value.item() if isinstance(value, np.generic) else value


def _read_optuna(values):
    """Return the dimension of an Optuna distribution."""
    name = type(values).__name__
    if name == "CategoricalDistribution":
        return Choices(tuple(values.choices))
    if name == "FloatDistribution":
        return Number(values.low, values.high, log=values.log, step=values.step)
    if name == "IntDistribution":
        return Number(values.low, values.high, log=values.log, is_int=True, step=values.step)
    raise ValueError(
        "an Optuna distribution must be a FloatDistribution, IntDistribution or "
        f"CategoricalDistribution, got {values!r}"
    )


def _read_scipy(name, values):
    """Return the dimension of a frozen scipy distribution."""
    low, high = values.support()
    if np.isnan(low) or np.isnan(high):
        raise ValueError(
            f"the distribution of {name!r} must have parameters that scipy allows, such as a scale "
            f"above 0, got {values.dist.name} with {values.args} and {values.kwds}"
        )
    if values.dist.name == "uniform":
        return Number(float(low), float(high))
    # a shift makes another shape of it
    is_shifted = values.kwds.get("loc", 0) != 0 or len(values.args) > 2 and values.args[2] != 0
    if values.dist.name in ("loguniform", "reciprocal") and not is_shifted:
        return Number(float(low), float(high), log=True)
    if values.dist.name == "randint":
        return Number(int(low), int(high), is_int=True)
    return Quantiles(values)


def are_equal(value, other):
    """Tell whether two values are the same; estimators are compared by what they show."""
    if value is other:
        return True
    if isinstance(value, bool) != isinstance(other, bool):
        return False
    try:
        return bool(value == other) or hasattr(value, "get_params") and repr(value) == repr(other)
    except (TypeError, ValueError):
        # arrays have no single truth
        return repr(value) == repr(other)


@dataclass(frozen=True)
class Point:
    """A candidate: the number of its part of the space, and a position for each of the names."""

    part: int
    positions: tuple


class Space:
    """A search space, of which one part or several hold the candidates.

    Parameters
    ----------
    param_distributions : dict or list of dict
        See :class:`sktune.BayesSearchCV`. Each dict is a part.

    Attributes
    ----------
    parts : list of dict
        The Dimensions of each part, by name.
    """

    def __init__(self, param_distributions):
        parts = param_distributions
        if isinstance(parts, Mapping):
            parts = [parts]
        is_list = isinstance(parts, Sequence) and not isinstance(parts, (str, bytes))
        if not is_list or not all(isinstance(part, Mapping) for part in parts):
            raise TypeError(
                "param_distributions must be a dict or a list of dicts, "
                f"got {param_distributions!r}"
            )
        if not parts or not all(parts):
            raise ValueError(
                "param_distributions must name at least one parameter of the estimator, "
                f"got {param_distributions!r}"
            )
        self.parts = []
        for part in parts:
            self.parts.append({name: make_dimension(name, part[name]) for name in part})

    @property
    def names(self):
        """The names of all parameters, in their order."""
        return list(dict.fromkeys(name for part in self.parts for name in part))

    @property
    def n_values(self):
        """How many candidates there are; None is not finite."""
        total = 0
        for part in self.parts:
            sizes = [dimension.n_values for dimension in part.values()]
            if None in sizes:
                return None
            total += int(np.prod(sizes, dtype=float))
        return total

    @property
    def is_small(self):
        """Whether there are so few candidates that none is to be evaluated twice."""
        n_values = self.n_values
        return n_values is not None and n_values <= SMALL

    def params_at(self, point):
        """Return the parameters of a candidate."""
        dimensions = self.parts[point.part].items()
        return {
            name: dimension.value_at(position)
            for (name, dimension), position in zip(dimensions, point.positions, strict=True)
        }

    def list_points(self):
        """Return all candidates of a space that is finite."""
        points = []
        for number, part in enumerate(self.parts):
            columns = [dimension.list_positions() for dimension in part.values()]
            points += [Point(number, positions) for positions in product(*columns)]
        return points

    def settle(self, point):
        """Return the Point of the same candidate that `find_point` returns."""
        dimensions = self.parts[point.part].values()
        positions = [
            dimension.position_of(dimension.value_at(position))
            for dimension, position in zip(dimensions, point.positions, strict=True)
        ]
        return Point(point.part, tuple(positions))

    def find_point(self, params):
        """Return the Point of a candidate; None if it is not in the space.

        Parameters of no part, which an estimator may have of its own, do not matter.
        """
        for number, part in enumerate(self.parts):
            if not part.keys() <= params.keys():
                continue
            try:
                positions = [part[name].position_of(params[name]) for name in part]
            except ValueError:
                continue
            return Point(number, tuple(positions))
        return None

    def draw(self, n, rng):
        """Return n candidates, each as likely as the space has it.

        They are spread evenly over each dimension (a Latin hypercube: McKay et al. 1979).
        """
        numbers = np.sort(rng.randint(len(self.parts), size=n))
        points = []
        for number, part in enumerate(self.parts):
            n_own = int((numbers == number).sum())
            columns = [(rng.permutation(n_own) + rng.uniform(size=n_own)) / n_own for _ in part]
            for positions in zip(*columns, strict=True):
                points.append(Point(number, tuple(float(p) for p in positions)))
        return [points[index] for index in rng.permutation(n)]

    def features(self, points):
        """Return what a Gaussian process sees of candidates, an array of shape (n, n_features).

        What another part of the space names is in the middle.
        """
        rows = []
        for point in points:
            row = []
            for number, part in enumerate(self.parts):
                is_own = number == point.part
                if len(self.parts) > 1:
                    row.append(float(is_own))
                positions = point.positions if is_own else [0.5] * len(part)
                for dimension, position in zip(part.values(), positions, strict=True):
                    features = dimension.features_at(position)
                    row += features if is_own else [0.5] * len(features)
            rows.append(row)
        return np.array(rows)

    def check_names(self, estimator):
        """Raise a ValueError for a name that is no parameter of the estimator."""
        for number, part in enumerate(self.parts):
            middle = Point(number, (0.5,) * len(part))
            check_settable("param_distributions", estimator, self.params_at(middle))
