"""Chains of linear layers, activations and dropout in many nets, computed without autograd.

Half of the time that a small step takes with autograd is not spent on products. What each step
would make anew in the same way, views and tensors to write to, is made once.
"""

import torch
from torch import nn

from sktune.modules.dropout import HashedDropout
from sktune.modules.tracing.links import name_parameter

# torch 2.8 multiplies factors of half precision into sums of float32, on a GPU
_HAS_OUT_DTYPE = "out_dtype" in (torch.bmm.__doc__ or "")


class Chain:
    """The layers of a chain in all lanes.

    Parameters
    ----------
    layers : dict of str to nn.Module
        From :func:`sktune.modules.reading.find_chain`.
    parameters, gradients : dict of Tensor (L, ...)
        The parameters of all lanes by name, and where their gradients are written.
    masks : list of LaneMasks
        Those of each dropout layer, by its index.
    product_dtype : torch.dtype or None, default=None
        The type of matrix products in training; None is that of the parameters.
    """

    def __init__(self, layers, parameters, gradients, masks, product_dtype=None):
        self.links = []
        self.dropouts = []
        n_calls = [0] * len(masks)
        is_first_linear = True
        # Whether a layer may write to its input: the batch, and what autograd keeps, must stay.
        may_overwrite = False
        for name, layer in layers.items():
            if isinstance(layer, nn.Linear):
                link = _Linear(name, parameters, gradients, is_first_linear)
                if product_dtype is not None:
                    link = _LowPrecisionLinear(link, product_dtype)
                is_first_linear = False
            elif isinstance(layer, HashedDropout):
                link = _Dropout(layer.index, n_calls, masks[layer.index], may_overwrite)
                self.dropouts.append(link)
            elif type(layer) is nn.ReLU:
                link = _Relu(may_overwrite)
            else:
                link = _Activation(layer)
            self.links.append(link)
            may_overwrite = not isinstance(link, _Activation)

    def forward(self, X, step=None):
        """Return the outputs (L, B, C) for X (L, B, F); `step` is (epoch, batch), in training."""
        for link in self.links:
            X = link.forward(X, step)
        return X

    def backward(self, gradient):
        """Write the gradients of the parameters.

        `gradient` (L, B, C) is that of the outputs of the last step in training.
        """
        for link in reversed(self.links):
            gradient = link.backward(gradient)
            if gradient is None:
                # The layers before the first linear one have no parameters.
                break


class _Linear:
    """A linear layer; the first of a chain computes no gradient of its inputs."""

    def __init__(self, name, parameters, gradients, is_first):
        weight, bias = name_parameter(name, "weight"), name_parameter(name, "bias")
        self.weight = parameters[weight]  # (L, H, F)
        self.bias = parameters.get(bias)  # (L, H)
        self.weight_gradient = gradients[weight]
        self.bias_gradient = gradients.get(bias)
        self.is_first = is_first
        self.transposed_weight = self.weight.mT  # (L, F, H)
        self.bias_row = None if self.bias is None else self.bias.unsqueeze(1)  # (L, 1, H)
        # Tensors that each step writes again: new memory would have to be mapped first.
        self.workspace = {}

    def forward(self, X, step):
        self.X = X
        out = None
        if step is not None:
            n_lanes, n_rows, _ = X.shape
            out = self._reuse("outputs", (n_lanes, n_rows, self.weight.shape[1]))
        if self.bias is None:
            return torch.bmm(X, self.transposed_weight, out=out)
        return torch.baddbmm(self.bias_row, X, self.transposed_weight, out=out)  # (L, B, H)

    def backward(self, gradient):
        _multiply(gradient.mT, self.X, self.weight_gradient)  # (L, H, F)
        if self.bias is not None:
            torch.sum(gradient, 1, out=self.bias_gradient)
        if self.is_first:
            return None
        out = self._reuse("gradient", self.X.shape)
        return torch.bmm(gradient, self.weight, out=out)  # (L, B, F)

    def _reuse(self, name, shape):
        """Return the tensor of a name and shape; it is made the first time."""
        key = (name, *shape)
        if key not in self.workspace:
            self.workspace[key] = self.weight.new_empty(shape)
        return self.workspace[key]


