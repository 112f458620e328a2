"""torch's optimizers that networks are trained together with: one entry of ``OPTIMIZERS`` each.

Whatever trains networks by other means than torch's own ``step`` reads what it has to know of an
optimizer here: stacked steps, compiled steps, the planner, and the way back into torch's objects
(:mod:`sktune.training.optimizer_state`).

The update of an optimizer is a function ``update(p, g, state, t, options)`` over stacked networks.
It changes the parameters `p` (L, P) and the tensors of `state` in place, where `g` (L, P) is the
gradient, `t` (L, 1) are the steps done including this one, and `options` holds a column (L, 1) for
each hyperparameter and a value for each shared option. No update branches on a column, which may
hold zeros in some lanes only. An update leaves `g` as it is, which may be the memory of the
networks' gradients. The weight decay has been added to `g`, or has been taken off `p`, by
:class:`~sktune.engine.steps.optimizers.StackedOptimizer`.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch


def update_sgd(p, g, state, t, options):
    """Take a step of SGD with momentum (Sutskever et al. 2013), as in torch."""
    # The buffer begins with the first gradient, undamped. Without momentum torch damps nothing.
    is_damped = (t > 1) & (options["momentum"] != 0)
    damped = 1 - options["dampening"] * is_damped
    buffer = state["momentum_buffer"]
    buffer.mul_(options["momentum"]).add_(g * damped)
    step = g + options["momentum"] * buffer if options["nesterov"] else buffer
    p.sub_(options["lr"] * step)


def update_adam(p, g, state, t, options):
    """Take a step of Adam (Kingma and Ba 2015, algorithm 1), or of AMSGrad (Reddi et al. 2018)."""
    _update_moments(g, state, options)
    squares = state["exp_avg_sq"]
    if options["amsgrad"]:
        largest = state["max_exp_avg_sq"]
        squares = torch.maximum(largest, squares, out=largest)
    root = (1 - options["beta2"] ** t).sqrt()
    denominator = squares.sqrt().add_(options["eps"] * root)
    rate = options["lr"] * root / (1 - options["beta1"] ** t)
    p.sub_((state["exp_avg"] / denominator).mul_(rate))


def update_nadam(p, g, state, t, options):
    """Take a step of NAdam (Dozat 2016), with torch's schedule of the momentum."""
    _update_moments(g, state, options)
    mu = options["beta1"] * (1 - 0.5 * 0.96 ** (t * options["momentum_decay"]))
    mu_next = options["beta1"] * (1 - 0.5 * 0.96 ** ((t + 1) * options["momentum_decay"]))
    state["mu_product"].mul_(mu.float())
    product = state["mu_product"].to(p.dtype)
    denominator = (state["exp_avg_sq"] / (1 - options["beta2"] ** t)).sqrt_().add_(options["eps"])
    step = g * ((1 - mu) / (1 - product))
    step = step + state["exp_avg"] * (mu_next / (1 - product * mu_next))
    p.sub_(step.div_(denominator).mul_(options["lr"]))


def update_adamax(p, g, state, t, options):
    """Take a step of Adamax (Kingma and Ba 2015, algorithm 2)."""
    state["exp_avg"].lerp_(g, 1 - options["beta1"])
    largest = state["exp_inf"]
    torch.maximum(largest.mul_(options["beta2"]), g.abs().add_(options["eps"]), out=largest)
    rate = options["lr"] / (1 - options["beta1"] ** t)
    p.sub_((state["exp_avg"] / largest).mul_(rate))


def update_radam(p, g, state, t, options):
    """Take a step of RAdam (Liu et al. 2020, algorithm 2), with torch's bound on the length."""
    _update_moments(g, state, options)
    beta2 = options["beta2"]
    unbias = 1 - beta2**t
    longest = 2 / (1 - beta2) - 1
    length = longest - 2 * t * beta2**t / unbias
    share = (length - 4) * (length - 2) * longest / ((longest - 4) * (longest - 2) * length)
    adaptive = unbias.sqrt() / state["exp_avg_sq"].sqrt().add_(options["eps"])
    factor = (share.sqrt() * adaptive).where(length > 5, 1.0)
    rate = options["lr"] / (1 - options["beta1"] ** t)
    p.sub_((state["exp_avg"] * factor).mul_(rate))


def update_adadelta(p, g, state, t, options):
    """Take a step of Adadelta (Zeiler 2012, algorithm 1)."""
    rho = options["rho"]
    state["square_avg"].mul_(rho).add_(g.square().mul_(1 - rho))
    step = (state["acc_delta"] + options["eps"]).sqrt_()
    step.div_((state["square_avg"] + options["eps"]).sqrt_()).mul_(g)
    state["acc_delta"].mul_(rho).add_(step.square().mul_(1 - rho))
    p.sub_(step.mul_(options["lr"]))


def _update_moments(g, state, options):
    state["exp_avg"].lerp_(g, 1 - options["beta1"])
    state["exp_avg_sq"].lerp_(g.square(), 1 - options["beta2"])


