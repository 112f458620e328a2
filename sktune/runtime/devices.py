"""Devices."""

import torch


def resolve_device(device):
    """Return the torch device that a `device` parameter means on this machine.

    Parameters
    ----------
    device : str or torch.device
        ``"auto"`` is the current GPU of CUDA where there is one, else MPS (Apple's), else the CPU.

    Raises
    ------
    ValueError
        If `device` is no device of this machine.
    """
    if isinstance(device, str) and device == "auto":
        return _find_fastest()
    try:
        return torch.empty(0, device=torch.device(device)).device
    except (AssertionError, RuntimeError, TypeError) as error:
        # Which of them torch raises differs from device to device.
        raise ValueError(
            f"device must be 'auto' or a torch device on this machine, got device={device!r}"
        ) from error


def _find_fastest():
    if torch.cuda.is_available():
        return torch.device("cuda", torch.cuda.current_device())
    if torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cpu")
