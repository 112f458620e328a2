"""Which of skorch's callbacks a fit may have that is trained together with others.

They are those that look at the epochs of a fit, and at predictions for the validation rows; and the
clipping of gradients, which the engine does. A callback that may do more keeps its fit out of a
group: of a user's class nobody knows whether it reads or changes the net.
"""

import skorch.callbacks
from sklearn.metrics import get_scorer_names
from skorch.callbacks import (
    Callback,
    EarlyStopping,
    EpochScoring,
    EpochTimer,
    GradientNormClipping,
    LRScheduler,
    PassthroughScoring,
    PrintLog,
    WarmRestartLR,
)
from torch.optim import lr_scheduler

from sktune.estimators.base import NetworkEstimator
from sktune.estimators.overrides import QuietLog, find_clips, list_patches, remember_methods

SERVED = (
    EarlyStopping,
    EpochScoring,
    EpochTimer,
    GradientNormClipping,
    LRScheduler,
    PassthroughScoring,
    PrintLog,
    QuietLog,
)

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
# The names that skorch's scores of single batches have in all nets.
_LOSSES = ("train_loss", "valid_loss")
# What a score of predictions calls.
_PREDICTING = (
    "predict",
    "predict_proba",
    "score",
    "forward",
    "forward_iter",
    "evaluation_step",
    "classes_",
)

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
        hooks += list_patches(kind)
        if hooks:
            return f"its callback {name} has {hooks[0]} replaced"
    return ""


def list_settings(net):
    """Return the names of a net's parameters that are callbacks, or settings of callbacks."""
    names = [name for name in vars(net) if name.startswith("callbacks__")]
    return names + ["callbacks"] * (net.callbacks not in (None, "disable"))


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


def is_default(net, name, callback):
    """Tell whether a callback is one that skorch gives to every net, in its own settings."""
    default = dict(net.get_default_callbacks()).get(name)
    if default is None or type(callback) is not type(default):
        return False
    mine = callback.get_params(deep=False)
    return all(mine[key] is value or mine[key] == value for key, value in _params(default).items())


def _params(callback):
    return callback.get_params(deep=False)


def needs_watching(net):
    """Tell whether an initialized net has callbacks beside the defaults, or lacks one of these."""
    if not net.callbacks_:
        return False
    names = {name for name, _ in net.callbacks_}
    missing = {name for name, _ in net.get_default_callbacks()} - names - {"print_log"}
    others = [
        name
        for name, callback in net.callbacks_
        if type(callback) is not GradientNormClipping and not is_default(net, name, callback)
    ]
    return bool(missing or others)


def why_refused_initialized(net):
    """Return why the settings of a net's callbacks keep its fit out of a group, or ``""``."""
    if find_clips(net) is None:
        return "its gradients are clipped by a norm whose type is not above 0"
    if not needs_watching(net):
        return ""
    for name, callback in net.callbacks_:
        if is_default(net, name, callback):
            continue
        problem = _PROBLEMS.get(type(callback), _find_none)(callback, net)
        if problem:
            return f"its callback {name} {problem}"
    return _find_conflict(net)


def _find_conflict(net):
    """Return which callbacks of a net do not go together in a group, or ``""``."""
    callbacks = [callback for _, callback in net.callbacks_]
    restoring = [c for c in callbacks if isinstance(c, EarlyStopping) and c.load_best]
    if len(restoring) > 1:
        return "two of its callbacks load the weights of their best epoch"
    if restoring and getattr(net, "early_stopping", False):
        return "a callback and early_stopping both load the weights of their best epoch"
    has_scheduler = any(isinstance(callback, LRScheduler) for callback in callbacks)
    is_ours = isinstance(net, NetworkEstimator)
    if has_scheduler and is_ours and not net._schedule().is_constant:
        return "both lr_schedule and a callback set its learning rate"
    return ""


def _find_none(callback, net):
    return ""


def _check_scoring(callback, net):
    if callback.on_train:
        return "scores the training rows"
    has_cache = callback.use_caching if net.use_caching == "auto" else net.use_caching
    if not has_cache:
        return "predicts anew after each epoch (use_caching=False)"
    scoring = callback.scoring_
    is_known = scoring is None or (isinstance(scoring, str) and scoring in get_scorer_names())
    # a scorer of scikit-learn's hands predictions to a function, and not the net
    if not is_known and not type(scoring).__module__.startswith("sklearn.metrics."):
        return "scores by a function of one's own, which may read the module"
    for method in _PREDICTING:
        owner = next((kind for kind in type(net).__mro__ if method in vars(kind)), None)
        if owner is not None and not owner.__module__.startswith(
            ("sktune.", "skorch.", "sklearn.")
        ):
            return f"scores by the net's own {method}"
    return ""


def _check_passing(callback, net):
    if callback.name in _LOSSES:
        return ""
    return f"passes on {callback.name!r}, which is no loss of the net's"


def _check_schedule(callback, net):
    policy = callback.policy_
    is_known = policy is WarmRestartLR or getattr(lr_scheduler, policy.__name__, None) is policy
    if not is_known:
        return f"has a policy of one's own, {policy.__name__}"
    if policy.__name__ in ("CyclicLR", "OneCycleLR") and callback.kwargs.get(
        "cycle_momentum", True
    ):
        return "changes the momentum, unless cycle_momentum=False"
    if policy is lr_scheduler.ReduceLROnPlateau:
        if callable(callback.monitor):
            return "monitors by a function of one's own, which may read the module"
        if callback.step_every == "batch":
            return "monitors single batches"
    return ""


# Of the callbacks whose settings matter: what tells why some of these keep a fit out of a group.
_PROBLEMS = {
    EpochScoring: _check_scoring,
    PassthroughScoring: _check_passing,
    LRScheduler: _check_schedule,
}
