"""Spaces that candidates can be drawn from, with the distributions of Optuna among them."""

from collections.abc import Mapping

from sktune.search.samplers.distributions import Choices, make_dimension


def make_drawable(param_distributions):
    """Return a space whose values all are lists or have ``rvs``, as scikit-learn draws from them.

    Parameters
    ----------
    param_distributions : dict or list of dicts
        Names of parameters to lists, to distributions with ``rvs``, or to distributions of
        :mod:`optuna.distributions`, in place of which there are others of the same probabilities.

    Returns
    -------
    space : dict or list of dicts
        What is no space is returned as it is.

    Raises
    ------
    ValueError
        For a distribution of Optuna's that is of no kind it documents.

    Examples
    --------
    >>> from sktune.search.samplers.drawing import make_drawable
    >>> make_drawable([{"C": [1.0, 2.0]}])
    [{'C': [1.0, 2.0]}]
    """
    if isinstance(param_distributions, Mapping):
        return _make_part(param_distributions)
    if isinstance(param_distributions, (list, tuple)):
        return [_make_part(part) for part in param_distributions]
    return param_distributions


def _make_part(part):
    if not isinstance(part, Mapping):
        return part
    return {name: make_values_drawable(name, values) for name, values in part.items()}


def make_values_drawable(name, values):
    """Return what has ``rvs``, or a list, in place of a distribution of Optuna's.

    Parameters
    ----------
    name : str
        The parameter, as an error calls it.
    values : object
    """
    if type(values).__module__ != "optuna.distributions":
        return values
    dimension = make_dimension(name, values)
    return list(dimension.values) if isinstance(dimension, Choices) else dimension
