"""Callbacks of scikit-learn's that note what they are told, and the reason to skip their tests."""

from threading import Lock

import pytest
import sklearn

from sktune.estimators.callbacks.seam import HAS_CALLBACKS

needs_callbacks = pytest.mark.skipif(
    not HAS_CALLBACKS,
    reason=f"scikit-learn {sklearn.__version__} has no callbacks: they came with 1.9",
)


class Noting:
    """Notes each call of a hook, without what the estimator is or what it is fitted to."""

    def __init__(self, stop_after=None):
        self.calls = []
        self.stop_after = stop_after
        self.lock = Lock()

    def __getstate__(self):
        return {**vars(self), "lock": None}

    def note(self, hook, estimator, context):
        path = []
        while context is not None:
            path.append((context.task_name, context.task_id, context.source_task_name))
            context = context.parent
        with self.lock:
            self.calls.append((hook, type(estimator).__name__, tuple(reversed(path))))

    def setup(self, estimator, context):
        self.note("setup", estimator, context)

    def on_fit_task_begin(self, estimator, context):
        self.note("begin", estimator, context)

    def on_fit_task_end(self, estimator, context):
        self.note("end", estimator, context)
        is_epoch = context.task_name == "epoch"
        return is_epoch and self.stop_after is not None and context.task_id + 1 >= self.stop_after

    def teardown(self, estimator, context):
        self.note("teardown", estimator, context)

    def names(self, *hooks):
        """Return the names of the innermost tasks of the hooks' calls."""
        return [path[-1][0] for hook, _, path in self.calls if hook in hooks]


class Propagated(Noting):
    """The same, handed on to the estimators of a meta-estimator."""

    def __init__(self, max_propagation_depth=None, **params):
        super().__init__(**params)
        self.max_propagation_depth = max_propagation_depth


class Asking:
    """Keeps the fitted estimator and the rows that it is given at the end of each task."""

    def __init__(self):
        self.fitted = []
        self.rows = []

    def setup(self, estimator, context):
        pass

    def on_fit_task_begin(self, estimator, context):
        pass

    def on_fit_task_end(
        self, estimator, context, *, X=None, y=None, metadata=None, fitted_estimator=None
    ):
        self.rows.append((X, y, metadata))
        if fitted_estimator is not None:
            self.fitted.append(fitted_estimator)

    def teardown(self, estimator, context):
        pass


class AskingForRows(Noting):
    """Notes how many rows each task has, too."""

    def __init__(self):
        super().__init__()
        self.rows = []

    def on_fit_task_end(self, estimator, context, *, X=None, y=None, metadata=None):
        self.note("end", estimator, context)
        weight = None if metadata is None else len(metadata["sample_weight"])
        if X is not None:
            self.rows.append((context.task_name, len(X), len(y), weight))
