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
from sktune.estimators.hook import FitHook
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
    """Let the estimator of a task adopt, fit by fit, what was trained for it; return the hook.

    The `course` sets the random generators to where these fits left them when they were prepared.
    """
    course = course or Course(None)
    is_of_use = course.states is not None or any(
        fit.outcome is not None or fit.table is not None for fit in fits
    )
    if is_of_use and fits[0].net is not None:
        hook = HandOver(fits, course)
        hook.await_fit(fits[0].net)
        return hook
    return FitHook()


class HandOver(FitHook):
    """Hands the fits of a task, in their order, to the one net that the task fits.

    After each fit that was trained together with others the net is fitted, but has no module yet:
    most nets of a search are only scored, and for that the outputs for the test rows suffice, which
    were computed after the training. The parts of the net are built when they are first asked for.
    """

    def __init__(self, fits, course):
        self.waiting = list(fits)
        self.course = course
        self.pipeline = fits[0].pipeline
        # the pipeline's own memory, which serves the fits that were not fused
        self.memory = self.pipeline and self.pipeline.memory
        # lane, outcome and test rows of the fit whose parts are not built yet
        self.trained = None
        self.is_evaluated = False
        self.lock = Lock()

    def await_fit(self, net):
        """Make the estimator, or the pipeline that ends in it, ready for the next of the fits."""
        fit = self.waiting[0]
        if self.pipeline is not None and (fit.outcome is not None or fit.table is not None):
            self.pipeline.memory = Recorded(fit, self.memory, self.course)
        if isinstance(net, NetworkEstimator):
            vars(net)["_hook"] = self
        else:
            hand_over(net, self)

    def adopt(self, net, X, fit_params):
        """Make the net what was trained for its next fit; return False if it has to train alone."""
        if not self.waiting:
            return False
        fit = self.waiting.pop(0)
        self.trained = None
        if self.pipeline is not None:
            self.pipeline.memory = self.memory
        if self.waiting:
            self.await_fit(net)
        elif isinstance(net, NetworkEstimator):
            del vars(net)["_hook"]
        return self._end(fit, net, X, fit_params)

    def _end(self, fit, net, X, fit_params):
        if fit.pipeline is None and not self.course.is_kept():
            _give_up(fit, self.course)
        if fit.outcome is None:
            if fit.table is None:
                self.course.begin(fit)
            else:
                # its steps have been answered, and led the generators where the preparation had
                self.course.expect(fit.after)
            return False
        if why_told(**fit_params):
            names = ", ".join(sorted(fit_params))
            raise AssertionError(f"a fit was trained without {names}")
        self.course.end(fit.after)
        repeat_warnings(fit.caught)
        if fit.outcome.error is not None:
            raise fit.outcome.error
        n_rows = count_rows(X)
        # rows of weight zero are left out of the lane
        if n_rows < fit.lane.n_rows:
            raise AssertionError(
                f"a fit of {fit.lane.n_rows} rows was trained, one of {n_rows} was asked for"
            )
        self._install(fit, net)
        return True

    def _install(self, fit, net):
        """Make the net the one that was trained, without its parts."""
        template = vars(fit.lane.net)
        for name in BUILT:
            vars(net).pop(name, None)
        vars(net).update((name, value) for name, value in template.items() if name not in BUILT)
        vars(net).pop("_narrow_to", None)
        net.history_ = _history(fit.lane.net, fit.outcome.curve)
        # the next fit replaces it: a history of the user's own would be emptied
        vars(net)["_own_history"] = net.history_
        # and not the fit, which knows the net: nets of a search are freed when they are let go
        self.trained = (fit.lane, fit.outcome, fit.tested)
        self.is_evaluated = False
        if not isinstance(net, NetworkEstimator):
            self.build_parts(net)
            return
        vars(net)["_hook"] = self
        if "train_loss" not in net.history_[-1]:
            # without skorch's callbacks the history has no losses of epochs
            vars(net)["_curve"] = [_read_losses(row) for row in fit.outcome.curve]

    def forget_outputs(self):
        """Let go of the outputs for the test rows, and of the table that these rows stand in."""
        if self.trained is not None:
            lane, outcome, _ = self.trained
            outcome.outputs = None
            self.trained = (lane, outcome, ())

    def has_unbuilt_parts(self):
        """Tell whether the net is fitted, but its module, optimizer and the like are not built."""
        return self.trained is not None

    def build_parts(self, net):
        """Give the net its parts, but for those that the user has set."""
        with self.lock:
            if self.trained is None:
                return
            # they are copies: to start more threads takes longer than to copy
            with limited_threads(1):
                lane, outcome, _ = self.trained
                built = _build(lane, outcome)
            for name, part in built.items():
                vars(net).setdefault(name, part)
            self.trained = None
            if self.is_evaluated:
                net._set_training(False)
            if not self.waiting:
                vars(net).pop("_hook", None)

    def find_outputs(self, net, X):
        """Return the nonlinearity and the module's outputs, if X holds the test rows; else None."""
        if self.trained is None:
            return None
        lane, outcome, tested = self.trained
        template = lane.net
        is_changed = (
            vars(net).keys() & BUILT
            or net.predict_nonlinearity is not template.predict_nonlinearity
        )
        if outcome.outputs is None or is_changed or type(X) is not np.ndarray:
            return None
        table, rows = tested
        is_alike = X.dtype == table.dtype and len(X) == len(rows)
        if not is_alike or not np.array_equal(X, table[rows]):
            return None
        self.is_evaluated = True
        outputs = [output.clone() for output in outcome.outputs]
        return template._get_predict_nonlinearity(), outputs


def _give_up(fit, course):
    """Have a fit trained alone: the generators do not stand where its preparation found them."""
    course.leave()
    if fit.outcome is not None:
        fit.outcome = None
        fit.reason = _ELSEWHERE


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
