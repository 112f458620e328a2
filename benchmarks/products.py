"""The matrix products of the compiled steps against the peak of a core, and against torch's.

    python benchmarks/products.py --save
    export NUMBA_CPU_NAME=haswell NUMBA_CPU_FEATURES=+avx,+avx2,+fma
    python benchmarks/products.py --save

The peak is measured: fused multiply-adds on registers, as many at once as hide their latency. The
last commands show how the products fare on a processor without AVX-512.

A linear layer has three products in a step: forward, the gradient of its weight, and the gradient
of its inputs. Each is repeated on the same tables, in float32, with one thread, in time of the
processor. A share is that of the measured peak; torch may use longer vectors than Numba is told to.
"""

from __future__ import annotations

import argparse
from time import thread_time

import numpy as np
import torch
from harness import RESULTS, save
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

from sktune.engine.compiled.operations.workspace import find_stride
from sktune.engine.compiled.vectors.code import BYTES, TILE_ROWS, TILE_VECTORS, build_multiply_add
from sktune.engine.compiled.vectors.products import multiply

# How long a product is repeated. The fastest of twenty such series counts.
SECONDS = 0.004
# rows of a batch, inputs and outputs of a layer
SHAPES = [
    (32, 64, 128),
    (64, 64, 128),
    (128, 64, 128),
    (64, 128, 10),
    (128, 256, 256),
    (128, 512, 512),
    (128, 1024, 1024),
    (64, 2048, 2048),
    (512, 256, 256),
]
# Sums that are under way at once in the measurement of the peak.
N_SUMS = 12 if TILE_VECTORS == 2 else 6


@intrinsic
def _multiply_add(context, n, like):
    """Do n rounds of fused multiply-adds on as many vectors as there are sums; return a number."""

    def generate(context, builder, signature, args):
        scalar = context.get_value_type(like)
        vector = ir.VectorType(scalar, BYTES // 4)
        one = ir.Constant(vector, [1.0] * vector.count)
        index = ir.IntType(64)
        entry = builder.block
        loop = builder.append_basic_block()
        after = builder.append_basic_block()
        factor = builder.insert_element(one, args[1], index(0))
        builder.branch(loop)
        builder.position_at_end(loop)
        k = builder.phi(index)
        sums = [builder.phi(vector) for _ in range(N_SUMS)]
        following = [build_multiply_add(builder, total, factor, one) for total in sums]
        next_k = builder.add(k, index(1))
        k.add_incoming(index(0), entry)
        k.add_incoming(next_k, loop)
        for n_sum, (total, value) in enumerate(zip(sums, following, strict=True)):
            total.add_incoming(ir.Constant(vector, [float(n_sum)] * vector.count), entry)
            total.add_incoming(value, loop)
        builder.cbranch(builder.icmp_signed("<", next_k, args[0]), loop, after)
        builder.position_at_end(after)
        total = following[0]
        for value in following[1:]:
            total = builder.fadd(total, value)
        return builder.extract_element(total, index(0))

    return like(types.int64, like), generate


@njit(nogil=True)
def _repeat_peak(n):
    return _multiply_add(n, np.float32(0.5))


@njit(nogil=True)
def _repeat_product(n, c, c_row, a, a_row, a_column, b, b_row, shape, bias, bias_row):
    for _ in range(n):
        multiply(c, c_row, a, a_row, a_column, b, b_row, shape, bias, bias_row)


def _time(repeat):
    """Return the seconds of one of the repetitions of ``repeat(n)``."""
    repeat(1)
    n = 1
    seconds = 0.0
    while seconds < SECONDS:
        n *= 2
        began = thread_time()
        repeat(n)
        seconds = thread_time() - began
    best = seconds
    for _ in range(20):
        began = thread_time()
        repeat(n)
        best = min(best, thread_time() - began)
    return best / n


def measure_peak():
    """Return the floating-point operations of a core in a second."""
    n = 100_000
    seconds = _time(lambda times: _repeat_peak(n * times)) / n
    return 2 * N_SUMS * (BYTES // 4) / seconds


def products(n_rows, n_inputs, n_outputs):
    """Return the arguments of the three products of a layer, by name."""
    like = np.zeros(1, np.float32)
    stride = find_stride(n_rows, like)
    row_stride = find_stride(max(n_inputs, n_outputs), like)
    random = np.random.default_rng(0)

    def table(size):
        return random.normal(size=size + 64).astype(np.float32)

    X = table(stride * n_inputs)
    rows = table(row_stride * n_rows)
    weight = table(n_inputs * n_outputs)
    above = table(stride * n_outputs)
    zero = np.zeros(n_outputs, np.float32)
    weight_row = -(-n_inputs // 16) * 16
    return {
        "forward": (
            *(np.zeros(stride * n_outputs + 64, np.float32), stride, weight, n_inputs, 1),
            *(X, stride, (n_outputs, -(-n_rows // 16) * 16, n_inputs), zero, 1),
        ),
        "weight": (
            *(np.zeros(weight_row * n_outputs + 64, np.float32), weight_row, above, stride, 1),
            *(rows, row_stride, (n_outputs, n_inputs, n_rows), zero, 0),
        ),
        "inputs": (
            *(np.zeros(stride * n_inputs + 64, np.float32), stride, weight, 1, n_inputs),
            *(above, stride, (n_inputs, -(-n_rows // 16) * 16, n_outputs), zero, 0),
        ),
    }


def torch_products(n_rows, n_inputs, n_outputs):
    X = torch.randn(n_rows, n_inputs)
    weight = torch.randn(n_outputs, n_inputs)
    above = torch.randn(n_rows, n_outputs)
    return {
        "forward": (X, weight.T),
        "weight": (above.T, X),
        "inputs": (above, weight),
    }


def _repeat_torch(n, a, b, out):
    for _ in range(n):
        torch.mm(a, b, out=out)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--save", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(1)
    peak = measure_peak()
    print(f"peak of a core: {peak / 1e9:.0f} GFLOP/s; tiles of {TILE_ROWS} rows")
    found = []
    for shape in SHAPES:
        row = {"rows": shape[0], "inputs": shape[1], "outputs": shape[2]}
        n_operations = 2 * np.prod(shape)
        for name, arguments in products(*shape).items():
            seconds = _time(lambda n, arguments=arguments: _repeat_product(n, *arguments))
            row[name] = n_operations / seconds / peak
        for name, (a, b) in torch_products(*shape).items():
            out = torch.empty(len(a), b.shape[1])
            seconds = _time(lambda n, a=a, b=b, out=out: _repeat_torch(n, a, b, out))
            row[f"torch {name}"] = n_operations / seconds / peak
        found.append(row)
        shares = "  ".join(f"{k} {v:4.0%}" for k, v in row.items() if isinstance(v, float))
        print(f"{shape[0]:5} rows {shape[1]:5} -> {shape[2]:5}:  {shares}", flush=True)
    if args.save:
        name = "products.json" if TILE_ROWS == 8 else "products_avx2.json"
        record = {"gflops": peak / 1e9, "tile_rows": TILE_ROWS, "products": found}
        save(record, RESULTS / name)


if __name__ == "__main__":
    main()
