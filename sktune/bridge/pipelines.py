"""The steps of a pipeline before its network: fitted once, and answered when the task runs."""

from copy import deepcopy

import numpy as np
from sklearn.base import clone
from sklearn.utils.validation import check_memory

from sktune.engine.digest import digest
from sktune.runtime.generators import Tracker
from sktune.runtime.recorded_warnings import recorded_warnings, repeat_warnings
from sktune.training.rows import count_rows


class Recorder:
    """What ``Pipeline(memory=...)`` takes while a fit is prepared: it records the fitted steps.

    Steps that are equal, on the same rows, are fitted once. A step that draws random numbers is
    fitted for each fit anew.

    Parameters
    ----------
    fit : Fit
        It gets the steps, in their order.
    fitted : dict
        The steps of all fits of a fold.
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
        """Return `function`, which fits a step, with a memory.

        Arguments that the option ``ignore`` names make no difference.
        """
        # what the rows that the next step gets were made of
        origin = self.fit.key
        function = check_memory(self.memory).cache(function, **options)
        ignored = options.get("ignore", ())

        def record(transformer, X, y, *args, **kwargs):
            nonlocal origin
            counted = {name: value for name, value in kwargs.items() if name not in ignored}
            origin = (origin, fingerprint((transformer, args, counted)))
            found = self.fitted.get(origin)
            if found is None:
                with recorded_warnings() as caught:
                    found = (function(transformer, X, y, *args, **kwargs), caught)
                if self.tracker.has_moved():
                    self.fit.draws = True
                    # equal to nothing else, nor is what comes after it
                    origin = object()
                self.fitted[origin] = found
            (table, transformer), caught = found
            repeat_warnings(caught)
            self._note(table, transformer)
            return lend(table), deepcopy(transformer)

        return record

    def _note(self, table, transformer):
        """Take note of a step that is over."""
        self.fit.n_step_warnings = len(self.fit.caught)
        self.fit.between = self.tracker.states
        self.fit.table = table
        self.fit.steps.append((count_rows(table), transformer))


class Recorded:
    """What ``Pipeline(memory=...)`` takes while a task runs: the steps are not fitted again.

    Where the random generators have left their course, the steps are fitted again after all.

    Parameters
    ----------
    fit : Fit
        It has the steps.
    memory : object
        The pipeline's own memory.
    course : Course
        Where the random generators have to stand.
    give_up : callable
        Called with `fit` where its steps have to be fitted again.
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
        """Return what answers in the place of `function`, which fits a step."""
        if not self.course.is_kept():
            self.fit.table = None
            self.give_up(self.fit)
            return check_memory(self.memory).cache(function, **options)
        numbers = iter(range(len(self.steps)))

        def answer(*args, message=None, **kwargs):
            number = next(numbers)
            n_rows, transformer = self.steps[number]
            if message:
                # of a pipeline that is verbose
                print(f"[Pipeline] {message}, fitted before")
            is_last = number == len(self.steps) - 1
            # nothing reads this table, but for that of a net that is trained alone
            table = np.broadcast_to(0.0, (n_rows, 1))
            if is_last and self.fit.result is None:
                table = self._hand_table()
            return table, deepcopy(transformer)

        return answer

    def _hand_table(self):
        """Return what the last step made, for a net that is trained alone."""
        repeat_warnings(self.fit.caught[: self.fit.n_step_warnings])
        self.course.end(self.fit.between)
        return deepcopy(self.fit.table)

    def __sklearn_clone__(self):
        return clone(self.memory, safe=False)


def lend(X):
    """Return a table for one of several readers, which may write into it: a copy.

    An array is made read-only instead: scikit-learn's transformers then copy it, even with
    ``copy=False``.
    """
    if not isinstance(X, np.ndarray):
        return deepcopy(X)
    X.flags.writeable = False
    return X


def fingerprint(thing):
    """Return the digest of a thing; of what has none, an object that equals nothing else."""
    try:
        return digest(thing)
    except Exception:
        return object()
