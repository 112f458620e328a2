"""Rows in memory."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import torch
from scipy import sparse
from skorch.dataset import Dataset, unpack_data
from torch.utils.data import Subset

from sktune.runtime.dtypes import wide_dtype
from sktune.runtime.gpu.transfers import send


def to_device(array, dtype, device):
    """Return an array as a tensor that shares the array's memory where it can.

    A `dtype` of None keeps the type of the array.
    """
    # torch shares contiguous and writable memory only.
    array = np.require(array, requirements=["C", "W"])
    return torch.as_tensor(array).to(device=device, dtype=dtype)


def convert_table(X, dtype, device):
    """Return a table in the form that is trained on.

    Parameters
    ----------
    X : ndarray or sparse matrix in CSR format
    dtype : torch.dtype
        The type that the module computes in.
    device : torch.device

    Returns
    -------
    table : Tensor, or the sparse matrix itself
        A sparse matrix is made dense batch by batch.

    Raises
    ------
    ValueError
        If a value is too large for `dtype`.
    """
    is_sparse = sparse.issparse(X)
    table = X if is_sparse else to_device(X, dtype, device)
    is_narrowed = X.dtype == np.float64 and dtype.is_floating_point and dtype != torch.float64
    if is_narrowed:
        values = torch.as_tensor(X.data).to(dtype) if is_sparse else table
        if not torch.isfinite(values).all():
            raise ValueError(
                f"X must fit the module's type {dtype}, got a value too large for it: "
                "scale the features or pass module__dtype=torch.float64"
            )
    return table


class Weighted(NamedTuple):
    """The targets that ``get_loss`` takes where the rows are weighted."""

    target: torch.Tensor
    weight: torch.Tensor


class Mixed(NamedTuple):
    """The targets that ``get_loss`` takes where a row has two, each with a weight of its own."""

    target: torch.Tensor
    weight: torch.Tensor
    other: torch.Tensor
    other_weight: torch.Tensor


class Rows(Dataset):
    """A table in memory, converted once.

    Parameters
    ----------
    X : Tensor or sparse matrix (n_rows, ...)
        From :func:`convert_table`.
    y : array-like, default=None
        The targets as the user gave them.
    target : ndarray (n_rows, ...), default=None
        What the criterion compares with: class numbers, or a column for each regression target.
    weight : ndarray (n_rows,), default=None
        Factors on the rows' losses.
    dtype : torch.dtype
        The floating type that the module computes in.
    device : torch.device, default="cpu"
    given : array-like, default=None
        The table as the user gave it, for callbacks and splits. None if nothing will read it.
    """

    def __init__(self, X, y=None, target=None, weight=None, *, dtype, device="cpu", given=None):
        super().__init__(X, y)
        self.public = None if given is None else Dataset(given, y)
        self.X = X
        self.dtype = dtype
        self.device = device
        self.target = None
        if target is not None:
            # Class numbers stay integers.
            target_dtype = dtype if target.dtype.kind == "f" else None
            self.target = to_device(target, target_dtype, device)
        self.weight = None
        if weight is not None:
            self.weight = to_device(weight, wide_dtype(dtype), device)

    def take(self, rows):
        """Return a batch.

        Parameters
        ----------
        rows : slice or LongTensor
            The positions of the rows.

        Returns
        -------
        batch : tuple of Tensor
            (X, target, weight), without the target or the weight where there are none.
        """
        is_slice = isinstance(rows, slice)
        positions = rows if is_slice else send(rows, self.device)
        if sparse.issparse(self.X):
            part = self.X[rows if is_slice else rows.numpy()]
            X = to_device(part.toarray(), self.dtype, self.device)
        else:
            X = self.X[positions]
            if is_slice:
                # A module may write into its input, which must not be the user's table.
                X = X.clone()
        others = [part[positions] for part in (self.target, self.weight) if part is not None]
        return X, *others

    def __getitem__(self, i):
        """Return a row as skorch's datasets do: a pair, with 0 where there are no targets."""
        X, *others = (part[0] for part in self.take(torch.tensor([i])))
        return X, as_target(others)


class Encoded(torch.utils.data.Dataset):
    """A dataset of pairs (X, label) whose labels are encoded by a function."""

    def __init__(self, dataset, encode):
        self.dataset = dataset
        self.encode = encode

    def __len__(self):
        return len(self.dataset)

    def __getitem__(self, i):
        X, y = unpack_data(self.dataset[i])
        return X, self.encode(y)


def cast_floating(data, dtype):
    """Return tensors, or a dict, list or tuple of them, with floating tensors in type `dtype`."""
    if isinstance(data, torch.Tensor):
        return data.to(dtype) if data.is_floating_point() else data
    if isinstance(data, Mapping):
        return {name: cast_floating(part, dtype) for name, part in data.items()}
    if type(data) in (list, tuple):
        return type(data)(cast_floating(part, dtype) for part in data)
    return data


def restore_row(output, n_rows):
    """Return a module's output with the dimension of the rows.

    For a batch of one row, a ``squeeze`` in the module's forward removes this dimension.
    """
    if n_rows != 1:
        return output
    if type(output) is tuple:
        return tuple(restore_row(part, n_rows) for part in output)
    is_squeezed = isinstance(output, torch.Tensor) and (output.ndim == 0 or len(output) != 1)
    return output.unsqueeze(0) if is_squeezed else output


def as_target(parts):
    """Return what ``get_loss`` takes for a batch's [], [target] or [target, weight].

    Where rows have two targets it is [target, weight, other target, its weight].
    """
    if not parts:
        return torch.zeros(1)
    if len(parts) == 4:
        return Mixed(*parts)
    return parts[0] if len(parts) == 1 else Weighted(*parts)


def split_target(y_true):
    """Return what :func:`as_target` returned as pairs (target, weight); the weight may be None."""
    if isinstance(y_true, Mixed):
        return [(y_true.target, y_true.weight), (y_true.other, y_true.other_weight)]
    return [y_true if isinstance(y_true, Weighted) else (y_true, None)]


def rows_of(dataset):
    """Return the rows under a dataset.

    Parameters
    ----------
    dataset : Dataset
        :class:`Rows`, or a ``Subset`` of them, or a ``Subset`` of such a ``Subset``.

    Returns
    -------
    rows : Rows or None
        None for any other dataset.
    indices : LongTensor or None
        The rows that the dataset takes; None is all of them.
    """
    indices = None
    while isinstance(dataset, Subset):
        # Positions in the dataset below, of which the subset above may take some only.
        chosen = torch.as_tensor(np.asarray(dataset.indices))
        indices = chosen if indices is None else chosen[indices]
        dataset = dataset.dataset
    return (dataset, indices) if isinstance(dataset, Rows) else (None, None)


def public_dataset(dataset):
    """Return a dataset as callbacks and splits see it: with the user's table in place of ours."""
    if isinstance(dataset, Subset):
        inner = public_dataset(dataset.dataset)
        return dataset if inner is dataset.dataset else Subset(inner, dataset.indices)
    public = getattr(dataset, "public", None)
    return dataset if public is None else public


def count_rows(X):
    """Return how many rows a table of any type holds."""
    return X.shape[0] if hasattr(X, "shape") else len(X)


def row_size(rows):
    """Return how many numbers a row holds, at least 1."""
    return max(1, int(np.prod(rows.X.shape[1:])))
