"""What the kernel of launched steps takes of a GPU: registers, spills, shared memory.

    python benchmarks/kernel_registers.py

Triton compiles the kernel for compute capability 9.0 (H100) without a device, by the `ptxas` that
it brings, for a number of nets. `blocks` is how many lanes a multiprocessor trains at once, by its
65,536 registers, 227 KiB of shared memory and 2,048 threads. `seconds` are those of the
compilation. Nothing is run: these figures tell whether the tiles fit, not how fast the kernel is.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

ARCHITECTURE = 90
# of a multiprocessor
REGISTERS, SHARED, THREADS = 65536, 227 * 1024, 2048

# Of each net: the widths, the rows of a batch, and what is not as in the first.
NETS = (
    ("64-128-10", 64, {}),
    ("64-128-10", 32, {}),
    ("64-128-10", 128, {}),
    ("64-128-10", 64, {"precision": "tf32"}),
    ("64-128-10", 64, {"activation": "gelu"}),
    ("64-128-10", 64, {"activation": "tanh", "optimizer": "SGD"}),
    ("64-128-10", 64, {"l2": 0.1}),
    ("64-256-128-64-10", 64, {}),
    ("20-16-3", 16, {}),
    ("1000-300-100", 256, {}),
    ("64-128-10", 64, {"dtype": "float64"}),
    ("20-16-3", 16, {"dtype": "float64"}),
)


def make_lane(widths, batch_size, *, activation="relu", optimizer="AdamW", l2=0.0, dtype="float32"):
    """Return a lane of a net as the engine knows it, as far as the kernel depends on it."""
    import numpy as np
    import torch
    from torch import nn

    from sktune import MLP
    from sktune.engine.sampling import SeededSampling
    from sktune.engine.specs import FitSpec, InitialModule, LossSpec, OptimizerSpec, RowSet
    from sktune.modules.dropout import serve_dropout
    from sktune.training.losses import match_classes
    from sktune.training.rates import LRSchedule
    from sktune.training.rows import Rows

    dtype = getattr(torch, dtype)
    n_features, *hidden, n_outputs = widths
    module = MLP(
        n_features, n_outputs, hidden=hidden, activation=activation, dropout=0.2, dtype=dtype
    )
    serve_dropout(module, 0)
    kind = getattr(torch.optim, optimizer)
    (group,) = kind(module.parameters(), lr=0.01).param_groups
    spec = FitSpec(
        module=InitialModule(module),
        dropout=(0.2,) * len(hidden),
        loss=LossSpec(nn.CrossEntropyLoss(), match_classes, n_outputs),
        optimizer=OptimizerSpec(kind, {name: v for name, v in group.items() if name != "params"}),
        schedule=LRSchedule("constant", 1),
        l1=0.0,
        l2=l2,
        sampling=SeededSampling(batch_size, True),
        rows=RowSet("table", 4 * batch_size),
        n_epochs=1,
        seed=0,
    )
    target = np.arange(4 * batch_size) % n_outputs
    rows = Rows(torch.zeros(4 * batch_size, n_features, dtype=dtype), target=target, dtype=dtype)
    return SimpleNamespace(spec=spec, rows=rows)


def compile_kernel(constants, dtype):
    """Return the compiled kernel, and the seconds that it took."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from sktune.engine.steps.launched.kernel.train import train_lanes

    number = "*fp32" if dtype == "float32" else "*fp64"
    kinds = {"target": "*i64", "order": "*i64", "target_order": "*i64", "keys": "*i64"}
    integers = "starts rows_of_net streams n_steps thresholds stages operations"
    kinds |= dict.fromkeys(integers.split(), "*i32")
    counts = "n_parameters memory_size n_places most_steps n_dropouts n_stages"
    kinds |= dict.fromkeys(counts.split(), "i32")
    signature = {}
    for name in train_lanes.arg_names:
        signature[name] = "constexpr" if name in vars(constants) else kinds.get(name, number)
    # torch's tensors begin at multiples of 16 bytes
    aligned = {
        (position,): [["tt.divisibility", 16]]
        for position, kind in enumerate(signature.values())
        if kind.startswith("*")
    }
    source = ASTSource(train_lanes, signature, vars(constants), aligned)
    began = time.perf_counter()
    target = GPUTarget("cuda", ARCHITECTURE, 32)
    compiled = triton.compile(source, target=target, options=constants.options)
    return compiled, time.perf_counter() - began


