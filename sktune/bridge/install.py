"""A fit of a task, handed back: the task runs, and finds its steps fitted and its net trained."""

import math
from copy import copy, deepcopy
from threading import Lock

import numpy as np
import torch
from sklearn.base import clone
from sklearn.utils.validation import check_memory
from skorch.history import History
from torch import nn

from sktune.bridge.caught_warnings import repeat_warnings
from sktune.bridge.generators import Course
from sktune.bridge.skorch_nets import hand_over, why_told
from sktune.engine.compiled.program import count_dtype
from sktune.engine.steps.optimizers import RULES
from sktune.estimators.base import NetworkEstimator
from sktune.estimators.fit_loop import BUILT
from sktune.modules.dropout import dropout_layers
from sktune.runtime.threads import limited_threads
from sktune.training.rows import count_rows

_LOWER_IS_BETTER = {
    "train_loss": True,
    "valid_loss": True,
    "valid_acc": False,
}  # what skorch's callbacks record

_ELSEWHERE = (
    "random numbers were drawn before its turn that nobody expected: its own would be others"
)


class Recorded:
    """What ``Pipeline(memory=...)`` takes where its steps are not fitted again: those of `fit`, in their order.

    `memory` is the pipeline's. Where the random generators have left their `course`, the steps are fitted again.
    """

    location = None  # the pipeline need not clone its steps beforehand

    def __init__(self, fit, memory, course):
        self.fit, self.memory, self.course = fit, memory, course
        self.steps = list(fit.steps)

    def cache(self, function, **options):
        """Return what answers in the place of `function`, which fits a step."""
        if not self.course.is_kept():
            self.fit.table = None
            _give_up(self.fit, self.course)
            return check_memory(self.memory).cache(function, **options)
        left = iter(range(len(self.steps)))

        def answer(*args, message=None, **kwargs):
            number = next(left)
            n_rows, transformer = self.steps[number]
            if message:  # of a pipeline that is verbose
                print(f"[Pipeline] {message}, fitted before")
            # a table that nobody reads
            table = np.broadcast_to(0.0, (n_rows, 1))
            if number == len(self.steps) - 1 and self.fit.outcome is None:
                table = self._hand_table()
            return table, deepcopy(transformer)

        return answer

    def _hand_table(self):
        """Return what the last step made, for a net that is trained alone."""
        repeat_warnings(self.fit.caught[: self.fit.n_of_steps])
        self.course.end(self.fit.between)
        return deepcopy(self.fit.table)

    def __sklearn_clone__(self):
        return clone(self.memory, safe=False)


def hand_out(fits, course=None):
    """Let the estimator of a task adopt, fit by fit, what was trained for it; afterwards it is as any other.

    The `course` leads the random generators to where these fits led them when they were prepared.
    """
    course = course or Course(None)
    is_of_use = course.states is not None or any(
        fit.outcome is not None or fit.table is not None for fit in fits
    )
    if is_of_use and fits[0].net is not None:
        _await(fits, fits[0].pipeline and fits[0].pipeline.memory, course)


def _await(fits, memory, course):
    """Make an estimator ready for the first of the fits to come; its own `memory` is for those that were not fused."""
    if not fits:
        return
    fit, *others = fits

    def adopt(X, **fit_params):
        if fit.pipeline is not None:
            fit.pipeline.memory = memory
        _await(others, memory, course)
        return _end(fit, X, fit_params, course)

    if fit.pipeline is not None and (fit.outcome is not None or fit.table is not None):
        fit.pipeline.memory = Recorded(fit, memory, course)
    _let(fit.net, adopt)


def _end(fit, X, fit_params, course):
    """Let a net adopt what was trained for it, or return False: it has to be trained alone."""
    if fit.pipeline is None and not course.is_kept():
        _give_up(fit, course)
    if fit.outcome is not None and why_told(**fit_params):
        raise AssertionError(f"a fit was trained without {', '.join(sorted(fit_params))}")
    if fit.outcome is not None:
        course.end(fit.after)
        return _adopt(fit, X)
    if fit.table is None:
        course.begin(fit)
    else:
        # its steps have been answered, and led the generators to where they led in the preparation
        course.expect(fit.after)
    return False


def _give_up(fit, course):
    """Have a fit trained alone: the random generators do not stand where they stood in its preparation."""
    course.leave()
    if fit.outcome is not None:
        fit.outcome, fit.reason = None, _ELSEWHERE


def _let(net, adopt):
    if isinstance(net, NetworkEstimator):
        vars(net)["_adopt"] = adopt
    else:
        hand_over(net, adopt)


def _adopt(fit, X):
    repeat_warnings(fit.caught)
    if fit.outcome.error is not None:
        raise fit.outcome.error
    n_rows = count_rows(X)
    if n_rows < fit.lane.n_rows:  # rows of weight zero are left out of the lane
        raise AssertionError(
            f"a fit of {fit.lane.n_rows} rows was trained, one of {n_rows} was asked for"
        )
    fit.outcome.tested = fit.tested
    Trained(fit.lane, fit.outcome).become(fit.net)
    return True


