"""Copies between this process and a device, as few as can be: the host waits for most of them."""

import torch

# Tensors of more bytes than these are fetched one by one: together they would need memory twice.
_MOST_BYTES = 1 << 26
# CUDA takes so many bytes of ordinary memory with the command. More of them it copies in pieces,
# after the work that the stream has to do, and the host waits ("API synchronization behavior" of
# the CUDA Runtime API).
MOST_PAGED_BYTES = 1 << 16


def send(values, device, dtype=None):
    """Return values as a tensor on a device; the host does not wait for the copy.

    Parameters
    ----------
    values : sequence of numbers, or Tensor on the CPU
    device : torch.device
    dtype : torch.dtype, default=None
        None is that of the values.
    """
    return _pin(torch.as_tensor(values, dtype=dtype), device).to(device, non_blocking=True)


def resend(values, tensor):
    """Write values of the CPU into a tensor of a device; the host does not wait for the copy."""
    values = torch.as_tensor(values, dtype=tensor.dtype)
    tensor.copy_(_pin(values, tensor.device), non_blocking=True)


def _pin(tensor, device):
    """Return a tensor in memory that a GPU reads by itself, if there is much to be read.

    torch keeps such memory from being used again until the copy is done.
    """
    n_bytes = tensor.numel() * tensor.element_size()
    is_sent = tensor.device.type == "cpu" and torch.device(device).type == "cuda"
    return tensor.contiguous().pin_memory() if is_sent and n_bytes > MOST_PAGED_BYTES else tensor


def fetch(tensors):
    """Return tensors on the CPU, in their order; those of a device come in one copy for each type.

    Tensors that are on the CPU are returned as they are.
    """
    found = {}
    together = {}
    for number, tensor in enumerate(tensors):
        if tensor.device.type == "cpu":
            found[number] = tensor
        elif tensor.numel() * tensor.element_size() > _MOST_BYTES:
            found[number] = tensor.cpu()
        else:
            together.setdefault((tensor.dtype, tensor.device), []).append(number)
    for numbers in together.values():
        parts = [tensors[number] for number in numbers]
        flat = parts[0] if len(parts) == 1 else torch.cat([part.reshape(-1) for part in parts])
        fetched = flat.reshape(-1).cpu().split([part.numel() for part in parts])
        for number, part, on_host in zip(numbers, parts, fetched, strict=True):
            found[number] = on_host.view(part.shape)
    return [found[number] for number in range(len(tensors))]
