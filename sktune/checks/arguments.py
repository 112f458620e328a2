"""Which arguments classes and functions take."""

import inspect
from weakref import WeakKeyDictionary


def own_arguments(kind):
    """Return the names that the constructors of a class and of its bases take."""
    return {
        name for base in kind.__mro__ for name in constructor_arguments(base, extra=False) or ()
    }


_signatures = WeakKeyDictionary()  # of classes and functions, which can still be freed


def constructor_arguments(factory, extra=True):
    """Return the names that a class or function takes, or None if `extra` counts and it takes any."""
    try:
        if factory not in _signatures:
            _signatures[factory] = _read_signature(factory)
        found = _signatures[factory]
    except TypeError:  # no weak reference, or no hash
        found = _read_signature(factory)
    if found is None:
        return None
    names, takes_any = found
    return None if extra and takes_any else names


def required_arguments(factory):
    """Return the names of the arguments that a class or function cannot do without."""
    try:
        parameters = inspect.signature(factory).parameters.values()
    except (TypeError, ValueError):
        return set()
    kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return {p.name for p in parameters if p.default is p.empty and p.kind in kinds}


def takes_any_keyword(factory):
    """Tell whether a function takes keywords that it does not name."""
    return constructor_arguments(factory) is None


def _read_signature(factory):
    """Return the names that a class or function takes, and whether it takes any other; None if it is built in C."""
    try:
        parameters = inspect.signature(factory).parameters.values()
    except (TypeError, ValueError):
        return None
    names = [p.name for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    return names, any(p.kind is p.VAR_KEYWORD for p in parameters)
