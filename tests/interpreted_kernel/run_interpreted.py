"""Runs pytest in a process in which Triton interprets its kernels: ``python run.py [options]``."""

import os
import sys
from importlib.util import find_spec
from pathlib import Path

if __name__ == "__main__":
    if find_spec("triton") is None:
        print("skipped, the kernel cannot be interpreted: Triton is not installed")
        sys.exit()
    # Triton asks as it is imported
    os.environ["TRITON_INTERPRET"] = "1"

    import pytest

    folder = Path(__file__).parent
    sys.exit(pytest.main(sys.argv[1:] or [str(folder), "-q"]))
