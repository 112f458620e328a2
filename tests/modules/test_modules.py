import copy

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.datasets import make_classification
from sklearn.model_selection import cross_val_score
from torch import nn

from sktune import MLP, GridSearchCV, NeuralNetClassifier
from sktune.modules.activations import ACTIVATIONS, Activation
from sktune.modules.dropout import HashedDropout, MaskStream, keep_factors, limits, serve_dropout
from sktune.modules.initialization import INITIALIZATIONS
from sktune.modules.reading import find_chain

X = torch.linspace(-2, 2, 20).view(5, 4)


def linears(module):
    return [layer for layer in module.modules() if isinstance(layer, nn.Linear)]


@pytest.mark.parametrize("activation", [name for name in ACTIVATIONS if name != "threshold"])
@pytest.mark.parametrize("init", INITIALIZATIONS)
def test_mlp_is_what_its_arguments_say(activation, init):
    torch.manual_seed(0)
    module = MLP(4, 3, hidden=(16, 8), activation=activation, init=init).eval()

    x = X
    for layer in linears(module)[:-1]:
        x = ACTIVATIONS[activation].layer()(x @ layer.weight.T + layer.bias)
    last = linears(module)[-1]

    assert [tuple(layer.weight.shape) for layer in linears(module)] == [(16, 4), (8, 16), (3, 8)]
    assert torch.allclose(module(X), x @ last.weight.T + last.bias, atol=1e-6)


@pytest.mark.parametrize(
    ("init", "std"),
    [
        # gain * sqrt(2 / (fan_in + fan_out))
        ("xavier", 2**0.5 * (2 / 700) ** 0.5),
        ("he", (2 / 300) ** 0.5),
        ("normal", 0.05),
    ],
)
def test_spread_of_initial_weights(init, std):
    torch.manual_seed(0)
    layer = linears(MLP(300, 2, hidden=400, init=init))[0]

    assert float(layer.weight.detach().std()) == pytest.approx(std, rel=0.02)
    assert not layer.bias.any()


def test_orthogonal_weights():
    torch.manual_seed(0)
    weight = linears(MLP(6, 2, hidden=20, init="orthogonal", activation="tanh"))[0].weight

    # The gain of tanh is 5/3.
    assert torch.allclose(weight.T @ weight, (5 / 3) ** 2 * torch.eye(6), atol=1e-4)


def test_mlp_without_hidden_layers_is_linear():
    assert [type(layer) for layer in MLP(4, 3, hidden=()).layers] == [nn.Linear]


def test_batch_norm_precedes_the_activation():
    kinds = [type(layer) for layer in MLP(4, 3, hidden=8, batch_norm=True, dropout=0.5).layers]

    assert kinds == [nn.Linear, nn.BatchNorm1d, nn.ReLU, nn.Dropout, nn.Linear]


def test_mlp_flattens_images():
    assert MLP(12, 2)(torch.zeros(3, 1, 4, 3)).shape == (3, 2)


def test_mlp_dtype():
    assert {p.dtype for p in MLP(4, 3, batch_norm=True, dtype=torch.float64).parameters()} == {
        torch.float64
    }


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"activation": "rellu"},
            "activation must be one of .*, got 'rellu'; did you mean 'relu'?",
        ),
        ({"init": "xavjer"}, "init must be one of .*, got 'xavjer'; did you mean 'xavier'?"),
        ({"dropout": 1.0}, "dropout must be at least 0 and less than 1, got dropout=1.0"),
        ({"dropout": -0.1}, "dropout must be at least 0 and less than 1, got dropout=-0.1"),
        (
            {"hidden": (8, 0)},
            r"hidden must be a positive int or a sequence of them, got hidden=\(8, 0\)",
        ),
        ({"hidden": 2.5}, "hidden must be a positive int or a sequence of them, got hidden=2.5"),
    ],
)
def test_mlp_names_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        MLP(4, 3, **arguments)


def served(layer, seed=0):
    module = nn.Sequential(layer).train()
    return module, serve_dropout(module, seed)


@pytest.mark.parametrize("p", [0.1, 0.25, 0.5, 0.9])
def test_mask_has_the_mean_and_variance_of_dropout(p):
    module, _ = served(nn.Dropout(p))
    factors = module(torch.ones(400, 500))

    n = factors.numel()
    # The factors are 0 with probability p, else 1 / (1 - p).
    sigma = (p / (1 - p)) ** 0.5
    assert abs(float(factors.mean()) - 1) < 4 * sigma / n**0.5
    assert float(factors.std()) == pytest.approx(sigma, rel=0.02)
    assert factors.unique().tolist() == pytest.approx([0, 1 / (1 - p)])


