"""What the benchmarks share: fresh processes, their memory, and the record of the figures."""

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
    import torch  # not by those who measure how long it takes to import

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
    return next(
        (line.split(": ")[1] for line in lines if line.startswith("model name")), platform.machine()
    )


def save(record, path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"machine": describe_machine(), **record}, indent=1) + "\n")


def run_fresh(arguments, threads=None, what="a fresh process"):
    """Run Python with some arguments in a process of its own; return what its last line says in JSON."""
    environment = os.environ if threads is None else {**os.environ, "OMP_NUM_THREADS": str(threads)}
    command = [sys.executable, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        raise SystemExit(f"{what} failed:\n{done.stderr}{done.stdout}")
    return json.loads(done.stdout.splitlines()[-1])


def peak_bytes():
    """Return the most memory that this process has held, plus the most that each living process it started has."""
    return _of_family("VmHWM")


def held_bytes():
    """Return the memory that this process and those that it started hold."""
    return _of_family("VmRSS")


def _of_family(name):
    """Return the sum of a number in /proc; not getrusage's, which knows nothing of children before they end."""
    found = [_read_status(path) for path in Path("/proc").glob("[0-9]*/status")]
    if not found:  # no such folder: this process alone
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    family, grown = set(), {os.getpid()}
    while grown:
        family |= grown
        grown = {
            int(status["Pid"]) for status in found if int(status.get("PPid", 0)) in family
        } - family
    sizes = [
        status[name] for status in found if int(status.get("Pid", 0)) in family and name in status
    ]
    return sum(1024 * int(size.split()[0]) for size in sizes)


def _read_status(path):
    """Return what /proc tells of a process, or nothing if it has ended."""
    try:
        return dict(line.split(":", 1) for line in path.read_text().splitlines())
    except OSError:
        return {}
