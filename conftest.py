"""Settings that hold before anything is imported."""

import os
import zlib
from importlib.util import find_spec
from pathlib import Path

# Numba keeps compiled code until the file changes in which it begins, and does not look at the
# others that it is made of: tests are to run what the sources say now.
_package = Path(__file__).with_name("sktune")
_sources = sorted((_package / "engine" / "compiled").rglob("*.py"))
_sources.append(_package / "runtime" / "seeds.py")
_stamp = zlib.crc32(b"".join(path.read_bytes() for path in _sources))
os.environ["NUMBA_CACHE_DIR"] = str(
    Path(__file__).with_name(".pytest_cache") / f"numba-{_stamp:08x}"
)

# no test is to depend on how fast this machine is
os.environ["SKTUNE_MEASURE"] = "0"

import torch  # noqa: E402

torch.set_num_threads(1)  # tests count the groups that a search is divided into among the threads

# These modules are imported only where Triton is installed; doctests are collected from all others.
collect_ignore_glob = [] if find_spec("triton") else ["sktune/engine/steps/launched/kernel/*"]
