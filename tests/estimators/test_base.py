import numpy as np
import pandas as pd
import polars as pl
import pytest
import sklearn
import skorch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from packaging.version import parse as parse_version
from scipy import sparse
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, KFold, cross_validate
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from skorch.dataset import Dataset
from skorch.helper import predefined_split
from torch import nn

import sktune
from sktune import DivergenceError, NeuralNetClassifier, NeuralNetRegressor

rng = np.random.RandomState(0)
X = rng.randn(120, 3)
y = (X[:, 0] > 0).astype(int)
KINDS = [NeuralNetClassifier, NeuralNetRegressor]


def make_net(kind=NeuralNetClassifier, **params):
    hidden = {} if "module" in params else {"module__hidden": (4,)}
    return kind(**{"max_epochs": 3, "lr": 0.01, "random_state": 0, **hidden, **params})


def weights_of(net):
    return torch.cat([p.detach().flatten() for p in net.module_.parameters()])


@pytest.mark.parametrize(
    ("kind", "base"),
    zip(KINDS, [skorch.NeuralNetClassifier, skorch.NeuralNetRegressor], strict=True),
)
def test_is_a_net_of_skorch(kind, base):
    assert isinstance(kind(), base)


@pytest.mark.parametrize("kind", KINDS)
def test_constructor_only_assigns(kind):
    callbacks, hidden = [], [3]
    net = kind(callbacks=callbacks, module__hidden=hidden, lr="nonsense")

    assert net.callbacks is callbacks
    assert net.module__hidden is hidden
    assert net.lr == "nonsense"
    assert set(vars(net)) == set(net.get_params(deep=False))


def test_clone_has_the_parameters_only():
    net = make_net(module__dropout=0.2, optimizer__weight_decay=0.1).fit(X, y)
    copy = clone(net)

    assert copy.get_params(deep=False) == net.get_params(deep=False)
    assert not copy.initialized_
    assert not hasattr(copy, "classes_")


@pytest.mark.parametrize("kind", KINDS)
def test_repr_shows_what_was_given(kind):
    shown = repr(kind(lr=0.5, module__dropout=0.1))

    assert shown == f"{kind.__name__}(lr=0.5, module__dropout=0.1)"


# --- tables ---------------------------------------------------------------------------------------

INTEGERS = np.round(X * 3)
DTYPES = ["f2", "f4", "f8", "longdouble", "i1", "i2", "i4", "i8", ">f4", ">f8", ">i4"]
DTYPES_OF_COUNTS = ["u1", "u2", "u4", "u8", "?"]
LAYOUTS = {
    "Fortran": np.asfortranarray,
    "reversed": lambda a: a[::-1][::-1],
    "strided": lambda a: np.repeat(a, 2, axis=1)[:, ::2],
    "list": np.ndarray.tolist,
    "tuples": lambda a: tuple(map(tuple, a.tolist())),
    "objects": lambda a: a.astype(object),
    "pandas": pd.DataFrame,
    "pandas, nullable": lambda a: pd.DataFrame(a).convert_dtypes(),
    "pandas, mixed": lambda a: pd.DataFrame(a).astype({0: "float32", 1: "int64"}),
    "polars": pl.DataFrame,
    "tensor": torch.from_numpy,
    "tensor with gradient": lambda a: torch.from_numpy(a.copy()).requires_grad_(),
    "float32 tensor": lambda a: torch.from_numpy(a).float(),
    **{
        f"{name} {kind}": getattr(sparse, f"{name}_{kind}")
        for name in ("csr", "csc", "coo", "lil", "dok", "bsr", "dia")
        for kind in ("matrix", "array")
    },
}


def assert_fits_alike(table, plain):
    """Check that a table gives what the same numbers in a plain array give.

    For sparse tables this holds up to the rounding of sums.
    """
    net, expected = make_net().fit(table, y), make_net().fit(plain, y)
    tolerance = 1e-5 if sparse.issparse(table) else 0.0

    torch.testing.assert_close(
        weights_of(net), weights_of(expected), rtol=tolerance, atol=tolerance
    )
    np.testing.assert_allclose(
        net.predict_proba(table), expected.predict_proba(plain), atol=tolerance
    )
    assert net.score(table, y) == expected.score(plain, y)


