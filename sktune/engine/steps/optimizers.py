"""torch's optimizers over flat parameters ``[L, P]``, with one value of each hyperparameter per lane.

A rule is a function ``rule(p, g, state, t, h)``: parameters and gradient ``(L, P)``, the state's tensors, the
steps done including this one ``(L, 1)``, and the hyperparameters, columns ``(L, 1)``. It changes `p` and the
state in place. No rule branches on a value: a column may hold zeros. Weight decay is done before.
"""

from collections.abc import Callable
from copy import copy
from dataclasses import dataclass

import torch

from sktune.runtime.dtypes import wide_dtype

# torch's private name for what its Adam(fused=True) calls; tests/engine/test_optimizers.py fails when it moves.
fused_adam = torch._fused_adam_


def sgd(p, g, state, t, h):
    """Sutskever et al. 2013, as in torch: the buffer begins with the first gradient, undamped."""
    damped = 1 - h["dampening"] * (
        (t > 1) & (h["momentum"] != 0)
    )  # torch damps nothing where there is no momentum
    state["momentum_buffer"].mul_(h["momentum"]).add_(g * damped)
    step = (
        g + h["momentum"] * state["momentum_buffer"] if h["nesterov"] else state["momentum_buffer"]
    )
    p.sub_(h["lr"] * step)


def adam(p, g, state, t, h):
    """Kingma and Ba 2015, algorithm 1; Loshchilov and Hutter 2019, algorithm 2."""
    _update_moments(g, state, h)
    root = (1 - h["beta2"] ** t).sqrt()
    denominator = state["exp_avg_sq"].sqrt().add_(h["eps"] * root)
    p.sub_((state["exp_avg"] / denominator).mul_(h["lr"] * root / (1 - h["beta1"] ** t)))


def nadam(p, g, state, t, h):
    """Dozat 2016, with torch's schedule of the momentum."""
    _update_moments(g, state, h)
    mu = h["beta1"] * (1 - 0.5 * 0.96 ** (t * h["momentum_decay"]))
    mu_next = h["beta1"] * (1 - 0.5 * 0.96 ** ((t + 1) * h["momentum_decay"]))
    state["mu_product"].mul_(mu.float())
    product = state["mu_product"].to(p.dtype)
    denominator = (state["exp_avg_sq"] / (1 - h["beta2"] ** t)).sqrt_().add_(h["eps"])
    step = g * ((1 - mu) / (1 - product)) + state["exp_avg"] * (mu_next / (1 - product * mu_next))
    p.sub_(step.div_(denominator).mul_(h["lr"]))


def _update_moments(g, state, h):
    state["exp_avg"].lerp_(g, 1 - h["beta1"])
    state["exp_avg_sq"].lerp_(g.square(), 1 - h["beta2"])


def rmsprop(p, g, state, t, h):
    """Tieleman and Hinton 2012, with torch's momentum."""
    state["square_avg"].lerp_(g.square(), 1 - h["alpha"])
    step = g / state["square_avg"].sqrt().add_(h["eps"])
    state["momentum_buffer"].mul_(h["momentum"]).add_(step)
    p.sub_(h["lr"] * state["momentum_buffer"])


def adagrad(p, g, state, t, h):
    """Duchi et al. 2011."""
    state["sum"].addcmul_(g, g)
    rate = h["lr"] / (1 + (t - 1) * h["lr_decay"])
    p.sub_(rate * g / state["sum"].sqrt().add_(h["eps"]))


@dataclass(frozen=True)
class Rule:
    """An optimizer for lanes: its rule, and what beside lr and weight decay may differ between them, or must not.

    `state` is shaped like the parameters; `numbers` are one per lane, in float32 as in torch.
    """

    step: Callable
    columns: tuple
    state: tuple
    shared: tuple = ()
    numbers: tuple = ()


_ADAM = ("beta1", "beta2", "eps")
_MOMENTS, _DECOUPLED = ("exp_avg", "exp_avg_sq"), ("decoupled_weight_decay",)
RULES = {
    torch.optim.SGD: Rule(sgd, ("momentum", "dampening"), ("momentum_buffer",), ("nesterov",)),
    torch.optim.Adam: Rule(adam, _ADAM, _MOMENTS, _DECOUPLED),
    torch.optim.AdamW: Rule(adam, _ADAM, _MOMENTS),
    torch.optim.NAdam: Rule(
        nadam, (*_ADAM, "momentum_decay"), _MOMENTS, _DECOUPLED, numbers=("mu_product",)
    ),
    torch.optim.RMSprop: Rule(
        rmsprop, ("alpha", "eps", "momentum"), ("square_avg", "momentum_buffer")
    ),
    torch.optim.Adagrad: Rule(adagrad, ("lr_decay", "eps"), ("sum",)),
}
OFF = ("amsgrad", "centered", "maximize")  # options that no rule knows
# Columns that are no option of a group by their name, and tensors of the state that do not begin with zeros.
_READ = {
    "beta1": lambda group: group["betas"][0],
    "beta2": lambda group: group["betas"][1],
    "sum": lambda group: group["initial_accumulator_value"],
    "mu_product": lambda group: 1.0,
}


