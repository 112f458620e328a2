"""Vector instructions of the compiled kernels: products, transposed tables, powers of 2, copies.

The functions called ``generate`` write code of LLVM, which Numba has no words for.
"""

from llvmlite import binding, ir
from numba import config, njit, types
from numba.core import cgutils
from numba.extending import intrinsic

# The bytes of a vector, which may be several of the processor's.
BYTES = 64
# The rows and the vectors of columns of a product that are computed at once: as many sums as the
# registers hold beside what they are made of. A vector of a processor without AVX-512 is two.
if config.CPU_FEATURES is None:
    _HAS_LONG_VECTORS = bool(binding.get_host_cpu_features().get("avx512f"))
else:
    _HAS_LONG_VECTORS = "+avx512f" in config.CPU_FEATURES
TILE_ROWS, TILE_VECTORS = (8, 2) if _HAS_LONG_VECTORS else (6, 1)

OPTIONS = {"nogil": True, "error_model": "numpy"}
# Infinite numbers and NaN keep their meaning; a product and a sum may be rounded once.
FASTMATH = {"contract"}
compiled = njit(fastmath=FASTMATH, **OPTIONS)
# What is written into its caller, so that it is not compiled once more by itself.
inlined = njit(inline="always", fastmath=FASTMATH, **OPTIONS)
# A product and a sum may be rounded once.
_CONTRACT = ["contract"]

_INDEX = ir.IntType(64)
_POSITION = ir.IntType(32)


class _Code:
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
        undefined = ir.Constant(self.vector, ir.Undefined)
        scalar = self.builder.load(pointer)
        first = self.builder.insert_element(undefined, scalar, _POSITION(0))
        return self.shuffle(first, undefined, [0] * self.vector.count)

    def shuffle(self, one, other, positions):
        """Return the values at some positions of two vectors, counted over both of them."""
        mask = ir.Constant(ir.VectorType(_POSITION, len(positions)), positions)
        return self.builder.shuffle_vector(one, other, mask)


def _make_tile(n_rows, n_vectors):
    """Make a function that computes some rows and vectors of columns of a product, plus a bias.

    ``c[i, j] = bias[i] + sum over k of a[i, k] * b[k, j]``, from row i and column j on. The tables
    are those of `multiply`; the number of products must be at least 1.
    """

    @intrinsic
    def tile(context, tables, i, j):
        def generate(context, builder, signature, args):
            code = _Code(context, builder, signature, args)
            c, c_row, a, a_row, a_column, b, b_row, n, bias, bias_row, first, column = code.args
            c = code.move(code.move(c, first, c_row), column)
            a = code.move(a, first, a_row)
            b = code.move(b, column)
            bias = code.move(bias, first, bias_row)
            places = [(i, j) for i in range(n_rows) for j in range(n_vectors)]
            biases = [code.broadcast(code.move(bias, bias_row, _INDEX(i))) for i in range(n_rows)]
            entry = builder.block
            loop = builder.append_basic_block()
            after = builder.append_basic_block()
            builder.branch(loop)

            # The variables of the loop: the index, pointers into `a` and `b`, and the sums.
            builder.position_at_end(loop)
            k = builder.phi(_INDEX)
            a_k = builder.phi(a.type)
            b_k = builder.phi(b.type)
            sums = [builder.phi(code.vector) for _ in places]

            # sums[i, j] += a[i, k] * b[k, j]
            columns = [code.load(code.step(b_k, j)) for j in range(n_vectors)]
            factors = [code.broadcast(code.move(a_k, a_row, _INDEX(i))) for i in range(n_rows)]
            products = [builder.fmul(factors[i], columns[j], flags=_CONTRACT) for i, j in places]
            next_sums = [
                builder.fadd(product, total, flags=_CONTRACT)
                for product, total in zip(products, sums, strict=True)
            ]
            next_k = builder.add(k, _INDEX(1))
            next_a = code.move(a_k, a_column)
            next_b = code.move(b_k, b_row)

            # What each variable is before the first pass, and after each pass.
            updates = [(k, _INDEX(0), next_k), (a_k, a, next_a), (b_k, b, next_b)]
            updates += zip(sums, [biases[i] for i, _ in places], next_sums, strict=True)
            for variable, before, following in updates:
                variable.add_incoming(before, entry)
                variable.add_incoming(following, loop)
            builder.cbranch(builder.icmp_signed("<", next_k, n), loop, after)

            builder.position_at_end(after)
            for (i, j), total in zip(places, next_sums, strict=True):
                code.store(total, code.step(code.move(c, c_row, _INDEX(i)), j))
            return context.get_dummy_value()

        return types.void(tables, i, j), generate

    return tile


_tile_of_many = _make_tile(TILE_ROWS, TILE_VECTORS)
_tile_of_two = _make_tile(2, TILE_VECTORS)
_tile_of_one = _make_tile(1, TILE_VECTORS)
_narrow_tile_of_many = _make_tile(TILE_ROWS, 1)
_narrow_tile_of_two = _make_tile(2, 1)
_narrow_tile_of_one = _make_tile(1, 1)


