"""The state of torch's optimizers: what is kept for each parameter, written and read in one place.

torch keeps a dict for each parameter: ``step``, a tensor of one number, and the tensors that
:data:`sktune.training.optimizers.OPTIMIZERS` names. Elsewhere in the library the state of a network
is a dict of flat tensors (P,), one element a weight, and the number of steps.
"""

import torch

from sktune.training.optimizers import OPTIMIZERS


def count_dtype(options):
    """Return the type in which torch's optimizers count the steps of a group of parameters."""
    is_wide = torch.get_default_dtype() == torch.float64 and not options.get("fused")
    return torch.float64 if is_wide else torch.float32


def has_one_count(optimizer, parameters):
    """Tell whether an optimizer has taken the same number of steps with all of some parameters.

    A part of them may have been without a gradient for a time.
    """
    counts = set()
    for p in parameters:
        state = optimizer.state.get(p, {})
        has_buffer = state.get("momentum_buffer") is not None
        counts.add((float(state.get("step", 0)), has_buffer))
    return len(counts) == 1


def open_state(optimizer, parameters):
    """Give some parameters of an optimizer the state that they have before its next step.

    Parameters
    ----------
    optimizer : torch.optim.Optimizer
        With one group of parameters.
    parameters : list of Parameter
        Those with a gradient: torch keeps no state for others.

    Returns
    -------
    n_steps : int
        The steps that were taken. SGD does not count them: 1 where there is a momentum buffer.
    names : list of str
        The state tensors that the optimizer keeps.
    """
    (group,) = optimizer.param_groups
    rule = OPTIMIZERS[type(optimizer)]
    names = rule.list_kept_state(group)
    n_steps = 0
    if not rule.counts_steps and not names:
        # torch makes no entry for a parameter without state
        return n_steps, names
    for p in parameters:
        state = optimizer.state[p]
        if rule.counts_steps:
            state.setdefault("step", torch.tensor(0.0, dtype=count_dtype(group)))
            n_steps = int(state["step"])
        else:
            n_steps = int(state.get("momentum_buffer") is not None)
        for name in names:
            if state.get(name) is None:
                state[name] = _make_tensor(rule.state[name], group, p)
    return n_steps, names


def _make_tensor(entry, options, p):
    """Return a state tensor of a parameter before the first step."""
    value = entry.read_initial(options)
    if entry.is_scalar:
        return torch.tensor(value, dtype=torch.float32, device=p.device)
    return torch.full_like(p, value, requires_grad=False)


def count_steps(optimizer, parameters, n_steps):
    """Add steps that were taken to the counts that an optimizer has of some parameters."""
    for p in parameters:
        state = optimizer.state.get(p, {})
        if "step" in state:
            state["step"] += n_steps


def load_state(optimizer, flat_state):
    """Give an optimizer that has taken no step the state that a training ended with.

    Parameters
    ----------
    optimizer : torch.optim.Optimizer
        With one group of parameters, of a class in :data:`~sktune.training.optimizers.OPTIMIZERS`.
    flat_state : dict
        ``step``, the number of steps, and the state tensors by name: flat (P,), over all parameters
        with a gradient in their order, or of one element for a tensor of one number. ``learned``
        tells which of the parameters that are not frozen have a gradient; without it all have.
    """
    (group,) = optimizer.param_groups
    rule = OPTIMIZERS[type(optimizer)]
    learned = [p for p in group["params"] if p.requires_grad]
    if "learned" in flat_state:
        flags = flat_state["learned"].tolist()
        learned = [p for p, is_learned in zip(learned, flags, strict=True) if is_learned]
    names = rule.list_kept_state(group)
    if not learned or not (rule.counts_steps or names):
        return
    step = _make_count(group, flat_state["step"], learned[0].device)
    sizes = [p.numel() for p in learned]
    parts = {name: flat_state[name] for name in names if not rule.state[name].is_scalar}
    parts = {name: tensor.split(sizes) for name, tensor in parts.items()}
    for position, p in enumerate(learned):
        state = {"step": step.clone()} if rule.counts_steps else {}
        for name in names:
            if rule.state[name].is_scalar:
                state[name] = flat_state[name].to(p.device, copy=True).view(())
            else:
                state[name] = parts[name][position].to(p.device, copy=True).view(p.shape)
        optimizer.state[p] = state


def _make_count(options, n_steps, device):
    """Return a number of steps as torch keeps it."""
    # torch keeps the count where the step is computed
    is_on_device = options.get("fused") or options.get("capturable")
    return torch.tensor(
        n_steps, dtype=count_dtype(options), device=device if is_on_device else None
    )
