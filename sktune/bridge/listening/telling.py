"""Telling scikit-learn's callbacks of a fit while its group trains, before its task runs.

Callbacks hear what they would hear if scikit-learn ran the fit. Then the task runs, and those that
have heard of its fit do not hear of it once more.
"""

from contextlib import ExitStack, contextmanager

from sklearn.pipeline import Pipeline

from sktune.bridge.fits import make_twin
from sktune.bridge.seam import take_split
from sktune.estimators.callbacks.seam import (
    begin_context,
    managed_callbacks,
    propagating,
    without_callbacks,
)
from sktune.estimators.callbacks.tasks import NO_TASKS, FitTasks, describe_rows


class Telling:
    """Tells the callbacks of one fit, and those of the search and the Pipeline that it is part of.

    A twin of the task's own estimator takes part, which itself stays as it is. A training that
    begins anew is told of anew.

    Parameters
    ----------
    planned : PlannedFit
        Its estimator is a net, or a Pipeline that ends in one.

    Attributes
    ----------
    is_told : bool
        Whether the callbacks have heard of the fit from its beginning to its end.
    """

    def __init__(self, planned):
        self.planned = planned
        self.is_told = False
        self.tasks = NO_TASKS
        # what remains to be done when the fit is over, the last thing first
        self.stack = ExitStack()

    def begin(self, n_epochs):
        """Tell that the fit begins, and the first of its epochs."""
        planned = self.planned
        estimator = make_twin(planned.estimator)
        given = self._describe_rows()
        self.stack.enter_context(propagating(planned.context, estimator))
        if planned.context is not None:
            planned.context.call_on_fit_task_begin(estimator=planned.caller, **given)
        if isinstance(estimator, Pipeline):
            estimator = self._begin_pipeline(estimator)
            given = {}
        self.tasks = NO_TASKS
        # skorch's own nets have no callbacks of scikit-learn's
        if hasattr(estimator, "set_callbacks"):
            self.stack.enter_context(managed_callbacks(estimator))
            self.tasks = FitTasks(estimator, given)
        self.tasks.begin(n_epochs)
        self.tasks.begin_epoch()

    def _begin_pipeline(self, pipeline):
        """Tell of a Pipeline up to the fit of its last step; return a twin of that.

        The names of the tasks are those of scikit-learn's Pipeline.
        """
        *before, (_, last) = pipeline.steps
        self.stack.enter_context(managed_callbacks(pipeline))
        context = begin_context(pipeline, len(pipeline.steps))
        context.call_on_fit_task_begin(estimator=pipeline)
        self.stack.enter_context(_ending(context, pipeline))
        for name, _ in before:
            # the step has been fitted already
            step = context.subcontext(task_name=f"fit-transform-{name}")
            step.call_on_fit_task_begin(estimator=pipeline)
            step.call_on_fit_task_end(estimator=pipeline)
        final = context.subcontext(task_name="fit-final-estimator")
        twin = make_twin(last)
        self.stack.enter_context(propagating(final, twin))
        final.call_on_fit_task_begin(estimator=pipeline)
        self.stack.enter_context(_ending(final, pipeline))
        return twin

    def _describe_rows(self):
        """Return the rows of the fit, which are taken from the table when a callback asks."""
        planned = self.planned

        def take():
            return take_split(planned.estimator, planned.whole, planned.whole_y, {}, planned.train)

        rows = {"X": lambda: take()[0], "y": lambda: take()[1]}
        return describe_rows(None, None, planned.params.get("sample_weight")) | rows

    def begin_epoch(self):
        """Tell that another epoch begins."""
        self.tasks.begin_epoch()

    def end_epoch(self):
        """Tell that an epoch is over; return whether a callback wants the fit to stop."""
        return self.tasks.end_epoch()

    def end(self):
        """Tell that the fit is over."""
        self.tasks.end()
        self.stack.close()
        self.is_told = True

    def abandon(self):
        """Tear down the callbacks of a fit that has not come to its end."""
        self.stack.__exit__(_AbandonedError, _AbandonedError(), None)


class _AbandonedError(Exception):
    """Stands for the error that ends a fit."""


@contextmanager
def _ending(context, estimator):
    """Tell at the end of this block that a task is over, unless an error has ended it."""
    yield
    context.call_on_fit_task_end(estimator=estimator)


class ToldContext:
    """Stands for the context that a task was given, where callbacks have heard of its fit.

    Parameters
    ----------
    telling : Telling
    """

    def __init__(self, telling):
        self.telling = telling
        self.context = telling.planned.context

    @contextmanager
    def propagate_callback_context(self, estimator):
        """Hand callbacks on to the estimator, unless they have heard of the fit."""
        if not self.telling.is_told:
            with propagating(self.context, estimator):
                yield
            return
        # a Pipeline tells by itself of its steps
        with without_callbacks(estimator):
            yield

    def call_on_fit_task_begin(self, **given):
        """Tell that the task begins, unless callbacks have heard of it."""
        if not self.telling.is_told:
            self.context.call_on_fit_task_begin(**given)
        return self

    def call_on_fit_task_end(self, **given):
        """Tell that the task is over: the estimator has been scored."""
        return self.context.call_on_fit_task_end(**given)
