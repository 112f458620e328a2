"""Batches that are slices of tensors."""

from sktune.runtime.seeds import permutation
from sktune.training.rows import as_target, row_size

# How much memory the rows take that are gathered at once: they stay in a core's cache until they
# are used.
_BLOCK_BYTES = 1 << 22
# The most rows that are evaluated at once.
EVALUATION_ROWS = 8192


def batch_sizes(n_rows, batch_size, drop_last=False):
    """Return the sizes of an epoch's batches.

    A single last row joins the batch before it, if there is one: a batch of one row has no
    variance, which batch normalisation divides by.

    Parameters
    ----------
    n_rows, batch_size : int
    drop_last : bool, default=False
        Whether to leave out the rows that do not fill a batch.

    Returns
    -------
    sizes : list of int
    """
    n_full, n_rest = divmod(n_rows, batch_size)
    sizes = [batch_size] * n_full
    if drop_last or n_rest == 0:
        return sizes
    if n_rest == 1 and sizes:
        sizes[-1] += 1
    else:
        sizes.append(n_rest)
    return sizes


class Batches:
    """Batches of rows, each a slice of a block that was gathered at once.

    Parameters
    ----------
    rows : Rows
    indices : LongTensor (n_rows,) or None
        Which rows to use; None is all of them.
    batch_size : int
    seed : int, default=None
        The seed of the fit, which the rows are shuffled by. None keeps their order.
    drop_last : bool, default=False
        Whether to leave out the rows that do not fill a batch.
    augmenter : Augmenter or None, default=None
        What changes the rows.
    """

    def __init__(self, rows, indices, batch_size, *, seed=None, drop_last=False, augmenter=None):
        self.augmenter = augmenter
        self.rows = rows
        self.indices = indices
        self.seed = seed
        self.n_rows = len(rows) if indices is None else len(indices)
        # `Tensor.split` takes no integers of NumPy.
        self.sizes = batch_sizes(self.n_rows, int(batch_size), drop_last)

    def __len__(self):
        return len(self.sizes)

    def __iter__(self):
        return self.epoch(0)

    def pairs(self, epoch):
        """Yield the batches of an epoch as skorch's iterators do: pairs (X, target).

        A target is what :func:`~sktune.training.rows.as_target` returns.
        """
        for X, *others in self.epoch(epoch):
            yield X, as_target(others)

    def order(self, epoch):
        """Return the rows of an epoch in their order, a LongTensor; None is all as they stand."""
        if self.seed is None:
            return self.indices
        order = permutation(self.n_rows, self.seed, epoch)
        return order if self.indices is None else self.indices[order]

    def epoch(self, epoch):
        """Yield the batches of an epoch, counted from 0: tuples (X, target, weight).

        Targets and weights are left out where the rows have none. An augmenter may add another
        target and its weight.
        """
        for _, sizes, block in self.blocks(epoch):
            yield from zip(*(part.split(sizes) for part in block), strict=True)

    def blocks(self, epoch):
        """Yield the batches of an epoch by as many as are gathered together.

        Each item holds the number of the first of these batches, their sizes, and their rows: a
        tuple as :meth:`epoch` yields it.
        """
        order = self.order(epoch)
        # 4 bytes a number
        batch_bytes = 4 * max(self.sizes, default=1) * row_size(self.rows)
        n_together = max(1, _BLOCK_BYTES // batch_bytes)
        start = 0
        for first in range(0, len(self.sizes), n_together):
            sizes = self.sizes[first : first + n_together]
            stop = start + sum(sizes)
            positions = slice(start, stop) if order is None else order[start:stop]
            block = self.rows.take(positions)
            if self.augmenter is not None:
                block = self.augmenter.change(block, epoch, first, sizes)
            yield first, sizes, block
            start = stop


class Pairs(Batches):
    """Batches for evaluation, which are pairs (X, target) as skorch's iterators yield them."""

    def __iter__(self):
        return self.pairs(0)


def evaluation_batch_size(rows, batch_size, width):
    """Return how many rows to evaluate at once.

    More rows are quicker, as long as the outputs of a layer stay in a core's cache.

    Parameters
    ----------
    rows : Rows
    batch_size : int
        Rows in a batch of training, the least that is returned.
    width : int or None
        The greatest number of outputs of a layer. None if it is not known: then `batch_size`
        bounds the memory, as in training.
    """
    if width is None:
        return batch_size
    n_in_cache = _BLOCK_BYTES // max(width, row_size(rows))
    return max(batch_size, min(EVALUATION_ROWS, n_in_cache))
