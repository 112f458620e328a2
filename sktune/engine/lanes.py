"""Lanes: fits on their way through a group, and the batches that reach them."""

from copy import copy, deepcopy
from dataclasses import dataclass
from itertools import zip_longest

import torch

from sktune.engine.specs import TrainState
from sktune.modules.reading import find_width
from sktune.runtime.dtypes import wide_dtype
from sktune.runtime.gpu.transfers import send
from sktune.training.batches import Batches, evaluation_batch_size


class Lane:
    """A fit among those that are trained together.

    Parameters
    ----------
    spec : FitSpec
    state : TrainState or None
        Where the training goes on; None is where it begins. It is not changed.
    tables : dict of Rows
        By name.
    """

    def __init__(self, spec, state, tables):
        self.spec = spec
        self.state = TrainState.initial(spec) if state is None else state
        self.rows = tables[spec.rows.table]
        self.stopping = copy(self.state.stopping)
        self.watcher = deepcopy(self.state.watcher)
        self.best_weights = self.state.best_weights
        self.generator = None
        if self.state.generator is not None:
            self.generator = torch.Generator()
            self.generator.set_state(self.state.generator)
        self.batches = spec.sampling.open_batches(self)
        self.stream = spec.sampling.stream_of(self)

    def begin_epoch(self, epoch):
        """Let what looks at epochs hear of one; return the learning rates of its steps."""
        n_steps = len(self.batches.sizes)
        if self.watcher is not None:
            self.watcher.begin()
            rates = self.watcher.begin_epoch(n_steps)
            if rates is not None:
                return rates
        return self.spec.schedule.rates(self.spec.optimizer.options, epoch, n_steps)

    def state_after(self, epoch, weights, optimizer):
        """Return the state in which the training stands after some epochs."""
        return TrainState(
            epoch=epoch,
            weights=weights,
            optimizer=optimizer,
            stopping=copy(self.stopping),
            best_weights=self.best_weights,
            generator=None if self.generator is None else self.generator.get_state(),
            watcher=deepcopy(self.watcher),
        )


@dataclass
class Part:
    """Batches of equal length of some lanes, which stand at `positions` in their group.

    One batch that several lanes meet is expanded over them.
    """

    positions: list
    X: torch.Tensor  # (L, B, ...)
    target: torch.Tensor  # (L, B, ...)
    weight: torch.Tensor | None  # (L, B)
    # where rows have two targets
    other: torch.Tensor | None = None  # (L, B, ...)
    other_weight: torch.Tensor | None = None  # (L, B)


def training_steps(lanes, epoch):
    """Yield the parts of each step of an epoch: a list of :class:`Part`.

    There are several where some folds have a row more in their last batch than others.
    """
    streams = by_stream(lanes)
    # which lane of a part takes which batch, by the positions of the part's streams
    joints = {}
    batches = [lanes[positions[0]].batches.epoch(epoch) for positions in streams]
    for step in zip_longest(*batches):
        by_length = {}
        for stream, batch in enumerate(step):
            if batch is not None:
                by_length.setdefault(len(batch[0]), {})[stream] = batch
        yield [join(batches, streams, joints) for batches in by_length.values()]


def validation_parts(lanes, are_batches_free=True):
    """Yield the validation rows of all lanes, in parts.

    Unless the batches are free, they are those of a net alone, on which some losses depend.
    """
    for positions in by_stream(lanes):
        lane = lanes[positions[0]]
        n_rows = max(lane.batches.sizes)
        width = find_width(lane.spec.module.module, lane.rows.X)
        if width is not None:
            # the rows at once of all lanes together
            most = evaluation_batch_size(lane.rows, n_rows, width)
            n_rows = max(n_rows, most // len(positions))
        if not are_batches_free:
            n_rows = lane.spec.rows.valid_batch_size
        for batch in Batches(lane.rows, lane.spec.rows.valid, n_rows):
            yield _expand(batch, positions)


def by_stream(lanes):
    """Return the positions of the lanes of each stream."""
    streams = {}
    for position, lane in enumerate(lanes):
        streams.setdefault(lane.stream, []).append(position)
    return list(streams.values())


def _expand(batch, positions):
    """Hand one batch to some lanes."""
    tensors = [tensor.expand(len(positions), *tensor.shape) for tensor in batch]
    X, target, *others = tensors
    return Part(positions, X, target, *(others or [None]))


def join(batches_by_stream, streams, joints):
    """Hand batches of equal length, by the position of their stream, to the streams' lanes."""
    chosen = tuple(batches_by_stream)
    batches = list(batches_by_stream.values())
    if len(chosen) == 1:
        return _expand(batches[0], streams[chosen[0]])
    if chosen not in joints:
        joints[chosen] = _find_joint(chosen, streams, batches[0][0].device)
    positions, of_lane = joints[chosen]
    X = torch.stack([batch[0] for batch in batches])[of_lane]
    target = torch.stack([batch[1] for batch in batches])[of_lane]
    if not any(len(batch) == 5 for batch in batches):
        return Part(positions, X, target, _join_weights(batches, of_lane))
    batches = [_with_two_targets(batch) for batch in batches]
    weight, other, other_weight = (
        torch.stack(parts)[of_lane] for parts in list(zip(*batches, strict=True))[2:]
    )
    return Part(positions, X, target, weight, other, other_weight)


def _find_joint(chosen, streams, device):
    """Return the positions of all lanes of the chosen streams, and which of these each meets."""
    pairs = []
    for batch, stream in enumerate(chosen):
        pairs += [(position, batch) for position in streams[stream]]
    pairs.sort()
    positions = [position for position, _ in pairs]
    of_lane = send([batch for _, batch in pairs], device, torch.long)
    return positions, of_lane


def _join_weights(batches, of_lane):
    """Return the weights of the rows of each lane; None if no batch has any."""
    weights = [batch[2] if len(batch) == 3 else None for batch in batches]
    if all(weight is None for weight in weights):
        return None
    X = batches[0][0]
    ones = torch.ones(len(X), dtype=wide_dtype(X.dtype), device=X.device)
    return torch.stack([ones if weight is None else weight for weight in weights])[of_lane]


def _with_two_targets(batch):
    """Return a batch (X, target, weight, other target, its weight); the second may weigh 0."""
    if len(batch) == 5:
        return batch
    X, target, *weights = batch
    ones = torch.ones(len(X), dtype=wide_dtype(X.dtype), device=X.device)
    weight = weights[0] if weights else ones
    return X, target, weight, target, torch.zeros_like(weight)
