"""One fit: skorch's ladder of training methods, on slices of tensors and with every choice seeded.

This is the plain path, and the reference for every faster one.
"""

import inspect
import math
from contextlib import contextmanager, nullcontext
from copy import deepcopy
from operator import length_hint
from typing import NamedTuple

import numpy as np
import torch
from sklearn.base import is_classifier
from skorch.dataset import Dataset, ValidSplit, get_len
from skorch.utils import to_tensor
from torch.utils.data import DataLoader, IterableDataset

from sktune import modules, validation
from sktune.compiled import find_program, has_one_count, train_module
from sktune.data import Batches, Rows, convert_table, evaluation_batch_size, rows_of
from sktune.listeners import QuietLog, hears_batches
from sktune.randomness import FORWARD, INIT, SPLIT, draw_seed, mix, seeded
from sktune.schedules import lr_factors

_FUSED_OPTIMIZERS = (torch.optim.Adam, torch.optim.AdamW, torch.optim.SGD, torch.optim.Adagrad)
# Components that are looked up when they are needed: to set them changes nothing else.
_LOOKED_UP = ("lr_schedule", "iterator_train", "iterator_valid", "dataset")

# What a subclass may change, for it runs as it would: before the training, or after it.
_FREE = {"initialize_module", "initialize_criterion", "check_data", "prefixes_", "classes_", "get_params"}
_FREE |= {"predict", "predict_proba", "score", "forward", "forward_iter", "evaluation_step"}

BUILT = ("module_", "criterion_", "optimizer_", "callbacks_", "dropout_")  # what a net of a search builds when asked


class DivergenceError(ArithmeticError):
    """Training has left the finite numbers; there is no model to speak of."""

    @classmethod
    def at(cls, epoch, rates, what):
        """Say in which epoch (from 1) and at which learning rates it happened, and what to try."""
        return cls(
            f"training must stay finite, but in epoch {epoch} at lr={', '.join(f'{lr:.3g}' for lr in rates)} the "
            f"{what}: try a smaller lr, features scaled to unit variance, or gradient clipping"
        )


class Weighted(NamedTuple):
    """What ``get_loss`` takes for targets where the rows are weighted."""

    target: torch.Tensor
    weight: torch.Tensor


