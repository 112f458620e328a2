"""Why a fit is not trained together with others."""

from numbers import Integral

from scipy import sparse
from sklearn.pipeline import Pipeline
from skorch.dataset import ValidSplit
from torch.nn.parameter import is_lazy

from sktune.bridge.skorch_nets import KINDS
from sktune.engine.steps.optimizers import OFF, RULES
from sktune.estimators.base import NetworkEstimator
from sktune.estimators.overrides import (
    STANDARD_DATA,
    find_override,
    has_own_callbacks,
    is_replaced,
    remember_methods,
)

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
    if has_own_callbacks(net) or any(name.startswith("callbacks__") for name in vars(net)):
        return "it has callbacks of its own"
    for name in STANDARD_DATA:
        if is_replaced(net, name, ignored=() if is_ours else ("shuffle",)):
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
        return (
            f"its optimizer {getattr(net.optimizer, '__name__', net.optimizer)} has no fused rule"
        )
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
    is_mean = (
        getattr(criterion, "reduction", None) == "mean"
        and getattr(criterion, "weight", None) is None
    )
    pads = any(getattr(part, "padding_idx", None) is not None for part in module.modules())
    reasons = {
        "its module has lazy layers, whose sizes its first batch tells": any(
            map(is_lazy, module.parameters())
        ),
        "its criterion has parameters": list(criterion.parameters()),
        "its optimizer has several groups of parameters": others,
        "its optimizer has parameters that are not the module's": len(group["params"])
        != len([*module.parameters()]),
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
