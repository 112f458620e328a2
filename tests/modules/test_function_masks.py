"""Calls of torch's dropout functions whose masks follow from the seed."""

import warnings
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn
from torch.func import vmap
from torch.nn import functional as F
from torch.nn.functional import dropout2d
from torch.nn.functional import dropout3d as renamed

from sktune.modules.dropout import MaskStream, serve_dropout
from sktune.modules.function_masks import FunctionMasks, LaneFunctionMasks, calls_dropout

A_GLOBAL_ARRAY = np.arange(3)
A_GLOBAL_TENSOR = torch.arange(3)
ONES = torch.ones(6, 4, 5, 3)

# function, shape of the input and shape of the factors
SHAPES = [
    (F.dropout, (7,), (7,)),
    (torch.dropout, (6, 4), (6, 4)),
    (torch.dropout_, (6, 4), (6, 4)),
    (F.dropout1d, (6, 4, 9), (6, 4, 1)),
    # one row of several channels
    (F.dropout1d, (6, 9), (6, 1)),
    (F.dropout2d, (6, 4, 3, 2), (6, 4, 1, 1)),
    (F.dropout2d, (6, 4, 9), (6, 4, 1)),
    (F.dropout2d, (6, 9), (6, 9)),
    (F.dropout2d, (6, 4, 3, 2, 2), (6, 4, 1, 1, 1)),
    (F.dropout3d, (6, 4, 3, 2, 2), (6, 4, 1, 1, 1)),
    (F.dropout3d, (6, 4, 3, 2), (6, 1, 1, 1)),
    (F.dropout3d, (6, 4), (6, 1)),
    (F.dropout3d, (6,), (6,)),
    (torch.feature_dropout, (6, 4, 9), (6, 4, 1)),
    (torch.feature_dropout, (6, 9), (6, 9)),
    (torch.feature_dropout_, (6, 4, 2, 2), (6, 4, 1, 1)),
]
quiet = pytest.mark.filterwarnings("ignore:dropout[23]d. Received a")


def is_of_shape(dropped, shape):
    """Tell whether the same is dropped wherever factors of a shape are broadcast to."""
    own = dropped[tuple(slice(0, n) for n in shape)]
    return torch.equal(dropped, own.expand_as(dropped))


@quiet
@pytest.mark.parametrize(("function", "shape", "factors"), SHAPES)
def test_the_same_numbers_are_dropped_together_as_by_torch(function, shape, factors):
    torch.manual_seed(1)
    by_torch = [function(torch.ones(shape), 0.4, True) for _ in range(20)]
    with FunctionMasks(MaskStream(0)):
        ours = [function(torch.ones(shape), 0.4, True) for _ in range(20)]

    for many in (by_torch, ours):
        assert all(is_of_shape(one, factors) for one in many)
        # along each dimension of the factors there are others
        for dim, n in enumerate(factors):
            fewer = (*factors[:dim], 1, *factors[dim + 1 :])
            assert n == 1 or not all(is_of_shape(one, fewer) for one in many)
        assert torch.stack(many).unique().tolist() == pytest.approx([0, 1 / 0.6])
        assert torch.stack(many).mean().item() == pytest.approx(1, abs=0.3)


def take_steps(function):
    stream = MaskStream(3)
    found = []
    with FunctionMasks(stream):
        for batch in range(2):
            stream.batch = batch
            found += [function(ONES, 0.4, True), function(ONES, 0.4, True)]
    return found


def test_masks_follow_from_seed_step_and_call():
    before = torch.get_rng_state()
    first = take_steps(torch.feature_dropout)
    again = take_steps(F.dropout2d)

    assert all(map(torch.equal, first, again))
    assert len({one.numpy().tobytes() for one in first}) == 4
    assert torch.equal(before, torch.get_rng_state())


def test_calls_of_all_functions_are_counted_together():
    with FunctionMasks(MaskStream(0)):
        one, other = F.dropout(ONES[..., 0, 0], 0.5), F.dropout2d(ONES, 0.5)[..., 0, 0]
    with FunctionMasks(MaskStream(0)):
        same = F.dropout2d(ONES, 0.5)[..., 0, 0]

    assert torch.equal(one, same)
    assert not torch.equal(one, other)


@pytest.mark.parametrize("function", [F.dropout, F.dropout1d, F.dropout2d, F.dropout3d])
def test_arguments_may_be_written_in_any_way(function):
    X = torch.ones(6, 4, 5) if function is F.dropout1d else ONES
    ways = [
        lambda: function(X),
        lambda: function(X, 0.5),
        lambda: function(X, 0.5, True),
        lambda: function(input=X, p=0.5, training=True),
        lambda: function(X, training=1),
        lambda: function(X.clone(), 0.5, True, True),
        lambda: function(X.clone(), inplace=True),
    ]
    found = []
    for way in ways:
        with FunctionMasks(MaskStream(0)):
            found.append(way())

    assert all(torch.equal(one, found[0]) for one in found)
    assert 0 in found[0]


