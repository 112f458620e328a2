"""Devices."""

import os
from contextlib import suppress

import torch


def resolve_device(device):
    """Return the torch device that a `device` parameter means on this machine.

    Parameters
    ----------
    device : str or torch.device
        ``"auto"`` is the current GPU of CUDA where there is one, else MPS (Apple's), else the CPU.
        ``"cuda"`` is the current GPU, or, where more than half of its memory is taken, the one with
        the most that is free.

    Raises
    ------
    ValueError
        If `device` is no device of this machine.
    """
    if isinstance(device, str) and device == "auto":
        return _find_fastest()
    if str(device) == "cuda" and torch.cuda.device_count() > 1:
        return _find_room()
    try:
        return torch.empty(0, device=torch.device(device)).device
    except (AssertionError, RuntimeError, TypeError) as error:
        # Which of them torch raises differs from device to device.
        raise ValueError(
            "device must be 'auto' or a torch device on this machine, got "
            f"device={str(device)!r}{_describe_gpus(device)}"
        ) from error


def _describe_gpus(device):
    """Return which GPUs this process sees, if the device has a number that none of them has."""
    with suppress(RuntimeError, TypeError):
        asked = torch.device(device)
        n_devices = torch.cuda.device_count()
        if asked.type == "cuda" and n_devices:
            last = f" to 'cuda:{n_devices - 1}'" if n_devices > 1 else ""
            visible = os.environ.get("CUDA_VISIBLE_DEVICES")
            why = "" if visible is None else f", with CUDA_VISIBLE_DEVICES={visible!r}"
            return f": this process sees 'cuda:0'{last}{why}"
    return ""


def name_device(asked, device):
    """Return what fits are told of the device that they are trained on.

    Parameters
    ----------
    asked : str or torch.device
        The `device` parameter of their estimator.
    device : torch.device
        Where their rows are.

    Returns
    -------
    name : str
        ``"cuda"`` without a number, where that was asked for and there are several GPUs: any of
        these may train them. Else the name of `device`.
    """
    may_be_any = str(asked) == "cuda" and torch.cuda.device_count() > 1
    return "cuda" if may_be_any else str(device)


def list_devices(device):
    """Return the devices that are meant by one: all GPUs if it is ``"cuda"`` without a number."""
    if device.type != "cuda" or device.index is not None:
        return [device]
    return [torch.device("cuda", index) for index in range(torch.cuda.device_count())]


def _find_room():
    """Return the current GPU, or another one if that has little memory left."""
    current = torch.cuda.current_device()
    # to ask a GPU costs some memory there: the others are asked only if need be
    if _read_room(current) >= 0.5:
        return torch.device("cuda", current)
    index = max(range(torch.cuda.device_count()), key=lambda n: (_read_room(n), n == current))
    return torch.device("cuda", index)


def _read_room(index):
    """Return the share of a GPU's memory that is free, or is kept by torch for later."""
    free, total = torch.cuda.mem_get_info(index)
    kept = torch.cuda.memory_reserved(index) - torch.cuda.memory_allocated(index)
    return (free + kept) / total


def _find_fastest():
    if torch.cuda.is_available():
        return torch.device("cuda", torch.cuda.current_device())
    if torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cpu")
