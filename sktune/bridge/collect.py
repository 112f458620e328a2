"""A fit of a task, prepared up to its training."""

import logging
from contextlib import nullcontext, suppress
from copy import deepcopy
from dataclasses import dataclass, field
from numbers import Integral

import joblib
import numpy as np
import torch
from sklearn.pipeline import Pipeline
from sklearn.utils.validation import check_memory
from skorch import NeuralNet
from torch import nn
from torch.utils.data import Subset

from sktune.bridge.blockers import why_alone, why_alone_initialized, why_pipeline_alone
from sktune.bridge.caught_warnings import recorded_warnings, repeat_warnings
from sktune.bridge.generators import Tracker
from sktune.bridge.planner import as_text, is_proven, signature
from sktune.bridge.seam import PlannedFit
from sktune.bridge.skorch_nets import SkorchLane, read_rows, stopped_before_training, why_told
from sktune.bridge.tables import Tables
from sktune.checks.advice import notice_lane
from sktune.checks.hyperparameters import check_hyperparameters
from sktune.checks.inputs import check_rows
from sktune.engine.lanes import Lane, Outcome
from sktune.estimators.base import NetworkEstimator
from sktune.estimators.hook import FitHook
from sktune.modules.mlp import MLP
from sktune.runtime.dtypes import floating_dtype
from sktune.runtime.seeds import draw_seed
from sktune.runtime.threads import limited_threads
from sktune.training.rows import count_rows, rows_of

_logger = logging.getLogger(__name__)
_OPTIMIZERS = (
    "weight_decay",
    "betas",
    "eps",
    "momentum",
    "dampening",
    "alpha",
    "lr_decay",
    "momentum_decay",
)
_KNOWN = (
    nn.CrossEntropyLoss,
    nn.MSELoss,
    nn.BCEWithLogitsLoss,
    nn.NLLLoss,
    nn.L1Loss,
    nn.SmoothL1Loss,
    nn.HuberLoss,
)
_FAILS = "its fit fails before the training begins"
_MOST_KEPT = 1 << 24  # numbers that the outputs for test rows may be, of all fits of a search
_BUILDERS = (NetworkEstimator.initialize_module, NeuralNet.initialize_criterion)
_FREE = {
    "lr",
    "l1",
    "l2",
    "max_epochs",
    "tol",
    "n_iter_no_change",
    *(f"optimizer__{name}" for name in _OPTIMIZERS),
}


@dataclass
class Fit:
    """A fit that a task will make, prepared up to its training."""

    place: tuple = (None, None)  # candidate and split
    key: object = None  # tells its rows
    net: object = None  # the task's own; it stays unfitted until the task runs
    pipeline: object = None  # that the net is the last step of
    lane: Lane | None = (
        None  # what is trained, unless the fit stays out; its net is a twin of `net`
    )
    kind: object = None  # equal for lanes that can be trained together
    reason: str = ""  # why it stays out
    steps: list = field(
        default_factory=list
    )  # of the pipeline: how many rows each made, and the fitted step
    caught: list = field(default_factory=list)  # what the preparation warned of
    tested: tuple = ()  # the table, and which of its rows the net will be asked for
    outcome: Outcome | None = None
    seconds: float = 0.0  # its share of the training's time
    group: dict | None = None  # what is told of those it was trained with
    failure: Exception | None = (
        None  # in its training, which may be the engine's fault or the user's
    )
    table: object = (
        None  # what the steps made of the rows, as long as the net may have to be trained alone
    )
    n_of_steps: int = 0  # how many of the warnings `caught` are the steps'
    own: object = field(default_factory=object)  # equal to nothing of another fit
    draws: bool = (
        False  # whether the preparation drew from the generators that the whole process shares
    )
    before: tuple | None = None  # their states when it began,
    between: tuple | None = None  # after the steps,
    after: tuple | None = None  # and in the end; None where that drew nothing


