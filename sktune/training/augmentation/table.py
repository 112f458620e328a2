"""Augmentation of tables."""

import numpy as np
import torch

from sktune.training.augmentation.base import FINITE, PROPER_SHARE, STRENGTH, Augmentation
from sktune.training.augmentation.draws import MASK, NOISE


class TableAugmentation(Augmentation):
    """Change the rows of a table at random, anew in each epoch, while a network is trained.

    A strength of 0 is off. Each row gets numbers of its own, which follow from the seed of the fit,
    the epoch, the batch and the row. Rows that are validated on, tested or predicted are never
    changed.

    Parameters
    ----------
    noise : float, default=0.0
        The standard deviation of normal noise that is added, in the units of X (Bishop 1995): scale
        the columns first.
    mask : float, default=0.0
        The probability with which a number is replaced by `fill`; less than 1.
    mixup : float, default=0.0
        The parameter alpha of mixup (Zhang et al. 2018): each row becomes a mixture of itself and
        another row of its batch, in shares drawn from a Beta(alpha, alpha) distribution. A
        regressor's targets are mixed in the same shares, and so are sample weights. For a
        classifier, the loss of a row is the mixture of its losses for the two labels, each with
        the weight of the row that the label comes from.
    columns : array-like of int, default=None
        The columns that `noise` and `mask` change; None is all. Leave out columns of categories.
    fill : float, default=0.0
        What masked numbers become. 0 is the mean of a standardised column.

    See Also
    --------
    ImageAugmentation : The same for images.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.preprocessing import scale
    >>> from sktune import GridSearchCV, NeuralNetClassifier
    >>> X, y = load_iris(return_X_y=True)
    >>> net = NeuralNetClassifier(augment="table", max_epochs=5, random_state=0)
    >>> search = GridSearchCV(net, {"augment__noise": [0.0, 0.1, 0.3]}, cv=3)
    >>> search = search.fit(scale(X), y)
    >>> [group["lanes"] for group in search.fusion_.groups]
    [9]
    """

    _RANGES = {"noise": STRENGTH, "mask": PROPER_SHARE, "mixup": STRENGTH, "fill": FINITE}
    _STRENGTHS = ("noise", "mask", "mixup")

    def __init__(self, noise=0.0, mask=0.0, mixup=0.0, *, columns=None, fill=0.0):
        self.noise = noise
        self.mask = mask
        self.mixup = mixup
        self.columns = columns
        self.fill = fill

    def check(self):
        """Check the ranges of the parameters; see `Augmentation`."""
        super().check()
        self.changed_columns()

    def check_rows(self, shape, is_floating):
        """Check that rows of such a shape can be changed; see `Augmentation`."""
        super().check_rows(shape, is_floating)
        columns = self.changed_columns()
        if columns is None:
            return
        if len(shape) != 1:
            raise ValueError(
                "augment__columns must come with a table of shape (n_rows, n_features), got rows "
                f"of shape {tuple(shape)}"
            )
        unknown = [column for column in columns if not 0 <= column < shape[0]]
        if unknown:
            raise ValueError(
                f"augment__columns must be numbers of columns from 0 to {shape[0] - 1}, got "
                f"{unknown}"
            )

    def changed_columns(self):
        """Return the columns that noise and masks change, a list of int; None is all."""
        if self.columns is None:
            return None
        columns = np.asarray(self.columns)
        is_list = columns.ndim == 1 and columns.dtype.kind in "iu"
        if not is_list and columns.size:
            raise ValueError(
                "augment__columns must be a list of numbers of columns, got "
                f"augment__columns={self.columns!r}"
            )
        return columns.astype(int).tolist()

    def key(self):
        """Return what is equal for equal augmentations, and can be hashed."""
        return (*super().key(), repr(self.changed_columns()))

    def change(self, X, draws):
        """Return changed rows; see `Augmentation`."""
        columns = self.changed_columns()
        if columns is None:
            return self._change(X.flatten(1), draws).view(X.shape)
        X[:, columns] = self._change(X[:, columns], draws)
        return X

    def _change(self, X, draws):
        """Return the changed columns of rows (R, F)."""
        n_features = X.shape[1]
        if self.noise:
            X = X + float(self.noise) * draws.normal(NOISE, n_features)
        if self.mask:
            is_masked = draws.uniform(MASK, n_features) < float(self.mask)
            X = torch.where(is_masked, torch.full_like(X[:1, :1], float(self.fill)), X)
        return X
