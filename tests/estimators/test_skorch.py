"""skorch's extension points and kinds of input: what worked with skorch's nets works with ours."""

import gc
import weakref

import joblib
import numpy as np
import pandas as pd
import pytest
import sklearn
import skorch
import torch
from sklearn.base import clone
from sklearn.model_selection import (
    GridSearchCV,
    GroupKFold,
    cross_val_predict,
    cross_val_score,
    cross_validate,
)
from skorch.callbacks import Callback, EpochScoring
from skorch.dataset import Dataset, ValidSplit
from skorch.exceptions import NotInitializedError
from skorch.helper import SliceDataset, SliceDict, predefined_split
from torch import nn
from torch.utils.data import TensorDataset

import sktune
from sktune import NeuralNetClassifier, NeuralNetRegressor
from sktune.engine.report import FusionReport
from sktune.estimators.base import NetworkEstimator

rng = np.random.RandomState(0)
X = rng.randn(120, 4)
X32 = X.astype(np.float32)
y = (X[:, 0] > 0).astype(int)
GAPS = np.where(y, 7, 3)
TEXT = np.where(y, "yes", "no")
LABELS = {"numbers": y, "gaps": GAPS, "text": TEXT}


class Linear(nn.Module):
    def __init__(self, n_outputs=2):
        super().__init__()
        self.layer = nn.Linear(4, n_outputs)

    def forward(self, X):
        return self.layer(X)


def make_net(kind=NeuralNetClassifier, **params):
    return kind(
        **{
            "module": Linear,
            "max_epochs": 2,
            "lr": 0.05,
            "random_state": 0,
            "device": "cpu",
            **params,
        }
    )


def weights_of(net):
    return torch.cat([p.detach().flatten() for p in net.module_.parameters()])


# --- SliceDataset ---------------------------------------------------------------------------------


def make_slice(X=X):
    return SliceDataset(TensorDataset(torch.tensor(X), torch.tensor(y)), 0)


@pytest.mark.parametrize("table", [X, X32], ids=["float64", "float32"])
@pytest.mark.parametrize("labels", LABELS.values(), ids=LABELS)
def test_slice_of_a_dataset_fits_and_predicts(table, labels):
    rows = make_slice(table)
    net = make_net(max_epochs=10).fit(rows, labels)

    assert net.predict(rows).shape == (120,)
    assert set(net.predict(rows)) <= set(labels)
    assert net.score(rows, labels) > 0.8


def test_slice_of_a_dataset_for_a_regressor():
    rows = make_slice()
    net = make_net(NeuralNetRegressor, module__n_outputs=1).fit(rows, X[:, 0])

    assert net.predict(rows).shape == (120,)


@pytest.mark.parametrize("is_fused", [False, True])
def test_slice_of_a_dataset_in_cross_validation_and_searches(is_fused):
    rows, targets = make_slice(), SliceDataset(TensorDataset(torch.tensor(X), torch.tensor(y)), 1)
    net = make_net(max_epochs=5)
    with joblib.parallel_config("sktune" if is_fused else "sequential"):
        scores = cross_val_score(net, rows, TEXT, cv=2, error_score="raise")
        predicted = cross_val_predict(net, rows, TEXT, cv=2)
        search = GridSearchCV(net, {"lr": [0.01, 0.1]}, cv=2, error_score="raise").fit(
            rows, np.asarray(targets)
        )

    assert np.isfinite(scores).all()
    assert set(predicted) <= {"yes", "no"}
    assert search.predict(rows).shape == (120,)


def test_slices_of_a_dataset_in_a_search_of_our_own():
    search = sktune.GridSearchCV(make_net(), {"lr": [0.01, 0.1]}, cv=2, error_score="raise").fit(
        make_slice(), y
    )

    assert "no dense table" in str(search.fusion_)


# --- dicts, lists and tuples ----------------------------------------------------------------------


class Both(nn.Module):
    def __init__(self, n_outputs=2):
        super().__init__()
        self.layer = nn.Linear(4, n_outputs)

    def forward(self, a, b):
        return self.layer(torch.cat([a, b], dim=1))


class Parts(Both):
    def forward(self, parts):
        return super().forward(*parts)


DICTS = {
    "float32": {"a": X32[:, :3], "b": X32[:, 3:]},
    "float64": {"a": X[:, :3], "b": X[:, 3:]},
    "tensors": {"a": torch.tensor(X[:, :3]), "b": torch.tensor(X32[:, 3:])},
    "frames": {"a": pd.DataFrame(X[:, :3]), "b": pd.DataFrame(X32[:, 3:])},
    "SliceDict": SliceDict(a=X[:, :3], b=X[:, 3:]),
}


