"""A network as a scikit-learn regressor."""

import numpy as np
import skorch
import torch
from sklearn.utils.metaestimators import available_if
from skorch.dataset import Dataset
from torch import nn
from torch.utils.data import DataLoader

from sktune.checks.targets import check_fractions, check_outputs
from sktune.estimators.base import NetworkEstimator
from sktune.estimators.classifier import NeuralNetClassifier
from sktune.estimators.overrides import remember_methods
from sktune.modules.mlp import MLP
from sktune.training.losses import is_binary, match_targets


class NeuralNetRegressor(NetworkEstimator, skorch.NeuralNetRegressor):
    """A PyTorch network as a scikit-learn regressor, of one target or several.

    Networks learn targets of unit variance best: see
    ``sklearn.compose.TransformedTargetRegressor``.

    Parameters
    ----------
    module : nn.Module class or instance, default=MLP
        See :class:`NeuralNetClassifier`; ``n_outputs`` is the number of targets.
    criterion : nn.Module class or instance, default=MSELoss
        Compares tensors of the shape (n_rows, n_outputs) that the module returns. For a single
        target a module may as well return (n_rows,).
    optimizer, lr and all others
        See :class:`NeuralNetClassifier`; only `class_weight` and `classes` do not exist.

    Attributes
    ----------
    n_outputs_ : int
        The number of targets. For the others see :class:`NeuralNetClassifier`.

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
        random_state=None, device="auto", warm_start=False, verbose=0, callbacks=None,
        train_split=None, predict_nonlinearity="auto",
        iterator_train=DataLoader, iterator_valid=DataLoader, dataset=Dataset,
        lr_scaling=None, lr_scaling_batch_size=64, clip_grad_norm=None, clip_grad_value=None,
        augment=None,
        compile=False, use_caching="auto", torch_load_kwargs=None, **kwargs,
    ):  # fmt: skip
        self._assign(locals())

    @available_if(lambda net: False)
    def predict_proba(self, X):
        """Not offered: a regressor has no probabilities."""

    def _read_targets(self, X, y, anew, classes=None):
        """Return the targets as columns, and remember their shape."""
        if y is None:
            # A Dataset brings its targets.
            if anew:
                self.n_outputs_ = self._y_ndim = None
            return None
        y = np.asarray(y)
        dtype = np.float32 if y.dtype == np.float32 else np.float64
        target = y.astype(dtype).reshape(len(y), -1)
        if is_binary(self.criterion):
            check_fractions(target, self.criterion)
        if anew or getattr(self, "_y_ndim", None) is None:
            self.n_outputs_, self._y_ndim = target.shape[1], y.ndim
        elif target.shape[1] != self.n_outputs_:
            raise ValueError(
                f"y must have {self.n_outputs_} columns as in the first fit, got {target.shape[1]}"
            )
        return target

    _match_rule = staticmethod(match_targets)

    def predict(self, X):
        """Return the predicted targets of the rows of X.

        Parameters
        ----------
        X : array-like of shape (n_rows, n_features)
            See :meth:`fit`.

        Returns
        -------
        targets : ndarray of shape (n_rows,) or (n_rows, n_outputs)
            In as many dimensions as the ``y`` of :meth:`fit`.
        """
        outputs = self._outputs(X)
        check_outputs(outputs, self._rows_asked(X), getattr(self, "n_outputs_", None))
        if (getattr(self, "_y_ndim", None) or outputs.ndim) == 1:
            return outputs.reshape(-1)
        # scikit-learn's own regressors return float64 for several targets.
        return outputs.reshape(len(outputs), -1).astype(np.float64)


remember_methods(NeuralNetClassifier, NeuralNetRegressor)
