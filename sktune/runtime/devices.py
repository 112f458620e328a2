"""Devices."""

import torch


def resolve_device(device):
    """Return the torch device that a `device` parameter means on this machine."""
    if isinstance(device, str) and device == "auto":
        has_mps = torch.backends.mps.is_available()
        return torch.device("cuda" if torch.cuda.is_available() else "mps" if has_mps else "cpu")
    try:
        return torch.empty(0, device=torch.device(device)).device
    except (
        AssertionError,
        RuntimeError,
        TypeError,
    ) as error:  # what torch raises differs from device to device
        raise ValueError(
            f"device must be 'auto' or a torch device on this machine, got device={device!r}"
        ) from error
