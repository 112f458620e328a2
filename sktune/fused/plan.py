"""Which fits can be trained together, and why the others cannot."""

import logging
import re
import threading
import types
import warnings
from numbers import Integral

import numpy as np
import torch
from scipy import sparse
from sklearn.pipeline import Pipeline
from skorch.dataset import Dataset, ValidSplit
from torch import nn
from torch.nn.parameter import is_lazy
from torch.utils.data import DataLoader

from sktune.data import rows_of
from sktune.estimators import NetworkEstimator, NeuralNetClassifier, NeuralNetRegressor
from sktune.fused.draws import read_generators, set_generators
from sktune.fused.optim import OFF, RULES
from sktune.fused.plain import KINDS
from sktune.fused.train import Group, Unfusable
from sktune.modules import MLP, HashedDropout, few_threads, has_other_forward
from sktune.training import find_override, remember_methods

_logger = logging.getLogger(__name__)
_TORCH_OWN = frozenset(vars(nn.Module()))
_PLAIN = (int, float, complex, str, bytes, bool, np.generic, type(None), torch.dtype, torch.Size, types.FunctionType)
_FILTERING = threading.Lock()  # the filters of warnings are the whole process's
_MANY = 8  # lanes that fill a core
_MOST, _MOST_ON_GPU = 32, 512  # lanes of a group, beyond which more bring no speed
_PROVEN = (nn.CrossEntropyLoss, nn.MSELoss)
_STANDARD = {"dataset": Dataset, "iterator_train": DataLoader, "iterator_valid": DataLoader}

remember_methods(*KINDS)


def why_alone(net):
    """Return why a net's configuration cannot be fused, or nothing."""
    is_ours = isinstance(net, NetworkEstimator)
    if not is_ours and type(net) not in KINDS:
        return f"{type(net).__name__} is neither one of sktune's nets nor of skorch's"
    if name := find_override(net):
        return f"{type(net).__name__} overrides {name}"
    if vars(net).get("history_") is not None:
        return "it has a history of its own"
    if (net.callbacks and net.callbacks != "disable") or any(name.startswith("callbacks__") for name in vars(net)):
        return "it has callbacks of its own"
    for name, standard in _STANDARD.items():
        options = net.get_params_for(name).keys() - (() if is_ours else {"shuffle"})
        if getattr(net, name) is not standard or options:
            return f"it has a {name} of its own"
    if not is_ours and net.train_split and type(net.train_split) is not ValidSplit:
        return "it has a train_split of its own"
    lengths = (net.max_epochs, 1 if net.batch_size == -1 else net.batch_size)
    if not is_ours and not all(isinstance(length, Integral) and length > 0 for length in lengths):
        return "its max_epochs or batch_size is unusual"
    for name in ("warm_start", "compile", *(("train_split", "verbose") if is_ours else ())):
        if getattr(net, name):
            return f"it sets {name}"
    if net.optimizer not in RULES:
        return f"its optimizer {getattr(net.optimizer, '__name__', net.optimizer)} has no fused rule"
    return ""


def why_pipeline_alone(pipeline):
    """Return why a pipeline cannot be run up to its last step's training, or nothing."""
    if pipeline is None:
        return ""
    for name, step in pipeline.steps[:-1]:
        if hasattr(step, "fit_resample"):
            return f"its Pipeline resamples the rows, in the step {name!r}"
    kinds = type(pipeline).__mro__
    for kind in kinds[: kinds.index(Pipeline)]:
        # which may take the pipeline's memory, or what the steps return, for something else than we do
        if vars(kind).keys() & {"fit", "_fit", "memory", "steps"}:
            return f"its Pipeline is of a class that fits its steps in a way of its own, {kind.__name__}"
    return ""


