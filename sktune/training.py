"""One fit: skorch's ladder of training methods, on slices of tensors and with every choice seeded.

This is the plain path, and the reference for every faster one.
"""

from __future__ import annotations

import math
from contextlib import ExitStack
from copy import deepcopy

import numpy as np
import torch
from sklearn.base import is_classifier
from skorch.dataset import Dataset, ValidSplit
from skorch.history import History
from skorch.utils import to_device, to_tensor
from torch.utils.data import DataLoader

from sktune.data import Batches, Rows, evaluation_batch_size, rows_of
from sktune.modules import floating_dtype, has_embedding, serve_dropout
from sktune.names import did_you_mean
from sktune.randomness import FORWARD, INIT, SPLIT, draw_seed, mix, seeded
from sktune.schedules import lr_factors
from sktune.validation import (
    check_component_names,
    check_hyperparameters,
    check_rows,
    constructor_arguments,
    passes_through,
    resolve_device,
)

_FUSED_OPTIMIZERS = (torch.optim.Adam, torch.optim.AdamW, torch.optim.SGD, torch.optim.Adagrad)


class DivergenceError(ArithmeticError):
    """Training has left the finite numbers; there is no model to speak of."""


class Training:
    """What a net does between the table and the fitted weights; mixed into skorch's nets.

    skorch registers modules, criteria and optimizers when they are first set. The names below are known from
    the start, so that the constructor sets nothing but its arguments (`_modules`, `_criteria`, `_optimizers`,
    `_initialize_*` and `_current_init_context` are the private names of skorch that sktune builds on;
    ``tests/test_seams.py`` fails when they move).
    """

    prefixes_ = [
        *("module", "criterion", "optimizer", "lr_schedule"),
        *("iterator_train", "iterator_valid", "callbacks", "dataset", "compile"),
    ]
    cuda_dependent_attributes_ = ["module_", "criterion_", "optimizer_", "dropout_"]
    _modules = ["module"]
    _criteria = ["criterion"]
    _optimizers = ["optimizer"]
    initialized_ = False
    history_ = None
    virtual_params_ = {}

    # --- components -------------------------------------------------------------------------------------------------

    def initialize(self, **sizes):
        """Build module, criterion, optimizer and callbacks anew; draws the seed of the fit.

        Parameters
        ----------
        **sizes
            What the data tell of the module (`n_features`, `dtype`): passed to a module that takes such
            arguments, unless the user gave them.
        """
        check_hyperparameters(self)
        self.device_ = resolve_device(self.device)
        self.seed_ = draw_seed(self.random_state)
        self._sizes = {**sizes, "n_outputs": getattr(self, "n_outputs_", None)}
        return super().initialize()

    def initialize_module(self):
        """Build the module from the seed, its dropout layers served by counter-based masks."""
        with seeded(mix(self.seed_, INIT)):
            self.module_ = self.initialized_instance(self.module, self._module_arguments())
        self.dropout_ = serve_dropout(self.module_, self.seed_)
        return self

    def _module_arguments(self):
        arguments = self.get_params_for("module")
        if isinstance(self.module, torch.nn.Module) and not arguments:
            return {}
        takes = constructor_arguments(self.module if callable(self.module) else type(self.module)) or ()
        found = {name: value for name, value in self._sizes.items() if name in takes and value is not None}
        return {**found, **arguments}

    def initialize_optimizer(self, triggered_directly=None):
        """Build the optimizer, in torch's fused implementation where it has one and nothing else was asked for."""
        args, kwargs = self.get_params_for_optimizer("optimizer", self.get_all_learnable_params())
        if self.optimizer in _FUSED_OPTIMIZERS and not {"fused", "foreach", "differentiable"} & set(kwargs):
            on = {p.device.type for group in args[0] for p in group["params"] if p.is_floating_point()}
            kwargs["fused"] = on <= {"cpu", "cuda", "mps"}
        self.optimizer_ = self.optimizer(*args, **kwargs)
        for group in self.optimizer_.param_groups:
            group.setdefault("initial_lr", group["lr"])
        return self

    def initialize_history(self):
        """Begin a history of its own: an earlier one may be in someone's hands."""
        self.history_ = History()
        return self

    def _initialize_module(self, reason=None):
        with self._current_init_context("module"):
            self.initialize_module()
            self._place(self._modules)
        return self

    def _initialize_criterion(self, reason=None):
        with self._current_init_context("criterion"):
            self.initialize_criterion()
            self._place(self._criteria)
        return self

    def _place(self, names):
        for name in names:
            component = getattr(self, name + "_")
            if isinstance(component, torch.nn.Module):
                component = self.torch_compile(to_device(component, self.device_), name=name)
                setattr(self, name + "_", component)

    # --- data -------------------------------------------------------------------------------------------------------

    def get_dataset(self, X, y=None):
        """Return rows in memory for arrays; skorch's own kinds of input go through as in skorch."""
        if passes_through(X):
            return super().get_dataset(X, y)
        return self._rows(check_rows(self, X, reset=False), y)

    def _rows(self, X, y=None, target=None, weight=None):
        if self.dataset is not Dataset or self.get_params_for("dataset"):
            if weight is not None:
                raise ValueError("sample_weight and class_weight must come without a dataset of your own, got both")
            return super().get_dataset(X, target)
        dtype = floating_dtype(self.module_)
        keeps_integers = X.dtype.kind in "iu" and has_embedding(self.module_)
        return Rows(X, y, target, weight, dtype=dtype, keeps_integers=keeps_integers, device=self.device_)

    def get_split_datasets(self, X, y=None, **fit_params):
        """Split off the rows that early stopping or ``train_split`` validates on, if any."""
        if not self.early_stopping or self.train_split:
            return super().get_split_datasets(X, y, **fit_params)
        dataset = self.get_dataset(X, y)
        y = getattr(dataset, "y", y)
        split = ValidSplit(
            float(self.validation_fraction),
            stratified=is_classifier(self),
            random_state=mix(self.seed_, SPLIT) % 2**32,
        )
        return split(dataset, y)

    def get_iterator(self, dataset, training=False):
        """Return batches of slices for rows in memory, and skorch's iterator for anything else."""
        rows, indices = rows_of(dataset)
        iterator = self.iterator_train if training else self.iterator_valid
        options = self.get_params_for("iterator_train" if training else "iterator_valid")
        if rows is None or iterator is not DataLoader or set(options) - {"batch_size", "shuffle", "drop_last"}:
            if training and iterator is DataLoader and "sampler" not in options and "batch_sampler" not in options:
                shuffles = self.shuffle and not isinstance(dataset, torch.utils.data.IterableDataset)
                options = {"shuffle": shuffles, **options}
            return iterator(dataset, **{"batch_size": self.batch_size, **options})
        if not training:
            batch_size = options.get("batch_size", evaluation_batch_size(rows, self.batch_size))
            return Batches(rows, indices, batch_size)
        return Batches(
            rows,
            indices,
            options.get("batch_size", self.batch_size),
            seed=self.seed_ if options.get("shuffle", self.shuffle) else None,
            drop_last=options.get("drop_last", False),
        )

    # --- the loop ---------------------------------------------------------------------------------------------------

    def fit_loop(self, X, y=None, epochs=None, *, _routing_method="fit", **fit_params):
        """Train for `epochs` (None: ``max_epochs``), from where the history ends."""
        self.check_training_readiness()
        dataset_train, dataset_valid = self.get_split_datasets(X, getattr(X, "y", y), **fit_params)
        datasets = {"dataset_train": dataset_train, "dataset_valid": dataset_valid}
        iterator_train = self.get_iterator(dataset_train, training=True)
        iterator_valid = None if dataset_valid is None else self.get_iterator(dataset_valid, training=False)
        stopping = _EarlyStopping(self) if self.early_stopping else None
        with ExitStack() as own_randomness:
            has_drawn = own_randomness.enter_context(seeded(mix(self.seed_, FORWARD, len(self.history)), self.device_))
            for _ in range(self.max_epochs if epochs is None else epochs):
                self.notify("on_epoch_begin", **datasets)
                self.run_single_epoch(iterator_train, True, "train", self.train_step, **fit_params)
                self.run_single_epoch(iterator_valid, False, "valid", self.validation_step, **fit_params)
                self.notify("on_epoch_end", **datasets)
                if not has_drawn():  # no random numbers of the module's own: let other threads have the generator
                    own_randomness.close()
                    has_drawn = bool
                if stopping and stopping.is_due():
                    break
        if stopping:
            stopping.restore_best()
        self._check_weights()
        return self

    def run_single_epoch(self, iterator, training, prefix, step_fn, **fit_params):
        """Run the batches of one epoch, recording loss and size of each."""
        if iterator is None:
            return
        epoch = len(self.history) - 1
        factors = self._lr_factors(epoch, len(iterator)) if training else None
        n_batches = 0
        for n_batches, batch in enumerate(_epoch_of(iterator, epoch), start=1):
            public = self._public_batch(batch)
            self.notify("on_batch_begin", batch=public, training=training)
            if training:
                self._begin_step(epoch, n_batches - 1, factors)
            step = step_fn(batch, **fit_params)
            loss = step["loss"].item()
            if not math.isfinite(loss):
                raise self._divergence(f"{'training' if training else 'validation'} loss became {loss}")
            self.history.record_batch(prefix + "_loss", loss)
            self.history.record_batch(prefix + "_batch_size", len(public[1]))
            self.notify("on_batch_end", batch=public, training=training, **step)
        self.history.record(prefix + "_batch_count", n_batches)

    def _public_batch(self, batch):
        """Return the batch as skorch's callbacks know it: a pair."""
        return tuple(batch[:2])

    def _lr_factors(self, epoch, n_batches):
        options = self.get_params_for("lr_schedule")
        if self.lr_schedule == "constant" and not options.get("warmup"):
            return None  # the optimizer's rates are whoever's who set them, a scheduler callback's for one
        times = epoch + np.arange(n_batches) / n_batches
        return lr_factors(self.lr_schedule, times, self.max_epochs, **options).tolist()

    def _begin_step(self, epoch, batch, factors):
        self.dropout_.epoch, self.dropout_.batch = epoch, batch
        if factors is not None:
            for group in self.optimizer_.param_groups:
                group["lr"] = group["initial_lr"] * factors[batch]

    def train_step_single(self, batch, **fit_params):
        """Compute a batch's loss and its gradients."""
        self._set_training(True)
        X, target, *weight = batch
        y_pred = self.infer(X, **fit_params)
        loss = self._batch_loss(y_pred, target, X, weight, training=True)
        loss.backward()
        return {"loss": loss, "y_pred": y_pred}

    def validation_step(self, batch, **fit_params):
        """Compute a batch's loss in evaluation mode."""
        self._set_training(False)
        X, target, *weight = batch
        with torch.no_grad():
            y_pred = self.infer(X, **fit_params)
            loss = self._batch_loss(y_pred, target, X, weight, training=False)
        return {"loss": loss, "y_pred": y_pred}

    def _batch_loss(self, y_pred, target, X, weight, training):
        weighted = {"sample_weight": weight[0]} if weight else {}
        return self.get_loss(y_pred, target, X=X, training=training, **weighted)

    def evaluation_step(self, batch, training=False):
        """Compute the module's output for a batch."""
        self.check_is_fitted()
        with torch.set_grad_enabled(training):
            self._set_training(training)
            return self.infer(batch[0] if isinstance(batch, tuple | list) else batch)

    def infer(self, x, **fit_params):
        """Call the module on a batch of its inputs."""
        x = to_tensor(x, device=self.device_)
        if isinstance(x, dict):
            return self.module_(**self._merge_x_and_fit_params(x, fit_params))
        return self.module_(x, **fit_params)

    def get_loss(self, y_pred, y_true, X=None, training=False, sample_weight=None):
        """Return the batch's loss: the criterion's, plus in training the penalties of `l1` and `l2`.

        With weights it is the mean over the rows of weight times loss.
        """
        y_true = to_tensor(y_true, device=self.device_)
        y_pred, y_true = self._match(y_pred, y_true)
        if sample_weight is None:
            loss = self.criterion_(y_pred, y_true)
        else:
            loss = (self._row_losses(y_pred, y_true) * sample_weight).mean()
        return loss + self._penalty() if training and (self.l1 or self.l2) else loss

    def _match(self, y_pred, y_true):
        """Return prediction and target as the criterion wants them; raise if the module does not fit the data."""
        return y_pred, y_true

    def _row_losses(self, y_pred, y_true):
        reduction = getattr(self.criterion_, "reduction", None)
        self.criterion_.reduction = "none"
        try:
            losses = self.criterion_(y_pred, y_true)
        finally:
            self.criterion_.reduction = reduction
        if reduction is None or losses.shape[:1] != y_true.shape[:1]:
            raise ValueError(
                "sample_weight and class_weight must come with a criterion that gives a loss for each row "
                f"when reduction='none', got criterion={type(self.criterion_).__name__}"
            )
        return losses.flatten(1).mean(1) if losses.ndim > 1 else losses  # (B,)

    def _penalty(self):
        """Return l1 * sum |w| + l2 * sum w^2 over the weights: parameters of two dimensions or more."""
        weights = [p for p in self.module_.parameters() if p.ndim > 1 and p.requires_grad]
        penalty = 0.0
        if self.l1:
            penalty = penalty + self.l1 * sum(w.abs().sum() for w in weights)
        if self.l2:
            penalty = penalty + self.l2 * sum(w.square().sum() for w in weights)
        return penalty

    def _check_weights(self):
        for name, tensor in self.module_.state_dict().items():
            if tensor.is_floating_point() and not torch.isfinite(tensor).all():
                raise self._divergence(f"{name} is no longer finite")

    def _divergence(self, what):
        rates = ", ".join(f"{group['lr']:.3g}" for group in self.optimizer_.param_groups)
        return DivergenceError(
            f"training must stay finite, but in epoch {len(self.history)} at lr={rates} the {what}: "
            "try a smaller lr, features scaled to unit variance, or gradient clipping"
        )

    # --- parameters and persistence ---------------------------------------------------------------------------------

    def set_params(self, **params):
        """Set hyperparameters, as in skorch; an unknown name raises and shows the nearest known one."""
        known = self.get_params()
        for name in params:
            if "__" not in name and name not in known:
                raise ValueError(f"{type(self).__name__} has no parameter {name!r}{did_you_mean(name, known)}")
        if "callbacks" in params:  # checked in fit, like any other parameter
            params = dict(params)
            self.callbacks = params.pop("callbacks")
            if self.initialized_:
                self._initialize_callbacks()
        super().set_params(**params)
        check_component_names(self, params)
        return self

    def load_params(self, *args, **kwargs):
        """Load what :meth:`save_params` saved, as in skorch."""
        device, self.device = self.device, str(self.device_)
        try:
            return super().load_params(*args, **kwargs)
        finally:
            self.device = device

    def __setstate__(self, state):
        device = state["device"]
        is_auto = isinstance(device, str) and device == "auto"
        super().__setstate__({**state, "device": str(resolve_device("auto")) if is_auto else device})
        if "device_" in vars(self):
            self.device_ = resolve_device(self.device)
        if is_auto:
            self.device = device


def _epoch_of(iterator, epoch):
    return iterator.epoch(epoch) if isinstance(iterator, Batches) else iterator


class _EarlyStopping:
    """Stop when the validation loss has not fallen by `tol` for `n_iter_no_change` epochs; keep the best weights."""

    def __init__(self, net):
        self.net = net
        self.best = math.inf
        self.n_misses = 0
        self.best_weights = None

    def is_due(self):
        loss = self.net.history[-1, "valid_loss"]
        self.n_misses = self.n_misses + 1 if loss > self.best - self.net.tol else 0
        if loss < self.best:
            self.best = loss
            self.best_weights = deepcopy(self.net.module_.state_dict())
        return self.n_misses >= self.net.n_iter_no_change

    def restore_best(self):
        if self.best_weights is not None:
            self.net.module_.load_state_dict(self.best_weights)