@pytest.mark.parametrize("dtype", DTYPES)
def test_dtypes(dtype):
    assert_fits_alike(INTEGERS.astype(dtype), INTEGERS)


@pytest.mark.parametrize("dtype", DTYPES_OF_COUNTS)
def test_dtypes_of_counts(dtype):
    counts = abs(INTEGERS).astype(dtype)

    assert_fits_alike(counts, counts.astype(float))


@pytest.mark.filterwarnings("ignore:X does not have valid feature names")
@pytest.mark.filterwarnings("ignore:X has feature names")
@pytest.mark.filterwarnings("ignore:Constructing a DIA matrix")
@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_layouts(layout):
    assert_fits_alike(layout(INTEGERS), INTEGERS)


def test_read_only_table_and_labels():
    table, labels = X.copy(), y.copy()
    table.flags.writeable = labels.flags.writeable = False

    assert np.array_equal(
        make_net().fit(table, labels).predict(table), make_net().fit(X, y).predict(X)
    )


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_module_that_writes_into_its_input_leaves_the_table_alone(dtype):
    table = X.astype(dtype)
    before = table.copy()
    net = make_net(module=nn.Sequential(nn.ReLU(inplace=True), nn.Linear(3, 2)), shuffle=False).fit(
        table, y
    )
    net.predict(table)

    assert np.array_equal(table, before)


@pytest.mark.parametrize("frame", [pd.DataFrame, pl.DataFrame])
def test_names_of_features(frame):
    net = make_net().fit(frame(dict(zip("abc", X.T, strict=True))), y)

    assert net.feature_names_in_.tolist() == ["a", "b", "c"]
    assert net.n_features_in_ == 3


class Convolution(nn.Module):
    def __init__(self, n_outputs):
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(2, 3, 2), nn.Flatten(), nn.LazyLinear(n_outputs))
        self.layers(torch.zeros(1, 2, 3, 3))

    def forward(self, X):
        return self.layers(X)


@pytest.mark.parametrize("make", [np.asarray, np.ndarray.tolist, torch.from_numpy])
@pytest.mark.parametrize("params", [{"module": Convolution}, {}], ids=["convolution", "MLP"])
def test_images(make, params):
    images = rng.randn(60, 2, 3, 3)
    net = make_net(**params, max_epochs=20).fit(make(images), images[:, 0, 0, 0] > 0)

    assert net.predict(make(images)).shape == (60,)
    assert net.n_features_in_ == 2


class Bag(nn.Module):
    def __init__(self, n_outputs):
        super().__init__()
        self.bag = nn.EmbeddingBag(5000, n_outputs)

    def forward(self, X):
        assert X.dtype == torch.int64
        return self.bag(X)


@pytest.mark.parametrize("dtype", [np.int64, np.int32, np.uint8])
def test_integers_of_an_embedding_stay_integers_without_a_word_about_scale(dtype):
    ids = np.c_[rng.randint(250, size=120), y, y].astype(dtype)
    if dtype is not np.uint8:
        ids[:, 0] *= 19

    assert make_net(module=Bag, max_epochs=30, lr=0.5).fit(ids, y).score(ids, y) > 0.95


class Sizes(nn.Module):
    def __init__(self, n_features=1, n_outputs=1, dtype=torch.float16, **more):
        super().__init__()
        assert dtype is torch.float16
        self.layer = nn.Linear(n_features, n_outputs)

    def forward(self, X):
        return self.layer(X)


def test_module_is_told_the_sizes():
    images = rng.randn(30, 2, 2)
    net = make_net(module=Sizes).fit(images.reshape(30, 4), np.arange(30) % 3)
    assert net.module_.layer.weight.shape == (3, 4)

    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        make_net(module=Sizes, module__n_features=7).fit(X, y)


def test_function_as_module():
    def build(n_features, n_outputs, width=6):
        return nn.Sequential(nn.Linear(n_features, width), nn.ReLU(), nn.Linear(width, n_outputs))

    net = make_net(module=build, module__width=5).fit(X, y)

    assert [tuple(p.shape) for p in net.module_.parameters()] == [(5, 3), (5,), (2, 5), (2,)]


# --- skorch's own kinds of input ------------------------------------------------------------------


class Both(nn.Module):
    def __init__(self, n_outputs=2):
        super().__init__()
        self.layer = nn.Linear(4, n_outputs)

    def forward(self, a, b):
        return self.layer(torch.cat([a, b], dim=1))