@given(st.floats(0, 0.999))
def test_rate_is_rounded_to_16_bits(p):
    bits = torch.arange(-32768, 32768, dtype=torch.int32).to(torch.int16)

    dropped = (keep_factors(bits[None], *limits([p])) == 0).double().mean()

    assert abs(float(dropped) - p) <= 0.5 / 65536 + 1e-12


@pytest.mark.parametrize("evaluates", [True, False])
def test_no_mask_in_evaluation_or_at_rate_zero(evaluates):
    module, _ = served(nn.Dropout(0.5 if evaluates else 0.0))

    assert torch.equal(module.train(not evaluates)(X), X)


@pytest.mark.parametrize(
    ("layer", "shape"),
    [(nn.Dropout1d, (6, 5, 7)), (nn.Dropout2d, (6, 5, 7, 3)), (nn.Dropout3d, (6, 5, 7, 3, 2))],
)
def test_whole_channels_are_dropped(layer, shape):
    module, _ = served(layer(0.5))
    factors = module(torch.ones(shape)).flatten(2)  # (B, C, ...)

    assert torch.equal(factors.amin(2), factors.amax(2))
    assert factors.unique().tolist() == [0, 2]


def test_layer_used_twice_gets_two_masks():
    module, stream = served(nn.Dropout(0.5))
    ones = torch.ones(10, 10)
    first = module(ones)
    second = module(ones)
    stream.batch = 1
    other = module(ones)
    stream.batch = 0
    again = module(ones)

    assert not torch.equal(first, second)
    assert not torch.equal(first, other)
    assert torch.equal(first, again)


def test_masks_of_two_layers_differ():
    module = nn.Sequential(nn.Dropout(0.5), nn.Sequential(nn.Dropout(0.5)))
    serve_dropout(module, 0)

    assert not torch.equal(module[0](torch.ones(99)), module[1][0](torch.ones(99)))


def test_shared_layer_stays_shared():
    layer = nn.Dropout(0.5)
    module = nn.ModuleDict({"a": layer, "b": nn.Sequential(layer)})
    serve_dropout(module, 0)

    assert type(module["a"]) is HashedDropout
    assert module["a"] is module["b"][0]


def test_mask_follows_rate_and_type():
    module, _ = served(nn.Dropout(0.25))
    single = module(torch.ones(20, 30))
    double = module(torch.ones(20, 30, dtype=torch.float64))
    module[0].p = 0.9
    rare = module(torch.ones(20, 30))

    assert double.unique().tolist() == [0, 1 / 0.75]
    assert single.unique().tolist() == pytest.approx([0, 1 / 0.75])
    assert rare.unique().tolist() == pytest.approx([0, 10])


def test_smaller_batch_has_the_first_rows_of_the_mask():
    module, stream = served(nn.Dropout(0.5))
    whole = module(torch.ones(8, 5))
    stream.batch = 1
    module(torch.ones(1))
    stream.batch = 0

    assert torch.equal(module(torch.ones(3, 5)), whole[:3])


def test_serving_draws_nothing_from_the_global_generator():
    module, _ = served(nn.Dropout(0.5))
    before = torch.get_rng_state()
    module(X)

    assert torch.equal(before, torch.get_rng_state())


def test_layers_served_before_are_served_anew():
    module, _ = served(nn.Dropout2d(0.5))
    stream = serve_dropout(module, 7)

    assert module[0].stream is stream == MaskStream(7)
    assert module[0].by_channel


@pytest.mark.parametrize("layer", [nn.AlphaDropout(0.5), nn.Dropout(1.0), nn.ReLU()])
def test_other_layers_stay(layer):
    module, _ = served(copy.deepcopy(layer))

    assert type(module[0]) is type(layer)


def test_dropped_units_get_no_gradient():
    module, _ = served(nn.Dropout(0.5))
    x = torch.ones(50, requires_grad=True)
    out = module(x)
    out.sum().backward()

    assert torch.equal(x.grad, out.detach())


def test_no_bias_before_batch_normalisation():
    module = MLP(4, 3, (5, 6), batch_norm=True, init="he")

    assert [layer.bias is None for layer in linears(module)] == [True, True, False]
    assert all(layer.bias is not None for layer in linears(MLP(4, 3, (5, 6))))


