"""Tables on their way to a worker."""

import sys
from collections import OrderedDict
from dataclasses import dataclass
from threading import Lock

import numpy as np
import torch
from scipy import sparse

from sktune.training.rows import Rows

# The tables that a worker keeps unpacked: those of a search and of one that began meanwhile.
_MOST_KEPT = 4


@dataclass(frozen=True, eq=False)
class PackedTable:
    """The arrays of a table, which Dask, Ray and joblib send to each worker once.

    Parameters
    ----------
    name : str
        The digest of the table's contents.
    X : ndarray or sparse matrix
    target, weight : ndarray or None
    dtype : torch.dtype
        The floating type that modules compute in.
    """

    name: str
    X: object
    target: np.ndarray | None
    weight: np.ndarray | None
    dtype: torch.dtype

    @classmethod
    def of(cls, name, rows):
        """Return the arrays of :class:`~sktune.training.rows.Rows`, which they share on a CPU."""
        X = rows.X if sparse.issparse(rows.X) else _to_numpy(rows.X)
        return cls(name, X, _to_numpy(rows.target), _to_numpy(rows.weight), rows.dtype)

    def __sizeof__(self):
        # Dask scatters what is large, and asks this
        return sys.getsizeof(self.name) + self.n_bytes

    @property
    def n_bytes(self):
        """How many bytes the arrays hold."""
        X = self.X
        arrays = [X.data, X.indices, X.indptr] if sparse.issparse(X) else [X]
        arrays += [array for array in (self.target, self.weight) if array is not None]
        return sum(array.nbytes for array in arrays)

    def unpack(self, device):
        """Return the rows, on a device."""
        X = self.X if sparse.issparse(self.X) else _to_torch(self.X, device)
        rows = Rows(X, dtype=self.dtype, device=device)
        rows.target = _to_torch(self.target, device)
        rows.weight = _to_torch(self.weight, device)
        return rows


def _to_numpy(tensor):
    """Return a tensor as an array; a type that NumPy does not have as the bits of its values."""
    if tensor is None:
        return None
    tensor = tensor.detach().cpu()
    if tensor.dtype == torch.bfloat16:
        return tensor.view(torch.int16).numpy().view(_BFLOAT16)
    return tensor.numpy()


# NumPy has no bfloat16: a structured type keeps its bits and says what they are.
_BFLOAT16 = np.dtype([("bfloat16", np.int16)])


def _to_torch(array, device):
    if array is None:
        return None
    if array.dtype == _BFLOAT16:
        bits = np.require(array.view(np.int16), requirements=["C", "W"])
        return torch.as_tensor(bits).view(torch.bfloat16).to(device)
    # torch shares memory that may be written to only: what was received may not
    array = np.require(array, requirements=["C", "W"])
    return torch.as_tensor(array).to(device)


class UnpackedTables:
    """The tables that a worker holds, so that the next group finds them there."""

    def __init__(self):
        self._rows = OrderedDict()
        self._lock = Lock()

    def unpack(self, packed, device):
        """Return the rows of a packed table on a device."""
        key = (packed.name, str(device))
        with self._lock:
            if key not in self._rows:
                self._rows[key] = packed.unpack(device)
            self._rows.move_to_end(key)
            while len(self._rows) > _MOST_KEPT:
                self._rows.popitem(last=False)
            return self._rows[key]
