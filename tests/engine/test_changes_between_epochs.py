"""What a callback changes between epochs counts in compiled steps as it does in torch's."""

import importlib.util
import pickle
from contextlib import contextmanager
from copy import deepcopy

import pytest
import torch
from sklearn.base import clone
from sklearn.datasets import make_classification
from skorch.callbacks import Callback
from test_compiled import assert_same
from torch import nn
from torch.nn.modules.module import register_module_forward_hook
from torch.optim.optimizer import register_optimizer_step_pre_hook

from sktune import MLP, NeuralNetClassifier
from sktune.engine.compiled import program
from sktune.engine.compiled.reading.keeping import Kept

X, y = make_classification(90, n_features=6, n_informative=4, n_classes=3, random_state=0)
pytestmark = [
    pytest.mark.skipif(importlib.util.find_spec("numba") is None, reason="there is no Numba"),
    pytest.mark.usefixtures("in_float64"),
]


class Written(nn.Module):
    """A module of the user's own class, which is traced."""

    def __init__(self, n_features, n_outputs):
        super().__init__()
        self.first = nn.Linear(n_features, 8)
        self.norm = nn.LayerNorm(8)
        self.second = nn.Linear(8, 8)
        self.batch_norm = nn.BatchNorm1d(8)
        self.activation = nn.LeakyReLU(0.2)
        self.dropout = nn.Dropout(0.2)
        self.last = nn.Linear(8, n_outputs)
        self.factor = 0.5
        self.factors = [2.0, {"one": 1.0}]

    def forward(self, X):
        hidden = self.activation(self.norm(self.first(X)))
        hidden = self.batch_norm(torch.tanh(self.second(hidden)))
        hidden = self.dropout(hidden) * self.factors[0]
        return self.last(self.join(hidden)) * self.factors[1]["one"]

    def join(self, hidden):
        return hidden + hidden * self.factor

    def join_by_halves(self, hidden):
        return hidden * 0.5 - hidden * self.factor

    def other_forward(self, X):
        return self.last(torch.tanh(self.second(self.first(X))))


class Change(Callback):
    """Calls ``change(net)`` before the third epoch."""

    def __init__(self, change):
        self.change = change

    def on_epoch_begin(self, net, **kwargs):
        if len(net.history) == 3:
            self.change(net)


def halve(*args):
    return args[-1] * 0.5


def shrink_gradients(optimizer):
    for group in optimizer.param_groups:
        for p in group["params"]:
            p.grad.mul_(0.1)


def get(net, name):
    """Return a layer of an MLP or of a module of the user's class."""
    if isinstance(net.module_, MLP):
        position = {"first": 0, "activation": 1, "dropout": 2, "second": 3, "last": -1}[name]
        return net.module_.layers[position]
    return getattr(net.module_, name)


def put(net, name, layer):
    if isinstance(net.module_, MLP):
        position = {"activation": 1, "second": 3, "last": len(net.module_.layers) - 1}[name]
        net.module_.layers[position] = layer
    else:
        setattr(net.module_, name, layer)


def renew_optimizer(net, kind=torch.optim.Adam, **options):
    net.optimizer_ = kind(net.module_.parameters(), lr=0.02, **options)
    for group in net.optimizer_.param_groups:
        group["initial_lr"] = group["lr"]


def replace_layer(net):
    put(net, "second", nn.Linear(8, 8))
    with torch.no_grad():
        for p in get(net, "second").parameters():
            p.fill_(0.1)
    renew_optimizer(net)


def replace_layer_alone(net):
    """The optimizer keeps the parameters of the old one."""
    layer = nn.Linear(8, 8)
    with torch.no_grad():
        layer.weight.fill_(0.1)
        layer.bias.fill_(0.1)
    put(net, "second", layer)


def share_layer(net):
    put(net, "second", get(net, "second"))
    get(net, "second").weight = get(net, "first").weight = nn.Parameter(torch.eye(8)[:, :6] * 0.3)
    get(net, "second").in_features = 6


def tie(net):
    other = nn.Linear(8, 8)
    other.weight = get(net, "second").weight
    other.bias = get(net, "last").bias
    net.module_.other = other


