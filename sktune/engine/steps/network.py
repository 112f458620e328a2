"""Many nets of one architecture as one: flat parameters ``[L, P]`` and one vmapped forward."""

from copy import deepcopy

import torch
from torch.func import functional_call, vmap

from sktune.engine.steps.chain import Chain
from sktune.modules.dropout import dropout_layers
from sktune.modules.reading import find_chain
from sktune.training.penalties import is_penalized


class StackedNet:
    """L nets of one architecture.

    The modules are alike in everything but the values of parameters and buffers, and the rates of dropout. The
    parameters of a net are a row of `flat`; `leaves` are views of it, one per parameter, that autograd
    differentiates with respect to. Buffers are stacked on their own: under vmap a module updates them in place
    only where they are contiguous with the lanes first.
    """

    def __init__(self, modules, masks, low=None):
        self.template = deepcopy(modules[0])
        self.layers, self.dropouts = find_chain(self.template), dropout_layers(self.template)
        self.names = [name for name, p in modules[0].named_parameters() if p.requires_grad]
        self.shapes = [dict(modules[0].named_parameters())[name].shape for name in self.names]
        flat = {
            module: _flatten(module, self.names) for module in modules
        }  # lanes may begin with the same one
        self.flat = torch.stack([flat[module] for module in modules])  # (L, P)
        stacked = [_fixed(module) for module in modules]
        self.buffers = {name: torch.stack([s[name] for s in stacked]) for name in stacked[0]}
        # 1 at the weights, which l1 and l2 are meant for, 0 elsewhere; (P,)
        is_weight = [
            torch.full((shape.numel(),), float(is_penalized(shape))) for shape in self.shapes
        ]
        self.weight_mask = torch.cat(is_weight).to(self.flat)
        self.masks, self.low = masks, low  # of each dropout layer; the type of products in training
        self._make_leaves()

    def _make_leaves(self):
        self.leaves, self.flat_gradient = self._views(self.flat), torch.empty_like(self.flat)
        self.gradients = self._views(self.flat_gradient)
        self.chain = self.layers and Chain(
            self.layers, self.leaves, self.gradients, self.masks, self.low
        )

    def _views(self, flat):
        """Return views of (L, P), one per parameter, by name."""
        parts = flat.detach().split([shape.numel() for shape in self.shapes], 1)
        return {
            name: part.view(-1, *shape)
            for name, part, shape in zip(self.names, parts, self.shapes, strict=True)
        }

    def __len__(self):
        return len(self.flat)

    def forward(self, X, training, place=(0, 0)):
        """Return the outputs (L, B, ...) for the lanes' batches X (L, B, ...), which may be one batch, expanded.

        `place` is (epoch, batch), which the masks of dropout follow from.
        """
        if self.chain and X.ndim == 3:  # (L, B, F)
            return self.chain.forward(X, place if training else None)
        if training:
            for layer, masks in zip(self.dropouts, self.masks, strict=True):
                layer.train_lanes(masks, place)
        self.template.train(training)
        for leaf in self.leaves.values():
            leaf.requires_grad_()

        def call(leaves, buffers, x):
            return functional_call(self.template, (leaves, buffers), (x,))

        with torch.autocast(X.device.type, self.low, enabled=training and self.low is not None):
            outputs = vmap(call, randomness="error")(self.leaves, self.buffers, X.contiguous())
        return outputs.to(self.flat.dtype)

    def gradient(self, outputs, gradient):
        """Return the gradient of a sum of the lanes' losses, (L, P), from that with respect to the last outputs."""
        if outputs.requires_grad:
            leaves = list(self.leaves.values())
            for view, g in zip(
                self.gradients.values(),
                torch.autograd.grad(outputs, leaves, gradient, materialize_grads=True),
                strict=True,
            ):
                view.copy_(g)
        else:
            self.chain.backward(gradient)
        return self.flat_gradient

    def select(self, lanes):
        """Return a net of some lanes only, copied."""
        chosen = object.__new__(StackedNet)
        for name in ("template", "layers", "dropouts", "names", "shapes", "low"):
            setattr(chosen, name, getattr(self, name))
        chosen.weight_mask = self.weight_mask
        chosen.flat = self.flat[lanes]
        chosen.buffers = {name: buffer[lanes] for name, buffer in self.buffers.items()}
        chosen.masks = [masks.select(lanes.tolist()) for masks in self.masks]
        chosen._make_leaves()
        return chosen

    def to(self, dtype):
        """Return a net like this one whose floating numbers are of another type."""
        other = self.select(torch.arange(len(self), device=self.flat.device))
        other.template = deepcopy(self.template).to(dtype)
        other.layers, other.dropouts = find_chain(other.template), dropout_layers(other.template)
        other.flat, other.weight_mask = other.flat.to(dtype), self.weight_mask.to(dtype)
        other.buffers = {
            name: buffer.to(dtype) if buffer.is_floating_point() else buffer
            for name, buffer in other.buffers.items()
        }
        other._make_leaves()
        return other

    def put_back(self, lanes, chosen):
        """Copy the values of a net made by :meth:`select` back into its lanes."""
        self.flat[lanes] = chosen.flat
        for name, buffer in self.buffers.items():
            buffer[lanes] = chosen.buffers[name]

    def state(self, lane):
        """Return copies of a lane's parameters and buffers, by name."""
        row = self.flat[lane].clone()
        values = dict(
            zip(self.names, row.split([shape.numel() for shape in self.shapes]), strict=True)
        )
        values = {name: value.view(self.leaves[name].shape[1:]) for name, value in values.items()}
        return values | {name: buffer[lane].clone() for name, buffer in self.buffers.items()}

    def load(self, lane, state):
        """Put what :meth:`state` returned into a lane."""
        for name, tensor in {**self.leaves, **self.buffers}.items():
            tensor[lane] = state[name]


def _flatten(module, names):
    parameters = dict(module.named_parameters())
    return torch.cat([parameters[name].detach().reshape(-1) for name in names])


def _fixed(module):
    """Return what a step of the optimizer leaves alone: buffers, and parameters without gradient."""
    frozen = {name: p.detach() for name, p in module.named_parameters() if not p.requires_grad}
    return frozen | dict(module.named_buffers())
