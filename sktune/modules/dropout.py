"""Dropout whose masks are a function of the seed."""

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F

from sktune.runtime.dtypes import wide_dtype
from sktune.runtime.gpu.transfers import send
from sktune.runtime.seeds import mask_key, random_int16

# How many random numbers are made at once: they stay in a core's cache until they are used.
_AHEAD = 1 << 17
# The dimensions of a batch, for functions and layers that take any other input for a single row:
# its first dimension is then that of the channels.
BATCH_DIMENSIONS = {nn.Dropout1d: 3, nn.Dropout3d: 5, F.dropout1d: 3, F.dropout3d: 5}


@dataclass
class MaskStream:
    """The seed of a fit and its current step: the masks of its dropout layers follow from them."""

    seed: int
    epoch: int = 0
    batch: int = 0


class HashedDropout(nn.Dropout):
    """``nn.Dropout`` whose mask is a function of (seed of the fit, epoch, batch, layer, call).

    Parameters
    ----------
    layer : nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d or HashedDropout
        The layer that this one replaces. In place of ``Dropout1d`` to ``Dropout3d`` it drops whole
        channels.
    index : int
        The number of the layer among the dropout layers of its module.
    stream : MaskStream
        The stream that the dropout layers of a module share.
    """

    # Those of a batch, for layers that take any other input for a single row; see `find_channels`.
    n_dimensions = None

    def __init__(self, layer, index, stream):
        super().__init__(layer.p)
        self.by_channel = getattr(layer, "by_channel", not isinstance(layer, nn.Dropout))
        n_dimensions = getattr(layer, "n_dimensions", BATCH_DIMENSIONS.get(type(layer)))
        if n_dimensions is not None:
            self.n_dimensions = n_dimensions
        self.index = index
        self.stream = stream
        # The masks of this net alone; made in its first step.
        self.own_masks = None
        # The masks and the step of many nets that are trained as one; see `train_lanes`.
        self.lane_masks = None
        self.lane_step = None
        # Whether these nets are computed one after the other.
        self.is_one_by_one = False
        # The last step, (epoch, batch), and how many calls in it preceded the last call.
        self.step = None
        self.n_calls = 0

    def forward(self, X):
        """In training, set units to 0 at random, and scale the others so that the mean stays."""
        if not self.training:
            return X
        if self.lane_masks is not None and self.is_one_by_one:
            return X * self._draw_factors(self.lane_masks, self.lane_step, X)[0].to(X.dtype)
        if self.lane_masks is not None:
            return drop_lanes(X, self._draw_lane_factors)
        if self.p == 0:
            return X
        step = (self.stream.epoch, self.stream.batch)
        factors = self._draw_factors(self._find_own_masks(), step, X)
        return X * factors[0].to(X.dtype)

    def train_lanes(self, masks, step, *, is_one_by_one=False):
        """Use the `masks` of many nets in the calls that follow, in a `step`, (epoch, batch).

        If the nets are computed one after the other, the masks are those of the next one alone.
        """
        self.lane_masks = masks
        self.is_one_by_one = is_one_by_one
        self.lane_step = step
        # Some of the lanes may have taken this step before: their calls are counted from 0 again.
        self.step = None

    def count_call(self, step):
        """Count the calls in a step, (epoch, batch): each further call in it draws another mask.

        Return how many came before.
        """
        return count_call(self, step)

    def __getstate__(self):
        # Masks that were made ahead need not be copied.
        return {**vars(self), "own_masks": None}

    def _find_own_masks(self):
        """Return the masks of this net alone; they are made anew if the seed or rate changed."""
        seeds = [self.stream.seed]
        rates = [self.p]
        masks = self.own_masks
        if masks is None or masks.seeds != seeds or masks.rates != rates:
            self.own_masks = LaneMasks(seeds, rates)
        return self.own_masks

    def _draw_lane_factors(self, X):
        """Return the next factors of all lanes for X (L, B, ...)."""
        return self._draw_factors(self.lane_masks, self.lane_step, X[0])

    def _draw_factors(self, masks, step, X):
        """Return the next factors (L, B, ...), or what broadcasts to it, for X (B, ...)."""
        n_calls = self.count_call(step)
        shape = X.shape
        if self.by_channel:
            shape = find_channels(X.shape, self.n_dimensions)
        return masks.factors(shape, (*step, self.index, n_calls), X)


