"""From tables to batches: datasets, the validation split, iterators, and what a module takes."""

from contextlib import suppress
from functools import partial

import numpy as np
import torch
from sklearn.base import is_classifier
from skorch.dataset import Dataset, ValidSplit, get_len, unpack_data
from skorch.utils import data_from_dataset, is_dataset, to_tensor
from torch.utils.data import DataLoader, IterableDataset, Subset, TensorDataset

from sktune.checks.advice import naming_embeddings, naming_held_out_rows
from sktune.checks.inputs import as_given, check_rows, count_parts, passes_through, read_parts
from sktune.checks.targets import encode_label
from sktune.estimators.overrides import hears_own_batches, is_replaced
from sktune.modules.reading import find_width, keeps_integers
from sktune.runtime.dtypes import floating_dtype
from sktune.runtime.names import class_name
from sktune.runtime.seeds import SPLIT, mix
from sktune.training.augmentation.augmenter import Augmenter
from sktune.training.augmentation.callables import CallableAugmentation
from sktune.training.augmentation.reading import read_augmentation
from sktune.training.batches import Batches, Pairs, evaluation_batch_size
from sktune.training.rows import (
    Encoded,
    Rows,
    as_target,
    cast_floating,
    convert_table,
    public_dataset,
    restore_row,
    rows_of,
)

# The options of a DataLoader that batches of slices follow, too.
_BATCH_OPTIONS = {"batch_size", "shuffle", "drop_last"}