class _LowPrecisionLinear:
    """A linear layer that trains with products of a lower precision than its parameters.

    All else stays in the type of the parameters.
    """

    def __init__(self, link, product_dtype):
        self.link = link
        self.product_dtype = product_dtype

    def forward(self, X, step):
        if step is None:
            return self.link.forward(X, step)
        self.X = without_copies(X).to(self.product_dtype).expand(X.shape)
        self.weight = self.link.weight.to(self.product_dtype)
        outputs = torch.bmm(self.X, self.weight.mT).to(X.dtype)
        return outputs if self.link.bias is None else outputs.add_(self.link.bias_row)

    def backward(self, gradient):
        if self.link.bias is not None:
            torch.sum(gradient, 1, out=self.link.bias_gradient)
        rounded = gradient.to(self.product_dtype)
        self._multiply(rounded.mT, self.X, self.link.weight_gradient)
        if self.link.is_first:
            return None
        return torch.bmm(rounded, self.weight).to(gradient.dtype)

    def _multiply(self, a, b, out):
        """Write a product of rounded factors, whose sums keep the type of the parameters."""
        if a.is_cuda and out.dtype == torch.float32 and _HAS_OUT_DTYPE:
            out.copy_(torch.bmm(a, b, out_dtype=out.dtype))
        else:
            torch.bmm(a.to(out.dtype), b.to(out.dtype), out=out)


class _Dropout:
    """A dropout layer, whose masks follow from the seeds of the fits."""

    def __init__(self, index, n_calls, masks, may_overwrite):
        self.index = index
        # a layer that is called several times draws another mask each time
        self.call = n_calls[index]
        n_calls[index] += 1
        # each call keeps what it has drawn ahead
        self.masks = masks if not self.call else masks.select(range(len(masks.rates)))
        self.may_overwrite = may_overwrite

    def forward(self, X, step):
        if step is None:
            return X
        factors = self.masks.factors(X.shape[1:], self._position(step), X)
        self.factors = factors.to(X.dtype)
        return X.mul_(self.factors) if self.may_overwrite else X * self.factors

    def backward(self, gradient):
        return gradient.mul_(self.factors)

    def _position(self, step):
        """Return (epoch, batch, layer, call)."""
        return (*step, self.index, self.call)


class _Relu:
    """A ReLU. Its gradient needs only the signs of the outputs."""

    def __init__(self, may_overwrite):
        self.may_overwrite = may_overwrite

    def forward(self, X, step):
        self.output = X.relu_() if self.may_overwrite else X.relu()
        return self.output

    def backward(self, gradient):
        return torch.ops.aten.threshold_backward.grad_input(
            gradient, self.output, 0, grad_input=gradient
        )


class _Activation:
    """Any other activation, whose gradient autograd computes."""

    def __init__(self, layer):
        self.layer = layer

    def forward(self, X, step):
        is_training = step is not None
        with torch.set_grad_enabled(is_training):
            self.input = X.detach().requires_grad_(is_training)
            self.output = self.layer(self.input)
        return self.output.detach()

    def backward(self, gradient):
        return torch.autograd.grad(self.output, self.input, gradient)[0]


def without_copies(tensor):
    """Return a tensor (L, ...) as it lies in memory: (1, ...) if it is expanded over the lanes."""
    is_expanded = tensor.stride(0) == 0
    return tensor[:1] if is_expanded else tensor


def _multiply(a, b, out):
    """Write a product of lanes into a view."""
    if torch.get_num_threads() == 1:
        torch.bmm(a, b, out=out)
    else:
        # Into a view, torch computes lane by lane; several threads divide all lanes better.
        out.copy_(a @ b)
