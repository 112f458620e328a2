"""A fit of a task, prepared up to its training."""

from contextlib import nullcontext, suppress
from copy import deepcopy
from dataclasses import dataclass, field
from functools import partial
from numbers import Integral

import joblib
import numpy as np
import torch
from sklearn.pipeline import Pipeline
from sklearn.utils.validation import check_memory
from skorch import NeuralNet
from torch.utils.data import Subset

from sktune.advice import notice_lane
from sktune.data import count_rows, rows_of
from sktune.estimators import NetworkEstimator
from sktune.fused import plain
from sktune.fused.caught import recorded_warnings, repeat_warnings
from sktune.fused.lanes import Lane, Outcome
from sktune.fused.plan import as_text, signature, why_alone, why_alone_initialized
from sktune.fused.seam import PlannedFit
from sktune.fused.tables import Tables
from sktune.modules import MLP, floating_dtype
from sktune.validation import check_hyperparameters, check_rows

_OPTIMIZERS = ("weight_decay", "betas", "eps", "momentum", "dampening", "alpha", "lr_decay", "momentum_decay")
_MOST_KEPT = 1 << 24  # numbers that the outputs for test rows may be, of all fits of a search
_BUILDERS = (NetworkEstimator.initialize_module, NeuralNet.initialize_criterion)
_FREE = {"lr", "l1", "l2", "max_epochs", "tol", "n_iter_no_change", *(f"optimizer__{name}" for name in _OPTIMIZERS)}


@dataclass
class Fit:
    """A fit that a task will make, prepared up to its training."""

    place: tuple = (None, None)  # candidate and split
    key: object = None  # tells its rows
    net: object = None  # the task's own; it stays unfitted until the task runs
    pipeline: object = None  # that the net is the last step of
    lane: Lane | None = None  # what is trained, unless the fit stays out; its net is a twin of `net`
    kind: object = None  # equal for lanes that can be trained together
    reason: str = ""  # why it stays out
    steps: list = field(default_factory=list)  # of the pipeline: how many rows each made, and the fitted step
    caught: list = field(default_factory=list)  # what the preparation warned of
    tested: tuple = ()  # the table, and which of its rows the net will be asked for
    outcome: Outcome | None = None
    seconds: float = 0.0  # its share of the training's time


class Recorder:
    """What ``Pipeline(memory=...)`` takes in a preparation: steps are recorded in their fit.

    Those that are equal, on the same rows, are fitted once: `fitted` has those of all fits of a fold. `memory` is the
    pipeline's.
    """

    def __init__(self, fit, fitted, memory):
        self.fit, self.fitted, self.memory = fit, fitted, memory

    def cache(self, function, **options):
        """Return `function`, which fits a step, with a memory; arguments named in ``ignore`` make no difference."""
        place, function = self.fit.key, check_memory(self.memory).cache(function, **options)

        def record(transformer, X, y, *args, **kwargs):
            nonlocal place
            telling = {name: value for name, value in kwargs.items() if name not in options.get("ignore", ())}
            place = (place, fingerprint((transformer, args, telling)))
            if place not in self.fitted:
                with recorded_warnings() as caught:
                    self.fitted[place] = (function(transformer, X, y, *args, **kwargs), caught)
            step, caught = self.fitted[place]
            repeat_warnings(caught)
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
        if reason := why_alone(net):
            return Fit(reason=reason)
        fit, fold = Fit(net=net, pipeline=None if net is estimator else estimator, key=planned.key), planned.key
        if fit.pipeline is not None:
            fold = (*fold, fingerprint({**vars(draft), "steps": draft.steps[:-1], "memory": None}))
        start = (fold, _settings(net))
        try:
            if start in self.first:
                _follow(fit, self.first[start])
            else:
                self._lead(fit, planned, draft, fold, seed)
        except Exception as error:  # it will fail once more in its own place, and be scored there
            fit.reason = f"its preparation failed: {type(error).__name__}: {error}"
        if fit.lane is not None:
            self.first.setdefault(start, fit)
            if fit.lane.test is not None:
                fit.tested = (planned.whole, fit.lane.test.indices.numpy())
                self.n_kept += len(fit.tested[1]) * fit.lane.net.n_outputs_
            if self.n_kept > _MOST_KEPT:
                fit.lane.test = None
        return fit

    def _lead(self, fit, planned, draft, fold, seed):
        """Run a fit of a draft up to its training."""
        net, found, X = net_of(draft), [], planned.X
        if fit.pipeline is not None:
            X, draft.memory = lend(X), Recorder(fit, self.steps, fit.pipeline.memory)
        arguments = (X,) if planned.y is None else (X, planned.y)
        if isinstance(net, NetworkEstimator):
            convert = partial(self.tables.convert, net, fold, None if fit.pipeline else planned)
            vars(net).update(_stand_in=lambda rows: found.append((rows,)), _table=convert)
            stopped, read = nullcontext(), self._read
        else:
            stopped, read = plain.stopped_before_training(net, found, seed), self._read_plain
        with recorded_warnings() as fit.caught, stopped:
            draft.fit(*arguments, **planned.params)
        for name in ("_stand_in", "_table"):
            vars(net).pop(name, None)
        fit.lane, fit.reason = read(net, fold, planned, *found[0])
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
            self.plain_rows[key] = plain.read_rows(net, train)
        if reason := why_alone_initialized(net, self.plain_rows[key]):
            return None, reason
        lane = plain.SkorchLane(net, self.plain_rows[key], train, valid, generator)
        draws = any(lane.dropout) and str(net.device) != "cpu"
        return (None, "its dropout draws from the device's generator") if draws else (lane, "")


def _test_batches(net, planned, rows):
    """Return the batches that a net will evaluate to predict the test rows; None if that is not known."""
    evaluation = (type(net).forward_iter, type(net).evaluation_step)
    is_own = evaluation != (NeuralNet.forward_iter, NetworkEstimator.evaluation_step)
    if is_own or planned.test is None or not len(planned.test) or type(planned.whole) is not np.ndarray:
        return None
    with suppress(ValueError):  # which will be raised once more where they are predicted
        check_rows(net, planned.whole[planned.test], reset=False)
        return net.get_iterator(Subset(rows, torch.as_tensor(planned.test)))


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
    builders = (type(net).initialize_module, type(net).initialize_criterion)  # others may use any number
    free = _is_free if builders == _BUILDERS else lambda name, net: False
    return (type(net), frozenset((name, as_text(v)) for name, v in vars(net).items() if not free(name, net)))


def _is_free(name, net):
    return name in _FREE or name.startswith("lr_schedule") or (name == "module__dropout" and net.module is MLP)


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