def read_resources(compiled, folder):
    """Return what `ptxas` tells of a compiled kernel."""
    from triton.backends.nvidia.compiler import get_ptxas

    path = Path(folder) / "kernel.ptx"
    path.write_text(compiled.asm["ptx"])
    command = [get_ptxas(ARCHITECTURE).path, "-v", f"-arch=sm_{ARCHITECTURE}a", str(path)]
    done = subprocess.run(
        [*command, "-o", str(path.with_suffix(".cubin"))],
        capture_output=True,
        text=True,
        check=True,
    )
    text = done.stderr + done.stdout
    registers = int(re.search(r"Used (\d+) registers", text)[1])
    spilled = [int(n) for n in re.findall(r"(\d+) bytes spill", text)]
    return {"registers": registers, "spilled_bytes": sum(spilled)}


def measure(name, batch_size, settings):
    """Return the figures of a net."""
    from sktune.engine.steps.launched.constants import choose_constants
    from sktune.engine.steps.launched.program import read_program

    widths = [int(width) for width in name.split("-")]
    settings = dict(settings)
    precision = settings.pop("precision", "ieee")
    lane = make_lane(widths, batch_size, **settings)
    program = read_program(lane.spec, lane.rows)
    constants = choose_constants(program, [lane], allows_tf32=precision == "tf32")
    with tempfile.TemporaryDirectory() as folder:
        os.environ["TRITON_CACHE_DIR"] = folder
        compiled, seconds = compile_kernel(constants, settings.get("dtype", "float32"))
        found = read_resources(compiled, folder)
    n_threads = 32 * constants.options["num_warps"]
    shared = compiled.metadata.shared
    blocks = min(REGISTERS // (found["registers"] * n_threads), THREADS // n_threads)
    blocks = min(blocks, SHARED // max(1, shared))
    return {
        "net": name,
        "batch_size": batch_size,
        "settings": {"precision": precision, **settings},
        "tile": [constants.ROWS, constants.COLUMNS],
        "threads": n_threads,
        **found,
        "shared_bytes": shared,
        "blocks": blocks,
        "lane_bytes": program.place(batch_size)[1] * lane.rows.X.element_size(),
        "seconds": round(seconds, 1),
    }


def describe(row):
    """Return a line of a table."""
    settings = {
        name: v for name, v in row["settings"].items() if (name, v) != ("precision", "ieee")
    }
    texts = [str(v) if isinstance(v, str) else f"{n}={v}" for n, v in settings.items()]
    cells = [row["net"], row["batch_size"], ", ".join(texts), "x".join(map(str, row["tile"]))]
    names = ("threads", "registers", "spilled_bytes", "shared_bytes", "blocks", "lane_bytes")
    cells += [row[name] for name in (*names, "seconds")]
    return "| " + " | ".join(map(str, cells)) + " |"


def main(arguments=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path, default=None)
    args = parser.parse_args(arguments)
    try:
        import triton
    except ImportError:
        raise SystemExit("this needs Triton: pip install triton") from None
    from harness import RESULTS, save

    rows = []
    for net in NETS:
        rows.append(measure(*net))
        print(describe(rows[-1]), flush=True)
    save(
        {"triton": triton.__version__, "rows": rows}, args.json or RESULTS / "kernel_registers.json"
    )


if __name__ == "__main__":
    main()