class AdamKernel:
    """A rule that is torch's fused Adam, 5 x faster on a CPU than its steps one by one.

    Lanes must be alike in all but lr and weight decay. An update is linear in lr: torch makes it for lr = 1, and it is
    scaled for each lane.
    """

    def __init__(self, flat, columns, is_decoupled):
        self.update = torch.empty_like(flat)  # (L, P)
        self.steps = torch.zeros(
            (), device=flat.device
        )  # which CUDA reads as float32, whatever the parameters' type
        self.options = {name: columns[name][0].item() for name in _ADAM}
        self.options |= {"lr": 1.0, "weight_decay": 0.0, "amsgrad": False, "maximize": False}
        self.pull = (
            -columns["weight_decay"] if is_decoupled else torch.zeros_like(columns["weight_decay"])
        )

    def __call__(self, p, g, state, t, h):
        """Do what :func:`adam` does, and the decoupled weight decay."""
        torch.mul(p, self.pull, out=self.update)
        self.steps.add_(1)
        moments = [state["exp_avg"]], [state["exp_avg_sq"]]
        fused_adam([self.update], [g], *moments, [], [self.steps], **self.options)
        p.addcmul_(self.update, h["lr"])


def _are_equal(column):
    return bool((column == column[0]).all())


class StackedOptimizer:
    """An optimizer of L lanes: of one class among ``RULES``, with a group's options for each lane."""

    def __init__(self, kind, groups, flat):
        rule = RULES[kind]
        self.plain_rule, self.rule, self.kernel = (
            rule.step,
            None,
            None,
        )  # chosen before the first step
        self.columns = {
            name: _column(groups, name, flat) for name in ("weight_decay", *rule.columns)
        }
        self.shared = {name: groups[0].get(name, False) for name in rule.shared}
        self.is_decoupled = kind is torch.optim.AdamW or self.shared.get("decoupled_weight_decay")
        self.t = torch.zeros(len(flat), 1, dtype=wide_dtype(flat.dtype), device=flat.device)
        self.state = {
            name: _column(groups, name, flat).to(flat.dtype).expand_as(flat).clone()
            for name in rule.state
        }
        self.state |= {name: _column(groups, name, flat).float() for name in rule.numbers}

    def step(self, flat, gradient, rates):
        """Change `flat` by one step at the learning rates (L, 1)."""
        self.choose_rule(flat)
        if flat.dtype == self.t.dtype:
            self._step(flat, gradient, rates, self.state)
            return
        # As torch's fused optimizers do for float16 and bfloat16: compute in float32, and round the results.
        dtype = self.t.dtype
        wide_flat = flat.to(dtype)
        wide_state = {name: tensor.to(dtype) for name, tensor in self.state.items()}
        self._step(wide_flat, gradient.to(dtype), rates, wide_state)
        flat.copy_(wide_flat)
        for name, tensor in self.state.items():
            tensor.copy_(wide_state[name])

    def _step(self, flat, gradient, rates, state):
        decay = self.columns["weight_decay"]
        if self.decays and not self.is_decoupled:
            gradient = gradient.addcmul_(decay, flat)
        elif self.decays and self.rule is self.plain_rule:
            flat.mul_(1 - rates * decay)
        self.t += 1
        self.rule(flat, gradient, state, self.t, {**self.columns, **self.shared, "lr": rates})

    def choose_rule(self, flat):
        """Return the rule of the next step, which depends on what the lanes have in common."""
        if self.rule is not None:
            return self.rule
        self.decays = bool(self.columns["weight_decay"].any())
        self.rule = self.plain_rule
        is_known = flat.device.type in ("cpu", "cuda") and flat.dtype == self.t.dtype
        if (
            is_known
            and self.plain_rule is adam
            and all(map(_are_equal, (self.t, *(self.columns[name] for name in _ADAM))))
        ):
            self.kernel = self.kernel or AdamKernel(flat, self.columns, self.is_decoupled)
            self.kernel.steps.copy_(self.t[0, 0])
            self.rule = self.kernel
        return self.rule

    def select(self, lanes):
        """Return an optimizer of some lanes only, copied."""
        chosen = copy(self)
        chosen.columns = {name: column[lanes] for name, column in self.columns.items()}
        chosen.state = {name: tensor[lanes] for name, tensor in self.state.items()}
        chosen.t, chosen.rule, chosen.kernel = self.t[lanes], None, None
        return chosen

    def put_back(self, lanes, chosen):
        """Copy the state of an optimizer made by :meth:`select` back into its lanes."""
        self.rule = None  # the lanes' steps may differ from now on
        self.t[lanes] = chosen.t
        for name, tensor in self.state.items():
            tensor[lanes] = chosen.state[name]

    def load(self, lane, state):
        """Put what :meth:`lane_state` returned into a lane."""
        # the lanes' steps may differ from now on
        self.rule = None
        self.t[lane] = state["step"]
        for name, tensor in self.state.items():
            tensor[lane] = state[name]

    def lane_state(self, lane):
        """Return copies of a lane's steps and state tensors, by name."""
        return {
            "step": self.t[lane, 0].item(),
            **{name: tensor[lane].clone() for name, tensor in self.state.items()},
        }


def _column(groups, name, flat):
    """Return a hyperparameter of the lanes' groups, or what a tensor of their states begins with: (L, 1).

    It is of float32 at least: in bfloat16 a beta of 0.999 would be 1.
    """
    values = [
        float(_READ[name](group) if name in _READ else group.get(name, 0.0)) for group in groups
    ]
    return torch.tensor(values, dtype=wide_dtype(flat.dtype), device=flat.device).unsqueeze(1)
