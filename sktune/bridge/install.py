"""Handing a trained fit back: the task runs, with its steps fitted and its net trained."""

import math
from copy import copy, deepcopy
from dataclasses import replace
from threading import Lock
from typing import NamedTuple

import numpy as np
from skorch import NeuralNet
from skorch.history import History
from torch import nn

from sktune.bridge.fits import net_of
from sktune.bridge.pipelines import Recorded
from sktune.bridge.skorch_nets import hand_over, why_told
from sktune.bridge.watching.adopting import adopt_history, connect_callbacks
from sktune.engine.specs import FitResult, FitSpec
from sktune.estimators.base import NetworkEstimator
from sktune.estimators.components import BUILT
from sktune.estimators.hook import NO_HOOK, FitHook
from sktune.modules.dropout import dropout_layers
from sktune.runtime.generators import Course
from sktune.runtime.recorded_warnings import repeat_warnings
from sktune.runtime.threads import limited_threads
from sktune.training.optimizer_state import load_state
from sktune.training.rows import count_rows

# The scores that skorch's callbacks record.
_LOWER_IS_BETTER = {
    "train_loss": True,
    "valid_loss": True,
    "valid_acc": False,
}

_DRAWN_BEFORE = (
    "random numbers were drawn before its turn that nobody expected: its own would be others"
)


def hand_out(fits, course=None):
    """Have the estimator of a task adopt, fit by fit, what was trained for it; return the hook.

    Parameters
    ----------
    fits : list of Fit
        In the order in which the task makes them.
    course : Course, default=None
        It sets the random generators to the states in which the preparation of each fit left them.
    """
    course = course or Course(None)
    has_something = any(fit.result is not None or fit.table is not None for fit in fits)
    is_needed = has_something or course.states is not None
    if not is_needed or fits[0].net is None:
        return NO_HOOK
    hook = HandOver(fits, course)
    hook.await_fit(fits[0].net)
    return hook


class Trained(NamedTuple):
    """What was trained for a fit, kept until the parts of the net are built from it.

    It holds no reference to the net, so that the net can be freed early.

    Parameters
    ----------
    template : NeuralNet
        The initialized net that the fit began with.
    callbacks : list or None
        See :class:`~sktune.bridge.fits.Fit`.
    spec : FitSpec
    result : FitResult
    test_rows : tuple of (ndarray, ndarray), or ()
        See :class:`~sktune.bridge.fits.Fit`.
    """

    template: object
    callbacks: list | None
    spec: FitSpec
    result: FitResult
    test_rows: tuple


class HandOver(FitHook):
    """Hands the fits of a task, in their order, to the one net that the task fits.

    After a fused fit the net is fitted, but has no module yet. Most nets of a search are only
    scored, for which the outputs for the test rows suffice; these were computed after the training.
    The parts of the net are built when they are first asked for.

    Parameters
    ----------
    fits : list of Fit
    course : Course
        See :func:`hand_out`.
    """

    def __init__(self, fits, course):
        self.waiting = list(fits)
        self.course = course
        self.pipeline = fits[0].pipeline
        # the pipeline's own memory, for the fits that were not fused
        self.memory = None if self.pipeline is None else self.pipeline.memory
        # a `Trained`, if the parts of the net are not built yet
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
        """Make the net what was trained for a fit; return whether there is anything."""
        if fit.pipeline is None and not self.course.is_kept():
            self._give_up(fit)
        if fit.result is None:
            if fit.table is None:
                self.course.begin(fit)
            else:
                # the recorded steps were returned, and the generators set as after these steps
                self.course.expect(fit.after)
            return False
        if why_told(**fit_params):
            names = ", ".join(sorted(fit_params))
            raise AssertionError(f"a fit was trained without {names}")
        self.course.end(fit.after)
        repeat_warnings(fit.caught)
        if fit.result.error is not None:
            raise fit.result.error
        _check_n_rows(fit, X)
        self._install(fit, net)
        return True

    def _give_up(self, fit):
        """Have a fit trained alone: the generators are not in the states of its preparation."""
        self.course.leave()
        if fit.result is not None:
            fit.result = None
            fit.reason = _DRAWN_BEFORE

    def _install(self, fit, net):
        """Set the attributes of a fitted net, without its parts."""
        curve = fit.result.curve
        for name in BUILT:
            vars(net).pop(name, None)
        vars(net).update(fit.template.attributes)
        if fit.spec.watcher is None:
            history = _make_history(fit.template.net, curve)
        else:
            callbacks = fit.template.net.callbacks_ if fit.callbacks is None else fit.callbacks
            history = adopt_history(callbacks, fit.result.state)
        _set_history(net, history, curve)
        self.trained = Trained(fit.template.net, fit.callbacks, fit.spec, fit.result, fit.test_rows)
        self.is_evaluated = False
        if not isinstance(net, NetworkEstimator):
            self.build_parts(net)
            return
        vars(net)["_hook"] = self

    def forget_outputs(self):
        """Free the outputs for the test rows, and the table of these rows."""
        if self.trained is not None:
            self.trained.result.outputs = None
            self.trained = self.trained._replace(test_rows=())

    def forget_optimizer(self):
        """Free what only training would go on from; the optimizer begins anew when it is built."""
        result = self.trained.result
        # a store may have the state itself
        weights = result.state.fitted_weights
        state = replace(
            result.state, weights=weights, best_weights=None, optimizer=None, generator=None
        )
        self.trained = self.trained._replace(result=replace(result, state=state))

    def has_unbuilt_parts(self):
        """Tell whether the net is fitted, but its module, optimizer and the like are not built."""
        return self.trained is not None

    def build_parts(self, net):
        """Give the net its parts, except for those that the user has set."""
        with self.lock:
            if self.trained is None:
                return
            # copying takes less time than starting more threads
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
        """Return the nonlinearity and the outputs if X holds the test rows; None otherwise."""
        if self.trained is None:
            return None
        template, _, _, result, test_rows = self.trained
        has_new_parts = vars(net).keys() & BUILT
        has_new_nonlinearity = net.predict_nonlinearity is not template.predict_nonlinearity
        if result.outputs is None or has_new_parts or has_new_nonlinearity:
            return None
        if type(X) is not np.ndarray or not _holds_rows(X, *test_rows):
            return None
        self.is_evaluated = True
        outputs = [output.clone() for output in result.outputs]
        return template._get_predict_nonlinearity(), outputs


