"""A fit and its epochs, as tasks that scikit-learn's callbacks hear of."""

from contextlib import contextmanager

from sktune.estimators.callbacks.seam import (
    HAS_CALLBACKS,
    begin_context,
    list_callbacks,
    managed_callbacks,
    propagating,
)


class NoTasks:
    """Stands for the tasks of a fit that no callback hears of."""

    def begin(self, n_epochs):
        """Do nothing."""

    def begin_epoch(self):
        """Do nothing."""

    def end_epoch(self, attributes=None):
        """Return that nobody wants the fit to stop."""
        return False

    def end(self):
        """Do nothing."""


NO_TASKS = NoTasks()


class FitTasks:
    """Tells the callbacks of an estimator of a fit and of its epochs.

    The fit is a task, and each epoch a subtask of it, of the name ``"epoch"``.

    Parameters
    ----------
    estimator : estimator object
        Its callbacks are called with it as the first argument.
    given : dict
        ``X``, ``y`` and ``metadata`` as callbacks may ask for them, or functions without arguments
        that return them.
    """

    def __init__(self, estimator, given):
        self.estimator = estimator
        self.given = given
        self.context = None
        self.epoch = None

    def begin(self, n_epochs):
        """Tell that a fit begins, which has so many epochs at most."""
        self.context = begin_context(self.estimator, n_epochs)
        self.context.call_on_fit_task_begin(estimator=self.estimator, **self.given)

    def begin_epoch(self):
        """Tell that an epoch begins."""
        self.epoch = self.context.subcontext(task_name="epoch")
        self.epoch.call_on_fit_task_begin(estimator=self.estimator, **self.given)

    def end_epoch(self, attributes=None):
        """Tell that the epoch is over; return whether a callback wants the fit to stop.

        Parameters
        ----------
        attributes : callable or None, default=None
            It returns the attributes that make a copy of the estimator one whose fit ended here.
        """
        epoch = self.epoch
        self.epoch = None
        return epoch.call_on_fit_task_end(
            estimator=self.estimator, reconstruction_attributes=attributes, **self.given
        )

    def end(self):
        """Tell that the fit is over."""
        if self.context is None:
            return
        if self.epoch is not None:
            # a callback of skorch's has ended the fit within an epoch
            self.end_epoch()
        self.context.call_on_fit_task_end(estimator=self.estimator, **self.given)


@contextmanager
def told_fit(net, X, y, sample_weight):
    """Let the callbacks of a net hear of its fit, which runs within this context.

    The fit finds the tasks as ``net._tasks``, and begins them when it knows its number of epochs.
    """
    if not list_callbacks(net):
        yield
        return
    with managed_callbacks(net):
        tasks = net._tasks = FitTasks(net, describe_rows(X, y, sample_weight))
        try:
            yield
        finally:
            vars(net).pop("_tasks", None)
        tasks.end()


@contextmanager
def told_subtask(estimator, inner, X, y, name):
    """Let callbacks of a meta-estimator hear of its fit, and hand them on to an inner estimator.

    The fit has one subtask, of the given name: to fit `inner` within this context.
    """
    if not HAS_CALLBACKS:
        yield
        return
    with managed_callbacks(estimator):
        context = begin_context(estimator, 1)
        context.call_on_fit_task_begin(estimator=estimator, X=X, y=y)
        task = context.subcontext(task_name=name)
        with propagating(task, inner):
            task.call_on_fit_task_begin(estimator=estimator, X=X, y=y)
            yield
        task.call_on_fit_task_end(estimator=estimator, X=X, y=y)
        context.call_on_fit_task_end(estimator=estimator, X=X, y=y)


def describe_rows(X, y, sample_weight):
    """Return the rows of a fit as callbacks are given them."""
    metadata = None if sample_weight is None else {"sample_weight": sample_weight}
    return {"X": X, "y": y, "metadata": metadata}
