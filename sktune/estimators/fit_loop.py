"""One fit: skorch's training methods on slices of tensors, with every random choice seeded.

This is the reference path: a fused fit gives what the methods here give.
"""

import operator
from contextlib import nullcontext
from copy import deepcopy
from operator import length_hint

import numpy as np
import torch
from sklearn import get_config
from sklearn.utils.metadata_routing import process_routing
from skorch import NeuralNetRegressor

from sktune.checks.advice import naming_validation_rows, notice_outputs
from sktune.engine.compiled.blocks import find_augmentation_blocker
from sktune.engine.compiled.module_steps import train_module
from sktune.engine.compiled.program import find_program
from sktune.engine.compiled.reading.keeping import Kept
from sktune.engine.specs import LossSpec
from sktune.engine.steps.recording.alone import find_lone_steps
from sktune.estimators.callbacks.tasks import NO_TASKS
from sktune.estimators.components import Components
from sktune.estimators.datasets import Datasets, count_rows_of_batch, is_read
from sktune.estimators.hook import NO_HOOK, find_surrounding
from sktune.estimators.overrides import (
    find_clips,
    find_override,
    hears_batches,
    hears_gradients,
    list_own_clips,
)
from sktune.modules.dropout import dropout_layers
from sktune.modules.function_masks import FunctionMasks, calls_dropout
from sktune.modules.reading import is_watched
from sktune.modules.snapshots import Snapshot
from sktune.modules.work import few_threads
from sktune.runtime.seeds import FORWARD, mix, seeded
from sktune.training.batches import Batches
from sktune.training.divergence import DivergenceError, find_infinite, is_representable
from sktune.training.gradients.clipping import clip_gradients
from sktune.training.losses import match_nothing
from sktune.training.optimizer_state import has_one_count
from sktune.training.penalties import compute_penalty
from sktune.training.rates import LRSchedule, scale_rates
from sktune.training.rows import Mixed, Weighted, public_dataset, restore_row, split_target
from sktune.training.stopping import BestEpoch