class Trained:
    """What a lane has trained; the parts of a net are built from it when somebody looks at them, which few do.

    Until then, the outputs for the test rows are those that were computed after the training.
    """

    def __init__(self, lane, outcome):
        self.lane, self.outcome, self.is_evaluated, self.lock = lane, outcome, False, Lock()

    def become(self, net):
        """Make a net the one that was trained."""
        for name in BUILT:
            vars(net).pop(name, None)
        vars(net).update(
            (name, value) for name, value in vars(self.lane.net).items() if name not in BUILT
        )
        vars(net).pop("_narrow_to", None)
        net.history_ = _history(self.lane.net, self.outcome.curve)
        if isinstance(net, NetworkEstimator) and "train_loss" not in net.history_[-1]:
            # Without skorch's callbacks the history has no losses of epochs, and those of batches are not told.
            vars(net)["_curve"] = [_read_losses(row) for row in self.outcome.curve]
        vars(net)["_trained"] = self
        # which the next fit replaces: a history of the user's own would be emptied
        vars(net)["_own_history"] = net.history_
        if not isinstance(net, NetworkEstimator):
            self.build(net)

    def build(self, net):
        """Give the net its parts, but for those that somebody has set."""
        with self.lock:
            if vars(net).get("_trained") is self:
                with limited_threads(1):  # copies, for which it would be in vain to start more
                    built = _build(self.lane, self.outcome)
                for name, part in built.items():
                    vars(net).setdefault(name, part)
                if self.is_evaluated:
                    net._set_training(False)
                del vars(net)["_trained"]

    def find_outputs(self, net, X):
        """Return the module's outputs for X, by batches, if X holds the tested rows; else None."""
        is_changed = (
            vars(net).keys() & BUILT
            or net.predict_nonlinearity is not self.lane.net.predict_nonlinearity
        )
        if self.outcome.outputs is None or is_changed or type(X) is not np.ndarray:
            return None
        table, rows = self.outcome.tested
        if X.dtype != table.dtype or len(X) != len(rows) or not np.array_equal(X, table[rows]):
            return None
        self.is_evaluated = True
        return [output.clone() for output in self.outcome.outputs]


def _read_losses(row):
    return {name: row[name] for name in ("train_loss", "valid_loss") if name in row}


def _history(net, curve):
    """Return what skorch's own callbacks would have recorded of a net's epochs; their batches are not told."""
    scored = [name for name, _ in net.callbacks_ if name in _LOWER_IS_BETTER]
    told = {"epoch", "train_batch_count", "valid_batch_count", *scored}
    if scored:
        told.add("dur")
    history = History()
    best = dict.fromkeys(scored, math.inf)
    for row in curve:
        history.append({"batches": [], **{name: row[name] for name in row if name in told}})
        for name in best.keys() & row.keys():
            score = row[name] if _LOWER_IS_BETTER[name] else -row[name]
            history.record(f"{name}_best", score < best[name])
            best[name] = min(score, best[name])
    return history


def _build(lane, outcome):
    """Return module, criterion, optimizer and the like as a lane's training left them."""
    net, built = lane.net, {}
    tensors = (*net.module_.named_parameters(), *net.module_.named_buffers())
    own = {id(tensor): _own(tensor, outcome.state[name]) for name, tensor in tensors}
    built["module_"], built["criterion_"] = (
        deepcopy(net.module_, dict(own)),
        deepcopy(net.criterion_),
    )
    if lane.narrow_to is not None:
        built["criterion_"].to(lane.narrow_to)
    built["callbacks_"] = [
        (name, deepcopy(callback)) for name, callback in net.callbacks_
    ]  # skorch's own
    for name, callback in built["callbacks_"]:
        if scores := [
            row[name] for row in outcome.curve if name in row and name in _LOWER_IS_BETTER
        ]:
            callback.best_score_ = (min if _LOWER_IS_BETTER[name] else max)(scores)
    if isinstance(net, NetworkEstimator):
        built["dropout_"] = copy(net.dropout_)
        last = outcome.curve[-1]
        built["dropout_"].epoch, built["dropout_"].batch = (
            last["epoch"] - 1,
            last["train_batch_count"] - 1,
        )
        for layer, p in zip(dropout_layers(built["module_"]), lane.dropout, strict=True):
            layer.stream, layer.p = built["dropout_"], p
    built["optimizer_"] = _load_optimizer(net.optimizer_, own, outcome)
    return built


def _own(tensor, value):
    """Return a copy of a value, of the kind that a module's tensor is."""
    copied = value.clone()
    return (
        nn.Parameter(copied, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else copied
    )


def _load_optimizer(initialized, own, outcome):
    """Return a copy of an optimizer of other parameters, by the ids of its own, as a lane's training left it."""
    optimizer = deepcopy(initialized, dict(own))
    vars(optimizer).update({**vars(initialized), **vars(optimizer)})  # what torch does not copy
    (group,) = optimizer.param_groups
    group["lr"] = outcome.lr
    state, learned = dict(outcome.optimizer), [p for p in group["params"] if p.requires_grad]
    on_device = group.get("fused") or group.get(
        "capturable"
    )  # torch keeps the count where it is read
    device = learned[0].device if on_device and learned else None
    step = torch.tensor(state.pop("step"), dtype=count_dtype(group), device=device)
    counted = {} if isinstance(optimizer, torch.optim.SGD) else {"step": step}
    if not group.get("momentum", 1):  # torch keeps no buffer then
        state.pop("momentum_buffer", None)
    numbers, sizes = RULES[type(optimizer)].numbers, [p.numel() for p in learned]
    parts = {
        name: t.expand(len(sizes)) if name in numbers else t.split(sizes)
        for name, t in state.items()
    }
    for n, p in enumerate(learned if counted or state else ()):
        moments = {
            name: t[n].clone().view(() if name in numbers else p.shape) for name, t in parts.items()
        }
        optimizer.state[p] = {name: t.clone() for name, t in counted.items()} | moments
    return optimizer
