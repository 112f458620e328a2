"""How a classifier reads its targets: classes, tables of labels, sequences of class numbers."""

import numpy as np
from sklearn.utils import column_or_1d
from skorch.callbacks import EpochScoring
from skorch.utils import to_numpy
from torch import nn

from sktune.checks.labels import (
    as_label_table,
    check_classes,
    find_label_table,
    is_one_hot,
    refuse_one_hot,
)
from sktune.checks.targets import encode_labels
from sktune.modules.mlp import MLP
from sktune.training.losses import is_binary, is_of, refuse_table

# torch's default for `ignore_index`.
_TORCH_DEFAULT = -100


class Labels:
    """Find the classes of the targets, encode them, and decode predictions; for classifiers.

    Targets are one label for each row; or a table of 0 and 1 with a column for each label, of
    which a row may have several; or, for each row, a sequence of class numbers.
    """

    # The dtype of a table of labels; None for the other kinds of targets.
    _label_dtype = None
    # Whether predictions are labels; otherwise they are class numbers that a Dataset brought.
    _decodes = True

    def _read_targets(self, X, y, anew, classes=None):
        """Find the classes, and return the class number of each row.

        Returns None for a Dataset, which brings its targets.
        """
        knows_classes = not anew and hasattr(self, "n_outputs_") and hasattr(self, "classes_")
        table = find_label_table(X) if y is None else as_label_table(y)
        if self._learns_labels(table, knows_classes):
            target = self._read_label_table(table, knows_classes, classes)
            self._decodes = y is not None
            return None if y is None else target
        if not knows_classes:
            self._label_dtype = None
        labels = None if y is None else self._as_labels(y, table)
        ignored = self._find_ignored_label()
        if not knows_classes:
            self._find_classes(X, labels, self.classes if classes is None else classes, ignored)
            self._brings_text = y is None and self._inferred_text()
            self._decodes = y is not None or self._brings_text
            self.n_outputs_ = self._count_outputs()
        return None if y is None else encode_labels(labels, self.classes_, ignored)

    def _find_classes(self, X, labels, given, ignored):
        """Remember the classes: those `given`, else those among the labels."""
        if labels is None:
            # skorch finds the classes of a Dataset.
            self.check_data(X, None)
        elif given is not None:
            self.classes_inferred_ = np.unique(given)
        elif ignored is not None:
            self.classes_inferred_ = np.unique(labels[labels != ignored])
        else:
            self.classes_inferred_ = np.unique(labels)

    def _find_ignored_label(self):
        """Return the label that the criterion ignores, and which is no class; or None.

        It is the criterion's ``ignore_index`` if that is negative: no class can have it as its
        number. torch's default, -100, is ignored only in sequences: as the single label of a row
        it may as well be a class.
        """
        if not is_of(self.criterion, nn.CrossEntropyLoss | nn.NLLLoss):
            return None
        default = _TORCH_DEFAULT if vars(self).get("_has_sequences", False) else None
        if isinstance(self.criterion, nn.Module) and self.criterion.ignore_index != _TORCH_DEFAULT:
            default = self.criterion.ignore_index
        ignored = self.get_params_for("criterion").get("ignore_index", default)
        return ignored if ignored is not None and ignored < 0 else None

    def _learns_labels(self, table, knows_classes):
        """Tell whether each column of the targets is a label, and a row may have several.

        A `table` of 0 and 1 may also hold the class numbers of sequences, which a user's module
        learns by cross entropy. The MLP does not: under the default criterion it learns the columns
        as labels. Only a one-hot table is refused there, since it is more likely a mistake.
        """
        if knows_classes:
            self._check_label_table(table)
            return self._label_dtype is not None
        if table is None or is_binary(self.criterion):
            return table is not None
        kind = self.module if isinstance(self.module, type) else type(self.module)
        if not issubclass(kind, MLP):
            return False
        if is_one_hot(table):
            raise refuse_one_hot(table, self.criterion)
        if not self._has_default_criterion():
            raise refuse_table(table.shape, self.criterion)
        return True

    def _check_label_table(self, table):
        """Raise if a net was fitted to a table of labels and is now given something else."""
        if self._label_dtype is None:
            return
        if table is None or table.shape[1] != self.n_outputs_:
            raise ValueError(
                f"y must be a table of 0 and 1 of {self.n_outputs_} columns, as in the first fit"
            )

    def _has_default_criterion(self):
        return self.criterion is nn.CrossEntropyLoss and not self.get_params_for("criterion")

    def _read_label_table(self, table, knows_classes, classes):
        """Remember the labels, which are the columns of a table, and return it as targets."""
        if not knows_classes:
            n_labels = table.shape[1]
            check_classes(self.classes if classes is None else classes, n_labels)
            check_classes(self.classes, n_labels)
            self._label_dtype = table.dtype
            self.classes_inferred_ = np.arange(n_labels)
            self.n_outputs_ = n_labels
        return table.astype(np.float64)

    def _as_labels(self, y, table):
        """Return the labels as an array: one for each row, or a sequence for each row.

        Sequences are class numbers in two dimensions or more. They are for the criteria that
        compare them with outputs of shape (n_rows, n_classes, ...). Under any other criterion a
        `table` of 0 and 1 is refused.
        """
        array = np.asarray(y)
        has_columns = array.ndim > 2 or (array.ndim == 2 and array.shape[1] != 1)
        has_numbers = has_columns and array.dtype.kind in "iu"
        self._has_sequences = has_numbers and is_of(
            self.criterion, nn.CrossEntropyLoss | nn.NLLLoss
        )
        if self._has_sequences:
            return array
        if table is not None:
            raise refuse_table(table.shape, self.criterion)
        return column_or_1d(y)

    def _inferred_text(self):
        """Tell whether a Dataset has labels that are no numbers, which no criterion takes."""
        classes = vars(self).get("classes_inferred_")
        return getattr(classes, "dtype", np.dtype(int)).kind in "OSU"

    @property
    def classes_(self):
        """The sorted labels; for a table of labels, the numbers of its columns."""
        if self.classes is not None and len(self.classes):
            return np.unique(self.classes)
        return super().classes_

    def _count_outputs(self):
        """Return how many outputs the labels and the criterion need; None if that is not known."""
        labels = getattr(self, "classes_", np.array([]))
        n_classes = len(labels)
        if not self._decodes and self.classes is None:
            # The labels are class numbers, and numbers below the largest may be missing.
            has_numbers = n_classes and labels.dtype.kind in "iu"
            n_classes = int(labels[-1]) + 1 if has_numbers else None
        if not is_binary(self.criterion):
            return n_classes
        if n_classes is not None and n_classes > 2:
            kind = self.criterion if isinstance(self.criterion, type) else type(self.criterion)
            raise ValueError(f"criterion={kind.__name__} must come with 2 classes, got {n_classes}")
        return 1

    def _decode(self, numbers):
        """Return the labels of class numbers; predictions for a Dataset may stay numbers."""
        if self._label_dtype is not None:
            return to_numpy(numbers).astype(self._label_dtype)
        if not self._decodes or not hasattr(self, "classes_"):
            return numbers
        numbers = to_numpy(numbers)
        is_ignored = numbers < 0
        if not is_ignored.any():
            return self.classes_[numbers]
        return np.where(is_ignored, numbers, self.classes_[np.where(is_ignored, 0, numbers)])

    def _known_classes(self):
        """Return how many classes the outputs must tell apart; None if that is not known."""
        return getattr(self, "n_outputs_", None) if self._decodes else None

    def _predicts_columns(self):
        return self._label_dtype is not None

    def _initialize_criterion(self, reason=None):
        """Build the criterion.

        The default one takes class numbers: for a table of labels, binary cross entropy replaces
        it.
        """
        given = self.criterion
        try:
            if self._label_dtype is not None and self._has_default_criterion():
                self.criterion = nn.BCEWithLogitsLoss
            return super()._initialize_criterion(reason)
        finally:
            self.criterion = given

    @property
    def _default_callbacks(self):
        """Return skorch's callbacks; the accuracy of sequences of labels is that of ``score``."""
        callbacks = super()._default_callbacks
        if not vars(self).get("_has_sequences"):
            return callbacks
        accuracy = EpochScoring(None, name="valid_acc", lower_is_better=False)
        return [
            (name, accuracy if name == "valid_acc" else callback) for name, callback in callbacks
        ]
