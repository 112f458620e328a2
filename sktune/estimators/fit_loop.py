"""One fit: skorch's ladder of training methods, on slices of tensors and with every choice seeded.

This is the plain path, and the reference for every faster one.
"""

from contextlib import contextmanager, nullcontext, suppress
from copy import deepcopy
from functools import partial
from operator import length_hint

import numpy as np
import torch
from sklearn import get_config
from sklearn.base import is_classifier
from sklearn.utils.metadata_routing import process_routing
from skorch import NeuralNetRegressor
from skorch.dataset import Dataset, ValidSplit, get_len, unpack_data
from skorch.exceptions import NotInitializedError
from skorch.history import History
from skorch.utils import data_from_dataset, is_dataset, to_tensor
from torch.utils.data import DataLoader, IterableDataset, Subset, TensorDataset

from sktune.checks.advice import (
    naming_embeddings,
    naming_held_out_rows,
    naming_validation_rows,
    notice_outputs,
)
from sktune.checks.arguments import constructor_arguments, required_arguments
from sktune.checks.components import check_components
from sktune.checks.hyperparameters import check_hyperparameters, check_names, unchanged_on_error
from sktune.checks.inputs import as_given, check_rows, count_parts, passes_through, read_parts
from sktune.checks.targets import encode_label
from sktune.engine.compiled.module_steps import train_module
from sktune.engine.compiled.program import find_program
from sktune.estimators.hook import NO_HOOK
from sktune.estimators.listeners import QuietLog, hears_batches, hears_own_batches
from sktune.estimators.overrides import find_override
from sktune.modules.dropout import MaskStream, dropout_layers, serve_dropout
from sktune.modules.mlp import MLP
from sktune.modules.reading import find_width, is_watched, keeps_integers
from sktune.runtime.devices import resolve_device
from sktune.runtime.dtypes import floating_dtype, narrow
from sktune.runtime.seeds import FORWARD, INIT, SPLIT, draw_seed, mix, seeded
from sktune.runtime.threads import few_threads
from sktune.training.batches import Batches, Pairs, evaluation_batch_size
from sktune.training.divergence import DivergenceError, find_infinite, is_representable
from sktune.training.losses import match_nothing
from sktune.training.optimizer_state import has_one_count
from sktune.training.optimizers import prefers_fused
from sktune.training.penalties import compute_penalty
from sktune.training.rates import LRSchedule, scale_rates
from sktune.training.rows import (
    Encoded,
    Rows,
    Weighted,
    cast_floating,
    convert_table,
    public_dataset,
    restore_row,
    rows_of,
)
from sktune.training.stopping import BestEpoch

# Components that are looked up when they are needed: to set them changes nothing else.
_LOOKED_UP = ("lr_schedule", "iterator_train", "iterator_valid", "dataset")

BUILT = (
    "module_",
    "criterion_",
    "optimizer_",
    "callbacks_",
    "dropout_",
)  # what a net of a search builds when asked


class _Uninitialized:
    """The value of ``initialized_`` until a net is: False, and none at all before the constructor has run.

    By its absence skorch tells that a constructor may still set a module as an attribute.
    """

    def __get__(self, net, kind=None):
        if net is not None and "max_epochs" not in vars(net):
            raise AttributeError("initialized_")
        return False