def forget_optimizer(estimator):
    """Free the memory of the optimizer of a fitted net, or of that in which a pipeline ends.

    The net predicts as before. Training that goes on with it begins with a new optimizer.
    """
    net = net_of(estimator)
    if not isinstance(net, NeuralNet):
        return
    hook = vars(net).get("_hook", NO_HOOK)
    if hook.has_unbuilt_parts():
        hook.forget_optimizer()
    elif hasattr(getattr(net, "optimizer_", None), "state"):
        net.optimizer_.state.clear()


def install_parts(net, spec, result):
    """Make an initialized net of sktune what its training has come to, which it has not done.

    Parameters
    ----------
    net : NetworkEstimator
        It stands where its training would begin.
    spec : FitSpec
    result : FitResult
    """
    with limited_threads(1):
        parts = _build_parts(net, Trained(net, None, spec, result, ()))
    vars(net).update(parts)
    # the type that the parts have been given
    vars(net).pop("_narrow_to", None)
    # an epoch ends with the validation rows, if there are any
    net._set_training(spec.rows.valid is None)
    _set_history(net, _make_history(net, result.curve), result.curve)


def _set_history(net, history, curve):
    """Give a net the history of its training."""
    net.history_ = history
    # the next fit replaces this history, while it would empty one that the user has set
    vars(net)["_own_history"] = net.history_
    if isinstance(net, NetworkEstimator) and "train_loss" not in net.history_[-1]:
        # without skorch's callbacks the history has no losses of epochs
        vars(net)["_curve"] = _make_losses(curve)


def _check_n_rows(fit, X):
    """Check that a task fits as many rows as were trained; rows of weight zero are not trained."""
    n_rows = count_rows(X)
    n_trained = fit.spec.rows.n_train
    if n_rows < n_trained:
        raise AssertionError(
            f"a fit of {n_trained} rows was trained, one of {n_rows} was asked for"
        )


def _holds_rows(X, table, rows):
    """Tell whether X is equal to some rows of a table."""
    if X.dtype != table.dtype or len(X) != len(rows):
        return False
    return np.array_equal(X, table[rows])


def _make_history(net, curve):
    """Return the history that skorch's callbacks would have recorded, without batches."""
    recorded = [name for name, _ in net.callbacks_ if name in _LOWER_IS_BETTER]
    scored = [name for name in recorded if name in curve]
    names = ["epoch", "train_batch_count", "valid_batch_count", *scored]
    if recorded:
        names.append("dur")
    columns = {name: curve[name] for name in names if name in curve}
    for name in scored:
        columns[f"{name}_best"] = _mark_best(name, curve[name])
    history = History()
    for row in zip(*columns.values(), strict=True):
        history.append({"batches": [], **dict(zip(columns, row, strict=True))})
    return history


