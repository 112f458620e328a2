"""What is read of a module by tracing, why not, and what tracing leaves as it was."""

import threading

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations

from sktune.modules.dropout import serve_dropout
from sktune.modules.reading import find_chain, find_width, read_chain
from sktune.modules.tracing import memory
from sktune.modules.tracing.links import list_idle, open_links
from sktune.modules.tracing.memory import find_links
from sktune.runtime.generators import read_generators

seen = []


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Linear(6, 4)
        self.last = nn.Linear(4, 2)
        self.drop = nn.Dropout(0.5)
        self.register_buffer("mean", torch.zeros(6))


def made(body, **parts):
    """Return a net whose forward is a function ``body(self, X)``."""
    net = type("Own", (Net,), {"forward": body})()
    for name, part in parts.items():
        setattr(net, name, part)
    serve_dropout(net, 0)
    return net


def sequence(self, X):
    return self.last(F.relu(self.first(X)))


def counting_rows(self, X):
    layers = [self.first, self.last]
    for layer in layers[: len(layers)]:
        X = layer(X.reshape(len(X), -1))
    return X


def test_rows_are_counted_by_len():
    assert list(find_chain(made(counting_rows))) == ["first", "last"]
    assert "len" not in globals()


def test_a_number_of_a_class_may_change():
    def forward(self, X):
        X = self.first(X)
        for _ in range(self.n_times):
            X = F.relu(X)
        return self.last(X)

    net = made(forward)
    type(net).n_times = 1
    assert len(find_chain(net)) == 3
    type(net).n_times = 2
    assert len(find_chain(net)) == 4


