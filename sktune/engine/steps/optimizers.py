"""Optimizers of stacked networks: flat parameters (L, P), with hyperparameters of each lane."""

from copy import copy

import torch

from sktune.runtime.dtypes import wide_dtype
from sktune.runtime.gpu.transfers import fetch, send
from sktune.training.optimizers import OPTIMIZERS, read_option, update_adam

# torch's private name for what its Adam(fused=True) calls;
# tests/engine/test_optimizers.py fails when it moves.
fused_adam = torch._fused_adam_


class FusedAdam:
    """Adam's update by torch's fused kernel, on a CPU 5 x faster than its operations one by one.

    It serves lanes that are alike in all hyperparameters but the learning rate and the weight
    decay. An update is linear in the learning rate: torch computes it for a rate of 1, and the
    result is scaled for each lane.
    """

    def __init__(self, flat, columns, numbers, is_decoupled):
        # what is added to each weight, (L, P)
        self.change = torch.empty_like(flat)
        # CUDA reads the count as float32, whatever the parameters' type
        self.steps = torch.zeros((), device=flat.device)
        # the counts of the steps of a run, where they are known ahead
        self.counts = []
        self.options = {name: numbers[name][0].item() for name in ("beta1", "beta2", "eps")}
        self.options |= {"lr": 1.0, "weight_decay": 0.0, "amsgrad": False, "maximize": False}
        # the part of an update that decoupled weight decay adds, by weight
        decay = columns["weight_decay"]
        self.shrinkage = -decay if is_decoupled else torch.zeros_like(decay)

    def __call__(self, p, g, state, t, options):
        """Take a step as :func:`update_adam` does, and the decoupled weight decay."""
        torch.mul(p, self.shrinkage, out=self.change)
        steps = self.counts.pop(0) if self.counts else self.steps.add_(1)
        fused_adam(
            [self.change],
            [g],
            [state["exp_avg"]],
            [state["exp_avg_sq"]],
            [],
            [steps],
            **self.options,
        )
        p.addcmul_(self.change, options["lr"])


