"""Floating types."""

import torch


def floating_dtype(module):
    """Return the type that a module computes in; torch's default for one that has no such parameters."""
    return next(
        (p.dtype for p in module.parameters() if p.is_floating_point()), torch.get_default_dtype()
    )


def wide_dtype(dtype):
    """Return the type for what is finer than a module's numbers, such as rates and counts: float32 at least."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def narrow(tensors, dtype):
    """Return a dict of tensors, those of float64 in another floating type; what is no tensor stays."""
    return {
        name: value.to(dtype)
        if isinstance(value, torch.Tensor) and value.dtype == torch.float64
        else value
        for name, value in tensors.items()
    }
