"""Networks that are scikit-learn estimators."""

import warnings
from functools import partial
from typing import NamedTuple

import numpy as np
import skorch
import torch
from sklearn.base import ClassifierMixin, is_classifier
from sklearn.utils import column_or_1d
from sklearn.utils.metaestimators import available_if
from skorch.callbacks import EpochScoring
from skorch.dataset import Dataset
from skorch.utils import to_numpy
from torch import nn
from torch.utils.data import DataLoader

from sktune import advice, labels, validation
from sktune.data import Rows, cast_floating, public_dataset
from sktune.modules import MLP, few_threads, floating_dtype, keeps_integers, limited_threads, wide_dtype
from sktune.records import Records
from sktune.training import Training, find_override, remember_methods

_BINARY = nn.BCEWithLogitsLoss | nn.BCELoss  # criteria of a single output
_BY_CLASS = (nn.CrossEntropyLoss, nn.NLLLoss, nn.MultiMarginLoss)
_FEW_ROWS = 100


class Given(NamedTuple):
    """Data as the user gave them."""

    X: object
    y: object


class NetworkEstimator(Records, Training):
    """What the networks share of scikit-learn's face."""

    def _assign(self, arguments):
        """Set the constructor's arguments, and do nothing else."""
        arguments |= arguments.pop("kwargs")
        given = {name: value for name, value in arguments.items() if name not in ("self", "__class__")}
        if "history" in given:
            # a property, as in skorch
            given["history_"] = given.pop("history")
        vars(self).update(given)
        unknown = {name for name in given.keys() - validation.own_arguments(type(self)) if "__" not in name}
        if unknown - {"history_", "initialized_", "virtual_params_"}:
            # which fit will tell: a constructor does not complain
            self._unknown = unknown

    @property
    def _params_to_validate(self):  # skorch checks these names' prefixes
        return {name for name in vars(self) if "__" in name and not name.startswith("_")}

    def _get_param_names(self):  # scikit-learn asks for the names that get_params tells
        return sorted({*self._named_params(), *self._taken_by_keyword()})

    def _taken_by_keyword(self):
        """Return the attributes of a user's class that takes any keyword: some of them may be its arguments."""
        if not validation.takes_any_keyword(type(self).__init__) or type(self).__module__.startswith("sktune."):
            return ()
        own = [name for name in vars(self) if not callable(getattr(type(self), name, None))]
        return [name for name in own if not (name.startswith("_") or name.endswith("_"))]

    def _named_params(self):
        """Return the parameters by name: what the constructors take or were given, and those of components.

        An attribute that a callback or its user has set on the net is none of them.
        """
        known = validation.own_arguments(type(self)) | vars(self).get("_unknown", set())
        names = [name for name in vars(self) if name in known or "__" in name]
        return {name: vars(self)[name] for name in names if not name.startswith("_") and not name.endswith("_")}

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        tags.input_tags.three_d_array = True
        tags.target_tags.required = True
        tags.target_tags.multi_output = tags.estimator_type == "regressor"
        if tags.classifier_tags is not None:
            tags.classifier_tags.multi_label = True
        return tags

    def __repr__(self, N_CHAR_MAX=700):
        return super(skorch.NeuralNet, self).__repr__(N_CHAR_MAX)

    def fit(self, X, y=None, sample_weight=None, **fit_params):
        """Fit the network to the rows of a table, and return self.

        Parameters
        ----------
        X : array-like, frame, sparse matrix or tensor of shape (n_rows, n_features) or (n_rows, ...)
            Numbers of any dtype. A dict of arrays, or a Dataset that holds its targets, is handed to skorch.
        y : array-like of shape (n_rows,) or, for regression, also (n_rows, n_outputs)
            A classifier also takes a table of 0 and 1, dense or sparse, a column for each label: under a binary
            criterion, and with the MLP under the default one unless each row has exactly one label.
        sample_weight : array-like of shape (n_rows,), default=None
            Factors on the rows' losses; only their ratios matter, and a row of weight 0 is as good as absent.
        **fit_params
            Handed to the module's ``forward``, as in skorch.

        Raises
        ------
        ValueError
            For data or hyperparameters that cannot be used. The estimator stays as it was.
        DivergenceError
            If the loss or the weights leave the finite numbers.
        """
        anew = not (self.warm_start and self.initialized_)
        return self._fit(X, y, sample_weight, anew=anew, fit_params=fit_params)

    def partial_fit(self, X, y=None, classes=None, sample_weight=None, **fit_params):
        """Go on training, for ``max_epochs`` more epochs; the first call initializes the network.

        Parameters
        ----------
        X, y, sample_weight, **fit_params
            See :meth:`fit`.
        classes : array-like, default=None
            All the labels that any call may bring; a classifier may need them, at its first call. Later calls may
            repeat them. The weights of a dict `class_weight` are factors on the losses as they are, so that a class
            weighs the same in each portion.

        Raises
        ------
        ValueError
            Also for other `classes` than those of the first call, and for ``class_weight="balanced"``.
        """
        options = {"classes": classes, "fit_params": fit_params, "method": "partial_fit"}
        return self._fit(X, y, sample_weight, anew=not self.initialized_, **options)

    def _fit(self, X, y, sample_weight, *, anew, fit_params, classes=None, method="fit"):
        adopt = vars(self).pop("_adopt", None)
        # the fused engine has trained this fit already
        if adopt and classes is None and adopt(X, **fit_params):
            return self
        # a net that was trimmed has no components left to check
        self.check_training_readiness()
        with validation.unchanged_on_error(self):
            validation.check_hyperparameters(self)
            validation.check_fit_params(self, fit_params)
            # metadata that nobody has requested are refused before anything is read
            self._route(method, fit_params)
            brings_targets = y is None and self.iterator_train is not DataLoader
            passes_through = brings_targets or self._passes_through(X, y)
            prepare = self._pass_through if passes_through else self._read_table
            is_portion = method == "partial_fit"
            if is_portion and is_classifier(self):
                validation.check_portion(self, classes)
            rows = prepare(X, y, sample_weight, anew, classes, is_portion)
            shown = public_dataset(rows[0])
            if not isinstance(rows[0], Rows):
                shown = Given(X, y)
            self._rebuild_outdated()
            # a callback's set_params takes effect at once
            self._is_fitting = True
            try:
                self.notify("on_train_begin", X=shown.X, y=shown.y)
                self._run_fit_loop(rows, method, fit_params)
                self.notify("on_train_end", X=X, y=y)
            finally:
                vars(self).pop("_is_fitting", None)
        return self

    def _run_fit_loop(self, rows, method, fit_params):
        try:
            self.fit_loop(*rows, _routing_method=method, **fit_params)
        except KeyboardInterrupt:  # how skorch's own callbacks stop a fit; otherwise the user means it
            if not self.callbacks:
                raise

    def _pass_through(self, X, y, sample_weight, anew, classes, is_portion):
        """Prepare skorch's own kinds of input; return the arguments of the fit loop."""
        weights = {"sample_weight": sample_weight, "class_weight": getattr(self, "class_weight", None)}
        for name, weight in weights.items():
            if weight is not None:
                raise ValueError(f"{name} must come with an array as X, got a dict or a Dataset")
        self._n_parts = len(X) if isinstance(X, list | tuple) else 0
        self._read_targets(X, y, anew, classes)
        if anew:
            for name in ("n_features_in_", "feature_names_in_"):
                vars(self).pop(name, None)
            self.initialize()
        return X, y

    def _read_table(self, X, y, sample_weight, anew, classes, is_portion):
        """Check a table, initialize the network for it, and return the arguments of the fit loop."""
        anew_shape = anew or not hasattr(self, "n_features_in_")
        self._n_parts, given = 0, X
        X, y = validation.check_rows(self, X, y, reset=anew_shape, y_numeric=not is_classifier(self))
        # The classes follow from all of y, whatever the rows weigh.
        target = self._read_targets(X, y, anew, classes)
        X, y, sample_weight, target = validation.check_sample_weight(X, y, sample_weight, target)
        weight = self._combine_weights(sample_weight, y, is_portion)
        X, y, weight, target = validation.drop_weightless_rows(X, y, weight, target)
        if anew:
            self.initialize(n_features=int(np.prod(X.shape[1:])))
            # Sums of few rows are exact enough in float64 not to depend on the rows' order, nor on
            # whether a row is repeated or weighted; at that size the wider type costs nothing.
            if X.shape[0] < _FEW_ROWS and self._can_widen():
                self._widen()
            if not keeps_integers(X, self._whole_module()):
                validation.warn_if_unscaled(X)
            if not is_classifier(self):
                advice.warn_if_huge(target, self.criterion)
        # the fused engine trains many fits at once, and need not hold the table of each
        given = None if "_stand_in" in vars(self) else validation.as_given(given, X)
        return (self._rows(X, y, target, weight, given),)

    def _can_widen(self):
        """Tell whether a fit may compute in float64: where nobody's own code or tensors would meet that type."""
        has_callbacks = self.callbacks not in (None, "disable", [])
        has_own_data = self.train_split or not self._has_standard_data()
        if find_override(self) or has_callbacks or has_own_data:
            return False
        is_own = type(self.module_) is MLP and type(self.criterion_).__module__.startswith("torch.nn.")
        is_chosen = "dtype" in self.get_params_for("module")
        is_float32 = floating_dtype(self.module_) == torch.float32
        return is_own and is_float32 and not is_chosen and self.device_.type != "mps"

    def _has_standard_data(self):
        """Tell whether rows are batched by :class:`Batches`, and not by what the user has chosen."""
        is_standard = self.dataset is Dataset and not self.get_params_for("dataset")
        return is_standard and self.iterator_train is self.iterator_valid is DataLoader

    def _combine_weights(self, sample_weight, y, is_portion):
        """Return factors on the losses of rows from their weights and those of their classes, or None."""
        class_weight = getattr(self, "class_weight", None)
        classes = getattr(self, "classes_", None) if is_classifier(self) else None
        return validation.combine_weights(sample_weight, class_weight, y, classes, is_portion)

    def _outputs(self, X):
        """Return the module's outputs for all rows, with the criterion's nonlinearity, as an array."""
        trained, net = vars(self).get("_trained"), self
        # a list is never long
        n_rows = getattr(X, "shape", (0,))[0]
        with limited_threads(1):
            found = trained and trained.find_outputs(self, X)
        if found:  # the fused engine has computed them already
            net = trained.lane.net
        nonlinearity, outputs = net._get_predict_nonlinearity(), []
        with limited_threads(1) if found else few_threads(net._whole_module(), n_rows):
            for output in found or self.forward_iter(X, device="cpu"):
                output = output[0] if isinstance(output, tuple) else output
                # NumPy has no bfloat16, and probabilities of float16 do not sum to 1
                output = cast_floating(output, wide_dtype(output.dtype))
                is_binary = is_classifier(self) and output.shape[1:] == (1,)
                outputs.append(to_numpy(nonlinearity(output[:, 0] if is_binary else output)))
        return np.concatenate(outputs)

    def _rows_asked(self, X):
        """Return X if predictions are of its rows; None while skorch's callbacks hand out what they have kept."""
        return None if "forward_iter" in vars(self) else X

    def _find_criterion(self):
        """Return the one criterion of an initialized net, not compiled; None where there is no such thing."""
        if len(self._criteria) != 1:
            return None
        criterion = getattr(self, self._criteria[0] + "_", None)
        return getattr(criterion, "_orig_mod", criterion)

    def _get_predict_nonlinearity(self):
        """Return what turns the module's outputs into predictions.

        Under a binary criterion these are the columns of two classes in skorch, and here one probability for each
        target of a regressor, and each label of a classifier of several.
        """
        if self.predict_nonlinearity != "auto" or not self._predicts_columns():
            return super()._get_predict_nonlinearity()
        criterion = self._find_criterion()
        if isinstance(criterion, nn.BCEWithLogitsLoss):
            return torch.sigmoid
        if isinstance(criterion, nn.BCELoss):
            return _as_they_are
        return super()._get_predict_nonlinearity()

    def _predicts_columns(self):
        """Tell whether a prediction is a number for each column of the targets."""
        return True

    def trim_for_prediction(self):
        """Drop what only training needs, as in skorch; predictions stay as they are."""
        self.predict_nonlinearity = self._get_predict_nonlinearity()  # which the criterion tells, that will be gone
        super().trim_for_prediction()


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
        ``lr_schedule__x``; ``lr_schedule__warmup`` is a number of epochs. See :mod:`sktune.schedules`.
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
        compile=False, use_caching="auto", torch_load_kwargs=None, **kwargs,
    ):  # fmt: skip
        self._assign(locals())

    _label_dtype = None  # the type of a table of labels as the targets, in which a row may have several
    _decodes = True  # whether predictions are labels, or the class numbers that a Dataset brought

    def _read_targets(self, X, y, anew, classes=None):
        """Find the classes, and return the number of each row's; None for a Dataset, which brings them."""
        knows_classes = not anew and hasattr(self, "n_outputs_") and hasattr(self, "classes_")
        table = labels.find_label_table(X) if y is None else labels.as_label_table(y)
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
        return None if y is None else validation.encode_labels(y, self.classes_, ignored)

    def _find_ignored_label(self):
        """Return the label that the criterion leaves out, which is no class; or None.

        It is the criterion's ``ignore_index``, where no class can have it as its number: it is negative. Of single
        labels that of torch's default, -100, may as well be a class.
        """
        if not _is_of(self.criterion, nn.CrossEntropyLoss | nn.NLLLoss):
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
            if self._label_dtype is not None and (table is None or table.shape[1] != self.n_outputs_):
                raise ValueError(f"y must be a table of 0 and 1 of {self.n_outputs_} columns, as in the first fit")
            return self._label_dtype is not None
        if table is None or _is_binary(self.criterion):
            return table is not None
        kind = self.module if isinstance(self.module, type) else type(self.module)
        if not issubclass(kind, MLP):
            return False
        if labels.is_one_hot(table):
            raise labels.refuse_one_hot(table, self.criterion)
        if not self._has_default_criterion():
            raise labels.refuse_table(table.shape, self.criterion)
        return True

    def _has_default_criterion(self):
        return self.criterion is nn.CrossEntropyLoss and not self.get_params_for("criterion")

    def _read_label_table(self, table, knows_classes, classes):
        """Remember the labels, which are the columns of a table, and return it as targets."""
        if not knows_classes:
            n_labels = table.shape[1]
            labels.check_classes(self.classes if classes is None else classes, n_labels)
            labels.check_classes(self.classes, n_labels)
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
            is_sequence and array.dtype.kind in "iu" and _is_of(self.criterion, nn.CrossEntropyLoss | nn.NLLLoss)
        )
        if self._has_sequences:
            return array
        if table is not None:
            raise labels.refuse_table(table.shape, self.criterion)
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
        if not self._decodes and self.classes is None:  # class numbers, of which some may be missing
            n_classes = int(labels[-1]) + 1 if n_classes and labels.dtype.kind in "iu" else None
        if not _is_binary(self.criterion):
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
        is_pair = isinstance(batch, tuple | list) and len(batch) == 2 and isinstance(batch[1], torch.Tensor)
        return (batch[0], self._decode(batch[1])) if is_pair else batch

    def _match(self, y_pred, y_true):
        if not isinstance(y_pred, torch.Tensor):
            return y_pred, y_true
        criterion = self._plain_criterion()
        if isinstance(criterion, _BINARY):
            if y_pred.numel() != y_true.numel():
                if y_true.ndim > 1:
                    raise _misfit(y_pred, f"{tuple(y_true.shape)}: one logit or probability per row and label")
                raise _misfit(y_pred, f"({len(y_true)},) or ({len(y_true)}, 1): one logit or probability per row")
            return y_pred, y_true.to(y_pred.dtype).reshape(y_pred.shape)
        if isinstance(criterion, _BY_CLASS):
            if y_pred.ndim == 2 and y_true.ndim == 2 and not y_true.is_floating_point():
                raise labels.refuse_table(y_true.shape, criterion)
            n_classes = getattr(self, "n_outputs_", None) if self._decodes else None
            if y_pred.ndim < 2 or len(y_pred) != len(y_true) or n_classes not in (None, y_pred.shape[1]):
                raise _misfit(y_pred, f"({len(y_true)}, {n_classes}): one column per class")
        if isinstance(criterion, nn.NLLLoss):  # of probabilities, as in skorch
            y_pred = torch.log(y_pred + torch.finfo(y_pred.dtype).eps)
        return y_pred, y_true

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
        if not _is_of(self.criterion, _BY_CLASS):
            self._check_outputs(outputs, X)
        return outputs

    def _check_outputs(self, outputs, X):
        """Check that predictions of the module's own outputs have a column for each class."""
        if self._decodes and self.predict_nonlinearity == "auto":
            # A net that is initialized but not fitted has no classes yet.
            classes = getattr(self, "classes_", None)
            n_classes = None if classes is None else len(classes)
            validation.check_outputs(outputs, self._rows_asked(X), n_classes, what="classes")

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
            table = labels.as_label_table(y)
            return ClassifierMixin.score(self, X, y if table is None else table, sample_weight)
        y = np.asarray(y)
        ignored = self._find_ignored_label()
        counts = np.ones(y.shape, dtype=bool) if ignored is None else y != ignored
        if not (seen := np.isin(y, self.classes_) | ~counts).all():
            message = f"y should hold labels seen in fit, got also {np.unique(y[~seen]).tolist()}: they count as errors"
            warnings.warn(message, UserWarning, stacklevel=2)
        if y.ndim > 1 and y.shape[1:] != (1,):
            # of sequences, all their labels
            weights = np.ones(len(y)) if sample_weight is None else np.asarray(sample_weight, dtype=float)
            weights = counts.reshape(len(y), -1) * weights[:, np.newaxis]
            return float(np.average((self.predict(X) == y).reshape(len(y), -1), weights=weights))
        if not counts.all():
            weights = np.ones(len(y)) if sample_weight is None else np.asarray(sample_weight, dtype=float)
            sample_weight = weights * counts.reshape(-1)
        return ClassifierMixin.score(self, X, y, sample_weight)