def _mark_best(name, scores):
    """Return for each epoch whether its score is better than all scores before."""
    sign = 1 if _LOWER_IS_BETTER[name] else -1
    best = math.inf
    marks = []
    for score in scores:
        marks.append(sign * score < best)
        best = min(sign * score, best)
    return marks


def _make_losses(curve):
    """Return a list with a dict of the losses for each epoch."""
    names = [name for name in ("train_loss", "valid_loss") if name in curve]
    rows = zip(*(curve[name] for name in names), strict=True)
    return [dict(zip(names, row, strict=True)) for row in rows]


def _build_parts(net, trained):
    """Return module, criterion, optimizer and the like as they are after the training."""
    template, callbacks, spec, result, _ = trained
    weights = spec.narrow(result.state.fitted_weights)
    optimizer_state = result.state.optimizer
    if optimizer_state is not None:
        optimizer_state = spec.narrow(optimizer_state)
    initial = template.module_
    tensors = (*initial.named_parameters(), *initial.named_buffers())
    # the trained tensors by the ids of the initial ones, which `deepcopy` replaces by them
    learned = {id(tensor): _copy_trained(tensor, weights[name]) for name, tensor in tensors}
    parts = {"module_": deepcopy(initial, dict(learned))}
    parts["criterion_"] = deepcopy(template.criterion_)
    if spec.narrow_to is not None:
        parts["criterion_"].to(spec.narrow_to)
    if callbacks is None:
        # skorch's own, which other fits have in common
        callbacks = [(name, deepcopy(callback)) for name, callback in template.callbacks_]
    if spec.watcher is None:
        _note_best_scores(callbacks, result.curve)
    parts["callbacks_"] = callbacks
    if isinstance(net, NetworkEstimator):
        parts["dropout_"] = _build_masks(template, parts["module_"], spec, result.curve)
    final = {"lr": result.lr}
    if spec.watcher is not None and spec.watcher.sets_rates:
        final = result.state.watcher.options
    parts["optimizer_"] = _load_optimizer(
        template.optimizer_, learned, spec.optimizer.options, optimizer_state, final
    )
    if spec.watcher is not None:
        connect_callbacks(parts["callbacks_"], parts["module_"], parts["optimizer_"])
    return parts


def _note_best_scores(callbacks, curve):
    """Let skorch's callbacks know the best of the scores that they record."""
    for name, callback in callbacks:
        if name in _LOWER_IS_BETTER and name in curve:
            best = min if _LOWER_IS_BETTER[name] else max
            callback.best_score_ = best(curve[name])


def _build_masks(template, module, spec, curve):
    """Return the stream of a module's dropout masks as it is after the training."""
    stream = copy(template.dropout_)
    stream.epoch = curve["epoch"][-1] - 1
    stream.batch = curve["train_batch_count"][-1] - 1
    for layer, p in zip(dropout_layers(module), spec.dropout, strict=True):
        layer.stream = stream
        layer.p = p
    return stream


def _copy_trained(tensor, value):
    """Return a copy of a trained value: a parameter if the module's `tensor` is one."""
    # trained on a device, it has come to this process
    copied = value.to(tensor.device, copy=True)
    if isinstance(tensor, nn.Parameter):
        return nn.Parameter(copied, tensor.requires_grad)
    return copied


def _load_optimizer(initialized, trained, options, state, final):
    """Return an optimizer of the trained parameters, as the training left it.

    Parameters
    ----------
    initialized : torch.optim.Optimizer
        An optimizer of the initial parameters, which has taken no step.
    trained : dict
        The trained parameters by the ids of the initial ones.
    options : dict
        The options of the optimizer's one group.
    state : dict or None
        The optimizer's state, flat, by name; None where it has been forgotten.
    final : dict
        The options that the training has changed, such as the learning rate, as they are now.
    """
    optimizer = deepcopy(initialized, dict(trained))
    # torch leaves attributes out of the copy, such as those of hooks
    vars(optimizer).update({**vars(initialized), **vars(optimizer)})
    (group,) = optimizer.param_groups
    parameters = group["params"]
    group.clear()
    group.update(options, params=parameters)
    group.update(final)
    known = {name: value for name, value in options.items() if name in optimizer.defaults}
    optimizer.defaults.update(known)
    if state is not None:
        load_state(optimizer, state)
    return optimizer
