"""The settings of an estimator that a space names: its parameters, or defaults of their parts."""

import inspect

from skorch import NeuralNet
from torch import nn

from sktune.search.samplers.distributions import as_python

# What a skorch net builds by calling it with the parameters of this prefix.
_PARTS = ("optimizer", "module", "criterion")


def read_own_settings(estimator, names):
    """Return the values that an estimator has for parameters, as far as they can be known.

    Parameters
    ----------
    estimator : estimator object
    names : iterable of str
        Names that ``set_params`` takes.

    Returns
    -------
    settings : dict
        ``optimizer__weight_decay`` and the like, which skorch's ``get_params`` names only once they
        are set, have the default in the signature of the optimizer, module or criterion. Names
        without a value that is known are left out.

    Examples
    --------
    >>> from sktune import NeuralNetClassifier
    >>> from sktune.search.samplers.own_settings import read_own_settings
    >>> read_own_settings(NeuralNetClassifier(lr=0.01), ["lr", "optimizer__eps", "unknown"])
    {'lr': 0.01, 'optimizer__eps': 1e-08}
    """
    params = estimator.get_params()
    settings = {}
    for name in names:
        if name in params:
            settings[name] = as_python(params[name])
            continue
        known, value = _find_default(estimator, params, name)
        if known:
            settings[name] = as_python(value)
    return settings


def _find_default(estimator, params, name):
    """Return whether the value of a parameter that is not set is known, and the value."""
    unknown = (False, None)
    owner, _, argument = name.rpartition("__")
    prefix, _, part = owner.rpartition("__")
    net = params.get(prefix) if prefix else estimator
    if part not in _PARTS or not isinstance(net, NeuralNet):
        return unknown
    if (part, argument) == ("optimizer", "lr"):
        # skorch gives the optimizer the net's own
        return True, net.lr
    built = getattr(net, part)
    if isinstance(built, nn.Module) or not callable(built):
        return unknown
    try:
        signature = inspect.signature(built)
    except (TypeError, ValueError):
        return unknown
    parameter = signature.parameters.get(argument)
    if parameter is None or parameter.default is inspect.Parameter.empty:
        return unknown
    return True, parameter.default
