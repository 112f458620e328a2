"""Where a worker trains: it need not have the devices of the process that asks it."""

from copy import deepcopy
from dataclasses import replace

import torch


def find_device(name, is_auto=False):
    """Return where this process trains fits that are to be trained on the device `name`.

    A worker that has a GPU of its own sees it as the first one, and a worker that has none computes
    on its CPU.

    Parameters
    ----------
    name : str
        The device that the fits have in the process that asks.
    is_auto : bool, default=False
        Whether the user has left the choice: then it is the GPU wherever there is one.
    """
    device = torch.device(name)
    n_devices = torch.cuda.device_count()
    if is_auto and n_devices and device.type != "cuda":
        return torch.device("cuda", 0)
    if device.type == "cuda" and n_devices:
        index = device.index or 0
        return torch.device("cuda", index if index < n_devices else 0)
    if device.type == "cuda" or (device.type == "mps" and not torch.backends.mps.is_available()):
        return torch.device("cpu")
    return device


def tell_device_types():
    """Return the types of the devices that this process has, beside its CPU, as a list."""
    found = {find_device(name).type for name in ("cuda", "mps")}
    return sorted(found - {"cpu"})


def expect_device_type(spec, types):
    """Return the type of the device on which workers will train a fit.

    Where some workers have a GPU and others have none, it is that of the former.

    Parameters
    ----------
    spec : FitSpec
    types : collection of str
        What :func:`tell_device_types` returns on the workers.
    """
    planned = torch.device(spec.device).type
    if "cuda" in types and (spec.is_auto or planned == "cuda"):
        return "cuda"
    return planned if planned in types else "cpu"


def put_specs_on(specs, device):
    """Return specs whose modules and criteria are on a device; ``spec.device`` stays.

    Parameters
    ----------
    specs : list of FitSpec
        Those that share a module still do so.
    device : torch.device
    """
    # by the ids of the modules and criteria, which the specs hold
    modules = {}
    criteria = {}
    moved = []
    for spec in specs:
        module = modules.setdefault(id(spec.module), spec.module.on(device))
        criterion = spec.loss.criterion
        if id(criterion) not in criteria:
            criteria[id(criterion)] = _put_module_on(criterion, device)
        if module is not spec.module or criteria[id(criterion)] is not criterion:
            loss = replace(spec.loss, criterion=criteria[id(criterion)])
            spec = replace(spec, module=module, loss=loss)
        moved.append(spec)
    return moved


def _put_module_on(module, device):
    tensors = (*module.parameters(), *module.buffers())
    if all(tensor.device == device for tensor in tensors):
        return module
    return deepcopy(module).to(device)