def count_call(counter, step):
    """Count a call of dropout in a step; return how many calls in the step came before.

    In a backward pass, ``torch.utils.checkpoint`` computes a call once more, which then has the
    number that it had.

    Parameters
    ----------
    counter : object with `step` and `n_calls`
        The step of the last call, and how many calls in it preceded that one.
    step : tuple of int
        (epoch, batch).

    Raises
    ------
    RuntimeError
        If a call is computed once more that is one of several in the step.
    """
    if _is_in_backward() and step == counter.step:
        if counter.n_calls:
            raise RuntimeError(
                "dropout that torch.utils.checkpoint computes again must be called once in a step, "
                f"got {counter.n_calls + 1} calls, whose masks cannot be told apart: use one layer "
                "for each call"
            )
        return 0
    counter.n_calls = counter.n_calls + 1 if step == counter.step else 0
    counter.step = step
    return counter.n_calls


def _is_in_backward():
    """Tell whether this thread computes gradients: torch has no public name for that.

    ``tests/modules/test_recomputed_dropout.py`` fails when the private one moves.
    """
    find_id = getattr(torch._C, "_current_graph_task_id", None)
    return find_id is not None and find_id() != -1


class LaneMasks:
    """The masks of one dropout layer in many nets that are trained as one.

    A net that is trained alone has the masks of a single lane.

    Parameters
    ----------
    seeds : sequence of int
        The seed of the fit in each lane.
    rates : list of float
        The probability in each lane that a unit is dropped.
    """

    def __init__(self, seeds, rates):
        self.seeds = seeds
        self.rates = rates
        self.distinct_seeds = list(dict.fromkeys(seeds))
        # The type and device that `_prepare` was called for.
        self.prepared_for = None
        # While steps are recorded (as a CUDA graph): an object whose method `numbers` is asked in
        # place of the one here.
        self.held = None

    def select(self, lanes):
        """Return the masks of some lanes only."""
        seeds = [self.seeds[lane] for lane in lanes]
        rates = [self.rates[lane] for lane in lanes]
        return LaneMasks(seeds, rates)

    def factors(self, shape, position, X):
        """Return what the units of all lanes are multiplied by.

        A lane gets the same factors as its net would get alone.

        Parameters
        ----------
        shape : torch.Size
            The shape of one lane's factors.
        position : tuple of int
            Epoch, batch, layer and call.
        X : Tensor
            Any tensor of the type and on the device of the module's inputs.

        Returns
        -------
        factors : Tensor (L, *shape)
        """
        if self.prepared_for != (X.dtype, X.device):
            self._prepare(X.dtype, X.device)
        if self.held is not None:
            bits = self.held.numbers(self, position, shape.numel(), X.device)
            return self._recorded_factors(bits).view(len(self.rates), *shape)
        numbers = self.numbers(position, shape.numel(), X.device)
        return self._as_factors(numbers).view(len(self.rates), *shape)

    def numbers(self, position, n, device):
        """Return the random numbers of a step, or, if there is a single lane, its factors.

        They are made for some steps ahead, because a call of a small hash costs more than the hash.

        Parameters
        ----------
        position : tuple of int
            Epoch, batch, layer and call.
        n : int
            How many numbers a lane needs.
        device : torch.device

        Returns
        -------
        numbers : Tensor (number of distinct seeds, n)
        """
        epoch, batch, layer, call = position
        made_in, first_batch, made = self.ahead.get((layer, call), (None, 0, ()))
        is_in_time = made_in == epoch and 0 <= batch - first_batch < len(made)
        if not is_in_time or made.shape[2] < n:
            made = self._make_ahead(position, n, device)
            first_batch = batch
            self.ahead[layer, call] = (epoch, first_batch, made)
        # A shorter row is the beginning of a longer one.
        return made[batch - first_batch, :, :n]

    def _prepare(self, dtype, device):
        """Make what does not change from step to step."""
        self.prepared_for = (dtype, device)
        self.limits = [send(column, device, wide_dtype(dtype)) for column in limits(self.rates)]
        self.thresholds = send(limits(self.rates)[0], device, torch.int16)
        # For each lane, the position of its seed among the distinct ones.
        seed_positions = [self.distinct_seeds.index(seed) for seed in self.seeds]
        self.seed_positions = send(seed_positions, device)
        # For each (layer, call): the epoch, the first batch, and the numbers of some batches.
        self.ahead = {}

    def _make_ahead(self, position, n, device):
        """Return the numbers of a step and of some that follow: (steps, distinct seeds, n)."""
        epoch, batch, layer, call = position
        n_seeds = len(self.distinct_seeds)
        # Each further call of a layer in a step gets less memory: there may be very many calls.
        most = _AHEAD // max(n, 1) // n_seeds // (1 + call)
        n_steps = max(1, min(8 + 2 * batch, most))
        keys = [
            mask_key(seed, epoch, later, layer, call)
            for later in range(batch, batch + n_steps)
            for seed in self.distinct_seeds
        ]
        bits = random_int16(send(keys, device, torch.int32), n)
        made = keep_factors(bits, *self.limits) if len(self.rates) == 1 else bits
        return made.reshape(n_steps, n_seeds, n)

    def _recorded_factors(self, bits):
        """Return the factors of all lanes for random numbers, with as few kernels as can be."""
        if len(self.distinct_seeds) > 1:
            bits = bits.index_select(0, self.seed_positions)
        threshold, scale = self.thresholds, self.limits[1]
        factors = torch.empty(len(scale), bits.shape[1], dtype=scale.dtype, device=bits.device)
        torch.ge(bits, threshold, out=factors)
        return factors.mul_(scale)

    def _as_factors(self, numbers):
        """Return the factors of all lanes for what `numbers` returned."""
        if len(self.rates) == 1:
            return numbers
        bits = numbers if len(self.distinct_seeds) == 1 else numbers[self.seed_positions]
        return keep_factors(bits, *self.limits)


