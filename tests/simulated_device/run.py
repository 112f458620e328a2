"""Runs pytest in a process with the simulated device: ``python run.py [options of pytest]``."""

import sys
from pathlib import Path

from library import find_obstacle, load_library

if __name__ == "__main__":
    obstacle = find_obstacle()
    if obstacle:
        print(f"skipped, the device cannot be simulated: {obstacle}")
        sys.exit()
    # torch asks once, as it is imported, whether there is a device
    load_library()

    import pytest

    folder = Path(__file__).parent
    sys.exit(pytest.main(sys.argv[1:] or [str(folder), "-q"]))