class Datasets:
    """Turn what the user gives into batches that the module takes; a base class of `Training`."""

    def get_dataset(self, X, y=None):
        """Return rows in memory for arrays; skorch's own kinds of input go through as in skorch."""
        if not self.initialized_:
            self.check_is_fitted()
        if is_dataset(X):
            has_numbers = y is None and not self._has_text()
            return X if is_read(X) or has_numbers else self._encoded(X)
        if self._passes_through(X, y):
            return self._read_dataset(read_parts(X), y)
        if y is None:
            return self._rows(check_rows(self, X, reset=False))
        checked, y = check_rows(self, X, y, reset=False, y_numeric=not is_classifier(self))
        target = self._read_targets(checked, y, anew=False)
        return self._rows(checked, y, target, given=as_given(X, checked))

    def _read_dataset(self, X, y):
        """Return skorch's dataset of a dict or the like, with encoded labels.

        Callbacks are shown the labels as they were given, by the dataset's attribute `public`.
        """
        if y is None:
            return super().get_dataset(X, y)
        dataset = super().get_dataset(X, self._read_targets(X, y, anew=False))
        if type(dataset) is Dataset:
            dataset.public = Dataset(X, y)
        return dataset

    def _has_text(self):
        """Tell whether the net was fitted to a Dataset whose labels are no numbers."""
        return vars(self).get("_brings_text", False)

    def _passes_through(self, X, y):
        """Tell whether X is no table, but one of the other kinds of input that skorch takes."""
        if passes_through(X):
            return True
        n_parts = getattr(self, "_n_parts", 0) if y is None else count_parts(X, y)
        return n_parts > 0 and isinstance(X, list | tuple) and len(X) == n_parts

    def _rows(self, X, y=None, target=None, weight=None, given=None):
        """Return the dataset of a checked table."""
        if is_replaced(self, "dataset"):
            if weight is not None:
                raise ValueError(
                    "sample_weight and class_weight must come without a dataset of your own, "
                    "got both"
                )
            dataset = super().get_dataset(X, target)
            # Its labels are encoded already.
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
        dataset = self.get_dataset(X, y)
        if not self.early_stopping or self.early_stopping == "train_loss":
            return dataset, None
        split = ValidSplit(
            float(self.validation_fraction),
            stratified=is_classifier(self) and self._has_single_labels(),
            random_state=mix(self.seed_, SPLIT) % 2**32,
        )
        with naming_held_out_rows(self, len(dataset)):
            return split(dataset, getattr(dataset, "y", y))

    def _has_single_labels(self):
        """Tell whether each row has one label: only then can the classes keep their shares."""
        return self._label_dtype is None and not vars(self).get("_has_sequences", False)

    def _split_as_given(self, X, y, fit_params):
        """Let ``train_split`` divide the data as the user gave them.

        Returns
        -------
        train, valid : Dataset
            The two parts, with tables converted and labels encoded.
        """
        dataset = self.get_dataset(X, y)
        shown = public_dataset(dataset)
        arguments = (shown,) if y is None else (shown, y)
        parts = self.train_split(*arguments, **fit_params)
        train, valid = (self._own_part(part, shown, dataset) for part in parts)
        if getattr(dataset, "weight", None) is not None and rows_of(train)[0] is not dataset:
            raise ValueError(
                "sample_weight and class_weight must come with a train_split that picks rows of "
                "the dataset it is given, got one that builds its own training rows"
            )
        return train, valid

    def _own_part(self, part, shown, dataset):
        """Return a part of the `shown` data as the same part of `dataset`.

        Rows that a ``train_split`` builds itself are converted.
        """
        if part is None:
            return None
        if part is shown:
            return dataset
        if isinstance(part, Subset):
            return Subset(self._own_part(part.dataset, shown, dataset), part.indices)
        if type(part) in (Dataset, TensorDataset):
            with suppress(AttributeError):
                return self._read_own_rows(*data_from_dataset(part))
        return self._encoded(part)

    def _read_own_rows(self, X, y):
        return self._encoded(Dataset(X, y)) if y is None else self.get_dataset(X, y)

    def _encoded(self, dataset):
        """Return a dataset whose labels are class numbers; `dataset` itself if they are already."""
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
        iterator = getattr(self, kind)
        options = dict(self.get_params_for(kind))
        batch_size = options.get("batch_size", self.batch_size)
        has_simple_options = options.keys() <= _BATCH_OPTIONS and batch_size is not None
        if batch_size == -1:
            batch_size = len(dataset)
        rows, indices = rows_of(dataset)
        if rows is not None and iterator is DataLoader and has_simple_options:
            return self._slice_rows(rows, indices, batch_size, options, training)
        picks_rows = {"sampler", "batch_sampler"} & options.keys()
        is_ordered = isinstance(dataset, IterableDataset) or picks_rows
        if training and iterator is DataLoader and not is_ordered:
            options.setdefault("shuffle", self.shuffle)
        options["batch_size"] = batch_size if batch_size is None else int(batch_size)
        return iterator(dataset, **options)

    def _slice_rows(self, rows, indices, batch_size, options, training):
        """Return batches that are slices of rows in memory."""
        if not training and "batch_size" not in options:
            is_heard = vars(self).get("_is_fitting", False) and hears_own_batches(self)
            if not is_heard:
                # Only the speed depends on the size of batches that nobody listens to.
                width = find_width(vars(self).get("module_"), rows.X)
                batch_size = evaluation_batch_size(rows, batch_size, width)
        seed = self.seed_ if training and options.get("shuffle", self.shuffle) else None
        drop_last = training and options.get("drop_last", False)
        kind = Batches if training and rows.target is not None else Pairs
        augmenter = self._open_augmenter(rows) if training else None
        return kind(rows, indices, batch_size, seed=seed, drop_last=drop_last, augmenter=augmenter)

    def _read_augmentation(self, rows, criterion):
        """Return the augmentation of the training, or None if there is none.

        Parameters
        ----------
        rows : Rows or None
            Those of the training; None if they are no table.
        criterion : nn.Module

        Raises
        ------
        ValueError
            If the rows or the criterion do not go with it.
        """
        augmentation = read_augmentation(self.augment, self.get_params_for("augment"))
        if augmentation is None:
            return None
        if rows is not None:
            # a sparse table becomes one of floating numbers
            is_floating = not isinstance(rows.X, torch.Tensor) or rows.X.is_floating_point()
            augmentation.check_rows(rows.X.shape[1:], is_floating)
        has_two_targets = augmentation.mixes_rows and is_classifier(self)
        if has_two_targets and getattr(criterion, "reduction", None) is None:
            raise ValueError(
                "augment__mixup must come with a criterion that gives a loss for each row when "
                f"reduction='none', got criterion={class_name(criterion)}"
            )
        return None if augmentation.is_off else augmentation

    def _open_augmenter(self, rows=None):
        """Return what changes the batches of the training, or None."""
        augmentation = self._read_augmentation(rows, self._find_criterion())
        if augmentation is None:
            return None
        return Augmenter(augmentation, self.seed_, mixes_targets=not is_classifier(self))

    def _augment_batches(self, batches, epoch):
        """Yield the batches of an iterator of the user's, augmented."""
        augmenter = self._open_augmenter()
        for number, batch in enumerate(batches):
            X, y = unpack_data(batch)
            sizes = [count_rows_of_batch(batch)]
            X = self._as_input(X)
            is_callable = isinstance(augmenter.augmentation, CallableAugmentation)
            if not isinstance(X, torch.Tensor) and not is_callable:
                raise ValueError(
                    "augment must come with batches whose rows are a tensor, got "
                    f"{type(X).__name__}"
                )
            if not is_callable:
                augmenter.augmentation.check_rows(X.shape[1:], X.is_floating_point())
            # the iterator's own rows must stay as they are
            X = X.clone() if isinstance(X, torch.Tensor) else X
            X, *others = augmenter.change((X, self._on_device(y)), epoch, number, sizes)
            yield X, as_target(others)

    def evaluation_step(self, batch, training=False):
        """Compute the module's output for a batch."""
        self.check_is_fitted()
        with torch.set_grad_enabled(training):
            self._set_training(training)
            X, _ = unpack_data(batch)
            return restore_row(self.infer(X), count_rows_of_batch(batch))

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
        """Return a batch as the module takes it: on its device, floating numbers in its dtype."""
        return cast_floating(self._on_device(data), floating_dtype(self._whole_module()))


def is_read(X):
    """Tell whether X is a dataset that sktune made of a table, and not one of the user's."""
    return isinstance(X, Rows) or getattr(X, "is_read", False)


def count_rows_of_batch(batch):
    """Return how many rows a batch has."""
    X = batch[0] if isinstance(batch, tuple | list) else batch
    return len(X) if isinstance(X, torch.Tensor) else get_len(X)
