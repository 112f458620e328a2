"""scikit-learn's callbacks as listeners to groups, and the fits that they do not allow in a group.

With a version of scikit-learn that has no callbacks, none is found, and nothing here has an effect.
"""

from threading import Lock

from sktune.bridge.listening.telling import Telling
from sktune.estimators.callbacks.seam import (
    asks_for,
    is_propagated,
    list_callbacks,
    list_handed_on,
    list_propagated,
)

_STOPPED = "a callback of scikit-learn's has stopped it"


class CallbackListener:
    """Tells scikit-learn's callbacks of the epochs of groups, of one fit at a time.

    Groups may train in several threads; callbacks are called in one of them at a time.
    """

    def __init__(self):
        self.lock = Lock()

    def begin_group(self, fits):
        """Return a listener to the epochs of a group of fits; tell that these begin."""
        return GroupCallbacks(self.lock, fits)


class GroupCallbacks:
    """Listens to the epochs of one group.

    Parameters
    ----------
    lock : Lock
    fits : list of Fit
    """

    def __init__(self, lock, fits):
        self.lock = lock
        # of each fit in training, by its number: what tells of it
        self.tellings = {}
        with lock:
            try:
                for number, fit in enumerate(fits):
                    if fit.telling is not None:
                        self.tellings[number] = fit.telling
                        fit.telling.begin(fit.spec.n_epochs)
            except BaseException:
                self._abandon()
                raise

    def on_epoch(self, event):
        """Tell that an epoch is over; stop the fits that callbacks want to stop."""
        with self.lock:
            for number in event.fits:
                if number in self.tellings and self.tellings[number].end_epoch():
                    event.stop(number, _STOPPED)
            for number in event.fits:
                if number not in self.tellings:
                    continue
                if number in event.done or number in event.stopped:
                    self.tellings[number].end()
                    del self.tellings[number]
                else:
                    self.tellings[number].begin_epoch()

    def end_group(self, has_failed):
        """Tear down the callbacks of fits that have not come to their end."""
        with self.lock:
            self._abandon()

    def _abandon(self):
        for telling in self.tellings.values():
            telling.abandon()
        self.tellings = {}


def make_telling(planned):
    """Return what tells callbacks of a fit; None if there are no callbacks."""
    estimator = planned.estimator
    steps = getattr(estimator, "steps", [("", estimator)])
    net = steps[-1][1]
    has_any = list_handed_on(planned.context) or list_callbacks(net)
    # that an estimator does not support callbacks is said by scikit-learn when the task runs
    is_supported = hasattr(estimator, "set_callbacks")
    return Telling(planned) if has_any and is_supported else None


def why_callbacks_alone(planned):
    """Return why callbacks keep a fit out of a group, or an empty string."""
    estimator = planned.estimator
    if hasattr(estimator, "steps"):
        return _why_pipeline_alone(estimator, planned.context)
    own = list_callbacks(estimator)
    if planned.context is not None:
        reason = _why_refused(own)
        if reason:
            return reason
    return _why_asking([*own, *list_propagated(planned.context)])


def _why_pipeline_alone(pipeline, context):
    """Return why callbacks keep a Pipeline's fit out of a group, or an empty string."""
    if list_callbacks(pipeline):
        return "its Pipeline has callbacks of its own"
    within = list_propagated(context, 1)
    *before, (last_name, net) = pipeline.steps
    for name, step in before:
        is_fitted = step is not None and step != "passthrough"
        if is_fitted and (within or list_callbacks(step)):
            return f"its Pipeline's step {name!r} has callbacks"
    if within and not hasattr(net, "set_callbacks"):
        return f"its Pipeline's step {last_name!r} has callbacks"
    own = list_callbacks(net)
    heard = [*own, *within, *list_propagated(context)]
    asking = [callback for callback in heard if asks_for(callback)]
    if asking:
        return f"its callback {_name(asking[0])} asks for the rows within a Pipeline"
    return _why_refused(own)


def _why_refused(callbacks):
    """Return why scikit-learn will refuse one of a net's own callbacks, or an empty string."""
    for callback in callbacks:
        if is_propagated(callback):
            return f"its callback {_name(callback)} is to be set on what fits it"
    return ""


def _why_asking(callbacks):
    """Return which callback asks for what a net has only if it is trained alone."""
    for callback in callbacks:
        if "fitted_estimator" in asks_for(callback):
            return f"its callback {_name(callback)} asks for a fitted estimator at each epoch"
    return ""


def _name(callback):
    return type(callback).__name__
