"""Tables of labels as targets: multilabel classification."""

import pickle

import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch
from scipy import sparse
from sklearn.base import clone
from sklearn.datasets import make_multilabel_classification
from sklearn.metrics import accuracy_score
from sklearn.model_selection import cross_val_predict, cross_val_score
from sklearn.multioutput import MultiOutputClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from skorch.dataset import Dataset, ValidSplit
from torch import nn

from sktune import MLP, GridSearchCV, NeuralNetClassifier

X, Y = make_multilabel_classification(120, 6, n_classes=3, random_state=0)
X = StandardScaler().fit_transform(X)
ONE_HOT = np.eye(3, dtype=int)[Y.sum(axis=1) % 3]


class WithSigmoid(MLP):
    def forward(self, X):
        return super().forward(X).sigmoid()


class Own(nn.Module):
    """A module of the user's own."""

    def __init__(self, n_features, n_outputs):
        super().__init__()
        self.layer = nn.Linear(n_features, n_outputs)

    def forward(self, X):
        return self.layer(X)


def make_net(**params):
    hidden = {"module__hidden": (8,)} if params.get("module", WithSigmoid) is WithSigmoid else {}
    return NeuralNetClassifier(
        **{"max_epochs": 30, "lr": 0.03, "random_state": 0, **hidden, **params}
    )


WAYS = {
    "default": {},
    "logits": {"criterion": nn.BCEWithLogitsLoss},
    "instance": {"criterion": nn.BCEWithLogitsLoss()},
    "weighted": {
        "criterion": nn.BCEWithLogitsLoss,
        "criterion__pos_weight": torch.ones(3, dtype=torch.float32),
    },
    "probabilities": {"criterion": nn.BCELoss, "module": WithSigmoid},
    "own module": {"criterion": nn.BCEWithLogitsLoss, "module": Own},
}


@pytest.mark.parametrize("params", WAYS.values(), ids=WAYS)
def test_a_table_of_labels_is_learned(params):
    net = make_net(**params).fit(X, Y)
    proba = net.predict_proba(X)

    assert net.predict(X).shape == proba.shape == (120, 3)
    assert net.predict(X).tolist() == (proba > 0.5).astype(int).tolist()
    assert net.score(X, Y) == accuracy_score(Y, net.predict(X)) >= 0.4
    assert net.classes_.tolist() == [0, 1, 2]
    assert net.history[-1, "train_loss"] < net.history[0, "train_loss"]
    for other in (pickle.loads(pickle.dumps(net)), clone(net).fit(X, Y)):
        assert np.array_equal(other.predict_proba(X), proba)


def test_the_criterion_that_was_given_stays():
    net = make_net(max_epochs=1).fit(X, Y)

    assert net.get_params()["criterion"] is nn.CrossEntropyLoss
    assert type(net.criterion_) is nn.BCEWithLogitsLoss
    net.fit(X, Y[:, 0])
    assert type(net.criterion_) is nn.CrossEntropyLoss
    assert net.predict(X).shape == (120,)


TABLES = {
    "list": np.ndarray.tolist,
    "float": lambda table: table.astype(np.float32),
    "bool": lambda table: table.astype(bool),
    "unsigned": lambda table: table.astype(np.uint8),
    "frame": pd.DataFrame,
    "polars": lambda table: pl.DataFrame(table),
    "frame of several types": lambda table: pd.DataFrame(table).astype({0: bool, 1: float}),
    "sparse": sparse.csr_matrix,
    "sparse array": sparse.csc_array,
    "tensor": torch.tensor,
}


@pytest.mark.parametrize("make", TABLES.values(), ids=TABLES)
def test_tables_of_any_kind(make):
    table = make(Y)
    net = make_net(max_epochs=3).fit(X, table)

    assert np.array_equal(net.predict_proba(X), make_net(max_epochs=3).fit(X, Y).predict_proba(X))
    if isinstance(table, np.ndarray | sparse.sparray | sparse.spmatrix):
        assert net.predict(X).dtype == table.dtype
    assert net.score(X, table) == accuracy_score(Y, net.predict(X))


@pytest.mark.parametrize("scoring", ["f1_macro", "roc_auc", "accuracy", "average_precision"])
def test_scorers(scoring):
    assert (cross_val_score(make_net(), X, Y, cv=3, scoring=scoring) > 0.2).all()


@pytest.mark.parametrize("method", ["predict", "predict_proba", "predict_log_proba"])
def test_predictions_of_a_cross_validation(method):
    found = cross_val_predict(make_net(max_epochs=3), X, Y, cv=3, method=method)

    assert found.shape == (120, 3)
    if method == "predict":
        assert (
            found == cross_val_predict(make_net(max_epochs=3), X, sparse.csr_matrix(Y), cv=3)
        ).all()


