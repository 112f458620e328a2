"""How code of LLVM is written: the vectors of the processor, and the options of all kernels.

The functions called ``generate`` of this package write code of LLVM.
"""

import platform

from llvmlite import ir
from numba import config, njit, types
from numba.core import cgutils
from numba.core.codegen import get_host_cpu_features


def _list_features():
    """Return the names of the features of the processor that Numba compiles for."""
    told = get_host_cpu_features() if config.CPU_FEATURES is None else config.CPU_FEATURES
    return {name[1:] for name in told.split(",") if name.startswith("+")}


_FEATURES = _list_features()

# The bytes of a vector, which may be several of the processor's.
BYTES = 64
# The rows and the vectors of columns of a product that are computed at once: as many sums as the
# registers hold beside what they are made of. A vector of a processor without AVX-512 is two.
TILE_ROWS, TILE_VECTORS = (8, 2) if "avx512f" in _FEATURES else (6, 1)
# Whether the processor multiplies and adds in one instruction. Where it does not, LLVM would call a
# function for each number.
_IS_ARM = platform.machine().lower() in ("aarch64", "arm64")
HAS_MULTIPLY_ADD = _IS_ARM or {"avx", "fma"} <= _FEATURES

OPTIONS = {"nogil": True, "error_model": "numpy"}
# Infinite numbers and NaN keep their meaning. LLVM must not choose where a product and a sum are
# rounded once: it chooses by what is compiled beside them, so that code from the disk would give
# other numbers than new code. `multiply_add` tells where they are.
FASTMATH = set()
# It is called by compiled code only, and has no wrapper for calls by Python: one would crash it.
compiled = njit(fastmath=FASTMATH, no_cpython_wrapper=True, no_cfunc_wrapper=True, **OPTIONS)
# What is written into its caller, so that it is not compiled once more by itself.
inlined = njit(inline="always", fastmath=FASTMATH, **OPTIONS)

_INDEX = ir.IntType(64)
_POSITION = ir.IntType(32)


def build_multiply_add(builder, a, b, c):
    """Write ``a * b + c`` of numbers or vectors, rounded once if the processor can."""
    if not HAS_MULTIPLY_ADD:
        return builder.fadd(builder.fmul(a, b), c)
    if isinstance(a.type, ir.VectorType):
        suffix = f"v{a.type.count}{a.type.element.intrinsic_name}"
    else:
        suffix = a.type.intrinsic_name
    function_type = ir.FunctionType(a.type, [a.type] * 3)
    function = cgutils.get_or_insert_function(builder.module, function_type, f"llvm.fma.{suffix}")
    return builder.call(function, [a, b, c])


class Code:
    """The arguments and the vector type of a function that is generated; and common operations.

    Parameters
    ----------
    context, builder, signature, args
        What Numba hands to a ``generate``. The first of the arguments must be an array: its type
        is that of the vectors.

    Attributes
    ----------
    args : list
        The arguments, with a pointer to the data in place of each array. Those in a tuple stand
        one by one.
    vector : ir.VectorType
    """

    def __init__(self, context, builder, signature, args):
        self.builder = builder
        pairs = []
        for argument_type, value in zip(signature.args, args, strict=True):
            if isinstance(argument_type, types.BaseTuple):
                parts = cgutils.unpack_tuple(builder, value)
                pairs += zip(argument_type, parts, strict=True)
            else:
                pairs.append((argument_type, value))
        self.args = []
        for argument_type, value in pairs:
            if isinstance(argument_type, types.Array):
                array = context.make_array(argument_type)(context, builder, value)
                value = array.data
            elif isinstance(argument_type, types.Integer):
                value = context.cast(builder, value, argument_type, types.int64)
            self.args.append(value)
        scalar = self.args[0].type.pointee
        self.itemsize = 4 if isinstance(scalar, ir.FloatType) else 8
        self.vector = ir.VectorType(scalar, BYTES // self.itemsize)

    def move(self, pointer, stride, times=None):
        """Return a pointer moved by some strides."""
        return self.builder.gep(
            pointer, [stride if times is None else self.builder.mul(stride, times)]
        )

    def step(self, pointer, times):
        """Return a pointer moved by some vectors."""
        return self.builder.gep(pointer, [_INDEX(times * self.vector.count)])

    def load(self, pointer):
        """Load a vector, which need not be aligned."""
        address = self.builder.bitcast(pointer, self.vector.as_pointer())
        return self.builder.load(address, align=self.itemsize)

    def store(self, vector, pointer):
        """Store a vector, which need not be aligned."""
        address = self.builder.bitcast(pointer, self.vector.as_pointer())
        self.builder.store(vector, address, align=self.itemsize)

    def broadcast(self, pointer):
        """Load a scalar into all positions of a vector."""
        return self.repeat(self.builder.load(pointer))

    def repeat(self, scalar):
        """Return a vector with a scalar in all positions."""
        undefined = ir.Constant(self.vector, ir.Undefined)
        first = self.builder.insert_element(undefined, scalar, _POSITION(0))
        return self.shuffle(first, undefined, [0] * self.vector.count)

    def fold(self, vector):
        """Return the sum of the values of a vector: halves are added until one value is left."""
        n = vector.type.count
        while n > 1:
            n //= 2
            lower = self.shuffle(vector, vector, list(range(n)))
            upper = self.shuffle(vector, vector, list(range(n, 2 * n)))
            vector = self.builder.fadd(lower, upper)
        return self.builder.extract_element(vector, _POSITION(0))

    def shuffle(self, one, other, positions):
        """Return the values at some positions of two vectors, counted over both of them."""
        mask = ir.Constant(ir.VectorType(_POSITION, len(positions)), positions)
        return self.builder.shuffle_vector(one, other, mask)
