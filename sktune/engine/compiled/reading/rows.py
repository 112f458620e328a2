"""Reading of a module and its rows into what the compiled kernels know."""

import torch


def own_their_memory(module):
    """Tell whether the parameters of a module are each in a memory by itself.

    They must also be of one type. Hooks that watch them, and other tensors in their memory, are
    told by :func:`~sktune.modules.structure.find_entanglement`.
    """
    parameters = list(module.parameters())
    n_memories = len({p.untyped_storage().data_ptr() for p in parameters})
    if n_memories != len(parameters) or len({p.dtype for p in parameters}) != 1:
        return False
    return all(p.numel() for p in parameters)


def is_readable_table(rows, parameter):
    """Tell whether the kernels read a table, or arrays: dense, of the parameters' type, on the CPU.

    A table of integers is read if the type of the parameters holds all of them.
    """
    X = getattr(rows, "X", None)
    if parameter is None:
        return False
    if not isinstance(X, torch.Tensor) or X.ndim < 2 or not X.is_contiguous() or not X.numel():
        return False
    if parameter.dtype not in (torch.float32, torch.float64):
        return False
    if X.dtype != parameter.dtype and not _are_exact(X, parameter.dtype):
        return False
    if rows.target is None or torch.is_autocast_enabled("cpu"):
        return False
    if torch.is_inference_mode_enabled():
        return False
    return X.device.type == parameter.device.type == "cpu"


def _are_exact(X, dtype):
    """Tell whether a table holds integers that are numbers of a floating type, too."""
    if X.dtype not in (torch.int64, torch.int32):
        return False
    most = 1 / torch.finfo(dtype).eps
    return -most <= X.min().item() and X.max().item() <= most


def are_entries(X, columns):
    """Tell whether columns of a table hold numbers of rows of the embeddings that look them up.

    Parameters
    ----------
    X : Tensor (N, F)
    columns : iterable of (int, int)
        A column, and the number of rows of an embedding.
    """
    for column, n_entries in columns:
        keys = X[:, column].long()
        if keys.min() < 0 or keys.max() >= n_entries:
            return False
    return True
