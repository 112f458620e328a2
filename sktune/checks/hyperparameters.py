"""Names and ranges of a net's hyperparameters."""

import math
from contextlib import contextmanager
from functools import partial
from numbers import Integral, Real

import numpy as np
import torch

from sktune.checks.arguments import constructor_arguments, own_arguments
from sktune.checks.components import check_components
from sktune.checks.inputs import _VALIDATION_ROWS
from sktune.checks.synonyms import suggest
from sktune.training.schedules import SCHEDULES, lr_factors


@contextmanager
def unchanged_on_error(estimator):
    """Put an estimator's attributes back if the block raises an Exception."""
    before = dict(vars(estimator))
    try:
        yield
    except Exception:
        vars(estimator).clear()
        vars(estimator).update(before)
        raise


def check_fit_params(net, fit_params):
    """Refuse what other libraries call validation rows in ``fit``, unless the module's forward takes such a name."""
    forward = getattr(net.module, "forward", None)
    known = constructor_arguments(forward) if callable(forward) else []
    unknown = [
        name
        for name in fit_params
        if name in _VALIDATION_ROWS and known is not None and name not in known
    ]
    if unknown:
        raise ValueError(
            f"validation rows must come as train_split=skorch.helper.predefined_split(Dataset(X_val, y_val)), or be "
            f"held out by early_stopping=True, got {unknown} in fit"
        )


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
    ("l1", "l2", "tol", "optimizer__weight_decay"): (
        Real,
        lambda v: 0 <= v < math.inf,
        "a non-negative finite number",
    ),
    ("module__dropout",): (Real, lambda v: 0 <= v < 1, "a number of at least 0 and less than 1"),
    ("validation_fraction",): (Real, lambda v: 0 < v < 1, "a number between 0 and 1"),
}


def check_hyperparameters(net):
    """Check the ranges and names of a net's hyperparameters."""
    for names, (kind, holds, requirement) in _RANGES.items():
        for name in vars(net).keys() & names:
            value = getattr(net, name)
            if value is None and name.startswith("iterator_"):
                # torch's own way to switch batches off
                continue
            if (
                not isinstance(value, kind)
                or isinstance(value, bool | np.bool_)
                or not holds(value)
            ):
                raise ValueError(f"{name} must be {requirement}, got {name}={value!r}")
    if (
        not isinstance(net.early_stopping, bool | np.bool_ | None)
        and net.early_stopping != "train_loss"
    ):
        raise ValueError(
            f"early_stopping must be a bool or 'train_loss', got early_stopping={net.early_stopping!r}"
        )
    check_components(vars(net))
    check_names(net, net._named_params())
    lr_factors(net.lr_schedule, [0.0], net.max_epochs, **net.get_params_for("lr_schedule"))


def check_names(net, params):
    """Check that a net has these hyperparameters, set or to be set; ``module__x`` is ``x`` of its module."""
    own = own_arguments(type(net))
    components = {**vars(net), **params}
    prefixes = {"module", "criterion", "optimizer", *net.prefixes_}
    for name in params:
        prefix, nested, argument = name.partition("__")
        owner, known = type(net), own
        if prefix in prefixes and nested:
            owner, known = _find_arguments(prefix, components.get(prefix))
        elif nested:  # a subclass may add components when it initializes
            is_settled = net.initialized_ or type(net).__module__.startswith("sktune.")
            known = [f"{known}__{argument}" for known in prefixes] if is_settled else None
        if known is not None and name not in known and not argument.startswith("param_groups"):
            takes = partial(_takes, components)
            hint = _with_dunder(name, prefixes) or suggest(name, known, takes)
            hint = hint or f": its parameters are {sorted(known)}"
            raise ValueError(f"{getattr(owner, '__name__', owner)} has no parameter {name!r}{hint}")


def _takes(components, name):
    """Tell whether a net of some components may have a hyperparameter: its module, if it is one of the module's."""
    prefix, *_ = name.partition("__")
    if prefix != "module" or name == "module":
        return True
    known = _find_arguments(prefix, components.get(prefix))[1]
    return known is None or name in known


def _with_dunder(name, prefixes):
    """Return a hint at what a name of a component's argument lacks: two underscores."""
    found = [prefix for prefix in prefixes if name.startswith(prefix) and "__" not in name]
    if not found:
        return ""
    prefix = max(found, key=len)
    argument = name.removeprefix(prefix).lstrip("_")
    return f"; did you mean '{prefix}__{argument}'?" if argument else ""


def _find_arguments(prefix, component):
    """Return what builds a component, and the names of its parameters, or None if it takes any."""
    # A name that is given as a component is refused in the next fit.
    is_name = isinstance(component, str) and prefix != "lr_schedule"
    if prefix in ("callbacks", "compile") or component is None or is_name:
        return component, None
    if prefix == "lr_schedule":
        component = SCHEDULES.get(component, component) if isinstance(component, str) else component
    factory = (
        component
        if callable(component) and not isinstance(component, torch.nn.Module)
        else type(component)
    )
    known = constructor_arguments(factory)
    if known is not None and prefix == "lr_schedule":
        known = [*known[2:], "warmup"]  # after the time and the epochs
    return factory, known and [f"{prefix}__{name}" for name in known]