def update_rmsprop(p, g, state, t, options):
    """Take a step of RMSprop (Tieleman and Hinton 2012), with torch's momentum.

    With ``centered`` it divides by the deviation of the gradient (Graves 2013, section 2.1).
    """
    state["square_avg"].lerp_(g.square(), 1 - options["alpha"])
    squares = state["square_avg"]
    if options["centered"]:
        state["grad_avg"].lerp_(g, 1 - options["alpha"])
        squares = squares - state["grad_avg"].square()
    step = g / squares.sqrt().add_(options["eps"])
    state["momentum_buffer"].mul_(options["momentum"]).add_(step)
    p.sub_(options["lr"] * state["momentum_buffer"])


def update_adagrad(p, g, state, t, options):
    """Take a step of Adagrad (Duchi et al. 2011)."""
    state["sum"].addcmul_(g, g)
    rate = options["lr"] / (1 + (t - 1) * options["lr_decay"])
    p.sub_(rate * g / state["sum"].sqrt().add_(options["eps"]))


@dataclass(frozen=True)
class StateTensor:
    """A tensor that an optimizer keeps for each parameter.

    Attributes
    ----------
    initial : float or str, default=0.0
        The value that the tensor begins with, or the option that holds this value.
    needs : str or None, default=None
        The option without which torch keeps no such tensor.
    is_scalar : bool, default=False
        Whether the tensor is a single number for a parameter, of float32 as in torch; otherwise the
        tensor has the shape of the parameter.
    """

    initial: float | str = 0.0
    needs: str | None = None
    is_scalar: bool = False

    def read_initial(self, options):
        """Return the value that the tensor begins with, under some options."""
        if isinstance(self.initial, str):
            return float(options[self.initial])
        return self.initial


@dataclass(frozen=True)
class CompiledForm:
    """How the compiled kernels take the steps of an optimizer.

    Attributes
    ----------
    constant : str
        The name of the optimizer's opcode in ``sktune/engine/compiled/kernels.py``.
    options : tuple of str
        The options that the kernel reads, at most five, in its order.
    variants : dict of str to str
        The names of other opcodes, by the options that choose them.
    unsupported : tuple of str
        Options that the kernel does not know.
    """

    constant: str
    options: tuple
    variants: dict = field(default_factory=dict)
    unsupported: tuple = ("differentiable", "capturable")

    def choose_constant(self, options):
        """Return the name of the opcode under some options."""
        chosen = [name for option, name in self.variants.items() if options.get(option)]
        return chosen[0] if chosen else self.constant


@dataclass(frozen=True)
class OptimizerRule:
    """What is to be known of a class of :mod:`torch.optim` in order to train networks together.

    Attributes
    ----------
    update : callable
        ``update(p, g, state, t, options)``, see the head of this module.
    hyperparameters : tuple of str
        Options that may differ between networks that are trained together, beside the learning rate
        and the weight decay. ``beta1`` and ``beta2`` are the two ``betas``.
    state : dict of StateTensor
        The tensors of the optimizer's state by torch's names, without ``step``. The compiled
        kernels get them in this order.
    shared : tuple of str
        Options on which the update depends, and that must be equal in networks trained together.
    unsupported : tuple of str
        Options that the update does not know; a network that sets one is trained by itself. It need
        not know ``maximize``: it is given a gradient of the opposite sign.
    counts_steps : bool, default=True
        Whether torch keeps the number of steps in the state.
    decouples_weight_decay : bool, default=False
        Whether the weight decay is always that of Loshchilov and Hutter (2019); otherwise it is so
        where the option ``decoupled_weight_decay`` is set.
    torch_fused_devices : frozenset of str
        The types of devices on which torch has an implementation of the optimizer in one kernel,
        ``fused=True``, for a single network.
    is_torch_fused_in_half : bool, default=True
        Whether this implementation is right for parameters of half precision.
    compiled : CompiledForm or None, default=None
        How the compiled kernels take the optimizer's steps; None if they do not.
    """

    update: Callable
    hyperparameters: tuple = ()
    state: dict = field(default_factory=dict)
    shared: tuple = ("maximize",)
    unsupported: tuple = ()
    counts_steps: bool = True
    decouples_weight_decay: bool = False
    torch_fused_devices: frozenset = frozenset()
    is_torch_fused_in_half: bool = True
    compiled: CompiledForm | None = None

    def is_decoupled(self, options):
        """Tell whether the weight decay is decoupled from the gradient, under some options."""
        return self.decouples_weight_decay or bool(options.get("decoupled_weight_decay", False))

    def list_state(self, options):
        """Return the names of the state tensors that networks trained together have.

        A tensor that needs an option is left out where all of them lack it.
        """
        return [
            name
            for name, tensor in self.state.items()
            if tensor.needs not in self.shared or options.get(tensor.needs)
        ]

    def list_kept_state(self, options):
        """Return the names of the state tensors that torch keeps under some options."""
        return [
            name
            for name, tensor in self.state.items()
            if tensor.needs is None or options[tensor.needs]
        ]