def split_memory(net):
    """Two parameters lie in one memory."""
    both = torch.cat([p.detach().reshape(-1) for p in get(net, "second").parameters()])
    get(net, "second").weight.data = both[:64].view(8, 8)
    get(net, "second").bias.data = both[64:]


def overlap(net):
    weight = get(net, "second").weight
    get(net, "second").bias.data = weight.data[0]


def transpose(net):
    weight = get(net, "second").weight
    weight.data = weight.data.t().contiguous().t()
    # torch's fused steps would take moments of another layout for those of other weights
    renew_optimizer(net)


def turn_in_place(net):
    weight = get(net, "second").weight
    weight.data = weight.data.t()
    renew_optimizer(net)


def cut(net):
    """torch complains of it."""
    weight = get(net, "second").weight
    weight.data = weight.data[:, :5]


def turn(net):
    weight = get(net, "second").weight
    weight.data = weight.data.t().contiguous()


def watch_parameter(net):
    get(net, "second").weight.register_hook(halve)


def clear_after(net):
    get(net, "second").weight.register_post_accumulate_grad_hook(lambda p: p.grad.mul_(0.5))


def load_state(net):
    state = net.module_.state_dict()
    net.module_.load_state_dict({name: tensor * 0.5 for name, tensor in state.items()})


def set_option(name, value):
    def change(net):
        net.optimizer_.param_groups[0][name] = value

    return change


def set_amsgrad(net):
    net.optimizer_.param_groups[0]["amsgrad"] = True
    for p, state in net.optimizer_.state.items():
        state["max_exp_avg_sq"] = torch.full_like(p, 0.5)


def split_groups(net):
    (group,) = net.optimizer_.param_groups
    *others, last = group["params"]
    group["params"] = others
    net.optimizer_.param_groups.append({**group, "params": [last], "weight_decay": 0.5})


def drop_parameter(net):
    net.optimizer_.state.pop(net.optimizer_.param_groups[0]["params"].pop())


def set_of(name, attribute, value):
    def change(net):
        setattr(get(net, name), attribute, value)

    return change


def replace_buffer(net):
    net.module_.batch_norm.running_mean = torch.full((8,), 3.0)


def replace_buffer_by_float32(net):
    net.module_.batch_norm.running_var = torch.full((8,), 3.0, dtype=torch.float32)


def mutate_list(net):
    net.module_.factors[0] = 0.25


def mutate_nested(net):
    net.module_.factors[1]["one"] = 0.25


def keep_view(net):
    """A tensor that looks at the memory of a parameter must see it change."""
    net.module_.seen = get(net, "second").weight.detach()


def replace_forward(net):
    module = net.module_
    module.forward = lambda X: type(module).forward(module, X) * 0.5


def replace_method_of_part(net):
    layer = get(net, "activation")
    layer.forward = halve


def replace_criterion(net):
    net.criterion_ = nn.CrossEntropyLoss(label_smoothing=0.5)


def replace_criterion_by_another(net):
    net.criterion_ = nn.MultiMarginLoss()


def set_threads(net):
    torch.set_num_threads(2)


def call_others(net):
    get(net, "activation").register_forward_hook(halve)


