"""Why a fit is not trained together with others."""

from numbers import Integral

from scipy import sparse
from sklearn.pipeline import Pipeline
from skorch.dataset import ValidSplit
from torch.nn.parameter import is_lazy

from sktune.bridge.skorch_nets import KINDS
from sktune.estimators.base import NetworkEstimator
from sktune.estimators.overrides import (
    STANDARD_DATA,
    find_override,
    has_own_callbacks,
    is_replaced,
    remember_methods,
)
from sktune.training.augmentation.reading import find_function
from sktune.training.optimizers import OPTIMIZERS

remember_methods(*KINDS)


def why_alone(net):
    """Return why a net cannot be fused with such parameters and methods, or an empty string."""
    is_ours = isinstance(net, NetworkEstimator)
    if not is_ours and type(net) not in KINDS:
        return f"{type(net).__name__} is neither one of sktune's nets nor of skorch's"
    if vars(net).get("history_") is not None:
        return "it has a history of its own"
    return why_settings_alone(net)


def why_settings_alone(net):
    """Return why a net cannot be trained by the engine with such parameters, or an empty string."""
    is_ours = isinstance(net, NetworkEstimator)
    if name := find_override(net):
        return f"{type(net).__name__} overrides {name}"
    if has_own_callbacks(net) or any(name.startswith("callbacks__") for name in vars(net)):
        return "it has callbacks of its own"
    for name in STANDARD_DATA:
        if is_replaced(net, name, ignored=() if is_ours else ("shuffle",)):
            return f"it has a {name} of its own"
    if not is_ours and net.train_split and type(net.train_split) is not ValidSplit:
        return "it has a train_split of its own"
    if not is_ours and not _has_usual_lengths(net):
        return "its max_epochs or batch_size is unusual"
    if is_ours and (name := find_function(net.augment)):
        return f"its augment is a callable of the user's, {name}"
    switches = ["warm_start", "compile"]
    if is_ours:
        switches += ["train_split", "verbose"]
    for name in switches:
        if getattr(net, name):
            return f"it sets {name}"
    if net.optimizer not in OPTIMIZERS:
        return (
            f"its optimizer {getattr(net.optimizer, '__name__', net.optimizer)} has no fused rule"
        )
    return ""


def _has_usual_lengths(net):
    """Tell whether the epochs and the batch size are numbers above 0, or the latter is -1."""
    lengths = [net.max_epochs]
    if net.batch_size != -1:
        lengths.append(net.batch_size)
    return all(isinstance(length, Integral) and length > 0 for length in lengths)


def why_pipeline_alone(pipeline):
    """Return why a pipeline cannot be run up to its last step's training, or an empty string."""
    if pipeline is None:
        return ""
    for name, step in pipeline.steps[:-1]:
        if hasattr(step, "fit_resample"):
            return f"its Pipeline resamples the rows, in the step {name!r}"
    kinds = type(pipeline).__mro__
    for kind in kinds[: kinds.index(Pipeline)]:
        # a class of the user that may use the memory, or the results of steps, in another way
        if vars(kind).keys() & {"fit", "_fit", "memory", "steps"}:
            return (
                "its Pipeline is of a class that fits its steps in a way of its own, "
                f"{kind.__name__}"
            )
    return ""


def why_alone_initialized(net, rows):
    """Return why an initialized net cannot be fused on such rows, or an empty string."""
    if rows is None or sparse.issparse(rows.X):
        return "its rows are no dense table of the module's type"
    module = net.module_
    criterion = net.criterion_
    group, *other_groups = net.optimizer_.param_groups
    is_lazy_module = any(is_lazy(parameter) for parameter in module.parameters())
    has_foreign_parameters = len(group["params"]) != len(list(module.parameters()))
    is_weighted = getattr(criterion, "weight", None) is not None
    is_mean = getattr(criterion, "reduction", None) == "mean" and not is_weighted
    unsupported = OPTIMIZERS[type(net.optimizer_)].unsupported
    reasons = {
        "its module has lazy layers, whose sizes its first batch tells": is_lazy_module,
        "its criterion has parameters": list(criterion.parameters()),
        "its optimizer has several groups of parameters": other_groups,
        "its optimizer has parameters that are not the module's": has_foreign_parameters,
        **{f"its optimizer sets {name}": group.get(name) for name in unsupported},
        "its criterion is no plain mean over the rows": not is_mean,
        "its criterion ignores rows": _ignores(criterion, rows.target),
    }
    for reason, holds in reasons.items():
        if holds:
            return reason
    return ""


def _ignores(criterion, target):
    """Tell whether a criterion leaves rows out of its mean by their target."""
    ignored = getattr(criterion, "ignore_index", None)
    return ignored is not None and (ignored >= 0 or bool((target == ignored).any()))
