"""Search spaces: the distributions that scipy has no word for, and a space to start from."""

import inspect
import math
from dataclasses import dataclass

import numpy as np
from scipy.stats import loguniform, uniform
from sklearn.compose import TransformedTargetRegressor
from sklearn.pipeline import Pipeline
from skorch import NeuralNet

__all__ = ["LogUniformInt", "ZeroOr", "default_space", "loguniform_int", "powers_of_two", "zero_or"]


@dataclass(frozen=True)
class LogUniformInt:
    """Integers from `low` to `high`, both included, each about as likely as 1 / its value.

    Made by :func:`loguniform_int`. It has the one method that scikit-learn's
    :class:`~sklearn.model_selection.ParameterSampler` asks of a distribution, `rvs`; the bounds
    stay readable for tools that need them.
    """

    low: int
    high: int

    def rvs(self, size=None, random_state=None):
        """Draw integers.

        Parameters
        ----------
        size : int or tuple of int, default=None
            Shape of the draw; one integer when None.
        random_state : int, RandomState, Generator or None, default=None
            Where the randomness comes from.

        Returns
        -------
        int or ndarray of int64
        """
        # Half an integer on either side gives the two ends their full share of the rounding.
        bounds = math.log(self.low - 0.5), math.log(self.high + 0.5)
        logs = _as_random(random_state).uniform(*bounds, size=size)
        draws = np.clip(np.rint(np.exp(logs)), self.low, self.high).astype(np.int64)
        return int(draws) if size is None else draws


@dataclass(frozen=True, eq=False)
class ZeroOr:
    """Exactly 0.0 with probability `p_zero`, otherwise a draw from `distribution`.

    Made by :func:`zero_or`. Two are equal when they draw from the same distribution with the
    same parameters, although scipy compares its own frozen distributions by identity.
    """

    distribution: object
    p_zero: float = 0.25

    def rvs(self, size=None, random_state=None):
        """Draw numbers.

        Parameters
        ----------
        size : int or tuple of int, default=None
            Shape of the draw; one number when None.
        random_state : int, RandomState, Generator or None, default=None
            Where the randomness comes from.

        Returns
        -------
        float or ndarray of float
        """
        rng = _as_random(random_state)
        # Both are always drawn, so that what follows from `rng` does not depend on the outcome.
        is_zero = rng.uniform(size=size) < self.p_zero
        draws = self.distribution.rvs(size=1 if size is None else size, random_state=rng)
        draws = np.where(is_zero, 0.0, draws)
        return float(draws[0]) if size is None else draws

    def __eq__(self, other):
        return type(other) is ZeroOr and self._value() == other._value()

    def __hash__(self):
        return hash(self._value())

    def __repr__(self):
        return f"ZeroOr({_describe(self.distribution)}, p_zero={self.p_zero})"

    def _value(self):
        return _describe(self.distribution), self.p_zero


def loguniform_int(low, high):
    """Spread integers evenly over the orders of magnitude: widths, depths, patience.

    Parameters
    ----------
    low, high : int
        The smallest and the largest value, both included; `low` is at least 1.

    Returns
    -------
    LogUniformInt
        An object with ``rvs``, for :class:`~sktune.RandomizedSearchCV` and its kin.

    Raises
    ------
    ValueError
        If the bounds are not whole numbers with ``1 <= low <= high``.

    Examples
    --------
    >>> from sktune.spaces import loguniform_int
    >>> width = loguniform_int(8, 512)
    >>> width
    LogUniformInt(low=8, high=512)
    >>> [int(w) for w in width.rvs(size=6, random_state=0)]
    [76, 154, 96, 75, 45, 115]
    """
    for name, bound in (("low", low), ("high", high)):
        if not _is_whole(bound):
            raise ValueError(f"{name} must be a whole number, got {name}={bound!r}")
    if not 1 <= low <= high:
        raise ValueError(f"low and high must satisfy 1 <= low <= high, got {low=} and {high=}")
    return LogUniformInt(int(low), int(high))


def powers_of_two(low, high):
    """List the powers of two from `low` to `high`, for batch sizes.

    Parameters
    ----------
    low, high : int
        The smallest and the largest value, both powers of two and both included.

    Returns
    -------
    list of int
        A plain list, so that it serves in a grid and in a random search alike.

    Raises
    ------
    ValueError
        If a bound is not a power of two, or `low` is above `high`.

    Examples
    --------
    >>> from sktune.spaces import powers_of_two
    >>> powers_of_two(16, 256)
    [16, 32, 64, 128, 256]
    """
    for name, bound in (("low", low), ("high", high)):
        if not _is_whole(bound) or bound < 1 or int(bound) & (int(bound) - 1):
            raise ValueError(f"{name} must be a power of two, got {name}={bound!r}")
    if low > high:
        raise ValueError(f"low must not be above high, got {low=} and {high=}")
    return [2**k for k in range(int(low).bit_length() - 1, int(high).bit_length())]


