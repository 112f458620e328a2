"""Lanes, and the batches that reach them."""

from dataclasses import dataclass, field
from functools import cached_property
from itertools import zip_longest

import torch

from sktune.data import EVALUATION_ROWS, Batches, rows_of
from sktune.training import BestEpoch


class Lane:
    """A fit that is trained together with others: a net, initialized, and the rows, or subsets of rows, that it takes.

    Lanes of equal `stream` meet the same batches. Targets are those that the criterion takes.
    """

    def __init__(self, net, train, valid=None):
        self.net, self.train, self.valid = net, train, valid
        self.module, self.optimizer, self.criterion = net.module_, net.optimizer_, net.criterion_
        self.n_epochs, self.n_rows, self.penalties = net.max_epochs, len(train), (net.l1, net.l2)
        self.stopping = BestEpoch(net) if net.early_stopping else None
        self.match = net._match

    @cached_property
    def batches(self):
        """The batches of training, those of each epoch by its number."""
        return self.net.get_iterator(self.train, training=True)

    @cached_property
    def stream(self):
        """What the batches follow from."""
        rows, indices = rows_of(self.train)
        seeds = (self.net.seed_, self.net.shuffle, indices is not None)
        return (id(rows), self.n_rows, seeds if self.net.shuffle or indices is not None else None)

    def rates(self, epoch):
        """Return the learning rates of an epoch's steps."""
        factors = self.net._lr_factors(epoch, len(self.batches)) if self._has_schedule else None
        initial = self.optimizer.param_groups[0]["initial_lr"]
        return [initial * factor for factor in factors or [1.0] * len(self.batches)]

    @cached_property
    def _has_schedule(self):
        return self.net._lr_factors(0, 1) is not None

    def forget_rows(self):
        """Let go of the rows."""
        self.train = self.valid = None
        vars(self).pop("batches", None)


@dataclass
class Outcome:
    """What a lane's training left behind."""

    state: dict | None = None
    optimizer: dict | None = None
    lr: float | None = None
    curve: list = field(default_factory=list)
    error: Exception | None = None


@dataclass
class Part:
    """Batches of equal length of some lanes, at `positions`: (L, B, ...) each, of a single stream expanded."""

    positions: list
    X: torch.Tensor
    target: torch.Tensor
    weight: torch.Tensor | None  # (L, B)


def training_steps(lanes, epoch):
    """Yield the parts of each step of an epoch; some folds may have a row more in the last batch than others."""
    streams = _by_stream(lanes)
    batches = [lanes[positions[0]].batches.epoch(epoch) for positions in streams]
    for step in zip_longest(*batches):
        by_length = {}
        for batch, positions in zip(step, streams, strict=True):
            if batch is not None:
                by_length.setdefault(len(batch[0]), []).append((batch, positions))
        yield [_join(parts) for parts in by_length.values()]


def validation_parts(lanes):
    """Yield the validation rows of all lanes, in parts."""
    for positions in _by_stream(lanes):
        rows, indices = rows_of(lanes[positions[0]].valid)
        for batch in Batches(rows, indices, EVALUATION_ROWS):
            yield _join([(batch, positions)])


def _by_stream(lanes):
    """Return the positions of the lanes of each stream."""
    streams = {}
    for position, lane in enumerate(lanes):
        streams.setdefault(lane.stream, []).append(position)
    return list(streams.values())


def _join(parts):
    """Hand the batch of each stream to the stream's lanes."""
    if len(parts) == 1:
        batch, positions = parts[0]
        tensors = [tensor.expand(len(positions), *tensor.shape) for tensor in batch]
        return Part(positions, *tensors, *[None] * (3 - len(tensors)))
    pairs = sorted((position, n) for n, (_, positions) in enumerate(parts) for position in positions)
    X, target, weight = zip(*((*batch, None)[:3] for batch, _ in parts), strict=True)
    of_lane = torch.tensor([n for _, n in pairs], device=X[0].device)
    if any(w is not None for w in weight):
        ones = torch.ones(len(X[0]), device=X[0].device)
        weight = torch.stack([ones if w is None else w for w in weight])[of_lane]
    else:
        weight = None
    return Part([position for position, _ in pairs], torch.stack(X)[of_lane], torch.stack(target)[of_lane], weight)
