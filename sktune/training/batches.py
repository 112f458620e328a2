"""Batches that are slices of tensors."""

from sktune.runtime.seeds import permutation
from sktune.training.rows import as_target, row_size

_BLOCK_BYTES = 1 << 22  # rows gathered at once: they stay in a core's cache until they are used
EVALUATION_ROWS = 8192


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
        self.sizes = batch_sizes(
            self.n_rows, int(batch_size), drop_last
        )  # torch knows no integers of NumPy here

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


def evaluation_batch_size(rows, batch_size, width):
    """Return how many rows to evaluate at once.

    Many are quicker, where it is known how many numbers the layers make of a row: `width` at most. Where
    that is not known (None), `batch_size` bounds the memory, as in training.
    """
    if width is None:
        return batch_size
    most = _BLOCK_BYTES // max(width, row_size(rows))
    return max(batch_size, min(EVALUATION_ROWS, most))