class NeuralNetRegressor(NetworkEstimator, skorch.NeuralNetRegressor):
    """A PyTorch network as a scikit-learn regressor, of one target or several.

    Networks learn targets of unit variance best: see ``sklearn.compose.TransformedTargetRegressor``.

    Parameters
    ----------
    module : nn.Module class or instance, default=MLP
        See :class:`NeuralNetClassifier`; ``n_outputs`` is the number of targets.
    criterion : nn.Module class or instance, default=MSELoss
        Compares tensors of the shape (n_rows, n_outputs) that the module returns. A module may as well return
        (n_rows,) for a single target.
    optimizer, lr and all others
        See :class:`NeuralNetClassifier`; but there is no `class_weight`, and there are no `classes`.

    Attributes
    ----------
    n_outputs_ : int
        Targets. For the others see :class:`NeuralNetClassifier`.

    Examples
    --------
    >>> from sklearn.datasets import make_regression
    >>> from sktune import NeuralNetRegressor
    >>> X, y = make_regression(200, 5, random_state=0)
    >>> net = NeuralNetRegressor(lr=0.01, module__hidden=(32,), random_state=0).fit(X, y / y.std())
    >>> net.score(X, y / y.std()) > 0.9
    True
    """

    def __init__(
        self, module=MLP, criterion=nn.MSELoss, optimizer=torch.optim.AdamW, *,
        lr=1e-3, max_epochs=50, batch_size=64, l1=0.0, l2=0.0, lr_schedule="constant", shuffle=True,
        early_stopping=False, validation_fraction=0.1, n_iter_no_change=10, tol=1e-4,
        random_state=None, device="auto", warm_start=False, verbose=0, callbacks=None, train_split=None,
        predict_nonlinearity="auto", iterator_train=DataLoader, iterator_valid=DataLoader, dataset=Dataset,
        compile=False, use_caching="auto", torch_load_kwargs=None, **kwargs,
    ):  # fmt: skip
        self._assign(locals())

    @available_if(lambda net: False)
    def predict_proba(self, X):
        """Not offered: a regressor has no probabilities."""

    def _read_targets(self, X, y, anew, classes=None):
        """Return the targets as columns, and remember their shape."""
        if y is None:  # a Dataset that brings its targets
            if anew:
                self.n_outputs_ = self._y_ndim = None
            return None
        y = np.asarray(y)
        target = y.astype(np.float32 if y.dtype == np.float32 else np.float64).reshape(len(y), -1)
        if _is_binary(self.criterion):
            validation.check_fractions(target, self.criterion)
        if anew or getattr(self, "_y_ndim", None) is None:
            self.n_outputs_, self._y_ndim = target.shape[1], y.ndim
        elif target.shape[1] != self.n_outputs_:
            raise ValueError(f"y must have {self.n_outputs_} columns as in the first fit, got {target.shape[1]}")
        return target

    def _match(self, y_pred, y_true):
        if not isinstance(y_pred, torch.Tensor) or y_pred.shape == y_true.shape:
            return y_pred, y_true
        if len(y_pred) != len(y_true) or y_pred.numel() != y_true.numel():
            raise _misfit(y_pred, f"{tuple(y_true.shape)}: one column per target")
        return y_pred, y_true.reshape(y_pred.shape)

    def predict(self, X):
        """Return the predicted targets of the rows of X, as in :meth:`fit`, shaped like the ``y`` given there."""
        outputs = self._outputs(X)
        validation.check_outputs(outputs, self._rows_asked(X), getattr(self, "n_outputs_", None))
        if (getattr(self, "_y_ndim", None) or outputs.ndim) == 1:
            return outputs.reshape(-1)
        return outputs.reshape(len(outputs), -1).astype(np.float64)  # scikit-learn's type for several targets


def _as_they_are(outputs):
    return outputs


def _is_of(criterion, kinds):
    """Tell whether a criterion, a class or an instance, is one of some kinds."""
    kind = criterion if isinstance(criterion, type) else type(criterion)
    return issubclass(kind, kinds)


def _is_binary(criterion):
    """Tell whether a criterion is one of independent probabilities."""
    return _is_of(criterion, _BINARY)


def _softmax_of_classes(outputs):
    return torch.softmax(outputs, dim=1 if outputs.ndim > 1 else -1)


def _misfit(y_pred, expected):
    return ValueError(f"the module's output must have shape {expected}, got {tuple(y_pred.shape)}")


remember_methods(NeuralNetClassifier, NeuralNetRegressor)
