"""What the models of a search can be asked for, found before any of them is trained."""

from collections.abc import Mapping, Sequence
from itertools import islice, product
from numbers import Real

import numpy as np
from sklearn.base import clone

from sktune.bridge.fits import net_of

# So many combinations of values are looked at.
_MOST_TRIED = 1000


def check_answers(estimator, parts, method):
    """Raise a ValueError if no candidate of a search can have a method.

    Parameters
    ----------
    estimator : estimator object
    parts : list of dict
        The parts of the search's space. Lists of values are looked at, such as those of losses or
        of estimators; distributions are not. An empty dict is the estimator as it is.
    method : {"predict_proba", "predict"}
        What an ensemble asks each of its members for.

    Examples
    --------
    >>> from sklearn.linear_model import SGDClassifier
    >>> from sktune.search.ensembles.answers import check_answers
    >>> parts = [{"loss": ["hinge", "log_loss"]}]
    >>> check_answers(SGDClassifier(), parts, "predict_proba")
    >>> check_answers(SGDClassifier(), [{"loss": ["hinge"]}], "predict_proba")
    Traceback (most recent call last):
    ...
    ValueError: an ensemble needs predict_proba of each model, no candidate has it: ...
    """
    names = {}
    for part in parts:
        combinations = list(islice(_combine(part), _MOST_TRIED + 1))
        for params in combinations[:_MOST_TRIED]:
            try:
                candidate = clone(estimator).set_params(**clone(params, safe=False))
            except (ValueError, TypeError, AttributeError):
                # the search itself tells what cannot be set
                return
            if hasattr(candidate, method):
                return
            names[type(net_of(candidate)).__name__] = None
        if len(combinations) > _MOST_TRIED:
            # the others are not known
            return
    if names:
        raise ValueError(
            f"an ensemble needs {method} of each model, no candidate has it: got {', '.join(names)}"
        )


def _combine(part):
    """Yield the values of the lists of a part, combined in each way; numbers do not vary."""
    lists = {}
    for name, values in part.items():
        values = getattr(values, "choices", values)
        is_list = isinstance(values, (Sequence, np.ndarray)) and not isinstance(values, str)
        if is_list and len(values) > 0:
            lists[name] = _find_kinds(values)
    for values in product(*lists.values()):
        yield dict(zip(lists, values, strict=True))


def _find_kinds(values):
    """Return the values of a list of which each may make another kind of model."""
    kinds = [value for value in values if not _is_number(value)]
    return kinds + [value for value in values if _is_number(value)][:1]


def _is_number(value):
    return isinstance(value, Real) and not isinstance(value, (bool, np.bool_))


def list_parts(space):
    """Return the parts of a space; none of what is no space."""
    parts = [space] if isinstance(space, Mapping) else space
    is_list = isinstance(parts, (list, tuple))
    return [part for part in parts if isinstance(part, Mapping)] if is_list else []
