"""Builds and loads the library of the simulated device: without torch, which must come after it."""

import ctypes
import hashlib
import os
import shutil
import subprocess
import tempfile
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

_SOURCE = Path(__file__).with_name("device.cpp")
_loaded = []


def find_obstacle():
    """Return why the device cannot be simulated here, or ``""``."""
    if (_find_torch() / "lib" / "libtorch_cuda.so").exists():
        return "torch has CUDA built in, whose kernels stand in the way"
    if shutil.which("g++") is None:
        return "there is no g++ to build it with"
    if not (_find_torch() / "lib" / "libtorch_cpu.so").exists():
        return "it is written for Linux"
    return ""


def _find_torch():
    return Path(find_spec("torch").origin).parent


def build():
    """Build the library unless that was done before; return its path."""
    root = _find_torch()
    key = hashlib.sha256(_SOURCE.read_bytes() + version("torch").encode() + bytes(root))
    folder = Path(tempfile.gettempdir()) / f"sktune-simulated-device-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    library = folder / f"{key.hexdigest()[:16]}.so"
    if not library.exists():
        made = folder / f"{os.getpid()}.so"
        command = ["g++", "-std=c++20", "-O0", "-fPIC", "-shared", "-w"]
        command += [f"-I{root / 'include'}", f"-I{root / 'include/torch/csrc/api/include'}"]
        command += [str(_SOURCE), "-o", str(made), f"-L{root / 'lib'}", "-ltorch_cpu", "-lc10"]
        command += [f"-Wl,-rpath,{root / 'lib'}"]
        found = subprocess.run(command, capture_output=True, text=True, check=False)
        if found.returncode:
            raise RuntimeError(f"the simulated device cannot be built: {found.stderr[-3000:]}")
        made.replace(library)
    return library


def load_library():
    """Return the library, which is loaded once; the first time must be before torch is imported."""
    if not _loaded:
        _loaded.append(_declare(ctypes.CDLL(str(build()))))
    return _loaded[0]


def is_loaded():
    """Tell whether this process has the device."""
    return bool(_loaded)


def _declare(lib):
    """Tell ctypes the types that the library's functions take and return."""
    handle = ctypes.c_void_p
    lib.sim_set_memory_limit.argtypes = [ctypes.c_int64]
    lib.sim_counter.restype = ctypes.c_int64
    lib.sim_stream.restype = ctypes.c_int64
    lib.sim_set_stream.argtypes = [ctypes.c_int, ctypes.c_int64]
    lib.sim_describe.restype = ctypes.c_char_p
    lib.sim_last_error.restype = ctypes.c_char_p
    lib.sim_begin_recording.restype = handle
    lib.sim_end_recording.argtypes = [handle, ctypes.c_int, ctypes.c_int64]
    lib.sim_recording_size.restype = ctypes.c_int64
    lib.sim_recording_size.argtypes = [handle]
    lib.sim_replay.argtypes = [handle]
    lib.sim_delete_recording.argtypes = [handle]
    return lib
