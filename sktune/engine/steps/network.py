"""Many nets of one architecture as one: flat parameters ``[L, P]`` and one vmapped forward."""

from contextlib import contextmanager
from copy import deepcopy

import torch
from torch.func import functional_call, vmap

from sktune.engine.steps.chain import Chain
from sktune.modules.dropout import dropout_layers
from sktune.modules.function_masks import FUNCTION_INDEX
from sktune.modules.one_by_one import KeptMasks, count_outputs
from sktune.modules.reading import find_chain
from sktune.modules.work import find_convolutions
from sktune.runtime.gpu.transfers import fetch, resend, send
from sktune.training.penalties import is_penalized, list_skipped

# From how many numbers on, of the largest output of a convolution in one net, torch computes net
# after net faster than all by vmap. One core, 2 and 15 nets, batches of 16 to 256, 1-d and 2-d,
# 4 to 32 channels: from 1 << 18 on a step was faster by 1.1 to 1.8 times, at 1 << 17 by 0.97 to
# 1.3; at 1 << 16 with 15 nets it was 0.88 to 1.02 times as fast, below that 0.29 to 0.77.
MANY_OUTPUTS = 1 << 17


class Unfusable(ValueError):
    """Nets cannot be trained together for what their module or their criterion does."""


class StackedNet:
    """L nets of one architecture.

    The modules are alike in everything but the values of parameters and buffers, and the rates of
    dropout.

    Parameters
    ----------
    modules : list of nn.Module
        The module of each lane; several lanes may have the same one. They are not changed.
    masks : list of LaneMasks or DrawnMasks
        Those of each dropout layer.
    function_masks : LaneFunctionMasks or None, default=None
        Those of the calls of dropout functions, if the modules make any.
    product_dtype : torch.dtype or None, default=None
        The type of matrix products in training; None is that of the parameters.
    idle : collection of str, default=()
        The names of the parameters that the outputs do not depend on in training.
    has_penalties : bool, default=False
        Whether penalties train the weights among the idle parameters.
    is_on_trial : bool, default=False
        Whether vmap has to compute all that it can be asked for, to tell whether it takes a module.

    Attributes
    ----------
    flat, flat_gradient : Tensor (L, P)
        The trained parameters, a row for each net, and where their gradient is written.
    leaves, gradients : dict of Tensor (L, ...)
        Views of these by the parameters' names. Autograd differentiates by the leaves.
    buffers : dict of Tensor (L, ...)
        Buffers, frozen parameters and those that get no gradient. Under vmap a module updates them
        in place only where they are contiguous with the lanes first, so that they are not part of
        `flat`.
    skipped : list of str
        The names of the parameters that are not frozen, but get no gradient.
    learned : BoolTensor or None
        Which of the parameters that are not frozen get a gradient; None if all do.
    weight_mask : Tensor (P,)
        1 at the weights, which l1 and l2 are meant for, 0 elsewhere.
    chain : Chain or None
        What computes the nets layer by layer, if their layers are known.
    """

    def __init__(
        self,
        modules,
        masks,
        function_masks=None,
        product_dtype=None,
        *,
        idle=(),
        has_penalties=False,
        is_on_trial=False,
    ):
        self.is_on_trial = is_on_trial
        self.idle = frozenset(idle)
        self.skipped = list_skipped(modules[0], self.idle, has_penalties=has_penalties)
        self._set_template(deepcopy(modules[0]))
        self.masks = masks
        self.function_masks = function_masks
        self.product_dtype = product_dtype
        trained = {name: p for name, p in modules[0].named_parameters() if p.requires_grad}
        self.learned = None
        if self.skipped:
            self.learned = torch.tensor([name not in self.skipped for name in trained])
            trained = {name: p for name, p in trained.items() if name not in self.skipped}
        self.names = list(trained)
        self.shapes = [p.shape for p in trained.values()]
        # Lanes may begin with the same module, which is flattened once.
        flat = {module: _flatten(module, self.names) for module in modules}
        self.flat = torch.stack([flat[module] for module in modules])  # (L, P)
        fixed = [_fixed(module, self.skipped) for module in modules]
        self.buffers = {name: torch.stack([lane[name] for lane in fixed]) for name in fixed[0]}
        parts = [torch.full((shape.numel(),), float(is_penalized(shape))) for shape in self.shapes]
        self.weight_mask = torch.cat(parts).to(self.flat)
        self._make_views()

    def _set_template(self, template):
        """Take a module that tells the architecture, and find its layers."""
        self.template = template
        self.layers = find_chain(template)
        self.dropouts = dropout_layers(template)
        self.convolutions = find_convolutions(template)
        # what `_goes_one_by_one` found, by the shape of a lane's batch
        self.found_large = {}

    @property
    def masks_by_index(self):
        """The masks of all dropout, by the index of its layer or :data:`FUNCTION_INDEX`."""
        found = dict(enumerate(self.masks))
        if self.function_masks is not None:
            found[FUNCTION_INDEX] = self.function_masks
        return found

    def _make_views(self):
        """Make all that refers to the memory of `flat`."""
        self.flat_gradient = torch.empty_like(self.flat)
        self.leaves = self._views(self.flat)
        self.gradients = self._views(self.flat_gradient)
        # of parameters that are skipped, to find out about a gradient that they should not have
        self.skipped_leaves = {}
        self.chain = None
        if self.layers:
            self.chain = Chain(
                self.layers, self.leaves, self.gradients, self.masks, self.product_dtype
            )

    def _views(self, flat):
        """Return views of (L, P), one per parameter, by name."""
        parts = flat.detach().split(self._sizes(), 1)
        return {
            name: part.view(-1, *shape)
            for name, part, shape in zip(self.names, parts, self.shapes, strict=True)
        }

    def _sizes(self):
        """Return the number of values of each parameter."""
        return [shape.numel() for shape in self.shapes]

    def __len__(self):
        return len(self.flat)

    def forward(self, X, training, step=(0, 0)):
        """Return the outputs (L, B, ...) for the lanes' batches.

        Parameters
        ----------
        X : Tensor (L, B, ...)
            It may be one batch, expanded.
        training : bool
        step : tuple of int, default=(0, 0)
            (epoch, batch), which the masks of dropout follow from.
        """
        is_table = X.ndim == 3  # (L, B, F)
        if self.chain and is_table:
            return self.chain.forward(X, step if training else None)
        compute = self._compute_by_vmap
        if self.convolutions and self._goes_one_by_one(X):
            compute = self._compute_one_by_one
        self.template.train(training)
        for leaf in self.leaves.values():
            leaf.requires_grad_()
        self.skipped_leaves = {
            name: self.buffers[name].detach().requires_grad_() for name in self.skipped
        }
        is_lowered = training and self.product_dtype is not None
        # autocast's cache would keep tensors of a recording
        cast = {"enabled": is_lowered, "cache_enabled": False}
        with torch.autocast(X.device.type, self.product_dtype, **cast):
            outputs = compute(X, training, step)
        return outputs.to(self.flat.dtype)

    def _goes_one_by_one(self, X):
        """Tell whether net after net is faster on one core, which the shape of a batch decides.

        The number of lanes has no say, so that a net's numbers do not depend on its lane-mates.
        """
        if X.device.type != "cpu" or self.is_on_trial:
            return False
        # With 2 threads, vmap was faster at the two sizes that were measured, by 1.3 and 2.8 times.
        if torch.get_num_threads() > 1:
            return False
        shape = X.shape[1:]
        if shape not in self.found_large:
            leaves = {name: leaf.detach()[0].clone() for name, leaf in self.leaves.items()}
            buffers = {name: buffer[0].clone() for name, buffer in self.buffers.items()}
            rows = X[0].clone()
            self.template.eval()
            n_outputs = count_outputs(self.convolutions, lambda: self._call(leaves, buffers, rows))
            self.found_large[shape] = n_outputs >= MANY_OUTPUTS
        return self.found_large[shape]

    def _call(self, leaves, buffers, X):
        """Return the outputs of a net of some parameters and buffers."""
        return functional_call(self.template, (leaves, buffers), (X,))

    def _compute_by_vmap(self, X, training, step):
        if training:
            for layer, masks in zip(self.dropouts, self.masks, strict=True):
                layer.train_lanes(masks, step)
        buffers = {**self.buffers, **self.skipped_leaves}
        with self._open_function_masks(training, step):
            return vmap(self._call, randomness="error")(self.leaves, buffers, X.contiguous())

    @contextmanager
    def _open_function_masks(self, training, step):
        """Give the calls of dropout functions in a block their masks of a step of training."""
        if self.function_masks is None or not training:
            yield
            return
        self.function_masks.begin_step(step)
        with self.function_masks:
            yield

    def _compute_one_by_one(self, X, training, step):
        # one node of autograd for all lanes of a leaf
        leaves = {name: leaf.unbind() for name, leaf in self.leaves.items()}
        fixed = {**self.buffers, **self.skipped_leaves}
        kept = [KeptMasks(masks) for masks in self.masks]
        with self._open_function_masks(training, step):
            outputs = [
                self._compute_lane(lane, leaves, fixed, kept, X, training, step)
                for lane in range(len(X))
            ]
        return torch.stack(outputs)

    def _compute_lane(self, lane, leaves, fixed, kept, X, training, step):
        """Return the outputs of one net.

        `leaves` and `fixed` are what is trained and what is not, and `kept` are the masks of the
        dropout layers.
        """
        if training:
            for layer, masks in zip(self.dropouts, kept, strict=True):
                masks.lane = lane
                layer.train_lanes(masks, step, is_one_by_one=True)
            if self.function_masks is not None:
                self.function_masks.begin_lane(lane)
        parameters = {name: parts[lane] for name, parts in leaves.items()}
        buffers = {name: buffer[lane] for name, buffer in fixed.items()}
        # A module may write into its rows: autograd would take it for a change in all lanes.
        return self._call(parameters, buffers, X[lane].clone())

    def gradient(self, outputs, gradient):
        """Return the gradient (L, P) of a sum of the lanes' losses.

        Parameters
        ----------
        outputs : Tensor (L, B, ...)
            What the last :meth:`forward` returned.
        gradient : Tensor (L, B, ...)
            The gradient of the losses with respect to them.

        Raises
        ------
        Unfusable
            If a parameter is idle in other steps, but not in this one, or the other way round: an
            optimizer of torch's would skip it at times.
        """
        for name in self.idle & self.gradients.keys():
            self.gradients[name].zero_()
        if not outputs.requires_grad:
            self.chain.backward(gradient)
            return self.flat_gradient
        leaves = {**self.leaves, **self.skipped_leaves}
        found = torch.autograd.grad(outputs, list(leaves.values()), gradient, allow_unused=True)
        for name, leaf_gradient in zip(leaves, found, strict=True):
            if (leaf_gradient is None) != (name in self.idle):
                raise Unfusable(f"its parameter {name} gets a gradient in some batches only")
            if leaf_gradient is not None:
                self.gradients[name].copy_(leaf_gradient)
        return self.flat_gradient

    def select(self, positions):
        """Return a net of some lanes only, copied; their positions are a sequence of int."""
        positions = list(positions)
        lanes = send(positions, self.flat.device, torch.long)
        chosen = object.__new__(StackedNet)
        shared = (
            "template",
            "layers",
            "dropouts",
            "convolutions",
            "found_large",
            "is_on_trial",
            "idle",
            "skipped",
            "learned",
            "names",
            "shapes",
            "product_dtype",
            "weight_mask",
        )
        for name in shared:
            setattr(chosen, name, getattr(self, name))
        chosen.flat = self.flat[lanes]
        chosen.buffers = {name: buffer[lanes] for name, buffer in self.buffers.items()}
        chosen.masks = [masks.select(positions) for masks in self.masks]
        chosen.function_masks = None
        if self.function_masks is not None:
            chosen.function_masks = self.function_masks.select(positions)
        chosen._make_views()
        return chosen

    def to(self, dtype):
        """Return a net like this one whose floating numbers are of another type."""
        other = self.select(range(len(self)))
        other._set_template(deepcopy(self.template).to(dtype))
        other.flat = other.flat.to(dtype)
        other.weight_mask = self.weight_mask.to(dtype)
        other.buffers = {
            name: buffer.to(dtype) if buffer.is_floating_point() else buffer
            for name, buffer in other.buffers.items()
        }
        other._make_views()
        return other

    def put_back(self, positions, chosen):
        """Copy the values of a net made by :meth:`select` back into its lanes."""
        lanes = send(list(positions), self.flat.device, torch.long)
        self.flat[lanes] = chosen.flat
        for name, buffer in self.buffers.items():
            buffer[lanes] = chosen.buffers[name]

    def state(self, lane):
        """Return copies of a lane's parameters and buffers, by name."""
        parts = self.flat[lane].clone().split(self._sizes())
        state = {
            name: part.view(shape)
            for name, part, shape in zip(self.names, parts, self.shapes, strict=True)
        }
        return state | {name: buffer[lane].clone() for name, buffer in self.buffers.items()}

    def states(self, lanes):
        """Return what :meth:`state` returns for several lanes, on the CPU."""
        chosen = send(list(lanes), self.flat.device, torch.long)
        tensors = [self.flat, *self.buffers.values()]
        flat, *buffers = fetch([tensor[chosen] for tensor in tensors])
        states = []
        for row, values in enumerate(flat):
            parts = values.clone().split(self._sizes())
            state = {
                name: part.view(shape)
                for name, part, shape in zip(self.names, parts, self.shapes, strict=True)
            }
            for name, buffer in zip(self.buffers, buffers, strict=True):
                state[name] = buffer[row].clone()
            states.append(state)
        return states

    def load(self, lane, state):
        """Copy what :meth:`state` returned into a lane."""
        for name, tensor in {**self.leaves, **self.buffers}.items():
            tensor[lane] = state[name]

    def load_all(self, states):
        """Copy the states of all lanes, in their order, into them."""
        for name, tensor in {**self.leaves, **self.buffers}.items():
            stacked = torch.stack([state[name] for state in states])
            resend(stacked, tensor)


def _flatten(module, names):
    """Return the parameters of some names as one tensor (P,)."""
    parameters = dict(module.named_parameters())
    return torch.cat([parameters[name].detach().reshape(-1) for name in names])


def _fixed(module, skipped):
    """Return what no step of the optimizer changes: buffers, and parameters without gradient."""
    fixed = {
        name: p.detach()
        for name, p in module.named_parameters()
        if not p.requires_grad or name in skipped
    }
    return fixed | dict(module.named_buffers())
