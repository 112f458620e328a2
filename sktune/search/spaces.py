"""Search spaces: the distributions that scipy has no word for, and a space to start from."""

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
    """Integers, each about as likely as 1 / its value: widths, depths, patience.

    Parameters
    ----------
    low, high : int
        The smallest and the largest, both included. A ValueError unless ``1 <= low <= high`` and both are whole.

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
                f"low and high must satisfy 1 <= low <= high, got low={self.low} and high={self.high}"
            )

    def rvs(self, size=None, random_state=None):
        """Draw an int, or an array of shape `size`; `random_state` is an int, RandomState, Generator or None."""
        # Half an integer on either side gives the two ends their full share of the rounding.
        draws = loguniform(self.low - 0.5, self.high + 0.5).rvs(
            size=size, random_state=random_state
        )
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
    """Exactly 0.0, or a draw: lets a search switch a strength such as λ off altogether.

    Parameters
    ----------
    distribution : object with ``rvs``, else a TypeError
        A frozen scipy distribution, or one of this module's. Two of equal parameters are equal.
    p_zero : float from 0 to 1, else a ValueError; default=0.25
        The probability of 0.0.

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
        """Draw a float, or an array of shape `size`; `random_state` is an int, RandomState, Generator or None."""
        # scikit-learn's check_random_state takes no Generator.
        rng = (
            random_state
            if hasattr(random_state, "uniform")
            else np.random.RandomState(random_state)
        )
        # Both are always drawn, so that what follows from `rng` does not depend on the outcome.
        is_zero = rng.uniform(size=size) < self.p_zero
        draws = np.where(
            is_zero, 0.0, self.distribution.rvs(size=1 if size is None else size, random_state=rng)
        )
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
        name = repr(self.distribution)
        if hasattr(
            self.distribution, "dist"
        ):  # scipy's, which shows but an address, and is equal to no other
            pairs = (f"{key}={value!r}" for key, value in sorted(self.distribution.kwds.items()))
            name = f"{self.distribution.dist.name}({', '.join([*map(repr, self.distribution.args), *pairs])})"
        return f"zero_or({name}, p_zero={self.p_zero})"

    def __eq__(self, other):
        return type(other) is zero_or and repr(self) == repr(other)

    def __hash__(self):
        return hash(repr(self))


def powers_of_two(low, high):
    """List the powers of two from `low` to `high`, for batch sizes.

    Parameters
    ----------
    low, high : int
        The smallest and the largest, both included. A ValueError unless they are powers of two and ``low <= high``.

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
    return [2**k for k in range(int(low).bit_length() - 1, int(high).bit_length())]


def default_space(net):
    """Return a dict to start a randomized search from, for a net wherever it sits.

    It names ``lr`` (α, the learning rate), ``optimizer__weight_decay`` (λ, the regularization strength), ``batch_size``
    and ``module__dropout``, as far as the net has them, with the prefixes that lead there.

    Parameters
    ----------
    net : skorch net, or an estimator that holds one, else a TypeError
        A Pipeline that ends in one, a TransformedTargetRegressor, any other with an ``estimator``; in any nesting.

    Examples
    --------
    >>> from sktune import NeuralNetRegressor, default_space
    >>> sorted(default_space(NeuralNetRegressor()))
    ['batch_size', 'lr', 'module__dropout', 'optimizer__weight_decay']
    """
    prefix, inner = "", net
    while inner is not None and not isinstance(inner, NeuralNet):
        if isinstance(inner, Pipeline):
            name, inner = inner.steps[-1]
        else:
            name = "regressor" if hasattr(inner, "regressor") else "estimator"
            inner = getattr(inner, name, None)
        prefix += f"{name}__"
    if inner is None:
        raise TypeError(f"net must be or contain a skorch net, got {type(net).__name__}")
    space = {"lr": loguniform(1e-4, 1e-1), "batch_size": powers_of_two(32, 256)}
    if "weight_decay" in inspect.signature(inner.optimizer).parameters:
        space["optimizer__weight_decay"] = loguniform(1e-6, 1e-1)
    module = type(inner.module) if isinstance(inner.module, Module) else inner.module
    if "dropout" in inspect.signature(module).parameters:
        space["module__dropout"] = uniform(0, 0.6)
    return {prefix + name: values for name, values in space.items()}
