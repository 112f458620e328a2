"""Loading of the compiled kernels, where Numba is there and works.

Numba compiles the kernels when they are first used, and keeps them on disk. What a network does
not need is not compiled for it: see :mod:`sktune.engine.compiled.entries.parts`.
"""

import math
import threading
import warnings
from functools import cache
from importlib.util import find_spec

import numpy as np
from torch import nn

from sktune.engine.compiled import opcodes
from sktune.engine.compiled.entries.telling import compiling
from sktune.engine.compiled.reading.graph import GraphReader
from sktune.modules.tracing.links import Link, open_links

# Whoever comes while something is compiled waits for it.
_lock = threading.RLock()
# The parts that are loaded, by their kind, opcode and type of number.
_parts = {}


@cache
def load_kernels(dtype, loss=opcodes.SQUARED_ERROR):
    """Return the module of the kernels, compiled for a type; None where Numba cannot do it.

    A trial step tells it. It needs the same criterion as a network, where that is an opcode of
    `TRIALS`: another one would be compiled for the trial alone.
    """
    if find_spec("numba") is None:
        return None
    try:
        from sktune.engine.compiled import kernels

        with _lock, compiling(dtype):
            _try_step(kernels, dtype, loss if loss in TRIALS else opcodes.SQUARED_ERROR)
    # whatever happens, for instance in a Numba that does not fit this Python or NumPy
    except Exception as error:
        cause = f"{type(error).__name__}: {error}"
        warnings.warn(
            f"Numba cannot be used, and networks train without it: {cause}",
            RuntimeWarning,
            stacklevel=2,
        )
        return None
    return kernels


def load_calls(kernels, links, dtype):
    """Return the addresses (n_links, 2) of the parts of some links, forward and backward.

    They are 0 where nothing is to be done.
    """
    calls = np.zeros((len(links), 2), dtype=np.int64)
    for addresses, link in zip(calls, links, strict=True):
        opcode = link[opcodes.OPCODE]
        if opcode in (opcodes.INPUT, opcodes.IDLE):
            continue
        if opcode < opcodes.FIRST_OPERATION:
            addresses[0] = load_address(kernels, "layer", opcode, dtype)
            continue
        addresses[0] = load_address(kernels, "apply", opcode, dtype)
        if link[opcodes.SLOT] != opcodes.NO_SLOT:
            addresses[1] = load_address(kernels, "trace", opcode, dtype)
    return calls


def load_address(kernels, kind, opcode, dtype):
    """Return the address of a part of a step: see :func:`kernels.load_part`."""
    key = (kind, int(opcode), dtype)
    if key not in _parts:
        with _lock, compiling(dtype):
            _parts[key] = kernels.load_part(*key)
    return _parts[key].address


def load_products(kernels, dtype, *, has_windows=False):
    """Return the addresses of what operations call, for the workspace of a network.

    `has_windows` tells whether there are convolutions.
    """
    names = kernels.Products._fields if has_windows else ("multiply", "transpose")
    return kernels.Products(**{name: load_address(kernels, name, 0, dtype) for name in names})


def bind_trial_step(kernels, graph, X, target, flat, gradient, rate, loss=opcodes.SQUARED_ERROR):
    """Return a function that trains a network by a step of Adam, and returns its losses.

    Parameters
    ----------
    kernels : module
    graph : Graph
        Of a module without batch normalisation and dropout.
    X : ndarray (n_rows, n_inputs)
    target : ndarray (n_rows, n_targets)
    flat : ndarray (n_parameters,)
        The parameters. Each call changes them, and writes the `gradient`.
    gradient : ndarray (n_parameters,)
    rate : float
        The learning rate.
    loss : int, default=opcodes.SQUARED_ERROR
        The opcode of the criterion.
    """
    dtype = flat.dtype
    products = load_products(kernels, dtype, has_windows=graph.has_windows)
    nothing = flat[:0]
    arguments = (
        graph.links,
        load_calls(kernels, graph.links, dtype),
        graph.settings,
        _load_trial_parts(kernels, loss, dtype),
        # the mean, and no option
        np.zeros(2),
        _list_trial_options(),
        flat,
        gradient,
        nothing,
        np.zeros_like(flat),
        np.zeros_like(flat),
        nothing,
        kernels.make_workspace(graph.links, len(X), dtype, products),
        0,
        (X, target, np.ones(len(X), dtype)),
        np.arange(len(X)),
        np.array([len(X)]),
        np.array([rate]),
        (0, 0, 0),
    )
    return lambda: kernels.train_steps(*arguments)


def _load_trial_parts(kernels, loss, dtype):
    """Return the addresses of the loss and the optimizer of a trial step; it has nothing else."""
    rule = load_address(kernels, "update", kernels.ADAM, dtype)
    return load_address(kernels, "loss", loss, dtype), rule, 0, 0


def _list_trial_options():
    """Return the options of Adam in a trial step, without clipping, l1 and l2."""
    options = np.zeros(opcodes.FIRST_CLIP + 2)
    # behind the weight decay, whether it is decoupled, and whether the loss is maximized
    options[3:6] = 0.9, 0.999, 1e-8
    return options


# The targets of three rows in a trial step by a criterion, and the loss and the gradient of weights
# and biases that are zeros.
TRIALS = {
    opcodes.SQUARED_ERROR: ([1, 0, 1], 2 / 3, [-4 / 3, -2 / 3, -4 / 3]),
    opcodes.CROSS_ENTROPY: (
        [0, 1, 0],
        math.log(2),
        [-1 / 3, 1 / 6, 1 / 3, -1 / 6, -1 / 6, 1 / 6],
    ),
}


def _try_step(kernels, dtype, loss):
    """Take a step of Adam whose outcome is known; raise if it is another."""
    targets, expected_loss, expected_gradient = TRIALS[loss]
    X = np.array([[1, 0], [0, 2], [1, 1]], dtype)
    target = np.array(targets, dtype).reshape(3, 1)
    flat = np.zeros(len(expected_gradient), dtype)
    gradient = np.zeros_like(flat)
    module = nn.Linear(2, len(flat) // 3, device="meta")
    graph = GraphReader(module, open_links(module, (Link("", None, (0,)),)), 2).read()
    losses = bind_trial_step(kernels, graph, X, target, flat, gradient, 0.3, loss)()
    found = [*losses, *gradient, *flat]
    # Adam's first step is the learning rate, against the sign of each gradient
    expected = [expected_loss, *expected_gradient, *(-0.3 * np.sign(expected_gradient))]
    if len(losses) != 1 or not np.allclose(found, expected):
        raise ArithmeticError(f"its code takes a step to {found} in place of {expected}")
