"""What users change in the training of a net, or watch of it: methods, data, callbacks.

A net is trained by compiled steps, or together with others, only where none of this differs from
what sktune does by itself.
"""

import operator
from functools import lru_cache

from skorch.callbacks import BatchScoring, Callback, EpochScoring, GradientNormClipping, PrintLog
from skorch.dataset import Dataset
from skorch.net import NeuralNet
from torch.utils.data import DataLoader

from sktune.training.gradients.clipping import Clip

# Methods that a subclass may change: they are called as they are, before or after the training.
_FREE = {
    "initialize_module",
    "initialize_criterion",
    "check_data",
    "prefixes_",
    "classes_",
    "get_params",
    "n_iter_",
    "loss_curve_",
    "best_loss_",
    "validation_scores_",
    "best_validation_score_",
    "predict",
    "predict_proba",
    "predict_log_proba",
    "score",
    "forward",
    "forward_iter",
    "evaluation_step",
}

# The methods of sktune's classes and skorch's, as they were imported.
_METHODS = {}

# How rows are batched unless the user chooses something else.
STANDARD_DATA = {"dataset": Dataset, "iterator_train": DataLoader, "iterator_valid": DataLoader}


def find_override(net):
    """Return the name of a method that changes how a net is trained, or None.

    It may be defined by a user's subclass, be set on the net itself, or be patched into a class of
    sktune's or skorch's.
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
    """Remember the methods of classes as they are at import."""
    for kind in kinds:
        for base in kind.__mro__:
            if base.__module__.startswith(("sktune.", "skorch.")):
                _METHODS.setdefault(base, dict(vars(base)))


remember_methods(GradientNormClipping)


def find_patches(kinds):
    """Return the names that classes have gained, lost or replaced since they were imported."""
    names = []
    for kind in kinds:
        before = _METHODS.get(kind)
        now = vars(kind)
        if before is None or _is_same(now, before):
            continue
        names += [name for name, method in now.items() if before.get(name) is not method]
        names += [name for name in before if name not in now]
    return names


def list_patches(kind):
    """Return the names that a class has gained, lost or replaced, but for those Python sets."""
    return [name for name in find_patches(kind.__mro__) if not name.startswith("__")]


def _is_same(now, before):
    """Tell whether two dicts hold the same objects under the same names, in the same order.

    Equal objects are not enough: a patch may compare equal to everything.
    """
    if len(now) != len(before) or list(now) != list(before):
        return False
    return all(map(operator.is_, now.values(), before.values()))


def is_replaced(net, name, ignored=()):
    """Tell whether the user has chosen another dataset or iterator, or options for it.

    Parameters
    ----------
    net : NeuralNet
    name : {"dataset", "iterator_train", "iterator_valid"}
    ignored : collection of str, default=()
        Options that do not count.
    """
    if getattr(net, name) is not STANDARD_DATA[name]:
        return True
    return bool(net.get_params_for(name).keys() - set(ignored))


def has_own_callbacks(net):
    """Tell whether the user gave callbacks; those of skorch that are always there do not count."""
    return bool(net.callbacks) and net.callbacks != "disable"


def list_own_clips(net):
    """Return the turns of gradient clipping that the parameters of a net ask for.

    A net of skorch's has no such parameters.
    """
    clips = []
    if getattr(net, "clip_grad_norm", None) is not None:
        clips.append(Clip.by_norm(net.clip_grad_norm))
    if getattr(net, "clip_grad_value", None) is not None:
        clips.append(Clip.by_value(net.clip_grad_value))
    return clips


def find_clips(net):
    """Return all turns of gradient clipping of an initialized net: its own, then its callbacks'.

    Return None if a callback clips by what is no p-norm with p above 0.
    """
    clips = list_own_clips(net)
    for _, callback in net.callbacks_:
        if clips_gradients(callback) and callback.gradient_clip_value is not None:
            norm_type = float(callback.gradient_clip_norm_type)
            if not norm_type > 0:
                return None
            clips.append(Clip.by_norm(callback.gradient_clip_value, norm_type))
    return tuple(clips)


def clips_gradients(callback):
    """Tell whether a callback is skorch's own clipping of gradients, as it was imported."""
    return type(callback) is GradientNormClipping and not list_patches(type(callback))


def hears_gradients(net):
    """Tell whether anything but the clipping of gradients listens to the gradients of a net."""
    callbacks = [callback for _, callback in net.callbacks_ if not clips_gradients(callback)]
    return _has_any([net, *callbacks], ("on_grad_computed",))


class QuietLog(PrintLog):
    """skorch's table of losses, which is put together only if somebody reads it."""

    def on_epoch_end(self, net, **kwargs):
        """Print a row if the net is verbose, or if a sink other than ``print`` takes the rows."""
        if net.verbose or self.sink is not print:
            super().on_epoch_end(net, **kwargs)


def has_own(hook, listener):
    """Tell whether a net or a callback defines a hook that is empty in skorch's base class."""
    base = NeuralNet if isinstance(listener, NeuralNet) else Callback
    return hook in vars(listener) or getattr(type(listener), hook, None) is not getattr(base, hook)


def hears_batches(net, training, hooks=("on_batch_begin", "on_batch_end")):
    """Tell whether the net or a callback defines one of the `hooks`.

    skorch's scores count only for batches of the kind that they score: of training, or of
    validation.
    """
    callbacks = [
        callback
        for _, callback in net.callbacks_
        if not (_is_score(callback) and callback.on_train != training)
    ]
    return _has_any([net, *callbacks], hooks)


def hears_own_batches(net):
    """Tell whether the net's class or a callback of the user's listens to validation batches."""
    default = {name for name, _ in net.get_default_callbacks()}
    callbacks = [
        callback
        for name, callback in net.callbacks_
        if name not in default and not (_is_score(callback) and callback.on_train)
    ]
    return _has_any([net, *callbacks], ("on_batch_begin", "on_batch_end"))


def _is_score(callback):
    return isinstance(callback, EpochScoring | BatchScoring)


def _has_any(listeners, hooks):
    return any(has_own(hook, listener) for hook in hooks for listener in listeners)