@pytest.mark.parametrize("parts", DICTS.values(), ids=DICTS)
@pytest.mark.parametrize("labels", LABELS.values(), ids=LABELS)
def test_dict(parts, labels):
    net = make_net(module=Both, train_split=ValidSplit(4, stratified=True)).fit(parts, labels)
    expected = make_net(module=Both, train_split=ValidSplit(4, stratified=True)).fit(
        DICTS["float32"], labels
    )

    assert torch.equal(weights_of(net), weights_of(expected))
    assert np.array_equal(net.predict(parts), expected.predict(DICTS["float32"]))
    assert net.history[-1, "valid_acc"] == expected.history[-1, "valid_acc"]


@pytest.mark.parametrize("kind", [list, tuple])
@pytest.mark.parametrize(
    "parts",
    [DICTS["float64"], DICTS["tensors"], DICTS["frames"]],
    ids=["arrays", "tensors", "frames"],
)
def test_list_of_arrays(kind, parts):
    parts = kind(parts.values())
    net = make_net(module=Parts).fit(parts, TEXT)

    assert torch.equal(
        weights_of(net), weights_of(make_net(module=Both).fit(DICTS["float32"], TEXT))
    )
    assert net.predict(parts).shape == (120,)
    # A list of rows is a table again.
    assert make_net().fit(list(X), y).predict(list(X)).shape == (120,)


def test_list_of_rows_stays_a_table():
    net = make_net().fit(list(X), y)

    assert torch.equal(weights_of(net), weights_of(make_net().fit(X, y)))
    assert net.predict(list(X)).shape == (120,)


def test_dict_of_text_is_named():
    with pytest.raises(ValueError, match=r"X\['a'\] must hold numbers, got text"):
        make_net(module=Both).fit({"a": pd.DataFrame({"c": TEXT}), "b": X[:, 3:]}, y)


# --- validation sets ------------------------------------------------------------------------------

VALIDATION_SETS = {
    "Dataset": lambda labels: Dataset(X[:30], labels[:30]),
    "frame": lambda labels: Dataset(pd.DataFrame(X[:30]), labels[:30]),
    "Subset": lambda labels: torch.utils.data.Subset(Dataset(X, labels), np.arange(30)),
    "items": lambda labels: torch.utils.data.Subset(Items(labels), np.arange(30)),
}


class Items(torch.utils.data.Dataset):
    def __init__(self, labels):
        self.labels = labels

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, i):
        return X[i], self.labels[i]


@pytest.mark.parametrize("make", VALIDATION_SETS.values(), ids=VALIDATION_SETS)
@pytest.mark.parametrize("labels", LABELS.values(), ids=LABELS)
def test_validation_set_is_read_like_the_training_rows(make, labels):
    params = {"callbacks__valid_acc": None} if make is VALIDATION_SETS["items"] else {}
    net = make_net(train_split=predefined_split(make(labels)), max_epochs=5, **params).fit(
        X, labels
    )

    logits = net.forward(X32[:30])
    expected = nn.functional.cross_entropy(logits, torch.tensor(y[:30]))
    assert net.history[-1, "valid_loss"] == pytest.approx(float(expected), rel=1e-4)
    if not params:
        assert net.history[-1, "valid_acc"] == pytest.approx(
            (net.predict(X[:30]) == labels[:30]).mean()
        )


def test_validation_set_of_a_regressor():
    split = predefined_split(Dataset(X[:30], X[:30, 0]))
    net = make_net(NeuralNetRegressor, module__n_outputs=1, train_split=split).fit(X, X[:, 0])

    assert net.history[-1, "valid_loss"] == pytest.approx(
        ((net.predict(X[:30]) - X[:30, 0]) ** 2).mean(), rel=1e-4
    )


def slices_of_its_own_type(dataset, y, **params):
    half = len(y) // 2
    return type(dataset)(dataset.X[half:], y[half:]), type(dataset)(dataset.X[:half], y[:half])


def slices(dataset, y, **params):
    half = len(y) // 2
    return Dataset(dataset.X[half:], y[half:]), Dataset(dataset.X[:half], y[:half])


@pytest.mark.parametrize("split", [slices_of_its_own_type, slices])
@pytest.mark.parametrize("labels", LABELS.values(), ids=LABELS)
def test_split_into_datasets_of_its_own(split, labels):
    net = make_net(train_split=split).fit(X, labels)
    expected = make_net().fit(X[60:], labels[60:])

    assert torch.allclose(weights_of(net), weights_of(expected), atol=1e-6)
    assert net.history[-1, "valid_acc"] == pytest.approx(
        (net.predict(X[:60]) == labels[:60]).mean()
    )


def test_weights_and_a_split_that_builds_its_own_rows():
    with pytest.raises(
        ValueError,
        match="sample_weight and class_weight must come with a train_split that picks rows",
    ):
        make_net(train_split=slices).fit(X, y, sample_weight=np.ones(120) * 2)
    weight = rng.uniform(size=120)
    split = predefined_split(Dataset(X[:30], y[:30]))
    net = make_net(train_split=split).fit(X, y, sample_weight=weight)
    assert torch.equal(weights_of(net), weights_of(make_net().fit(X, y, sample_weight=weight)))


