"""The choice between one core with compiled steps and torch on several threads.

Both ways agree to rounding, not to the last bit. So that a fit repeats itself, what was measured
once is kept in a file of the user's cache folder, and holds until the processor or a version
changes. Where no file can be written nothing is measured, and torch takes large steps.
"""

import json
import math
import os
import platform
import sys
import threading
from functools import cache
from hashlib import sha256
from pathlib import Path

import torch

from sktune.engine.compiled.speeds.measuring import measure_ratios
from sktune.runtime.versions import find_versions

enabled = os.environ.get("SKTUNE_MEASURE", "1") != "0"

_lock = threading.Lock()


def is_one_core_faster(kernels, dtype, graph):
    """Tell whether compiled steps on one core are faster than torch's on all of its threads.

    Parameters
    ----------
    kernels : module
    dtype : numpy.dtype
    graph : Graph

    Returns
    -------
    is_faster : bool
        False where nothing can be measured or kept.
    """
    kind = "images" if graph.has_windows else "tables"
    with _lock:
        ratios = _read_ratios(kernels, dtype, torch.get_num_threads(), kind)
    if not ratios:
        return False
    nearest = min(ratios, key=lambda measured: abs(math.log(measured / graph.widest)))
    return ratios[nearest] < 1


@cache
def _read_ratios(kernels, dtype, n_threads, kind):
    """Return what is kept for this machine; measure and keep it where there is nothing."""
    if not enabled:
        return {}
    path = _find_folder() / f"speeds-{_make_key(dtype, n_threads, kind)}.json"
    try:
        if not path.exists():
            _keep(measure_ratios(kernels, dtype, kind), path)
        return {int(width): ratio for width, ratio in json.loads(path.read_text()).items()}
    except (OSError, ValueError):
        return {}


def _keep(ratios, path):
    """Write a file that is whole or not there; that of a process that was first stays."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(f".{os.getpid()}.draft")
    draft.write_text(json.dumps(ratios))
    try:
        os.link(draft, path)
    except FileExistsError:
        pass
    finally:
        draft.unlink()


def _make_key(dtype, n_threads, kind):
    """Return what tells apart machines, types, numbers of threads, kinds of nets, and versions."""
    versions = find_versions(("sktune", "torch", "numba"))
    parts = (platform.node(), platform.machine(), _read_processor(), os.cpu_count())
    text = json.dumps([*parts, str(dtype), n_threads, kind, versions])
    return sha256(text.encode()).hexdigest()[:16]


def _read_processor():
    """Return the name of the processor, as far as the system tells it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def _find_folder():
    """Return sktune's folder in the user's cache folder."""
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local"
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "sktune"
