"""The largest batch that fits into memory."""

import gc
from numbers import Integral

import torch
from sklearn.base import clone
from skorch.callbacks import Callback
from skorch.dataset import get_len

from sktune.inspection.nets import find_net

# An optimizer makes its state in the first step, which a later one needs beside all else. Of two
# steps, the second may be the smaller rest of an epoch.
_N_STEPS = 3
# What torch says where a device has no exception of its own for it.
_OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "not enough memory")


def find_max_batch_size(
    estimator, X, y=None, *, start=None, max_batch_size=None, params=None, verbose=0
):
    """Find the largest batch that a network can be trained with in the memory there is.

    Copies of the estimator take three steps each. The batch is doubled until the memory is
    exceeded; if the first one exceeds it, it is halved until it does not.

    Parameters
    ----------
    estimator : network, or Pipeline that ends in one
        A net of sktune's or of skorch's; it stays as it is. It is trained alone: a search that
        trains several networks together needs the memory of all of them.
    X, y : array-like, frame, or what else `fit` takes
    start : int, default=None
        The first size to try. None is the `batch_size` of the network.
    max_batch_size : int, default=None
        The largest size to try. None is the number of rows.
    params : dict, default=None
        Arguments of the estimator's `fit`, such as `sample_weight`.
    verbose : int, default=0
        Above 0, each size that is tried is printed.

    Returns
    -------
    batch_size : int
        `start`, doubled or halved so many times; or `max_batch_size`, if memory is no limit.

    Raises
    ------
    TypeError
        If the estimator is no network, nor a Pipeline that ends in one.
    ValueError
        If a size is not an int of at least 1.
    MemoryError
        If not even a batch of one row fits. All other errors of `fit` are raised as they are.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sktune import NeuralNetClassifier, find_max_batch_size
    >>> X, y = load_iris(return_X_y=True)
    >>> find_max_batch_size(NeuralNetClassifier(), X - X.mean(axis=0), y)
    150
    """
    net, _ = find_net(estimator)
    n_rows = get_len(X)
    largest = n_rows if max_batch_size is None else max_batch_size
    size = net.batch_size if start is None else start
    if start is None and size == -1:
        size = n_rows
    for name, value in (("start", size), ("max_batch_size", largest)):
        is_int = isinstance(value, Integral) and not isinstance(value, bool)
        if not is_int or value < 1:
            raise ValueError(f"{name} must be an int of at least 1, got {name}={value!r}")
    # a larger batch than all rows is that of all rows
    largest = min(int(largest), n_rows)

    def fits(size):
        is_enough = _try_batch_size(estimator, size, X, y, params or {})
        if verbose > 0:
            print(f"batch_size={size}: {'fits' if is_enough else 'out of memory'}")
        return is_enough

    return _search(fits, min(int(size), largest), largest)


def _search(fits, size, largest):
    """Return the largest size that fits, doubling or halving the first one."""
    if fits(size):
        while size < largest:
            # the last may be less than double
            larger = min(2 * size, largest)
            if not fits(larger):
                break
            size = larger
        return size
    while size > 1:
        size //= 2
        if fits(size):
            return size
    raise MemoryError("a batch of one row must fit in memory, got an error out of memory for it")


def _try_batch_size(estimator, size, X, y, params):
    """Train a copy of an estimator for some steps; tell whether the memory was enough."""
    net, prefix = find_net(estimator)
    callbacks = [] if net.callbacks in (None, "disable") else list(net.callbacks)
    named = {
        "batch_size": size,
        "max_epochs": _N_STEPS,
        "verbose": 0,
        "callbacks": [*callbacks, ("stop_after_steps", _StopAfterSteps())],
    }
    trial = clone(estimator).set_params(**{f"{prefix}{name}": v for name, v in named.items()})
    is_enough = True
    try:
        trial.fit(X, y, **params)
    except (MemoryError, RuntimeError) as error:
        if not _is_out_of_memory(error):
            raise
        is_enough = False
    # Only here the error is gone, whose traceback holds the tensors of the step.
    del trial
    _free_memory()
    return is_enough


def _is_out_of_memory(error):
    """Tell whether an error says that memory is exceeded, and nothing else."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return any(text in str(error).lower() for text in _OUT_OF_MEMORY)


def _free_memory():
    """Give memory back to the device, also that of objects in reference cycles."""
    gc.collect()
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()
    if torch.backends.mps.is_available():
        torch.mps.empty_cache()


class _StopAfterSteps(Callback):
    """Ends the training after some steps."""

    n_steps_ = 0

    def on_batch_end(self, net, training=None, **kwargs):
        """Count the step."""
        self.n_steps_ += bool(training)
        if self.n_steps_ >= _N_STEPS:
            # how skorch's callbacks end a training
            raise KeyboardInterrupt
