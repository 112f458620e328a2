"""Why a fit is not trained together with others."""

from numbers import Integral, Real

from scipy import sparse
from sklearn.pipeline import Pipeline
from skorch.dataset import ValidSplit
from torch import nn
from torch.nn.parameter import is_lazy

from sktune.bridge.skorch_nets import KINDS
from sktune.bridge.watching.served import why_refused, why_refused_initialized
from sktune.estimators.base import NetworkEstimator
from sktune.estimators.overrides import (
    STANDARD_DATA,
    find_override,
    is_replaced,
    remember_methods,
)
from sktune.training.augmentation.reading import find_function
from sktune.training.optimizers import OPTIMIZERS

remember_methods(*KINDS)

# Criteria of which it is known what their `weight` does.
_WEIGHTED = (
    nn.CrossEntropyLoss,
    nn.NLLLoss,
    nn.MultiMarginLoss,
    nn.BCELoss,
    nn.BCEWithLogitsLoss,
)


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
    if reason := why_refused(net):
        return reason
    for name in STANDARD_DATA:
        if is_replaced(net, name, ignored=() if is_ours else ("shuffle",)):
            return f"it has a {name} of its own"
    if net.train_split and not _splits_alike(net.train_split, is_ours):
        return "it has a train_split of its own"
    if not is_ours and not _has_usual_lengths(net):
        return "its max_epochs or batch_size is unusual"
    if is_ours and (name := find_function(net.augment)):
        return f"its augment is a callable of the user's, {name}"
    switches = ["warm_start", "compile"]
    if is_ours:
        switches += ["verbose"]
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


def _splits_alike(split, is_ours):
    """Tell whether a split of the training rows is skorch's; of our nets, one that draws nothing.

    What a net of skorch's draws is known: it is prepared once, in its turn.
    """
    if type(split) is not ValidSplit:
        return False
    return not is_ours or (
        isinstance(split.cv, Real)
        and (float(split.cv).is_integer() or isinstance(split.random_state, Integral))
    )


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
    unsupported = OPTIMIZERS[type(net.optimizer_)].unsupported
    reasons = {
        "its module has lazy layers, whose sizes its first batch tells": is_lazy_module,
        "its criterion has parameters": list(criterion.parameters()),
        "its optimizer has several groups of parameters": other_groups,
        "its optimizer has parameters that are not the module's": has_foreign_parameters,
        **{f"its optimizer sets {name}": group.get(name) for name in unsupported},
        "its criterion is no mean or sum over the rows": not _reduces_rows(criterion),
        "its criterion ignores rows": _ignores(criterion, rows.target),
    }
    for reason, holds in reasons.items():
        if holds:
            return reason
    return why_refused_initialized(net)


def _reduces_rows(criterion):
    """Tell whether a criterion is a mean or a sum of the losses of rows, weighted or not."""
    if getattr(criterion, "reduction", None) not in ("mean", "sum"):
        return False
    weight = getattr(criterion, "weight", None)
    if weight is None:
        return True
    # weights of classes or of columns, which do not depend on the place of a row in its batch
    return type(criterion) in _WEIGHTED and weight.ndim <= 1


def _ignores(criterion, target):
    """Tell whether a criterion leaves rows out of its mean by their target."""
    ignored = getattr(criterion, "ignore_index", None)
    return ignored is not None and (ignored >= 0 or bool((target == ignored).any()))
