"""A trial step: whether torch computes nets together as it computes each of them alone."""

import logging
import re
import threading
import warnings
from contextlib import nullcontext
from copy import deepcopy
from dataclasses import replace

import torch

from sktune.engine.lanes import Lane, training_steps
from sktune.engine.steps.loss import StackedLoss
from sktune.engine.steps.network import StackedNet, Unfusable
from sktune.modules.dropout import MaskStream, dropout_layers
from sktune.modules.function_masks import FunctionMasks
from sktune.modules.structure import watch_settings
from sktune.modules.work import few_threads
from sktune.runtime.generators import read_generators, set_generators

_logger = logging.getLogger(__name__)
# The filters of warnings are those of the whole process.
_FILTERING = threading.Lock()
_TRIAL_ROWS = 8

# What torch says of modules that it cannot compute under vmap (a regular expression), and what that
# means for the user.
_MEANINGS = {
    "performance drop": (
        "torch warns of a performance drop: it would compute an operation net by net"
    ),
    "[Bb]atching rule not implemented": (
        "torch has no rule to compute an operation in many nets at once"
    ),
    "deepcopy protocol": "it cannot be copied: it holds tensors that it has computed",
    "differ from net to net": "its dropout is not of numbers that differ from net to net",
    "data-dependent": (
        "its forward has data-dependent control flow, which may differ from net to net"
    ),
    "randomness": "its forward draws random numbers in a way of its own",
    "in-place|inplace": "it writes in place to a tensor that all nets share",
    r"\.item\(\)|\.tolist|numpy|storage": "its forward takes numbers out of tensors",
}


def try_step(specs, tables):
    """Try a step of two nets together.

    `specs` are of fits that are alike. Nothing of them is changed, nor are the random generators.

    Returns
    -------
    reason : str
        Why fits like these cannot be fused, or ``""``.
    idle : frozenset of str
        The names of the parameters that the loss does not depend on, as far as the step came.
    """
    if not any(spec.runs_user_code for spec in specs):
        return "", frozenset()
    # With few threads: a process that has started torch's own cannot be forked any more.
    module = specs[0].module.module
    generators = read_generators()
    try:
        with few_threads(module, max(specs[0].batch_sizes)):
            return _run_trial(specs, tables)
    finally:
        set_generators(generators)


def _run_trial(specs, tables):
    """Return what :func:`try_step` does."""
    try:
        trial = Trial(specs, tables)
    except Exception as error:
        _logger.debug("a step cannot be tried", exc_info=True)
        return _explain(error), frozenset()
    reason = _find_reason(trial)
    return reason, trial.idle


def _find_reason(trial):
    """Return why the fits of a trial cannot be fused, or ``""``."""
    try:
        # torch would loop over the nets, which is no fusion
        with _FILTERING, warnings.catch_warnings():
            warnings.filterwarnings("error", message=".*performance drop")
            trial.run()
    except Unfusable as error:
        return f"its module cannot be fused: {error}"
    except Remembering:
        return "its module remembers its calls"
    except Exception as error:
        _logger.debug("a module cannot be fused", exc_info=True)
        if trial.fails_alone():
            return "its training fails, alone as well as together with others"
        return _explain(error)
    return ""


def _explain(error):
    """Return in words what an error of torch's says of a module."""
    found = "torch cannot compute it in many nets at once"
    for pattern, meaning in _MEANINGS.items():
        if re.search(pattern, str(error)):
            found = meaning
            break
    return f"its module cannot be fused: {found}"


class Remembering(Exception):
    """A module has changed its own attributes while it was called."""