class Training(Components, Datasets):
    """Train a net on a dataset; mixed into skorch's nets.

    `_set_training` is a private name of skorch: ``tests/estimators/test_skorch_seams.py`` and
    ``tests/estimators/test_listeners.py`` fail when it moves.
    """

    # what scikit-learn's callbacks hear of the fit
    _tasks = NO_TASKS
    _schedule_start = 0
    _schedule_epochs = None

    def fit_loop(self, X, y=None, epochs=None, *, _routing_method="fit", **fit_params):
        """Train for `epochs` (None: ``max_epochs``), from where the history ends."""
        if self._hook.replace_training(self, X, epochs, fit_params):
            return self
        is_whole = self._hook is NO_HOOK and _routing_method == "fit"
        if is_whole and find_surrounding().replace_training(self, X, epochs, fit_params):
            return self
        self.check_training_readiness()
        if getattr(self, "optimizer_", None) is not None:
            # A schedule may have been set since the optimizer was built.
            self._keep_base_rates()
        split_params = self._route(_routing_method, fit_params)
        y = getattr(X, "y", y) if is_read(X) else y
        train, valid = self.get_split_datasets(X, y, **split_params)
        shown = {"dataset_train": public_dataset(train), "dataset_valid": public_dataset(valid)}
        iterator_train = self.get_iterator(train, training=True)
        iterator_valid = None if valid is None else self.get_iterator(valid, training=False)
        stopping = BestEpoch.of(self, iterator_valid is not None)
        self._plan_schedule(len(self.history), epochs)
        best_weights = {}
        draws = True
        n_epochs = self.max_epochs if epochs is None else epochs
        self._tasks.begin(n_epochs)
        try:
            for _ in range(n_epochs):
                self._tasks.begin_epoch()
                draws = self._run_epoch(iterator_train, iterator_valid, shown, draws, fit_params)
                is_due = stopping and self._is_due(stopping, best_weights)
                if self._tasks.end_epoch(self._copy_fitted) or is_due:
                    break
        finally:
            # Also when a callback stops the fit by a KeyboardInterrupt.
            for name, weights in best_weights.items():
                getattr(self, name).load_state_dict(weights)
            vars(self).pop("_lone_steps", None)
            vars(self).pop("_kept", None)
            self._narrow()
        self._check_weights()
        return self

    def _route(self, method, params):
        """Return those of a fit's parameters that the validation split takes.

        With metadata routing enabled, parameters that nobody has requested are refused.
        """
        if not params or not get_config()["enable_metadata_routing"]:
            return params
        routed = process_routing(self, method, **params)
        return routed.get("splitter", {"split": {}})["split"]

    def _run_epoch(self, iterator_train, iterator_valid, shown, is_seeded, fit_params):
        """Train and validate for an epoch; return whether the module drew random numbers.

        While it draws none, the global generators are left to other threads: they are seeded
        only if `is_seeded`. `shown` are the datasets that callbacks see.
        """
        generators = nullcontext(bool)
        if is_seeded:
            generators = seeded(mix(self.seed_, FORWARD, len(self.history)), self.device_)
        threads = few_threads(self._whole_module(), *_measure_batches(iterator_train))
        with threads, generators as has_drawn:
            self.notify("on_epoch_begin", **shown)
            self.run_single_epoch(iterator_train, True, "train", self.train_step, **fit_params)
            self.run_single_epoch(
                iterator_valid, False, "valid", self.validation_step, **fit_params
            )
            with naming_validation_rows(are_missing=iterator_valid is None):
                self.notify("on_epoch_end", **shown)
            return has_drawn()

    def _is_due(self, stopping, best_weights):
        """Return whether early stopping ends the fit; keep the weights of the best epoch so far."""
        is_best, is_due = stopping.update(self._last_loss(stopping.monitor))
        if is_best and stopping.restores:
            best_weights.update(
                {name: deepcopy(part.state_dict()) for name, part in self._components()}
            )
        return is_due

    def _last_loss(self, name):
        """Return the mean loss of the last epoch over its rows.

        It is computed from the batches: a callback that records it may be missing.
        """
        size = name.replace("_loss", "_batch_size")
        losses, sizes = zip(*self.history[-1, "batches", :, (name, size)], strict=True)
        return float(np.average(losses, weights=sizes))

    def run_single_epoch(self, iterator, training, prefix, step_fn, **fit_params):
        """Run the batches of one epoch, recording loss and size of each."""
        if iterator is None:
            return
        # skorch's own method sets every layer, by the module's own `train` if it has one.
        super()._set_training(training)
        epoch = len(self.history) - 1
        factors = None
        if training:
            # A stream of rows does not tell its length: 1 changes its rate between epochs only.
            factors = self._lr_factors(epoch, length_hint(iterator, 1))
        is_heard = hears_batches(self, training)
        is_quiet = training and not is_heard and not fit_params
        if is_quiet and self._run_at_once(iterator, epoch, factors):
            return
        # `record_batch` would look up the list of batches for every number.
        records = self.history[-1, "batches"]
        batches = self._open_batches(iterator, epoch, training)
        masks = nullcontext()
        if training and calls_dropout(self._whole_module()):
            masks = FunctionMasks(self.dropout_)
        n_batches = 0
        for n_batches, batch in enumerate(batches, start=1):
            public = self._public_batch(batch) if is_heard else batch
            self.notify("on_batch_begin", batch=public, training=training)
            if training:
                self._begin_step(epoch, n_batches - 1, factors)
            with masks:
                step = step_fn(batch, **fit_params)
            is_first = training and epoch == 0 and n_batches == 1
            if is_first and type(self).get_loss is Training.get_loss:
                notice_outputs(self, step.get("y_pred"))
            loss = step["loss"].item()
            self._check_loss(loss, training)
            n_rows = count_rows_of_batch(batch)
            records[-1].update({prefix + "_loss": loss, prefix + "_batch_size": n_rows})
            self.notify("on_batch_end", batch=public, training=training, **step)
        if training and not n_batches:
            raise ValueError(
                "an epoch must have at least one batch to train on, got none: with drop_last=True "
                "the rows must fill a batch"
            )
        self.history.record(prefix + "_batch_count", n_batches)

    def _open_batches(self, iterator, epoch, training):
        """Return the batches of an epoch; those of a training are augmented."""
        if isinstance(iterator, Batches):
            return iterator.pairs(epoch)
        has_augmentation = training and self._open_augmenter() is not None
        return self._augment_batches(iterator, epoch) if has_augmentation else iterator

    def _run_at_once(self, batches, epoch, factors):
        """Run the batches of a training epoch in one go, if they can be; return whether they were.

        A processor runs compiled steps, and a GPU recorded ones.
        """
        if not self._takes_usual_steps():
            return False
        if self.device_.type == "cuda":
            return self._run_recorded(batches, epoch, factors)
        program = self._find_program(batches)
        if program is None:
            return False
        rates = scale_rates(self.optimizer_.param_groups[0], factors, len(batches))
        layers = dropout_layers(self.module_)
        numbers = self.seed_, [layer.p for layer in layers], (self.l1, self.l2), find_clips(self)
        losses = train_module(
            program, self.module_, self.optimizer_, batches, epoch, rates, *numbers
        )
        self._note_steps(losses, batches, epoch, factors, program.dropout_calls)
        return True

    def _takes_usual_steps(self):
        """Tell whether a training step is what sktune takes for one.

        It is not where a method is overridden, a hook is set, or the optimizer has other
        parameters.
        """
        if find_override(self) or not all(part.training for part in self._whole_module().modules()):
            return False
        are_usual = (self._modules, self._criteria, self._optimizers) == (
            ["module"],
            ["criterion"],
            ["optimizer"],
        )
        if not are_usual or not isinstance(self.optimizer_, torch.optim.Optimizer):
            return False
        optimizer, parameters = self.optimizer_, [id(p) for p in self.module_.parameters()]
        is_heard = is_watched(optimizer) or hears_gradients(self)
        group, *others = optimizer.param_groups
        if is_heard or others or find_clips(self) is None:
            return False
        return [id(p) for p in group["params"]] == parameters

    def _find_program(self, batches):
        """Return what trains this net by compiled steps, or None."""
        optimizer = self.optimizer_
        (group,) = optimizer.param_groups
        # until the call of `fit` ends
        kept = vars(self).setdefault("_kept", Kept())
        program = find_program(
            self.module_,
            self.criterion_,
            self._match_rule,
            type(optimizer),
            group,
            batches,
            kept,
            has_penalties=bool(self.l1 or self.l2),
        )
        if isinstance(program, str):
            # the reason why the kernels cannot train it
            return None
        if not has_one_count(optimizer, program.list_learned(self.module_, group["params"])):
            return None
        augmenter = batches.augmenter
        if augmenter is not None and find_augmentation_blocker(augmenter, program):
            return None
        n_outputs = getattr(self, "n_outputs_", program.n_outputs)
        return program if program.n_outputs == n_outputs else None

    def _run_recorded(self, batches, epoch, factors):
        """Run the batches of a training epoch from a recording; return whether there is any."""
        steps = self._find_lone_steps(batches)
        if isinstance(steps, str):
            return False
        rates = scale_rates(self.optimizer_.param_groups[0], factors, len(batches))
        losses = steps.run_epoch(epoch, rates)
        if losses is None:
            return False
        self._note_steps(losses, batches, epoch, factors, steps.dropout_calls)
        return True

    def _find_lone_steps(self, batches):
        """Return what trains this net by recorded steps, or the reason why nothing does.

        It is looked for once in a call of ``fit``, and again where a part of the net is replaced or
        an attribute of the module has changed.
        """
        if not isinstance(batches, Batches):
            return "its rows come from an iterator of the user's"
        parts = (self.module_, self.optimizer_, self.criterion_, batches)
        dropout = tuple(layer.p for layer in dropout_layers(self.module_))
        (group,) = self.optimizer_.param_groups
        options = {n: v for n, v in group.items() if n not in ("params", "lr", "initial_lr")}
        clips = find_clips(self)
        settings = (self.l1, self.l2, clips, self.seed_, dropout, str(options))
        known, found, snapshot, steps = vars(self).get("_lone_steps", (None,) * 4)
        is_known = known is not None and all(map(operator.is_, known, parts)) and found == settings
        # what was recorded holds the numbers that the module had then, such as rates of functions
        if not is_known or (snapshot is not None and not snapshot.is_of(self.module_)):
            steps = find_lone_steps(
                self.module_,
                self.optimizer_,
                LossSpec(self.criterion_, self._match_rule, self._known_classes()),
                self._schedule(),
                batches,
                batch_size=batches.sizes[0] if batches.sizes else 1,
                dropout=dropout,
                l1=float(self.l1),
                l2=float(self.l2),
                clips=clips,
                n_epochs=self.max_epochs
                if self._schedule_epochs is None
                else self._schedule_epochs,
                seed=self.seed_,
                n_outputs=getattr(self, "n_outputs_", None),
            )
            snapshot = None if isinstance(steps, str) else Snapshot(self.module_)
            vars(self)["_lone_steps"] = (parts, settings, snapshot, steps)
        return steps

    def _note_steps(self, losses, batches, epoch, factors, dropout_calls):
        """Record what :meth:`run_single_epoch` would have recorded of steps that were taken."""
        layers = dropout_layers(self.module_)
        self._begin_step(epoch, len(losses) - 1, factors)
        for index in dropout_calls:
            layers[index].count_call((epoch, len(losses) - 1))
        for loss, size in zip(losses, batches.sizes, strict=False):
            self.history.new_batch()
            self._check_loss(loss, training=True)
            self.history[-1]["batches"][-1].update({"train_loss": loss, "train_batch_size": size})
        self.history.record("train_batch_count", len(losses))

    def notify(self, method_name, **arguments):
        """Tell callbacks of an event, as in skorch; they hear of gradients that are clipped."""
        if method_name == "on_grad_computed":
            clips = list_own_clips(self)
            if clips:
                clip_gradients((p for _, p in self.get_all_learnable_params()), clips)
        super().notify(method_name, **arguments)

    def _public_batch(self, batch):
        """Return the batch as skorch's callbacks know it: without the rows' weights."""
        is_pair = isinstance(batch, tuple | list) and len(batch) == 2
        if is_pair and isinstance(batch[1], Weighted | Mixed):
            return batch[0], batch[1].target
        return batch

    def _set_training(self, training=True):
        """Set the mode of the modules if it is another.

        Setting it visits all layers, which takes as long as computing a small layer.
        """
        if any(getattr(self, name + "_").training != training for name in self._modules):
            super()._set_training(training)

    def _plan_schedule(self, first_epoch, epochs):
        """Let the learning-rate schedule begin anew, as it does in each call of ``fit``.

        Parameters
        ----------
        first_epoch : int
            The epoch of the history at which it begins.
        epochs : int or None
            How many epochs the call trains for; None is ``max_epochs``.
        """
        self._schedule_start = first_epoch
        self._schedule_epochs = epochs

    def _lr_factors(self, epoch, n_batches):
        """Return the factors on the learning rate of an epoch's batches; None if it is constant.

        `epoch` counts from 0 over the whole history.
        """
        return self._schedule().factors(epoch, n_batches)

    def _schedule(self):
        """Return the learning-rate schedule of the current call of ``fit`` or ``partial_fit``."""
        planned = self.max_epochs if self._schedule_epochs is None else self._schedule_epochs
        params = self.get_params_for("lr_schedule")
        return LRSchedule(self.lr_schedule, planned, params, self._schedule_start)

    def _begin_step(self, epoch, batch, factors):
        """Choose the dropout masks and the learning rate of a training step."""
        self.dropout_.epoch, self.dropout_.batch = epoch, batch
        if factors is not None:
            # A stream of rows has one factor for all the steps of an epoch.
            factor = factors[min(batch, len(factors) - 1)]
            for group in self.optimizer_.param_groups:
                group["lr"] = group["initial_lr"] * factor

    def get_loss(self, y_pred, y_true, X=None, training=False):
        """Return the loss of a batch; in training the penalties of `l1` and `l2` are added.

        For targets with weights it is the mean over the rows of weight times loss. Where rows have
        two targets, it is the sum of the losses for both.
        """
        loss, *others = (self._loss_for(y_pred, *pair) for pair in split_target(y_true))
        for other in others:
            loss = loss + other
        if training and (self.l1 or self.l2):
            return loss + self._penalty()
        return loss

    def _loss_for(self, y_pred, y_true, weight):
        """Return the mean loss of a batch for one target of each row."""
        y_true = self._on_device(y_true)
        if isinstance(y_true, torch.Tensor) and y_true.ndim:
            y_pred = restore_row(y_pred, len(y_true))
        y_pred, y_true = self._match(y_pred, y_true)
        return self._mean_loss(y_pred, y_true, weight)

    # How outputs and targets are brought together: a function of sktune.training.losses.
    _match_rule = staticmethod(match_nothing)

    def _known_classes(self):
        """Return how many classes the outputs must tell apart; None if that is not known."""
        return None

    def _match(self, y_pred, y_true):
        """Return outputs and targets as the criterion compares them; raise if they do not fit."""
        criterion = self._plain_criterion()
        return self._match_rule(criterion, y_pred, y_true, self._known_classes())

    def _plain_criterion(self):
        """Return the criterion, and of a compiled one the module that was compiled."""
        return getattr(self.criterion_, "_orig_mod", self.criterion_)

    def _mean_loss(self, y_pred, y_true, weight):
        """Return the criterion's loss; with weights, the mean over rows of weight times loss."""
        if weight is None:
            return self.criterion_(y_pred, y_true)
        criterion = self._plain_criterion()
        reduction = getattr(criterion, "reduction", None)
        criterion.reduction = "none"
        try:
            losses = criterion(y_pred, y_true)
        finally:
            criterion.reduction = reduction
        if reduction is None or losses.shape[:1] != y_true.shape[:1]:
            raise ValueError(
                "sample_weight and class_weight must come with a criterion that gives a loss for "
                f"each row when reduction='none', got criterion={type(criterion).__name__}"
            )
        ignored = getattr(criterion, "ignore_index", None)
        if ignored is not None and (y_true == ignored).any():
            # As without weights, the mean is over the targets that the criterion does not ignore.
            sums = losses.flatten(1).sum(1) if losses.ndim > 1 else losses
            return (sums * weight).sum() / (y_true != ignored).sum()
        means = losses.flatten(1).mean(1) if losses.ndim > 1 else losses
        return (means * weight).mean()

    def _penalty(self):
        """Return the penalty of `l1` and `l2` on the module's weights."""
        return compute_penalty(self._whole_module().parameters(), self.l1, self.l2)

    def _check_loss(self, loss, training):
        """Raise if a loss is no finite number in the dtype that the net has after the fit."""
        if not is_representable(loss, vars(self).get("_narrow_to")):
            kind = "training" if training else "validation"
            raise self._divergence(f"{kind} loss became {loss}")

    def _check_weights(self):
        """Raise if a weight of a component is not finite."""
        for _, part in self._components():
            name = find_infinite(part.state_dict().items())
            if name is not None:
                raise self._divergence(f"{name} is no longer finite")

    def _divergence(self, what):
        """Return the error for a training that left the finite numbers."""
        rates = [group["lr"] for group in self.optimizer_.param_groups]
        is_regressor = isinstance(self, NeuralNetRegressor)
        return DivergenceError.at(len(self.history), rates, what, is_regressor)


def _measure_batches(iterator):
    """Return how many rows the largest batch of an iterator has, and the shape of a row.

    They are 1 and () where they are not known.
    """
    if isinstance(iterator, Batches):
        return max(iterator.sizes, default=1), getattr(iterator.rows.X, "shape", (1,))[1:]
    return getattr(iterator, "batch_size", None) or 1, ()
