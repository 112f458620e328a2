"""Rows in memory."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import torch
from scipy import sparse
from skorch.dataset import Dataset, unpack_data
from torch.utils.data import Subset

from sktune.runtime.dtypes import wide_dtype


def to_device(array, dtype, device):
    """Return an array as a tensor; it shares the array's memory where it can. None is torch's own dtype."""
    array = np.require(array, requirements=["C", "W"])  # what torch can share
    return torch.as_tensor(array).to(device=device, dtype=dtype)


def convert_table(X, dtype, device):
    """Return a table as it is trained on: a tensor, or the CSR table itself, which is made dense batch by batch."""
    table = X if sparse.issparse(X) else to_device(X, dtype, device)
    if X.dtype == np.float64 and dtype.is_floating_point and dtype != torch.float64:
        values = torch.as_tensor(X.data).to(dtype) if sparse.issparse(X) else table
        if not torch.isfinite(values).all():
            raise ValueError(
                f"X must fit the module's type {dtype}, got a value too large for it: "
                "scale the features or pass module__dtype=torch.float64"
            )
    return table


class Weighted(NamedTuple):
    """What ``get_loss`` takes for targets where the rows are weighted."""

    target: torch.Tensor
    weight: torch.Tensor


class Rows(Dataset):
    """A table in memory, converted once.

    `X` is from :func:`convert_table`, `y` as the user gave it, and `target` what the criterion compares with: class
    numbers, or a column per regression target. `weight` are factors on the rows' losses, and `dtype` is the floating
    type that the module computes in. `given` is the table as the user gave it, for callbacks and splits; None if
    nobody will ask for it.
    """

    def __init__(self, X, y=None, target=None, weight=None, *, dtype, device="cpu", given=None):
        super().__init__(X, y)
        self.public = None if given is None else Dataset(given, y)
        self.X, self.dtype, self.device = X, dtype, device
        floating = dtype if target is not None and target.dtype.kind == "f" else None
        self.target = None if target is None else to_device(target, floating, device)
        self.weight = None if weight is None else to_device(weight, wide_dtype(dtype), device)

    def take(self, rows):
        """Return a batch: (X, target) or (X, target, weight) at a slice or an index tensor."""
        if sparse.issparse(self.X):
            X = to_device(
                self.X[rows if isinstance(rows, slice) else rows.numpy()].toarray(),
                self.dtype,
                self.device,
            )
        else:
            rows = rows if isinstance(rows, slice) else rows.to(self.device)
            X = self.X[rows]
            X = (
                X.clone() if isinstance(rows, slice) else X
            )  # a module may write into its input, which is the user's
        return X, *(part[rows] for part in (self.target, self.weight) if part is not None)

    def __getitem__(self, i):
        """Return a row as skorch's datasets do: a pair, whose second item is 0 where there are no targets."""
        X, *others = (part[0] for part in self.take(torch.tensor([i])))
        return X, as_target(others)


class Encoded(torch.utils.data.Dataset):
    """A dataset of pairs whose second items, labels, are encoded by a function."""

    def __init__(self, dataset, encode):
        self.dataset, self.encode = dataset, encode

    def __len__(self):
        return len(self.dataset)

    def __getitem__(self, i):
        X, y = unpack_data(self.dataset[i])
        return X, self.encode(y)


def cast_floating(data, dtype):
    """Return tensors, or a dict, list or tuple of them, with all floating numbers in the type of a module."""
    if isinstance(data, torch.Tensor):
        return data.to(dtype) if data.is_floating_point() else data
    if isinstance(data, Mapping):
        return {name: cast_floating(part, dtype) for name, part in data.items()}
    if type(data) in (list, tuple):
        return type(data)(cast_floating(part, dtype) for part in data)
    return data


def restore_row(output, n_rows):
    """Give the output for a batch of one row its first dimension back, which a module's ``squeeze`` has taken."""
    if n_rows != 1:
        return output
    if type(output) is tuple:
        return tuple(restore_row(part, n_rows) for part in output)
    is_squeezed = isinstance(output, torch.Tensor) and (output.ndim == 0 or len(output) != 1)
    return output.unsqueeze(0) if is_squeezed else output


def as_target(parts):
    """Return what ``get_loss`` compares with, made of a batch's target and weight, as far as there are any."""
    if not parts:
        return torch.zeros(1)
    return parts[0] if len(parts) == 1 else Weighted(*parts)


def rows_of(dataset):
    """Return the :class:`Rows` under a dataset and the indices it takes of them, or (None, None)."""
    indices = None
    while isinstance(dataset, Subset):
        picked = torch.as_tensor(np.asarray(dataset.indices))
        indices = picked if indices is None else picked[indices]
        dataset = dataset.dataset
    return (dataset, indices) if isinstance(dataset, Rows) else (None, None)


def public_dataset(dataset):
    """Return a dataset as callbacks and splits see it: what the user gave, in place of our tensors and numbers."""
    if isinstance(dataset, Subset):
        inner = public_dataset(dataset.dataset)
        return dataset if inner is dataset.dataset else Subset(inner, dataset.indices)
    public = getattr(dataset, "public", None)
    return dataset if public is None else public


def count_rows(X):
    """Return how many rows a table of any kind holds."""
    return X.shape[0] if hasattr(X, "shape") else len(X)


def row_size(rows):
    """Return how many numbers a row holds."""
    return max(1, int(np.prod(rows.X.shape[1:])))