# Changes to an MLP and to a module of the user's class.
CHANGES = {
    "replaced activation": lambda net: put(net, "activation", nn.Tanh()),
    "replaced layer": replace_layer,
    "replaced layer, old parameters": replace_layer_alone,
    "one parameter in two layers": share_layer,
    "tied": tie,
    "one memory": split_memory,
    "overlapping memory": overlap,
    "transposed memory": transpose,
    "other memory": turn,
    "turned in its memory": turn_in_place,
    "less of a memory": cut,
    "view of a parameter": keep_view,
    "forward hook": call_others,
    "forward pre-hook": lambda net: get(net, "activation").register_forward_pre_hook(
        lambda module, args: (args[0] * 0.5,)
    ),
    "backward hook": lambda net: get(net, "second").register_full_backward_hook(
        lambda module, below, above: (below[0] * 0.5,)
    ),
    "hook of a parameter": watch_parameter,
    "hook after the gradient": clear_after,
    "hook of the criterion": lambda net: net.criterion_.register_forward_hook(halve),
    "hook of the optimizer": lambda net: net.optimizer_.register_step_pre_hook(
        lambda *args: shrink_gradients(args[0])
    ),
    "frozen": lambda net: get(net, "second").weight.requires_grad_(False),
    "dropout": set_of("dropout", "p", 0.6),
    "dropout to 0": set_of("dropout", "p", 0.0),
    "weight decay": set_option("weight_decay", 0.5),
    "betas": set_option("betas", (0.5, 0.6)),
    "maximize": set_option("maximize", True),
    "amsgrad": set_amsgrad,
    "capturable": set_option("capturable", True),
    "two groups": split_groups,
    "a parameter less": drop_parameter,
    "another optimizer": lambda net: renew_optimizer(net, torch.optim.SGD, momentum=0.9),
    "an optimizer of no entry": lambda net: renew_optimizer(net, torch.optim.Rprop),
    "cast": lambda net: net.module_.float(),
    "cast part": lambda net: get(net, "second").float(),
    "loaded state": load_state,
    "label smoothing": lambda net: setattr(net.criterion_, "label_smoothing", 0.4),
    "reduction": lambda net: setattr(net.criterion_, "reduction", "sum"),
    "ignored class": lambda net: setattr(net.criterion_, "ignore_index", 1),
    "weights of classes": lambda net: setattr(
        net.criterion_, "weight", torch.tensor([1.0, 2.0, 5.0])
    ),
    "another criterion": replace_criterion,
    "a criterion of no entry": replace_criterion_by_another,
    "threads": set_threads,
    "evaluation of a part": lambda net: get(net, "dropout").eval(),
    "evaluation of all": lambda net: net.module_.eval(),
    "forward": replace_forward,
    "forward of a part": replace_method_of_part,
    "no bias": set_of("second", "bias", None),
}
# Changes to an MLP alone.
OF_MLP = {
    "a layer more": lambda net: net.module_.layers.append(nn.Tanh()),
    "a layer less": lambda net: net.module_.layers.__delitem__(1),
    "a class of a layer": lambda net: setattr(get(net, "activation"), "__class__", nn.SiLU),
    "a layer of no entry": lambda net: put(net, "activation", nn.Hardsigmoid()),
    "a layer in place": lambda net: put(net, "activation", nn.ReLU(inplace=True)),
    "a layer moved": lambda net: net.module_.layers.insert(0, nn.Tanh()),
    "another chain": lambda net: setattr(
        net.module_, "layers", nn.Sequential(*net.module_.layers, nn.Tanh())
    ),
}
# Changes to a module of the user's class alone.
OF_WRITTEN = {
    "a setting": lambda net: setattr(net.module_, "factor", -0.5),
    "a setting of no number": lambda net: setattr(net.module_, "factor", torch.tensor(-0.5)),
    "a list": mutate_list,
    "a dict in a list": mutate_nested,
    "slope": set_of("activation", "negative_slope", 0.9),
    "eps": set_of("norm", "eps", 0.5),
    "momentum": set_of("batch_norm", "momentum", 0.7),
    "no running statistics": set_of("batch_norm", "track_running_stats", False),
    "another buffer": replace_buffer,
    "a buffer of another type": replace_buffer_by_float32,
    "a buffer of zeros": lambda net: net.module_.batch_norm.running_mean.zero_(),
    "another class": lambda net: setattr(net.module_, "__class__", Doubled),
}


class Doubled(Written):
    def forward(self, X):
        return super().forward(X) * 2


def make_net(kind, change):
    options = {"module": Written}
    if kind == "MLP":
        options = {"module__hidden": (8, 8), "module__dropout": 0.2}
    return NeuralNetClassifier(
        **options,
        batch_size=16,
        max_epochs=5,
        lr=0.01,
        random_state=0,
        callbacks=[("change", Change(change))],
    )


def fit(net):
    """Return a fitted net, or the class of the error."""
    net = clone(net)
    n_threads = torch.get_num_threads()
    try:
        return net.fit(X, y)
    except Exception as error:
        return type(error)
    finally:
        torch.set_num_threads(n_threads)


