"""Many nets of one architecture as one: flat parameters ``[L, P]`` and one vmapped forward."""

from copy import deepcopy

import torch
from torch import nn
from torch.func import functional_call, vmap

from sktune.modules import ACTIVATIONS, MLP, HashedDropout, dropout_layers


class StackedNet:
    """L nets of one architecture.

    The modules are alike in everything but the values of parameters and buffers, and the rates of dropout. The
    parameters of a net are a row of `flat`; `leaves` are views of it, one per parameter, that autograd
    differentiates with respect to. Buffers are stacked on their own: under vmap a module updates them in place
    only where they are contiguous with the lanes first.
    """

    def __init__(self, modules, masks):
        self.template = deepcopy(modules[0])
        self.chain, self.dropouts = find_chain(self.template), dropout_layers(self.template)
        self.names = [name for name, p in modules[0].named_parameters() if p.requires_grad]
        self.shapes = [dict(modules[0].named_parameters())[name].shape for name in self.names]
        flat = {module: _flatten(module, self.names) for module in modules}  # lanes may begin with the same one
        self.flat = torch.stack([flat[module] for module in modules])  # (L, P)
        stacked = [_fixed(module) for module in modules]
        self.buffers = {name: torch.stack([s[name] for s in stacked]) for name in stacked[0]}
        # 1 at the weights, which l1 and l2 are meant for, 0 elsewhere; (P,)
        is_weight = [torch.full((shape.numel(),), float(len(shape) > 1)) for shape in self.shapes]
        self.weight_mask = torch.cat(is_weight).to(self.flat)
        self.masks = masks  # of each dropout layer
        self._make_leaves()

    def _make_leaves(self):
        self.leaves, self.flat_gradient = self._views(self.flat), torch.empty_like(self.flat)
        self.gradients = self._views(self.flat_gradient)

    def _views(self, flat):
        """Return views of (L, P), one per parameter, by name."""
        parts = flat.detach().split([shape.numel() for shape in self.shapes], 1)
        return {name: part.view(-1, *shape) for name, part, shape in zip(self.names, parts, self.shapes, strict=True)}

    def __len__(self):
        return len(self.flat)

    def forward(self, X, training, place=(0, 0)):
        """Return the outputs (L, B, ...) for the lanes' batches X (L, B, ...), which may be one batch, expanded.

        `place` is (epoch, batch), which the masks of dropout follow from.
        """
        if training:
            for layer, masks in zip(self.dropouts, self.masks, strict=True):
                layer.lanes, masks.place = masks, place
                layer.place = None  # a part of the lanes may have been at this place before
        if self.chain is not None and X.ndim == 3:  # (L, B, F)
            return self.chain.forward(self.leaves, X, training)
        self.template.train(training)
        for leaf in self.leaves.values():
            leaf.requires_grad_()

        def call(leaves, buffers, x):
            return functional_call(self.template, (leaves, buffers), (x,))

        return vmap(call, randomness="error")(self.leaves, self.buffers, X.contiguous())

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
            self.chain.backward(self.leaves, gradient, self.gradients)
        return self.flat_gradient

    def select(self, lanes):
        """Return a net of some lanes only, copied."""
        chosen = object.__new__(StackedNet)
        for name in ("template", "chain", "dropouts", "names", "shapes"):
            setattr(chosen, name, getattr(self, name))
        chosen.weight_mask = self.weight_mask
        chosen.flat = self.flat[lanes]
        chosen.buffers = {name: buffer[lanes] for name, buffer in self.buffers.items()}
        chosen.masks = [masks.select(lanes.tolist()) for masks in self.masks]
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