_BETAS = ("beta1", "beta2", "eps")
_MOMENTS = {"exp_avg": StateTensor(), "exp_avg_sq": StateTensor()}
_MOMENTUM = {"momentum_buffer": StateTensor(needs="momentum")}
_LARGEST = {"max_exp_avg_sq": StateTensor(needs="amsgrad")}
_ALL_DEVICES = frozenset({"cpu", "cuda", "mps"})
_COMPILED_ADAM = CompiledForm("ADAM", _BETAS, {"amsgrad": "AMSGRAD"})

OPTIMIZERS = {
    torch.optim.SGD: OptimizerRule(
        update_sgd,
        ("momentum", "dampening"),
        _MOMENTUM,
        shared=("maximize", "nesterov"),
        counts_steps=False,
        torch_fused_devices=_ALL_DEVICES,
        # torch 2.13 updates only a part of the parameters rightly, on a CPU
        is_torch_fused_in_half=False,
        compiled=CompiledForm("SGD", ("momentum", "dampening", "nesterov")),
    ),
    torch.optim.Adam: OptimizerRule(
        update_adam,
        _BETAS,
        {**_MOMENTS, **_LARGEST},
        shared=("maximize", "amsgrad", "decoupled_weight_decay"),
        torch_fused_devices=_ALL_DEVICES,
        compiled=_COMPILED_ADAM,
    ),
    torch.optim.AdamW: OptimizerRule(
        update_adam,
        _BETAS,
        {**_MOMENTS, **_LARGEST},
        shared=("maximize", "amsgrad"),
        decouples_weight_decay=True,
        torch_fused_devices=_ALL_DEVICES,
        compiled=_COMPILED_ADAM,
    ),
    torch.optim.NAdam: OptimizerRule(
        update_nadam,
        (*_BETAS, "momentum_decay"),
        {**_MOMENTS, "mu_product": StateTensor(initial=1.0, is_scalar=True)},
        shared=("maximize", "decoupled_weight_decay"),
        compiled=CompiledForm("NADAM", (*_BETAS, "momentum_decay")),
    ),
    torch.optim.RMSprop: OptimizerRule(
        update_rmsprop,
        ("alpha", "eps", "momentum"),
        {"square_avg": StateTensor(), **_MOMENTUM, "grad_avg": StateTensor(needs="centered")},
        shared=("maximize", "centered"),
        compiled=CompiledForm(
            "RMSPROP", ("alpha", "eps", "momentum"), {"centered": "CENTERED_RMSPROP"}
        ),
    ),
    torch.optim.Adagrad: OptimizerRule(
        update_adagrad,
        ("lr_decay", "eps"),
        {"sum": StateTensor(initial="initial_accumulator_value")},
        torch_fused_devices=frozenset({"cpu"}),
        compiled=CompiledForm("ADAGRAD", ("lr_decay", "eps")),
    ),
    torch.optim.Adamax: OptimizerRule(
        update_adamax,
        _BETAS,
        {"exp_avg": StateTensor(), "exp_inf": StateTensor()},
        compiled=CompiledForm("ADAMAX", _BETAS),
    ),
    torch.optim.RAdam: OptimizerRule(
        update_radam,
        _BETAS,
        _MOMENTS,
        shared=("maximize", "decoupled_weight_decay"),
        compiled=CompiledForm("RADAM", _BETAS),
    ),
    torch.optim.Adadelta: OptimizerRule(
        update_adadelta,
        ("rho", "eps"),
        {"square_avg": StateTensor(), "acc_delta": StateTensor()},
        compiled=CompiledForm("ADADELTA", ("rho", "eps")),
    ),
}

# Hyperparameters that torch does not keep under their names: the option, and the position in it.
_PARTS = {"beta1": ("betas", 0), "beta2": ("betas", 1)}


def read_option(options, name):
    """Return the number that a hyperparameter has among the options of a group of parameters."""
    if name in _PARTS:
        option, position = _PARTS[name]
        return float(options[option][position])
    return float(options.get(name, 0.0))


def list_free_options():
    """Return the options that may differ between networks trained together, by torch's names."""
    names = {"weight_decay"}
    for rule in OPTIMIZERS.values():
        for name in rule.hyperparameters:
            option, _ = _PARTS.get(name, (name, None))
            names.add(option)
    return names


def prefers_torch_fused(optimizer, options, parameters, *, has_sparse_gradients=False):
    """Tell whether an optimizer is to be built with ``fused=True``.

    Parameters
    ----------
    optimizer : class
        Of :mod:`torch.optim`.
    options : dict
        What the user sets.
    parameters : iterable of Tensor
        What the optimizer is to train.
    has_sparse_gradients : bool, default=False
        Whether a gradient may be sparse, which no fused implementation takes.

    Returns
    -------
    is_fused : bool or None
        None if the choice is not ours: torch has no such implementation, or the user has chosen.
    """
    rule = OPTIMIZERS.get(optimizer)
    if rule is None or not rule.torch_fused_devices:
        return None
    if {"fused", "foreach", "differentiable"} & options.keys():
        return None
    parameters = list(parameters)
    devices = {p.device.type for p in parameters if p.is_floating_point()}
    is_half = any(p.dtype.itemsize < 4 for p in parameters)
    if has_sparse_gradients or (is_half and not rule.is_torch_fused_in_half):
        return False
    return devices <= rule.torch_fused_devices