def assert_counts(net, monkeypatch):
    """Assert that compiled steps train a net as torch's do, and take the epochs before a change."""
    calls = []
    bind = program.Program.bind
    monkeypatch.setattr(
        program.Program, "bind", lambda self, *args: calls.append(1) or bind(self, *args)
    )
    ours = fit(net)
    n_calls = len(calls)
    monkeypatch.setattr(program, "enabled", False)
    torchs = fit(net)
    assert n_calls >= 2
    if isinstance(torchs, type):
        assert ours == torchs
    else:
        assert_same(ours, torchs)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("kind", "change"),
    [
        pytest.param(kind, change, id=f"{kind}, {name}")
        for kind, changes in [
            ("MLP", {**CHANGES, **OF_MLP}),
            ("Written", {**CHANGES, **OF_WRITTEN}),
        ]
        for name, change in changes.items()
    ],
)
def test_changes_of_a_net_count(kind, change, monkeypatch):
    assert_counts(make_net(kind, change), monkeypatch)


@contextmanager
def global_hook(register, hook):
    handles = []
    yield lambda net: handles.append(register(hook))
    for handle in handles:
        handle.remove()


@pytest.mark.parametrize("kind", ["MLP", "Written"])
@pytest.mark.parametrize(
    ("register", "hook"),
    [
        (register_module_forward_hook, lambda module, args, out: out * 0.9),
        (register_optimizer_step_pre_hook, lambda *args: shrink_gradients(args[0])),
    ],
)
def test_hooks_of_everything_count(kind, register, hook, monkeypatch):
    for is_enabled in (True, False):
        with global_hook(register, hook) as change:
            monkeypatch.setattr(program, "enabled", is_enabled)
            net = fit(make_net(kind, change))
        if is_enabled:
            ours = net
    assert_same(ours, net)


@pytest.mark.parametrize(
    ("kind", "cls", "name", "method"),
    [
        ("MLP", nn.ReLU, "forward", lambda self, X: torch.tanh(X)),
        ("MLP", MLP, "forward", lambda self, X: self.layers(X) * 0.5),
        ("Written", nn.LeakyReLU, "forward", lambda self, X: torch.tanh(X)),
        ("Written", Written, "forward", Written.other_forward),
        ("Written", Written, "join", Written.join_by_halves),
    ],
)
def test_a_method_that_is_replaced_in_a_class_counts(kind, cls, name, method, monkeypatch):
    nets = []
    for is_enabled in (True, False):
        with monkeypatch.context() as patch:
            patch.setattr(program, "enabled", is_enabled)
            nets.append(fit(make_net(kind, lambda net: patch.setattr(cls, name, method))))
    assert_same(*nets)


def test_a_module_is_read_once_until_it_changes():
    kept = Kept()
    module = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
    rows = torch.zeros(4, 6)

    graph = kept.read(module, rows)
    assert kept.read(module, rows) is graph
    # training changes values only
    with torch.no_grad():
        module[0].weight.add_(1.0)
    assert kept.read(module, rows) is graph

    assert isinstance(kept.read(module, rows[:, :5]), str)
    other = nn.Sequential(*module)
    assert kept.read(other, rows) is not graph


def test_epochs_of_a_fit_share_a_program(monkeypatch):
    programs = []
    bind = program.Program.bind
    monkeypatch.setattr(
        program.Program, "bind", lambda self, *args: programs.append(self) or bind(self, *args)
    )
    net = make_net("Written", lambda net: None).fit(X, y)

    assert len(programs) == len(net.history) == 5
    assert len(set(map(id, programs))) == 1
    assert "_kept" not in vars(net)


def remember(net):
    """A picklable change that changes nothing."""
    net.copies = [pickle.dumps(net), deepcopy(net)]


def test_a_net_is_copied_between_epochs():
    net = make_net("MLP", remember).fit(X, y)

    for copy in (pickle.loads(net.copies[0]), net.copies[1]):
        assert len(copy.history) == 3
        assert len(copy.set_params(callbacks=None).partial_fit(X, y).history) == 8
