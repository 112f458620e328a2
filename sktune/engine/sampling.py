"""How the batches and the dropout masks of a fit are drawn."""

from dataclasses import dataclass

import torch

from sktune.modules.dropout import LaneMasks
from sktune.modules.function_masks import LaneFunctionMasks, calls_dropout
from sktune.training.batches import Batches, batch_sizes


@dataclass(frozen=True, eq=False)
class Sampling:
    """The rows that each step of a fit takes, and the units that it silences.

    `batch_size` rows are taken at once; `shuffle` tells whether each epoch has an order of its own.
    """

    batch_size: int
    shuffle: bool

    # The state of the generator that a fit begins to draw from; None where it draws from none.
    initial_generator = None
    # Whether the masks of dropout follow from the seed of the fit, and not from a generator.
    has_seeded_masks = True

    def batch_sizes(self, n_rows):
        """Return the sizes of an epoch's batches."""
        raise NotImplementedError

    def open_batches(self, lane):
        """Return the batches of a lane: an object like :class:`sktune.training.batches.Batches`."""
        raise NotImplementedError

    @staticmethod
    def open_masks(lanes):
        """Return the masks of each dropout layer in the lanes."""
        raise NotImplementedError

    @staticmethod
    def open_function_masks(lanes):
        """Return the masks of the calls of dropout functions in the lanes, or None.

        None leaves such calls, if there are any, to torch.
        """
        return None

    def stream_of(self, lane):
        """Return a key that is equal for lanes that meet the same batches."""
        raise NotImplementedError


@dataclass(frozen=True, eq=False)
class SeededSampling(Sampling):
    """Batches and masks that follow from the seed of the fit alone: those of sktune's nets."""

    def batch_sizes(self, n_rows):
        """Return the sizes of an epoch's batches."""
        return batch_sizes(n_rows, self.batch_size)

    def open_batches(self, lane):
        """Return the batches of a lane."""
        seed = lane.spec.seed if self.shuffle else None
        return Batches(
            lane.rows,
            lane.spec.rows.train,
            self.batch_size,
            seed=seed,
            augmenter=lane.spec.augmenter,
        )

    @staticmethod
    def open_masks(lanes):
        """Return the masks of each dropout layer in the lanes."""
        seeds = [lane.spec.seed for lane in lanes]
        layers = zip(*(lane.spec.dropout for lane in lanes), strict=True)
        return [LaneMasks(seeds, rates) for rates in layers]

    @staticmethod
    def open_function_masks(lanes):
        """Return the masks of the calls of dropout functions in the lanes; None if none calls."""
        if not calls_dropout(lanes[0].spec.module.module):
            return None
        return LaneFunctionMasks([lane.spec.seed for lane in lanes])

    def stream_of(self, lane):
        """Return a key that is equal for lanes that meet the same batches."""
        augmentation = lane.spec.augmentation
        key = None if augmentation is None else augmentation.key()
        return (lane.spec.rows, self.batch_size, self.shuffle, lane.spec.seed, key)


@dataclass(frozen=True, eq=False)
class DrawnSampling(Sampling):
    """Batches and masks that are drawn from a generator of torch's: those of skorch's nets.

    They are what torch's DataLoader and its Dropout would draw, step by step. `generator_state` is
    where the drawing begins, and `has_valid` tells whether a loader for validation draws, too.
    """

    generator_state: torch.Tensor
    has_valid: bool

    has_seeded_masks = False

    @property
    def initial_generator(self):
        """The state of the generator that a fit begins to draw from."""
        return self.generator_state

    def batch_sizes(self, n_rows):
        """Return the sizes of an epoch's batches."""
        n_full, rest = divmod(n_rows, self.batch_size)
        return [self.batch_size] * n_full + [rest] * (rest > 0)

    def open_batches(self, lane):
        """Return the batches of a lane."""
        return DrawnBatches(lane, self)

    @staticmethod
    def open_masks(lanes):
        """Return the masks of each dropout layer in the lanes."""
        generators = [lane.generator for lane in lanes]
        layers = zip(*(lane.spec.dropout for lane in lanes), strict=True)
        return [DrawnMasks(generators, rates) for rates in layers]

    def stream_of(self, lane):
        """Return a key that no other lane has."""
        return lane


class DrawnBatches:
    """The batches that torch's DataLoader would make."""

    # skorch's nets have none
    augmenter = None

    def __init__(self, lane, sampling):
        self.rows = lane.rows
        self.indices = lane.spec.rows.train
        self.n_rows = lane.spec.rows.n_train
        self.generator = lane.generator
        self.shuffle = sampling.shuffle
        self.has_valid = sampling.has_valid
        self.sizes = sampling.batch_sizes(self.n_rows)

    def __len__(self):
        return len(self.sizes)

    def order(self, epoch):
        """Return the rows of an epoch in their order; to be asked once, for the order is drawn."""
        # Each loader draws a seed for its workers: that of the validation set after an epoch, too.
        if epoch and self.has_valid:
            _draw_seed(self.generator)
        _draw_seed(self.generator)
        order = torch.arange(self.n_rows)
        if self.shuffle:
            shuffling = torch.Generator().manual_seed(_draw_seed(self.generator))
            order = torch.randperm(self.n_rows, generator=shuffling)
        return order if self.indices is None else self.indices[order]

    def epoch(self, epoch):
        """Yield the batches of an epoch, counted from 0."""
        for chosen in self.order(epoch).split(self.sizes):
            yield self.rows.take(chosen)


def _draw_seed(generator):
    return int(torch.empty((), dtype=torch.int64).random_(generator=generator))


class DrawnMasks:
    """The masks of a dropout layer, each lane's drawn from its own generator; on a CPU."""

    def __init__(self, generators, rates):
        self.generators = generators
        self.rates = rates

    def select(self, lanes):
        """Return the masks of some lanes only."""
        generators = [self.generators[lane] for lane in lanes]
        return DrawnMasks(generators, [self.rates[lane] for lane in lanes])

    def factors(self, shape, position, X):
        """Return what the lanes' units are multiplied by: (L, *shape)."""
        factors = X.new_ones(len(self.rates), *shape)
        for lane, (p, generator) in enumerate(zip(self.rates, self.generators, strict=True)):
            if p:
                kept = torch.empty(shape, dtype=torch.bool).bernoulli_(1 - p, generator=generator)
                factors[lane].copy_(kept).mul_(1 / (1 - p))
        return factors