class Training:
    """What a net does between the table and the fitted weights; mixed into skorch's nets.

    skorch registers modules, criteria and optimizers when they are first set. The constructor sets nothing but its
    arguments: what skorch's would set besides has its value below. `_modules`, `_criteria`, `_optimizers`,
    `_initialize_*`, `_default_callbacks` and `_set_training` are the private names of skorch that sktune builds on:
    ``tests/estimators/test_skorch_seams.py`` and ``tests/estimators/test_listeners.py`` fail when they move.
    """

    prefixes_ = [*_LOOKED_UP, "callbacks", "compile"]
    cuda_dependent_attributes_ = ["dropout_"]
    initialized_ = _Uninitialized()
    history_ = None
    virtual_params_ = {}
    _hook = NO_HOOK
    _schedule_start = 0
    _schedule_epochs = None
    _sizes = {}

    @property
    def _default_callbacks(self):
        return [
            (name, QuietLog() if name == "print_log" else c)
            for name, c in super()._default_callbacks
        ]

    def initialize(self, **sizes):
        """Build module, criterion, optimizer and callbacks anew; draws the seed of the fit.

        `sizes` are what the data tell of the module (`n_features`): passed to one that takes such arguments.
        """
        check_hyperparameters(self)
        vars(self).pop("_curve", None)
        self._plan_schedule(0, None)
        self.device_ = resolve_device(self.device)
        self.seed_ = draw_seed(self.random_state)
        self._sizes = {**sizes, "n_outputs": getattr(self, "n_outputs_", None)}
        vars(self).pop("_outdated", None)
        self._has_weights = False
        return super().initialize()

    def initialize_history(self):
        """Begin a new history; one that the user gave is emptied and filled, as in skorch."""
        ours = vars(self).get("_own_history")
        if self.history_ is not None and self.history_ is not ours:
            return super().initialize_history()
        # that of an earlier fit may be in someone's hands
        self.history_ = self._own_history = History()
        return self

    def _fit_seed(self):
        """Return the seed of the fit; of a net whose parts are initialized one by one it is drawn here."""
        if "seed_" not in vars(self):
            self.seed_ = draw_seed(self.random_state)
        return self.seed_

    def _initialize_module(self, reason=None):
        # of an ``initialize_module`` of the user's own, no dropout layers are served
        self.dropout_ = MaskStream(self._fit_seed())
        with self._resolved_device(), seeded(mix(self.seed_, INIT)):
            return super()._initialize_module(reason)

    def _whole_module(self):
        """Return ``module_``, or all modules in one where a subclass has others."""
        found = [
            part
            for name in self._modules
            if isinstance(part := getattr(self, name + "_"), torch.nn.Module)
        ]
        return found[0] if len(found) == 1 else torch.nn.ModuleList(found)

    def _initialize_criterion(self, reason=None):
        with self._resolved_device(), seeded(mix(self._fit_seed(), INIT, 1)):
            super()._initialize_criterion(reason)
        self._convert_criteria()
        return self

    def _convert_criteria(self):
        """Bring what criteria of torch's hold, weights of classes for one, to the module's floating type.

        An instance is the user's own: a copy takes its place.
        """
        dtype = floating_dtype(self._whole_module())
        for name in self._criteria:
            criterion = getattr(self, name + "_", None)
            if not type(criterion).__module__.startswith("torch.nn."):
                continue
            if any(b.is_floating_point() and b.dtype != dtype for b in criterion.buffers()):
                setattr(self, name + "_", deepcopy(criterion).to(dtype))

    @contextmanager
    def _resolved_device(self):
        """Let skorch see the device that ``"auto"`` means."""
        device, self.device = (
            self.device,
            str(getattr(self, "device_", None) or resolve_device(self.device)),
        )
        try:
            yield
        finally:
            self.device = device

    def _widen(self):
        """Compute in float64 until the fit is over: in it, sums do not depend on the order of the rows.

        :meth:`_narrow` brings back what there was, so that nothing beyond the fit meets another type.
        """
        self._narrow_to = floating_dtype(self.module_)
        for _, component in self._components():
            component.to(torch.float64)
        # Adagrad begins with sums that it makes when it is built, of the type that the weights had
        for name in self._optimizers:
            for parameter, state in getattr(self, name + "_").state.items():
                for key, value in state.items():
                    if key != "step" and getattr(value, "dtype", None) == self._narrow_to:
                        state[key] = value.to(parameter.dtype)

    def _narrow(self):
        """Bring modules, criteria and optimizers back to the type that they had before :meth:`_widen`."""
        dtype = vars(self).pop("_narrow_to", None)
        if dtype is None:
            return
        for _, component in self._components():
            component.to(dtype)
        for name in self._optimizers:
            for state in getattr(self, name + "_").state.values():
                state.update(narrow(state, dtype))

    def initialize_module(self):
        """Build the module (of an instance, a copy), its dropout layers served by counter-based masks."""
        arguments, is_instance = (
            self.get_params_for("module"),
            isinstance(self.module, torch.nn.Module),
        )
        if is_instance and not arguments:
            self.module_ = deepcopy(self.module)
        else:
            kind = type(self.module) if is_instance else self.module
            takes = constructor_arguments(kind, extra=False) or ()
            found = {
                name: value
                for name, value in self._sizes.items()
                if name in takes and value is not None
            }
            self._check_sizes(kind, found | arguments)
            self.module_ = kind(**{**found, **arguments})
        self.dropout_ = serve_dropout(self.module_, self._fit_seed())
        return self

    def _check_sizes(self, kind, known):
        """Raise for a size that a module needs and that neither the data nor the user has told."""
        needed = required_arguments(kind)
        if missing := [
            f"module__{name}"
            for name in ("n_features", "n_outputs")
            if name in needed - known.keys()
        ]:
            raise ValueError(
                f"{' and '.join(missing)} must be known to build {kind.__name__}, got no table to find it from: "
                f"fit to an array first, or pass {', '.join(f'{name}=...' for name in missing)}"
            )

    def initialize_optimizer(self, triggered_directly=None):
        """Build the optimizer, in torch's fused implementation where it has one and nothing else was asked for."""
        args, kwargs = self.get_params_for_optimizer("optimizer", self.get_all_learnable_params())
        has_sparse_gradients = any(
            getattr(layer, "sparse", False) for layer in self._whole_module().modules()
        )
        parameters = [p for group in args[0] for p in group["params"]]
        is_fused = prefers_fused(
            self.optimizer, kwargs, parameters, has_sparse_gradients=has_sparse_gradients
        )
        if is_fused is not None:
            kwargs["fused"] = is_fused
        self.optimizer_ = self.optimizer(*args, **kwargs)
        self._keep_base_rates()
        return self

    def _keep_base_rates(self):
        """Let the optimizer remember the rates that a schedule of our own multiplies.

        Without one this is left to torch's schedulers, whose base rates may be others.
        """
        if self._lr_factors(0, 1) is not None:
            for group in self.optimizer_.param_groups:
                group.setdefault("initial_lr", group["lr"])

    def get_dataset(self, X, y=None):
        """Return rows in memory for arrays; skorch's own kinds of input go through as in skorch."""
        if not self.initialized_:
            self.check_is_fitted()
        if is_dataset(X):
            return X if _is_read(X) or y is None and not self._has_text() else self._encoded(X)
        if self._passes_through(X, y):
            return self._read_dataset(read_parts(X), y)
        if y is None:
            return self._rows(check_rows(self, X, reset=False))
        checked, y = check_rows(self, X, y, reset=False, y_numeric=not is_classifier(self))
        target = self._read_targets(checked, y, anew=False)
        return self._rows(checked, y, target, given=as_given(X, checked))

    def _read_dataset(self, X, y):
        """Return skorch's dataset of a dict or the like, its labels encoded; it remembers them as they were."""
        if y is None:
            return super().get_dataset(X, y)
        dataset = super().get_dataset(X, self._read_targets(X, y, anew=False))
        if type(dataset) is Dataset:
            dataset.public = Dataset(X, y)
        return dataset

    def _has_text(self):
        """Tell whether the labels are those of a Dataset, and no numbers."""
        return vars(self).get("_brings_text", False)

    def _passes_through(self, X, y):
        """Tell whether X is of skorch's own kinds, which are no tables."""
        if passes_through(X):
            return True
        n_parts = getattr(self, "_n_parts", 0) if y is None else count_parts(X, y)
        return n_parts > 0 and isinstance(X, list | tuple) and len(X) == n_parts

    def _rows(self, X, y=None, target=None, weight=None, given=None):
        if self.dataset is not Dataset or self.get_params_for("dataset"):
            if weight is not None:
                raise ValueError(
                    "sample_weight and class_weight must come without a dataset of your own, got both"
                )
            dataset = super().get_dataset(X, target)
            # its labels are encoded already
            dataset.is_read = True
            return dataset
        dtype = floating_dtype(self._whole_module())
        table = self._hook.convert_table(self, X)
        if table is None:
            table = self._convert_table(X)
        return Rows(table, y, target, weight, dtype=dtype, device=self.device_, given=given)

    def _convert_table(self, X):
        """Return a checked table as the module takes it."""
        module = self._whole_module()
        dtype = torch.int64 if keeps_integers(X, module) else floating_dtype(module)
        return convert_table(X, dtype, self.device_)

    def get_split_datasets(self, X, y=None, **fit_params):
        """Split off the rows that early stopping or ``train_split`` validates on, if any."""
        if self.train_split:
            return self._split_as_given(X, y, fit_params)
        if not self.early_stopping or self.early_stopping == "train_loss":
            return self.get_dataset(X, y), None
        dataset, seed = self.get_dataset(X, y), mix(self.seed_, SPLIT) % 2**32
        labels = getattr(dataset, "y", y)
        # neither a table of labels nor sequences of them have classes that could keep their shares
        has_strata = is_classifier(self) and self._label_dtype is None
        has_strata = has_strata and not vars(self).get("_has_sequences", False)
        split = ValidSplit(
            float(self.validation_fraction), stratified=has_strata, random_state=seed
        )
        with naming_held_out_rows(self, len(dataset)):
            return split(dataset, labels)

    def _split_as_given(self, X, y, fit_params):
        """Let ``train_split`` divide the data as the user gave them; return its two parts as we train on them."""
        dataset = self.get_dataset(X, y)
        shown = public_dataset(dataset)
        arguments = (shown,) if y is None else (shown, y)
        parts = self.train_split(*arguments, **fit_params)
        train, valid = (self._own_part(part, shown, dataset) for part in parts)
        if getattr(dataset, "weight", None) is not None and rows_of(train)[0] is not dataset:
            raise ValueError(
                "sample_weight and class_weight must come with a train_split that picks rows of the dataset it is "
                "given, got one that builds its own training rows"
            )
        return train, valid

    def _own_part(self, part, shown, dataset):
        """Return a part of the `shown` data as a part of the `dataset`; rows that the user brings are converted."""
        if part is None or part is shown:
            return part and dataset
        if isinstance(part, Subset):
            return Subset(self._own_part(part.dataset, shown, dataset), part.indices)
        if type(part) in (Dataset, TensorDataset):
            with suppress(AttributeError):
                return self._read_own_rows(*data_from_dataset(part))
        return self._encoded(part)

    def _read_own_rows(self, X, y):
        return self._encoded(Dataset(X, y)) if y is None else self.get_dataset(X, y)

    def _encoded(self, dataset):
        """Return a dataset with its labels as the numbers of the classes, if they are anything else."""
        classes = self.classes_ if is_classifier(self) and self._decodes else ()
        if np.array_equal(classes, np.arange(len(classes))):
            return dataset
        ignored = self._find_ignored_label() if is_classifier(self) else None
        return Encoded(dataset, partial(encode_label, classes=classes, ignored=ignored))

    def get_iterator(self, dataset, training=False):
        """Return batches of slices for rows in memory, and skorch's iterator for anything else.

        A batch size of -1 is all rows at once.
        """
        kind = "iterator_train" if training else "iterator_valid"
        iterator, given = getattr(self, kind), self.get_params_for(kind)
        options = dict(given)
        batch_size = options.get("batch_size", self.batch_size)
        if batch_size == -1:
            batch_size = len(dataset)
        rows, indices = rows_of(dataset)
        is_plain = (
            not options.keys() - {"batch_size", "shuffle", "drop_last"} and batch_size is not None
        )
        if rows is None or iterator is not DataLoader or not is_plain:
            is_ordered = (
                isinstance(dataset, IterableDataset)
                or {"sampler", "batch_sampler"} & options.keys()
            )
            if training and iterator is DataLoader and not is_ordered:
                options.setdefault("shuffle", self.shuffle)
            options["batch_size"] = batch_size if batch_size is None else int(batch_size)
            return iterator(dataset, **options)
        is_heard = vars(self).get("_is_fitting", False) and hears_own_batches(self)
        if not training and "batch_size" not in given and not is_heard:
            batch_size = evaluation_batch_size(
                rows, batch_size, find_width(vars(self).get("module_"))
            )
        seed = self.seed_ if training and options.get("shuffle", self.shuffle) else None
        drop_last = training and options.get("drop_last", False)
        kind = Batches if training and rows.target is not None else Pairs
        return kind(rows, indices, batch_size, seed=seed, drop_last=drop_last)

    def fit_loop(self, X, y=None, epochs=None, *, _routing_method="fit", **fit_params):
        """Train for `epochs` (None: ``max_epochs``), from where the history ends."""
        if self._hook.replace_training(self, X, epochs, fit_params):
            return self
        self.check_training_readiness()
        if getattr(self, "optimizer_", None) is not None:
            # a schedule may have been set since
            self._keep_base_rates()
        split_params = self._route(_routing_method, fit_params)
        dataset_train, dataset_valid = self.get_split_datasets(X, _labels(X, y), **split_params)
        datasets = {
            "dataset_train": public_dataset(dataset_train),
            "dataset_valid": public_dataset(dataset_valid),
        }
        iterator_train = self.get_iterator(dataset_train, training=True)
        iterator_valid = (
            None if dataset_valid is None else self.get_iterator(dataset_valid, training=False)
        )
        stopping = BestEpoch.of(self, iterator_valid is not None)
        best_weights, draws = {}, True
        self._plan_schedule(len(self.history), epochs)
        try:
            for _ in range(self.max_epochs if epochs is None else epochs):
                # a module that drew no random numbers of its own in an epoch leaves the generators to other threads
                seed = mix(self.seed_, FORWARD, len(self.history))
                generators = seeded(seed, self.device_) if draws else nullcontext(bool)
                with (
                    few_threads(self._whole_module(), _n_rows_at_once(iterator_train)),
                    generators as has_drawn,
                ):
                    self.notify("on_epoch_begin", **datasets)
                    self.run_single_epoch(
                        iterator_train, True, "train", self.train_step, **fit_params
                    )
                    self.run_single_epoch(
                        iterator_valid, False, "valid", self.validation_step, **fit_params
                    )
                    with naming_validation_rows(are_missing=iterator_valid is None):
                        self.notify("on_epoch_end", **datasets)
                    draws = has_drawn()
                loss = self._last_loss(stopping.monitor) if stopping else None
                is_best, is_due = stopping.update(loss) if stopping else (False, False)
                if is_best and stopping.restores:
                    best_weights = {
                        name: deepcopy(c.state_dict()) for name, c in self._components()
                    }
                if is_due:
                    break
        finally:  # a callback stops a fit by KeyboardInterrupt
            for name, weights in best_weights.items():
                getattr(self, name).load_state_dict(weights)
            self._narrow()
        self._check_weights()
        return self

    def _route(self, method, params):
        """Return what of a fit's parameters is for the validation split; raise for what nobody has requested."""
        if not params or not get_config()["enable_metadata_routing"]:
            return params
        routed = process_routing(self, method, **params)
        return routed.get("splitter", {"split": {}})["split"]

    def _last_loss(self, name):
        """Return the mean loss of the last epoch over its rows, whether or not a callback has recorded it."""
        size = name.replace("_loss", "_batch_size")
        losses, sizes = zip(*self.history[-1, "batches", :, (name, size)], strict=True)
        return float(np.average(losses, weights=sizes))

    def _components(self):
        """Return the names and modules of all that holds weights."""
        names = [name + "_" for name in self._modules + self._criteria]
        return [
            (name, c) for name in names if isinstance(c := getattr(self, name), torch.nn.Module)
        ]

    def run_single_epoch(self, iterator, training, prefix, step_fn, **fit_params):
        """Run the batches of one epoch, recording loss and size of each."""
        if iterator is None:
            return
        super()._set_training(
            training
        )  # each layer, through a `train` of the module's own if it has one
        epoch = len(self.history) - 1
        # 1 is for a stream of rows: its rate changes between epochs only
        factors = self._lr_factors(epoch, length_hint(iterator, 1)) if training else None
        batches = self.history[-1, "batches"]  # what record_batch would look up for every number
        is_heard = hears_batches(self, training)
        program = (
            self._find_program(iterator) if training and not (is_heard or fit_params) else None
        )
        if program is not None:
            self._run_compiled(program, iterator, epoch, factors)
            return
        n_batches = 0
        iterator = iterator.pairs(epoch) if isinstance(iterator, Batches) else iterator
        for n_batches, batch in enumerate(iterator, start=1):
            public = self._public_batch(batch) if is_heard else batch
            self.notify("on_batch_begin", batch=public, training=training)
            if training:
                self._begin_step(epoch, n_batches - 1, factors)
            step = step_fn(batch, **fit_params)
            is_first = training and epoch == 0 and n_batches == 1
            if is_first and type(self).get_loss is Training.get_loss:
                notice_outputs(self, step.get("y_pred"))
            loss = step["loss"].item()
            self._check_loss(loss, training)
            batches[-1].update({prefix + "_loss": loss, prefix + "_batch_size": _n_rows(batch)})
            self.notify("on_batch_end", batch=public, training=training, **step)
        if training and not n_batches:
            raise ValueError(
                "an epoch must have at least one batch to train on, got none: with drop_last=True "
                "the rows must fill a batch"
            )
        self.history.record(prefix + "_batch_count", n_batches)

    def _find_program(self, batches):
        """Return what trains this net by compiled steps, if nobody has changed what a step is; else None."""
        if find_override(self) or not all(part.training for part in self._whole_module().modules()):
            return None
        are_usual = (self._modules, self._criteria, self._optimizers) == (
            ["module"],
            ["criterion"],
            ["optimizer"],
        )
        if not are_usual or not isinstance(self.optimizer_, torch.optim.Optimizer):
            return None
        optimizer, parameters = self.optimizer_, [id(p) for p in self.module_.parameters()]
        is_heard = is_watched(optimizer) or hears_batches(self, True, ("on_grad_computed",))
        group, *others = optimizer.param_groups
        if (
            is_heard
            or others
            or [id(p) for p in group["params"]] != parameters
            or not has_one_count(optimizer)
        ):
            return None
        program = find_program(self.module_, self.criterion_, type(optimizer), group, batches)
        fits = program is not None and program.n_outputs == getattr(
            self, "n_outputs_", program.n_outputs
        )
        return program if fits else None

    def _run_compiled(self, program, batches, epoch, factors):
        """Run the batches of a training epoch in one go; the records are those of :meth:`run_single_epoch`."""
        (group,) = self.optimizer_.param_groups
        layers = dropout_layers(self.module_)
        rates = scale_rates(group, factors, len(batches))
        numbers = self.seed_, [layer.p for layer in layers], (self.l1, self.l2)
        losses = train_module(program, self.optimizer_, batches, epoch, rates, *numbers)
        self._begin_step(epoch, len(losses) - 1, factors)
        for layer in layers:
            layer.count_call((epoch, len(losses) - 1))
        for loss, size in zip(losses, batches.sizes, strict=False):
            self.history.new_batch()
            self._check_loss(loss, training=True)
            self.history[-1]["batches"][-1].update({"train_loss": loss, "train_batch_size": size})
        self.history.record("train_batch_count", len(losses))

    def _public_batch(self, batch):
        """Return the batch as skorch's callbacks know it: without the rows' weights."""
        if isinstance(batch, tuple | list) and len(batch) == 2 and isinstance(batch[1], Weighted):
            return batch[0], batch[1].target
        return batch

    def _plan_schedule(self, first_epoch, epochs):
        """Let the learning-rate schedule begin at an epoch of the history: each call of fit has its own.

        `epochs` are those that the call trains for; None is ``max_epochs``.
        """
        self._schedule_start = first_epoch
        self._schedule_epochs = epochs

    def _lr_factors(self, epoch, n_batches):
        """Return the factors on the learning rate of an epoch's batches, or None if nothing changes it.

        `epoch` counts from 0 over the whole history.
        """
        return self._schedule().factors(epoch, n_batches)

    def _schedule(self):
        """Return the learning-rate schedule of the current call of ``fit`` or ``partial_fit``."""
        planned = self.max_epochs if self._schedule_epochs is None else self._schedule_epochs
        params = self.get_params_for("lr_schedule")
        return LRSchedule(self.lr_schedule, planned, params, self._schedule_start)

    def _begin_step(self, epoch, batch, factors):
        self.dropout_.epoch, self.dropout_.batch = epoch, batch
        if factors is not None:
            # A stream of rows has one factor for all the steps of an epoch.
            factor = factors[min(batch, len(factors) - 1)]
            for group in self.optimizer_.param_groups:
                group["lr"] = group["initial_lr"] * factor

    def _set_training(self, training=True):
        """Set the mode where it is another; to go through all layers again would take as long as a small layer."""
        if any(getattr(self, name + "_").training != training for name in self._modules):
            super()._set_training(training)

    def evaluation_step(self, batch, training=False):
        """Compute the module's output for a batch."""
        self.check_is_fitted()
        with torch.set_grad_enabled(training):
            self._set_training(training)
            X, _ = unpack_data(batch)
            return restore_row(self.infer(X), _n_rows(batch))

    def infer(self, x, **fit_params):
        """Call the module on a batch of its inputs."""
        x = self._as_input(x)
        with naming_embeddings(self._whole_module()):
            if isinstance(x, dict):
                return self.module_(**self._merge_x_and_fit_params(x, fit_params))
            return self.module_(x, **fit_params)

    def _on_device(self, data):
        is_there = type(data) is torch.Tensor and data.device == self.device_
        return data if is_there else to_tensor(data, device=self.device_)

    def _as_input(self, data):
        """Return a batch as the module takes it: on its device, floating numbers in its type."""
        return cast_floating(self._on_device(data), floating_dtype(self._whole_module()))

    def get_loss(self, y_pred, y_true, X=None, training=False):
        """Return the batch's loss: the criterion's, plus in training the penalties of `l1` and `l2`.

        Of :class:`Weighted` targets it is the mean over the rows of weight times loss.
        """
        y_true, weight = y_true if isinstance(y_true, Weighted) else (y_true, None)
        y_true = self._on_device(y_true)
        if isinstance(y_true, torch.Tensor) and y_true.ndim:
            y_pred = restore_row(y_pred, len(y_true))
        y_pred, y_true = self._match(y_pred, y_true)
        loss = (
            self.criterion_(y_pred, y_true)
            if weight is None
            else self._mean_loss(y_pred, y_true, weight)
        )
        return loss + self._penalty() if training and (self.l1 or self.l2) else loss

    # how outputs and targets are brought together: a function of sktune.training.losses
    _match_rule = staticmethod(match_nothing)

    def _known_classes(self):
        """Return how many classes the outputs must tell; None where that is not known."""
        return None

    def _match(self, y_pred, y_true):
        """Return outputs and targets as the criterion compares them; raise if they do not fit."""
        criterion = self._plain_criterion()
        return self._match_rule(criterion, y_pred, y_true, self._known_classes())

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
        ignored = getattr(criterion, "ignore_index", None)
        if ignored is not None and (y_true == ignored).any():
            # the mean is over what the criterion takes, as without weights
            of_rows = losses.flatten(1).sum(1) if losses.ndim > 1 else losses
            return (of_rows * weight).sum() / (y_true != ignored).sum()
        return ((losses.flatten(1).mean(1) if losses.ndim > 1 else losses) * weight).mean()

    def _penalty(self):
        """Return the penalty of `l1` and `l2` on the module's weights."""
        return compute_penalty(self._whole_module().parameters(), self.l1, self.l2)

    def _check_loss(self, loss, training):
        """Raise if a batch's loss is no finite number of the module's type, as it is beyond the fit."""
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
        rates = [group["lr"] for group in self.optimizer_.param_groups]
        return DivergenceError.at(
            len(self.history), rates, what, isinstance(self, NeuralNetRegressor)
        )

    def set_params(self, **params):
        """Set hyperparameters; an unknown name raises and shows the nearest known one.

        What a trained module or criterion was built from takes effect with the next ``fit`` or ``partial_fit``, which
        builds them anew: until then the net predicts as before. skorch would build them at once, untrained; so does
        a net that has not been trained. The numbers of an optimizer change where they are.
        """
        components = {"module", "criterion", "optimizer", *self.prefixes_}
        named = {
            n: v for n, v in params.items() if "__" in n or n in components or n not in vars(self)
        }
        check_names(self, named)
        if self.initialized_:
            # Of a fitted net, the component would be built at once.
            check_components(params)
        ours = (
            "callbacks",
            "optimizer",
            "optimizer__param_groups",
        )  # which skorch would not set in a fitted net
        later = self._set_later(params)
        others = {n for n in params if n not in later}
        rest = {
            n: params[n] for n in others if n not in ours and n.partition("__")[0] not in _LOOKED_UP
        }
        with unchanged_on_error(self):
            for name, value in params.items():
                if name not in rest or (
                    name.startswith("optimizer__") and "param_groups__" not in name
                ):
                    setattr(self, name, value)
            if later:
                self._outdated = sorted({*later, *vars(self).get("_outdated", ())})
            if self.initialized_ and "callbacks" in params:
                self._initialize_callbacks()
            if self.initialized_ and {"optimizer", "optimizer__param_groups"} & params.keys():
                self._initialize_optimizer()
            groups = self.optimizer_.param_groups if getattr(self, "optimizer_", None) else []
            rates = [group["lr"] for group in groups]
            super().set_params(**rest)
            for group, rate in zip(groups, rates, strict=True):
                if group["lr"] != rate and "initial_lr" in group:
                    group["initial_lr"] = group["lr"]
        return self

    def _set_later(self, params):
        """Return the names of those parameters that would have a trained module or criterion built anew."""
        has_weights = bool(self.history_) or vars(self).get("_has_weights", False)
        if not self.initialized_ or not has_weights or vars(self).get("_is_fitting", False):
            return set()
        parts = {*self._modules, "compile"}
        if any(
            isinstance(part, torch.nn.Module) and [*part.parameters()]
            for part in self._criteria_built()
        ):
            # their weights were trained, too
            parts |= {*self._criteria}
        # another criterion may mean other predictions; its options do not
        return {
            name for name in params if name.partition("__")[0] in parts or name in self._criteria
        }

    def _criteria_built(self):
        return [getattr(self, name + "_") for name in self._criteria]

    def _rebuild_outdated(self):
        """Build anew what has been set since the last training, in a net that goes on with its training."""
        if outdated := vars(self).pop("_outdated", None):
            self._initialize_module(
                f"Re-initializing module because these were set: {', '.join(outdated)}."
            )
            self._initialize_criterion()
            self._initialize_optimizer()

    def load_params(self, *args, **kwargs):
        """Load what :meth:`save_params` saved, as in skorch; the net must be initialized, or fitted."""
        if not self.initialized_ and kwargs.get("checkpoint") is None and self.module is MLP:
            named = [f"module__{name}" for name in ("n_features", "n_outputs")]
            if missing := [name for name in named if name not in vars(self)]:
                raise NotInitializedError(
                    "Cannot load state of an un-initialized model. Please fit first; or pass "
                    f"{' and '.join(missing)}, which an MLP is built from, and call initialize."
                )
        with self._resolved_device():
            super().load_params(*args, **kwargs)
        self._has_weights = True

    def __getattr__(self, name):
        """Build what a search has trained when it is asked for: most nets of a search are only scored."""
        if name in BUILT:
            self._hook.build_parts(self)
        return super().__getattribute__(name)

    def __getstate__(self):
        self._hook.build_parts(self)
        state = super().__getstate__()
        state.pop("_hook", None)
        return state

    def __dir__(self):
        unbuilt = BUILT if self._hook.has_unbuilt_parts() else ()
        return {*super().__dir__(), *unbuilt}

    def __setstate__(self, state):
        is_auto = state["device"] == "auto"
        super().__setstate__({**state, "device": str(resolve_device("auto"))} if is_auto else state)
        if "device_" in vars(self):
            self.device_ = resolve_device(self.device)
        if is_auto:
            self.device = "auto"


def _is_read(X):
    """Tell whether X is a dataset that was made here of a table, and no one of the user's."""
    return isinstance(X, Rows) or getattr(X, "is_read", False)


def _labels(X, y):
    return getattr(X, "y", y) if _is_read(X) else y


def _n_rows_at_once(iterator):
    """Return how many rows the largest batch of an iterator has, or a guess where it does not tell."""
    if isinstance(iterator, Batches):
        return max(iterator.sizes, default=1)
    return getattr(iterator, "batch_size", None) or 1


def _n_rows(batch):
    X = batch[0] if isinstance(batch, tuple | list) else batch
    return len(X) if isinstance(X, torch.Tensor) else get_len(X)
