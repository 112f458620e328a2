"""A fit of a task, prepared up to its training; and handed back, trained."""

import warnings
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, field
from functools import partial

import joblib
import numpy as np
import torch
from sklearn.pipeline import Pipeline
from skorch import NeuralNet
from skorch.history import History

from sktune.data import rows_of
from sktune.fused.optim import RULES
from sktune.fused.plan import why_alone, why_alone_initialized
from sktune.fused.seam import PlannedFit
from sktune.fused.lanes import Lane, Outcome
from sktune.modules import floating_dtype, keeps_integers


@dataclass
class Fit:
    """A fit that a task will make, prepared up to its training."""

    place: tuple = (None, None)  # candidate and split
    key: object = None  # tells its rows
    net: object = None  # the task's own; it stays unfitted until the task runs
    pipeline: object = None  # that the net is the last step of
    lane: Lane | None = None  # what is trained, unless the fit stays out; its net is a twin of `net`
    reason: str = ""  # why it stays out
    caught: list = field(default_factory=list)  # what the preparation warned of
    outcome: Outcome | None = None
    seconds: float = 0.0  # its share of the training's time


class SharedSteps:
    """Fitted steps of pipelines, shared by equal steps on the same rows: what ``Pipeline(memory=...)`` takes."""

    def __init__(self):
        self.fitted = {}

    def cache(self, function, ignore=()):
        """Return `function`, which fits a step, with a memory; arguments named in `ignore` make no difference."""

        def remember(transformer, X, y, *args, **kwargs):
            if X is not self.last:  # the first step of the next fit
                self.place = next(self.keys)
            telling = {name: value for name, value in kwargs.items() if name not in ignore}
            self.place = (self.place, fingerprint((transformer, args, telling)))
            if self.place not in self.fitted:
                self.fitted[self.place] = function(transformer, X, y, *args, **kwargs)
                freeze(self.fitted[self.place][0])
            self.last, transformer = self.fitted[self.place]
            return self.last, transformer

        return remember

    @contextmanager
    def installed(self, fits):
        """Let the pipelines of some fits, made in this order, share their steps unless they have a memory."""
        chosen = [fit for fit in fits if fit.pipeline is not None and fit.pipeline.memory is None]
        self.keys, self.last = iter([fit.key for fit in chosen]), None
        for fit in chosen:
            fit.pipeline.memory = self
        try:
            yield
        finally:
            for fit in chosen:
                fit.pipeline.memory = None


def freeze(X):
    """Make a table that is shared unwritable: scikit-learn's transformers then copy, even with ``copy=False``."""
    if isinstance(X, np.ndarray):
        X.flags.writeable = False


def fingerprint(thing):
    """Return a hash that is equal for equal things; for what cannot be hashed, an object that equals nothing else."""
    try:
        return joblib.hash(thing)
    except Exception:
        return object()


class Collector:
    """Prepares fits; fits on the same rows share them."""

    def __init__(self):
        self.tables, self.rows = {}, {}
        self.steps = SharedSteps()

    def prepare(self, planned: PlannedFit):
        """Return the :class:`Fit` of a planned one."""
        estimator = planned.estimator
        pipeline = estimator if isinstance(estimator, Pipeline) else None
        net = pipeline.steps[-1][1] if pipeline else estimator
        if not isinstance(net, NeuralNet):
            return Fit(reason=f"{type(net).__name__} is no network")
        if reason := why_alone(net):
            return Fit(reason=reason)
        fold = (*planned.key, fingerprint(pipeline[:-1])) if pipeline else planned.key
        fit = Fit(net=net, pipeline=pipeline, key=planned.key)
        arguments = (planned.X,) if planned.y is None else (planned.X, planned.y)
        if pipeline:
            freeze(planned.X)
        with self.steps.installed([fit]):
            fit_estimator = partial(estimator.fit, *arguments, **planned.params)
            _prepare(fit, partial(self._table, fold, net), self._share, fit_estimator)
        return fit

    def _share(self, rows):
        """Return rows equal to these that another fit has, if there are any: equal rows are kept, and gathered, once."""
        others = self.rows.setdefault(rows.X.data_ptr(), [])
        for other in others:
            if _equal(rows.target, other.target) and _equal(rows.weight, other.weight):
                return other
        others.append(rows)
        return rows

    def _table(self, fold, net, X):
        """Return X as a net takes it; the first net of its kind on these rows has it made, on the device once."""
        kind = (fold, X.shape, X.dtype, net.device_, floating_dtype(net.module_), keeps_integers(X, net.module_))
        if kind not in self.tables:
            self.tables[kind] = type(net)._table(net, X)
        return self.tables[kind]


