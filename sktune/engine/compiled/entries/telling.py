"""The line that tells of a compilation, which a user would else take for slow training."""

import gc
import sys
import threading
from contextlib import contextmanager

# Seconds beyond which it is told: what is kept on disk is there sooner.
_SECONDS = 0.7
_LINE = (
    "sktune: Numba compiles training steps for this machine, for some seconds and once only "
    "(SKTUNE_COMPILED=0 trains without them)"
)


# The types of numbers that it was told for in this process.
_told = set()
_lock = threading.Lock()


@contextmanager
def compiling(dtype):
    """Load or compile code for a type of number in a block; tell of it where it takes long.

    A line on stderr tells of it, once in a process.

    Python's garbage collection rests, which would take a fifth of the time.
    """
    timer = threading.Timer(_SECONDS, _tell, (dtype,))
    timer.daemon = True
    timer.start()
    was_collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        timer.cancel()
        if was_collecting:
            gc.enable()


def _tell(dtype):
    # there may be no stderr, as in a program without a console
    with _lock:
        if dtype in _told or sys.stderr is None:
            return
        _told.add(dtype)
    print(_LINE, file=sys.stderr, flush=True)
