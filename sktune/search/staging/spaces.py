"""The spaces of stages: one part, or several with other parameters each."""

from collections.abc import Iterable, Mapping

from sktune.search.narrowing import narrow_space
from sktune.search.samplers.distributions import are_equal
from sktune.search.samplers.drawing import make_values_drawable


def read_parts(name, space):
    """Return the parts of a stage's space: dicts of distributions with ``rvs``, or lists.

    Parameters
    ----------
    name : str
        The name of the stage.
    space : dict or list of dicts

    Raises
    ------
    ValueError
        If there is none, or a parameter has neither a distribution nor a list of values.
    """
    parts = [space] if isinstance(space, Mapping) else space
    is_list = isinstance(parts, (list, tuple)) and len(parts) > 0
    if not is_list or not all(isinstance(part, Mapping) and part for part in parts):
        raise ValueError(
            f"stage {name!r} must have a dict of parameters as its space, or a list of such dicts, "
            f"got {space!r}"
        )
    return [
        {parameter: _read_values(name, parameter, part[parameter]) for parameter in part}
        for part in parts
    ]


def _read_values(name, parameter, values):
    """Return a distribution with ``rvs`` or a list of values."""
    values = make_values_drawable(parameter, values)
    if hasattr(values, "rvs"):
        return values
    is_list = isinstance(values, Iterable) and hasattr(values, "__len__")
    if not is_list or isinstance(values, (str, bytes, Mapping)) or len(values) == 0:
        raise ValueError(
            f"parameter {parameter!r} of stage {name!r} must have a distribution or a list "
            f"of values, got {values!r}"
        )
    return values


def merge_parts(parts, others):
    """Return the parts of the space of two stages: each part of the one with each of the other.

    Where both name a parameter, the second one's values are taken. Parts whose lists for a
    parameter have no value in common, such as two kinds of models, do not belong together.

    Examples
    --------
    >>> from sktune.search.staging.spaces import merge_parts
    >>> kinds = [{"kind": ["a"], "x": [1]}, {"kind": ["b"]}]
    >>> merge_parts(kinds, [{"y": [3]}])
    [{'kind': ['a'], 'x': [1], 'y': [3]}, {'kind': ['b'], 'y': [3]}]
    >>> merge_parts(kinds, [{"kind": ["b"], "z": [4]}])
    [{'kind': ['b'], 'z': [4]}]
    """
    merged = []
    for other in others:
        own = [{**part, **other} for part in parts if _agree(part, other)]
        merged += own or [other]
    return merged


def _agree(part, other):
    """Tell whether lists that two parts have for a parameter have a value in common."""
    for name in part.keys() & other.keys():
        if hasattr(part[name], "rvs") or hasattr(other[name], "rvs"):
            continue
        if not any(are_equal(one, two) for one in part[name] for two in other[name]):
            return False
    return True


def narrow_parts(parts, center, share):
    """Return parts in which the parameters of a known point vary around it only.

    Of several parts those are left whole in which the point does not lie.

    Parameters
    ----------
    parts : list of dict
    center : dict
        The point: names of parameters to values.
    share : float
        See :func:`~sktune.search.narrowing.narrow_space`.
    """
    if len(parts) == 1:
        return [narrow_space(parts[0], center, share)]
    return [narrow_space(part, center, share) if _holds(part, center) else part for part in parts]


def _holds(part, params):
    """Tell whether the values of parameters are among the lists that a part has for them."""
    for name in part.keys() & params.keys():
        values = part[name]
        if not hasattr(values, "rvs") and not any(are_equal(v, params[name]) for v in values):
            return False
    return True


def list_companions(parts, params):
    """Return the names of all parameters that can be set beside some.

    Parameters
    ----------
    parts : list of dict
    params : dict
        What has been drawn from one of the parts.
    """
    fitting = [part for part in parts if params.keys() <= part.keys() and _holds(part, params)]
    return {name for part in fitting for name in part}


def is_list_only(parts):
    """Tell whether a space consists of lists of values."""
    return not any(hasattr(values, "rvs") for part in parts for values in part.values())
