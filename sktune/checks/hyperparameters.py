"""Names and ranges of a net's hyperparameters."""

import math
from contextlib import contextmanager
from functools import partial
from numbers import Integral, Real

import numpy as np
import torch

from sktune.checks.arguments import constructor_arguments, own_arguments
from sktune.checks.components import check_components
from sktune.checks.synonyms import suggest
from sktune.training.augmentation.reading import find_augmentation_class, read_augmentation
from sktune.training.rates import find_lr_factor
from sktune.training.schedules import SCHEDULES, lr_factors

# What other libraries' ``fit`` calls validation rows.
_VALIDATION_ROWS = ("X_val", "y_val", "validation_data", "eval_set", "validation_split")


@contextmanager
def unchanged_on_error(estimator):
    """Restore an estimator's attributes if the block raises an Exception."""
    before = dict(vars(estimator))
    try:
        yield
    except Exception:
        vars(estimator).clear()
        vars(estimator).update(before)
        raise


def check_fit_params(net, fit_params):
    """Check that no validation rows are passed to ``fit`` as they are in other libraries.

    Such a name is allowed where it is an argument of the module's forward.
    """
    forward = getattr(net.module, "forward", None)
    known = constructor_arguments(forward) if callable(forward) else []
    if known is None:
        return
    unknown = [name for name in fit_params if name in _VALIDATION_ROWS and name not in known]
    if unknown:
        raise ValueError(
            "validation rows must come as "
            "train_split=skorch.helper.predefined_split(Dataset(X_val, y_val)), or be "
            f"held out by early_stopping=True, got {unknown} in fit"
        )


# For each hyperparameter: its type, what must hold for its value, and how an error says it.
_RANGES = {
    ("lr", "optimizer__lr"): (Real, lambda v: 0 < v < math.inf, "a positive finite number"),
    ("max_epochs",): (Integral, lambda v: v >= 1, "an int of at least 1"),
    ("n_iter_no_change",): (
        Real,
        lambda v: v >= 1 and (v == math.inf or isinstance(v, Integral)),
        "an int of at least 1, or inf",
    ),
    ("batch_size", "iterator_train__batch_size", "iterator_valid__batch_size"): (
        Integral,
        lambda v: v >= 1 or v == -1,
        "an int of at least 1, or -1 for all rows at once",
    ),
    ("lr_scaling_batch_size",): (Integral, lambda v: v >= 1, "an int of at least 1"),
    ("l1", "l2", "tol", "optimizer__weight_decay"): (
        Real,
        lambda v: 0 <= v < math.inf,
        "a non-negative finite number",
    ),
    ("clip_grad_norm", "clip_grad_value"): (Real, lambda v: v > 0, "a number above 0, or None"),
    ("module__dropout",): (Real, lambda v: 0 <= v < 1, "a number of at least 0 and less than 1"),
    ("validation_fraction",): (Real, lambda v: 0 < v < 1, "a number between 0 and 1"),
}
# The same by a single name.
_ALLOWED = {name: allowed for names, allowed in _RANGES.items() for name in names}


def check_hyperparameters(net):
    """Check the ranges and names of a net's hyperparameters.

    Raises
    ------
    ValueError
        That states what a hyperparameter must be, and what it is.
    """
    check_ranges(net)
    check_components(vars(net))
    check_names(net, net._named_params())
    read_augmentation(net.augment, net.get_params_for("augment"))
    lr_factors(net.lr_schedule, [0.0], net.max_epochs, **net.get_params_for("lr_schedule"))


def check_ranges(net):
    """Check the ranges of a net's hyperparameters, but for those of its schedule.

    Raises
    ------
    ValueError
        That states what a hyperparameter must be, and what it is.
    """
    settings = vars(net)
    for name in settings.keys() & _ALLOWED.keys():
        _check_range(name, settings[name], *_ALLOWED[name])
    _check_early_stopping(net.early_stopping)
    find_lr_factor(net)