PARTS = {"a": X.astype(np.float32), "b": X[:, :1].astype(np.float32)}


@pytest.mark.parametrize("labels", [y, np.where(y, "yes", "no")])
def test_dict_of_arrays(labels):
    net = make_net(module=Both, max_epochs=20, lr=0.1).fit(PARTS, labels)

    assert net.score(PARTS, labels) > 0.9
    assert set(net.predict(PARTS)) == set(labels)
    assert net.history[0, "batches", 0, "train_batch_size"] == 64


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_dict_of_arrays_for_a_regressor(dtype):
    net = make_net(NeuralNetRegressor, module=Both, max_epochs=30, lr=0.1).fit(
        PARTS, X[:, 0].astype(dtype)
    )

    assert net.predict(PARTS).shape == (120,)
    assert net.score(PARTS, X[:, 0]) > 0.9


@pytest.mark.parametrize(("first", "n_outputs"), [(0, 2), (1, 3), (1, 7)])
def test_dataset_of_class_numbers_keeps_to_them(first, n_outputs):
    data = Dataset(X.astype(np.float32), y + first)
    module = nn.Sequential(nn.Linear(3, n_outputs))
    net = make_net(module=module, max_epochs=20, lr=0.1).fit(data, None)

    assert (net.predict(data) == y + first).mean() > 0.9
    assert net.predict_proba(data).shape == (120, n_outputs)
    assert net.predict(X.astype(np.float32)).tolist() == net.predict(data).tolist()


def test_dataset_tells_the_number_of_classes():
    net = make_net(module=Sizes, module__n_features=3).fit(
        Dataset(X.astype(np.float32), y + 1), None
    )

    assert net.module_.layer.out_features == 3


def test_dataset_of_several_targets_counts_its_rows():
    class Pairs(torch.utils.data.Dataset):
        def __len__(self):
            return 120

        def __getitem__(self, i):
            return X[i].astype(np.float32), (
                X[i, :1].astype(np.float32),
                X[i, 1:].astype(np.float32),
            )

    class Net(NeuralNetRegressor):
        def get_loss(self, y_pred, y_true, X=None, training=False):
            return sum((y_pred[:, :1] - part).square().mean() for part in y_true)

    net = make_net(Net, module=nn.Sequential(nn.Linear(3, 1))).fit(Pairs(), None)

    assert net.history[0, "batches", :, "train_batch_size"] == [64, 56]


def test_table_after_a_dataset_and_back():
    data = Dataset(PARTS["b"], X[:, :2].astype(np.float32))
    net = make_net(NeuralNetRegressor, module=Sizes, module__n_outputs=2, module__n_features=1)
    net.fit(data, None)
    assert net.predict(data).shape == (120, 2)
    net.set_params(module__n_features=3, module__n_outputs=1).fit(X, X[:, 0])
    assert net.predict(X).shape == (120,)
    net.set_params(module__n_features=1, module__n_outputs=2).fit(data, None)
    assert net.predict(data).shape == (120, 2)
    assert not hasattr(net, "n_features_in_")


@pytest.mark.parametrize("data", [PARTS, Dataset(X.astype(np.float32), y)], ids=["dict", "Dataset"])
def test_weights_need_an_array(data):
    labels = y if data is PARTS else None

    with pytest.raises(ValueError, match="sample_weight must come with an array as X"):
        make_net(module=Both).fit(data, labels, sample_weight=np.ones(120))
    with pytest.raises(ValueError, match="class_weight must come with an array as X"):
        make_net(module=Both, class_weight="balanced").fit(data, labels)


def test_fit_params_reach_the_module():
    class Scaled(Sizes):
        def forward(self, X, scale=1.0):
            return super().forward(X) * scale

    net = make_net(module=Scaled).fit(X, y, scale=0.0)

    assert net.history[-1, "train_loss"] == pytest.approx(np.log(2))


# --- weights of rows ------------------------------------------------------------------------------


