"""Whether a net is trained as sktune trains it, or some of its methods are others."""

import operator
from functools import lru_cache

# What a subclass may change, for it runs as it would: before the training, or after it.
_FREE = {
    "initialize_module",
    "initialize_criterion",
    "check_data",
    "prefixes_",
    "classes_",
    "get_params",
}
_FREE |= {"n_iter_", "loss_curve_", "best_loss_", "validation_scores_", "best_validation_score_"}
_FREE |= {
    "predict",
    "predict_proba",
    "predict_log_proba",
    "score",
    "forward",
    "forward_iter",
    "evaluation_step",
}

_METHODS = {}  # of our classes and skorch's, as they were imported


def find_override(net):
    """Return a name by which a net is trained otherwise, or None.

    That is a method of a user's subclass, or one that was put into the net itself or into our and skorch's classes.
    """
    kinds = type(net).__mro__
    base = next(kind for kind in kinds if kind.__module__.startswith(("sktune.", "skorch.")))
    own = [name for kind in kinds[: kinds.index(base)] for name in vars(kind)]
    methods = _list_methods(base)
    own += [name for name in vars(net) if name in methods and callable(getattr(base, name, None))]
    own += find_patches(kinds)
    for name in dict.fromkeys(own):
        if hasattr(base, name) and not (name in _FREE or name.startswith(("__", "set_"))):
            return name
    return None


@lru_cache(maxsize=32)
def _list_methods(kind):
    """Return the names of the methods of a class as they are at the first call.

    A method that is added later need not be listed: :func:`find_patches` finds it.
    """
    return frozenset(name for name in dir(kind) if callable(getattr(kind, name, None)))


def remember_methods(*kinds):
    """Take note of the methods of classes as they are when they are imported."""
    for kind in kinds:
        for base in kind.__mro__:
            if base.__module__.startswith(("sktune.", "skorch.")):
                _METHODS.setdefault(base, dict(vars(base)))


def find_patches(kinds):
    """Return the names by which classes are no longer what they were when they were imported."""
    names = []
    for kind in kinds:
        if (before := _METHODS.get(kind)) is not None:
            now = vars(kind)
            if _is_same(now, before):
                continue
            names += [name for name, method in now.items() if before.get(name) is not method]
            names += [name for name in before if name not in now]
    return names


def _is_same(now, before):
    """Tell whether two dicts hold the same objects under the same names, in the same order.

    Equal objects are not enough: a patch may compare equal to all that it is compared with.
    """
    if len(now) != len(before) or list(now) != list(before):
        return False
    return all(map(operator.is_, now.values(), before.values()))