def test_callbacks_and_splits_get_what_the_user_passed():
    frame, seen = pd.DataFrame(X, columns=list("abcd")), []

    def see(net, X, y):
        seen.append((type(X), tuple(X.columns), set(y)))
        return 0.0

    class Begin(Callback):
        def on_train_begin(self, net, X, y, **kwargs):
            seen.append((type(X), tuple(X.columns), set(y)))

    def split(dataset, y):
        seen.append((type(dataset.X), tuple(dataset.X.columns), set(y)))
        return ValidSplit(4)(dataset, y)

    callbacks = [
        Begin(),
        EpochScoring(see, use_caching=False),
        EpochScoring(see, on_train=True, name="other", use_caching=False),
    ]
    make_net(train_split=split, callbacks=callbacks, max_epochs=1).fit(frame, TEXT)

    assert len(seen) == 4
    assert all(found == (pd.DataFrame, ("a", "b", "c", "d"), {"yes", "no"}) for found in seen)


# --- datasets -------------------------------------------------------------------------------------


def test_dataset_of_text():
    data = Dataset(X, TEXT)
    net = make_net(max_epochs=10).fit(data, None)

    assert set(net.predict(X)) <= {"yes", "no"}
    assert net.score(X, TEXT) > 0.8


class Three(torch.utils.data.Dataset):
    def __len__(self):
        return 120

    def __getitem__(self, i):
        return X[i], int(y[i]), float(i)


def test_dataset_of_three_items_is_no_weighted_one():
    with pytest.raises(ValueError, match="returns 3 values"):
        make_net().fit(Three(), None)
    with pytest.raises(ValueError, match="returns 3 values"):
        make_net().fit(X, y).predict(Three())


def test_weighted_rows_in_an_iterator_of_skorch():
    weight = rng.uniform(size=120)
    plain = make_net(shuffle=False).fit(X, y, sample_weight=weight)
    loaded = make_net(shuffle=False, iterator_train__num_workers=0).fit(X, y, sample_weight=weight)

    assert torch.allclose(weights_of(plain), weights_of(loaded), atol=1e-6)


def test_default_module_says_what_a_dataset_does_not_tell():
    net = NeuralNetClassifier(max_epochs=1)
    missing = (
        "module__n_features must be known to build MLP.*: fit to an array first, or pass "
        "module__n_features="
    )
    with pytest.raises(ValueError, match=missing):
        net.fit(Dataset(X, y), None)
    with pytest.raises(
        ValueError, match="module__n_features and module__n_outputs must be known to build MLP"
    ):
        net.initialize()
    with pytest.raises(NotInitializedError, match="pass module__n_features and module__n_outputs"):
        net.load_params(f_params="none.pt")
    assert NeuralNetClassifier(max_epochs=1, module__n_features=4).fit(Dataset(X, y), None).predict(
        X
    ).shape == (120,)


# --- batches --------------------------------------------------------------------------------------


@pytest.mark.parametrize("params", [{"batch_size": -1}, {"iterator_train__batch_size": -1}])
@pytest.mark.parametrize("table", [X, DICTS["float32"]], ids=["table", "dict"])
def test_batch_of_all_rows(params, table):
    module = Linear if table is X else Both
    net = make_net(module=module, **params).fit(table, y)

    assert net.history[:, "batches", :, "train_batch_size"] == [[120], [120]]
    assert torch.equal(
        weights_of(net), weights_of(make_net(module=module, batch_size=120).fit(table, y))
    )


@pytest.mark.parametrize("params", [{"batch_size": -1}, {"iterator_valid__batch_size": -1}])
def test_validation_batch_of_all_rows(params):
    net = make_net(train_split=ValidSplit(2), **params).fit(X, y)

    assert net.history[:, "batches", :, "valid_batch_size"] == [[60], [60]]
    assert net.predict_proba(X).shape == (120, 2)


def test_batch_of_all_rows_in_a_search():
    net = make_net(batch_size=-1, max_epochs=3)
    alone = cross_validate(net, X32, y, cv=7, scoring="neg_log_loss")["test_score"]
    with joblib.parallel_config("sktune"):
        fused = cross_validate(net, X32, y, cv=7, scoring="neg_log_loss")["test_score"]

    assert np.allclose(alone, fused, atol=1e-5)


@pytest.mark.parametrize("name", ["iterator_train__batch_size", "iterator_valid__batch_size"])
@pytest.mark.parametrize("value", [0, -2, 1.5])
def test_no_batch_size(name, value):
    with pytest.raises(
        ValueError, match=f"{name} must be an int of at least 1, or -1 for all rows at once"
    ):
        make_net(**{name: value}).fit(X, y)