class Training:
    """What a net does between the table and the fitted weights; mixed into skorch's nets.

    skorch registers modules, criteria and optimizers when they are first set. The names below are known from
    the start, so that the constructor sets nothing but its arguments. `_modules`, `_criteria`, `_optimizers`,
    `_initialize_*`, `_default_callbacks` and `_set_training` are the private names of skorch that sktune builds on:
    ``tests/test_seams.py`` and ``tests/test_listeners.py`` fail when they move.
    """

    prefixes_ = ["module", "criterion", "optimizer", *_LOOKED_UP, "callbacks", "compile"]
    cuda_dependent_attributes_ = ["module_", "criterion_", "optimizer_", "dropout_"]
    _modules = ["module"]
    _criteria = ["criterion"]
    _optimizers = ["optimizer"]
    initialized_ = False
    history_ = None
    virtual_params_ = {}

    @property
    def _default_callbacks(self):
        return [(name, QuietLog() if name == "print_log" else c) for name, c in super()._default_callbacks]

    def initialize(self, **sizes):
        """Build module, criterion, optimizer and callbacks anew; draws the seed of the fit.

        `sizes` are what the data tell of the module (`n_features`, `dtype`): passed to one that takes such arguments.
        """
        validation.check_hyperparameters(self)
        self.history_ = None  # a new one: that of an earlier fit may be in someone's hands
        self.device_ = validation.resolve_device(self.device)
        self.seed_ = draw_seed(self.random_state)
        self._sizes = {**sizes, "n_outputs": getattr(self, "n_outputs_", None)}
        return super().initialize()

    def _initialize_module(self, reason=None):
        with self._resolved_device(), seeded(mix(self.seed_, INIT)):
            return super()._initialize_module(reason)

    def _initialize_criterion(self, reason=None):
        with self._resolved_device(), seeded(mix(self.seed_, INIT, 1)):
            return super()._initialize_criterion(reason)

    @contextmanager
    def _resolved_device(self):
        """Let skorch see the device that ``"auto"`` means."""
        device, self.device = self.device, str(getattr(self, "device_", None) or validation.resolve_device(self.device))
        try:
            yield
        finally:
            self.device = device

    def initialize_module(self):
        """Build the module (of an instance, a copy), its dropout layers served by counter-based masks."""
        arguments, is_instance = self.get_params_for("module"), isinstance(self.module, torch.nn.Module)
        if is_instance and not arguments:
            self.module_ = deepcopy(self.module)
        else:
            kind = type(self.module) if is_instance else self.module
            takes = validation.constructor_arguments(kind, extra=False) or ()
            found = {name: value for name, value in self._sizes.items() if name in takes and value is not None}
            if "dtype" in found and inspect.signature(kind).parameters["dtype"].default is not None:
                del found["dtype"]  # the module has one in mind
            self.module_ = kind(**{**found, **arguments})
        self.dropout_ = modules.serve_dropout(self.module_, self.seed_)
        return self

    def initialize_optimizer(self, triggered_directly=None):
        """Build the optimizer, in torch's fused implementation where it has one and nothing else was asked for."""
        args, kwargs = self.get_params_for_optimizer("optimizer", self.get_all_learnable_params())
        if self.optimizer in _FUSED_OPTIMIZERS and not {"fused", "foreach", "differentiable"} & set(kwargs):
            on = {p.device.type for group in args[0] for p in group["params"] if p.is_floating_point()}
            has_sparse_gradients = any(getattr(layer, "sparse", False) for layer in self.module_.modules())
            fuses = {"cpu"} if self.optimizer is torch.optim.Adagrad else {"cpu", "cuda", "mps"}
            kwargs["fused"] = on <= fuses and not has_sparse_gradients
        self.optimizer_ = self.optimizer(*args, **kwargs)
        for group in self.optimizer_.param_groups:
            group.setdefault("initial_lr", group["lr"])
        return self

    def get_dataset(self, X, y=None):
        """Return rows in memory for arrays; skorch's own kinds of input go through as in skorch."""
        if validation.passes_through(X):
            return super().get_dataset(X, y)
        if y is None:
            return self._rows(validation.check_rows(self, X, reset=False))
        X, y = validation.check_rows(self, X, y, reset=False, y_numeric=not is_classifier(self))
        return self._rows(X, y, self._read_targets(X, y, anew=False))

    def _rows(self, X, y=None, target=None, weight=None):
        if self.dataset is not Dataset or self.get_params_for("dataset"):
            if weight is not None:
                raise ValueError("sample_weight and class_weight must come without a dataset of your own, got both")
            return super().get_dataset(X, target)
        return Rows(self._table(X), y, target, weight, dtype=modules.floating_dtype(self.module_), device=self.device_)

    def _table(self, X):
        """Return a checked table as the module takes it."""
        dtype = torch.int64 if modules.keeps_integers(X, self.module_) else modules.floating_dtype(self.module_)
        return convert_table(X, dtype, self.device_)

    def get_split_datasets(self, X, y=None, **fit_params):
        """Split off the rows that early stopping or ``train_split`` validates on, if any."""
        if not self.early_stopping or self.train_split:
            return super().get_split_datasets(X, y, **fit_params)
        dataset, seed = self.get_dataset(X, y), mix(self.seed_, SPLIT) % 2**32
        split = ValidSplit(float(self.validation_fraction), stratified=is_classifier(self), random_state=seed)
        return split(dataset, getattr(dataset, "y", y))

    def get_iterator(self, dataset, training=False):
        """Return batches of slices for rows in memory, and skorch's iterator for anything else."""
        kind = "iterator_train" if training else "iterator_valid"
        iterator, options = getattr(self, kind), self.get_params_for(kind)
        rows, indices = rows_of(dataset)
        if rows is None or iterator is not DataLoader or options.keys() - {"batch_size", "shuffle", "drop_last"}:
            is_ordered = isinstance(dataset, IterableDataset) or {"sampler", "batch_sampler"} & options.keys()
            if training and iterator is DataLoader and not is_ordered:
                options.setdefault("shuffle", self.shuffle)
            return iterator(dataset, **{"batch_size": int(self.batch_size), **options})
        batch_size = self.batch_size if training else evaluation_batch_size(rows, self.batch_size)
        seed = self.seed_ if training and options.get("shuffle", self.shuffle) else None
        drop_last = training and options.get("drop_last", False)
        return Batches(rows, indices, options.get("batch_size", batch_size), seed=seed, drop_last=drop_last)

    def fit_loop(self, X, y=None, epochs=None, *, _routing_method="fit", **fit_params):
        """Train for `epochs` (None: ``max_epochs``), from where the history ends."""
        if stand_in := vars(self).get("_stand_in"):  # the fused engine collects fits, and hands trained ones back
            stand_in(X, y=y, epochs=epochs, **fit_params)
            return self
        self.check_training_readiness()
        dataset_train, dataset_valid = self.get_split_datasets(X, getattr(X, "y", y), **fit_params)
        datasets = {"dataset_train": dataset_train, "dataset_valid": dataset_valid}
        iterator_train = self.get_iterator(dataset_train, training=True)
        iterator_valid = None if dataset_valid is None else self.get_iterator(dataset_valid, training=False)
        stopping = BestEpoch(self) if self.early_stopping and iterator_valid is not None else None
        best_weights, draws = {}, True
        try:
            for _ in range(self.max_epochs if epochs is None else epochs):
                # a module that drew no random numbers of its own in an epoch leaves the generators to other threads
                seed = mix(self.seed_, FORWARD, len(self.history))
                generators = seeded(seed, self.device_) if draws else nullcontext(bool)
                with modules.few_threads(self.module_, self.batch_size), generators as has_drawn:
                    self.notify("on_epoch_begin", **datasets)
                    self.run_single_epoch(iterator_train, True, "train", self.train_step, **fit_params)
                    self.run_single_epoch(iterator_valid, False, "valid", self.validation_step, **fit_params)
                    self.notify("on_epoch_end", **datasets)
                    draws = has_drawn()
                is_best, is_due = stopping.update(self._valid_loss()) if stopping else (False, False)
                if is_best:
                    best_weights = {name: deepcopy(c.state_dict()) for name, c in self._components()}
                if is_due:
                    break
        finally:  # a callback stops a fit by KeyboardInterrupt
            for name, weights in best_weights.items():
                getattr(self, name).load_state_dict(weights)
        self._check_weights()
        return self

    def _valid_loss(self):
        """Return the mean validation loss of the last epoch, whether or not a callback has recorded it."""
        losses, sizes = zip(*self.history[-1, "batches", :, ("valid_loss", "valid_batch_size")], strict=True)
        return float(np.average(losses, weights=sizes))

    def _components(self):
        """Return the names and modules of all that holds weights."""
        names = [name + "_" for name in self._modules + self._criteria]
        return [(name, c) for name in names if isinstance(c := getattr(self, name), torch.nn.Module)]

    def run_single_epoch(self, iterator, training, prefix, step_fn, **fit_params):
        """Run the batches of one epoch, recording loss and size of each."""
        if iterator is None:
            return
        super()._set_training(training)  # each layer, through a `train` of the module's own if it has one
        epoch = len(self.history) - 1
        # 1 is for a stream of rows: its rate changes between epochs only
        factors = self._lr_factors(epoch, length_hint(iterator, 1)) if training else None
        batches = self.history[-1, "batches"]  # what record_batch would look up for every number
        is_heard = hears_batches(self, training)
        program = self._find_program(iterator) if training and not (is_heard or fit_params) else None
        if program is not None:
            self._run_compiled(program, iterator, epoch, factors)
            return
        n_batches = 0
        iterator = iterator.epoch(epoch) if isinstance(iterator, Batches) else iterator
        for n_batches, batch in enumerate(iterator, start=1):
            public = self._public_batch(batch) if is_heard else batch
            if isinstance(batch, tuple | list) and len(batch) == 3:
                batch = batch[0], Weighted(*batch[1:])
            self.notify("on_batch_begin", batch=public, training=training)
            if training:
                self._begin_step(epoch, n_batches - 1, factors)
            step = step_fn(batch, **fit_params)
            loss = step["loss"].item()
            if not math.isfinite(loss):
                raise self._divergence(f"{'training' if training else 'validation'} loss became {loss}")
            batches[-1].update({prefix + "_loss": loss, prefix + "_batch_size": _n_rows(batch)})
            self.notify("on_batch_end", batch=public, training=training, **step)
        self.history.record(prefix + "_batch_count", n_batches)

    def _find_program(self, batches):
        """Return what trains this net by compiled steps, if nobody has changed what a step is; else None."""
        if find_override(self) or not all(part.training for part in self.module_.modules()):
            return None
        optimizer, parameters = self.optimizer_, [id(p) for p in self.module_.parameters()]
        is_heard = modules.is_watched(optimizer) or hears_batches(self, True, ("on_grad_computed",))
        group, *others = optimizer.param_groups
        if is_heard or others or [id(p) for p in group["params"]] != parameters or not has_one_count(optimizer):
            return None
        program = find_program(self.module_, self.criterion_, type(optimizer), group, batches)
        fits = program is not None and program.n_outputs == getattr(self, "n_outputs_", program.n_outputs)
        return program if fits else None

    def _run_compiled(self, program, batches, epoch, factors):
        """Run the batches of a training epoch in one go; the records are those of :meth:`run_single_epoch`."""
        (group,), layers = self.optimizer_.param_groups, modules.dropout_layers(self.module_)
        rates = [group["initial_lr"] * f for f in factors] if factors else [group["lr"]] * len(batches)
        numbers = self.seed_, [layer.p for layer in layers], (self.l1, self.l2)
        losses = train_module(program, self.optimizer_, batches, epoch, rates, *numbers)
        self._begin_step(epoch, len(losses) - 1, factors)
        for layer in layers:
            layer.stand_at((epoch, len(losses) - 1))
        for loss, size in zip(losses, batches.sizes, strict=False):
            self.history.new_batch()
            if not math.isfinite(loss):
                raise self._divergence(f"training loss became {loss}")
            self.history[-1]["batches"][-1].update({"train_loss": loss, "train_batch_size": size})
        self.history.record("train_batch_count", len(losses))

    def _public_batch(self, batch):
        """Return the batch as skorch's callbacks know it: a pair."""
        return tuple(batch[:2]) if isinstance(batch, tuple | list) else batch

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
                group["lr"] = group["initial_lr"] * factors[min(batch, len(factors) - 1)]

    def _set_training(self, training=True):
        """Set the mode where it is another; to go through all layers again would take as long as a small layer."""
        if any(getattr(self, name + "_").training != training for name in self._modules):
            super()._set_training(training)

    def evaluation_step(self, batch, training=False):
        """Compute the module's output for a batch."""
        self.check_is_fitted()
        with torch.set_grad_enabled(training):
            self._set_training(training)
            return self.infer(batch[0] if isinstance(batch, tuple | list) else batch)

    def infer(self, x, **fit_params):
        """Call the module on a batch of its inputs."""
        x = self._on_device(x)
        if isinstance(x, dict):
            return self.module_(**self._merge_x_and_fit_params(x, fit_params))
        return self.module_(x, **fit_params)

    def _on_device(self, data):
        is_there = type(data) is torch.Tensor and data.device == self.device_
        return data if is_there else to_tensor(data, device=self.device_)

    def get_loss(self, y_pred, y_true, X=None, training=False):
        """Return the batch's loss: the criterion's, plus in training the penalties of `l1` and `l2`.

        Of :class:`Weighted` targets it is the mean over the rows of weight times loss.
        """
        y_true, weight = y_true if isinstance(y_true, Weighted) else (y_true, None)
        y_pred, y_true = self._match(y_pred, self._on_device(y_true))
        loss = self.criterion_(y_pred, y_true) if weight is None else self._mean_loss(y_pred, y_true, weight)
        return loss + self._penalty() if training and (self.l1 or self.l2) else loss

    def _match(self, y_pred, y_true):
        """Return prediction and target as the criterion wants them; raise if the module does not fit the data."""
        return y_pred, y_true

    def _plain_criterion(self):
        return getattr(self.criterion_, "_orig_mod", self.criterion_)  # of a compiled one

    def _mean_loss(self, y_pred, y_true, weight):
        criterion = self._plain_criterion()
        reduction = getattr(criterion, "reduction", None)
        criterion.reduction = "none"
        try:
            losses = criterion(y_pred, y_true)
        finally:
            criterion.reduction = reduction
        if reduction is None or losses.shape[:1] != y_true.shape[:1]:
            raise ValueError(
                "sample_weight and class_weight must come with a criterion that gives a loss for each row "
                f"when reduction='none', got criterion={type(criterion).__name__}"
            )
        return ((losses.flatten(1).mean(1) if losses.ndim > 1 else losses) * weight).mean()

    def _penalty(self):
        """Return l1 * sum |w| + l2 * sum w^2 over the weights: parameters of two dimensions or more."""
        weights = [p for p in self.module_.parameters() if p.ndim > 1 and p.requires_grad]
        absolute = sum(w.abs().sum() for w in weights) if self.l1 else 0.0
        squares = sum(w.square().sum() for w in weights) if self.l2 else 0.0
        return self.l1 * absolute + self.l2 * squares

    def _check_weights(self):
        for name, tensor in [item for _, part in self._components() for item in part.state_dict().items()]:
            if tensor.is_floating_point() and not torch.isfinite(tensor).all():
                raise self._divergence(f"{name} is no longer finite")

    def _divergence(self, what):
        rates = [group["lr"] for group in self.optimizer_.param_groups]
        return DivergenceError.at(len(self.history), rates, what)

    def set_params(self, **params):
        """Set hyperparameters, as in skorch; an unknown name raises and shows the nearest known one.

        A fitted net builds anew what depends on them, but for the optimizer's numbers, which change where they are.
        """
        named = {n: v for n, v in params.items() if "__" in n or n in self.prefixes_ or n not in vars(self)}
        validation.check_names(self, named)
        ours = ("callbacks", "optimizer", "optimizer__param_groups")  # which skorch would not set in a fitted net
        rest = {n: v for n, v in params.items() if n not in ours and n.partition("__")[0] not in _LOOKED_UP}
        with validation.unchanged_on_error(self):
            for name, value in params.items():
                if name not in rest or (name.startswith("optimizer__") and "param_groups__" not in name):
                    setattr(self, name, value)
            if self.initialized_ and "callbacks" in params:
                self._initialize_callbacks()
            if self.initialized_ and {"optimizer", "optimizer__param_groups"} & params.keys():
                self._initialize_optimizer()
            groups = self.optimizer_.param_groups if getattr(self, "optimizer_", None) else []
            rates = [group["lr"] for group in groups]
            super().set_params(**rest)
            for group, rate in zip(groups, rates, strict=True):
                if group["lr"] != rate:
                    group["initial_lr"] = group["lr"]
        return self

    def load_params(self, *args, **kwargs):
        """Load what :meth:`save_params` saved, as in skorch."""
        with self._resolved_device():
            return super().load_params(*args, **kwargs)

    def __getattr__(self, name):
        """Build what a search has trained when somebody looks at it: most nets of a search are only scored."""
        trained = vars(self).get("_trained") if name in BUILT else None
        if trained is not None:
            trained.build(self)
        return super().__getattribute__(name)

    def __getstate__(self):
        if trained := vars(self).get("_trained"):
            trained.build(self)
        return super().__getstate__()

    def __dir__(self):
        return {*super().__dir__(), *(BUILT if "_trained" in vars(self) else ())}

    def __setstate__(self, state):
        is_auto = state["device"] == "auto"
        super().__setstate__({**state, "device": str(validation.resolve_device("auto"))} if is_auto else state)
        if "device_" in vars(self):
            self.device_ = validation.resolve_device(self.device)
        if is_auto:
            self.device = "auto"


def find_override(net):
    """Return a name by which a user's subclass changes how a net is trained, or None."""
    kinds = type(net).__mro__
    base = next(kind for kind in kinds if kind.__module__.startswith("sktune."))
    for name in dict.fromkeys(name for kind in kinds[: kinds.index(base)] for name in vars(kind)):
        if hasattr(base, name) and not (name in _FREE or name.startswith(("__", "set_"))):
            return name
    return None


def _n_rows(batch):
    X = batch[0] if isinstance(batch, tuple | list) else batch
    return len(X) if isinstance(X, torch.Tensor) else get_len(X)


class BestEpoch:
    """Whose loss was the least so far, and whether it is time to stop.

    It is due when the loss has not fallen by the net's `tol` below the least one for `n_iter_no_change` epochs.
    """

    def __init__(self, net):
        self.tol, self.patience = net.tol, net.n_iter_no_change
        self.best, self.n_misses = math.inf, 0

    def update(self, loss):
        """Take an epoch's loss; return whether it is the least so far, and whether to stop."""
        self.n_misses = self.n_misses + 1 if loss > self.best - self.tol else 0
        is_best = loss < self.best
        self.best = min(loss, self.best)
        return is_best, self.n_misses >= self.patience
