"""The penalties l1 and l2: ``l1 * sum |w| + l2 * sum w**2`` over the weights.

Weights are the parameters of two dimensions or more, which leaves out biases and normalisation.
"""

import torch


def is_penalized(shape):
    """Tell whether a parameter of a shape is a weight."""
    return len(shape) > 1


def compute_penalty(parameters, l1, l2):
    """Return the penalty on the weights among some parameters, a scalar for autograd."""
    weights = [p for p in parameters if is_penalized(p.shape) and p.requires_grad]
    absolute = sum(w.abs().sum() for w in weights) if l1 else 0.0
    squares = sum(w.square().sum() for w in weights) if l2 else 0.0
    return l1 * absolute + l2 * squares


def list_skipped(module, idle, *, has_penalties):
    """Return the names of the parameters that an optimizer skips, as they get no gradient.

    Parameters
    ----------
    module : nn.Module
    idle : collection of str
        The names of the parameters that the loss does not depend on. It is that of the outputs:
        penalties train the weights among these.
    has_penalties : bool
        Whether l1 or l2 is not 0.
    """
    return [
        name
        for name, p in module.named_parameters()
        if name in idle and not (has_penalties and is_penalized(p.shape))
    ]


def add_stacked_penalties(flat, weight_mask, gradient, strengths):
    """Add the gradients of the penalties of many nets in place; return the penalties (L,).

    Parameters
    ----------
    flat, gradient : Tensor of shape (L, P)
        The parameters of each net, and the gradient of its loss.
    weight_mask : Tensor of shape (P,)
        1 at the weights, 0 elsewhere.
    strengths : Tensor of shape (L, 2)
        The l1 and l2 of each net.
    """
    weights = (flat * weight_mask).to(strengths.dtype)
    l1, l2 = strengths[:, :1], strengths[:, 1:]
    gradient.add_(l1 * weights.sign() + 2 * l2 * weights)
    # maybe infinite
    sizes = torch.stack([weights.abs().sum(1), weights.square().sum(1)], dim=1)  # (L, 2)
    return (strengths * sizes).where(strengths > 0, 0.0).sum(1)