# --- outputs --------------------------------------------------------------------------------------


class Squeezed(nn.Module):
    def __init__(self, n_outputs=2, n_features=4):
        super().__init__()
        self.layer = nn.Linear(n_features, n_outputs)

    def forward(self, X):
        return self.layer(X).squeeze()


@pytest.mark.parametrize("kind", [NeuralNetClassifier, NeuralNetRegressor])
@pytest.mark.parametrize("as_dict", [False, True])
def test_squeezed_outputs_of_one_row(kind, as_dict):
    class Named(Squeezed):
        def forward(self, a):
            return super().forward(a)

    wrap = (lambda table: {"a": table}) if as_dict else (lambda table: table)
    target = y if kind is NeuralNetClassifier else X[:, 0]
    n_outputs = 2 if kind is NeuralNetClassifier else 1
    net = make_net(kind, module=Named, module__n_outputs=n_outputs, batch_size=17)
    net.fit(wrap(X), target)

    assert net.predict(wrap(X)).shape == (120,)
    assert net.predict(wrap(X[:1])).shape == (1,)
    assert np.allclose(net.predict(wrap(X[:1])), net.predict(wrap(X))[:1], atol=1e-6)
    # The last batch has one row: 120 = 7 * 17 + 1.
    assert sum(net.history[0, "batches", :, "train_batch_size"]) == 120


def test_squeezed_outputs_of_one_row_in_a_search():
    net = make_net(module=Squeezed)
    folds = [(np.arange(1, 120), np.array([0])), (np.arange(119), np.array([119]))]
    alone = cross_validate(net, X32, y, cv=folds)["test_score"]
    with joblib.parallel_config("sktune"):
        assert np.array_equal(cross_validate(net, X32, y, cv=folds)["test_score"], alone)


class Pair(Linear):
    def forward(self, X):
        return super().forward(X), X


class FirstLoss(NeuralNetClassifier):
    def get_loss(self, y_pred, y_true, X=None, training=False):
        return super().get_loss(y_pred[0], y_true, X=X, training=training)


def test_module_that_returns_a_tuple():
    split = ValidSplit(4, stratified=True)
    net = make_net(FirstLoss, module=Pair, train_split=split).fit(X, y)

    expected = weights_of(make_net(train_split=split).fit(X, y))
    torch.testing.assert_close(weights_of(net), expected)
    assert net.predict(X[:1]).shape == (1,)
    assert [part.shape[0] for part in net.forward(X)] == [120, 120]


def to_array(outputs):
    return torch.softmax(outputs, dim=-1).numpy()


def test_nonlinearity_that_returns_arrays():
    net = make_net(predict_nonlinearity=to_array).fit(X, y)

    assert np.allclose(net.predict_proba(X), make_net().fit(X, y).predict_proba(X))


class Lazy(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.LazyLinear(5), nn.ReLU(), nn.LazyLinear(2))

    def forward(self, X):
        return self.layers(X)


def test_lazy_layers():
    nets = [make_net(module=Lazy, l2=1e-3).fit(X, y) for _ in range(2)]
    assert torch.equal(*map(weights_of, nets))

    alone = cross_val_score(nets[0], X32, y, cv=2, scoring="neg_log_loss")
    search = sktune.GridSearchCV(
        nets[0], {"lr": [0.05]}, cv=2, scoring="neg_log_loss", error_score="raise"
    ).fit(X32, y)
    assert search.best_score_ == pytest.approx(alone.mean(), rel=1e-5)
    assert "lazy layers" in str(search.fusion_)


class Tagger(nn.Module):
    """Returns logits of the classes for each number of a row."""

    def __init__(self, n_outputs):
        super().__init__()
        self.layer = nn.Conv1d(1, n_outputs, 1)

    def forward(self, X):
        return self.layer(X.unsqueeze(1))


class Probabilities(Tagger):
    def forward(self, X):
        return super().forward(X).softmax(1)


@pytest.mark.parametrize("offset", [0, 5])
@pytest.mark.parametrize(
    ("module", "criterion"), [(Tagger, nn.CrossEntropyLoss), (Probabilities, nn.NLLLoss)]
)
def test_sequences_of_labels(offset, module, criterion):
    labels = (X > 0).astype(int) + (X > 1) + offset
    net = make_net(module=module, criterion=criterion, max_epochs=30, lr=0.1)
    net.fit(X, labels)

    assert net.classes_.tolist() == [offset, offset + 1, offset + 2]
    assert net.predict_proba(X).shape == (120, 3, 4)
    assert np.allclose(net.predict_proba(X).sum(axis=1), 1, atol=1e-5)
    assert net.predict(X).shape == labels.shape
    assert net.score(X, labels) > 0.7
    assert net.score(X, labels) == pytest.approx((net.predict(X) == labels).mean())
    alone = cross_val_score(
        clone(net).set_params(max_epochs=3), X32, labels, cv=2, error_score="raise"
    )
    with joblib.parallel_config("sktune"):
        found = cross_val_score(
            clone(net).set_params(max_epochs=3), X32, labels, cv=2, error_score="raise"
        )
    assert np.allclose(found, alone, atol=1e-6)


