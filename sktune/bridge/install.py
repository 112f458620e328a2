"""A fit of a task, handed back: the task runs, and finds its steps fitted and its net trained."""

import math
from copy import copy, deepcopy
from threading import Lock
from typing import NamedTuple

import numpy as np
import torch
from skorch.history import History
from torch import nn

from sktune.bridge.pipelines import Recorded
from sktune.bridge.skorch_nets import hand_over, why_told
from sktune.engine.compiled.program import count_dtype
from sktune.engine.specs import FitResult, FitSpec
from sktune.engine.steps.optimizers import RULES
from sktune.estimators.base import NetworkEstimator
from sktune.estimators.components import BUILT
from sktune.estimators.hook import NO_HOOK, FitHook
from sktune.modules.dropout import dropout_layers
from sktune.runtime.generators import Course
from sktune.runtime.recorded_warnings import repeat_warnings
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


def hand_out(fits, course=None):
    """Let the estimator of a task adopt, fit by fit, what was trained for it; return the hook.

    The `course` sets the random generators to where these fits left them when they were prepared.
    """
    course = course or Course(None)
    is_of_use = course.states is not None or any(
        fit.result is not None or fit.table is not None for fit in fits
    )
    if is_of_use and fits[0].net is not None:
        hook = HandOver(fits, course)
        hook.await_fit(fits[0].net)
        return hook
    return NO_HOOK


class Trained(NamedTuple):
    """What was trained for a fit, as long as the parts of the net are not built from it.

    It does not know the net itself: nets of a search are freed as soon as they are let go.
    """

    template: object
    spec: FitSpec
    result: FitResult
    test_rows: tuple


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
        # the Trained whose parts are not built yet, if there is one
        self.trained = None
        self.is_evaluated = False
        self.lock = Lock()

    def await_fit(self, net):
        """Make the estimator, or the pipeline that ends in it, ready for the next of the fits."""
        fit = self.waiting[0]
        if self.pipeline is not None and (fit.result is not None or fit.table is not None):
            self.pipeline.memory = Recorded(fit, self.memory, self.course, self._give_up)
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
            self._give_up(fit)
        if fit.result is None:
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
        if fit.result.error is not None:
            raise fit.result.error
        n_rows = count_rows(X)
        # rows of weight zero are left out of what is trained
        n_trained = fit.spec.rows.n_train
        if n_rows < n_trained:
            raise AssertionError(
                f"a fit of {n_trained} rows was trained, one of {n_rows} was asked for"
            )
        self._install(fit, net)
        return True

    def _give_up(self, fit):
        """Have a fit trained alone: the generators stand elsewhere than in its preparation."""
        self.course.leave()
        if fit.result is not None:
            fit.result = None
            fit.reason = _ELSEWHERE

    def _install(self, fit, net):
        """Make the net the one that was trained, without its parts."""
        curve = fit.result.curve
        for name in BUILT:
            vars(net).pop(name, None)
        vars(net).update(fit.template.attributes)
        net.history_ = _make_history(fit.template.net, curve)
        # the next fit replaces it: a history of the user's own would be emptied
        vars(net)["_own_history"] = net.history_
        self.trained = Trained(fit.template.net, fit.spec, fit.result, fit.test_rows)
        self.is_evaluated = False
        if not isinstance(net, NetworkEstimator):
            self.build_parts(net)
            return
        vars(net)["_hook"] = self
        if "train_loss" not in net.history_[-1]:
            # without skorch's callbacks the history has no losses of epochs
            vars(net)["_curve"] = _make_losses(curve)

    def forget_outputs(self):
        """Let go of the outputs for the test rows, and of the table that these rows stand in."""
        if self.trained is not None:
            self.trained.result.outputs = None
            self.trained = self.trained._replace(test_rows=())

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
                built = _build_parts(net, self.trained)
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
        template, _, result, tested = self.trained
        is_changed = (
            vars(net).keys() & BUILT
            or net.predict_nonlinearity is not template.predict_nonlinearity
        )
        if result.outputs is None or is_changed or type(X) is not np.ndarray:
            return None
        table, rows = tested
        is_alike = X.dtype == table.dtype and len(X) == len(rows)
        if not is_alike or not np.array_equal(X, table[rows]):
            return None
        self.is_evaluated = True
        outputs = [output.clone() for output in result.outputs]
        return template._get_predict_nonlinearity(), outputs