class Recorder:
    """What ``Pipeline(memory=...)`` takes in a preparation: steps are recorded in their fit.

    Those that are equal, on the same rows, are fitted once: `fitted` has those of all fits of a fold. `memory` is the
    pipeline's. A step that draws random numbers, of which the `tracker` tells, is fitted for each fit anew.
    """

    def __init__(self, fit, fitted, memory, tracker=None):
        self.fit, self.fitted, self.memory = fit, fitted, memory
        self.tracker = tracker or Tracker()

    def cache(self, function, **options):
        """Return `function`, which fits a step, with a memory; arguments named in ``ignore`` make no difference."""
        place, function = self.fit.key, check_memory(self.memory).cache(function, **options)

        def record(transformer, X, y, *args, **kwargs):
            nonlocal place
            telling = {
                name: value
                for name, value in kwargs.items()
                if name not in options.get("ignore", ())
            }
            place = (place, fingerprint((transformer, args, telling)))
            found = self.fitted.get(place)
            if found is None:
                with recorded_warnings() as caught:
                    found = (function(transformer, X, y, *args, **kwargs), caught)
                if self.tracker.has_moved():
                    self.fit.draws = True
                    # equal to nothing else, nor is what comes after it
                    place = object()
                self.fitted[place] = found
            step, caught = found
            repeat_warnings(caught)
            self.fit.n_of_steps = len(self.fit.caught)
            self.fit.between = self.tracker.states
            self.fit.table = step[0]
            self.fit.steps.append((count_rows(step[0]), step[1]))
            return lend(step[0]), deepcopy(step[1])

        return record


def lend(X):
    """Return a table for one of several readers, which may write into it: a copy.

    An array is made unwritable instead: scikit-learn's transformers then copy, even with ``copy=False``.
    """
    if not isinstance(X, np.ndarray):
        return deepcopy(X)
    X.flags.writeable = False
    return X


def fingerprint(thing):
    """Return a hash that is equal for equal things; for what cannot be hashed, an object that equals nothing else."""
    try:
        return joblib.hash(thing)
    except Exception:
        return object()


