"""Tools of all benchmarks: fresh processes, their memory, and the record of the figures."""

from __future__ import annotations

import json
import os
import platform
import resource
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

RESULTS = Path(__file__).parent / "results"
_LIBRARIES = ("torch", "scikit-learn", "skorch", "joblib", "numpy")


def describe_machine():
    # Not at the top: a benchmark measures the time of this import.
    import torch

    return {
        "cpu": cpu_name(),
        "cores": os.cpu_count(),
        "torch_threads": torch.get_num_threads(),
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in _LIBRARIES},
        },
    }


def cpu_name():
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    for line in lines:
        if line.startswith("model name"):
            return line.split(": ")[1]
    return platform.machine()


def save(record, path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"machine": describe_machine(), **record}, indent=1) + "\n")


def run_fresh(arguments, threads=None, what="a fresh process"):
    """Run Python with some arguments in a new process.

    The return value is read from the last line that the process prints, which is JSON.
    """
    environment = os.environ if threads is None else {**os.environ, "OMP_NUM_THREADS": str(threads)}
    command = [sys.executable, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        raise SystemExit(f"{what} failed:\n{done.stderr}{done.stdout}")
    return json.loads(done.stdout.splitlines()[-1])


def peak_bytes():
    """Return the peak memory of this process, plus the peaks of the living processes it started."""
    return _of_family("VmHWM")


def held_bytes():
    """Return the memory that this process and the processes it started hold now."""
    return _of_family("VmRSS")


def _of_family(name):
    """Return the sum of a number in /proc over this process and all that descend from it.

    ``getrusage`` counts children only after their end. It is used where there is no /proc, for
    this process alone.
    """
    statuses = [_read_status(path) for path in Path("/proc").glob("[0-9]*/status")]
    if not statuses:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    family = _find_family(statuses)
    n_bytes = 0
    for status in statuses:
        if int(status.get("Pid", 0)) in family and name in status:
            kibibytes = int(status[name].split()[0])
            n_bytes += 1024 * kibibytes
    return n_bytes


def _find_family(statuses):
    """Return the numbers of this process and of all that descend from it."""
    family = set()
    added = {os.getpid()}
    while added:
        family |= added
        children = {
            int(status["Pid"]) for status in statuses if int(status.get("PPid", 0)) in family
        }
        added = children - family
    return family


def _read_status(path):
    """Return what /proc tells of a process as a dict, which is empty if the process has ended."""
    try:
        return dict(line.split(":", 1) for line in path.read_text().splitlines())
    except OSError:
        return {}