@pytest.mark.parametrize("ignored", [{}, {"criterion__ignore_index": -1}])
def test_padding_of_sequences_is_no_class(ignored):
    """An ignored label is no class, counts in no score, and is left out of the mean loss."""
    padding = ignored.get("criterion__ignore_index", -100)
    labels = (X > 0).astype(int) + (X > 1)
    is_padding = rng.rand(*X.shape) < 0.3
    padded = np.where(is_padding, padding, labels)
    plain = make_net(module=Tagger, train_split=ValidSplit(3), **ignored).fit(X, padded)
    named = make_net(module=Tagger, train_split=ValidSplit(3), **ignored)
    named.fit(X, np.where(is_padding, padding, 10 * labels + 3))

    assert plain.classes_.tolist() == [0, 1, 2]
    assert named.classes_.tolist() == [3, 13, 23]
    assert plain.score(X, padded) == pytest.approx((plain.predict(X) == labels)[~is_padding].mean())
    assert torch.equal(weights_of(plain), weights_of(named))
    assert (
        plain.history[:, ("valid_loss", "valid_acc")]
        == named.history[:, ("valid_loss", "valid_acc")]
    )


@pytest.mark.parametrize(
    "labels", [np.where(rng.rand(120, 4) < 0.3, -1, X > 0), np.where(rng.rand(120) < 0.3, -1, y)]
)
def test_weights_of_one_change_nothing_where_labels_are_left_out(labels):
    """The mean of weighted losses is over the labels that count, too."""
    net = make_net(module=Tagger if labels.ndim > 1 else Linear, criterion__ignore_index=-1)
    weighted = clone(net).fit(X, labels, sample_weight=np.ones(120))

    torch.testing.assert_close(weights_of(weighted), weights_of(net.fit(X, labels)))


def test_padded_sequences_go_one_at_a_time():
    labels = np.where(rng.rand(*X.shape) < 0.3, -100, (X > 0).astype(int))
    net = make_net(module=Tagger)
    alone = cross_val_score(net, X32, labels, cv=2, error_score="raise")
    report = FusionReport()
    with joblib.parallel_config("sktune", report=report):
        found = cross_val_score(net, X32, labels, cv=2, error_score="raise")

    assert found.tolist() == alone.tolist()
    assert {fit["reason"] for fit in report.alone} == {"its criterion ignores rows"}


def test_single_labels_that_the_criterion_leaves_out():
    unknown = np.where(rng.rand(120) < 0.3, -1, GAPS)
    net = make_net(criterion__ignore_index=-1).fit(X, unknown)

    assert net.classes_.tolist() == [3, 7]
    assert net.score(X, unknown) == net.score(X[unknown > 0], unknown[unknown > 0])


def test_early_stopping_on_sequences_of_labels():
    labels = (X > 0).astype(int) + (X > 1)
    net = make_net(module=Tagger, max_epochs=3, early_stopping=True, validation_fraction=0.25)
    alone = cross_validate(net, X32, labels, cv=2, error_score="raise", return_estimator=True)[
        "estimator"
    ][0]
    with joblib.parallel_config("sktune"):
        fused = cross_validate(net, X32, labels, cv=2, error_score="raise", return_estimator=True)[
            "estimator"
        ][0]

    assert alone.history[:, ("valid_loss", "valid_acc")] == [
        pytest.approx(row, rel=1e-5) for row in fused.history[:, ("valid_loss", "valid_acc")]
    ]
    assert 0 < alone.history[-1, "valid_acc"] < 1


@pytest.mark.parametrize(
    "labels", [(X > 0).astype(int)[:, :, None], np.ones((120, 2, 2), int) * np.arange(2)]
)
def test_labels_of_three_dimensions(labels):
    class Grid(Linear):
        def forward(self, X):
            return super().forward(X).reshape(-1, 2, 1, 1).expand(-1, -1, *labels.shape[1:])

    net = make_net(module=Grid).fit(X, labels)

    assert net.predict(X).shape == labels.shape


@pytest.mark.parametrize("labels", [X > 0, np.where(X > 0, "a", "b"), X])
def test_tables_of_other_labels_are_no_sequences(labels):
    with pytest.raises(
        ValueError, match="y should be a 1d array|Unknown label type|MultiOutputClassifier"
    ):
        make_net(module=Tagger).fit(X, labels)