def _check_range(name, value, number_type, is_in_range, requirement):
    # None switches batches off in torch's DataLoader, and the clipping of gradients.
    if value is None and name.startswith(("iterator_", "clip_grad_")):
        return
    is_number = isinstance(value, number_type) and not isinstance(value, bool | np.bool_)
    if not is_number or not is_in_range(value):
        raise ValueError(f"{name} must be {requirement}, got {name}={value!r}")


def _check_early_stopping(value):
    is_bool = isinstance(value, bool | np.bool_ | None)
    if not is_bool and value != "train_loss":
        raise ValueError(
            f"early_stopping must be a bool or 'train_loss', got early_stopping={value!r}"
        )


def check_names(net, params):
    """Check the names of a net's hyperparameters.

    Parameters
    ----------
    net : NetworkEstimator
    params : dict
        Hyperparameters that are set, or are to be set, by name; ``module__x`` is the argument ``x``
        of the module.

    Raises
    ------
    ValueError
        If the net, or the component that a name belongs to, has no such parameter. It shows the
        nearest name.
    """
    net_arguments = own_arguments(type(net))
    components = {**vars(net), **params}
    prefixes = {"module", "criterion", "optimizer", *net.prefixes_}
    for name in params:
        prefix, nested, argument = name.partition("__")
        owner = type(net)
        if not nested:
            known = net_arguments
        elif prefix in prefixes:
            owner, known = _find_arguments(prefix, components.get(prefix))
        elif _has_all_components(net):
            known = [f"{other}__{argument}" for other in prefixes]
        else:
            continue
        is_unknown = known is not None and name not in known
        if is_unknown and not argument.startswith("param_groups"):
            takes = partial(_takes, components)
            hint = _find_missing_underscore(name, prefixes) or suggest(name, known, takes)
            hint = hint or f": its parameters are {sorted(known)}"
            owner_name = getattr(owner, "__name__", owner)
            raise ValueError(f"{owner_name} has no parameter {name!r}{hint}")


def _has_all_components(net):
    """Tell whether a net will add no components: a subclass may do so when it initializes."""
    return net.initialized_ or type(net).__module__.startswith("sktune.")


def _takes(components, name):
    """Tell whether a net of some components may have a hyperparameter.

    Only an argument of the module is looked up: all others are taken to exist.
    """
    if not name.startswith("module__"):
        return True
    _, known = _find_arguments("module", components.get("module"))
    return known is None or name in known


def _find_missing_underscore(name, prefixes):
    """Return a hint where a component's argument is written with fewer than two underscores."""
    if "__" in name:
        return ""
    prefix = max(filter(name.startswith, prefixes), key=len, default="")
    argument = name.removeprefix(prefix).lstrip("_")
    return f"; did you mean '{prefix}__{argument}'?" if prefix and argument else ""


def _find_arguments(prefix, component):
    """Return what builds a component, and its hyperparameters' names; None if it takes any name."""
    if prefix in ("callbacks", "compile") or component is None:
        return component, None
    if prefix == "lr_schedule":
        return _find_schedule_arguments(component)
    if prefix == "augment":
        # what has no parameters is refused where the augmentation is read
        component = find_augmentation_class(component)
        if component is None:
            return None, None
    if isinstance(component, str):
        # The next fit refuses a component that is given as a name.
        return component, None
    factory = _find_factory(component)
    names = constructor_arguments(factory)
    return factory, names and [f"{prefix}__{name}" for name in names]


def _find_schedule_arguments(schedule):
    """Return a schedule's function, and the names of its hyperparameters, or None."""
    is_name = isinstance(schedule, str)
    factory = _find_factory(SCHEDULES.get(schedule, schedule) if is_name else schedule)
    names = constructor_arguments(factory)
    if names is None:
        return factory, None
    # After the time and the number of epochs.
    own_names = [*names[2:], "warmup"]
    return factory, [f"lr_schedule__{name}" for name in own_names]


def _find_factory(component):
    """Return the class or function that builds a component; of an instance it is its class."""
    is_factory = callable(component) and not isinstance(component, torch.nn.Module)
    return component if is_factory else type(component)
