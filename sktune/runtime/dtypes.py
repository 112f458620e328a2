"""Floating types."""

import torch


def floating_dtype(module):
    """Return the type that a module computes in: that of its first floating parameter.

    For a module without such parameters it is torch's default.
    """
    for p in module.parameters():
        if p.is_floating_point():
            return p.dtype
    return torch.get_default_dtype()


def wide_dtype(dtype):
    """Return the type for values that need more precision than a module's, such as rates.

    It is float64 for a module in float64, and float32 for all other modules.
    """
    return torch.float64 if dtype == torch.float64 else torch.float32


def narrow(tensors, dtype):
    """Return a dict whose float64 tensors are converted to another type; other values stay."""
    narrowed = {}
    for name, value in tensors.items():
        is_wide = isinstance(value, torch.Tensor) and value.dtype == torch.float64
        narrowed[name] = value.to(dtype) if is_wide else value
    return narrowed