def find_channels(shape, n_dimensions=None):
    """Return the shape of factors of whole channels: (B, C, 1, ...).

    Parameters
    ----------
    shape : torch.Size
        That of the input.
    n_dimensions : int, default=None
        The dimensions of a batch. An input with others is a single row for torch, whose channels
        are the first dimension: (C, 1, ...). None takes each input for a batch.
    """
    n_kept = 2 if n_dimensions in (None, len(shape)) else 1
    return torch.Size(shape[:n_kept] + (1,) * (len(shape) - n_kept))


def silence_below(p):
    """Return the least of the 65,536 numbers from -32,768 up that keeps a unit, and its scale."""
    threshold = min(round(p * 65536), 65535) - 32768
    return threshold, 1 / (1 - p)


def limits(rates):
    """Return thresholds and scales, columns (L, 1), from :func:`silence_below`."""
    return torch.tensor([silence_below(p) for p in rates], dtype=torch.float64).split(1, 1)


def keep_factors(bits, threshold, scale):
    """Turn uniform int16 numbers into factors: 0 below the threshold, else the scale.

    Parameters
    ----------
    bits : int16 Tensor (L, n) or (1, n)
        One row may serve all lanes.
    threshold, scale : Tensor (L, 1)
        From :func:`limits`.

    Returns
    -------
    factors : Tensor (L, n)
        Of the type of `scale`.
    """
    n_rows = max(len(scale), len(bits))
    factors = torch.empty(n_rows, bits.shape[1], dtype=scale.dtype, device=bits.device)
    # With a comparison that writes floating numbers: a bool tensor between would be 6 x slower.
    torch.ge(bits.to(scale.dtype), threshold, out=factors)
    return factors.mul_(scale)


def drop_lanes(X, draw_factors):
    """Return what dropout makes of X in all lanes, under vmap.

    Parameters
    ----------
    X : Tensor (B, ...)
    draw_factors : callable
        ``draw_factors(stacked)`` returns what the tensor of all lanes (L, B, ...) is multiplied by.
    """
    return _DropLanes.apply(X, draw_factors)


class _DropLanes(torch.autograd.Function):
    """Multiply all lanes by their factors at once: vmap passes the stacked tensor to its rule."""

    @staticmethod
    def forward(X, draw_factors):
        raise TypeError("dropout must be of numbers that differ from net to net")

    @staticmethod
    def setup_context(ctx, inputs, output):
        pass

    @staticmethod
    def vmap(info, in_dims, X, draw_factors):
        stacked = X.movedim(in_dims[0], 0)  # (L, B, ...)
        return stacked * draw_factors(stacked).to(X.dtype), 0


_SERVED = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, HashedDropout)


def dropout_layers(module):
    """Return the layers that :func:`serve_dropout` put into a module."""
    return [layer for layer in module.modules() if isinstance(layer, HashedDropout)]


def serve_dropout(module, seed):
    """Replace the dropout layers of a module by :class:`HashedDropout`; return their stream.

    Parameters
    ----------
    module : nn.Module
        It is changed in place. A module that is a dropout layer itself stays as it is.
    seed : int
        The seed of the fit.

    Returns
    -------
    stream : MaskStream
        The stream of all these layers, to be moved on in each step.
    """
    stream = MaskStream(seed)
    replaced = {}
    for name, layer in list(module.named_modules(remove_duplicate=False)):
        is_served = type(layer) in _SERVED and layer.p < 1
        if not is_served or not name:
            continue
        # A layer that stands in several places of the module remains one layer.
        if layer not in replaced:
            replaced[layer] = HashedDropout(layer, len(replaced), stream)
        parent, _, attribute = name.rpartition(".")
        setattr(module.get_submodule(parent), attribute, replaced[layer])
    return stream