def _equal(one, other):
    return one is other or (one is not None and other is not None and torch.equal(one, other))


def _prepare(fit, table, share, run_fit):
    """Run a fit up to its training, and leave the net behind as it was."""
    net, dataset, before = fit.net, [], dict(vars(fit.net))
    net.random_state = deepcopy(net.random_state)  # a RandomState must not have been drawn from when the task runs
    vars(net)["_stand_in"] = dataset.append
    vars(net)["_table"] = table
    try:
        with warnings.catch_warnings(record=True) as fit.caught:
            run_fit()
        for name in ("_stand_in", "_table"):
            del vars(net)[name]
        rows, _ = rows_of(dataset[0])
        fit.reason = why_alone_initialized(net, rows)
        if not fit.reason:
            twin = object.__new__(type(net))
            vars(twin).update(vars(net))
            train, valid = net.get_split_datasets(share(rows), rows.y)
            fit.lane = Lane(twin, train, valid)
    except Exception as error:  # it will fail once more in its own place, and be scored there
        fit.reason = f"its preparation failed: {type(error).__name__}: {error}"
    finally:
        vars(net).clear()
        vars(net).update(before)


def hand_out(fits):
    """Let the net of a task adopt, fit by fit, what was trained for it."""
    if any(fit.outcome is not None for fit in fits):
        net, queue = fits[0].net, iter(fits)

        def adopt(X):
            fit = next(queue)
            if fit is not fits[-1]:
                vars(net)["_adopt"] = adopt
            return fit.outcome is not None and _adopt(fit, X)

        vars(net)["_adopt"] = adopt


def _adopt(fit, X):
    for warning in fit.caught:
        warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)
    if fit.outcome.error is not None:
        raise fit.outcome.error
    n_rows = X.shape[0] if hasattr(X, "shape") else len(X)
    if n_rows < fit.lane.n_rows:  # rows of weight zero are left out of the lane
        raise AssertionError(f"a fit of {fit.lane.n_rows} rows was trained, one of {n_rows} was asked for")
    _load(fit.lane.net, fit.outcome)
    vars(fit.net).update(vars(fit.lane.net))
    return True


def _load(net, outcome):
    """Give an initialized net the weights, the optimizer's state and the history of its lane."""
    with torch.no_grad():
        for name, tensor in (*net.module_.named_parameters(), *net.module_.named_buffers()):
            tensor.copy_(outcome.state[name])
    net.history_ = History({"batches": [], **row} for row in outcome.curve)
    _load_optimizer(net.optimizer_, [p for p in net.module_.parameters() if p.requires_grad], outcome)


def _load_optimizer(optimizer, learned, outcome):
    state = dict(outcome.optimizer)
    step = state.pop("step")
    group = optimizer.param_groups[0]
    group["lr"] = outcome.lr
    if not group.get("momentum", 1):  # torch keeps no buffer then
        state.pop("momentum_buffer", None)
    numbers = RULES[type(optimizer)].numbers
    counted = {} if isinstance(optimizer, torch.optim.SGD) else {"step": step}
    start = 0
    for p in learned:
        rows = slice(start, start := start + p.numel())
        own = {name: t[0].clone() if name in numbers else t[rows].view_as(p).clone() for name, t in state.items()}
        if counted or own:
            optimizer.state[p] = {name: torch.tensor(value) for name, value in counted.items()} | own
