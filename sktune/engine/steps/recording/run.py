"""A run of steps that is recorded, and the tensors that it reads and writes each time."""

import torch

from sktune.engine.steps.recording.losses import AnyLosses, CrossEntropies
from sktune.engine.steps.recording.masks import HeldMasks
from sktune.runtime.gpu.transfers import resend, send


class Table:
    """The rows of all tables that the lanes of a group take theirs from.

    Parameters
    ----------
    lanes : list of Lane
        One of each stream.
    """

    def __init__(self, lanes):
        tables = list({id(lane.rows): lane.rows for lane in lanes}.values())
        starts = {}
        n_rows = 0
        for rows in tables:
            starts[id(rows)] = n_rows
            n_rows += len(rows.X)
        # where the table of each stream begins (S, 1); None where there is one for all
        self.starts = None
        if len(tables) > 1:
            starts = [[starts[id(lane.rows)]] for lane in lanes]
            self.starts = send(starts, tables[0].X.device, torch.long)
        # folds may have the same X with targets of their own
        first = tables[0].X
        self.shares_X = all(_is_same(first, rows.X) for rows in tables)
        self.X = first if self.shares_X else _join([rows.X for rows in tables])
        self.target = _join([rows.target for rows in tables])
        self.weight = None
        if any(rows.weight is not None for rows in tables):
            self.weight = _join([_weights_of(rows, tables) for rows in tables])

    def find(self, order):
        """Return where the rows of an order (n_steps, S, B) are in X, and among the targets."""
        if self.starts is None:
            return order, order
        shifted = order + self.starts
        return (order if self.shares_X else shifted), shifted


def _is_same(one, other):
    """Tell whether two tensors are one in memory."""
    return one.data_ptr() == other.data_ptr() and one.shape == other.shape


def _join(parts):
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def _weights_of(rows, tables):
    """Return the weights of a table's rows, which are 1 where it has none."""
    if rows.weight is not None:
        return rows.weight
    like = next(table.weight for table in tables if table.weight is not None)
    return like.new_ones(len(rows.X))


class RecordedRun:
    """Steps of one kind: what they read is sent before each replay, to the same memory.

    Parameters
    ----------
    backend : RecordedSteps
    run : Run
    plan : EpochPlan
    table : Table
    calls : iterable of tuple
        The calls of dropout layers in a step, see :class:`HeldMasks`.
    """

    def __init__(self, backend, run, plan, table, calls):
        net = backend.net
        device = net.flat.device
        n_lanes = len(net)
        self.backend = backend
        self.run = run
        self.table = table
        self.order = torch.zeros(
            run.n_steps, len(plan.streams), run.n_rows, dtype=torch.long, device=device
        )
        self.of_lane = None
        if len(plan.streams) > 1:
            self.of_lane = send(plan.stream_of, device)
        dtype = backend.column_dtype
        self.rates = torch.zeros(run.n_steps, n_lanes, 1, dtype=dtype, device=device)
        self.masks = HeldMasks(net.masks_by_index, calls, run.n_steps, device)
        self.factors = plan.weights(run, device, dtype)
        self.losses = torch.zeros(run.n_steps, n_lanes, dtype=dtype, device=device)
        self.graph = None

    def send(self, epoch, run, orders, rates):
        """Send what the steps of a run read.

        `orders` (S, rows of all steps) and `rates` (n_steps, L, 1) are those of the epoch.
        """
        stop = run.start + run.n_steps * run.n_rows
        order = orders[:, run.start : stop].view(len(orders), run.n_steps, run.n_rows)
        resend(order.transpose(0, 1).contiguous(), self.order)
        resend(rates[run.first : run.first + run.n_steps], self.rates)
        self.masks.send(epoch, run.first)

    def compute(self, n_steps=None):
        """Take the steps, which are then in :attr:`losses`; `n_steps` of them, or all."""
        backend = self.backend
        net, optimizer = backend.net, backend.optimizer
        n_steps = self.run.n_steps if n_steps is None else n_steps
        places, others = self.table.find(self.order)  # (n_steps, S, B)
        losses = self._open_losses(self._spread(others))
        places = self._spread(places)
        penalties = []
        optimizer.begin_run(n_steps)
        for step in range(n_steps):
            X = self.table.X[places[step]]
            outputs = net.forward(X.expand(len(net), *X.shape[1:]), True, (0, step))
            gradient = net.gradient(outputs, losses.gradient(step, outputs.detach()))
            rates = self.rates[step]
            parts = (net, optimizer, backend.penalties, backend.clips)
            added = backend.change_weights(*parts, gradient, rates)
            if added is not None:
                penalties.append(added)
        optimizer.end_run(n_steps)
        if n_steps == self.run.n_steps:
            found = losses.losses()
            self.losses.copy_(found + torch.stack(penalties) if penalties else found)

    def _spread(self, order):
        """Return the order of each lane (n_steps, L, B); (n_steps, 1, B) if it is the same."""
        return order if self.of_lane is None else order.index_select(1, self.of_lane)

    def _open_losses(self, order):
        """Return what computes the losses of the steps."""
        n_lanes = len(self.backend.net)
        target = self.table.target[order]
        target = target.expand(len(target), n_lanes, *target.shape[2:])
        weight = None
        if self.table.weight is not None:
            weight = self.table.weight[order].expand(len(order), n_lanes, -1)
        if self.factors is not None:
            weight = self.factors.unsqueeze(0) if weight is None else weight * self.factors
        loss = self.backend.loss
        if loss.is_plain_cross_entropy and target.ndim == 3:
            return CrossEntropies(target, weight)
        return AnyLosses(loss, target, weight)
