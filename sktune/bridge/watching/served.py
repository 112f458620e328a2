"""Which of skorch's callbacks a fit may have that is trained together with others."""

import skorch.callbacks
from skorch.callbacks import Callback, GradientNormClipping

from sktune.estimators.overrides import find_clips, find_patches, remember_methods

SERVED = (GradientNormClipping,)

# What the others of skorch do that a look at an epoch does not tell.
_REASONS = {
    "BatchScoring": "scores single batches",
    "ProgressBar": "counts single batches",
    "Checkpoint": "saves the net",
    "TrainEndCheckpoint": "saves the net",
    "LoadInitState": "loads the net",
    "ParamMapper": "changes the module",
    "Freezer": "changes the module",
    "Unfreezer": "changes the module",
    "Initializer": "changes the module",
    "InputShapeSetter": "changes the module",
}

remember_methods(*SERVED)


def why_refused(net):
    """Return why the callbacks that a net was given keep its fit out of a group, or ``""``.

    The net need not be initialized.
    """
    for name, callback in list_given(net):
        kind = callback if isinstance(callback, type) else type(callback)
        if kind not in SERVED:
            return f"its callback {name} {_tell_kind(kind)}"
        hooks = [] if callback is kind else [key for key in vars(callback) if hasattr(kind, key)]
        hooks += find_patches(kind.__mro__)
        if hooks:
            return f"its callback {name} has {hooks[0]} replaced"
    return ""


def why_refused_initialized(net):
    """Return why the settings of a net's callbacks keep its fit out of a group, or ``""``."""
    if find_clips(net) is None:
        return "its gradients are clipped by a norm whose type is not above 0"
    return ""


def list_given(net):
    """Return the callbacks that the user gave a net, with their names; some may be classes."""
    given = []
    items = [] if net.callbacks in (None, "disable") else net.callbacks
    for item in items:
        name, callback = item if isinstance(item, tuple | list) else (None, item)
        kind = callback if isinstance(callback, type) else type(callback)
        given.append((name or kind.__name__, callback))
    for key, value in vars(net).items():
        prefix, _, name = key.partition("__")
        if prefix == "callbacks" and name and "__" not in name:
            given.append((name, value))
    return [(name, callback) for name, callback in given if callback is not None]


def _tell_kind(kind):
    """Return what a class of callbacks does that keeps fits out of groups."""
    if kind is getattr(skorch.callbacks, kind.__name__, None):
        return _REASONS.get(kind.__name__, "is told more of a fit than of its epochs")
    if issubclass(kind, Callback):
        return f"is of a class of one's own, {kind.__name__}, which may change the net"
    return "is none of skorch's callbacks"