def why_alone_initialized(net, rows):
    """Return why an initialized net cannot be fused with the rows that it was given, or nothing."""
    if rows is None or sparse.issparse(rows.X):
        return "its rows are no dense table of the module's type"
    module, criterion, (group, *others) = net.module_, net.criterion_, net.optimizer_.param_groups
    is_mean = getattr(criterion, "reduction", None) == "mean" and getattr(criterion, "weight", None) is None
    pads = any(getattr(part, "padding_idx", None) is not None for part in module.modules())
    reasons = {
        "its module has lazy layers, whose sizes its first batch tells": any(map(is_lazy, module.parameters())),
        "its criterion has parameters": list(criterion.parameters()),
        "its optimizer has several groups of parameters": others,
        "its optimizer has parameters that are not the module's": len(group["params"]) != len([*module.parameters()]),
        **{f"its optimizer sets {name}": group.get(name) for name in OFF},
        "its criterion is no plain mean over the rows": not is_mean,
        "its criterion ignores rows": _ignores(criterion, rows.target),
        "its embedding has a padding_idx, whose row vmap would train": pads,
    }
    return next((reason for reason, holds in reasons.items() if holds), "")


def _ignores(criterion, target):
    """Tell whether a criterion may leave targets out: the mean is then over the others."""
    ignored = getattr(criterion, "ignore_index", None)
    return ignored is not None and (ignored >= 0 or bool((target == ignored).any()))


def group_lanes(fits, max_lanes):
    """Arrange fits with lanes in lists of those that are trained together.

    A list holds nets of one architecture, optimizer, criterion and batch size, whose numbers of rows differ by no
    more than a batch. Fits of one training set stand side by side.
    """
    alike = {}
    for fit in fits:
        alike.setdefault(fit.kind, []).append(fit)
    groups = []
    for members in alike.values():
        members.sort(key=lambda fit: fit.lane.n_rows)
        while members:
            most = members[0].lane.n_rows + max(members[0].lane.batches.sizes)
            together = [fit for fit in members if fit.lane.n_rows <= most]
            members = members[len(together) :]
            groups += _split(together, max_lanes)
    return groups