def test_history_of_a_fused_fit_stays_when_the_net_is_fitted_again():
    with joblib.parallel_config("sktune"):
        net = cross_validate(make_net(), X32, y, cv=2, return_estimator=True)["estimator"][0]
    history = net.history
    net.fit(X32, y)

    assert history is not net.history
    assert len(history) == 2


def test_targets_of_a_slice_of_a_dataset():
    targets = SliceDataset(TensorDataset(torch.tensor(X), torch.tensor(y)), 1)

    assert torch.equal(weights_of(make_net().fit(X, targets)), weights_of(make_net().fit(X, y)))


def test_missing_underscores_are_pointed_at():
    with pytest.raises(
        ValueError, match="no parameter 'optimizer_momentum'; did you mean 'optimizer__momentum'"
    ):
        make_net(optimizer_momentum=0.9).fit(X, y)


# --- extension points -----------------------------------------------------------------------------


class Two(NeuralNetClassifier):
    """A net whose components have other names."""

    def initialize_module(self):
        self.encoder_, self.head_ = nn.Linear(4, 8), nn.Linear(8, 2)
        return self

    def initialize_criterion(self):
        self.loss_ = nn.CrossEntropyLoss()
        return self

    def infer(self, x, **fit_params):
        return self.head_(torch.relu(self.encoder_(x.float())))

    def get_loss(self, y_pred, y_true, X=None, training=False):
        return self.loss_(y_pred, y_true)


def test_components_under_other_names():
    nets = [make_net(Two, max_epochs=10, train_split=ValidSplit(4)).fit(X, y) for _ in range(2)]

    assert nets[0].score(X, y) > 0.8
    assert torch.equal(nets[0].encoder_.weight, nets[1].encoder_.weight)
    assert not hasattr(nets[0], "module_")
    with pytest.raises(NotInitializedError, match="not initialized"):
        make_net(Two).predict(X)
    with joblib.parallel_config("sktune"):
        assert np.isfinite(cross_val_score(make_net(Two), X, y, cv=2, error_score="raise")).all()


class WithoutSuper(NeuralNetClassifier):
    def initialize_module(self):
        self.module_ = self.module()
        return self


def test_initialize_module_without_super():
    net = make_net(WithoutSuper).fit(X, y)

    assert torch.equal(weights_of(net), weights_of(make_net().fit(X, y)))


class Holding(NeuralNetClassifier):
    def __init__(self, teacher=None, **kwargs):
        self.teacher = nn.Linear(4, 2) if teacher is None else teacher
        super().__init__(**kwargs)


def test_module_held_before_the_constructor():
    net = Holding(module=Linear, max_epochs=1, random_state=0)

    assert isinstance(net.fit(X, y).teacher, nn.Linear)
    assert net._modules == ["module"]


def test_attributes_of_a_callback_and_of_the_user():
    class Note(Callback):
        def on_epoch_end(self, net, **kwargs):
            net.note = len(net.history)

    net = make_net(callbacks=[Note()])
    net.mood = "good"
    net.fit(X, y).fit(X, y)
    net.set_params(lr=0.1).partial_fit(X, y)

    assert (net.note, net.mood) == (4, "good")
    assert "note" not in net.get_params()
    copy = clone(net).fit(X, y)
    assert copy.note == 2
    assert not hasattr(copy, "mood")
    assert np.isfinite(cross_val_score(net, X, y, cv=2, error_score="raise")).all()


class Keyword(NeuralNetClassifier):
    def __init__(self, *args, **kwargs):
        self.mood = kwargs.pop("mood", "none")
        super().__init__(*args, **kwargs)


def test_argument_taken_by_keyword_is_cloned():
    net = make_net(Keyword, mood="good")

    assert clone(net).fit(X, y).mood == "good"


class Kept(skorch.History):
    pass


def test_history_of_ones_own():
    history = Kept()
    net = make_net(history=history).fit(X, y)
    assert net.history is history
    assert len(history) == 2
    net.fit(X, y)
    assert net.history is history
    assert len(history) == 2
    with joblib.parallel_config("sktune"):
        cross_val_score(net, X, y, cv=2)


def test_not_initialized():
    for method in ("predict", "predict_proba", "forward"):
        with pytest.raises(NotInitializedError, match="not initialized"):
            getattr(make_net(), method)(X)
    with pytest.raises(NotInitializedError, match="not initialized"):
        list(make_net().forward_iter(X))
    with pytest.raises(NotInitializedError, match="Cannot save state of an un-initialized model"):
        make_net().save_params(f_params="none.pt")


# --- methods patched at run time ------------------------------------------------------------------


def doubled(method):
    def answer(self, *args, **kwargs):
        return 2 * method(self, *args, **kwargs)

    return answer


