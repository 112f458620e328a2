"""Search spaces: distributions that scipy does not have, and a space to start from."""

import inspect
from dataclasses import dataclass
from numbers import Integral

import numpy as np
from scipy.stats import loguniform, uniform
from sklearn.pipeline import Pipeline
from skorch import NeuralNet
from torch.nn import Module


@dataclass(frozen=True)
class loguniform_int:
    """Random integers with probabilities about proportional to 1 / value.

    For widths, depths or patience.

    Parameters
    ----------
    low, high : int
        The smallest and the largest value, both included.

    Raises
    ------
    ValueError
        Unless both are integers and ``1 <= low <= high``.

    Examples
    --------
    >>> from sktune import loguniform_int
    >>> loguniform_int(8, 512)
    loguniform_int(low=8, high=512)
    >>> loguniform_int(8, 512).rvs(size=6, random_state=0).tolist()
    [76, 154, 96, 75, 45, 115]
    """

    low: int
    high: int

    def __post_init__(self):
        for name, bound in vars(self).items():
            if not isinstance(bound, Integral) or isinstance(bound, bool):
                raise ValueError(f"{name} must be a whole number, got {name}={bound!r}")
        if not 1 <= self.low <= self.high:
            raise ValueError(
                "low and high must satisfy 1 <= low <= high, "
                f"got low={self.low} and high={self.high}"
            )

    def rvs(self, size=None, random_state=None):
        """Draw random integers.

        Parameters
        ----------
        size : int, tuple of int or None, default=None
        random_state : int, RandomState, Generator or None, default=None

        Returns
        -------
        draws : int, or int64 ndarray of shape `size`
        """
        # Half an integer more on either side lets both ends be rounded to as often as the others.
        continuous = loguniform(self.low - 0.5, self.high + 0.5)
        draws = continuous.rvs(size=size, random_state=random_state)
        draws = np.clip(np.rint(draws), self.low, self.high).astype(np.int64)
        return int(draws) if size is None else draws

    def ppf(self, q):
        """Return the integer below which a draw falls with probability `q`, or an array of them."""
        values = loguniform(self.low - 0.5, self.high + 0.5).ppf(q)
        values = np.clip(np.rint(values), self.low, self.high).astype(np.int64)
        return int(values) if np.ndim(q) == 0 else values

    def cdf(self, value):
        """Return the probability of a draw below `value`, half of its own probability included."""
        return loguniform(self.low - 0.5, self.high + 0.5).cdf(value)


@dataclass(frozen=True, eq=False, repr=False)
class zero_or:
    """Zero with some probability, otherwise a draw from a distribution.

    It lets a search switch off a regularization altogether. Two of them are equal if their
    parameters are equal.

    Parameters
    ----------
    distribution : object with an ``rvs`` method
        A frozen distribution of scipy's, or one of this module's.
    p_zero : float, default=0.25
        The probability of 0.0.

    Raises
    ------
    TypeError
        If `distribution` has no ``rvs`` method.
    ValueError
        If `p_zero` is not between 0 and 1.

    Examples
    --------
    >>> from scipy.stats import loguniform
    >>> from sktune import zero_or
    >>> zero_or(loguniform(1e-6, 1e-1), p_zero=0.5).rvs(size=5, random_state=0).round(6).tolist()
    [0.001696, 0.000154, 0.028765, 0.065813, 0.0]
    """

    distribution: object
    p_zero: float = 0.25

    def __post_init__(self):
        if not callable(getattr(self.distribution, "rvs", None)):
            raise TypeError(f"distribution must have an rvs method, got {self.distribution!r}")
        if not 0 <= self.p_zero <= 1:
            raise ValueError(f"p_zero must be between 0 and 1, got p_zero={self.p_zero}")

    def rvs(self, size=None, random_state=None):
        """Draw random numbers.

        Parameters
        ----------
        size : int, tuple of int or None, default=None
        random_state : int, RandomState, Generator or None, default=None

        Returns
        -------
        draws : float, or float64 ndarray of shape `size`
        """
        rng = random_state
        # Not check_random_state of scikit-learn, which takes no Generator.
        if not hasattr(rng, "uniform"):
            rng = np.random.RandomState(random_state)
        # Both are always drawn, so that later draws from `rng` do not depend on the outcome.
        is_zero = rng.uniform(size=size) < self.p_zero
        shape = 1 if size is None else size
        draws = np.where(is_zero, 0.0, self.distribution.rvs(size=shape, random_state=rng))
        return float(draws[0]) if size is None else draws

    def ppf(self, q):
        """Return the value below which a draw falls with probability `q`, or an array of them.

        An AttributeError is raised if the distribution that is drawn from has no ``ppf``.
        """
        q = np.asarray(q, dtype=float)
        share = np.clip((q - self.p_zero) / max(1 - self.p_zero, 1e-12), 0, 1)
        values = np.where(q <= self.p_zero, 0.0, self.distribution.ppf(share))
        return float(values) if q.ndim == 0 else values

    def cdf(self, value):
        """Return the probability of a draw up to `value`; of 0.0, half of its probability."""
        if value <= 0:
            return self.p_zero / 2 if value == 0 else 0.0
        return self.p_zero + (1 - self.p_zero) * float(self.distribution.cdf(value))

    def __repr__(self):
        return f"zero_or({_describe(self.distribution)}, p_zero={self.p_zero})"

    def __eq__(self, other):
        return type(other) is zero_or and repr(self) == repr(other)

    def __hash__(self):
        return hash(repr(self))


