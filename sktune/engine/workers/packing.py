"""Tables on their way to a worker."""

import sys
from collections import OrderedDict
from dataclasses import dataclass
from threading import Lock

import numpy as np
import torch
from scipy import sparse

from sktune.engine.digest import digest
from sktune.training.rows import Rows

# The arrays that a worker keeps: a table and the targets of its folds, of a few searches.
_MOST_KEPT = 32
# NumPy has no bfloat16: a structured type keeps its bits and says what they are.
_BFLOAT16 = np.dtype([("bfloat16", np.int16)])


@dataclass(frozen=True, eq=False)
class PackedArray:
    """An array that Dask, Ray and joblib send to each worker once.

    Parameters
    ----------
    name : str
        The digest of its contents.
    array : ndarray or sparse matrix
    """

    name: str
    array: object

    @property
    def n_bytes(self):
        """How many bytes it holds."""
        array = self.array
        parts = [array.data, array.indices, array.indptr] if sparse.issparse(array) else [array]
        return sum(part.nbytes for part in parts)

    def __sizeof__(self):
        # Dask sends what is large beside its scheduler, and asks this
        return sys.getsizeof(self.name) + self.n_bytes

    def unpack(self, device):
        """Return the array as a tensor on a device; a sparse matrix stays one."""
        if sparse.issparse(self.array):
            return self.array
        is_bits = self.array.dtype == _BFLOAT16
        # torch shares memory that may be written to only: what was received may not
        array = self.array.view(np.int16) if is_bits else self.array
        tensor = torch.as_tensor(np.require(array, requirements=["C", "W"]))
        return (tensor.view(torch.bfloat16) if is_bits else tensor).to(device)


@dataclass(frozen=True, eq=False)
class PackedTable:
    """What a table is put together from.

    Parameters
    ----------
    X : str
        The name of its array.
    target, weight : str or None
        The names of their arrays.
    dtype : torch.dtype
        The floating type that modules compute in.
    """

    X: str
    target: str | None
    weight: str | None
    dtype: torch.dtype

    @property
    def names(self):
        """The names of its arrays."""
        return [name for name in (self.X, self.target, self.weight) if name is not None]

    def unpack(self, tensors, device):
        """Return the rows of the table.

        Parameters
        ----------
        tensors : dict
            Tensors, or sparse matrices, by the names of arrays.
        device : torch.device
        """
        rows = Rows(tensors[self.X], dtype=self.dtype, device=device)
        rows.target = tensors.get(self.target)
        rows.weight = tensors.get(self.weight)
        return rows


class Packer:
    """Turns tables into arrays; equal ones are one object, for all calls of a search."""

    def __init__(self):
        self._arrays = {}
        # digests of tensors, by where these are in memory
        self._names = {}

    def pack(self, rows):
        """Return the PackedTable of :class:`~sktune.training.rows.Rows`, and its arrays."""
        parts = [self._pack(part) for part in (rows.X, rows.target, rows.weight)]
        X, target, weight = (None if part is None else part.name for part in parts)
        table = PackedTable(X, target, weight, rows.dtype)
        return table, [part for part in parts if part is not None]

    def forget(self):
        """Let go of the tables; their arrays stay, for the next call of the search."""
        self._names.clear()

    def _pack(self, part):
        if part is None:
            return None
        name = self._find_name(part)
        if name not in self._arrays:
            self._arrays[name] = PackedArray(name, _to_numpy(part))
        return self._arrays[name]

    def _find_name(self, part):
        if sparse.issparse(part):
            return digest(part)
        key = (part.data_ptr(), part.shape, part.stride(), part.dtype, part.device)
        if key not in self._names:
            # the tensor is kept, so that no other one is put at its place in memory
            self._names[key] = (digest(part), part)
        return self._names[key][0]


def _to_numpy(part):
    """Return a tensor as an array, which shares its memory on a CPU."""
    if sparse.issparse(part):
        return part
    tensor = part.detach().cpu()
    if tensor.dtype == torch.bfloat16:
        return tensor.view(torch.int16).numpy().view(_BFLOAT16)
    return tensor.numpy()


class UnpackedArrays:
    """The arrays that a worker holds, so that the next group finds them there."""

    def __init__(self):
        self._tensors = OrderedDict()
        self._lock = Lock()

    def unpack(self, packed, device):
        """Return the tensor of a packed array on a device."""
        key = (packed.name, str(device))
        with self._lock:
            if key not in self._tensors:
                self._tensors[key] = packed.unpack(device)
            self._tensors.move_to_end(key)
            while len(self._tensors) > _MOST_KEPT:
                self._tensors.popitem(last=False)
            return self._tensors[key]
