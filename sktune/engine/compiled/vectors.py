"""What the compiled kernels say to the processor in vectors: products, transposed tables, powers, copies.

Numba keeps compiled kernels until ``kernels.py`` changes, and does not look at this file: touch that one, too.
"""

from llvmlite import binding, ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

BYTES = 64  # of a vector, be it one of the processor's or several
_SUMS = (
    8 if binding.get_host_cpu_features().get("avx512f") else 4
)  # vectors that its registers hold at once
OPTIONS = {"nogil": True, "error_model": "numpy"}
compiled = njit(fastmath={"contract"}, **OPTIONS)  # infinite numbers and NaN keep their meaning
_FREE = ["contract"]  # a product and a sum may be rounded once
_INDEX, _LANE = ir.IntType(64), ir.IntType(32)


class _Code:
    """What the functions below that speak to the compiler itself have in common."""

    def __init__(self, context, builder, signature, args):
        self.builder, self.args = builder, []
        for kind, value in zip(signature.args, args, strict=True):
            is_array = isinstance(kind, types.Array)
            self.args.append(
                context.make_array(kind)(context, builder, value).data if is_array else value
            )
        self.number = self.args[0].type.pointee
        self.size = 4 if isinstance(self.number, ir.FloatType) else 8
        self.vector = ir.VectorType(self.number, BYTES // self.size)

    def at(self, pointer, step, times=1):
        """Return a pointer moved by some steps."""
        return self.builder.gep(pointer, [self.builder.mul(step, _INDEX(times))])

    def load(self, pointer):
        """Load a vector, which may lie anywhere."""
        return self.builder.load(
            self.builder.bitcast(pointer, self.vector.as_pointer()), align=self.size
        )

    def store(self, vector, pointer):
        """Store a vector."""
        self.builder.store(
            vector, self.builder.bitcast(pointer, self.vector.as_pointer()), align=self.size
        )

    def spread(self, pointer):
        """Load a number into all places of a vector."""
        nothing = ir.Constant(self.vector, ir.Undefined)
        first = self.builder.insert_element(nothing, self.builder.load(pointer), _LANE(0))
        return self.shuffle(first, nothing, [0] * self.vector.count)

    def shuffle(self, one, other, places):
        """Return a vector of numbers that two hold, at these places of the one and then the other."""
        return self.builder.shuffle_vector(
            one, other, ir.Constant(ir.VectorType(_LANE, len(places)), places)
        )


def _make_tile(n):
    """Make a function that computes n rows and a vector's columns of a product ``a @ b``, plus a bias per row.

    ``c[i, :] = bias[i] + sum over k of a[i, k] * b[k, :]``. Every table comes with the steps from row to row, and
    `a` also with that from column to column.
    """

    @intrinsic
    def tile(context, c, c_row, a, a_row, a_column, b, b_row, n_products, bias, bias_row):
        def generate(context, builder, signature, args):
            code = _Code(context, builder, signature, args)
            c, c_row, a, a_row, a_column, b, b_row, n_products, bias, bias_row = code.args
            before = [code.spread(code.at(bias, bias_row, i)) for i in range(n)]
            entry, loop, after = (
                builder.block,
                builder.append_basic_block(),
                builder.append_basic_block(),
            )
            builder.branch(loop)
            builder.position_at_end(loop)
            k, a_here, b_here = builder.phi(_INDEX), builder.phi(a.type), builder.phi(b.type)
            sums, columns = [builder.phi(code.vector) for _ in range(n)], code.load(b_here)
            lefts = [code.spread(code.at(a_here, a_row, i)) for i in range(n)]
            products = [builder.fmul(left, columns, flags=_FREE) for left in lefts]
            added = [builder.fadd(p, s, flags=_FREE) for p, s in zip(products, sums, strict=True)]
            next_k, next_a, next_b = (
                builder.add(k, _INDEX(1)),
                code.at(a_here, a_column),
                code.at(b_here, b_row),
            )
            moves = [(k, _INDEX(0), next_k), (a_here, a, next_a), (b_here, b, next_b)]
            for variable, first, then in [*moves, *zip(sums, before, added, strict=True)]:
                variable.add_incoming(first, entry)
                variable.add_incoming(then, loop)
            builder.cbranch(builder.icmp_signed("<", next_k, n_products), loop, after)
            builder.position_at_end(after)
            for i in range(n):
                code.store(added[i], code.at(c, c_row, i))
            return context.get_dummy_value()

        return types.void(
            c, c_row, a, a_row, a_column, b, b_row, n_products, bias, bias_row
        ), generate

    return tile


_tile_of_many, _tile_of_two, _tile_of_one = map(_make_tile, (_SUMS, 2, 1))


@intrinsic
def _flip(context, a, a_row, b, b_row):
    """Write a square of as many rows as a vector has numbers, transposed: perfect shuffles of its two halves."""

    def generate(context, builder, signature, args):
        code = _Code(context, builder, signature, args)
        a, a_row, b, b_row = code.args
        n = code.vector.count
        rows = [code.load(code.at(a, a_row, i)) for i in range(n)]
        by_turns = [place for i in range(n) for place in (i, n + i)]
        for _ in range(n.bit_length() - 1):
            pairs = zip(rows[: n // 2], rows[n // 2 :], strict=True)
            rows = [
                code.shuffle(*pair, half) for pair in pairs for half in (by_turns[:n], by_turns[n:])
            ]
        for i in range(n):
            code.store(rows[i], code.at(b, b_row, i))
        return context.get_dummy_value()

    return types.void(a, a_row, b, b_row), generate


@intrinsic
def power_of_2(context, n, like):
    """Return ``2.0**n`` for a whole number n, from its bits; the result must be a normal number."""

    def generate(context, builder, signature, args):
        number = context.get_value_type(like)
        bits, bias, place = (32, 127, 23) if isinstance(number, ir.FloatType) else (64, 1023, 52)
        integer = ir.IntType(bits)
        exponent = builder.add(builder.fptosi(args[0], integer), integer(bias))
        return builder.bitcast(builder.shl(exponent, integer(place)), number)

    return like(like, like), generate


@intrinsic
def copy(context, to, start, n):
    """Copy n numbers."""

    def generate(context, builder, signature, args):
        to, start, n = _Code(context, builder, signature, args).args
        cgutils.raw_memcpy(builder, to, start, n, context.get_abi_sizeof(to.type.pointee))
        return context.get_dummy_value()

    return types.void(to, start, n), generate


@intrinsic
def cast(context, value, like):
    """Return a number in the type of another one: Python's own are of 64 bits."""
    return like(value, like), lambda context, builder, sig, args: context.cast(
        builder, args[0], value, like
    )


@compiled
def multiply(c, c_row, a, a_row, a_column, b, b_row, shape, bias, bias_row):
    """Write products of `shape` (rows, columns, products); `c` and `b` have room for whole vectors of columns."""
    n_rows, n_columns, n_products = shape
    for j in range(0, n_columns, BYTES // c.itemsize):
        i = 0
        while i < n_rows:
            here, left, start = c[i * c_row + j :], a[i * a_row :], bias[i * bias_row :]
            if i + _SUMS <= n_rows:
                _tile_of_many(
                    here, c_row, left, a_row, a_column, b[j:], b_row, n_products, start, bias_row
                )
                i += _SUMS
            elif i + 2 <= n_rows:
                _tile_of_two(
                    here, c_row, left, a_row, a_column, b[j:], b_row, n_products, start, bias_row
                )
                i += 2
            else:
                _tile_of_one(
                    here, c_row, left, a_row, a_column, b[j:], b_row, n_products, start, bias_row
                )
                i += 1


@compiled
def transpose(a, a_row, b, b_row, n_rows, n_columns):
    """Write `b`, the transposed `a`; both have room for whole vectors."""
    n = BYTES // a.itemsize
    for i in range(0, n_rows, n):
        for j in range(0, n_columns, n):
            _flip(a[i * a_row + j :], a_row, b[j * b_row + i :], b_row)
