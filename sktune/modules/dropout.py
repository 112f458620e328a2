"""Dropout whose masks are a function of the seed."""

from dataclasses import dataclass

import torch
from torch import nn

from sktune.runtime.dtypes import wide_dtype
from sktune.runtime.seeds import mask_key, random_int16


@dataclass
class MaskStream:
    """Where a fit stands: what the masks of all its dropout layers are computed from."""

    seed: int
    epoch: int = 0
    batch: int = 0


_AHEAD = 1 << 17  # random numbers made at once: they stay in a core's cache until they are used


class HashedDropout(nn.Dropout):
    """``nn.Dropout`` whose mask follows from (seed of the fit, epoch, batch, layer, call), and from nothing else.

    It stands in for `layer`, the one of number `index` in its module; of Dropout1d to 3d it silences whole channels.
    The layers of a module share the `stream`.
    """

    def __init__(self, layer, index, stream):
        super().__init__(layer.p)
        self.by_channel = getattr(layer, "by_channel", not isinstance(layer, nn.Dropout))
        self.index, self.stream = index, stream
        self.lanes = None  # masks; set where many nets are trained as one
        self.alone = None  # masks of this net only
        self.place, self.n_calls = None, 0

    def forward(self, X):
        """Silence units in training mode, and scale the others so that the mean stays."""
        if not self.training or (self.p == 0 and self.lanes is None):
            return X
        if self.lanes is not None:
            return _DropLanes.apply(X, self.lane_factors)
        if self.alone is None or (self.alone.seeds, self.alone.rates) != (
            [self.stream.seed],
            [self.p],
        ):
            self.alone = LaneMasks([self.stream.seed], [self.p])
        factors = self._factors(self.alone, (self.stream.epoch, self.stream.batch), X)[0]
        return X * factors.to(X.dtype)

    def __getstate__(self):
        return {**vars(self), "alone": None}  # what is made ahead need not be copied

    def lane_factors(self, X):
        """Return what silences units of all lanes at once, X being (L, B, ...)."""
        return self._factors(self.lanes, self.lanes.place, X[0])

    def stand_at(self, step):
        """Take note of a call in a step, (epoch, batch): a layer that is called again in it draws anew."""
        self.n_calls = self.n_calls + 1 if step == self.place else 0
        self.place = step

    def _factors(self, masks, step, X):
        """Return the next factors of all lanes for X (B, ...)."""
        self.stand_at(step)
        shape = torch.Size(X.shape[:2] + (1,) * (X.ndim - 2)) if self.by_channel else X.shape
        return masks.factors(shape, (*step, self.index, self.n_calls), X)


class LaneMasks:
    """The masks of one dropout layer in many nets trained as one: a seed and a rate of each, and where they stand.

    A net alone has them of a single lane.
    """

    def __init__(self, seeds, rates):
        self.seeds, self.rates, self.place = seeds, rates, (0, 0)
        self.distinct = list(dict.fromkeys(seeds))
        self.like = None  # type and device of what follows
        self.held = None  # numbers to take in place of a step's own

    def select(self, lanes):
        """Return the masks of some lanes only."""
        return LaneMasks([self.seeds[lane] for lane in lanes], [self.rates[lane] for lane in lanes])

    def factors(self, shape, place, X):
        """Return (L, *shape), or what broadcasts to it; the same numbers as in each net alone."""
        if self.like != (X.dtype, X.device):  # once: a module keeps to its type
            self.like = (X.dtype, X.device)
            self.limits = [
                column.to(X.device, wide_dtype(X.dtype)) for column in limits(self.rates)
            ]
            self.rows = torch.tensor(
                [self.distinct.index(seed) for seed in self.seeds], device=X.device
            )
            self.ahead = {}  # epoch, batch and numbers of the next steps, by layer and call
        numbers = self.numbers(place, shape.numel(), X.device) if self.held is None else self.held
        if len(self.rates) > 1:
            if len(self.distinct) > 1:
                numbers = numbers[self.rows]
            numbers = keep_factors(numbers, *self.limits)
        return numbers.view(-1, *shape)

    def numbers(self, place, n, device):
        """Return a step's random numbers, or of a lane alone its factors: (distinct seeds, n).

        They are made for some steps ahead: of a small hash, most is the time to call it.
        """
        epoch, batch, *rest = place
        made_in, first, made = self.ahead.get(tuple(rest), (None, 0, ()))
        if made_in != epoch or not 0 <= batch - first < len(made) or made.shape[2] < n:
            most = (
                _AHEAD // n // len(self.distinct) // (1 + rest[-1])
            )  # fewer for each call: there may be very many
            first, batches = batch, range(batch, batch + max(1, min(8 + 2 * batch, most)))
            keys = [mask_key(seed, epoch, b, *rest) for b in batches for seed in self.distinct]
            made = random_int16(torch.tensor(keys, dtype=torch.int32, device=device), n)
            made = made if len(self.rates) > 1 else keep_factors(made, *self.limits)
            made = made.reshape(len(batches), len(self.distinct), n)
            self.ahead[tuple(rest)] = (epoch, first, made)
        return made[batch - first, :, :n]  # a shorter row is the beginning of a longer one


def silence_below(p):
    """Return from which of 65,536 numbers, -32,768 and up, on a unit is kept, and what the kept are multiplied by."""
    return min(round(p * 65536), 65535) - 32768, 1 / (1 - p)


def limits(rates):
    """Return columns (L, 1) of :func:`silence_below`."""
    return torch.tensor([silence_below(p) for p in rates], dtype=torch.float64).split(1, 1)


def keep_factors(bits, threshold, scale):
    """Turn uniform int16 numbers into factors, 0 below the threshold; `bits` may be one row for all lanes."""
    factors = torch.empty(
        max(len(scale), len(bits)), bits.shape[1], dtype=scale.dtype, device=bits.device
    )
    return torch.ge(bits.to(scale.dtype), threshold, out=factors).mul_(
        scale
    )  # to bool and back would be 6 x slower


class _DropLanes(torch.autograd.Function):
    """Drop units of all lanes at once: vmap hands the stacked tensor over."""

    @staticmethod
    def forward(X, lane_factors):
        raise TypeError("dropout must be of numbers that differ from net to net")

    @staticmethod
    def setup_context(ctx, inputs, output):
        pass

    @staticmethod
    def vmap(info, in_dims, X, lane_factors):
        X = X.movedim(in_dims[0], 0)  # (L, B, ...)
        return X * lane_factors(X).to(X.dtype), 0


_SERVED = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, HashedDropout)


def dropout_layers(module):
    """Return the layers that :func:`serve_dropout` put into a module."""
    return [layer for layer in module.modules() if isinstance(layer, HashedDropout)]


def serve_dropout(module, seed):
    """Put :class:`HashedDropout` in the place of a module's dropout layers; return their common stream."""
    stream = MaskStream(seed)
    served = {}
    for name, layer in list(module.named_modules(remove_duplicate=False)):
        if type(layer) in _SERVED and layer.p < 1 and name:
            if layer not in served:
                served[layer] = HashedDropout(layer, len(served), stream)
            parent, _, attribute = name.rpartition(".")
            setattr(module.get_submodule(parent), attribute, served[layer])
    return stream
