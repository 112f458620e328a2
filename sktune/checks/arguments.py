"""Which arguments classes and functions take."""

import inspect
from weakref import WeakKeyDictionary

# What `_read_signature` returned. Weak references let the classes and functions be freed.
_signatures = WeakKeyDictionary()


def own_arguments(cls):
    """Return the names that the constructors of a class and of its bases take."""
    names = set()
    for base in cls.__mro__:
        names.update(constructor_arguments(base, extra=False) or ())
    return names


def constructor_arguments(factory, extra=True):
    """Return the names of the arguments that a class or function takes.

    Parameters
    ----------
    factory : class or callable
    extra : bool, default=True
        Whether ``**kwargs`` counts as an argument of any name.

    Returns
    -------
    names : list of str or None
        None if the signature is not known, or if any name is taken.
    """
    try:
        if factory not in _signatures:
            _signatures[factory] = _read_signature(factory)
        signature = _signatures[factory]
    except TypeError:
        # There are no weak references to it, or it has no hash.
        signature = _read_signature(factory)
    if signature is None:
        return None
    names, takes_any = signature
    return None if extra and takes_any else names


def required_arguments(factory):
    """Return the names of the arguments without a default that can be passed by name."""
    try:
        parameters = inspect.signature(factory).parameters.values()
    except (TypeError, ValueError):
        return set()
    by_name = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return {p.name for p in parameters if p.default is p.empty and p.kind in by_name}


def takes_any_keyword(factory):
    """Tell whether a function takes keywords that it does not name."""
    return constructor_arguments(factory) is None


def _read_signature(factory):
    """Return the names that are taken, and whether any other is; None for a factory built in C."""
    try:
        parameters = inspect.signature(factory).parameters.values()
    except (TypeError, ValueError):
        return None
    names = [p.name for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters)
    return names, takes_any