@pytest.mark.parametrize(
    ("activation", "layer_class"),
    [
        ("ReLU", nn.ReLU),
        ("TANH", nn.Tanh),
        ("LeakyReLU", nn.LeakyReLU),
        ("leaky-relu", nn.LeakyReLU),
        ("logistic", nn.Sigmoid),
        ("Swish", nn.SiLU),
        ("Mish", nn.Mish),
        ("log_sigmoid", nn.LogSigmoid),
        (nn.ReLU, nn.ReLU),
        (nn.Mish, nn.Mish),
        (nn.LeakyReLU(0.2), nn.LeakyReLU),
    ],
)
@pytest.mark.parametrize("init", ["default", "xavier"])
def test_activations_by_other_names_and_by_class(activation, layer_class, init):
    layers = MLP(4, 3, hidden=(5, 5), activation=activation, init=init).layers

    hidden_layer = [nn.Linear, layer_class, nn.Dropout]
    assert [type(layer) for layer in layers] == [*hidden_layer, *hidden_layer, nn.Linear]
    assert layers[1] is not layers[4]
    if isinstance(activation, nn.Module):
        assert layers[1].negative_slope == activation.negative_slope


class Wave(nn.Module):
    def forward(self, X):
        return torch.sin(X)


def test_new_entry_of_the_table_is_trained_alone_and_fused(monkeypatch):
    entry = Activation(Wave, gain="tanh", aliases=("sine_wave",))
    monkeypatch.setitem(ACTIVATIONS, "wave", entry)
    X, y = make_classification(200, random_state=0)
    net = NeuralNetClassifier(module__activation="wave", max_epochs=5, random_state=0)

    search = GridSearchCV(net, {"module__activation": ["wave", "SineWave"]}, cv=3).fit(X, y)

    # The kernels have no opcode of this name: torch takes the steps of all fits, stacked. The two
    # names are one module, so that its fits are one training.
    assert [group["lanes"] for group in search.fusion_.groups] == [3]
    assert search.fusion_.sharing.n_shared_fits == 3
    assert not search.fusion_.groups[0]["compiled"]
    assert type(search.best_estimator_.module_.layers[1]) is Wave
    assert find_chain(search.best_estimator_.module_) is not None
    expected = cross_val_score(net, X, y, cv=3)
    for split, score in enumerate(expected):
        assert search.cv_results_[f"split{split}_test_score"] == pytest.approx([score, score])


@pytest.mark.parametrize("activation", ["identity", "Linear", nn.Identity, nn.Identity()])
def test_identity_is_no_layer(activation):
    layers = MLP(4, 3, hidden=5, activation=activation, init="xavier").layers

    assert [type(layer) for layer in layers] == [nn.Linear, nn.Dropout, nn.Linear]


def test_synonyms_begin_with_the_same_weights():
    for synonym, name in [
        ("logistic", "sigmoid"),
        ("swish", "silu"),
        (nn.Tanh, "tanh"),
        ("ELU", "elu"),
    ]:
        weights = []
        for activation in (synonym, name):
            torch.manual_seed(0)
            weights.append(MLP(4, 3, activation=activation, init="orthogonal").layers[0].weight)
        assert torch.equal(*weights)


@pytest.mark.parametrize("activation", ["rellu", None, 3, nn.functional.relu, torch.float64])
def test_unknown_activation(activation):
    with pytest.raises(ValueError, match=r"activation must be one of \['celu', .*'relu'.*\], got"):
        MLP(4, 3, activation=activation)


@pytest.mark.parametrize(
    "hidden",
    [[16, 8], np.array([16, 8]), torch.tensor([16, 8]), range(16, 0, -8), np.array([16, 8], "u1")],
)
def test_widths_of_any_iterable(hidden):
    assert [layer.out_features for layer in linears(MLP(4, 3, hidden=hidden))] == [16, 8, 3]


@pytest.mark.parametrize("hidden", [16, np.int64(16), np.array(16), [np.int32(16)]])
def test_a_single_width(hidden):
    assert [layer.out_features for layer in linears(MLP(4, 3, hidden=hidden))] == [16, 3]


@pytest.mark.parametrize(
    "hidden",
    [
        iter([16]),
        (w for w in [16]),
        {16, 8},
        {16: 8},
        "16",
        [16, "8"],
        [True],
        None,
        np.ones((2, 2), int),
        [8.0],
    ],
)
def test_widths_that_are_no_sequence_of_ints(hidden):
    with pytest.raises(
        ValueError, match="hidden must be a positive int or a sequence of them, got hidden="
    ):
        MLP(4, 3, hidden=hidden)
