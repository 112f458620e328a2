"""A fit of a task, prepared up to its training; and handed back, trained."""

from contextlib import nullcontext
from copy import copy, deepcopy
from dataclasses import dataclass, field
from functools import partial
from numbers import Integral

import joblib
import numpy as np
import torch
from sklearn.base import clone
from sklearn.pipeline import Pipeline
from sklearn.utils.validation import check_memory
from skorch import NeuralNet
from skorch.history import History
from torch import nn

from sktune.data import rows_of
from sktune.estimators import NetworkEstimator
from sktune.fused import plain
from sktune.fused.caught import recorded_warnings, repeat_warnings
from sktune.fused.lanes import Lane, Outcome
from sktune.fused.optim import RULES
from sktune.fused.plan import as_text, signature, why_alone, why_alone_initialized
from sktune.fused.seam import PlannedFit
from sktune.fused.tables import Tables
from sktune.modules import MLP, dropout_layers, floating_dtype
from sktune.validation import check_hyperparameters

_OPTIMIZERS = ("weight_decay", "betas", "eps", "momentum", "dampening", "alpha", "lr_decay", "momentum_decay")
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
    steps: list = field(default_factory=list)  # of the pipeline: the table that each made, and the fitted step
    caught: list = field(default_factory=list)  # what the preparation warned of
    outcome: Outcome | None = None
    seconds: float = 0.0  # its share of the training's time


class Recorder:
    """What ``Pipeline(memory=...)`` takes in a preparation: steps are recorded in their fit.

    Those that are equal, on the same rows, are fitted once: `fitted` has them of all fits. `memory` is the pipeline's.
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
            self.fit.steps.append(step)
            return lend(step[0]), deepcopy(step[1])

        return record


class Recorded:
    """What ``Pipeline(memory=...)`` takes where its steps are not fitted again: those of a fit, in their order."""

    location = None  # the pipeline need not clone its steps beforehand

    def __init__(self, steps, memory):
        self.steps, self.memory = iter(steps), memory

    def cache(self, function, **options):
        """Return what answers in the place of `function`, which fits a step."""

        def answer(*args, **kwargs):
            X, transformer = next(self.steps)
            return X, deepcopy(transformer)

        return answer

    def __sklearn_clone__(self):
        return clone(self.memory, safe=False)


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
        fit.kind = fit.lane and signature(fit.lane)

    def _read(self, net, fold, planned, dataset):
        """Return the lane of an initialized net, or None, and why there is none."""
        rows, _ = rows_of(dataset)
        if reason := why_alone_initialized(net, rows):
            return None, reason
        place = self.tables.share(rows, planned.train)
        train, valid = net.get_split_datasets(dataset, rows.y)
        return Lane(net, place(train), valid and place(valid), fold), ""

    def _read_plain(self, net, fold, planned, train, valid, generator):
        key = (fold, floating_dtype(net.module_), net.device)
        if key not in self.plain_rows:
            self.plain_rows[key] = plain.read_rows(net, train)
        if reason := why_alone_initialized(net, self.plain_rows[key]):
            return None, reason
        lane = plain.SkorchLane(net, self.plain_rows[key], train, valid, generator)
        draws = any(lane.dropout) and str(net.device) != "cpu"
        return (None, "its dropout draws from the device's generator") if draws else (lane, "")


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
    draft.steps = [*estimator.steps[:-1], (estimator.steps[-1][0], net)]
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


def hand_out(fits):
    """Let the estimator of a task adopt, fit by fit, what was trained for it; afterwards it is as any other."""
    if any(fit.outcome is not None for fit in fits):
        _await(fits, fits[0].pipeline and fits[0].pipeline.memory)


def _await(fits, memory):
    """Make an estimator ready for the first of the fits to come; its own `memory` is for those that were not fused."""
    if not fits:
        return
    fit, *others = fits

    def adopt(X):
        if fit.pipeline is not None:
            fit.pipeline.memory = memory
        _await(others, memory)
        return fit.outcome is not None and _adopt(fit, X)

    if fit.pipeline is not None and fit.outcome is not None:
        fit.pipeline.memory = Recorded(fit.steps, memory)
    _let(fit.net, adopt)


def _let(net, adopt):
    if isinstance(net, NetworkEstimator):
        vars(net)["_adopt"] = adopt
    else:
        plain.hand_over(net, adopt)


def _adopt(fit, X):
    repeat_warnings(fit.caught)
    if fit.outcome.error is not None:
        raise fit.outcome.error
    n_rows = X.shape[0] if hasattr(X, "shape") else len(X)
    if n_rows < fit.lane.n_rows:  # rows of weight zero are left out of the lane
        raise AssertionError(f"a fit of {fit.lane.n_rows} rows was trained, one of {n_rows} was asked for")
    _load(fit.net, fit.lane, fit.outcome)
    return True


def _load(net, lane, outcome):
    """Make a net the one that its lane has trained: with weights, optimizer and history."""
    initialized, trained = lane.net, {}
    for name, p in initialized.module_.named_parameters():
        trained[id(p)] = nn.Parameter(outcome.state[name].clone(), p.requires_grad)
    for name, buffer in initialized.module_.named_buffers():
        trained[id(buffer)] = outcome.state[name].clone()
    vars(net).update(vars(initialized))
    net.module_ = _copy_module(initialized.module_, trained)
    net.criterion_, net.callbacks_ = deepcopy(initialized.criterion_), deepcopy(initialized.callbacks_)
    if isinstance(net, NetworkEstimator):
        net.dropout_ = copy(initialized.dropout_)
        for layer, p in zip(dropout_layers(net.module_), lane.dropout, strict=True):
            layer.stream, layer.p = net.dropout_, p
    net.history_ = History({"batches": [], **row} for row in outcome.curve)
    net.initialize_optimizer()
    _load_optimizer(net.optimizer_, [p for p in net.module_.parameters() if p.requires_grad], outcome)


def _copy_module(module, tensors):
    """Return a copy of a module with other tensors, by the ids of its own.

    For layers of torch's and ours, whose attributes are known, this takes a fifth of what ``deepcopy`` takes.
    """
    parts = list(module.named_modules(remove_duplicate=False))
    is_known = all(type(part).__module__.startswith(("torch.nn.modules.", "sktune.")) for _, part in parts)
    if not is_known or len(parts) > len({part for _, part in parts}):
        return deepcopy(module, dict(tensors))
    new = object.__new__(type(module))
    vars(new).update((name, v.copy() if isinstance(v, dict) else v) for name, v in vars(module).items())
    for name, tensor in (*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)):
        setattr(new, name, tensors[id(tensor)])
    for name, child in module.named_children():
        setattr(new, name, _copy_module(child, tensors))
    return new


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
