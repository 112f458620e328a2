"""The steps of a pipeline before its net: fitted once, and not again when the task runs."""

from copy import deepcopy

import numpy as np
from sklearn.base import clone
from sklearn.utils.validation import check_memory

from sktune.engine.digest import digest
from sktune.runtime.generators import Tracker
from sktune.runtime.recorded_warnings import recorded_warnings, repeat_warnings
from sktune.training.rows import count_rows


class Recorder:
    """A memory for ``Pipeline(memory=...)`` that records the fitted steps of a fit in preparation.

    Equal steps are fitted once on the same rows. A step that draws random numbers is fitted anew
    for each fit.

    Parameters
    ----------
    fit : Fit
        The fitted steps are added to it, in their order.
    fitted : dict
        The fitted steps of all fits on a fold.
    memory : object
        The pipeline's own memory.
    tracker : Tracker, default=None
        It tells whether random numbers have been drawn.
    """

    def __init__(self, fit, fitted, memory, tracker=None):
        self.fit = fit
        self.fitted = fitted
        self.memory = memory
        self.tracker = tracker or Tracker()

    def cache(self, function, **options):
        """Return `function`, which fits a step, such that it is called once for equal arguments.

        Arguments that are named by the option ``ignore`` are not compared.
        """
        # identifies the rows that the next step gets
        origin = self.fit.key
        function = check_memory(self.memory).cache(function, **options)
        ignored = options.get("ignore", ())

        def record(transformer, X, y, *args, **kwargs):
            nonlocal origin
            compared = {name: value for name, value in kwargs.items() if name not in ignored}
            origin = (origin, fingerprint((transformer, args, compared)))
            found = self.fitted.get(origin)
            if found is None:
                with recorded_warnings() as caught:
                    found = (function(transformer, X, y, *args, **kwargs), caught)
                if self.tracker.has_moved():
                    self.fit.draws = True
                    # neither this step nor a later one is equal to a step of another fit
                    origin = object()
                self.fitted[origin] = found
            (table, transformer), caught = found
            repeat_warnings(caught)
            self._note(table, transformer)
            return lend(table), deepcopy(transformer)

        return record

    def _note(self, table, transformer):
        """Add a fitted step, and the rows that it returned, to the fit."""
        self.fit.n_step_warnings = len(self.fit.caught)
        self.fit.between = self.tracker.states
        self.fit.table = table
        self.fit.steps.append((count_rows(table), transformer))


class Recorded:
    """A memory for ``Pipeline(memory=...)`` that returns recorded steps while a task runs.

    If the random generators are not in the expected states, the steps are fitted again.

    Parameters
    ----------
    fit : Fit
        It has the recorded steps.
    memory : object
        The pipeline's own memory.
    course : Course
        The states that the random generators are expected in.
    give_up : callable
        Called with `fit` if its steps have to be fitted again.
    """

    # the pipeline need not clone its steps beforehand
    location = None

    def __init__(self, fit, memory, course, give_up):
        self.fit = fit
        self.memory = memory
        self.course = course
        self.give_up = give_up
        self.steps = list(fit.steps)

    def cache(self, function, **options):
        """Return a function that replaces `function`, which fits a step."""
        if not self.course.is_kept():
            self.fit.table = None
            self.give_up(self.fit)
            return check_memory(self.memory).cache(function, **options)
        numbers = iter(range(len(self.steps)))

        def answer(*args, message=None, **kwargs):
            number = next(numbers)
            n_rows, transformer = self.steps[number]
            if message:
                # the pipeline is verbose
                print(f"[Pipeline] {message}, fitted before")
            is_last = number == len(self.steps) - 1
            # this table is read only if the net is trained alone, and then only the last one
            table = np.broadcast_to(0.0, (n_rows, 1))
            if is_last and self.fit.result is None:
                table = self._hand_table()
            return table, deepcopy(transformer)

        return answer

    def _hand_table(self):
        """Return the rows of the last step, for a net that is trained alone."""
        repeat_warnings(self.fit.caught[: self.fit.n_step_warnings])
        self.course.end(self.fit.between)
        return deepcopy(self.fit.table)

    def __sklearn_clone__(self):
        return clone(self.memory, safe=False)


def lend(X):
    """Return a table such that several readers cannot change it for each other.

    An array is made read-only: scikit-learn's transformers then copy it, even with ``copy=False``.
    Any other table is copied.
    """
    if not isinstance(X, np.ndarray):
        return deepcopy(X)
    X.flags.writeable = False
    return X


def fingerprint(thing):
    """Return the digest of an object; if it has none, an object that is equal to nothing else."""
    try:
        return digest(thing)
    except Exception:
        return object()
