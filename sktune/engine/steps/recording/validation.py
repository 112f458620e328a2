"""The validation of all lanes after an epoch, which is recorded like their steps."""

import torch

from sktune.engine.steps.recording.capture import capture
from sktune.runtime.gpu.streams import own_stream
from sktune.runtime.gpu.transfers import send


class RecordedValidation:
    """The losses and accuracies of lanes on their validation rows.

    A lane that has fewer of these than others takes its first one once more, with weight 0: a net's
    outputs for a row must not depend on the other rows.

    Parameters
    ----------
    backend : RecordedSteps
    plan : EpochPlan
    table : Table
    """

    def __init__(self, backend, plan, table):
        self.backend = backend
        self.table = table
        device = backend.net.flat.device
        n_rows = [len(lane.spec.rows.valid) for lane in plan.streams]
        order = torch.zeros(len(n_rows), max(n_rows), dtype=torch.long)
        weight = torch.zeros(len(n_rows), max(n_rows))
        for row, lane in enumerate(plan.streams):
            valid = lane.spec.rows.valid
            order[row].fill_(valid[0])
            order[row, : len(valid)] = valid
            weight[row, : len(valid)] = 1.0
        self.order = send(order, device)
        # None where all lanes have equally many rows
        self.weight = None if min(n_rows) == max(n_rows) else send(weight, device)
        self.of_lane = send(plan.stream_of, device) if len(n_rows) > 1 else None
        # as many rows at once as in a step
        self.n_rows = int(plan.most.max())
        self.found = torch.zeros(2, len(backend.net), dtype=backend.column_dtype, device=device)
        self.graph = None

    def record(self, pool):
        """Record the validation, after a trial that sets the libraries up.

        Raises
        ------
        RecordingError
            If that is not possible.
        """
        device = self.found.device
        with own_stream(device), torch.no_grad():
            self.compute()
            self.graph = capture(self.compute, device, pool)

    def launch(self):
        """Launch the validation; return sums over the rows, a Tensor (2, L), which it writes."""
        self.graph.replay()
        return self.found

    def compute(self):
        """Compute the sums of losses and of right answers."""
        losses, hits = 0.0, 0.0
        places, others = self.table.find(self.order.unsqueeze(0))  # (1, S, B)
        weight = self._spread(self.weight)
        chunks = zip(
            self._spread(places[0]).split(self.n_rows, 1),
            self._spread(others[0]).split(self.n_rows, 1),
            strict=True,
        )
        start = 0
        for place, other in chunks:
            stop = start + place.shape[1]
            part = None if weight is None else weight[:, start:stop]
            loss, accuracy = self._compare(place, other, part)
            losses = losses + loss * (stop - start)
            hits = hits + accuracy * (stop - start)
            start = stop
        torch.stack([losses, hits.to(losses.dtype)], out=self.found)

    def _compare(self, place, other, weight):
        """Return the mean losses (L,) of some rows, and their accuracies."""
        net, loss = self.backend.net, self.backend.loss
        X = self.table.X[place]
        target = self.table.target[other]
        outputs = net.forward(X.expand(len(net), *X.shape[1:]), False)
        target = target.expand(len(net), *target.shape[1:])
        of_rows = weight
        if self.table.weight is not None:
            of_rows = self.table.weight[other].expand(len(net), -1)
            of_rows = of_rows if weight is None else of_rows * weight
        return loss.of_lanes(outputs, target, of_rows), loss.accuracies(outputs, target, weight)

    def _spread(self, rows):
        """Return the rows of each lane (L, B) for those of each stream; (1, B) if there is one."""
        if rows is None or self.of_lane is None:
            return rows
        return rows.index_select(0, self.of_lane)