class Collector:
    """Prepares fits. Those on the same rows share them; nets that differ in numbers alone begin with the same weights.

    `device` is where they are trained, unless that is None.
    """

    def __init__(self, device=None):
        self.device = device
        self.tables, self.plain_rows, self.steps, self.first = Tables(), {}, {}, {}
        self.n_kept = 0
        self.tracker = Tracker()

    def prepare(self, planned_fits, seed=None):
        """Return the :class:`Fit` of each planned one of a task, whose estimator stays as it is.

        `seed` is for nets of skorch's, which have none of their own.
        """
        draft, fits = None, []
        for n, planned in enumerate(planned_fits):
            if self.device is not None:
                net_of(planned.estimator).set_params(device=self.device)
            draft = _draft(planned.estimator if draft is None else draft)
            fits.append(self._prepare(planned, draft, seed and seed + n))
        return fits

    def _prepare(self, planned: PlannedFit, draft, seed):
        estimator, net = planned.estimator, net_of(planned.estimator)
        fit, fold = (
            Fit(net=net, pipeline=None if net is estimator else estimator, key=planned.key),
            planned.key,
        )
        if fit.pipeline is not None:
            fold = (*fold, fingerprint({**vars(draft), "steps": draft.steps[:-1], "memory": None}))
        start = (fold, _settings(net))
        reason = why_alone(net) or why_pipeline_alone(fit.pipeline)
        if not reason and start in self.first:
            try:
                _follow(fit, self.first[start])
            except Exception:
                _logger.debug("a fit cannot be prepared", exc_info=True)
                fit.reason = _FAILS
        else:
            # a task may have drawn since the fit before, to split its rows
            draws_nothing = _draws_nothing(fit)
            if not draws_nothing and self.tracker.has_moved():
                fit.draws = True
            fit.before = self.tracker.states
            if reason:
                fit.reason = reason
                _draw_as(fit)
            else:
                self._lead(fit, planned, draft, fold, seed)
            if not draws_nothing and self.tracker.has_moved():
                fit.draws = True
            fit.after = self.tracker.states
        self._keep(fit, start, planned)
        return fit

    def _keep(self, fit, start, planned):
        """Take note of a fit that has a lane, and of the test rows that its net will be asked for."""
        if fit.lane is None:
            return
        if not fit.draws:
            self.first.setdefault(start, fit)
        if is_proven(fit.lane):
            # it will not be trained alone
            fit.table = None
        if fit.lane.test is not None:
            fit.tested = (planned.whole, fit.lane.test.indices.numpy())
            self.n_kept += len(fit.tested[1]) * fit.lane.net.n_outputs_
        if self.n_kept > _MOST_KEPT:
            fit.lane.test = None

    def _lead(self, fit, planned, draft, fold, seed):
        """Run a fit of a draft up to its training; where that fails it will fail once more in the fit's own place."""
        try:
            self._run_draft(fit, planned, draft, fold, seed)
        except Exception:
            _logger.debug("a fit cannot be prepared", exc_info=True)
            fit.reason = _FAILS
        if fit.pipeline is not None:
            n_steps = sum(step not in (None, "passthrough") for _, step in fit.pipeline.steps[:-1])
            if len(fit.steps) < n_steps:
                fit.table = None

    def _run_draft(self, fit, planned, draft, fold, seed):
        net, found, X = net_of(draft), [], planned.X
        if fit.pipeline is not None:
            X, draft.memory = lend(X), Recorder(fit, self.steps, fit.pipeline.memory, self.tracker)
        arguments = (X,) if planned.y is None else (X, planned.y)
        if isinstance(net, NetworkEstimator):
            table_of = None if fit.pipeline else planned
            vars(net)["_hook"] = Collecting(
                found, lambda X: self.tables.convert(net, _fold_of(fit, fold), table_of, X)
            )
            stopped, read = nullcontext(), self._read
        else:
            stopped, read = stopped_before_training(net, found, seed), self._read_plain
        with recorded_warnings() as fit.caught, stopped:
            draft.fit(*arguments, **planned.params)
        vars(net).pop("_hook", None)
        told, *rows = found[0]
        if told:
            fit.reason = told
            return
        # the rows are gathered once: for that, threads would be started in vain
        with limited_threads(1):
            fit.lane, fit.reason = read(net, _fold_of(fit, fold), planned, *rows)
        if fit.lane is not None and isinstance(net, NetworkEstimator):
            with recorded_warnings() as caught:
                notice_lane(fit.lane)
            fit.caught = [*fit.caught, *caught]
        fit.kind = fit.lane and signature(fit.lane)

    def _read(self, net, fold, planned, dataset):
        """Return the lane of an initialized net, or None, and why there is none."""
        rows, _ = rows_of(dataset)
        if reason := why_alone_initialized(net, rows):
            return None, reason
        place = self.tables.share(rows, planned.train)
        train, valid = net.get_split_datasets(dataset, rows.y)
        lane = Lane(net, place(train), valid and place(valid), fold)
        if hasattr(rows.X, "whole"):
            lane.test = _test_batches(net, planned, rows_of(lane.train)[0])
        return lane, ""

    def _read_plain(self, net, fold, planned, train, valid, generator):
        key = (fold, floating_dtype(net.module_), net.device)
        if key not in self.plain_rows:
            self.plain_rows[key] = read_rows(net, train)
        if reason := why_alone_initialized(net, self.plain_rows[key]):
            return None, reason
        lane = SkorchLane(net, self.plain_rows[key], train, valid, generator)
        draws = any(lane.dropout) and str(net.device) != "cpu"
        return (None, "its dropout draws from the device's generator") if draws else (lane, "")