@pytest.mark.parametrize("kind", [NeuralNetClassifier, NetworkEstimator, "instance"])
@pytest.mark.parametrize(
    "module", [Linear, nn.Sequential(nn.Linear(4, 2))], ids=["module", "compiled"]
)
def test_patched_loss_is_taken(kind, module, monkeypatch):
    net, plain = make_net(module=module), make_net(module=module).fit(X32, y)
    if kind == "instance":
        net.get_loss = lambda *args, **kwargs: (
            2 * NeuralNetClassifier.get_loss(net, *args, **kwargs)
        )
    else:
        monkeypatch.setattr(kind, "get_loss", doubled(NeuralNetClassifier.get_loss))

    net.fit(X32, y)

    assert net.history[0, "batches", 0, "train_loss"] == pytest.approx(
        2 * plain.history[0, "batches", 0, "train_loss"], rel=1e-5
    )


@pytest.mark.parametrize(
    "name", ["get_loss", "train_step", "train_step_single", "infer", "validation_step"]
)
def test_patched_method_is_a_reason_to_train_alone(name, monkeypatch):
    method, n_calls = getattr(NeuralNetClassifier, name), []

    def counted(self, *args, **kwargs):
        n_calls.append(1)
        return method(self, *args, **kwargs)

    monkeypatch.setattr(NeuralNetClassifier, name, counted)
    search = sktune.GridSearchCV(
        make_net(), {"lr": [0.01]}, cv=2, refit=False, error_score="raise"
    ).fit(X32, y)

    assert f"NeuralNetClassifier overrides {name}" in str(search.fusion_)
    assert n_calls or name == "validation_step"


@pytest.mark.parametrize("kind", [nn.Linear, nn.ReLU, sktune.MLP, nn.CrossEntropyLoss])
def test_patched_forward_is_taken_by_compiled_and_fused_steps(kind, monkeypatch):
    net = make_net(
        module=sktune.MLP, module__hidden=(8,), criterion=nn.CrossEntropyLoss, max_epochs=3
    )
    usual = clone(net).fit(X32, y).history[:, "train_loss"]
    forward = kind.forward
    monkeypatch.setattr(kind, "forward", lambda self, *args: 0.5 * forward(self, *args))
    plain = clone(net).fit(X32, y).history[:, "train_loss"]

    search = sktune.GridSearchCV(
        net, {"lr": [net.lr]}, cv=[(np.arange(120), np.arange(9))], refit=False
    )
    search.fit(X32, y)

    assert np.abs(np.subtract(plain, usual)).min() > 1e-3
    if search.fusion_.groups:
        found = search.curves_["train_loss"]
        np.testing.assert_allclose(found, plain, rtol=1e-4)


def test_patched_method_of_skorch_is_a_reason_for_skorch_s_own_nets(monkeypatch):
    net = skorch.NeuralNetClassifier(Linear, criterion=nn.CrossEntropyLoss, max_epochs=1, verbose=0)
    monkeypatch.setattr(
        skorch.NeuralNet, "train_step_single", skorch.NeuralNet.__dict__["train_step_single"]
    )
    assert "fits fused" in str(
        sktune.GridSearchCV(net, {"lr": [0.1]}, cv=2, refit=False).fit(X32, y).fusion_
    )
    method = skorch.NeuralNet.train_step_single
    monkeypatch.setattr(
        skorch.NeuralNet, "train_step_single", lambda *args, **kwargs: method(*args, **kwargs)
    )

    search = sktune.GridSearchCV(net, {"lr": [0.1]}, cv=2, refit=False).fit(X32, y)

    assert "NeuralNetClassifier overrides train_step_single" in str(search.fusion_)


# --- metadata routing -----------------------------------------------------------------------------


@pytest.fixture
def routing():
    with sklearn.config_context(enable_metadata_routing=True):
        yield


class Scaled(Linear):
    def forward(self, X, scale=1.0, **kwargs):
        return super().forward(X) * scale


needs_requests = pytest.mark.skipif(
    "set_fit_request" not in vars(skorch.NeuralNet),
    reason="requests of metadata of any name came with skorch 1.4",
)


@pytest.mark.usefixtures("routing")
@pytest.mark.parametrize("method", ["fit", "partial_fit"])
def test_metadata_that_nobody_requested_is_refused(method):
    net = make_net(module=Scaled)
    with pytest.raises(TypeError, match="unexpected argument"):
        getattr(net, method)(X, y, scale=0.0)
    assert not net.initialized_


@needs_requests
@pytest.mark.usefixtures("routing")
@pytest.mark.parametrize("method", ["fit", "partial_fit"])
def test_metadata_that_was_requested_reaches_the_module(method):
    net = make_net(module=Scaled)
    getattr(net, f"set_{method}_request")(scale=True)
    getattr(net, method)(X, y, scale=0.0)
    assert net.history[0, "train_loss"] == pytest.approx(np.log(2), rel=1e-5)


