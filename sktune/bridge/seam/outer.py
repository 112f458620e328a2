"""The backends of joblib whose workers train groups: loky, Dask, Ray.

Their classes have no public place in joblib, so they are known by their names here.
"""

from difflib import get_close_matches
from importlib import import_module

import joblib

from sktune.bridge.seam.parallel import chosen_backend
from sktune.engine.workers.engines.dask_engine import DaskEngine
from sktune.engine.workers.engines.joblib_engine import JoblibEngine
from sktune.engine.workers.engines.ray_engine import RayEngine

OUTER = ("dask", "ray", "loky", "threading")


def open_outer(name, options):
    """Return the joblib backend that `outer` names.

    Raises
    ------
    ValueError, TypeError
        If there is no such engine, or it does not take the options.
    ImportError, RuntimeError
        If it is not installed, or not connected.
    """
    if name not in OUTER:
        near = get_close_matches(str(name), OUTER, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"outer must be one of {OUTER} or None, got outer={name!r}{hint}")
    options = {key: value for key, value in options.items() if key != "n_jobs"}
    if name == "ray":
        # an error tells what is missing
        RayEngine()
        import_module("ray.util.joblib").register_ray()
    if name == "dask" and "client" not in options and "scheduler_host" not in options:
        options["client"] = DaskEngine().client
    with joblib.parallel_config(name, **options):
        return chosen_backend()


def make_engine(backend, n_jobs):
    """Return the engine of a joblib backend that a context has chosen, or None.

    Parameters
    ----------
    backend : joblib backend
        What :func:`~sktune.bridge.seam.parallel.chosen_backend` has returned.
    n_jobs : int
        How many tasks it would run at once.
    """
    kind = type(backend).__name__
    if kind == "DaskDistributedBackend":
        return DaskEngine(backend.client)
    if kind == "RayBackend":
        return RayEngine()
    if kind == "LokyBackend" and n_jobs > 1:
        return JoblibEngine("loky", n_jobs)
    return None