def _split(fits, max_lanes):
    """Divide fits evenly. On a CPU, those of a stream that are many enough stay among themselves, and share batches."""
    on_cpu = rows_of(fits[0].lane.train)[0].X.device.type == "cpu"
    most, streams = max_lanes or (_MOST if on_cpu else _MOST_ON_GPU), {}
    for fit in fits:
        streams.setdefault(fit.lane.stream, []).append(fit)
    apart, rest = [], []
    for members in streams.values():
        if on_cpu and len(members) >= _MANY:
            apart.append(members)
        else:
            rest += members
    for members in [*apart, rest]:
        n_parts = -(-len(members) // most)
        yield from (members[len(members) * n // n_parts : len(members) * (n + 1) // n_parts] for n in range(n_parts))


def signature(lane):
    """Return what the nets of a group have in common."""
    net, (rows, _) = lane.net, rows_of(lane.train)
    optimizer = (lane.optimizer, *((name, lane.options.get(name)) for name in RULES[lane.optimizer].shared))
    data = (rows.X.shape[1:], rows.X.dtype, rows.X.device, rows.target.shape[1:], rows.target.dtype)
    labels = (getattr(net, "n_outputs_", None), repr(getattr(net, "classes", None)))
    loop = (net.batch_size, lane.valid is not None, type(net), labels, lane.narrow_to)
    criterion = (_structure(lane.criterion), *(str(buffer.tolist()) for buffer in lane.criterion.buffers()))
    return (data, loop, optimizer, criterion, _structure(lane.module))


def _structure(module):
    """Return all of a module that must be equal for two to be trained as one: everything but the numbers learned."""
    tensors = [(name, p.shape, p.dtype, p.requires_grad) for name, p in module.named_parameters()]
    tensors += [(name, b.shape, b.dtype) for name, b in module.named_buffers()]
    parts = [(name, type(part)) for name, part in module.named_modules(remove_duplicate=False)]
    return (tuple(tensors), tuple(parts), tuple(sorted((key, as_text(value)) for key, value in _settings(module))))


def _settings(module):
    """Yield what the parts of a module hold beside their tensors and torch's own: where it is found, and the value."""
    for name, part in module.named_modules(remove_duplicate=False):
        if not isinstance(part, HashedDropout):
            yield from (((name, key), value) for key, value in vars(part).items() if key not in _TORCH_OWN)


def as_text(value):
    """Return a text that is the same for equal values; where equality cannot be known, for the same object only."""
    if isinstance(value, tuple | list):
        return f"{type(value).__name__}({', '.join(map(as_text, value))})"
    if isinstance(value, dict):
        return str({key: as_text(v) for key, v in value.items()})
    return repr(value) if isinstance(value, _PLAIN) else f"object {id(value)}"


# What torch says of modules that it cannot compute under vmap, and what that means.
_MEANINGS = {
    "performance drop": "torch warns of a performance drop: it would compute an operation net by net",
    "[Bb]atching rule not implemented": "torch has no rule to compute an operation in many nets at once",
    "differ from net to net": "its dropout is not of numbers that differ from net to net",
    "data-dependent": "its forward has data-dependent control flow, which may differ from net to net",
    "randomness": "its forward draws random numbers in a way of its own",
    "in-place|inplace": "it writes in place to a tensor that all nets share",
    r"\.item\(\)|\.tolist|numpy|storage": "its forward takes numbers out of tensors",
}


def is_proven(lane):
    """Tell whether no user's code takes part in the training of a lane."""
    net = lane.net
    is_ours = type(net) in (NeuralNetClassifier, NeuralNetRegressor) and net.module is MLP and net.criterion in _PROVEN
    is_patched = any(map(has_other_forward, (*lane.module.modules(), lane.criterion)))
    return is_ours and "module__n_outputs" not in vars(net) and not is_patched


def find_obstacle(fits):
    """Try a step; return why the module of some fits cannot be trained under vmap, or nothing."""
    lane = fits[0].lane
    if is_proven(lane):
        return ""
    generators = read_generators()
    try:
        # with few threads: a process that has started torch's own cannot be forked any more
        with few_threads(lane.module, max(lane.batches.sizes)):
            return _try_step(fits)
    finally:
        set_generators(generators)


def _try_step(fits):
    group = None
    try:
        with _FILTERING, warnings.catch_warnings():
            warnings.filterwarnings("error", message=".*performance drop")  # a loop over the lanes, not a fusion
            group = Group([fit.lane.for_trial() for fit in (fits * 2)[:2]])
            is_unchanged = _watch(group.net.template)
            group.try_step()
            if not is_unchanged():
                return "its module remembers its calls"
            if not (group.can_evaluate() and is_unchanged()):
                for fit in fits:
                    fit.lane.test = None  # each net is to predict in its own place
    except Unfusable as error:
        return f"its module cannot be fused: {error}"
    except Exception as error:
        _logger.debug("a module cannot be fused", exc_info=True)
        if group is not None and group.fails_alone():
            return "its training fails, alone as well as together with others"
        return f"its module cannot be fused: {_explain(error)}"
    return ""


def _explain(error):
    """Return in words what an error of torch's says of a module."""
    for pattern, meaning in _MEANINGS.items():
        if re.search(pattern, str(error)):
            return meaning
    return "torch cannot compute it in many nets at once"


def _watch(module):
    """Return a function that tells whether the parts of a module hold what they held: many nets would change it."""
    kept = dict(_settings(module))  # so that nothing new gets an old one's id
    texts = {key: as_text(value) for key, value in kept.items()}
    copies = {key: value.clone() for key, value in kept.items() if isinstance(value, torch.Tensor)}

    def is_unchanged():
        now = dict(_settings(module))
        same = {key: as_text(value) for key, value in now.items()} == texts
        return same and all(torch.equal(now[key], copy) for key, copy in copies.items())

    return is_unchanged
