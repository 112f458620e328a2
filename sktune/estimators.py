"""Networks that are scikit-learn estimators."""

import warnings

import numpy as np
import skorch
import torch
from sklearn.base import ClassifierMixin, is_classifier
from sklearn.utils import column_or_1d
from sklearn.utils.metaestimators import available_if
from skorch.dataset import Dataset
from skorch.utils import to_numpy
from torch import nn
from torch.utils.data import DataLoader

from sktune import validation
from sktune.data import Rows
from sktune.modules import MLP, few_threads, keeps_integers
from sktune.training import Training

_BINARY = nn.BCEWithLogitsLoss | nn.BCELoss  # criteria of a single output
_BY_CLASS = (nn.CrossEntropyLoss, nn.NLLLoss, nn.MultiMarginLoss)
_FEW_ROWS = 100


class NetworkEstimator(Training):
    """What the networks share of scikit-learn's face."""

    def _assign(self, arguments):
        """Set the constructor's arguments, and do nothing else."""
        arguments |= arguments.pop("kwargs")
        for name in arguments.keys() - {"self", "__class__"}:
            setattr(self, name, arguments[name])

    @property
    def _params_to_validate(self):  # skorch checks these names' prefixes
        return {name for name in vars(self) if "__" in name and not name.startswith("_")}

    def _get_param_names(self):  # scikit-learn asks for the names that get_params tells
        return sorted(name for name in vars(self) if not (name.startswith("_") or name.endswith("_")))

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        tags.input_tags.three_d_array = True
        tags.target_tags.required = True
        tags.target_tags.multi_output = tags.estimator_type == "regressor"
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

        `classes` are all the labels that any call may bring; a classifier may need them, at its first call. For the
        other arguments see :meth:`fit`.
        """
        return self._fit(X, y, sample_weight, anew=not self.initialized_, classes=classes, fit_params=fit_params)

    def _fit(self, X, y, sample_weight, *, anew, fit_params, classes=None):
        adopt = vars(self).pop("_adopt", None)
        # the fused engine has trained this fit already
        if adopt and classes is None and adopt(X, **fit_params):
            return self
        with validation.unchanged_on_error(self):
            validation.check_hyperparameters(self)
            prepare = self._pass_through if validation.passes_through(X) else self._read_table
            rows = prepare(X, y, sample_weight, anew, classes)
            in_memory = isinstance(rows[0], Rows)  # which scoring callbacks will slice
            self.notify("on_train_begin", X=rows[0].X if in_memory else X, y=rows[0].y if in_memory else y)
            try:
                self.fit_loop(*rows, **fit_params)
            except KeyboardInterrupt:  # how skorch's own callbacks stop a fit; otherwise the user means it
                if not self.callbacks:
                    raise
            self.notify("on_train_end", X=X, y=y)
        return self

    def _pass_through(self, X, y, sample_weight, anew, classes):
        """Prepare skorch's own kinds of input; return the arguments of the fit loop."""
        weights = {"sample_weight": sample_weight, "class_weight": getattr(self, "class_weight", None)}
        for name, weight in weights.items():
            if weight is not None:
                raise ValueError(f"{name} must come with an array as X, got a dict or a Dataset")
        y = self._read_targets(X, y, anew, classes)
        if anew:
            for name in ("n_features_in_", "feature_names_in_"):
                vars(self).pop(name, None)
            self.initialize()
        return X, y

    def _read_table(self, X, y, sample_weight, anew, classes):
        """Check a table, initialize the network for it, and return the arguments of the fit loop."""
        anew_shape = anew or not hasattr(self, "n_features_in_")
        X, y = validation.check_rows(self, X, y, reset=anew_shape, y_numeric=not is_classifier(self))
        X, y, sample_weight = validation.check_sample_weight(X, y, sample_weight)
        target = self._read_targets(X, y, anew, classes)
        if anew:
            # Sums of few rows are exact enough in float64 not to depend on the rows' order, nor on whether a row is
            # repeated or weighted, and at that size the wider type costs nothing.
            is_wide = X.shape[0] < _FEW_ROWS and validation.resolve_device(self.device).type != "mps"
            self.initialize(n_features=int(np.prod(X.shape[1:])), dtype=torch.float64 if is_wide else None)
            if not keeps_integers(X, self.module_):
                validation.warn_if_unscaled(X)
        weight = validation.combine_weights(sample_weight, getattr(self, "class_weight", None), y)
        return (self._rows(X, y, target, weight),)

    def _outputs(self, X):
        """Return the module's outputs for all rows, with the criterion's nonlinearity, as an array."""
        trained, net = vars(self).get("_trained"), self
        if found := trained and trained.find_outputs(self, X):  # the fused engine has computed them already
            net = trained.lane.net
        nonlinearity, outputs = net._get_predict_nonlinearity(), []
        with few_threads(net.module_, getattr(X, "shape", (0,))[0]):  # a list is never long
            for output in found or self.forward_iter(X, device="cpu"):
                output = output[0] if isinstance(output, tuple) else output
                is_binary = is_classifier(self) and output.shape[1:] == (1,)
                outputs.append(nonlinearity(output[:, 0] if is_binary else output))
        return torch.cat(outputs).detach().numpy()

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
    early_stopping, validation_fraction, n_iter_no_change, tol : bool, float, int, float, default=False, 0.1, 10, 1e-4
        Whether to hold `validation_fraction` of the rows out, stop when their loss has not fallen by `tol` for
        `n_iter_no_change` epochs, and restore the best epoch's weights.
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

    _decodes = True  # whether predictions are labels, or the class numbers that a Dataset brought

    def _read_targets(self, X, y, anew, classes=None):
        """Find the classes, and return the number of each row's; None for a Dataset, which brings them."""
        knows_classes = not anew and hasattr(self, "n_outputs_") and hasattr(self, "classes_")
        y = y if y is None else column_or_1d(y)
        if not knows_classes:
            given = self.classes if classes is None else classes
            if y is None:
                self.check_data(X, y)
            else:
                self.classes_inferred_ = np.unique(y if given is None else given)
            self._decodes = y is not None
            self.n_outputs_ = self._count_outputs()
        return None if y is None else validation.encode_labels(y, self.classes_)

    @property
    def classes_(self):
        """The sorted labels."""
        if self.classes is not None and len(self.classes):
            return np.unique(self.classes)
        return super().classes_

    def _count_outputs(self):
        """Return the number of outputs that the labels and the criterion call for; None if they don't tell."""
        labels = getattr(self, "classes_", np.array([]))
        n_classes = len(labels)
        if not self._decodes and self.classes is None:  # class numbers, of which some may be missing
            n_classes = int(labels[-1]) + 1 if n_classes and labels.dtype.kind in "iu" else None
        kind = self.criterion if isinstance(self.criterion, type) else type(self.criterion)
        if not issubclass(kind, _BINARY):
            return n_classes
        if n_classes is not None and n_classes > 2:
            raise ValueError(f"criterion={kind.__name__} must come with 2 classes, got {n_classes}")
        return 1

    def _decode(self, numbers):
        """Return the labels of class numbers; what was fitted to numbers, by a Dataset, keeps to them."""
        return self.classes_[to_numpy(numbers)] if self._decodes and hasattr(self, "classes_") else numbers

    def _public_batch(self, batch):
        """Return the pair that callbacks see: the labels are those of ``y``, as ``predict`` returns them."""
        batch = super()._public_batch(batch)
        return (batch[0], self._decode(batch[1])) if isinstance(batch, tuple) and len(batch) == 2 else batch

    def _match(self, y_pred, y_true):
        if not isinstance(y_pred, torch.Tensor):
            return y_pred, y_true
        criterion = self._plain_criterion()
        if isinstance(criterion, _BINARY):
            if y_pred.numel() != y_true.numel():
                raise _misfit(y_pred, f"({len(y_true)},) or ({len(y_true)}, 1): one logit or probability per row")
            return y_pred, y_true.to(y_pred.dtype).reshape(y_pred.shape)
        if isinstance(criterion, _BY_CLASS):
            n_classes = getattr(self, "n_outputs_", None) if self._decodes else None
            if y_pred.ndim < 2 or len(y_pred) != len(y_true) or n_classes not in (None, y_pred.shape[1]):
                raise _misfit(y_pred, f"({len(y_true)}, {n_classes}): one column per class")
        if isinstance(criterion, nn.NLLLoss):  # of probabilities, as in skorch
            y_pred = torch.log(y_pred + torch.finfo(y_pred.dtype).eps)
        return y_pred, y_true

    def predict_proba(self, X):
        """Return the probabilities of ``classes_`` for X as in :meth:`fit`: an ndarray (n_rows, n_classes)."""
        return self._outputs(X)

    def predict(self, X):
        """Return the most probable label of each row of X, as in :meth:`fit`: an ndarray (n_rows,)."""
        return self._decode(self.predict_proba(X).argmax(axis=1))

    def score(self, X, y, sample_weight=None):
        """Return the accuracy, weighted by `sample_weight` (n_rows,); a label unseen in ``fit`` counts as an error."""
        if not self.initialized_:
            self.check_is_fitted()
        y = np.asarray(y)
        if not (seen := np.isin(y, self.classes_)).all():
            message = f"y should hold labels seen in fit, got also {np.unique(y[~seen]).tolist()}: they count as errors"
            warnings.warn(message, UserWarning, stacklevel=2)
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
        if (getattr(self, "_y_ndim", None) or outputs.ndim) == 1:
            return outputs.reshape(-1)
        return outputs.reshape(len(outputs), -1).astype(np.float64)  # scikit-learn's type for several targets


def _misfit(y_pred, expected):
    return ValueError(f"the module's output must have shape {expected}, got {tuple(y_pred.shape)}")
