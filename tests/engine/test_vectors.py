"""The arithmetic of the compiled kernels: what is rounded once, and what vectors compute."""

import importlib.util
import math
import os
import re
import subprocess
import sys
from fractions import Fraction
from functools import cache

import numpy as np
import pytest
from scipy.special import erfc

if importlib.util.find_spec("numba") is None:
    pytest.skip("there is no Numba", allow_module_level=True)

from numba import njit, typeof

from sktune.engine.compiled.activations import exponentials, pieces, smooth
from sktune.engine.compiled.vectors.code import FASTMATH, HAS_MULTIPLY_ADD, OPTIONS
from sktune.engine.compiled.vectors.scalars import multiply_add

DTYPES = [np.float32, np.float64]
# Each activation of the kernels, with the numbers that it takes before its tables.
ACTIVATIONS = {
    "relu": (pieces.apply_relu, ()),
    "leaky_relu": (pieces.apply_leaky_relu, (0.3,)),
    "hardtanh": (pieces.keep_between, ((-1.0, 1.0), (-1.0, 1.0), -1.0, 0.0)),
    "softshrink": (pieces.keep_beyond, ((-0.5, 0.5), (0.5, -0.5))),
    "softsign": (pieces.apply_softsign, ()),
    "elu": (smooth.apply_elu, (1.0,)),
    "tanh": (smooth.apply_tanh, ()),
    "gelu": (smooth.apply_gelu, ()),
    "sigmoid": (smooth.apply_sigmoid, ()),
    "silu": (smooth.apply_silu, ()),
    "mish": (smooth.apply_mish, ()),
    "softplus": (smooth.apply_softplus, (1.0, 20.0)),
}
# To compile them takes most of the time of the tests: not all in both types.
CASES = [*((name, np.float32) for name in ACTIVATIONS), ("gelu", np.float64)]
PRINT_CODE = """
import numpy as np
from numba import float32, njit
from sktune.engine.compiled.vectors.code import HAS_MULTIPLY_ADD
from sktune.engine.compiled.vectors.scalars import multiply_add

f = njit(float32(float32, float32, float32))(lambda a, b, c: multiply_add(a, b, c))
code = f.inspect_asm(f.signatures[0])
print(HAS_MULTIPLY_ADD, "fma" in code, f(3.0, 5.0, 7.0))
"""


@cache
def for_python(function):
    """Return a function of the kernels compiled anew, so that Python can call it."""
    return njit(fastmath=FASTMATH, **OPTIONS)(getattr(function, "py_func", function))


def in_type(value, dtype):
    """Return a number, or a tuple of them, in some type."""
    if isinstance(value, tuple):
        return tuple(in_type(part, dtype) for part in value)
    return dtype(value)


def apply(name, values, slope):
    """Apply an activation in place; return the function and what it was called with."""
    function, settings = ACTIVATIONS[name]
    function = for_python(function)
    arguments = (*(in_type(setting, values.dtype.type) for setting in settings), values, slope)
    function(*arguments)
    return function, arguments


@pytest.mark.parametrize(("name", "dtype"), CASES)
def test_activations_are_computed_by_vectors(name, dtype):
    function, arguments = apply(name, np.zeros(64, dtype), np.zeros(64, dtype))
    types = tuple(typeof(argument) for argument in arguments)
    scalar = "float" if dtype is np.float32 else "double"
    assert re.search(rf"fmul (\w+ )*<\d+ x {scalar}>", function.inspect_llvm(types))
    # stores of some places of a vector, which AMD's processors are slow at
    assert "vmaskmov" not in function.inspect_asm(types)


@pytest.mark.parametrize(("name", "dtype"), CASES)
def test_a_place_does_not_change_what_an_activation_computes(name, dtype):
    """The last numbers of a table, which fill no vector, are rounded like the others."""
    x = np.random.default_rng(0).normal(scale=3, size=203).astype(dtype)
    values, slope = x.copy(), np.ones_like(x)
    apply(name, values, slope)

    for i, number in enumerate(x):
        value, factor = np.array([number]), np.ones(1, dtype)
        apply(name, value, factor)
        assert value[0] == values[i]
        assert factor[0] == slope[i]


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_product_and_a_sum_are_rounded_once(dtype):
    a, b, c = np.random.default_rng(0).normal(size=(3, 200)).astype(dtype)
    compute = njit(lambda a, b, c: multiply_add(a, b, c))
    for one, other, summand in zip(a, b, -(a * b) + c * np.finfo(dtype).eps, strict=True):
        exact = Fraction(float(one)) * Fraction(float(other)) + Fraction(float(summand))
        expected = dtype(float(exact)) if HAS_MULTIPLY_ADD else one * other + summand
        assert compute(one, other, summand) == expected


@pytest.mark.parametrize("features", ["", "+avx,+avx2,+fma"])
def test_a_processor_that_cannot_multiply_and_add_at_once_calls_no_function(features):
    if features and not HAS_MULTIPLY_ADD:
        pytest.skip("the processor has no such instruction")
    environment = {**os.environ, "NUMBA_CPU_NAME": "generic", "NUMBA_CPU_FEATURES": features}
    done = subprocess.run(
        [sys.executable, "-c", PRINT_CODE], env=environment, capture_output=True, text=True
    )
    assert done.stdout.split() == [str(bool(features)), str(bool(features)), "22.0"], done.stderr


def test_nothing_but_multiply_add_is_rounded_once():
    """What LLVM is free to fuse it fuses here, and perhaps not elsewhere."""
    a, b = np.random.default_rng(0).normal(size=(2, 100))

    def add_product(a, b, c):
        return a * b + c

    compute = for_python(add_product)
    assert all(compute(x, y, -(x * y)) == 0 for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float32, 6e-7), (np.float64, 4e-14)])
def test_gelu_is_exact_in_its_tails(dtype, tolerance):
    x = np.concatenate([np.linspace(-6, 6, 301), np.random.default_rng(0).normal(size=300)])
    values = x.astype(dtype)
    x = values.astype(np.float64)
    slope = np.ones_like(values)
    for_python(smooth.apply_gelu)(values, slope)

    normal = erfc(-x / math.sqrt(2)) / 2
    density = np.exp(-x * x / 2) / math.sqrt(2 * math.pi)
    # far out, a rounded square changes the density by as many digits as it has
    rtol = tolerance * (1 + x * x)
    assert (abs(values - x * normal) <= rtol * abs(x * normal)).all()
    assert (abs(slope - (normal + x * density)) <= rtol * (normal + abs(x) * density)).all()


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float32, 2e-7), (np.float64, 4e-16)])
def test_exponential_and_logarithm_are_exact(dtype, tolerance):
    @njit
    def compute(x, largest):
        scale, rest = exponentials.exponential(x, largest)
        return scale + rest * scale

    x = np.linspace(-80, 80, 1001).astype(dtype)
    found = np.array([compute(number, dtype(80)) for number in x])
    np.testing.assert_allclose(found, np.exp(x.astype(np.longdouble)), rtol=tolerance)

    x = np.linspace(0, 1, 1001).astype(dtype)
    compute = for_python(exponentials.logarithm_of_1_plus)
    found = np.array([compute(number) for number in x])
    np.testing.assert_allclose(found, np.log1p(x.astype(np.longdouble)), rtol=2 * tolerance)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_what_is_not_a_number_stays_so(name):
    x = np.full(40, np.nan, np.float32)
    apply(name, x, np.ones_like(x))
    assert np.isnan(x).all()
