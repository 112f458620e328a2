"""What a run depends on beside its code: versions and seeds."""

import platform
from importlib import metadata
from numbers import Integral

LIBRARIES = ("sktune", "scikit-learn", "skorch", "torch", "numpy", "scipy", "joblib", "numba")


def list_versions():
    """Return the versions of what is installed now: list of (name, version)."""
    rows = [("Python", platform.python_version())]
    for name in LIBRARIES:
        try:
            rows.append((name, metadata.version(name)))
        except metadata.PackageNotFoundError:
            # numba is not needed to train
            rows.append((name, "not installed"))
    rows.append(("Platform", platform.platform()))
    return rows


def list_seeds(search):
    """Return all parameters called ``random_state``: list of (name, value as text).

    Parameters
    ----------
    search : estimator object or dict
        As it was given to the report; results alone have no seeds.
    """
    if not hasattr(search, "get_params"):
        return []
    seeds = []
    for name, value in search.get_params(deep=True).items():
        if name.split("__")[-1] == "random_state":
            seeds.append((name, _describe_seed(value)))
        elif hasattr(value, "random_state") and not hasattr(value, "get_params"):
            # a splitter has no get_params
            seeds.append((f"{name}.random_state", _describe_seed(value.random_state)))
    return sorted(seeds)


def _describe_seed(value):
    if value is None:
        return "not set: another run has other numbers"
    return (
        str(value) if isinstance(value, Integral) else f"{type(value).__name__}: cannot be repeated"
    )
