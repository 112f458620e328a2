"""Which fits can be trained together, and why the others cannot."""

import types
import warnings

import torch
from scipy import sparse
from torch import nn

from sktune.data import rows_of
from sktune.estimators import NetworkEstimator, NeuralNetClassifier, NeuralNetRegressor
from sktune.fused import plain
from sktune.fused.optim import RULES
from sktune.fused.train import Group
from sktune.modules import HashedDropout

_TORCH_OWN = frozenset(vars(nn.Module()))
_PLAIN = (int, float, complex, str, bytes, bool, type(None), type, torch.dtype, torch.Size, types.FunctionType)
# What a subclass may change, for it runs as it would: before the training, or after it.
_FREE = {"initialize_module", "initialize_criterion", "check_data", "prefixes_", "classes_", "get_params"}
_FREE |= {"predict", "predict_proba", "score", "forward", "forward_iter", "evaluation_step"}
_MANY = 8  # lanes that fill a core
_ITERATION = ("dataset", "iterator_train", "iterator_valid")


def why_alone(net):
    """Return why a net's configuration cannot be fused, or nothing."""
    if not isinstance(net, NetworkEstimator):
        return plain.why_alone(net)
    base = NeuralNetClassifier if isinstance(net, NeuralNetClassifier) else NeuralNetRegressor
    kinds = type(net).__mro__[: type(net).__mro__.index(base)]
    for name in dict.fromkeys(name for kind in kinds for name in vars(kind)):
        if hasattr(base, name) and not (name in _FREE or name.startswith(("__", "set_"))):
            return f"{type(net).__name__} overrides {name}"
    if (net.callbacks and net.callbacks != "disable") or any(name.startswith("callbacks__") for name in vars(net)):
        return "it has callbacks of its own"
    standard = base()
    for name in _ITERATION:
        if getattr(net, name) is not getattr(standard, name) or net.get_params_for(name):
            return f"it has a {name} of its own"
    for name in ("warm_start", "compile", "train_split", "verbose"):
        if getattr(net, name):
            return f"it sets {name}"
    if net.optimizer not in RULES:
        return f"its optimizer {getattr(net.optimizer, '__name__', net.optimizer)} has no fused rule"
    return ""


def why_alone_initialized(net, rows):
    """Return why an initialized net cannot be fused with the rows that it was given, or nothing."""
    if rows is None or sparse.issparse(rows.X):
        return "its rows are no dense table of the module's type"
    if list(net.criterion_.parameters()):
        return "its criterion has parameters"
    if len(net.optimizer_.param_groups) != 1:
        return "its optimizer has several groups of parameters"
    if len(net.optimizer_.param_groups[0]["params"]) != len(list(net.module_.parameters())):
        return "its optimizer has parameters that are not the module's"
    for name in RULES[net.optimizer].off:
        if net.optimizer_.param_groups[0].get(name):
            return f"its optimizer sets {name}"
    if getattr(net.criterion_, "reduction", None) != "mean" or getattr(net.criterion_, "weight", None) is not None:
        return "its criterion is no plain mean over the rows"
    if getattr(net.criterion_, "ignore_index", -1) >= 0:
        return "its criterion ignores rows"
    if any(getattr(part, "padding_idx", None) is not None for part in net.module_.modules()):
        return "its embedding has a padding_idx, whose row vmap would train"
    return ""


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


def _split(fits, most):
    """Divide fits evenly; those of a stream that are many enough stay among themselves, and share each batch."""
    streams = {}
    for fit in fits:
        streams.setdefault(fit.lane.stream, []).append(fit)
    large = [members for members in streams.values() if len(members) >= _MANY]
    small = [fit for members in streams.values() if len(members) < _MANY for fit in members]
    for members in [*large, small]:
        n_parts = -(-len(members) // most)
        yield from (members[len(members) * n // n_parts : len(members) * (n + 1) // n_parts] for n in range(n_parts))


def signature(lane):
    """Return what the nets of a group have in common."""
    net, (rows, _) = lane.net, rows_of(lane.train)
    optimizer = (lane.optimizer, *((name, lane.options[name]) for name in RULES[lane.optimizer].shared))
    data = (rows.X.shape[1:], rows.X.dtype, rows.X.device, rows.target.shape[1:], rows.target.dtype)
    labels = (getattr(net, "n_outputs_", None), repr(getattr(net, "classes", None)))
    loop = (net.batch_size, lane.valid is not None, type(net), labels)
    criterion = (_structure(lane.criterion), *(str(buffer.tolist()) for buffer in lane.criterion.buffers()))
    return (data, loop, optimizer, criterion, _structure(lane.module))


def _structure(module):
    """Return all of a module that must be equal for two to be trained as one: everything but the numbers learned."""
    tensors = [(name, p.shape, p.dtype, p.requires_grad) for name, p in module.named_parameters()]
    tensors += [(name, b.shape, b.dtype) for name, b in module.named_buffers()]
    parts = []
    for name, part in module.named_modules(remove_duplicate=False):
        own = {} if isinstance(part, HashedDropout) else {k: v for k, v in vars(part).items() if k not in _TORCH_OWN}
        parts.append((name, type(part), tuple(sorted((k, as_text(v)) for k, v in own.items()))))
    return (tuple(tensors), tuple(parts))


def as_text(value):
    """Return a text that is the same for equal values; where equality cannot be known, for the same object only."""
    if isinstance(value, tuple | list):
        return f"{type(value).__name__}({', '.join(map(as_text, value))})"
    if isinstance(value, dict):
        return str({key: as_text(v) for key, v in value.items()})
    return repr(value) if isinstance(value, _PLAIN) else f"object {id(value)}"


def find_obstacle(fits):
    """Try a step; return why the module of some fits cannot be trained under vmap, or nothing."""
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("error", message=".*performance drop")  # a loop over the lanes, not a fusion
            group = Group([fit.lane.for_trial() for fit in (fits * 2)[:2]])
            before = _counters(group.net.template)
            group.try_step()
            if _counters(group.net.template) != before:
                return "its module counts its calls"
    except Exception as error:
        text = str(error).strip().split("\n")[0]
        return f"its module cannot be fused: {type(error).__name__}: {text}"
    return ""


def _counters(module):
    """Return the numbers that parts of a module hold, which many nets would count up together."""
    parts = [(name, vars(part)) for name, part in module.named_modules() if not isinstance(part, HashedDropout)]
    own = {(name, k): v for name, values in parts for k, v in values.items() if k not in _TORCH_OWN}
    return {key: value for key, value in own.items() if isinstance(value, int | float)}