def test_what_fails_while_rows_are_counted_leaves_len():
    def forward(self, X):
        return self.last(self.first(X))[: len(X) // 2]

    assert find_chain(made(forward)) is None
    assert "len" not in globals()


def test_layers_are_read_in_their_order():
    def forward(self, X, scale=None, **kwargs):
        X = self.first(X.view(-1, X.shape[1]))
        X = self.drop(self.drop(F.leaky_relu(X, negative_slope=0.3)))
        return F.softmax(self.last(X), dim=1)

    net = made(forward)
    layers = find_chain(net)

    kinds = [type(layer).__name__ for layer in layers.values()]
    dropouts = ["HashedDropout", "HashedDropout"]
    assert kinds == ["Linear", "LeakyReLU", *dropouts, "Linear", "Softmax"]
    assert list(layers.values())[1].negative_slope == 0.3
    assert layers["first"] is net.first
    assert find_width(net) == 4


def residual(self, X):
    return self.last(self.first(X) + self.first(X))


def on_data(self, X):
    X = self.first(X)
    return self.last(X if X.mean() > 0 else -X)


def of_buffer(self, X):
    return self.last(self.first(X - self.mean))


def drop_half(X, training):
    return F.dropout(X, 0.5, training)


def functional_dropout(self, X):
    return self.last(drop_half(self.first(X), self.training))


def lasting_dropout(self, X):
    return self.last(F.dropout(self.first(X)))


def drawn(self, X):
    return self.last(self.first(X + torch.rand(6)))


def keeping(self, X):
    seen.append(X)
    return self.last(self.first(X))


def counting(self, X):
    self.n_calls = 1
    return self.last(self.first(X))


def softmax_inside(self, X):
    return self.last(self.first(X).softmax(-1))


def softmax_of_rows(self, X):
    return self.last(self.first(X)).softmax(0)


def twice(self, X):
    return self.last(self.hidden(self.hidden(self.first(X))))


def with_hidden(self, X):
    return self.last(self.hidden(self.first(X)))


def pair(self, X):
    return self.last(self.first(X)), X


def to_half(self, X):
    return self.last(self.first(X.to(torch.float16).float()))


def reshaped(self, X):
    return self.last(self.first(X.view(2, -1, 3).flatten(1)))


def rows_apart(self, X):
    return self.last(self.first(X).view(-1, 2).view(-1, 4)).view(-1, 1)


def ignored(self, X):
    X = self.first(X)
    X.tanh()
    return self.last(X)


def written(self, X):
    X = self.first(X)
    X.relu_()
    return self.last(X)


def without_gradient(self, X):
    with torch.no_grad():
        X = self.first(X)
    return self.last(X)


def of_new_weights(self, X):
    return self.last(nn.Linear(4, 4)(self.first(X)))


def of_new_dropout(self, X):
    return self.last(nn.Dropout(0.5)(self.first(X)))


class Added(nn.Module):
    def forward(self, X):
        return X + 1


def of_new_part(self, X):
    return self.last(Added()(self.first(X)))


def failing(self, X):
    raise KeyError("no such thing")


REASONS = {
    residual: "computes first of values that are not those just before",
    on_data: r"has control flow on its data, in test_tracing.py, line \d+: return self.last",
    of_buffer: "computes with mean outside of a layer",
    functional_dropout: "calls a dropout function outside of its methods.*: use nn.Dropout",
    lasting_dropout: "drops units in evaluation, too",
    drawn: "draws random numbers in a way of its own, by rand",
    keeping: "its forward calls append",
    counting: "sets an attribute, n_calls",
    softmax_inside: "computes more after a softmax",
    softmax_of_rows: "softmax over other dimensions than the columns",
    pair: "returns something else than one tensor",
    to_half: "casts its input to another type",
    reshaped: "views its input in another shape",
    rows_apart: "something else than its layers tell",
    ignored: "does not use what tanh returns",
    written: "does not use what relu_ returns",
    without_gradient: "cannot be read|something else than its layers tell",
    of_new_weights: r"calls Linear, which is no part of the module, in test_tracing.py, line \d+",
    of_new_dropout: "calls Dropout, which is no part of the module",
    of_new_part: "calls Added, which is no part of the module",
    failing: "cannot be traced, in test_tracing.py, line .*KeyError: 'no such thing'",
}


@pytest.mark.parametrize("forward", REASONS)
def test_reasons(forward):
    net = made(forward)

    assert find_chain(net) is None
    with pytest.raises(AssertionError, match=REASONS[forward]):
        raise AssertionError(read_chain(net))


def of_new_layers(self, X):
    return nn.Softmax(dim=1)(self.last(nn.ReLU()(self.first(nn.Flatten()(X)))))


def test_layers_that_a_forward_makes_are_functions():
    layers = find_chain(made(of_new_layers))

    assert [type(layer) for layer in layers.values()] == [
        nn.Linear,
        nn.ReLU,
        nn.Linear,
        nn.Softmax,
    ]


LAYERS = {
    "used twice": (twice, nn.Linear(4, 4)),
    "hidden is a BatchNorm1d": (with_hidden, nn.BatchNorm1d(4)),
    "drops whole channels": (with_hidden, nn.Dropout1d(0.5)),
    "a method that was replaced, watches it": (
        with_hidden,
        parametrizations.weight_norm(nn.Linear(4, 4)),
    ),
    "hidden.weight is frozen": (with_hidden, nn.Linear(4, 4).requires_grad_(False)),
}


@pytest.mark.parametrize("reason", LAYERS)
def test_reasons_of_layers(reason):
    forward, hidden = LAYERS[reason]

    with pytest.raises(AssertionError, match=reason):
        raise AssertionError(read_chain(made(forward, hidden=hidden)))


def test_layers_that_nothing_calls_are_no_part_of_a_chain():
    net = made(sequence, hidden=nn.Linear(4, 4), scale=nn.Parameter(torch.ones(2)))

    assert len(find_chain(net)) == 3
    links = open_links(net, find_links(net))
    assert list_idle(net, links) == ["scale", "hidden.weight", "hidden.bias"]


def test_a_weight_that_has_its_first_name_elsewhere_is_tied():
    net = made(sequence, hidden=nn.Linear(6, 4, bias=False))
    net.first.weight = net.hidden.weight
    first = net.first
    del net.first
    net.first = first

    assert "its layer first has tied weights" in read_chain(net)


def test_tied_weights_are_no_chain():
    net = made(with_hidden, hidden=nn.Linear(4, 4))
    net.other = nn.Linear(4, 4)
    net.other.weight = net.hidden.weight
    type(net).forward = lambda self, X: self.last(self.other(self.hidden(self.first(X))))

    assert "tied weights" in read_chain(net)


def test_a_hook_is_no_part_of_a_chain():
    net = made(sequence)
    assert find_chain(net) is not None

    handle = net.first.register_forward_hook(lambda *args: None)
    assert "a hook" in read_chain(net)
    handle.remove()
    assert find_chain(net) is not None


def test_nothing_is_changed():
    net = made(sequence).train()
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    generators = read_generators()

    memory.read_links(net)

    assert net.training
    assert all(p.grad is None for p in net.parameters())
    assert all(torch.equal(net.state_dict()[name], tensor) for name, tensor in before.items())
    now = read_generators()
    assert torch.equal(generators[1], now[1])
    np.testing.assert_equal(generators[0], now[0])


def test_modules_that_are_alike_are_read_once(monkeypatch):
    calls = []
    plain = memory.read_links
    monkeypatch.setattr(
        memory, "read_links", lambda *args, **options: calls.append(1) or plain(*args, **options)
    )
    first = made(sequence)
    second = type(first)()
    serve_dropout(second, 1)

    layers = find_chain(first), find_chain(second), find_chain(first)

    assert len(calls) == 1
    assert layers[1]["first"] is second.first
    second.option = 3
    find_chain(second)
    assert len(calls) == 2


def test_the_memory_does_not_grow_without_end(monkeypatch):
    monkeypatch.setattr(memory, "_MOST_KEPT", 3)

    for _ in range(5):
        find_chain(made(sequence))

    assert len(memory._kept) == 3


def test_other_threads_may_call_modules_meanwhile():
    """torch.fx replaces methods of all modules while it traces one."""
    is_tracing = threading.Event()
    has_called = threading.Event()
    found = []
    other = nn.Sequential(nn.Linear(3, 2), nn.ReLU())

    def waiting(self, X):
        is_tracing.set()
        has_called.wait(10)
        return self.last(self.first(X))

    def call():
        is_tracing.wait(10)
        found.append(other(torch.ones(4, 3)))
        has_called.set()

    thread = threading.Thread(target=call)
    thread.start()
    layers = read_chain(made(waiting))
    thread.join()

    assert found[0].shape == (4, 2)
    assert list(layers) == ["first", "last"]