class StackedOptimizer:
    """An optimizer of L lanes, with the options of each lane.

    Parameters
    ----------
    optimizer : class
        Of :mod:`torch.optim`, in :data:`~sktune.training.optimizers.OPTIMIZERS`.
    groups : list of dict
        The options of each lane's one group of parameters.
    flat : Tensor (L, P)
        The parameters.
    """

    def __init__(self, optimizer, groups, flat):
        rule = OPTIMIZERS[optimizer]
        self.rule = rule
        names = ("weight_decay", *rule.hyperparameters)
        # the same numbers for the host, which need not ask the device for them
        self.numbers = {}
        self.columns = {}
        for name in names:
            values = [read_option(group, name) for group in groups]
            self.numbers[name] = torch.tensor(values, dtype=wide_dtype(flat.dtype))
            self.columns[name] = _make_column(values, flat)
        self.shared = {name: groups[0].get(name, False) for name in rule.shared}
        self.is_decoupled = rule.is_decoupled(groups[0])
        # the steps that each lane has taken, (L, 1)
        self.t = torch.zeros(len(flat), 1, dtype=wide_dtype(flat.dtype), device=flat.device)
        self.state = {}
        for name in rule.list_state(groups[0]):
            tensor = rule.state[name]
            initial = _make_column([tensor.read_initial(group) for group in groups], flat)
            if tensor.is_scalar:
                self.state[name] = initial.float()
            else:
                self.state[name] = initial.to(flat.dtype).expand_as(flat).clone()
        # whether torch's fused kernel may be used, which counts the steps of all lanes as one
        self.may_fuse = True
        # the steps of each lane but for a number that all have in common; the host counts them, and
        # need not ask the device
        self.ahead = torch.zeros(len(flat), dtype=torch.long)
        # the steps that all lanes have taken together since they were selected
        self.n_steps = 0
        self.is_run_counted = False
        self._forget_update()

    def step(self, flat, gradient, rates):
        """Change `flat` by one step at the learning rates (L, 1)."""
        self.choose_update(flat)
        if flat.dtype == self.t.dtype:
            self._step(flat, gradient, rates, self.state)
            return
        # As torch's fused optimizers do for float16 and bfloat16: compute in float32, round after.
        dtype = self.t.dtype
        wide_flat = flat.to(dtype)
        wide_state = {name: tensor.to(dtype) for name, tensor in self.state.items()}
        self._step(wide_flat, gradient.to(dtype), rates, wide_state)
        flat.copy_(wide_flat)
        for name, tensor in self.state.items():
            tensor.copy_(wide_state[name])

    def _step(self, flat, gradient, rates, state):
        if self.shared.get("maximize"):
            gradient = gradient.neg()
        if self.has_decay:
            decay = self.columns["weight_decay"]
            if not self.is_decoupled:
                gradient = gradient.addcmul_(decay, flat)
            elif not isinstance(self.update, FusedAdam):
                flat.mul_(1 - rates * decay)
        self.n_steps += 1
        if not self.is_run_counted:
            self.t += 1
        options = {**self.columns, **self.shared, "lr": rates}
        self.update(flat, gradient, state, self.t, options)

    def tensors(self):
        """Return all tensors that a step changes, beside the parameters."""
        tensors = [self.t, *self.state.values()]
        return tensors if self.fused is None else [*tensors, self.fused.steps]

    def begin_run(self, n_steps):
        """Count the steps of a run ahead, where the update needs the counts of all lanes only."""
        self.is_run_counted = isinstance(self.update, FusedAdam)
        if self.is_run_counted:
            steps = self.fused.steps
            ahead = torch.arange(1, n_steps + 1, dtype=steps.dtype, device=steps.device)
            self.fused.counts = list((ahead + steps).unbind())

    def end_run(self, n_steps):
        """Count the steps of a run that was counted ahead."""
        if self.is_run_counted:
            self.is_run_counted = False
            self.fused.counts = []
            self.fused.steps.add_(n_steps)
            self.t.add_(n_steps)

    def choose_update(self, flat):
        """Choose the update of the next steps, unless that is done, and return it.

        It is torch's fused kernel where the lanes are alike enough.
        """
        if self.update is None:
            self.has_decay = bool(self.numbers["weight_decay"].any())
            self.update = self._open_fused(flat) if self._can_fuse(flat) else self.rule.update
        return self.update

    def _can_fuse(self, flat):
        """Tell whether torch's fused Adam can take the next step in all lanes."""
        if not self.may_fuse or self.rule.update is not update_adam or self.shared["amsgrad"]:
            return False
        if flat.device.type not in ("cpu", "cuda") or flat.dtype != self.t.dtype:
            return False
        alike = [self.numbers[name] for name in self.rule.hyperparameters]
        if not all(bool((values == values[0]).all()) for values in alike):
            return False
        return bool((self.ahead == self.ahead[0]).all())

    def _open_fused(self, flat):
        """Return torch's fused Adam, at the step that the lanes have reached."""
        if self.fused is None:
            self.fused = FusedAdam(flat, self.columns, self.numbers, self.is_decoupled)
        self.fused.steps.copy_(self.t[0, 0])
        return self.fused

    def _forget_update(self):
        """Choose the update anew at the next step: the lanes may be others, or differ more."""
        self.update = None
        self.fused = None

    def select(self, positions):
        """Return an optimizer of some lanes only, copied; their positions are ints."""
        positions = list(positions)
        lanes = send(positions, self.t.device, torch.long)
        chosen = copy(self)
        chosen.numbers = {name: values[positions] for name, values in self.numbers.items()}
        chosen.columns = {name: column[lanes] for name, column in self.columns.items()}
        chosen.state = {name: tensor[lanes] for name, tensor in self.state.items()}
        chosen.t = self.t[lanes]
        chosen.ahead = self.ahead[positions]
        chosen.n_steps = 0
        chosen._forget_update()
        return chosen

    def put_back(self, positions, chosen):
        """Copy the state of an optimizer made by :meth:`select` back into its lanes."""
        lanes = send(list(positions), self.t.device, torch.long)
        # the counts of the lanes' steps may differ from now on; the kernel's memory can be kept
        self.update = None
        self.ahead[torch.as_tensor(positions)] += chosen.n_steps
        self.t[lanes] = chosen.t
        for name, tensor in self.state.items():
            tensor[lanes] = chosen.state[name]

    def load(self, lane, state):
        """Put what :meth:`lane_state` returned into a lane."""
        self.update = None
        # before the first step
        self.ahead[lane] = int(state["step"])
        self.t[lane] = state["step"]
        for name, tensor in self.state.items():
            tensor[lane] = state[name]

    def lane_state(self, lane):
        """Return copies of a lane's steps and state tensors, by name."""
        copies = {name: tensor[lane].clone() for name, tensor in self.state.items()}
        return {"step": self.t[lane, 0].item(), **copies}

    def lane_states(self, lanes):
        """Return what :meth:`lane_state` returns for several lanes, on the CPU."""
        chosen = send(list(lanes), self.t.device, torch.long)
        tensors = [self.t, *self.state.values()]
        t, *tensors = fetch([tensor[chosen] for tensor in tensors])
        states = []
        for row, step in enumerate(t[:, 0].tolist()):
            copies = {n: part[row].clone() for n, part in zip(self.state, tensors, strict=True)}
            states.append({"step": step, **copies})
        return states


def _make_column(values, flat):
    """Return a number of each lane as a column (L, 1).

    Its type is float32 at least: in bfloat16 a beta of 0.999 would be 1.
    """
    return send(values, flat.device, wide_dtype(flat.dtype)).unsqueeze(1)