def test_fused_search_in_a_pipeline():
    model = make_pipeline(StandardScaler(), make_net(max_epochs=5))
    grid = {
        "neuralnetclassifier__lr": [0.01, 0.03],
        "neuralnetclassifier__early_stopping": [False, True],
    }
    search = GridSearchCV(model, grid, cv=3, scoring="f1_macro", error_score="raise").fit(X, Y)

    assert search.fusion_.alone == []
    expected = []
    for params in search.cv_results_["params"]:
        candidate = clone(model).set_params(**params)
        expected.append(cross_val_score(candidate, X, Y, cv=3, scoring="f1_macro").mean())
    assert search.cv_results_["mean_test_score"] == pytest.approx(expected, abs=1e-6)
    assert search.predict(X).shape == (120, 3)


def test_weights_and_rows_held_out():
    weight = np.random.RandomState(0).randint(1, 4, size=120)
    params = {"batch_size": 1000, "max_epochs": 5}
    weighted = make_net(**params).fit(X, Y, sample_weight=weight)
    repeated = make_net(**params).fit(np.repeat(X, weight, axis=0), np.repeat(Y, weight, axis=0))
    assert weighted.predict_proba(X) == pytest.approx(repeated.predict_proba(X), abs=1e-4)

    for split in ({"early_stopping": True}, {"train_split": ValidSplit(5)}):
        net = make_net(**split).fit(X, Y)
        assert 0 <= net.best_validation_score_ <= 1
        assert net.score(X, Y) > 0.4


def test_partial_fit_of_labels():
    net = make_net(max_epochs=1).partial_fit(X, Y, classes=[0, 1, 2])
    net.partial_fit(X[:5], np.eye(3, dtype=int)[[0, 1, 2, 0, 1]])

    assert net.predict(X).shape == (120, 3)
    for bad in (Y[:, :2], Y[:, 0], Y * 2):
        with pytest.raises(
            ValueError, match="y must be a table of 0 and 1 of 3 columns, as in the first fit"
        ):
            net.partial_fit(X, bad)
    with pytest.raises(ValueError, match=r"classes must be those of the first call, \[0, 1, 2\]"):
        net.partial_fit(X, Y, classes=[0, 1])
    for classes in ({"classes": ["a", "b", "c"]}, {"classes": [0, 1]}):
        with pytest.raises(ValueError, match=r"classes must be None or range\(3\)"):
            make_net(**classes).fit(X, Y)


def test_class_weight_of_labels():
    with pytest.raises(
        ValueError, match="class_weight must come with one label for each row.*sample_weight"
    ):
        make_net(class_weight={0: 2.0}).fit(X, Y)


MISFITS = [{"criterion": nn.MultiMarginLoss}, {"module": Own}, {"criterion__label_smoothing": 0.1}]


def test_one_hot_tables_are_refused():
    with pytest.raises(
        ValueError, match=r"one-hot table of shape \(120, 3\): pass y.argmax\(axis=1\)"
    ):
        make_net().fit(X, ONE_HOT)
    assert make_net(max_epochs=1, criterion=nn.BCEWithLogitsLoss).fit(X, ONE_HOT).predict(
        X
    ).shape == (120, 3)


@pytest.mark.parametrize(
    "params",
    [{"criterion": nn.MultiMarginLoss}, {"module": Own}, {"criterion__label_smoothing": 0.1}],
)
def test_tables_that_cannot_be_learned_say_where_to_go(params):
    for table in (Y, ONE_HOT):
        with pytest.raises(
            ValueError, match="argmax.*criterion=nn.BCEWithLogitsLoss.*MultiOutputClassifier"
        ):
            make_net(**params).fit(X, table)


def test_other_tables_are_no_labels():
    for table in (Y * 2, Y - 1):
        with pytest.raises(
            ValueError, match="y must hold one label for each row.*MultiOutputClassifier"
        ):
            make_net().fit(X, table)
    with pytest.raises(ValueError, match="y should be a 1d array"):
        make_net().fit(X, Y + 0.5)
    with pytest.raises(
        ValueError, match=r"must have shape \(64, 3\): one logit or probability per row and label"
    ):
        make_net(module=nn.Linear(6, 2), criterion=nn.BCEWithLogitsLoss).fit(X, Y)


def test_datasets_and_dicts_bring_tables():
    data = Dataset(X.astype(np.float32), Y.astype(np.float32))
    params = {"module": nn.Linear(6, 3), "criterion": nn.BCEWithLogitsLoss, "max_epochs": 20}
    net = make_net(**params).fit(data, None)
    assert net.predict(data).shape == net.predict_proba(data).shape == (120, 3)
    assert net.score(data, Y) > 0.4

    class Named(Own):
        def forward(self, rows):
            return super().forward(rows)

    by_name = make_net(module=Named, module__n_features=6, criterion=nn.BCEWithLogitsLoss)
    by_name.fit({"rows": X.astype(np.float32)}, Y)
    assert by_name.predict({"rows": X.astype(np.float32)}).shape == (120, 3)


def test_the_way_that_is_named_works():
    assert MultiOutputClassifier(make_net(max_epochs=2)).fit(X, Y).predict(X).shape == (120, 3)