@intrinsic
def _transpose_square(context, a, a_row, b, b_row):
    """Write a transposed square, of as many rows as a vector has values.

    Rows 0 and n / 2, 1 and n / 2 + 1, ... are interleaved; after log2(n) such rounds, each value
    stands where row and column are exchanged.
    """

    def generate(context, builder, signature, args):
        code = _Code(context, builder, signature, args)
        a, a_row, b, b_row = code.args
        n = code.vector.count
        rows = [code.load(code.move(a, a_row, _INDEX(i))) for i in range(n)]
        # Of two vectors: 0, n, 1, n + 1, ...
        interleaved = [position for i in range(n) for position in (i, n + i)]
        n_rounds = n.bit_length() - 1
        for _ in range(n_rounds):
            mixed = []
            for upper, lower in zip(rows[: n // 2], rows[n // 2 :], strict=True):
                mixed.append(code.shuffle(upper, lower, interleaved[:n]))
                mixed.append(code.shuffle(upper, lower, interleaved[n:]))
            rows = mixed
        for i in range(n):
            code.store(rows[i], code.move(b, b_row, _INDEX(i)))
        return context.get_dummy_value()

    return types.void(a, a_row, b, b_row), generate


@intrinsic
def power_of_2(context, n, like):
    """Return ``2.0**n`` for a whole number n, from its bits; the result must be a normal number."""

    def generate(context, builder, signature, args):
        scalar = context.get_value_type(like)
        # The bits of a number, the bias of its exponent, and the bits of its fraction (IEEE 754).
        if isinstance(scalar, ir.FloatType):
            n_bits, bias, n_fraction_bits = 32, 127, 23
        else:
            n_bits, bias, n_fraction_bits = 64, 1023, 52
        integer = ir.IntType(n_bits)
        exponent = builder.add(builder.fptosi(args[0], integer), integer(bias))
        return builder.bitcast(builder.shl(exponent, integer(n_fraction_bits)), scalar)

    return like(like, like), generate


@intrinsic
def copy(context, target, source, n):
    """Copy n values from the beginning of one array to that of another."""

    def generate(context, builder, signature, args):
        target, source, n = _Code(context, builder, signature, args).args
        itemsize = context.get_abi_sizeof(target.type.pointee)
        cgutils.raw_memcpy(builder, target, source, n, itemsize)
        return context.get_dummy_value()

    return types.void(target, source, n), generate


@intrinsic
def cast(context, value, like):
    """Return a number in the type of another one: Python's own have 64 bits."""

    def generate(context, builder, signature, args):
        return context.cast(builder, args[0], value, like)

    return like(value, like), generate


@compiled
def multiply(c, c_row, a, a_row, a_column, b, b_row, shape, bias, bias_row):
    """Write ``c = a @ b + bias``, with a bias per row.

    Parameters
    ----------
    c : ndarray (n_rows, n_columns)
        Its rows, like those of `b`, must have room for whole vectors.
    c_row : int
        The stride from row to row.
    a : ndarray (n_rows, n_products)
    a_row, a_column : int
        Its strides; a transposed table has them exchanged.
    b : ndarray (n_products, n_columns)
    b_row : int
    shape : tuple of int
        (n_rows, n_columns, n_products).
    bias : ndarray (n_rows,) or (1,)
    bias_row : int
        1, or 0 if all rows have the same bias.
    """
    n_rows, n_columns, n_products = shape
    tables = (c, c_row, a, a_row, a_column, b, b_row, n_products, bias, bias_row)
    one_vector = BYTES // c.itemsize
    i = 0
    while i < n_rows:
        j = 0
        has_many = i + TILE_ROWS <= n_rows
        has_two = i + 2 <= n_rows
        while j < n_columns:
            if j + (TILE_VECTORS - 1) * one_vector < n_columns:
                if has_many:
                    _tile_of_many(tables, i, j)
                elif has_two:
                    _tile_of_two(tables, i, j)
                else:
                    _tile_of_one(tables, i, j)
                j += TILE_VECTORS * one_vector
            else:
                if has_many:
                    _narrow_tile_of_many(tables, i, j)
                elif has_two:
                    _narrow_tile_of_two(tables, i, j)
                else:
                    _narrow_tile_of_one(tables, i, j)
                j += one_vector
        if has_many:
            i += TILE_ROWS
        else:
            i += 2 if has_two else 1


@compiled
def transpose(a, a_row, b, b_row, n_rows, n_columns):
    """Write `b`, the transposed `a` (n_rows, n_columns); both have room for whole vectors."""
    n = BYTES // a.itemsize
    for i in range(0, n_rows, n):
        for j in range(0, n_columns, n):
            _transpose_square(a[i * a_row + j :], a_row, b[j * b_row + i :], b_row)