def zero_or(distribution, p_zero=0.25):
    """Let a search switch a strength off altogether: λ = 0, or a draw.

    A log-uniform distribution never reaches zero; this one does.

    Parameters
    ----------
    distribution : object with ``rvs``
        What to draw from otherwise: a frozen scipy distribution, or one of this module's.
    p_zero : float, default=0.25
        The probability of exactly 0.0, from 0 to 1.

    Returns
    -------
    ZeroOr
        An object with ``rvs``.

    Raises
    ------
    TypeError
        If `distribution` has no ``rvs``.
    ValueError
        If `p_zero` is not a probability.

    Examples
    --------
    >>> from scipy.stats import loguniform
    >>> from sktune.spaces import zero_or
    >>> decay = zero_or(loguniform(1e-6, 1e-1), p_zero=0.5)
    >>> decay
    ZeroOr(loguniform(1e-06, 0.1), p_zero=0.5)
    >>> decay.rvs(size=5, random_state=0).round(6).tolist()
    [0.001696, 0.000154, 0.028765, 0.065813, 0.0]
    """
    if not callable(getattr(distribution, "rvs", None)):
        raise TypeError(f"distribution must have an rvs method, got {distribution!r}")
    if not 0 <= p_zero <= 1:
        raise ValueError(f"p_zero must be between 0 and 1, got {p_zero=}")
    return ZeroOr(distribution, float(p_zero))


def default_space(net):
    """Give a space to start from for a skorch net, wherever it sits.

    It names the learning rate α (``lr``), the regularization strength λ
    (``optimizer__weight_decay``), ``batch_size`` and ``module__dropout``, with the prefixes
    needed to reach them. What the net has no argument for is left out.

    Parameters
    ----------
    net : skorch net, or an estimator that holds one
        A net; a :class:`~sklearn.pipeline.Pipeline` that ends in one; a
        :class:`~sklearn.compose.TransformedTargetRegressor` or any other estimator with an
        ``estimator`` parameter around either; in any nesting.

    Returns
    -------
    dict
        Parameter names to distributions or lists, for a randomized search.

    Raises
    ------
    TypeError
        If there is no skorch net inside.

    Examples
    --------
    >>> from sklearn.pipeline import make_pipeline
    >>> from sklearn.preprocessing import StandardScaler
    >>> from skorch import NeuralNetClassifier
    >>> from sktune.spaces import default_space
    >>> from torch.nn import Linear
    >>> sorted(default_space(make_pipeline(StandardScaler(), NeuralNetClassifier(Linear))))
    ... # doctest: +NORMALIZE_WHITESPACE
    ['neuralnetclassifier__batch_size', 'neuralnetclassifier__lr',
     'neuralnetclassifier__optimizer__weight_decay']
    """
    prefix, found = _find_net(net)
    if found is None:
        raise TypeError(f"net must be or contain a skorch net, got {type(net).__name__}")
    space = {"lr": loguniform(1e-4, 1e-1), "batch_size": powers_of_two(32, 256)}
    if _takes(found.optimizer, "weight_decay"):
        space["optimizer__weight_decay"] = loguniform(1e-6, 1e-1)
    if _takes(found.module, "dropout"):
        space["module__dropout"] = uniform(0, 0.6)
    return {prefix + name: values for name, values in space.items()}


def _find_net(estimator, prefix=""):
    """Return the prefix that leads to the net inside `estimator`, and the net or None."""
    if isinstance(estimator, type):
        return prefix, None
    if isinstance(estimator, NeuralNet):
        return prefix, estimator
    if isinstance(estimator, Pipeline):
        name, inner = estimator.steps[-1]
    elif isinstance(estimator, TransformedTargetRegressor):
        name, inner = "regressor", estimator.regressor
    else:
        name, inner = "estimator", getattr(estimator, "estimator", None)
    return (prefix, None) if inner is None else _find_net(inner, f"{prefix}{name}__")


def _takes(factory, argument):
    """Whether a module or optimizer, given as a class or as an instance, has this argument."""
    if not isinstance(factory, type) and hasattr(factory, "parameters"):
        factory = type(factory)
    return argument in inspect.signature(factory).parameters


def _describe(distribution):
    """Name a distribution by its value; scipy's frozen ones show only an address."""
    if not hasattr(distribution, "dist"):
        return repr(distribution)
    arguments = [f"{value!r}" for value in distribution.args]
    arguments += [f"{name}={value!r}" for name, value in sorted(distribution.kwds.items())]
    return f"{distribution.dist.name}({', '.join(arguments)})"


def _as_random(random_state):
    """Make of `random_state` something with ``uniform``; unlike scikit-learn, take Generators."""
    if isinstance(random_state, (np.random.Generator, np.random.RandomState)):
        return random_state
    return np.random.RandomState(random_state)


def _is_whole(value):
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)