class Trial:
    """The first step of two lanes, of a few rows, which changes nothing.

    Attributes
    ----------
    idle : frozenset of str
        The names of the parameters that get no gradient in the nets alone.
    """

    def __init__(self, specs, tables):
        self.lanes = [Lane(_without_drawn_masks(spec), None, tables) for spec in (specs * 2)[:2]]
        spec = self.lanes[0].spec
        self.loss = StackedLoss(spec.loss, self.lanes[0].rows.target.dtype)
        part = next(training_steps(self.lanes, 0))[0]
        self.positions = part.positions
        self.X = part.X[:, :_TRIAL_ROWS]
        self.target = part.target[:, :_TRIAL_ROWS]
        self.idle = frozenset()

    def run(self):
        """Raise if gradients and buffers after the step are not those of each net alone."""
        alone = [self._compute_alone(*pair) for pair in enumerate(self.positions)]
        self.idle = _find_idle(alone[0][0])
        modules = [lane.spec.module.module for lane in self.lanes]
        masks = self.lanes[0].spec.sampling.open_masks(self.lanes)
        function_masks = self.lanes[0].spec.sampling.open_function_masks(self.lanes)
        net = StackedNet(modules, masks, function_masks, idle=self.idle, is_on_trial=True)
        are_unchanged = watch_settings(net.template)
        net = net.select(self.positions)
        # a module may write into its input
        X = self.X.clone()
        outputs = net.forward(X.clone(), True)
        self._check_loss(outputs.detach())
        found = net.gradient(outputs, self.loss(outputs.detach(), self.target)[1])
        for row, (gradients, module) in enumerate(alone):
            if _find_idle(gradients) != self.idle:
                raise Unfusable("some of its parameters get a gradient in some nets only")
            known = [g.reshape(-1) for g in gradients.values() if g is not None]
            pairs = [(found[row], torch.cat(known))]
            pairs += [(net.buffers[name][row], b) for name, b in module.named_buffers()]
            if not all(_agree(*pair) for pair in pairs):
                raise Unfusable("its gradients or buffers are not those of each net alone")
        # functions of dropout may drop in evaluation, too
        if self.lanes[0].spec.rows.valid is not None or function_masks is not None:
            net.forward(X, False)
        if not are_unchanged():
            raise Remembering

    def fails_alone(self):
        """Tell whether a step of one of the nets alone raises, too."""
        specs = [self.lanes[position].spec for position in self.positions]
        try:
            modules = [deepcopy(spec.module.module).train() for spec in specs]
        except Exception:
            # A net by itself is not copied.
            return False
        try:
            for row, (spec, module) in enumerate(zip(specs, modules, strict=True)):
                outputs = module(self.X[row].clone())
                criterion = deepcopy(spec.loss.criterion)
                pair = spec.loss.bring_together(outputs, self.target[row])
                criterion(*pair).backward()
        except Exception:
            return True
        return False

    def _compute_alone(self, row, position):
        """Return the gradients of a lane's module trained alone, and the module after the step.

        The gradients are a dict by name; None is that of an idle parameter.
        """
        lane = self.lanes[position]
        module = deepcopy(lane.spec.module.module).train()
        for layer, p in zip(dropout_layers(module), lane.spec.dropout, strict=True):
            layer.p = p
            # the module may have been trained before: its masks are those of the first step
            layer.stream = MaskStream(layer.stream.seed)
            layer.step = None
        with self._open_function_masks(lane):
            # a module may write into its input
            outputs = module(self.X[row].clone())
        loss = self.loss.of_net(outputs, self.target[row])
        learned = {name: p for name, p in module.named_parameters() if p.requires_grad}
        gradients = torch.autograd.grad(loss, list(learned.values()), allow_unused=True)
        return dict(zip(learned, gradients, strict=True)), module

    @staticmethod
    def _open_function_masks(lane):
        """Return the masks of a lane's calls of dropout functions in its first step, alone."""
        if lane.spec.sampling.open_function_masks([lane]) is None:
            return nullcontext()
        return FunctionMasks(MaskStream(lane.spec.seed))

    def _check_loss(self, outputs):
        """Raise if a row's loss depends on the rows beside it."""
        first = (outputs[:, :1], self.target[:, :1])
        if self.loss.is_plain_mean:
            pairs = zip(*first, strict=True)
            alone = torch.stack([self.loss.of_net(*pair) for pair in pairs])
        else:
            alone = self.loss.of_lanes(*first, torch.ones(self.target.shape[0], 1).to(outputs))
        only_first = torch.zeros(self.target.shape[:2]).to(outputs)
        only_first[:, 0] = self.target.shape[1]
        found = self.loss.of_lanes(outputs, self.target, only_first).to(alone.dtype)
        rtol = _tolerance(outputs.dtype, 1e-3)
        if not torch.allclose(found, alone, rtol=rtol, equal_nan=True):
            raise Unfusable("its criterion is no mean of the rows' own losses")


def _find_idle(gradients):
    """Return the names of the parameters that got no gradient."""
    return frozenset(name for name, gradient in gradients.items() if gradient is None)


def _without_drawn_masks(spec):
    """Return a spec whose step can be compared: drawn masks are others for each net alone."""
    if spec.sampling.has_seeded_masks:
        return spec
    return replace(spec, dropout=tuple(0.0 for _ in spec.dropout))


def _tolerance(dtype, usual):
    """Return the relative error allowed to two ways to compute the same; more in half precision."""
    is_half = dtype.is_floating_point and dtype.itemsize < 4
    return 8 * torch.finfo(dtype).eps if is_half else usual


def _agree(found, expected):
    rtol = _tolerance(expected.dtype, 0.01)
    allowed = 0.0
    if expected.numel():
        allowed = rtol * float(expected.abs().max()) + 1e-6
    found = found.detach().cpu().double()
    expected = expected.detach().cpu().double()
    return torch.allclose(found, expected, rtol=0, atol=allowed, equal_nan=True)
