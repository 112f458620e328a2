"""Which rows each lane takes in the steps of an epoch, found out on the host."""

from dataclasses import dataclass

import numpy as np
import torch

from sktune.engine.lanes import by_stream
from sktune.runtime.gpu.transfers import send

# The most steps of a recording: a longer one takes longer to make, and launches nothing faster.
_MOST_STEPS = 64
# The most bytes that the tensors of all steps of a recording take together.
_MOST_BYTES = 1 << 26


@dataclass(frozen=True)
class Run:
    """Steps of an epoch that follow each other and take equally many rows.

    `kind` is equal for runs that are computed in the same way.
    """

    first: int
    n_steps: int
    n_rows: int
    start: int
    is_ragged: bool

    @property
    def kind(self):
        """What a recording can be used for: a ragged step has its own rows and no other."""
        return (self.n_steps, self.n_rows, self.first if self.is_ragged else -1)


class EpochPlan:
    """The steps of an epoch that all lanes take, in runs, and the rows of each.

    In a step of which some lanes have a row fewer than others, these take their first row once
    more, with weight 0.

    Parameters
    ----------
    lanes : list of Lane
    pads : bool
        Whether steps may be ragged: a net's outputs for a row must not depend on the other rows.
    """

    def __init__(self, lanes, pads):
        self.positions = by_stream(lanes)
        self.streams = [lanes[positions[0]] for positions in self.positions]
        stream_of = np.zeros(len(lanes), dtype=np.int64)
        for number, positions in enumerate(self.positions):
            stream_of[positions] = number
        self.stream_of = torch.from_numpy(stream_of)
        sizes = [lane.batches.sizes for lane in self.streams]
        n_common = min(map(len, sizes))
        # of each stream, the rows of each step that all lanes take (S, n_steps)
        self.sizes = np.array([rows[:n_common] for rows in sizes])
        self.most = self.sizes.max(axis=0)
        self.n_steps = max(map(len, sizes))
        are_alike = (self.sizes == self.most).all(axis=0)
        self.has_more_steps = any(len(rows) > n_common for rows in sizes)
        # the steps that are not recorded: some lanes do not take them, or not with as many rows
        self.apart = [] if pads else [n for n in range(n_common) if not are_alike[n]]
        self.apart += range(n_common, self.n_steps)
        self.are_alike = are_alike
        self.pads = pads
        self.runs = []
        # the epoch whose orders were asked for last, and these: nets of skorch's draw them
        self.epoch = None
        self.known = []

    def order_of(self, stream, epoch):
        """Return the rows of a stream, by its number, in their order in an epoch: a LongTensor."""
        if epoch != self.epoch:
            self.known = [self._find_order(lane, epoch) for lane in self.streams]
            self.epoch = epoch
        return self.known[stream]

    @staticmethod
    def _find_order(lane, epoch):
        order = lane.batches.order(epoch)
        return torch.arange(lane.batches.n_rows) if order is None else order

    def is_ragged(self, step):
        """Tell whether some lanes have fewer rows in a step than others."""
        return not self.are_alike[step]

    def divide(self, bytes_of_row):
        """Divide the steps into runs.

        Parameters
        ----------
        bytes_of_row : int
            How much memory a row takes in a recording, in all lanes together.
        """
        self.runs = list(self._find_runs(bytes_of_row))

    def _find_runs(self, bytes_of_row):
        are_alike = self.are_alike
        starts = np.concatenate([[0], np.cumsum(self.most)])
        step = 0
        while step < len(self.most):
            n_rows = int(self.most[step])
            if not are_alike[step]:
                if self.pads:
                    yield Run(step, 1, n_rows, int(starts[step]), True)
                step += 1
                continue
            most = max(1, min(_MOST_STEPS, _MOST_BYTES // max(1, n_rows * bytes_of_row)))
            last = step
            while last < len(self.most) and last - step < most:
                if not (are_alike[last] and self.most[last] == n_rows):
                    break
                last += 1
            yield Run(step, last - step, n_rows, int(starts[step]), False)
            step = last

    def orders(self, epoch):
        """Return the rows of each stream in an epoch, a LongTensor (S, rows of all steps).

        A stream with fewer rows in a step repeats its first.
        """
        orders = torch.zeros(len(self.streams), int(self.most.sum()), dtype=torch.long)
        for row in range(len(self.streams)):
            self._fill(orders[row], self.order_of(row, epoch), self.sizes[row])
        return orders

    def _fill(self, filled, order, sizes):
        n_common = int(sizes.sum())
        if (sizes == self.most).all():
            filled.copy_(order[:n_common])
            return
        filled.fill_(order[0])
        start = 0
        for n_rows, room, part in zip(
            sizes.tolist(), self.most.tolist(), order[:n_common].split(sizes.tolist()), strict=True
        ):
            filled[start : start + n_rows] = part
            start += room

    def weights(self, run, device, dtype):
        """Return the factors of a ragged step's rows (L, rows) in a mean over all of them."""
        if not run.is_ragged:
            return None
        factors = torch.zeros(len(self.streams), run.n_rows, dtype=torch.float64)
        for row, n_rows in enumerate(self.sizes[:, run.first].tolist()):
            factors[row, :n_rows] = run.n_rows / n_rows
        return send(factors[self.stream_of], device, dtype)