@given(st.integers(0, 1000))
@settings(max_examples=5, deadline=None)
@pytest.mark.parametrize("kind", KINDS)
def test_weight_of_zero_is_an_absent_row(kind, seed):
    weights = np.random.RandomState(seed).randint(3, size=120).astype(float)
    kept = weights > 0

    weighted = make_net(kind).fit(X, y, sample_weight=weights)
    absent = make_net(kind).fit(X[kept], y[kept], sample_weight=weights[kept])

    assert torch.equal(weights_of(weighted), weights_of(absent))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("factor", [0.5, 1.0, 64.0])
def test_only_ratios_of_weights_matter(kind, factor):
    plain = make_net(kind).fit(X, y)
    weighted = make_net(kind).fit(X, y, sample_weight=np.full(120, factor))

    torch.testing.assert_close(weights_of(weighted), weights_of(plain))


@pytest.mark.parametrize("kind", KINDS)
def test_weight_of_two_is_a_row_twice(kind):
    twice = np.r_[X, X[:40]], np.r_[y, y[:40]]
    params = {"batch_size": 1000, "module__dtype": torch.float64, "max_epochs": 10}

    weighted = make_net(kind, **params).fit(
        X, y, sample_weight=np.r_[np.full(40, 2.0), np.ones(80)]
    )
    repeated = make_net(kind, **params).fit(*twice)

    torch.testing.assert_close(weights_of(weighted), weights_of(repeated))


def test_weights_move_the_fit():
    contrary = np.r_[X, X], np.r_[y, 1 - y]

    believed = make_net(max_epochs=30, lr=0.1).fit(
        *contrary, sample_weight=np.r_[np.full(120, 9.0), np.ones(120)]
    )

    assert believed.score(X, y) > 0.9
    assert believed.score(*contrary, sample_weight=np.r_[np.ones(120), np.zeros(120)]) > 0.9


def test_weights_in_partial_fit():
    weight = rng.uniform(size=120)
    once = make_net(max_epochs=2).fit(X, y, sample_weight=weight)
    steps = (
        make_net(max_epochs=1)
        .partial_fit(X, y, sample_weight=weight)
        .partial_fit(X, y, sample_weight=weight)
    )

    assert torch.equal(weights_of(once), weights_of(steps))


@pytest.mark.parametrize(
    "params", [{}, {"early_stopping": True}], ids=["all rows", "early stopping"]
)
@pytest.mark.parametrize("labels", [y, np.where(y, "yes", "no")], ids=["numbers", "text"])
def test_class_of_rows_without_weight_stays_a_class(params, labels):
    names = np.unique(labels).tolist()
    by_row = make_net(max_epochs=1, **params).fit(X, labels, sample_weight=y.astype(float))
    by_class = make_net(max_epochs=1, class_weight={names[0]: 0}, **params).fit(X, labels)
    portions = make_net(max_epochs=1, **params).partial_fit(
        X, labels, sample_weight=y.astype(float)
    )

    for net in (by_row, by_class, portions):
        assert net.classes_.tolist() == names
        assert net.predict_proba(X).shape == (120, 2)
        assert torch.equal(weights_of(net), weights_of(by_row))


def test_class_of_rows_without_weight_stays_a_class_in_a_fused_search():
    """The candidates leave out equally many rows, but not the same ones."""
    even = np.arange(120) % 2
    grid = {"class_weight": [{0: 0}, {1: 0}, None]}
    kept = []

    def score(net, X, y, sample_weight=None):
        kept.append(net)
        return net.score(X, y)

    for fit_params in ({}, {"sample_weight": 1.0 + np.arange(120)}):
        search = sktune.GridSearchCV(
            make_net(max_epochs=2), grid, cv=KFold(2), scoring=score, refit=False
        )
        kept.clear()
        search.fit(X, even, **fit_params)
        assert search.fusion_.alone == []
        nets = iter(list(kept))
        for params in search.cv_results_["params"]:
            for train, _ in KFold(2).split(X):
                weights = {name: part[train] for name, part in fit_params.items()}
                alone = make_net(max_epochs=2, **params).fit(X[train], even[train], **weights)
                assert alone.classes_.tolist() == [0, 1]
                torch.testing.assert_close(
                    weights_of(next(nets)), weights_of(alone), rtol=1e-6, atol=1e-9
                )


def test_criterion_without_losses_of_rows():
    class Mean(nn.Module):
        def forward(self, y_pred, y_true):
            return (y_pred[:, 0] - y_true).square().mean()

    net = make_net(criterion=Mean)

    with pytest.raises(
        ValueError, match="must come with a criterion that gives a loss for each row"
    ):
        net.fit(X, y, sample_weight=rng.uniform(size=120))