class Chain:
    """A chain of linear layers, activations and dropout in all lanes, forward and backward without autograd's records.

    Half of the time that a small step takes with autograd is not spent on products.
    """

    def __init__(self, layers):
        self.layers = layers  # by name
        self.space = {}  # tensors of a step that the next one writes again: new memory would have to be mapped first

    def _space(self, name, like, *shape):
        if name not in self.space or self.space[name].shape != shape:
            self.space[name] = torch.empty(shape, dtype=like.dtype, device=like.device)
        return self.space[name]

    def forward(self, leaves, X, training):
        """Return the outputs (L, B, C) for X (L, B, F)."""
        self.passed, writable = [], False  # (input, output or factors) of each layer
        last = next(reversed(self.layers))
        for name, layer in self.layers.items():
            before = X
            if isinstance(layer, nn.Linear):
                weight, bias = leaves[f"{name}.weight"], leaves.get(f"{name}.bias")
                if name == last:  # features first in memory: faster, and what the loss of classes wants
                    X = _product(weight, X.mT, bias, 2, None).mT
                else:
                    X = _product(X, weight.mT, bias, 1, self._space(name, X, *X.shape[:2], weight.shape[1]))
                writable = True
            elif isinstance(layer, HashedDropout):
                if training:
                    before = layer.lane_factors(X)
                    X, writable = X.mul_(before) if writable else X * before, True
            elif type(layer) is nn.ReLU:  # all that its gradient needs is where the output is positive
                X = X.relu_() if writable else X.relu()
            else:
                with torch.set_grad_enabled(training):
                    before = X.detach().requires_grad_(training)
                    after = layer(before)
                self.passed.append((before, after))
                X, writable = after.detach(), False
                continue
            self.passed.append((before, X))
        return X

    def backward(self, leaves, gradient, found):
        """Write the gradients of the leaves, by name, of a step whose outputs have this gradient (L, B, C)."""
        first = next(iter(self.layers))
        for (name, layer), (before, after) in zip(reversed(self.layers.items()), reversed(self.passed), strict=True):
            if isinstance(layer, nn.Linear):
                _multiply(gradient.mT, before, found[f"{name}.weight"])
                if layer.bias is not None:
                    torch.sum(gradient, 1, out=found[f"{name}.bias"])
                if name != first:
                    out = self._space(f"gradient of {name}", before, *before.shape)
                    gradient = torch.bmm(gradient, leaves[f"{name}.weight"], out=out)
            elif isinstance(layer, HashedDropout):
                gradient = gradient.mul_(before)
            elif type(layer) is nn.ReLU:
                gradient = torch.ops.aten.threshold_backward.grad_input(gradient, after, 0, grad_input=gradient)
            else:
                (gradient,) = torch.autograd.grad(after, before, gradient)
        self.passed = []


def _multiply(a, b, out):
    """Write a product of lanes into a view, lane by lane; several threads divide it better all at once."""
    if torch.get_num_threads() == 1:
        torch.bmm(a, b, out=out)
    else:
        out.copy_(a @ b)


def _product(a, b, bias, axis, out):
    """Return a product of lanes plus the bias (L, H), along an axis."""
    return torch.bmm(a, b, out=out) if bias is None else torch.baddbmm(bias.unsqueeze(axis), a, b, out=out)


def find_chain(module):
    """Return a module as a :class:`Chain`, or None if it is anything else."""
    chain = module.layers if type(module) is MLP else module
    if type(chain) is not nn.Sequential or not len(chain):
        return None
    known = (nn.Linear, *ACTIVATIONS.values())
    layers = {f"layers.{name}" if chain is not module else name: layer for name, layer in chain.named_children()}
    simple = all(type(m) in known or (isinstance(m, HashedDropout) and not m.by_channel) for m in layers.values())
    plain = len(layers) == len(chain) and not any(getattr(m, "inplace", False) for m in layers.values())
    learned = [p.requires_grad for p in module.parameters()]
    return Chain(layers) if simple and plain and learned and all(learned) else None


def _flatten(module, names):
    parameters = dict(module.named_parameters())
    return torch.cat([parameters[name].detach().reshape(-1) for name in names])


def _fixed(module):
    """Return what a step of the optimizer leaves alone: buffers, and parameters without gradient."""
    frozen = {name: p.detach() for name, p in module.named_parameters() if not p.requires_grad}
    return frozen | dict(module.named_buffers())
