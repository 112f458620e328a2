"""Where torch's products overtake compiled steps: one core against one, and against all.

    python benchmarks/crossover.py            # half a minute
    python benchmarks/crossover.py --save     # and keep the table

A step of linear regression by Adam, in float32, on layers of some widths with batches of some rows.
The figures are the time of the compiled step, which one core computes, over that of torch's. Those
beyond 1 are where torch is faster. By two of them the planner chooses where a step has several
threads (sktune/engine/compiled/speeds); beyond 4,096 units, or 524,288 numbers in a batch of the
widest layer, the compiled steps leave the step to torch in any case.
"""

from __future__ import annotations

import argparse
import os

import numpy as np
import torch
from harness import RESULTS, save

from sktune.engine.compiled.loading import load_kernels
from sktune.engine.compiled.speeds.measuring import time_compiled, time_torch

WIDTHS = (64, 256, 512, 1024, 2048, 4096)
ROWS = (32, 128, 512, 2048)
# The most operations of a step that is measured.
MOST = 6e10


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--save", action="store_true")
    args = parser.parse_args()
    kernels = load_kernels(np.dtype(np.float32))
    found = []
    threads = sorted({1, os.cpu_count()})
    for width in WIDTHS:
        for n_rows in ROWS:
            if 4 * width * width * n_rows > MOST:
                continue
            X = np.zeros((n_rows, width), np.float32)
            compiled = time_compiled(kernels, X)
            row = {"width": width, "rows": n_rows, "compiled_ms": compiled * 1e3}
            for n_threads in threads:
                torch.set_num_threads(n_threads)
                row[f"over_torch_{n_threads}"] = compiled / time_torch(X)
            found.append(row)
            print("  ".join(f"{name} {value:8.2f}" for name, value in row.items()), flush=True)
    if args.save:
        save({"steps": found}, RESULTS / "crossover.json")


if __name__ == "__main__":
    main()