@pytest.fixture
def routing():
    with sklearn.config_context(enable_metadata_routing=True):
        yield


@pytest.mark.skipif(
    parse_version(sklearn.__version__) < parse_version("1.8"),
    reason="before scikit-learn 1.8 the default scorer ignores what the last step of a Pipeline "
    "requests for score",
)
@pytest.mark.usefixtures("routing")
@pytest.mark.parametrize("kind", KINDS)
def test_weights_are_routed(kind):
    weight = rng.uniform(size=120)
    net = make_net(kind).set_fit_request(sample_weight=True).set_score_request(sample_weight=True)
    pipeline = make_pipeline(StandardScaler().set_fit_request(sample_weight=True), net)

    found = cross_validate(
        pipeline, X, y, cv=KFold(3), params={"sample_weight": weight}, return_estimator=True
    )

    for n, fitted in enumerate(found["estimator"]):
        test = np.arange(120) // 40 == n
        scaler = StandardScaler().fit(X[~test], sample_weight=weight[~test])
        alone = clone(net).fit(scaler.transform(X[~test]), y[~test], sample_weight=weight[~test])
        assert torch.equal(weights_of(fitted[-1]), weights_of(alone))
        expected = alone.score(scaler.transform(X[test]), y[test], sample_weight=weight[test])
        assert found["test_score"][n] == pytest.approx(expected)


@pytest.mark.usefixtures("routing")
def test_weights_that_nobody_asked_for():
    with pytest.raises(
        ValueError, match="sample_weight.* are passed .*but are not explicitly set as requested"
    ):
        cross_validate(
            make_net(), X, y, params={"sample_weight": np.ones(120)}, error_score="raise"
        )


# --- fit, partial_fit, warm_start -----------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_partial_fit_goes_on(kind):
    whole = make_net(kind, max_epochs=4).fit(X, y)
    steps = make_net(kind, max_epochs=2).partial_fit(X, y).partial_fit(X, y)

    assert torch.equal(weights_of(whole), weights_of(steps))
    assert [row["epoch"] for row in steps.history] == [1, 2, 3, 4]


@pytest.mark.parametrize("kind", KINDS)
def test_warm_start_goes_on_and_fit_begins_anew(kind):
    warm, cold = (
        make_net(kind, max_epochs=2, warm_start=warm).fit(X, y).fit(X, y) for warm in (True, False)
    )

    assert torch.equal(weights_of(warm), weights_of(make_net(kind, max_epochs=4).fit(X, y)))
    assert torch.equal(weights_of(cold), weights_of(make_net(kind, max_epochs=2).fit(X, y)))
    assert (len(warm.history), len(cold.history)) == (4, 2)


def test_history_of_an_earlier_fit_stays():
    net = make_net().fit(X, y)
    history = net.history
    net.set_params(max_epochs=1).fit(X, y)

    assert (len(history), len(net.history)) == (3, 1)


@pytest.mark.parametrize("kind", KINDS)
def test_initialize_comes_first_as_in_skorch(kind):
    net = make_net(
        kind, module=Sizes, module__n_features=3, module__n_outputs=2 if kind is KINDS[0] else 1
    ).initialize()
    untrained = net.predict(X.astype(np.float32))
    net.partial_fit(X, y)

    assert untrained.shape[0] == 120
    assert net.predict(X).shape == (120,)
    assert net.n_features_in_ == 3


def test_classes_of_partial_fit():
    net = make_net().partial_fit(X, np.where(y, "b", "a"), classes=["c", "a", "b"])

    assert net.classes_.tolist() == ["a", "b", "c"]
    assert net.predict_proba(X).shape == (120, 3)
    net.partial_fit(X[:2], ["c", "c"])
    with pytest.raises(
        ValueError, match=r"y must hold the classes \['a', 'b', 'c'\] only, got also \['d'\]"
    ):
        net.partial_fit(X, np.where(y, "d", "a"))


