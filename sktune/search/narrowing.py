"""Spaces that are narrowed around a point: what a later stage of a search looks through."""

from dataclasses import dataclass
from numbers import Real

import numpy as np


@dataclass(frozen=True)
class NarrowedDistribution:
    """A part of a distribution: what lies between two of its quantiles.

    Parameters
    ----------
    distribution : object with ``ppf``
        A frozen scipy distribution, or one of :mod:`sktune.search.spaces`.
    low, high : float
        The probabilities of the two quantiles, with ``0 <= low < high <= 1``.
    """

    distribution: object
    low: float
    high: float

    def ppf(self, q):
        """Return the value below which a draw falls with probability `q`, a float or an array."""
        return self.distribution.ppf(self.low + (self.high - self.low) * np.asarray(q))

    def cdf(self, value):
        """Return the probability of a draw below `value`."""
        share = (self.distribution.cdf(value) - self.low) / (self.high - self.low)
        return np.clip(share, 0.0, 1.0)

    def rvs(self, size=None, random_state=None):
        """Draw a value, or an array of shape `size`.

        `random_state` is an int, RandomState, Generator or None.
        """
        rng = random_state
        if not hasattr(rng, "uniform"):
            rng = np.random.RandomState(random_state)
        draws = self.ppf(rng.uniform(size=size))
        return draws if size is not None else np.asarray(draws)[()].item()


def narrow_space(space, center, share):
    """Return a space in which the parameters of a known point vary around it only.

    Parameters
    ----------
    space : dict
        Names of parameters to distributions or lists of values.
    center : dict
        The point: names of parameters to values. Those that the space does not name are ignored,
        and parameters of the space that the point does not name keep their whole range.
    share : float
        The part of the range that is left, ``0 < share <= 1``: of a distribution's probability,
        centred on the value and shifted where it would leave the range; of an ordered list of
        numbers, the values around it, always with a neighbour on either side. Lists of other things
        are left whole, since none of their values is near another.

    Returns
    -------
    narrowed : dict

    Examples
    --------
    >>> from sktune.search.narrowing import narrow_space
    >>> narrow_space({"batch_size": [16, 32, 64, 128, 256]}, {"batch_size": 64}, share=0.2)
    {'batch_size': [32, 64, 128]}
    """
    narrowed = {}
    for name, values in space.items():
        if name not in center:
            narrowed[name] = values
        elif hasattr(values, "rvs"):
            narrowed[name] = _narrow_distribution(values, center[name], share)
        else:
            narrowed[name] = _narrow_list(values, center[name], share)
    return narrowed


def _narrow_distribution(distribution, value, share):
    """Return the part of a distribution around a value, or the whole where that is not known."""
    if not hasattr(distribution, "cdf") or not hasattr(distribution, "ppf"):
        return distribution
    middle = float(distribution.cdf(value))
    low = min(max(middle - share / 2, 0.0), 1.0 - share)
    return NarrowedDistribution(distribution, low, low + share)


def _narrow_list(values, value, share):
    """Return the values of a list around one of them, or the whole where they have no order."""
    values = list(values)
    are_numbers = all(isinstance(v, Real) and not isinstance(v, bool) for v in values)
    if not are_numbers or value not in values:
        return values
    ordered = sorted(values)
    position = ordered.index(value)
    n_beside = max(1, round(len(ordered) * share / 2))
    return ordered[max(position - n_beside, 0) : position + n_beside + 1]
