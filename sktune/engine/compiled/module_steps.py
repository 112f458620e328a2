"""Compiled steps of one module and one of torch's optimizers: what a fit alone trains by."""

import numpy as np
import torch

from sktune.engine.compiled.blocks import train_blocks
from sktune.engine.compiled.program import read_data, read_order
from sktune.runtime.threads import flushed_denormals
from sktune.training.optimizer_state import count_steps, open_state


@flushed_denormals()
def train_module(
    program, module, optimizer, batches, epoch, rates, seed, dropout, penalties, clips=()
):
    """Train the module whose parameters an optimizer holds, for an epoch.

    Parameters, buffers, gradients and the optimizer's state end as torch's own steps leave them.

    Parameters
    ----------
    program : Program
        From :func:`~sktune.engine.compiled.program.find_program`.
    module : nn.Module
    optimizer : torch.optim.Optimizer
        With one group of parameters.
    batches : Batches
        The rows, and how an epoch takes them.
    epoch : int
        The number of the epoch, from 0.
    rates : list of float
        The learning rate of each step.
    seed, dropout, penalties, clips
        As in :meth:`Program.bind`.

    Returns
    -------
    losses : list of float
        Of the steps, up to the first that is not finite.
    """
    (group,) = optimizer.param_groups
    parameters = program.list_learned(module, group["params"])
    steps_done, kept = open_state(optimizer, parameters)
    for p in group["params"]:
        p.grad = None
    for p in parameters:
        p.grad = torch.zeros_like(p)
    tensors = {"flat": parameters, "gradient": [p.grad for p in parameters]}
    for name in kept:
        tensors[name] = [optimizer.state[p][name] for p in parameters]
    named_buffers = dict(module.named_buffers())
    buffers = [named_buffers[buffer.name] for buffer in program.buffers]
    flat_buffers = torch.zeros(0)
    if buffers:
        flat_buffers = _flatten([buffer.to(parameters[0].dtype) for buffer in buffers])
    flats = {name: _flatten(parts) for name, parts in tensors.items()}
    train = program.bind(
        flats["flat"].numpy(),
        flats["gradient"].numpy(),
        flat_buffers.to(parameters[0].dtype).numpy(),
        _open_arrays(program.rule.list_state(group), flats),
        read_data(batches.rows, flats["flat"].numpy().dtype, program.loss),
        batches.sizes,
        seed,
        dropout,
        group,
        penalties,
        clips,
    )
    rates = np.array(rates, dtype=np.float64)
    if batches.augmenter is None:
        losses = train(steps_done, read_order(batches, epoch), rates, epoch)
    else:
        (losses,) = train_blocks([train], [steps_done], [rates], batches, epoch, program)
    for name, parts in tensors.items():
        _write_back(flats[name], parts)
    if buffers:
        _write_back(flat_buffers, buffers)
    count_steps(optimizer, parameters, len(losses))
    return losses


def _open_arrays(names, flats):
    """Return the state arrays that the kernels write; those that torch does not keep are zeros."""
    return {name: flats.get(name, torch.zeros_like(flats["flat"])).numpy() for name in names}


def _flatten(tensors):
    """Return the elements of tensors, one tensor behind the other."""
    return torch.cat([tensor.detach().reshape(-1) for tensor in tensors])


def _write_back(flat, tensors):
    """Copy what :func:`_flatten` returned back into its tensors."""
    parts = flat.split([tensor.numel() for tensor in tensors])
    with torch.no_grad():
        for tensor, values in zip(tensors, parts, strict=True):
            tensor.copy_(values.view_as(tensor))
