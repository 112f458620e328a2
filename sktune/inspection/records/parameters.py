"""The parameters that a search has varied: their names for people, their values and scales."""

from dataclasses import dataclass, replace
from numbers import Real

import numpy as np

# Values without a space are on a logarithmic scale if the largest is this many times the smallest.
_LOG_FROM = 30


@dataclass(frozen=True)
class KnownParameter:
    """What a parameter is called in texts on tuning.

    Parameters
    ----------
    symbol : str
        Such as ``"α"``; ``""`` if there is none.
    meaning : str
        Such as ``"learning rate"``.
    """

    symbol: str
    meaning: str


# By the end of the name, most important first.
KNOWN_PARAMETERS = {
    "lr": KnownParameter("α", "learning rate"),
    "learning_rate_init": KnownParameter("α", "learning rate"),
    "learning_rate": KnownParameter("α", "learning rate"),
    "optimizer__weight_decay": KnownParameter("λ", "weight decay"),
    "l1": KnownParameter("λ₁", "L1 penalty"),
    "l2": KnownParameter("λ₂", "L2 penalty"),
    "alpha": KnownParameter("λ", "regularization strength"),
    "batch_size": KnownParameter("", "batch size"),
    "module__dropout": KnownParameter("", "dropout"),
    "optimizer__momentum": KnownParameter("", "momentum"),
    "max_epochs": KnownParameter("", "epochs"),
    "module__hidden": KnownParameter("", "hidden layers"),
    "module__activation": KnownParameter("", "activation"),
}


def known_parameter(name):
    """Return the key of KNOWN_PARAMETERS that a name ends in, maybe after prefixes; else None."""
    for known in KNOWN_PARAMETERS:
        if f"__{name}".endswith(f"__{known}"):
            return known
    return None


def label_of(name):
    """Return how a parameter is called in a picture or a table.

    Examples
    --------
    >>> from sktune.inspection.records import label_of
    >>> label_of("net__lr"), label_of("optimizer__weight_decay"), label_of("C")
    ('learning rate α', 'weight decay λ', 'C')
    """
    known = KNOWN_PARAMETERS.get(known_parameter(name))
    if known is None:
        return name
    return f"{known.meaning} {known.symbol}".strip()


@dataclass(frozen=True)
class Parameter:
    """The values of one parameter over the candidates of a search.

    Parameters
    ----------
    name : str
        As the estimator calls it.
    values : ndarray of object of shape (n_candidates,)
        What each candidate had. A candidate that does not set the parameter has the estimator's
        own value where that is known, and otherwise None.
    is_set : ndarray of bool of shape (n_candidates,)
        Which candidates set the parameter, or have the estimator's own value.
    scale : {"linear", "log", "categories"}
        ``"categories"`` have no order. On a logarithmic scale there may be zeros.
    space : object or None
        The list or distribution that the values come from, where it is known.
    """

    name: str
    values: np.ndarray
    is_set: np.ndarray
    scale: str
    space: object = None

    def select(self, candidates):
        """Return the values of some candidates only."""
        return replace(self, values=self.values[candidates], is_set=self.is_set[candidates])

    @property
    def label(self):
        """How people call it, such as ``"learning rate α"``."""
        return label_of(self.name)

    @property
    def is_number(self):
        """Whether the values are numbers, on a linear or a logarithmic scale."""
        return self.scale != "categories"

    @property
    def numbers(self):
        """The values as floats; nan where a candidate does not set it."""
        if not self.is_number:
            raise TypeError(f"the values of {self.name!r} must be numbers, got categories")
        numbers = [
            value if there else np.nan
            for value, there in zip(self.values, self.is_set, strict=True)
        ]
        return np.array(numbers, dtype=float)

    @property
    def categories(self):
        """The texts of the different values, in the order of their first use."""
        return list(dict.fromkeys(format_value(value) for value in self.values[self.is_set]))

    @property
    def codes(self):
        """The number of each candidate's category; -1 where it does not set the parameter."""
        numbers = {category: number for number, category in enumerate(self.categories)}
        codes = np.full(len(self.values), -1)
        for candidate in np.flatnonzero(self.is_set):
            codes[candidate] = numbers[format_value(self.values[candidate])]
        return codes

    @property
    def is_varied(self):
        """Whether candidates differ in it."""
        return self.n_distinct > 1 or not self.is_set.all()

    @property
    def n_distinct(self):
        """How many different values there are."""
        return len(self.categories)


def make_parameter(name, values, is_set, space=None):
    """Return the Parameter of some values; see :class:`Parameter` for what is given."""
    column = np.empty(len(values), dtype=object)
    column[:] = [_as_python(value) for value in values]
    is_set = np.asarray(is_set, dtype=bool)
    scale = find_scale(column[is_set], space)
    return Parameter(name, column, is_set, scale, space)


def find_scale(values, space=None):
    """Return the scale of a parameter: ``"linear"``, ``"log"`` or ``"categories"``.

    Parameters
    ----------
    values : sequence
        The values that were tried.
    space : object or None
        The list or distribution that they come from. A distribution that has as much probability
        between 1 and 10 as between 10 and 100 is on a logarithmic scale.

    Examples
    --------
    >>> from scipy.stats import loguniform, uniform
    >>> from sktune.inspection.records.parameters import find_scale
    >>> find_scale([0.1, 0.2], loguniform(1e-3, 1)), find_scale([0.1, 0.2], uniform(0, 1))
    ('log', 'linear')
    >>> find_scale([16, 64, 512]), find_scale(["relu", "tanh"])
    ('log', 'categories')
    """
    are_numbers = all(isinstance(v, Real) and not isinstance(v, bool) for v in values)
    if len(values) == 0 or not are_numbers:
        return "categories"
    if isinstance(getattr(space, "log", None), bool):
        # a distribution of Optuna's
        return "log" if space.log else "linear"
    if hasattr(space, "ppf"):
        return _scale_of_distribution(space)
    positive = np.array([v for v in values if v > 0 and np.isfinite(v)], dtype=float)
    if len(positive) < 2 or min(values) < 0 or positive.max() / positive.min() < _LOG_FROM:
        return "linear"
    return "log"


def _scale_of_distribution(space):
    """Return the scale on which the quantiles of a distribution are more even."""
    quantiles = np.array([float(space.ppf(share)) for share in np.linspace(0.02, 0.98, 25)])
    positive = quantiles[quantiles > 0]
    if (quantiles < 0).any() or len(positive) < 3 or positive[0] == positive[-1]:
        return "linear"
    linear = np.diff(positive) / (positive[-1] - positive[0])
    logarithmic = np.diff(np.log(positive)) / np.log(positive[-1] / positive[0])
    return "log" if logarithmic.std() < linear.std() else "linear"


def format_value(value):
    """Return the text of a parameter's value, on one line.

    Examples
    --------
    >>> from sktune.inspection.records.parameters import format_value
    >>> format_value(0.000123456), format_value((64, 32)), format_value(None)
    ('0.0001235', '(64, 32)', 'None')
    """
    if isinstance(value, float | np.floating):
        return f"{value:.4g}"
    if isinstance(value, type):
        return value.__name__
    return " ".join(str(value).split())


def _as_python(value):
    """Return a NumPy number as Python's own; other values as they are."""
    return value.item() if isinstance(value, np.generic) else value
