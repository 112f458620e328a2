"""Chains of linear layers, activations and dropout in many nets, forward and backward without autograd's records.

Half of the time that a small step takes with autograd is not spent on products. What each step needs anew in the same
way, views and places to write to, is made once.
"""

import torch
from torch import nn

from sktune.modules.dropout import HashedDropout


class Chain:
    """The layers of a chain in all lanes, with their parameters and the places of these parameters' gradients.

    `masks` are those of the dropout layers; products are made in the type `low`, if one is given.
    """

    def __init__(self, layers, parameters, gradients, masks, low=None):
        self.links, self.dropouts = [], []
        masks, is_first = iter(masks), True
        is_ours = False  # whether a layer's input may be written to
        for name, layer in layers.items():
            if isinstance(layer, nn.Linear):
                tensors = [
                    of.get(f"{name}.{part}")
                    for of in (parameters, gradients)
                    for part in ("weight", "bias")
                ]
                link = _Linear(*tensors, is_first=is_first)
                is_first = False
                link = link if low is None else _Low(link, low)
            elif isinstance(layer, HashedDropout):
                link = _Dropout(layer.index, next(masks), is_ours)
                self.dropouts.append(link)
            else:
                link = _Relu(is_ours) if type(layer) is nn.ReLU else _Activation(layer)
            self.links.append(link)
            is_ours = not isinstance(link, _Activation)

    def forward(self, X, place=None):
        """Return the outputs (L, B, C) for X (L, B, F); `place` is (epoch, batch), in training."""
        for link in self.links:
            X = link.forward(X, place)
        return X

    def backward(self, gradient):
        """Write the gradients of the parameters, for a step in training whose outputs have this gradient (L, B, C)."""
        for link in reversed(self.links):
            gradient = link.backward(gradient)
            if gradient is None:  # what comes before learns nothing
                break


class _Linear:
    def __init__(self, weight, bias, weight_gradient, bias_gradient, is_first):
        self.weight, self.bias = weight, bias  # (L, H, F), (L, H)
        self.weight_gradient, self.bias_gradient = weight_gradient, bias_gradient
        self.is_first = is_first
        self.columns, self.row = weight.mT, None if bias is None else bias.unsqueeze(1)
        self.space = {}  # tensors of a step that the next one writes again: new memory would have to be mapped first

    def forward(self, X, place):
        self.X = X
        out = None if place is None else self._space("output", *X.shape[:2], self.weight.shape[1])
        return _product(X, self.columns, self.row, out)

    def backward(self, gradient):
        _multiply(gradient.mT, self.X, self.weight_gradient)
        if self.bias is not None:
            torch.sum(gradient, 1, out=self.bias_gradient)
        if not self.is_first:
            return torch.bmm(gradient, self.weight, out=self._space("gradient", *self.X.shape))

    def _space(self, *key):
        if key not in self.space:
            self.space[key] = self.weight.new_empty(key[1:])
        return self.space[key]


class _Low:
    """A linear layer that trains with products of a lower precision; all else stays in the type of its parameters."""

    def __init__(self, link, low):
        self.link, self.low = link, low

    def forward(self, X, place):
        if place is None:
            return self.link.forward(X, place)
        self.X, self.weight = once(X).to(self.low).expand(X.shape), self.link.weight.to(self.low)
        outputs = torch.bmm(self.X, self.weight.mT).to(X.dtype)
        return outputs if self.link.row is None else outputs.add_(self.link.row)

    def backward(self, gradient):
        if self.link.bias is not None:
            torch.sum(gradient, 1, out=self.link.bias_gradient)
        low = gradient.to(self.low)
        self.link.weight_gradient.copy_(torch.bmm(low.mT, self.X))
        if not self.link.is_first:
            return torch.bmm(low, self.weight).to(gradient.dtype)


class _Dropout:
    def __init__(self, index, masks, is_ours):
        self.index, self.masks, self.is_ours = index, masks, is_ours

    def forward(self, X, place):
        if place is None:
            return X
        self.width = X.shape[2]
        self.factors = self.masks.factors(X.shape[1:], (*place, self.index, 0), X).to(X.dtype)
        return X.mul_(self.factors) if self.is_ours else X * self.factors

    def backward(self, gradient):
        return gradient.mul_(self.factors)

    def numbers(self, X, place):
        """Return the random numbers of a step, of rows X of the net (L, B, ...), which has been taken before."""
        return self.masks.numbers((*place, self.index, 0), X.shape[1] * self.width, X.device)


class _Relu:
    """All that its gradient needs is where the output is positive."""

    def __init__(self, is_ours):
        self.is_ours = is_ours

    def forward(self, X, place):
        self.output = X.relu_() if self.is_ours else X.relu()
        return self.output

    def backward(self, gradient):
        return torch.ops.aten.threshold_backward.grad_input(
            gradient, self.output, 0, grad_input=gradient
        )


class _Activation:
    """Any other activation: autograd's."""

    def __init__(self, layer):
        self.layer = layer

    def forward(self, X, place):
        with torch.set_grad_enabled(place is not None):
            self.input = X.detach().requires_grad_(place is not None)
            self.output = self.layer(self.input)
        return self.output.detach()

    def backward(self, gradient):
        return torch.autograd.grad(self.output, self.input, gradient)[0]


def once(tensor):
    """Return what is expanded over the lanes as it lies in memory."""
    return tensor[:1] if tensor.stride(0) == 0 else tensor


def _multiply(a, b, out):
    """Write a product of lanes into a view, lane by lane; several threads divide it better all at once."""
    if torch.get_num_threads() == 1:
        torch.bmm(a, b, out=out)
    else:
        out.copy_(a @ b)


def _product(a, b, bias, out):
    """Return a product of lanes, plus the bias if there is one."""
    return torch.bmm(a, b, out=out) if bias is None else torch.baddbmm(bias, a, b, out=out)