@pytest.mark.parametrize("function", [torch.dropout, torch.feature_dropout])
def test_arguments_of_functions_written_in_c_may_be_written_in_any_way(function):
    ways = [
        lambda: function(ONES, 0.5, True),
        lambda: function(ONES, p=0.5, train=True),
        lambda: function(input=ONES, p=0.5, train=True),
    ]
    found = []
    for way in ways:
        with FunctionMasks(MaskStream(0)):
            found.append(way())

    assert all(torch.equal(one, found[0]) for one in found)
    assert 0 in found[0]


@pytest.mark.parametrize(
    "call",
    [
        lambda X: F.dropout1d(X, 0.5, inplace=True),
        lambda X: F.dropout2d(X[:, :, :, None], 0.5, True, True)[..., 0],
        lambda X: torch.feature_dropout_(X, 0.5, True),
        lambda X: torch.dropout_(X, 0.5, True),
    ],
)
def test_tensors_are_written_to_in_place(call):
    X = torch.ones(6, 4, 9, requires_grad=True)
    with FunctionMasks(MaskStream(0)):
        written = X * 2
        returned = call(written)
    returned.sum().backward()

    assert returned.data_ptr() == written.data_ptr()
    assert torch.equal(returned, written)
    assert torch.equal(X.grad, written.detach())


FUNCTIONS = [F.dropout1d, F.dropout2d, F.dropout3d, torch.feature_dropout]


@pytest.mark.parametrize("function", FUNCTIONS)
def test_nothing_or_all_is_dropped_as_by_torch(function):
    X = torch.randn(6, 4, 5)
    X = X if function in (F.dropout1d, torch.feature_dropout) else X[..., None]
    with FunctionMasks(MaskStream(0)):
        assert torch.equal(function(X, 0.5, False), X)
        assert torch.equal(function(X, 0, True), X)
        assert torch.equal(function(X, 1, True), X * 0)


def test_errors_and_warnings_are_those_of_torch():
    with FunctionMasks(MaskStream(0)):
        with pytest.raises(ValueError, match="between 0 and 1, but got 1.5"):
            F.dropout2d(ONES, 1.5)
        with pytest.raises(RuntimeError, match="dropout1d: Expected 2D or 3D input"):
            F.dropout1d(ONES)
        with pytest.raises(RuntimeError, match="requires at least 2 dimensions"):
            torch.feature_dropout(ONES[0, 0, 0], 0.5, True)
        with pytest.warns(UserWarning, match="assuming that channel-wise 1D dropout"):
            F.dropout2d(ONES[..., 0])
        with pytest.warns(UserWarning, match="Received a 2-D input to dropout2d"):
            F.dropout2d(ONES[..., 0, 0])


def test_nothing_is_dropped_of_an_empty_tensor():
    module = nn.Sequential(nn.Dropout1d(0.5))
    serve_dropout(module, 0)
    empty = torch.ones(0, 4, 5)
    with FunctionMasks(MaskStream(0)):
        for call in (module, F.dropout, F.dropout1d, F.dropout2d):
            with warnings.catch_warnings(action="ignore"):
                assert call(empty).shape == empty.shape


def test_integers_are_refused_as_by_torch():
    X = torch.ones(4, 5, dtype=torch.long)
    with pytest.raises(RuntimeError, match="can't be cast"):
        F.dropout(X, 0.3)
    with FunctionMasks(MaskStream(0)), pytest.raises(RuntimeError, match="can't be cast"):
        F.dropout(X, 0.3)


# --- many nets ------------------------------------------------------------------------------------

STACKED = torch.randn(3, 5, 4, 6)


def call_alone(seed, call, X, step=(2, 1)):
    with FunctionMasks(MaskStream(seed, *step)):
        return call(X)


def drop_twice(X):
    X = F.dropout1d(X.clone(), 0.3, inplace=True)
    return F.dropout(X, 0.6) + F.dropout1d(X[:, 0], 0.5)[:, None]


@pytest.mark.parametrize("is_one_by_one", [False, True])
def test_lanes_have_the_masks_of_a_net_alone(is_one_by_one):
    masks = LaneFunctionMasks([5, 9, 5, 7]).select([0, 1, 3])
    for step in ((0, 0), (2, 1)):
        masks.begin_step(step)
        with masks:
            if is_one_by_one:
                found = []
                for lane, X in enumerate(STACKED):
                    masks.begin_lane(lane)
                    found.append(drop_twice(X))
            else:
                found = vmap(drop_twice, randomness="error")(STACKED)
        for X, seed, one in zip(STACKED, [5, 9, 7], found, strict=True):
            assert torch.equal(one, call_alone(seed, drop_twice, X, step))


