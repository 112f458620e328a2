"""Vector instructions of the compiled kernels: products, transposed tables, choices, copies.

The functions called ``generate`` write code of LLVM, which Numba has no words for.
"""

import platform

from llvmlite import ir
from numba import config, njit, types
from numba.core import cgutils
from numba.core.codegen import get_host_cpu_features
from numba.extending import intrinsic


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


def _make_tile(n_rows, n_vectors):
    """Make a function that computes some rows and vectors of columns of a product, plus a bias.

    ``c[i, j] = bias[i] + sum over k of a[i, k] * b[k, j]``, from row i and column j on. The tables
    are those of `multiply`; the number of products must be at least 1.
    """

    @intrinsic
    def tile(context, tables, i, j):
        def generate(context, builder, signature, args):
            code = Code(context, builder, signature, args)
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
            next_sums = [
                build_multiply_add(builder, factors[i], columns[j], total)
                for (i, j), total in zip(places, sums, strict=True)
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


def _make_sum(find_term, *, is_wide=False, is_kept=False):
    """Make a function ``add_up(arrays, numbers, n)``: the sum of a term over the first n places.

    The order of the additions is always the same. One that LLVM is free to choose depends on what
    is compiled beside it, so that code from the disk would give other numbers than new code.

    Parameters
    ----------
    find_term : callable
        ``find_term(builder, values, numbers)`` returns the term: of the values of the arrays at a
        place, and of numbers that are the same at all places. All may be vectors.
    is_wide : bool
        Whether terms and sum are of float64.
    is_kept : bool
        Whether the terms are written into the first array.
    """

    @intrinsic
    def add_up(context, arrays, numbers, n):
        def generate(context, builder, signature, args):
            code = Code(context, builder, signature, args)
            *values, n = code.args
            pointers, scalars = values[: len(arrays)], values[len(arrays) :]
            scalar = ir.DoubleType() if is_wide else code.vector.element
            vector = ir.VectorType(scalar, code.vector.count)

            def add_term(total, place, load, store, kind, numbers):
                places = [builder.gep(pointer, [place]) for pointer in pointers]
                found = [load(place) for place in places]
                if is_wide and code.vector.element != scalar:
                    found = [builder.fpext(value, kind) for value in found]
                term = find_term(builder, found, numbers)
                if is_kept:
                    store(term, places[0])
                builder.store(builder.fadd(builder.load(total), term), total)

            step = _INDEX(vector.count)
            n_whole = builder.mul(builder.sdiv(n, step), step)
            total = cgutils.alloca_once_value(builder, ir.Constant(vector, None))
            repeated = [code.repeat(number) for number in scalars]
            with cgutils.for_range_slice(builder, _INDEX(0), n_whole, step, _INDEX) as (i, _):
                add_term(total, i, code.load, code.store, vector, repeated)
            rest = cgutils.alloca_once_value(builder, code.fold(builder.load(total)))
            with cgutils.for_range_slice(builder, n_whole, n, _INDEX(1), _INDEX) as (i, _):
                add_term(rest, i, builder.load, builder.store, scalar, scalars)
            return builder.load(rest)

        result = types.float64 if is_wide else arrays[0].dtype
        return result(arrays, numbers, n), generate

    return add_up


def _take_size(builder, values, numbers):
    (x,) = values
    is_negative = builder.fcmp_ordered("<", x, ir.Constant(x.type, None))
    return builder.select(is_negative, builder.fneg(x), x)


def _take_square(builder, values, numbers):
    (x,) = values
    return builder.fmul(x, x)


def _take_square_of_distance(builder, values, numbers):
    (x,), (mean,) = values, numbers
    distance = builder.fsub(x, mean)
    return builder.fmul(distance, distance)


def _take_product_of_distance(builder, values, numbers):
    (g, x), (mean,) = values, numbers
    return builder.fmul(g, builder.fsub(x, mean))


def _take_product_of_scaled_distance(builder, values, numbers):
    g, x, mean, scale = values
    return builder.fmul(builder.fmul(g, builder.fsub(x, mean)), scale)


def _take_product(builder, values, numbers):
    return builder.fmul(*values)


add_up = _make_sum(lambda builder, values, numbers: values[0])
# the first array is multiplied by the second one in place
scale_and_add_up = _make_sum(_take_product, is_kept=True)
add_sizes = _make_sum(_take_size)
add_squares = _make_sum(_take_square)
add_wide_sizes = _make_sum(_take_size, is_wide=True)
add_wide_squares = _make_sum(_take_square, is_wide=True)
# of (x - mean)
add_squares_of_distances = _make_sum(_take_square_of_distance)
# of g * (x - mean)
add_products_of_distances = _make_sum(_take_product_of_distance)
# of g * (x - mean) * scale, with a mean and a scale for each place
add_products_of_scaled_distances = _make_sum(_take_product_of_scaled_distance)


@intrinsic
def _transpose_square(context, a, a_row, b, b_row):
    """Write a transposed square, of as many rows as a vector has values.

    Rows 0 and n / 2, 1 and n / 2 + 1, ... are interleaved; after log2(n) such rounds, each value
    stands where row and column are exchanged.
    """

    def generate(context, builder, signature, args):
        code = Code(context, builder, signature, args)
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
def multiply_add(context, a, b, c):
    """Return ``a * b + c``, rounded once if the processor can, in the type of the first number."""

    def generate(context, builder, signature, args):
        return build_multiply_add(builder, *args)

    return a(a, a, a), generate


@intrinsic
def choose(context, condition, one, other):
    """Return one of two numbers, both of which are computed: an ``if`` may become a branch."""

    def generate(context, builder, signature, args):
        return builder.select(*args)

    return one(types.boolean, one, one), generate


@intrinsic
def split_off_whole(context, x):
    """Return the whole number n next to x, and ``2.0**n``, which must be a normal number.

    A number is added for which the sum has no digits behind the point: the last bits of the sum
    are those of n, up to a constant.
    """

    def generate(context, builder, signature, args):
        scalar = context.get_value_type(x)
        # The bits of a number, the bias of its exponent, and the bits of its fraction (IEEE 754).
        if isinstance(scalar, ir.FloatType):
            n_bits, bias, n_fraction_bits = 32, 127, 23
        else:
            n_bits, bias, n_fraction_bits = 64, 1023, 52
        integer = ir.IntType(n_bits)
        shift = ir.Constant(scalar, 1.5 * 2.0**n_fraction_bits)
        total = builder.fadd(args[0], shift)
        exponent = builder.add(builder.bitcast(total, integer), integer(bias))
        power = builder.bitcast(builder.shl(exponent, integer(n_fraction_bits)), scalar)
        parts = [builder.fsub(total, shift), power]
        return context.make_tuple(builder, signature.return_type, parts)

    return types.UniTuple(x, 2)(x), generate


@intrinsic
def copy(context, target, source, n):
    """Copy n values from the beginning of one array to that of another."""

    def generate(context, builder, signature, args):
        target, source, n = Code(context, builder, signature, args).args
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
def as_computed(x):
    """Return ``x + 0``, which is x, but for the sign of 0.

    Where a number is chosen that stands there already, LLVM would write some places of a vector
    only, for which AMD's processors need several times as long as for all of them.
    """
    return x + cast(0.0, x)


@inlined
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


@inlined
def transpose(a, a_row, b, b_row, n_rows, n_columns):
    """Write `b`, the transposed `a` (n_rows, n_columns); both have room for whole vectors."""
    n = BYTES // a.itemsize
    for i in range(0, n_rows, n):
        for j in range(0, n_columns, n):
            _transpose_square(a[i * a_row + j :], a_row, b[j * b_row + i :], b_row)
