"""Which fits are trained together."""

import logging
import re
import threading
import types
import warnings

import numpy as np
import torch
from torch import nn

from sktune.bridge.generators import read_generators, set_generators
from sktune.engine.group import Group, Unfusable
from sktune.engine.steps.optimizers import RULES
from sktune.estimators.classifier import NeuralNetClassifier
from sktune.estimators.regressor import NeuralNetRegressor
from sktune.modules.dropout import HashedDropout
from sktune.modules.mlp import MLP
from sktune.modules.reading import has_other_forward
from sktune.runtime.threads import few_threads
from sktune.training.rows import rows_of

_logger = logging.getLogger(__name__)
_TORCH_OWN = frozenset(vars(nn.Module()))
_PLAIN = (
    int,
    float,
    complex,
    str,
    bytes,
    bool,
    np.generic,
    type(None),
    torch.dtype,
    torch.Size,
    types.FunctionType,
)
_FILTERING = threading.Lock()  # the filters of warnings are the whole process's
_MANY = 8  # lanes that fill a core
_MOST, _MOST_ON_GPU = 32, 512  # lanes of a group, beyond which more bring no speed
_PROVEN = (nn.CrossEntropyLoss, nn.MSELoss)


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
        yield from (
            members[len(members) * n // n_parts : len(members) * (n + 1) // n_parts]
            for n in range(n_parts)
        )


def signature(lane):
    """Return what the nets of a group have in common."""
    net, (rows, _) = lane.net, rows_of(lane.train)
    optimizer = (
        lane.optimizer,
        *((name, lane.options.get(name)) for name in RULES[lane.optimizer].shared),
    )
    data = (rows.X.shape[1:], rows.X.dtype, rows.X.device, rows.target.shape[1:], rows.target.dtype)
    labels = (getattr(net, "n_outputs_", None), repr(getattr(net, "classes", None)))
    loop = (net.batch_size, lane.valid is not None, type(net), labels, lane.narrow_to)
    criterion = (
        _structure(lane.criterion),
        *(str(buffer.tolist()) for buffer in lane.criterion.buffers()),
    )
    return (data, loop, optimizer, criterion, _structure(lane.module))


def _structure(module):
    """Return all of a module that must be equal for two to be trained as one: everything but the numbers learned."""
    tensors = [(name, p.shape, p.dtype, p.requires_grad) for name, p in module.named_parameters()]
    tensors += [(name, b.shape, b.dtype) for name, b in module.named_buffers()]
    parts = [(name, type(part)) for name, part in module.named_modules(remove_duplicate=False)]
    return (
        tuple(tensors),
        tuple(parts),
        tuple(sorted((key, as_text(value)) for key, value in _settings(module))),
    )


def _settings(module):
    """Yield what the parts of a module hold beside their tensors and torch's own: where it is found, and the value."""
    for name, part in module.named_modules(remove_duplicate=False):
        if not isinstance(part, HashedDropout):
            yield from (
                ((name, key), value) for key, value in vars(part).items() if key not in _TORCH_OWN
            )


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
    is_ours = (
        type(net) in (NeuralNetClassifier, NeuralNetRegressor)
        and net.module is MLP
        and net.criterion in _PROVEN
    )
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
            warnings.filterwarnings(
                "error", message=".*performance drop"
            )  # a loop over the lanes, not a fusion
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
