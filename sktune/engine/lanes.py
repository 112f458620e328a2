"""Lanes, and the batches that reach them."""

from copy import copy
from dataclasses import dataclass, field
from itertools import zip_longest

import torch

from sktune.modules.dropout import LaneMasks, dropout_layers
from sktune.modules.reading import find_width
from sktune.training.batches import Batches, evaluation_batch_size
from sktune.training.rows import rows_of
from sktune.training.stopping import BestEpoch


class Lane:
    """A fit that is trained together with others: a net, initialized, and the rows, or subsets of rows, that it takes.

    Lanes of equal `stream` meet the same batches. Targets are those that the criterion takes. `test` are the
    batches whose outputs will be asked for, if they are known.
    """

    must_be_finite = True  # else a net that diverges goes on as it would alone
    masks_follow_from_seeds = True
    narrow_to = (
        None  # the type that the module has beyond the fit, if it is trained in float64 instead
    )
    test = None

    def __init__(self, net, train, valid=None, fold=None):
        self.train, self.valid, self.n_rows, self.seed = train, valid, len(train), net.seed_
        self.module, self.criterion, self.match = net.module_, net.criterion_, net._match
        self.narrow_to = vars(net).get("_narrow_to")
        self.dropout = [layer.p for layer in dropout_layers(self.module)]
        self.batches = net.get_iterator(train, training=True)
        self.n_valid_batches = count_valid_batches(net, valid)
        self.stream = (
            fold,
            id(rows_of(train)[0]),
            self.n_rows,
            valid is not None,
            net.shuffle,
            net.seed_,
        )
        self._read(net)

    def _read(self, net):
        self.net, (self.optimizer, self.options) = net, read_optimizer(net.optimizer_)
        self.n_epochs, self.penalties = net.max_epochs, (net.l1, net.l2)
        self.stopping = BestEpoch.of(net, self.valid is not None)
        self.factors = (
            net._lr_factors if net._lr_factors(0, 1) else None
        )  # of an epoch and its number of steps

    def beside(self, net, dropout):
        """Return a lane that begins like this one, for a net with other numbers."""
        lane = copy(self)
        lane._read(net)
        lane.dropout = self.dropout if dropout is None else [dropout] * len(self.dropout)
        return lane

    def fresh(self):
        """Return the lane as it is before its training, of which there may be a second attempt."""
        lane = copy(self)
        lane.stopping = copy(self.stopping)
        return lane

    def for_trial(self):
        """Return a lane to try a step with."""
        return self

    def rates(self, epoch):
        """Return the learning rates of an epoch's steps."""
        n_steps = len(self.batches.sizes)
        if self.factors is None:
            return [self.options["lr"]] * n_steps
        return [self.options["initial_lr"] * factor for factor in self.factors(epoch, n_steps)]

    @staticmethod
    def masks(lanes):
        """Return the masks of each dropout layer in the lanes."""
        seeds = [lane.seed for lane in lanes]
        return [
            LaneMasks(seeds, rates) for rates in zip(*(lane.dropout for lane in lanes), strict=True)
        ]

    def forget_rows(self):
        """Let go of the rows."""
        self.train = self.valid = self.batches = self.test = None


def count_valid_batches(net, valid):
    """Return in how many batches a net alone evaluates its validation rows; None where there are none.

    The engine may take them in others, but the history tells what a plain fit tells.
    """
    return None if valid is None else len(net.get_iterator(valid, training=False))


def read_optimizer(optimizer):
    """Return an optimizer's class, and the options of its one group of parameters."""
    return type(optimizer), {
        name: value for name, value in optimizer.param_groups[0].items() if name != "params"
    }


@dataclass
class Outcome:
    """What a lane's training left behind."""

    state: dict | None = None
    optimizer: dict | None = None
    lr: float | None = None
    curve: list = field(default_factory=list)
    error: Exception | None = None
    outputs: list | None = None  # of the module for the test rows, batch by batch


@dataclass
class Part:
    """Batches of equal length of some lanes, at `positions`: (L, B, ...) each, of a single stream expanded."""

    positions: list
    X: torch.Tensor
    target: torch.Tensor
    weight: torch.Tensor | None  # (L, B)


def training_steps(lanes, epoch):
    """Yield the parts of each step of an epoch; some folds may have a row more in the last batch than others."""
    streams, joints = _by_stream(lanes), {}
    batches = [lanes[positions[0]].batches.epoch(epoch) for positions in streams]
    for step in zip_longest(*batches):
        by_length = {}
        for number, batch in enumerate(step):
            if batch is not None:
                by_length.setdefault(len(batch[0]), {})[number] = batch
        yield [_join(parts, streams, joints) for parts in by_length.values()]


def validation_parts(lanes):
    """Yield the validation rows of all lanes, in parts."""
    for positions in _by_stream(lanes):
        lane = lanes[positions[0]]
        rows, indices = rows_of(lane.valid)
        n_rows = max(lane.batches.sizes)
        if (width := find_width(lane.module)) is not None:
            # of all lanes at once
            n_rows = max(n_rows, evaluation_batch_size(rows, n_rows, width) // len(positions))
        for batch in Batches(rows, indices, n_rows):
            yield _join({0: batch}, [positions], {})


def _by_stream(lanes):
    """Return the positions of the lanes of each stream."""
    streams = {}
    for position, lane in enumerate(lanes):
        streams.setdefault(lane.stream, []).append(position)
    return list(streams.values())


def _join(parts, streams, joints):
    """Hand batches, by the number of their stream, to the streams' lanes; `joints` remembers which lane takes which."""
    (first, *others), numbers = parts.values(), tuple(parts)
    if not others:
        positions = streams[numbers[0]]
        tensors = [tensor.expand(len(positions), *tensor.shape) for tensor in first]
        return Part(positions, *tensors, *[None] * (3 - len(tensors)))
    if numbers not in joints:
        pairs = sorted(
            (position, n) for n, number in enumerate(numbers) for position in streams[number]
        )
        of_lane = torch.tensor([n for _, n in pairs], device=first[0].device)
        joints[numbers] = [position for position, _ in pairs], of_lane
    positions, of_lane = joints[numbers]
    X, target, weight = zip(*((*batch, None)[:3] for batch in parts.values()), strict=True)
    if any(w is not None for w in weight):
        ones = torch.ones(len(X[0]), device=X[0].device)
        weight = torch.stack([ones if w is None else w for w in weight])[of_lane]
    else:
        weight = None
    return Part(positions, torch.stack(X)[of_lane], torch.stack(target)[of_lane], weight)
