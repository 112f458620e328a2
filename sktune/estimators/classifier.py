"""A network as a scikit-learn classifier."""

import warnings
from functools import partial

import numpy as np
import skorch
import torch
from sklearn.base import ClassifierMixin
from sklearn.utils import column_or_1d
from skorch.callbacks import EpochScoring
from skorch.dataset import Dataset
from skorch.utils import to_numpy
from torch import nn
from torch.utils.data import DataLoader

from sktune.checks.labels import (
    as_label_table,
    check_classes,
    find_label_table,
    is_one_hot,
    refuse_one_hot,
)
from sktune.checks.targets import check_outputs, encode_labels
from sktune.estimators.base import NetworkEstimator
from sktune.modules.mlp import MLP
from sktune.training.losses import BY_CLASS, is_binary, is_of, match_classes, refuse_table


class NeuralNetClassifier(NetworkEstimator, skorch.NeuralNetClassifier):
    """A PyTorch network as a scikit-learn classifier.

    A skorch net in every respect (modules, callbacks, ``history``, ``save_params``), with labels of any kind,
    any table as input, and results that ``random_state`` repeats.

    Parameters
    ----------
    module : nn.Module class or instance, default=MLP
        The network. Its arguments are ``module__x``; those named ``n_features`` (numbers per row) and
        ``n_outputs`` (classes; 1 under a binary criterion) are found from the data unless given. It returns
        what the criterion takes: logits of shape (n_rows, n_classes) for the default.
    criterion : nn.Module class or instance, default=CrossEntropyLoss
        The loss; its arguments are ``criterion__x``. Under ``NLLLoss`` the module returns probabilities, as in
        skorch; under ``BCEWithLogitsLoss`` one logit per row.
    optimizer : torch.optim.Optimizer class, default=AdamW (Loshchilov and Hutter 2019)
        Its arguments are ``optimizer__x``, among them ``optimizer__weight_decay``. It runs in torch's fused
        implementation where there is one, unless ``optimizer__fused`` or ``optimizer__foreach`` is given.
    lr, max_epochs, batch_size : float, int, int, default=1e-3, 50, 64
        Learning rate, passes over the data, and rows per training step.
    l1, l2 : float, default=0.0
        Add ``l1 * sum |w| + l2 * sum w**2`` over the weights to the training loss; weights are the parameters
        of two dimensions or more, which leaves out biases and normalisation.
    lr_schedule : str or callable, default="constant"
        ``"constant"``, ``"step"``, ``"exponential"``, ``"time"``, ``"cosine"`` or ``"one_cycle"``, with parameters
        ``lr_schedule__x``; ``lr_schedule__warmup`` is a number of epochs. See :mod:`sktune.training.schedules`.
    lr_scaling : {"linear", "sqrt"} or None, default=None
        How the learning rate follows the batch size: the optimizer gets `lr` times
        ``batch_size / lr_scaling_batch_size`` (Goyal et al. 2017) or the square root of that, and
        with None `lr` itself. It holds for ``optimizer__lr`` and the rates of groups as well.
    lr_scaling_batch_size : int, default=64
        The batch size that `lr` is meant for. By default it is that of `batch_size`, so that
        nothing changes until that does.
    shuffle : bool, default=True
        Whether each epoch takes the rows in a new order.
    class_weight : dict, "balanced" or None, default=None
        Factors on the losses of each class, as in scikit-learn.
    early_stopping : bool or "train_loss", default=False
        With True, `validation_fraction` of the rows are held out, the fit stops when their loss has not fallen by
        `tol` for `n_iter_no_change` epochs, and the best epoch's weights are restored. With ``"train_loss"``, no rows
        are held out, and the fit stops when the mean training loss (penalties included) has not fallen by `tol` for
        `n_iter_no_change` epochs; the weights are those of the last epoch.
    validation_fraction : float, default=0.1
        The share of the rows that ``early_stopping=True`` holds out.
    n_iter_no_change : int or inf, default=10
        How many epochs early stopping waits for a better one.
    tol : float, default=1e-4
        By how much the loss must fall for early stopping to count it as better.
    random_state : int, RandomState or None, default=None
        With an int each fit has the same initial weights, batches and dropout masks, whatever ran before.
        No global seed is touched.
    device : str or torch.device, default="auto"
        ``"auto"`` is CUDA, else MPS, else CPU.
    warm_start : bool, default=False
        Whether ``fit`` goes on from the weights of the last one.
    verbose : int, default=0
        Above 0, skorch's table of losses is printed, a line per epoch.
    callbacks : list of skorch callbacks, "disable" or None, default=None
    train_split : callable or None, default=None
        skorch's validation split, for callbacks that want one. By default all rows are trained on.
    classes : array-like or None, default=None
        The labels, where ``y`` may lack some; None takes those in ``y``.
    predict_nonlinearity, iterator_train, iterator_valid, dataset, compile, use_caching, torch_load_kwargs
        As in skorch. With the default iterators, arrays are batched by slicing.
    **kwargs
        Arguments of the components, ``module__dropout=0.5`` for one.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        The sorted labels.
    module_ : nn.Module
        The fitted network; ``criterion_``, ``optimizer_``, ``callbacks_`` and ``device_`` likewise.
    history : skorch.History
        Losses of each epoch and batch.
    n_iter_, loss_curve_ : int, list of float
        The number of epochs, and the mean training loss of each.
    best_loss_ : float or None
        The least of ``loss_curve_``; None where rows were held out.
    validation_scores_, best_validation_score_ : list of float, float, or None
        A classifier's accuracy on the rows held out after each epoch, and the best; of a regressor (and where skorch's
        callbacks are off) the validation loss with its sign changed. None where no rows were held out.
    n_features_in_ : int
        Columns of X in ``fit``; ``feature_names_in_`` holds their names where X had some.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.pipeline import make_pipeline
    >>> from sklearn.preprocessing import StandardScaler
    >>> from sktune import NeuralNetClassifier
    >>> iris = load_iris()
    >>> net = NeuralNetClassifier(lr=0.01, max_epochs=20, module__dropout=0.1, random_state=0)
    >>> pipeline = make_pipeline(StandardScaler(), net).fit(iris.data, iris.target_names[iris.target])
    >>> str(pipeline.predict(iris.data[:1])[0])
    'setosa'
    """

    def __init__(
        self, module=MLP, criterion=nn.CrossEntropyLoss, optimizer=torch.optim.AdamW, *,
        lr=1e-3, max_epochs=50, batch_size=64, l1=0.0, l2=0.0, lr_schedule="constant", shuffle=True, class_weight=None,
        early_stopping=False, validation_fraction=0.1, n_iter_no_change=10, tol=1e-4,
        random_state=None, device="auto", warm_start=False, verbose=0, callbacks=None, train_split=None, classes=None,
        predict_nonlinearity="auto", iterator_train=DataLoader, iterator_valid=DataLoader, dataset=Dataset,
        lr_scaling=None, lr_scaling_batch_size=64,
        compile=False, use_caching="auto", torch_load_kwargs=None, **kwargs,
    ):  # fmt: skip
        self._assign(locals())

    _label_dtype = (
        None  # the type of a table of labels as the targets, in which a row may have several
    )
    _decodes = True  # whether predictions are labels, or the class numbers that a Dataset brought

    def _read_targets(self, X, y, anew, classes=None):
        """Find the classes, and return the number of each row's; None for a Dataset, which brings them."""
        knows_classes = not anew and hasattr(self, "n_outputs_") and hasattr(self, "classes_")
        table = find_label_table(X) if y is None else as_label_table(y)
        if self._learns_labels(table, knows_classes):
            target = self._read_label_table(table, knows_classes, classes)
            self._decodes = y is not None
            return None if y is None else target
        if not knows_classes:
            self._label_dtype = None
        y = y if y is None else self._as_labels(y, table)
        ignored = self._find_ignored_label()
        if not knows_classes:
            given = self.classes if classes is None else classes
            if y is None:
                self.check_data(X, y)
            elif given is None:
                self.classes_inferred_ = np.unique(y if ignored is None else y[y != ignored])
            else:
                self.classes_inferred_ = np.unique(given)
            self._brings_text = y is None and self._inferred_text()
            self._decodes = y is not None or self._brings_text
            self.n_outputs_ = self._count_outputs()
        return None if y is None else encode_labels(y, self.classes_, ignored)

    def _find_ignored_label(self):
        """Return the label that the criterion leaves out, which is no class; or None.

        It is the criterion's ``ignore_index``, where no class can have it as its number: it is negative. Of single
        labels that of torch's default, -100, may as well be a class.
        """
        if not is_of(self.criterion, nn.CrossEntropyLoss | nn.NLLLoss):
            return None
        default = -100 if vars(self).get("_has_sequences", False) else None
        if isinstance(self.criterion, nn.Module) and self.criterion.ignore_index != -100:
            default = self.criterion.ignore_index
        ignored = self.get_params_for("criterion").get("ignore_index", default)
        return ignored if ignored is not None and ignored < 0 else None

    def _learns_labels(self, table, knows_classes):
        """Tell whether targets are labels of which a row may have several; raise where a way to them is missing.

        A `table` of 0 and 1 may also be class numbers of sequences, which a module of the user's own learns by cross
        entropy. The MLP does not: under the default criterion it learns the table as labels, unless the table is
        one-hot, which is more likely a mistake.
        """
        if knows_classes:
            if self._label_dtype is not None and (
                table is None or table.shape[1] != self.n_outputs_
            ):
                raise ValueError(
                    f"y must be a table of 0 and 1 of {self.n_outputs_} columns, as in the first fit"
                )
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

    def _initialize_criterion(self, reason=None):
        """Build the criterion: in place of the default one, which takes class numbers, that of a table of labels."""
        given = self.criterion
        try:
            if self._label_dtype is not None and self._has_default_criterion():
                self.criterion = nn.BCEWithLogitsLoss
            return super()._initialize_criterion(reason)
        finally:
            self.criterion = given

    def _predicts_columns(self):
        return self._label_dtype is not None

    def _as_labels(self, y, table):
        """Return the labels as an array: one for each row, or as many for each as its sequence is long.

        The latter, class numbers in two dimensions or more, are for the criteria that compare them with outputs of
        shape (n_rows, n_classes, ...). A `table` of 0 and 1 is none of both where no such criterion is asked for.
        """
        array = np.asarray(y)
        is_sequence = array.ndim > 2 or (array.ndim == 2 and array.shape[1] != 1)
        self._has_sequences = bool(
            is_sequence
            and array.dtype.kind in "iu"
            and is_of(self.criterion, nn.CrossEntropyLoss | nn.NLLLoss)
        )
        if self._has_sequences:
            return array
        if table is not None:
            raise refuse_table(table.shape, self.criterion)
        return column_or_1d(y)

    @property
    def _default_callbacks(self):
        """Return the callbacks of skorch; for sequences of labels, the accuracy is that of ``score``."""
        found = super()._default_callbacks
        if not vars(self).get("_has_sequences"):
            return found
        accuracy = EpochScoring(None, name="valid_acc", lower_is_better=False)
        return [(name, accuracy if name == "valid_acc" else callback) for name, callback in found]

    def _inferred_text(self):
        """Tell whether a Dataset has labels that are no numbers, which no criterion takes as they are."""
        return getattr(vars(self).get("classes_inferred_"), "dtype", np.dtype(int)).kind in "OSU"

    @property
    def classes_(self):
        """The sorted labels; of a table of labels the numbers of its columns."""
        if self.classes is not None and len(self.classes):
            return np.unique(self.classes)
        return super().classes_

    def _count_outputs(self):
        """Return the number of outputs that the labels and the criterion call for; None if they don't tell."""
        labels = getattr(self, "classes_", np.array([]))
        n_classes = len(labels)
        if (
            not self._decodes and self.classes is None
        ):  # class numbers, of which some may be missing
            n_classes = int(labels[-1]) + 1 if n_classes and labels.dtype.kind in "iu" else None
        if not is_binary(self.criterion):
            return n_classes
        if n_classes is not None and n_classes > 2:
            kind = self.criterion if isinstance(self.criterion, type) else type(self.criterion)
            raise ValueError(f"criterion={kind.__name__} must come with 2 classes, got {n_classes}")
        return 1

    def _decode(self, numbers):
        """Return the labels of class numbers; what was fitted to numbers, by a Dataset, keeps to them."""
        if self._label_dtype is not None:
            return to_numpy(numbers).astype(self._label_dtype)
        if not self._decodes or not hasattr(self, "classes_"):
            return numbers
        numbers = to_numpy(numbers)
        is_ignored = numbers < 0
        if not is_ignored.any():
            return self.classes_[numbers]
        return np.where(is_ignored, numbers, self.classes_[np.where(is_ignored, 0, numbers)])

    def _public_batch(self, batch):
        """Return the pair that callbacks see: the labels are those of ``y``, as ``predict`` returns them."""
        batch = super()._public_batch(batch)
        is_pair = (
            isinstance(batch, tuple | list)
            and len(batch) == 2
            and isinstance(batch[1], torch.Tensor)
        )
        return (batch[0], self._decode(batch[1])) if is_pair else batch

    _match_rule = staticmethod(match_classes)

    def _known_classes(self):
        """Return how many classes the outputs must tell; None where that is not known."""
        return getattr(self, "n_outputs_", None) if self._decodes else None

    def _get_predict_nonlinearity(self):
        """Return what turns outputs into probabilities; skorch's softmax is over the last axis, which may be another.

        Of sequences of labels the outputs are (n_rows, n_classes, ...).
        """
        nonlinearity = super()._get_predict_nonlinearity()
        is_softmax = isinstance(nonlinearity, partial) and nonlinearity.func is torch.softmax
        return _softmax_of_classes if is_softmax else nonlinearity

    def predict_proba(self, X):
        """Return the probabilities of ``classes_`` for X as in :meth:`fit`: an ndarray (n_rows, n_classes).

        Of a table of labels, they are those of each label: (n_rows, n_labels).
        """
        outputs = self._outputs(X)
        # Under these criteria the columns were checked in training; a module that took its place since is the user's.
        if not is_of(self.criterion, BY_CLASS):
            self._check_outputs(outputs, X)
        return outputs

    def _check_outputs(self, outputs, X):
        """Check that predictions of the module's own outputs have a column for each class."""
        if self._decodes and self.predict_nonlinearity == "auto":
            # A net that is initialized but not fitted has no classes yet.
            classes = getattr(self, "classes_", None)
            n_classes = None if classes is None else len(classes)
            check_outputs(outputs, self._rows_asked(X), n_classes, what="classes")

    def predict(self, X):
        """Return the most probable label of each row of X, as in :meth:`fit`: an ndarray (n_rows,).

        Of a table of labels, a table (n_rows, n_labels) of those that are more probable than not.
        """
        proba = self.predict_proba(X)
        self._check_outputs(proba, X)
        if self._label_dtype is not None:
            return (proba > 0.5).astype(self._label_dtype)
        return self._decode(proba.argmax(axis=1))

    def predict_log_proba(self, X):
        """Return the logarithms of :meth:`predict_proba`: -inf where a probability is 0."""
        with np.errstate(divide="ignore"):
            return np.log(self.predict_proba(X))

    def score(self, X, y, sample_weight=None):
        """Return the accuracy, weighted by `sample_weight` (n_rows,); a label unseen in ``fit`` counts as an error.

        Of a table of labels it is the share of rows whose labels are all right. Labels that the criterion leaves out
        (its ``ignore_index``) do not count.
        """
        if not self.initialized_:
            self.check_is_fitted()
        if self._label_dtype is not None:
            table = as_label_table(y)
            return ClassifierMixin.score(self, X, y if table is None else table, sample_weight)
        y = np.asarray(y)
        ignored = self._find_ignored_label()
        counts = np.ones(y.shape, dtype=bool) if ignored is None else y != ignored
        if not (seen := np.isin(y, self.classes_) | ~counts).all():
            message = f"y should hold labels seen in fit, got also {np.unique(y[~seen]).tolist()}: they count as errors"
            warnings.warn(message, UserWarning, stacklevel=2)
        if y.ndim > 1 and y.shape[1:] != (1,):
            # of sequences, all their labels
            weights = (
                np.ones(len(y)) if sample_weight is None else np.asarray(sample_weight, dtype=float)
            )
            weights = counts.reshape(len(y), -1) * weights[:, np.newaxis]
            return float(np.average((self.predict(X) == y).reshape(len(y), -1), weights=weights))
        if not counts.all():
            weights = (
                np.ones(len(y)) if sample_weight is None else np.asarray(sample_weight, dtype=float)
            )
            sample_weight = weights * counts.reshape(-1)
        return ClassifierMixin.score(self, X, y, sample_weight)


def _softmax_of_classes(outputs):
    return torch.softmax(outputs, dim=1 if outputs.ndim > 1 else -1)
