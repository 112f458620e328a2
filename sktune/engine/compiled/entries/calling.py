"""Calls of compiled functions by their addresses: the caller is compiled without them."""

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic


def make_call(make_signature):
    """Make a function that calls what is at an address: ``call(address, arguments)``.

    Parameters
    ----------
    make_signature : callable
        ``make_signature(scalar)`` returns Numba's signature of the functions that are called. The
        first of their arguments is an array of this type.
    """

    @intrinsic
    def call(context, address, arguments):
        signature = make_signature(arguments[0].dtype)

        def generate(context, builder, called, values):
            address, packed = values
            pairs = zip(
                cgutils.unpack_tuple(builder, packed), called.args[1], signature.args, strict=True
            )
            casts = [context.cast(builder, value, own, other) for value, own, other in pairs]
            returned = context.get_value_type(signature.return_type)
            of_arguments = [context.get_value_type(one) for one in signature.args]
            function = ir.FunctionType(returned, of_arguments)
            outcome = builder.call(builder.inttoptr(address, function.as_pointer()), casts)
            if signature.return_type == types.void:
                return context.get_dummy_value()
            return outcome

        return signature.return_type(types.int64, arguments), generate

    return call
