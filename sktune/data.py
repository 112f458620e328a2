"""Rows in memory, and batches that are slices of tensors."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import torch
from scipy import sparse
from skorch.dataset import Dataset, unpack_data
from torch.utils.data import Subset

from sktune.modules import wide_dtype
from sktune.randomness import permutation

_BLOCK_BYTES = 1 << 22  # rows gathered at once: they stay in a core's cache until they are used
EVALUATION_ROWS = 8192


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
            X = to_device(self.X[rows if isinstance(rows, slice) else rows.numpy()].toarray(), self.dtype, self.device)
        else:
            rows = rows if isinstance(rows, slice) else rows.to(self.device)
            X = self.X[rows]
            X = X.clone() if isinstance(rows, slice) else X  # a module may write into its input, which is the user's
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


def batch_sizes(n_rows, batch_size, drop_last=False):
    """Return the sizes of an epoch's batches; a last row on its own, which has no variance, joins those before it."""
    full, rest = divmod(n_rows, batch_size)
    sizes = [batch_size] * full
    if rest == 1 and full and not drop_last:
        sizes[-1] += 1
    elif rest and not drop_last:
        sizes.append(rest)
    return sizes


class Batches:
    """Batches of rows, each a slice of a block that was gathered at once.

    `indices` are the rows to use; None is all of them. They are shuffled by `seed`, of the fit, unless that is None.
    """

    def __init__(self, rows, indices, batch_size, *, seed=None, drop_last=False):
        self.rows, self.indices, self.seed = rows, indices, seed
        self.n_rows = len(rows) if indices is None else len(indices)
        self.sizes = batch_sizes(self.n_rows, int(batch_size), drop_last)  # torch knows no integers of NumPy here

    def __len__(self):
        return len(self.sizes)

    def __iter__(self):
        return self.epoch(0)

    def pairs(self, epoch):
        """Yield the batches of an epoch as skorch knows them: pairs of rows and what ``get_loss`` compares with."""
        for X, *others in self.epoch(epoch):
            yield X, as_target(others)

    def order(self, epoch):
        """Return which rows an epoch takes, one after the other; None is all of them as they are."""
        if self.seed is None:
            return self.indices
        order = permutation(self.n_rows, self.seed, epoch)
        return order if self.indices is None else self.indices[order]

    def epoch(self, epoch):
        """Yield the batches of an epoch, counted from 0."""
        order, start = self.order(epoch), 0
        n_together = max(1, _BLOCK_BYTES // (4 * max(self.sizes, default=1) * row_size(self.rows)))
        for first in range(0, len(self.sizes), n_together):
            sizes = self.sizes[first : first + n_together]
            stop = start + sum(sizes)
            block = self.rows.take(slice(start, stop) if order is None else order[start:stop])
            yield from zip(*(part.split(sizes) for part in block), strict=True)
            start = stop


class Pairs(Batches):
    """Batches for evaluation, which come as skorch's iterators give them: pairs."""

    def __iter__(self):
        return self.pairs(0)


def count_rows(X):
    """Return how many rows a table of any kind holds."""
    return X.shape[0] if hasattr(X, "shape") else len(X)


def row_size(rows):
    """Return how many numbers a row holds."""
    return max(1, int(np.prod(rows.X.shape[1:])))


def evaluation_batch_size(rows, batch_size, width):
    """Return how many rows to evaluate at once.

    Many are quicker, where it is known how many numbers the layers make of a row: `width` at most. Where
    that is not known (None), `batch_size` bounds the memory, as in training.
    """
    if width is None:
        return batch_size
    most = _BLOCK_BYTES // max(width, row_size(rows))
    return max(batch_size, min(EVALUATION_ROWS, most))