def test_lanes_write_to_their_tensors_in_place():
    def call(X):
        X = X * 2
        F.dropout1d(X, 0.5, True, True)
        return X

    masks = LaneFunctionMasks([5, 9, 7])
    masks.begin_step((0, 0))
    X = STACKED.clone().requires_grad_()
    with masks:
        found = vmap(call, randomness="error")(X)
    found.sum().backward()

    expected = [call_alone(s, call, X, (0, 0)) for s, X in zip([5, 9, 7], STACKED, strict=True)]
    assert torch.equal(found, torch.stack(expected))
    assert torch.equal(X.grad, torch.where(found == 0, 0.0, 4.0))


def test_what_all_lanes_share_is_not_dropped():
    masks = LaneFunctionMasks([5, 9, 7])
    masks.begin_step((0, 0))
    with masks, pytest.raises(TypeError, match="differ from net to net"):
        vmap(lambda X: X * F.dropout(torch.ones(6)), randomness="error")(STACKED)


# --- layers ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("layer", "shape", "factors"),
    [
        (nn.Dropout1d(0.4), (6, 9), (6, 1)),
        (nn.Dropout1d(0.4), (6, 4, 9), (6, 4, 1)),
        (nn.Dropout2d(0.4), (6, 9), (6, 9)),
        (nn.Dropout2d(0.4), (6, 4, 9), (6, 4, 1)),
        (nn.Dropout3d(0.4), (6, 4, 3, 2), (6, 1, 1, 1)),
        (nn.Dropout3d(0.4), (6, 4, 3, 2, 2), (6, 4, 1, 1, 1)),
    ],
)
def test_layers_drop_what_those_of_torch_drop(layer, shape, factors):
    module = nn.Sequential(layer)
    serve_dropout(module, 0)
    # of layers that were served before
    stream = serve_dropout(module, 0)
    for batch in range(20):
        stream.batch = batch
        assert is_of_shape(module(torch.ones(shape)), factors)
    assert not is_of_shape(module(torch.ones(shape)), (1, *factors[1:]))


# --- what calls a dropout function ----------------------------------------------------------------


class ByName(nn.Module):
    def forward(self, X):
        return dropout2d(X, 0.5, self.training)


class Renamed(nn.Module):
    def forward(self, X):
        return renamed(X, 0.5, self.training)


class Attribute(nn.Module):
    def forward(self, X):
        return F.dropout1d(X, 0.5, self.training)


class Full(nn.Module):
    def forward(self, X):
        return torch.nn.functional.dropout3d(X, 0.5, self.training)


class OfTorch(nn.Module):
    def forward(self, X):
        return torch.feature_dropout(X, 0.5, self.training)


class InLambda(nn.Module):
    def forward(self, X):
        return (lambda x: torch.dropout_(x, 0.5, self.training))(X)


class OtherMethod(nn.Module):
    def drop(self, X):
        return F.dropout2d(X, 0.5, self.training)

    def forward(self, X):
        return self.drop(X)


class Static(nn.Module):
    @staticmethod
    def drop(X, training):
        return F.dropout2d(X, 0.5, training)

    def forward(self, X):
        return self.drop(X, self.training)


class Inherited(OtherMethod):
    pass


class Imports(nn.Module):
    def forward(self, X):
        from torch.nn.functional import dropout2d as drop

        return drop(X, 0.5, self.training)


class Held(nn.Module):
    def __init__(self):
        super().__init__()
        self.drop = partial(F.dropout2d, p=0.5)

    def forward(self, X):
        return self.drop(X, training=self.training)


class HeldByClass(nn.Module):
    drop = staticmethod(F.dropout2d)

    def forward(self, X):
        return self.drop(X, training=self.training)


def make_enclosed():
    functional = F
    drop = F.dropout3d

    class Enclosed(nn.Module):
        def forward(self, X):
            return drop(X, 0.5, self.training)

    class EnclosedHome(nn.Module):
        def forward(self, X):
            return functional.dropout2d(X, 0.5, self.training)

    return Enclosed, EnclosedHome


CALLING = [
    ByName,
    Renamed,
    Attribute,
    Full,
    OfTorch,
    InLambda,
    OtherMethod,
    Static,
    Inherited,
    Imports,
    Held,
    HeldByClass,
    *make_enclosed(),
]


@pytest.mark.parametrize("module", CALLING)
def test_calls_of_the_functions_are_found(module):
    assert calls_dropout(module())
    assert calls_dropout(nn.Sequential(nn.ReLU(), nn.Sequential(module())))


class OwnMethod(nn.Module):
    """Has a method of the same name, and names arrays."""

    def dropout2d(self, X):
        return X[: len(A_GLOBAL_ARRAY)] * A_GLOBAL_ARRAY.sum() * A_GLOBAL_TENSOR.sum()

    def forward(self, X):
        return self.dropout2d(X)


class OwnLayer(nn.Module):
    def __init__(self):
        super().__init__()
        self.dropout = nn.Dropout2d()

    def forward(self, X):
        return self.dropout(X)


@pytest.mark.parametrize("module", [OwnMethod, OwnLayer, nn.Dropout2d, nn.AlphaDropout])
def test_other_modules_call_none(module):
    with warnings.catch_warnings(action="error"):
        assert not calls_dropout(module())