@pytest.mark.usefixtures("routing")
def test_groups_are_routed_to_the_validation_split():
    groups = np.repeat([0, 1], 60)
    net = make_net(module=Scaled, train_split=ValidSplit(GroupKFold(2))).fit(X, y, groups=groups)
    assert net.history[0, "batches", :, "valid_batch_size"] == [60]


@needs_requests
@pytest.mark.usefixtures("routing")
def test_groups_that_were_requested_reach_the_validation_split_too():
    groups = np.repeat([0, 1], 60)
    net = make_net(module=Scaled, train_split=ValidSplit(GroupKFold(2))).set_fit_request(
        groups=True
    )
    assert net.fit(X, y, groups=groups).history[0, "batches", :, "valid_batch_size"] == [60]


# --- learning rates -------------------------------------------------------------------------------


class Rates(Callback):
    def initialize(self):
        self.rates = []
        return self

    def on_batch_begin(self, net, training=False, **kwargs):
        if training:
            self.rates.append([group["lr"] for group in net.optimizer_.param_groups])


def fall(epoch):
    return 0.9**epoch


lr = torch.optim.lr_scheduler
SCHEDULERS = {
    "CyclicLR": (
        lr.CyclicLR,
        {"base_lr": 1e-3, "max_lr": 5e-3, "step_size_up": 4, "cycle_momentum": False},
    ),
    "CyclicLR, momentum": (lr.CyclicLR, {"base_lr": 1e-3, "max_lr": 5e-3, "step_size_up": 3}),
    "OneCycleLR": (lr.OneCycleLR, {"max_lr": 0.1, "total_steps": 30}),
    "WarmRestartLR": ("WarmRestartLR", {"min_lr": 1e-3, "max_lr": 0.02, "base_period": 3}),
    "LinearLR": (lr.LinearLR, {"start_factor": 0.1, "total_iters": 4}),
    "ConstantLR": (lr.ConstantLR, {"factor": 0.3, "total_iters": 3}),
    "StepLR": (lr.StepLR, {"step_size": 2, "gamma": 0.5}),
    "MultiStepLR": (lr.MultiStepLR, {"milestones": [1, 3], "gamma": 0.5}),
    "ExponentialLR": (lr.ExponentialLR, {"gamma": 0.9}),
    "LambdaLR": (lr.LambdaLR, {"lr_lambda": fall}),
    "MultiplicativeLR": (lr.MultiplicativeLR, {"lr_lambda": fall}),
    "CosineAnnealingLR": (lr.CosineAnnealingLR, {"T_max": 5}),
    "CosineAnnealingWarmRestarts": (lr.CosineAnnealingWarmRestarts, {"T_0": 3}),
    "PolynomialLR": (lr.PolynomialLR, {"total_iters": 6}),
    "ReduceLROnPlateau": (lr.ReduceLROnPlateau, {"patience": 0, "threshold": 10.0}),
}


@pytest.mark.filterwarnings("ignore:Detected call of `lr_scheduler.step")
@pytest.mark.parametrize("step_every", ["batch", "epoch"])
@pytest.mark.parametrize("name", SCHEDULERS)
def test_scheduler_s_rates_are_those_of_skorch(name, step_every):
    policy, options = SCHEDULERS[name]
    found = []
    for kind, own in [
        (skorch.NeuralNetClassifier, {"train_split": None}),
        (NeuralNetClassifier, {"shuffle": False}),
    ]:
        scheduler = skorch.callbacks.LRScheduler(policy, step_every=step_every, **options)
        net = kind(
            Linear,
            criterion=nn.CrossEntropyLoss,
            optimizer=torch.optim.SGD,
            optimizer__momentum=0.5,
            callbacks=[scheduler, ("rates", Rates())],
            lr=0.02,
            max_epochs=2,
            batch_size=40,
            verbose=0,
            **own,
        )
        net.fit(X32, y.astype(np.int64))
        net.partial_fit(X32, y.astype(np.int64))
        found.append(dict(net.callbacks_)["rates"].rates)

    assert len(found[0]) == 12
    assert found[1] == found[0]


# --- memory ---------------------------------------------------------------------------------------


def test_local_classes_can_be_freed():
    class Local(Linear):
        pass

    class Net(NeuralNetClassifier):
        pass

    def build(n_outputs):
        return nn.Linear(4, n_outputs)

    alive = [weakref.ref(thing) for thing in (Local, Net, build)]
    Net(Local, max_epochs=1).fit(X, y)
    NeuralNetClassifier(build, max_epochs=1).fit(X, y)
    with joblib.parallel_config("sktune"):
        cross_val_score(NeuralNetClassifier(Local, max_epochs=1), X, y, cv=2, error_score="raise")
    del Local, Net, build
    gc.collect()

    assert [ref() for ref in alive] == [None] * 3