def test_other_classes_in_a_later_partial_fit():
    net = make_net().partial_fit(X, y, classes=[0, 1])
    net.partial_fit(X, y, classes=[1, 0]).partial_fit(X, y)
    before = weights_of(net)

    for classes in ([0, 1, 2], [0], [1, 2], ["0", "1"]):
        with pytest.raises(
            ValueError, match=r"classes must be those of the first call, \[0, 1\], got \["
        ):
            net.partial_fit(X, y, classes=classes)
    assert torch.equal(weights_of(net), before)


def test_classes_of_partial_fit_against_those_of_before():
    with pytest.raises(
        ValueError, match=r"classes must be those of the first call, \[0, 1\], got \[0, 1, 2\]"
    ):
        make_net(classes=[0, 1]).partial_fit(X, y, classes=[0, 1, 2])
    with pytest.raises(
        ValueError, match=r"classes must be those of the first call, \[0, 1\], got \[0, 1, 2\]"
    ):
        make_net().fit(X, y).partial_fit(X, y, classes=[0, 1, 2])
    assert make_net(classes=[0, 1, 2]).partial_fit(X, y, classes=[2, 1, 0]).classes_.tolist() == [
        0,
        1,
        2,
    ]


def test_balanced_classes_in_partial_fit():
    net = make_net(class_weight="balanced")

    with pytest.raises(
        ValueError,
        match=r"class_weight must be a dict or None in partial_fit.*compute_class_weight",
    ):
        net.partial_fit(X, y)
    assert not net.initialized_
    net.fit(X, y)
    with pytest.raises(ValueError, match=r"class_weight must be a dict or None in partial_fit"):
        net.partial_fit(X, y)


@pytest.mark.parametrize("sample_weight", [None, np.linspace(1, 2, 120)], ids=["equal", "weighted"])
def test_class_weights_in_portions_of_one_class(sample_weight):
    """The length of a gradient step is proportional to the class's weight alone."""

    def step(label, class_weight):
        rows = y == label
        net = make_net(
            optimizer=torch.optim.SGD,
            lr=0.01,
            batch_size=200,
            max_epochs=1,
            class_weight=class_weight,
        )
        weight = None if sample_weight is None else sample_weight[rows]
        first = make_net(optimizer=torch.optim.SGD, lr=1e-30, batch_size=200, max_epochs=1)
        first.partial_fit(X[rows], y[rows], classes=[0, 1])
        net.partial_fit(X[rows], y[rows], classes=[0, 1], sample_weight=weight)
        return weights_of(net) - weights_of(first)

    plain = [step(label, None) for label in (0, 1)]
    weighted = [step(label, {1: 5.0}) for label in (0, 1)]

    torch.testing.assert_close(weighted[0], plain[0], rtol=1e-4, atol=1e-7)
    torch.testing.assert_close(weighted[1], 5 * plain[1], rtol=1e-3, atol=1e-6)


def test_class_weight_of_a_portion_that_lacks_a_class():
    net = make_net(class_weight={1: 2.0, 2: 3.0}).partial_fit(X, y, classes=[0, 1, 2])

    assert len(net.history) == net.max_epochs


@pytest.mark.parametrize("weight", [-1.0, np.nan, np.inf])
def test_class_weights_that_are_no_factors(weight):
    with pytest.raises(
        ValueError, match="class_weight must be non-negative, finite and not all zero, got weights"
    ):
        make_net(class_weight={1: weight}).fit(X, y)
    with pytest.raises(
        ValueError, match="class_weight must be non-negative, finite and not all zero, got weights"
    ):
        make_net(class_weight={0: 0, 1: 0}).fit(X, y)


def test_number_of_targets_of_partial_fit():
    net = make_net(NeuralNetRegressor).fit(X, X[:, :2])

    with pytest.raises(ValueError, match="y must have 2 columns as in the first fit, got 1"):
        net.partial_fit(X, X[:, 0])


SIZES = [20, 99, 100, 120]


@pytest.mark.parametrize("kind", [NeuralNetClassifier, NeuralNetRegressor])
def test_types_do_not_depend_on_the_number_of_rows(kind):
    nets = [make_net(kind, max_epochs=1).fit(X[:n], y[:n]) for n in SIZES]

    for net in nets:
        state = next(iter(net.optimizer_.state.values()))
        assert {t.dtype for t in net.module_.parameters()} == {torch.float32}
        assert {state["exp_avg"].dtype, state["exp_avg_sq"].dtype} == {torch.float32}
        assert net.predict(X).dtype == nets[-1].predict(X).dtype
        assert net.module_(torch.zeros(1, X.shape[1])).dtype == torch.float32


