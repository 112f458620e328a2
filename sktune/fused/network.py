"""Many nets of one architecture as one: flat parameters ``[L, P]`` and one vmapped forward."""

from copy import deepcopy

import torch
from torch import nn
from torch.func import functional_call, vmap

from sktune.modules import ACTIVATIONS, MLP, HashedDropout, LaneMasks


class StackedNet:
    """L nets of one architecture.

    The modules are alike in everything but the values of parameters and buffers, and the rates of dropout. The
    parameters of a net are a row of `flat`; `leaves` are views of it, one per parameter, that autograd
    differentiates with respect to. Buffers are stacked on their own: under vmap a module updates them in place
    only where they are contiguous with the lanes first.
    """

    def __init__(self, modules):
        self.template = deepcopy(modules[0])
        self.chain = find_chain(self.template)
        self.names = [name for name, p in modules[0].named_parameters() if p.requires_grad]
        self.shapes = [dict(modules[0].named_parameters())[name].shape for name in self.names]
        self.flat = torch.stack([_flatten(module, self.names) for module in modules])  # (L, P)
        stacked = [_fixed(module) for module in modules]
        self.buffers = {name: torch.stack([s[name] for s in stacked]) for name in stacked[0]}
        # 1 at the weights, which l1 and l2 are meant for, 0 elsewhere; (P,)
        is_weight = [torch.full((shape.numel(),), float(len(shape) > 1)) for shape in self.shapes]
        self.weight_mask = torch.cat(is_weight).to(self.flat)
        layers = [[m for m in module.modules() if isinstance(m, HashedDropout)] for module in modules]
        self.rates = torch.tensor([[layer.p for layer in lane] for lane in layers], dtype=torch.float64)  # (L, layers)
        self.seeds = [lane[0].stream.seed if lane else 0 for lane in layers]
        self._make_leaves()

    def _make_leaves(self):
        self.leaves, start = {}, 0
        for name, shape in zip(self.names, self.shapes, strict=True):
            view = self.flat[:, start : start + shape.numel()].view(len(self.flat), *shape)
            self.leaves[name] = view.detach().requires_grad_()
            start += shape.numel()

    def __len__(self):
        return len(self.flat)

    def forward(self, X, training, place=(0, 0)):
        """Return the outputs (L, B, ...) for the lanes' batches X (L, B, ...).

        `place` is (epoch, batch), which the masks of dropout follow from.
        """
        self.template.train(training)
        if training:
            for number, layer in enumerate(m for m in self.template.modules() if isinstance(m, HashedDropout)):
                layer.lanes = LaneMasks(self.seeds, self.rates[:, number], place)
                layer.place = None  # a part of the lanes may have been at this place before
        if self.chain is not None and X.ndim == 3:  # (L, B, F)
            return self._forward_chain(X, training)

        def call(leaves, buffers, x):
            return functional_call(self.template, (leaves, buffers), (x,))

        return vmap(call, randomness="error")(self.leaves, self.buffers, X)

    def _forward_chain(self, X, training):
        """Run a plain chain of layers on all lanes at once, without the detour of vmap."""
        for name, layer in self.chain:
            if isinstance(layer, nn.Linear):
                X = _LinearLanes.apply(X, self.leaves[f"{name}.weight"], self.leaves.get(f"{name}.bias"))
            elif isinstance(layer, HashedDropout):
                X = layer.drop_lanes(X) if training else X
            else:
                X = layer(X)
        return X

    def gradient(self, loss):
        """Return the gradient of a sum of the lanes' losses, (L, P)."""
        gradients = torch.autograd.grad(loss, list(self.leaves.values()), materialize_grads=True)
        flat, start = torch.empty_like(self.flat), 0
        for g in gradients:
            flat[:, start : start + g[0].numel()].view(g.shape).copy_(g)
            start += g[0].numel()
        return flat

    def select(self, lanes):
        """Return a net of some lanes only, copied."""
        chosen = object.__new__(StackedNet)
        for name in ("template", "chain", "names", "shapes"):
            setattr(chosen, name, getattr(self, name))
        chosen.weight_mask = self.weight_mask
        chosen.flat = self.flat[lanes]
        chosen.buffers = {name: buffer[lanes] for name, buffer in self.buffers.items()}
        chosen.rates = self.rates[lanes.cpu()]
        chosen.seeds = [self.seeds[lane] for lane in lanes.tolist()]
        chosen._make_leaves()
        return chosen

    def put_back(self, lanes, chosen):
        """Copy the values of a net made by :meth:`select` back into its lanes."""
        self.flat[lanes] = chosen.flat
        for name, buffer in self.buffers.items():
            buffer[lanes] = chosen.buffers[name]

    def state(self, lane):
        """Return copies of a lane's parameters and buffers, by name."""
        row = self.flat[lane].clone()
        values = dict(zip(self.names, row.split([shape.numel() for shape in self.shapes]), strict=True))
        values = {name: value.view(self.leaves[name].shape[1:]) for name, value in values.items()}
        return values | {name: buffer[lane].clone() for name, buffer in self.buffers.items()}


class _LinearLanes(torch.autograd.Function):
    """A linear layer of L lanes; the gradient of the weights comes out laid out like the weights, unlike torch's."""

    @staticmethod
    def forward(ctx, X, weight, bias):  # (L, B, F), (L, H, F), (L, H)
        ctx.save_for_backward(X, weight)
        return X @ weight.mT if bias is None else torch.baddbmm(bias.unsqueeze(1), X, weight.mT)

    @staticmethod
    def backward(ctx, gradient):  # (L, B, H)
        X, weight = ctx.saved_tensors
        to_X, to_weight, to_bias = ctx.needs_input_grad
        return (
            gradient @ weight if to_X else None,
            gradient.mT @ X if to_weight else None,
            gradient.sum(1) if to_bias else None,
        )


def find_chain(module):
    """Return the names and layers of a chain of linear layers, activations and dropout of units, or None."""
    chain = module.layers if type(module) is MLP else module
    if type(chain) is not nn.Sequential:
        return None
    known = (nn.Linear, *ACTIVATIONS.values())
    layers = [(f"layers.{name}" if chain is not module else name, layer) for name, layer in chain.named_children()]
    simple = all(type(m) in known or (isinstance(m, HashedDropout) and not m.by_channel) for _, m in layers)
    shared = len({id(layer) for layer in chain}) < len(chain)  # a layer in two places
    return layers if simple and not shared and all(p.requires_grad for p in module.parameters()) else None


def _flatten(module, names):
    parameters = dict(module.named_parameters())
    return torch.cat([parameters[name].detach().reshape(-1) for name in names])


def _fixed(module):
    """Return what a step of the optimizer leaves alone: buffers, and parameters without gradient."""
    frozen = {name: p.detach() for name, p in module.named_parameters() if not p.requires_grad}
    return frozen | dict(module.named_buffers())
