"""Which operations of several tables, and of tables and numbers, are read.

To let another one be read, add it to ``ARITHMETIC`` or ``CONCATENATIONS``.
"""

import operator

import torch

from sktune.modules.tracing.links import Add, Product, Scale
from sktune.modules.tracing.operations import Unreadable

CONCATENATIONS = (torch.cat, torch.concat, torch.concatenate, torch.hstack)


def _add(a, b, *, alpha=1):
    """Return the link of ``a + alpha * b``."""
    if _is_number(a):
        return Scale(alpha, a)
    return Scale(1.0, alpha * b) if _is_number(b) else Add(1.0, alpha)


def _subtract(a, b, *, alpha=1):
    return _add(a, b, alpha=-alpha)


def _multiply(a, b):
    if _is_number(a):
        return Scale(a)
    return Scale(b) if _is_number(b) else Product()


def _divide(a, b, *, rounding_mode=None):
    if not _is_number(b) or not b or rounding_mode is not None:
        raise Unreadable("it divides by something else than a number")
    return Scale(1 / b)


def _negate(a):
    return Scale(-1.0)


# What a function of one or two operands computes; tables stand for themselves.
ARITHMETIC = {
    operator.add: _add,
    operator.iadd: _add,
    torch.add: _add,
    "add": _add,
    "add_": _add,
    operator.sub: _subtract,
    operator.isub: _subtract,
    torch.sub: _subtract,
    torch.subtract: _subtract,
    "sub": _subtract,
    "sub_": _subtract,
    operator.mul: _multiply,
    operator.imul: _multiply,
    torch.mul: _multiply,
    torch.multiply: _multiply,
    "mul": _multiply,
    "mul_": _multiply,
    operator.truediv: _divide,
    operator.itruediv: _divide,
    torch.div: _divide,
    "div": _divide,
    "div_": _divide,
    operator.neg: _negate,
    torch.neg: _negate,
    "neg": _negate,
}


def read_arithmetic(target, name, args, kwargs):
    """Return the link of an operation whose operands are tables (None) or numbers.

    Parameters
    ----------
    target : callable or str
        A key of ``ARITHMETIC``.
    name : str
        What it is called in an error.
    args : list of float or None
    kwargs : dict

    Returns
    -------
    link : Add, Product or Scale
    """
    for value in (*args, *kwargs.values()):
        if value is not None and not _is_number(value):
            raise Unreadable(f"it computes {name} with something else than tables and numbers")
    try:
        return ARITHMETIC[target](*args, **kwargs)
    except TypeError:
        raise Unreadable(f"it calls {name} with other arguments than expected") from None


def _is_number(value):
    return isinstance(value, int | float) and not isinstance(value, bool)