def _make_history(net, curve):
    """Return what skorch's own callbacks would have recorded of a net's epochs, without batches."""
    scored = [name for name, _ in net.callbacks_ if name in _LOWER_IS_BETTER and name in curve]
    columns = ["epoch", "train_batch_count", "valid_batch_count", *scored]
    if any(name in _LOWER_IS_BETTER for name, _ in net.callbacks_):
        columns.append("dur")
    columns = {name: curve[name] for name in columns if name in curve}
    for name in scored:
        columns[f"{name}_best"] = _mark_best(name, curve[name])
    history = History()
    for row in zip(*columns.values(), strict=True):
        history.append({"batches": [], **dict(zip(columns, row, strict=True))})
    return history


def _mark_best(name, scores):
    """Return of each epoch whether its score is better than all before."""
    sign = 1 if _LOWER_IS_BETTER[name] else -1
    best = math.inf
    marks = []
    for score in scores:
        marks.append(sign * score < best)
        best = min(sign * score, best)
    return marks


def _make_losses(curve):
    """Return the losses of each epoch in dicts."""
    columns = {name: curve[name] for name in ("train_loss", "valid_loss") if name in curve}
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _build_parts(net, trained):
    """Return module, criterion, optimizer and the like as a training has left them."""
    template, spec, result, _ = trained
    weights = spec.narrow(result.state.fitted_weights)
    optimizer_state = spec.narrow(result.state.optimizer)
    initial = template.module_
    tensors = (*initial.named_parameters(), *initial.named_buffers())
    # by the ids of those that they take the place of
    learned = {id(tensor): _take_over(tensor, weights[name]) for name, tensor in tensors}
    parts = {"module_": deepcopy(initial, dict(learned))}
    parts["criterion_"] = deepcopy(template.criterion_)
    if spec.narrow_to is not None:
        parts["criterion_"].to(spec.narrow_to)
    parts["callbacks_"] = _build_callbacks(template, result.curve)
    if isinstance(net, NetworkEstimator):
        parts["dropout_"] = _build_masks(template, parts["module_"], spec, result.curve)
    parts["optimizer_"] = _load_optimizer(
        template.optimizer_, learned, spec.optimizer.options, optimizer_state, result.lr
    )
    return parts


def _build_callbacks(template, curve):
    """Return skorch's own callbacks with the best of the scores that they record."""
    callbacks = [(name, deepcopy(callback)) for name, callback in template.callbacks_]
    for name, callback in callbacks:
        if name in _LOWER_IS_BETTER and name in curve:
            best = min if _LOWER_IS_BETTER[name] else max
            callback.best_score_ = best(curve[name])
    return callbacks


def _build_masks(template, module, spec, curve):
    """Return the stream of a module's dropout masks, where the training has left it."""
    stream = copy(template.dropout_)
    stream.epoch = curve["epoch"][-1] - 1
    stream.batch = curve["train_batch_count"][-1] - 1
    for layer, p in zip(dropout_layers(module), spec.dropout, strict=True):
        layer.stream = stream
        layer.p = p
    return stream


def _take_over(tensor, value):
    """Return a copy of a value, of the sort that a module's tensor is."""
    copied = value.clone()
    if isinstance(tensor, nn.Parameter):
        return nn.Parameter(copied, tensor.requires_grad)
    return copied


def _load_optimizer(initialized, trained, options, state, lr):
    """Return a copy of an optimizer of other parameters, by the ids of its own, as a lane's training left it."""
    optimizer = deepcopy(initialized, dict(trained))
    vars(optimizer).update({**vars(initialized), **vars(optimizer)})  # what torch does not copy
    (group,) = optimizer.param_groups
    parameters = group["params"]
    group.clear()
    group.update(options, params=parameters, lr=lr)
    known = {name: value for name, value in options.items() if name in optimizer.defaults}
    optimizer.defaults.update(known)
    state, learned = dict(state), [p for p in group["params"] if p.requires_grad]
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
