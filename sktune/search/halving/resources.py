"""What candidates get more and more of, and how much of it there is."""

from numbers import Integral, Real

import numpy as np
from sklearn.base import is_classifier
from skorch import NeuralNet

from sktune.bridge.collect import net_of
from sktune.runtime.names import did_you_mean
from sktune.training.schedules import looks_at_max_epochs

ROWS = "n_samples"
_EPOCHS = "max_epochs"


def find_resource(search):
    """Return the name of the resource: that of a net's epochs, or that of rows."""
    if search.resource != "auto":
        return search.resource
    name = name_of_epochs(search.estimator)
    return ROWS if name is None else name


def name_of_epochs(estimator):
    """Return the parameter that tells how many epochs a net trains; None if there is no net."""
    net = net_of(estimator)
    if not isinstance(net, NeuralNet):
        return None
    if net is estimator:
        return _EPOCHS
    return f"{estimator.steps[-1][0]}__{_EPOCHS}"


def find_limits(search, resource, X, y, n_splits):
    """Return the least and the most resources of a candidate.

    Raises
    ------
    ValueError
        If `max_resources` cannot be found, or is below `min_resources`.
    """
    most = search.max_resources
    if most == "auto":
        most = _find_most(search, resource, X)
    least = search.min_resources
    if isinstance(least, str):
        least = 1
        if resource == ROWS:
            least = 2 * n_splits
            if is_classifier(search.estimator):
                least *= len(np.unique(y))
    if least > most:
        raise ValueError(
            f"max_resources must be at least min_resources={least}, got max_resources={most}"
        )
    return least, most


def _find_most(search, resource, X):
    if resource == ROWS:
        return X.shape[0] if hasattr(X, "shape") else len(X)
    own = search.estimator.get_params().get(resource)
    if resource == name_of_epochs(search.estimator):
        return own
    raise ValueError(
        "max_resources must be a number unless resource is 'n_samples' or the epochs of a net, "
        f"got max_resources='auto' for resource={resource!r}"
    )


def check_resources(search):
    """Raise a ValueError for settings of the resources that cannot be used."""
    resource = find_resource(search)
    known = search.estimator.get_params()
    if resource != ROWS and resource not in known:
        hint = did_you_mean(resource, [ROWS, *known])
        raise ValueError(
            "resource must be 'auto', 'n_samples' or a parameter of the estimator, "
            f"got resource={search.resource!r}{hint}"
        )
    if not _is_number(search.factor, Real) or search.factor <= 1:
        raise ValueError(f"factor must be a number above 1, got factor={search.factor!r}")
    for name, words in (("min_resources", ("exhaust", "smallest")), ("max_resources", ("auto",))):
        value = getattr(search, name)
        is_word = isinstance(value, str) and value in words
        if not is_word and not (_is_number(value, Integral) and value >= 1):
            shown = " or ".join(map(repr, words))
            raise ValueError(
                f"{name} must be {shown} or an int of at least 1, got {name}={value!r}"
            )


def _is_number(value, kind):
    return isinstance(value, kind) and not isinstance(value, bool)


def check_candidates(search, candidates):
    """Raise a ValueError for candidates that cannot be compared rung by rung."""
    resource = find_resource(search)
    if any(resource in params for params in candidates):
        raise ValueError(
            f"the resource must not be among the parameters that are searched, got {resource!r}"
        )
    if resource != name_of_epochs(search.estimator) or search.scale_schedule:
        return
    name = resource.removesuffix(_EPOCHS) + "lr_schedule"
    own = search.estimator.get_params().get(name, "constant")
    for schedule in [params.get(name, own) for params in candidates]:
        if looks_at_max_epochs(schedule):
            raise ValueError(
                f"lr_schedule must not depend on the number of epochs for resource={resource!r}, "
                f"got {schedule!r}: scores of different rungs are those of different schedules; "
                "pass scale_schedule=True to train each rung anew with a schedule of its length"
            )