def _describe(distribution):
    """Return a text that is equal for equal distributions.

    The repr of a frozen distribution of scipy's shows its address only.
    """
    if not hasattr(distribution, "dist"):
        return repr(distribution)
    arguments = [repr(value) for value in distribution.args]
    arguments += [f"{name}={value!r}" for name, value in sorted(distribution.kwds.items())]
    return f"{distribution.dist.name}({', '.join(arguments)})"


def powers_of_two(low, high):
    """Return the powers of two from `low` to `high`, such as for batch sizes.

    Parameters
    ----------
    low, high : int
        The smallest and the largest, both included.

    Returns
    -------
    powers : list of int

    Raises
    ------
    ValueError
        Unless both are powers of two and ``low <= high``.

    Examples
    --------
    >>> from sktune import powers_of_two
    >>> powers_of_two(16, 256)
    [16, 32, 64, 128, 256]
    """
    for name, bound in (("low", low), ("high", high)):
        if not isinstance(bound, Integral) or bound < 1 or int(bound).bit_count() != 1:
            raise ValueError(f"{name} must be a power of two, got {name}={bound!r}")
    if low > high:
        raise ValueError(f"low must not be above high, got {low=} and {high=}")
    first = int(low).bit_length() - 1
    last = int(high).bit_length() - 1
    return [2**exponent for exponent in range(first, last + 1)]


def default_space(net):
    """Return a space for a randomized search over a net to start from.

    It has ``lr`` (α, the learning rate), ``optimizer__weight_decay`` (λ, the regularization
    strength), ``batch_size`` and ``module__dropout``, as far as the net has them.

    Parameters
    ----------
    net : skorch net, or an estimator that contains one
        A Pipeline that ends in a net, a TransformedTargetRegressor, or any other estimator with an
        ``estimator``, nested in any way.

    Returns
    -------
    space : dict of str -> distribution or list
        The names have the prefixes by which `net` takes them.

    Raises
    ------
    TypeError
        If `net` contains no skorch net.

    Examples
    --------
    >>> from sktune import NeuralNetRegressor, default_space
    >>> sorted(default_space(NeuralNetRegressor()))
    ['batch_size', 'lr', 'module__dropout', 'optimizer__weight_decay']
    """
    prefix, inner = _find_net(net)
    space = {"lr": loguniform(1e-4, 1e-1), "batch_size": powers_of_two(32, 256)}
    if "weight_decay" in inspect.signature(inner.optimizer).parameters:
        space["optimizer__weight_decay"] = loguniform(1e-6, 1e-1)
    module = type(inner.module) if isinstance(inner.module, Module) else inner.module
    if "dropout" in inspect.signature(module).parameters:
        space["module__dropout"] = uniform(0, 0.6)
    return {prefix + name: values for name, values in space.items()}


def _find_net(estimator):
    """Return the prefix of a net's parameters in an estimator, and the net."""
    prefix = ""
    inner = estimator
    while not isinstance(inner, NeuralNet):
        if inner is None:
            raise TypeError(f"net must be or contain a skorch net, got {type(estimator).__name__}")
        if isinstance(inner, Pipeline):
            name, inner = inner.steps[-1]
        else:
            name = "regressor" if hasattr(inner, "regressor") else "estimator"
            inner = getattr(inner, name, None)
        prefix += f"{name}__"
    return prefix, inner