class Collecting(FitHook):
    """Stops the fit of a net where its training would begin; `found` gets the training's arguments."""

    forgets_given_table = True

    def __init__(self, found, convert):
        self.found, self.convert = found, convert

    def convert_table(self, net, X):
        """Return a table as the module takes it, shared with other fits."""
        return self.convert(X)

    def replace_training(self, net, dataset, epochs, fit_params):
        """Take the arguments of the training loop, and why they keep the fit out of a group."""
        self.found.append((why_told(epochs, **fit_params), dataset))
        return True


def _test_batches(net, planned, rows):
    """Return the batches that a net will evaluate to predict the test rows; None if that is not known."""
    evaluation = (type(net).forward_iter, type(net).evaluation_step)
    is_own = evaluation != (NeuralNet.forward_iter, NetworkEstimator.evaluation_step)
    if (
        is_own
        or planned.test is None
        or not len(planned.test)
        or type(planned.whole) is not np.ndarray
    ):
        return None
    with suppress(ValueError):  # which will be raised once more where they are predicted
        check_rows(net, planned.whole[planned.test], reset=False)
        return net.get_iterator(Subset(rows, torch.as_tensor(planned.test)))


def _fold_of(fit, fold):
    """Return what tells the rows that the net gets: those of steps that have drawn random numbers are its own."""
    return (*fit.key, fit.own) if fit.draws else fold


def _draws_nothing(fit):
    """Tell whether no code but sktune's and torch's takes part in a preparation, and the seed is given."""
    net = fit.net
    is_known = (
        type(net).__module__.startswith("sktune.") and net.module is MLP and net.criterion in _KNOWN
    )
    return is_known and fit.pipeline is None and isinstance(net.random_state, Integral)


def _draw_as(fit):
    """Draw the seed of a net of sktune's that is not prepared, for others to draw theirs after it."""
    if (
        isinstance(fit.net, NetworkEstimator)
        and fit.pipeline is None
        and fit.net.random_state is None
    ):
        draw_seed(None)


def net_of(estimator):
    """Return what an estimator is, or a pipeline ends in."""
    return estimator.steps[-1][1] if isinstance(estimator, Pipeline) else estimator


def _draft(estimator):
    """Return a twin of an estimator, which can be fitted in its place; a second draft goes on where the first ended."""
    net = _twin(net_of(estimator))
    if isinstance(net, NetworkEstimator):
        net.random_state = deepcopy(net.random_state)
    if not isinstance(estimator, Pipeline):
        return net
    draft = _twin(estimator)
    draft.steps, draft.verbose = [*estimator.steps[:-1], (estimator.steps[-1][0], net)], False
    return draft


def _twin(estimator):
    twin = object.__new__(type(estimator))
    vars(twin).update(vars(estimator))
    return twin


def _settings(net):
    """Return all of an untrained net but what may differ between lanes that begin alike."""
    if not isinstance(getattr(net, "random_state", None), Integral):
        return object()  # equal to nothing else
    builders = (
        type(net).initialize_module,
        type(net).initialize_criterion,
    )  # others may use any number
    free = _is_free if builders == _BUILDERS else lambda name, net: False
    return (
        type(net),
        frozenset((name, as_text(v)) for name, v in vars(net).items() if not free(name, net)),
    )


def _is_free(name, net):
    return (
        name in _FREE
        or name.startswith("lr_schedule")
        or (name == "module__dropout" and net.module is MLP)
    )


def _follow(fit, first):
    """Prepare a fit whose net differs from another's in numbers only."""
    check_hyperparameters(fit.net)
    twin = _twin(first.lane.net)
    for name in vars(fit.net).keys() ^ vars(first.net).keys():
        vars(twin).pop(name, None)
    vars(twin).update(vars(fit.net))
    twin.initialize_optimizer()
    dropout = getattr(fit.net, "module__dropout", 0.0) if fit.net.module is MLP else None
    fit.lane, fit.kind = first.lane.beside(twin, dropout), first.kind
    fit.steps, fit.caught = first.steps, first.caught
    fit.table, fit.n_of_steps = first.table, first.n_of_steps
