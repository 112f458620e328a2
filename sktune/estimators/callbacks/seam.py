"""The one place where names of scikit-learn's callbacks are bound: they are experimental.

The callbacks came with scikit-learn 1.9. With earlier versions ``HAS_CALLBACKS`` is False,
estimators have no ``set_callbacks``, and no callback is ever found.
``tests/estimators/test_callback_seam.py`` fails when one of these names moves:

- ``CallbackSupportMixin`` with ``set_callbacks`` and ``_init_callback_context``, which keeps the
  context as ``_callback_fit_ctx``; ``callback_management_context``, which tears callbacks down;
- ``AutoPropagatedCallback``, which has a ``max_propagation_depth``;
- ``_skl_callbacks``, the callbacks of an estimator, which ``clone`` hands on;
- of a context: ``subcontext``, ``propagate_callback_context``, ``call_on_fit_task_begin`` and
  ``call_on_fit_task_end``; ``_callbacks`` and ``_propagation_depth``;
- the keyword-only parameters of a hook, by which scikit-learn tells what to hand to it;
- ``callback_ctx`` and ``caller``, which a task of a search is given.
"""

import inspect
from contextlib import contextmanager, nullcontext

try:
    from sklearn.callback import AutoPropagatedCallback
    from sklearn.callback import CallbackSupportMixin as CallbackSupport
    from sklearn.callback._callback_support import callback_management_context

    HAS_CALLBACKS = True
except ImportError:
    HAS_CALLBACKS = False

    class CallbackSupport:
        """Stands for scikit-learn's mixin, which earlier versions do not have."""


__all__ = [
    "HAS_CALLBACKS",
    "CallbackSupport",
    "asks_for",
    "begin_context",
    "forget_callbacks",
    "is_propagated",
    "list_callbacks",
    "list_handed_on",
    "list_propagated",
    "managed_callbacks",
    "propagating",
    "without_callbacks",
]

_CALLBACKS = "_skl_callbacks"
_HOOKS = ("on_fit_task_begin", "on_fit_task_end")


def list_callbacks(estimator):
    """Return the callbacks that are set on an estimator."""
    return list(vars(estimator).get(_CALLBACKS, ()))


def forget_callbacks(estimator):
    """Take the callbacks from an estimator."""
    vars(estimator).pop(_CALLBACKS, None)


@contextmanager
def without_callbacks(estimator):
    """Take the callbacks from an estimator within this context."""
    callbacks = vars(estimator).pop(_CALLBACKS, None)
    try:
        yield
    finally:
        if callbacks is not None:
            vars(estimator)[_CALLBACKS] = callbacks


def is_propagated(callback):
    """Tell whether a callback is handed on by a meta-estimator to its estimators."""
    return HAS_CALLBACKS and isinstance(callback, AutoPropagatedCallback)


def list_handed_on(context):
    """Return all callbacks that a context calls, whether they are propagated or not."""
    return [] if context is None else list(context._callbacks)


def list_propagated(context, depth=0):
    """Return the callbacks that a context hands on to an estimator, or to one within it.

    Parameters
    ----------
    context : CallbackContext or None
    depth : int, default=0
        How many meta-estimators are between.
    """
    if context is None:
        return []
    depth += context._propagation_depth
    return [
        callback
        for callback in context._callbacks
        if is_propagated(callback)
        and (callback.max_propagation_depth is None or depth < callback.max_propagation_depth)
    ]


def asks_for(callback):
    """Return the names of what the hooks of a callback want to be given, beside the context."""
    names = set()
    for hook in _HOOKS:
        parameters = inspect.signature(getattr(callback, hook)).parameters.values()
        names |= {p.name for p in parameters if p.kind == p.KEYWORD_ONLY}
    return names


def begin_context(estimator, n_subtasks):
    """Return the context of a fit that begins, after the callbacks have been set up."""
    return estimator._init_callback_context(max_subtasks=n_subtasks)


def managed_callbacks(estimator):
    """Return a context at whose end the callbacks of a fit are torn down."""
    return callback_management_context(estimator) if HAS_CALLBACKS else nullcontext()


def propagating(context, estimator):
    """Return a context in which callbacks are handed on to an estimator within another one."""
    return nullcontext() if context is None else context.propagate_callback_context(estimator)