@pytest.mark.parametrize("name", ["Adagrad", "Rprop", "ASGD", "Adadelta", "Adamax", "RMSprop"])
def test_any_optimizer_trains_few_rows(name):
    # Some optimizers make tensors when they are built, others at their first step.
    optimizer = getattr(torch.optim, name)
    few, many = (make_net(optimizer=optimizer, max_epochs=2).fit(X[:n], y[:n]) for n in (40, 120))

    types = [
        {key: value.dtype for key, value in next(iter(net.optimizer_.state.values())).items()}
        for net in (few, many)
    ]
    assert types[0] == types[1]


def test_a_fit_of_few_rows_does_not_depend_on_their_order():
    net = make_net(max_epochs=20, batch_size=99)
    order = np.random.default_rng(0).permutation(99)

    one, other = clone(net).fit(X[:99], y[:99]), clone(net).fit(X[:99][order], y[:99][order])

    assert torch.equal(weights_of(one), weights_of(other))


TYPED = {
    "criterion_buffers": {"criterion__weight": torch.tensor([1.0, 3.0])},
    "smoothed": {"criterion__label_smoothing": 0.1, "criterion__weight": torch.tensor([1.0, 3.0])},
    "own_split": {"train_split": predefined_split(Dataset(X[:9].astype(np.float32), y[:9]))},
    "double_split": {"train_split": predefined_split(Dataset(X[:9].astype(np.float64), y[:9]))},
    "early_stopping": {"early_stopping": True, "criterion__weight": torch.tensor([1.0, 3.0])},
}


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("name", TYPED)
def test_what_meets_the_module_has_its_type_for_any_number_of_rows(name, n):
    net = make_net(**TYPED[name]).fit(X[:n], y[:n])

    assert np.isfinite(net.predict_proba(X)).all()
    net.partial_fit(X[:50], y[:50]).partial_fit(X, y)


@pytest.mark.parametrize("optimizer", [torch.optim.SGD, torch.optim.AdamW])
@pytest.mark.parametrize("n", [40, 120])
def test_a_loss_beyond_float32_diverges_for_any_number_of_rows(n, optimizer):
    net = make_net(NeuralNetRegressor, optimizer=optimizer, lr=1e25, max_epochs=3)

    with pytest.raises(DivergenceError, match="training must stay finite"):
        net.fit(X[:n], y[:n])


def test_grid_search_in_a_pipeline():
    pipeline = make_pipeline(StandardScaler(), make_net())
    grid = {
        "neuralnetclassifier__module__hidden": [(2,), (3, 2)],
        "neuralnetclassifier__optimizer": [torch.optim.SGD],
    }
    search = GridSearchCV(pipeline, grid, cv=2).fit(X * 1e5, np.where(y, "yes", "no"))

    assert set(search.predict(X)) <= {"yes", "no"}
    assert isinstance(search.best_estimator_[-1].optimizer_, torch.optim.SGD)


def test_verbose_prints_skorch_s_table(capsys):
    make_net(verbose=1, max_epochs=2).fit(X, y)
    printed = capsys.readouterr().out
    make_net().fit(X, y)

    assert printed.split()[:3] == ["epoch", "train_loss", "dur"]
    assert len(printed.strip().splitlines()) == 4
    assert capsys.readouterr().out == ""


class Tokens(nn.Module):
    """Embeds integers, and notes the most rows that it got in one batch."""

    most = {True: 0, False: 0}

    def __init__(self, n_outputs=2):
        super().__init__()
        self.embedding = nn.Embedding(20, 4)
        self.head = nn.Linear(4, n_outputs)

    def forward(self, X):
        self.most[self.training] = max(self.most[self.training], len(X))
        return self.head(self.embedding(X).mean(1))


@pytest.mark.parametrize("early_stopping", [False, True])
def test_batch_size_bounds_the_memory_of_evaluation(early_stopping):
    Tokens.most.update({True: 0, False: 0})
    words = rng.randint(20, size=(200, 7))
    net = make_net(module=Tokens, batch_size=16, max_epochs=1, early_stopping=early_stopping)

    net.fit(words, words[:, 0] > 9).predict_proba(words)

    assert Tokens.most == {True: 16, False: 16}
