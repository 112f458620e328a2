"""A network as a scikit-learn classifier."""

import warnings
from functools import partial

import numpy as np
import skorch
import torch
from sklearn.base import ClassifierMixin
from skorch.dataset import Dataset
from torch import nn
from torch.utils.data import DataLoader

from sktune.checks.labels import as_label_table
from sktune.checks.targets import check_outputs
from sktune.estimators.base import NetworkEstimator
from sktune.estimators.labels import Labels
from sktune.modules.mlp import MLP
from sktune.training.losses import BY_CLASS, is_of, match_classes


class NeuralNetClassifier(Labels, NetworkEstimator, skorch.NeuralNetClassifier):
    """A PyTorch network as a scikit-learn classifier.

    A skorch net in every respect (modules, callbacks, ``history``, ``save_params``), with labels of
    any kind, any table as input, and results that ``random_state`` repeats.

    Parameters
    ----------
    module : nn.Module class or instance, default=MLP
        The network. Its arguments are ``module__x``; those named ``n_features`` (numbers per row)
        and ``n_outputs`` (classes; 1 under a binary criterion) are found from the data unless
        given. It returns what the criterion takes: logits of shape (n_rows, n_classes) for the
        default.
    criterion : nn.Module class or instance, default=CrossEntropyLoss
        The loss; its arguments are ``criterion__x``. Under ``NLLLoss`` the module returns
        probabilities, as in skorch; under ``BCEWithLogitsLoss`` one logit per row.
    optimizer : torch.optim.Optimizer class, default=AdamW (Loshchilov and Hutter 2019)
        Its arguments are ``optimizer__x``, among them ``optimizer__weight_decay``. It runs in
        torch's fused implementation where there is one, unless ``optimizer__fused`` or
        ``optimizer__foreach`` is given.
    lr, max_epochs, batch_size : float, int, int, default=1e-3, 50, 64
        Learning rate, passes over the data, and rows per training step.
    l1, l2 : float, default=0.0
        Add ``l1 * sum |w| + l2 * sum w**2`` over the weights to the training loss; weights are the
        parameters of two dimensions or more, which leaves out biases and normalisation.
    clip_grad_norm, clip_grad_value : float or None, default=None
        With `clip_grad_norm`, the gradient of each step is scaled down where its L2 norm over all
        parameters is larger (Pascanu et al. 2013); with `clip_grad_value`, each of its numbers is
        then limited to between ``-clip_grad_value`` and ``clip_grad_value``. The penalties of `l1`
        and `l2` are part of the gradient, the weight decay is not. A ``GradientNormClipping`` among
        the `callbacks` comes afterwards.
    lr_schedule : str or callable, default="constant"
        ``"constant"``, ``"step"``, ``"exponential"``, ``"time"``, ``"cosine"`` or ``"one_cycle"``,
        with parameters ``lr_schedule__x``; ``lr_schedule__warmup`` is a number of epochs. See
        :mod:`sktune.training.schedules`.
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
    augment : {"images", "table"}, augmentation, callable or None, default=None
        How rows are changed at random in each epoch, in training only. ``"images"`` is
        :class:`ImageAugmentation` and ``"table"`` is :class:`TableAugmentation`; their parameters
        are ``augment__x``, such as ``augment__degrees``, and 0 switches an operation off. They go
        before those of an instance. A callable is a function of a batch, ``function(X)`` or
        ``function(X, y)``, that returns what it is given, changed; it may take a ``generator``.
    early_stopping : bool or "train_loss", default=False
        With True, `validation_fraction` of the rows are held out, the fit stops when their loss has
        not fallen by `tol` for `n_iter_no_change` epochs, and the best epoch's weights are
        restored. With ``"train_loss"``, no rows are held out, and the fit stops when the mean
        training loss (penalties included) has not fallen by `tol` for `n_iter_no_change` epochs;
        the weights are those of the last epoch.
    validation_fraction : float, default=0.1
        The share of the rows that ``early_stopping=True`` holds out.
    n_iter_no_change : int or inf, default=10
        How many epochs early stopping waits for a better one.
    tol : float, default=1e-4
        By how much the loss must fall for early stopping to count it as better.
    random_state : int, RandomState or None, default=None
        With an int each fit has the same initial weights, batches and dropout masks, whatever ran
        before. No global seed is touched.
    device : str or torch.device, default="auto"
        ``"auto"`` is CUDA, else MPS, else CPU.
    warm_start : bool, default=False
        Whether ``fit`` goes on from the weights of the last one.
    verbose : int, default=0
        Above 0, skorch's table of losses is printed, a line per epoch.
    callbacks : list of skorch callbacks, "disable" or None, default=None
        See ``skorch.callbacks``. With ``"disable"``, skorch's own callbacks are left out, too.
    train_split : callable or None, default=None
        skorch's validation split, for callbacks that want one. By default all rows are trained on.
    classes : array-like or None, default=None
        The labels, where ``y`` may lack some; None takes those in ``y``.
    iterator_train, iterator_valid, dataset
        As in skorch. With the default iterators, arrays are batched by slicing.
    predict_nonlinearity, compile, use_caching, torch_load_kwargs
        As in skorch.
    **kwargs
        Arguments of the components, such as ``module__dropout=0.5``.

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
        A classifier's accuracy on the rows held out after each epoch, and the best; for a regressor
        (and where skorch's callbacks are off) the validation loss with its sign changed. None where
        no rows were held out.
    n_features_in_ : int
        Columns of X in ``fit``; ``feature_names_in_`` holds their names where X had some.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.pipeline import make_pipeline
    >>> from sklearn.preprocessing import StandardScaler
    >>> from sktune import NeuralNetClassifier
    >>> iris = load_iris()
    >>> names = iris.target_names[iris.target]
    >>> net = NeuralNetClassifier(lr=0.01, max_epochs=20, module__dropout=0.1, random_state=0)
    >>> pipeline = make_pipeline(StandardScaler(), net).fit(iris.data, names)
    >>> str(pipeline.predict(iris.data[:1])[0])
    'setosa'
    """

    def __init__(
        self, module=MLP, criterion=nn.CrossEntropyLoss, optimizer=torch.optim.AdamW, *,
        lr=1e-3, max_epochs=50, batch_size=64, l1=0.0, l2=0.0, lr_schedule="constant", shuffle=True,
        class_weight=None, early_stopping=False, validation_fraction=0.1, n_iter_no_change=10,
        tol=1e-4, random_state=None, device="auto", warm_start=False, verbose=0, callbacks=None,
        train_split=None, classes=None, predict_nonlinearity="auto",
        iterator_train=DataLoader, iterator_valid=DataLoader, dataset=Dataset,
        lr_scaling=None, lr_scaling_batch_size=64, clip_grad_norm=None, clip_grad_value=None,
        augment=None,
        compile=False, use_caching="auto", torch_load_kwargs=None, **kwargs,
    ):  # fmt: skip
        self._assign(locals())

    _match_rule = staticmethod(match_classes)

    def _public_batch(self, batch):
        """Return the batch as callbacks see it: with labels as they were given in ``y``."""
        batch = super()._public_batch(batch)
        if not isinstance(batch, tuple | list) or len(batch) != 2:
            return batch
        X, target = batch
        return (X, self._decode(target)) if isinstance(target, torch.Tensor) else batch

    def _get_predict_nonlinearity(self):
        """Return the function that turns outputs into probabilities.

        For sequences of labels the outputs have the shape (n_rows, n_classes, ...). skorch's
        softmax is over the last axis: here it is over the classes.
        """
        nonlinearity = super()._get_predict_nonlinearity()
        is_softmax = isinstance(nonlinearity, partial) and nonlinearity.func is torch.softmax
        return _softmax_of_classes if is_softmax else nonlinearity

    def predict_proba(self, X):
        """Return the probabilities of ``classes_`` for the rows of X.

        Parameters
        ----------
        X : array-like of shape (n_rows, n_features)
            See :meth:`fit`.

        Returns
        -------
        probabilities : ndarray of shape (n_rows, n_classes)
            For a table of labels, (n_rows, n_labels): the probability of each label.
        """
        outputs = self._outputs(X)
        # Under the criteria BY_CLASS, training has checked the columns. The user may have replaced
        # the module since: its outputs are then the user's business.
        if not is_of(self.criterion, BY_CLASS):
            self._check_outputs(outputs, X)
        return outputs

    def _check_outputs(self, outputs, X):
        """Check that predictions have a column for each class.

        With a `predict_nonlinearity` of the user's they may have any shape.
        """
        if self._decodes and self.predict_nonlinearity == "auto":
            # A net that is initialized but not fitted has no classes yet.
            classes = getattr(self, "classes_", None)
            n_classes = None if classes is None else len(classes)
            check_outputs(outputs, self._rows_asked(X), n_classes, what="classes")

    def predict(self, X):
        """Return the most probable label of each row of X.

        Parameters
        ----------
        X : array-like of shape (n_rows, n_features)
            See :meth:`fit`.

        Returns
        -------
        labels : ndarray of shape (n_rows,)
            For a table of labels, (n_rows, n_labels): 1 for labels that are more probable than not.
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
        """Return the accuracy.

        Labels that were not seen in ``fit`` count as errors, with a warning. Labels that the
        criterion ignores (its ``ignore_index``) do not count.

        Parameters
        ----------
        X : array-like of shape (n_rows, n_features)
            See :meth:`fit`.
        y : array-like of shape (n_rows,)
            Labels. Of a table of labels, the share of rows is returned whose labels are all right.
        sample_weight : array-like of shape (n_rows,), default=None
            Weights of the rows.
        """
        if not self.initialized_:
            self.check_is_fitted()
        if self._label_dtype is not None:
            table = as_label_table(y)
            return ClassifierMixin.score(self, X, y if table is None else table, sample_weight)
        y = np.asarray(y)
        ignored = self._find_ignored_label()
        counts = np.ones(y.shape, dtype=bool) if ignored is None else y != ignored
        is_known = np.isin(y, self.classes_) | ~counts
        if not is_known.all():
            unseen = np.unique(y[~is_known]).tolist()
            warnings.warn(
                f"y should hold labels seen in fit, got also {unseen}: they count as errors",
                UserWarning,
                stacklevel=2,
            )
        if y.ndim > 1 and y.shape[1:] != (1,):
            return self._score_sequences(X, y, sample_weight, counts)
        if not counts.all():
            sample_weight = _weights_of_rows(sample_weight, len(y)) * counts.reshape(-1)
        return ClassifierMixin.score(self, X, y, sample_weight)

    def _score_sequences(self, X, y, sample_weight, counts):
        """Return the accuracy over all labels of sequences; `counts` tells which of them count."""
        weights = _weights_of_rows(sample_weight, len(y))
        weights = counts.reshape(len(y), -1) * weights[:, np.newaxis]
        is_right = (self.predict(X) == y).reshape(len(y), -1)
        return float(np.average(is_right, weights=weights))


def _weights_of_rows(sample_weight, n_rows):
    """Return the weights of rows as an array (n_rows,); 1 where none are given."""
    if sample_weight is None:
        return np.ones(n_rows)
    return np.asarray(sample_weight, dtype=float)


def _softmax_of_classes(outputs):
    return torch.softmax(outputs, dim=1 if outputs.ndim > 1 else -1)
