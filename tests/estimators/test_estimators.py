import pickle
import warnings

import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch
from sklearn.datasets import make_classification
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, r2_score
from sklearn.utils.class_weight import compute_sample_weight
from torch import nn

from sktune import NeuralNetClassifier, NeuralNetRegressor

X, y = make_classification(
    120, 4, n_informative=3, n_redundant=0, n_classes=3, n_clusters_per_class=1, random_state=0
)


def make_net(kind=NeuralNetClassifier, **params):
    hidden = {} if "module" in params else {"module__hidden": (8,)}
    return kind(**{"max_epochs": 20, "lr": 0.03, "random_state": 0, **hidden, **params})


# --- labels ---------------------------------------------------------------------------------------

LABELS = {
    "text": np.array(["red", "green", "blue"]),
    "objects": np.array(["red", "green", "blue"], dtype=object),
    "gapped": np.array([7, -2, 1000]),
    "whole floats": np.array([1.0, 0.0, 5.0]),
    "small": np.array([3, 2, 1], dtype=np.int8),
    "big-endian": np.array([3, 2, 1], dtype=">i8"),
    "large": np.array([2**62, -(2**62), 0]),
}
CONTAINERS = {
    "array": np.asarray,
    "list": np.ndarray.tolist,
    "pandas": pd.Series,
    "categorical": lambda labels: pd.Series(labels.tolist()).astype("category"),
    "polars": lambda labels: pl.Series(labels.tolist()),
    "read-only": lambda labels: np.broadcast_to(labels, labels.shape),
}


@pytest.mark.parametrize("labels", LABELS.values(), ids=LABELS)
@pytest.mark.parametrize("container", CONTAINERS.values(), ids=CONTAINERS)
def test_labels_come_back(labels, container):
    given = container(labels[y])
    net = make_net().fit(X, given)
    numbers = make_net().fit(X, np.argsort(np.argsort(labels))[y])

    assert net.classes_.tolist() == sorted(labels.tolist())
    assert net.predict(X).tolist() == net.classes_[numbers.predict(X)].tolist()
    assert np.array_equal(net.predict_proba(X), numbers.predict_proba(X))
    assert net.score(X, given) == accuracy_score(labels[y], net.predict(X)) > 0.8


@pytest.mark.parametrize("make", [np.asarray, list, torch.tensor, pd.Series])
def test_booleans(make):
    net = make_net().fit(X, make((y == 1).tolist()))

    assert net.classes_.tolist() == [False, True]
    assert net.predict(X).dtype == bool


def test_labels_of_a_tensor():
    assert make_net().fit(X, torch.tensor(y)).score(X, torch.tensor(y)) > 0.8


def test_probabilities_are_ordered_like_the_classes():
    proba = make_net().fit(X, y).predict_proba(X)

    assert proba.shape == (120, 3)
    assert proba.sum(axis=1) == pytest.approx(1)
    assert proba[np.arange(120), y].mean() > 0.6


def test_logarithms_of_probabilities():
    net = make_net().fit(X, y)
    certain = make_net(
        module=Probabilities, criterion=nn.NLLLoss, predict_nonlinearity=torch.round
    ).fit(X, y)

    assert np.array_equal(net.predict_log_proba(X), np.log(net.predict_proba(X)))
    assert set(np.unique(certain.predict_log_proba(X))) == {-np.inf, 0}
    assert not hasattr(NeuralNetRegressor(), "predict_log_proba")


@pytest.mark.parametrize("classes", [[0, 1, 2, 9], np.array([9, 2, 1, 0])])
def test_classes_that_the_data_lack(classes):
    net = make_net(classes=classes).fit(X, y)

    assert net.classes_.tolist() == [0, 1, 2, 9]
    assert net.predict_proba(X).shape == (120, 4)
    assert net.score(X, y) > 0.8


def test_label_that_is_not_among_the_given_classes():
    with pytest.raises(ValueError, match=r"y must hold the classes \[0, 1\] only, got also \[2\]"):
        make_net(classes=[0, 1]).fit(X, y)


def test_score_counts_unseen_labels_as_errors():
    net = make_net().fit(X[y < 2], y[y < 2])

    with pytest.warns(
        UserWarning, match=r"y should hold labels seen in fit, got also \[2\]: they count as errors"
    ) as caught:
        score = net.score(X, y)

    assert score == accuracy_score(y, net.predict(X))
    assert [warning.filename for warning in caught] == [__file__]


def test_score_takes_weights():
    net = make_net(max_epochs=1).fit(X, y)
    weight = np.random.RandomState(0).uniform(size=120)

    assert net.score(X, y, sample_weight=weight) == accuracy_score(
        y, net.predict(X), sample_weight=weight
    )


# --- class weights --------------------------------------------------------------------------------


@pytest.mark.parametrize("labels", [y, np.array(["a", "b", "c"])[y]], ids=["numbers", "text"])
@pytest.mark.parametrize("kind", ["balanced", "dict"])
@pytest.mark.parametrize("with_weights", [False, True])
def test_class_weight_is_a_sample_weight(labels, kind, with_weights):
    kept = np.r_[np.flatnonzero(y < 2), np.flatnonzero(y == 2)[:7]]
    table, labels = X[kept], labels[kept]
    class_weight = (
        "balanced"
        if kind == "balanced"
        else dict(zip(np.unique(labels).tolist(), [1, 2, 9], strict=True))
    )
    weight = np.random.RandomState(0).uniform(size=len(kept)) if with_weights else None

    by_class = make_net(class_weight=class_weight).fit(table, labels, sample_weight=weight)
    factors = compute_sample_weight(class_weight, labels) * (1 if weight is None else weight)
    by_row = make_net().fit(table, labels, sample_weight=factors)

    assert np.array_equal(by_class.predict_proba(table), by_row.predict_proba(table))
    assert not np.array_equal(
        by_class.predict_proba(table), make_net().fit(table, labels).predict_proba(table)
    )


def test_class_weight_of_another_class():
    with pytest.raises(ValueError, match=r"The classes, \[.*\], are not in class_weight"):
        make_net(class_weight={0: 1.0, 7: 1.0}).fit(X, y)


# --- criteria -------------------------------------------------------------------------------------


class Probabilities(nn.Module):
    """Returns probabilities: of each class, or of the second."""

    def __init__(self, n_features, n_outputs, flat=False):
        super().__init__()
        self.layer = nn.Linear(n_features, n_outputs)
        self.flat = flat

    def forward(self, X):
        out = self.layer(X)
        out = torch.softmax(out, 1) if out.shape[1] > 1 else torch.sigmoid(out)
        return out[:, 0] if self.flat else out


def test_likelihood_of_probabilities_is_cross_entropy_of_logits():
    as_in_skorch = make_net(module=Probabilities, criterion=nn.NLLLoss).fit(X, y)
    logits = make_net(module=nn.Linear, module__in_features=4, module__out_features=3).fit(X, y)

    assert as_in_skorch.predict_proba(X) == pytest.approx(logits.predict_proba(X), abs=1e-4)


BINARY = {
    "logits": {"criterion": nn.BCEWithLogitsLoss},
    "instance": {"criterion": nn.BCEWithLogitsLoss()},
    "probabilities": {"criterion": nn.BCELoss, "module": Probabilities},
    "flat": {"criterion": nn.BCELoss, "module": Probabilities, "module__flat": True},
}


@pytest.mark.parametrize("params", BINARY.values(), ids=BINARY)
@pytest.mark.parametrize(
    "labels", [np.array([0, 1]), np.array(["no", "yes"]), np.array([False, True])]
)
def test_binary_criteria(params, labels):
    target = labels[(y == 1).astype(int)]
    net = make_net(**params).fit(X, target)
    proba = net.predict_proba(X)

    assert proba.shape == (120, 2)
    assert proba.sum(axis=1) == pytest.approx(1)
    assert net.predict(X).tolist() == labels[(proba[:, 1] > 0.5).astype(int)].tolist()
    assert net.score(X, target) > 0.75
    assert np.array_equal(pickle.loads(pickle.dumps(net)).predict_proba(X), proba)


@pytest.mark.parametrize("params", BINARY.values(), ids=BINARY)
def test_binary_criteria_take_weights(params):
    target, weight = (y == 1).astype(int), np.random.RandomState(0).randint(1, 4, size=120)
    params = {**params, "batch_size": 1000, "max_epochs": 5}

    weighted = make_net(**params).fit(X, target, sample_weight=weight)
    repeated = make_net(**params).fit(np.repeat(X, weight, axis=0), np.repeat(target, weight))

    assert weighted.predict_proba(X) == pytest.approx(repeated.predict_proba(X), abs=1e-4)


def test_binary_criterion_with_three_classes():
    with pytest.raises(
        ValueError, match="criterion=BCEWithLogitsLoss must come with 2 classes, got 3"
    ):
        make_net(criterion=nn.BCEWithLogitsLoss).fit(X, y)


def test_binary_dataset():
    data = torch.utils.data.TensorDataset(torch.tensor(X).float(), torch.tensor(y == 1).float())
    net = make_net(module=nn.Sequential(nn.Linear(4, 1)), criterion=nn.BCEWithLogitsLoss).fit(
        data, None
    )

    assert (net.predict(data) == (y == 1)).mean() > 0.75


@pytest.mark.parametrize(
    "criterion", [nn.MultiMarginLoss, nn.CrossEntropyLoss(label_smoothing=0.1)]
)
def test_other_criteria(criterion):
    assert make_net(criterion=criterion).fit(X, y).score(X, y) > 0.8


def test_arguments_of_the_criterion():
    smooth, plain = (
        make_net(criterion__label_smoothing=s).fit(X, y).predict_proba(X).max() for s in (0.5, 0.0)
    )

    assert smooth < plain


@pytest.mark.parametrize(
    ("nonlinearity", "expected"),
    [
        ("auto", lambda logits: torch.softmax(logits, 1)),
        (None, lambda logits: logits),
        (torch.exp, torch.exp),
    ],
    ids=["auto", "None", "function"],
)
def test_predict_nonlinearity(nonlinearity, expected):
    net = make_net(predict_nonlinearity=nonlinearity).fit(X, y)

    assert net.predict_proba(X) == pytest.approx(expected(net.forward(X)).numpy(), rel=1e-5)


def test_module_of_several_outputs():
    class Pair(nn.Linear):
        def forward(self, X):
            return super().forward(X), X

    class First(NeuralNetClassifier):
        def get_loss(self, y_pred, y_true, **kwargs):
            return super().get_loss(y_pred[0], y_true, **kwargs)

    net = make_net(First, module=Pair, module__in_features=4, module__out_features=3).fit(X, y)

    assert net.predict_proba(X).shape == (120, 3)
    assert net.score(X, y) > 0.7


def test_without_hidden_layers_it_is_logistic_regression():
    params = {
        "optimizer": torch.optim.LBFGS,
        "lr": 1.0,
        "batch_size": 1000,
        "module__dtype": torch.float64,
    }
    net = make_net(module__hidden=(), l2=0.01, **params).fit(X, y)
    linear = LogisticRegression(C=1 / (2 * 0.01 * 120), tol=1e-8).fit(X, y)

    assert net.predict_proba(X) == pytest.approx(linear.predict_proba(X), abs=1e-4)


@pytest.mark.parametrize("lr_schedule", ["one_cycle", "cosine"])
def test_batch_norm_and_dropout_learn(lr_schedule):
    params = {"module__batch_norm": True, "module__dropout": 0.2, "module__hidden": (32, 16)}

    assert make_net(**params, lr_schedule=lr_schedule).fit(X, y).score(X, y) > 0.85


# --- regression -----------------------------------------------------------------------------------

TARGET = X[:, 0] - 0.5 * X[:, 1]


class Flat(nn.Module):
    """Returns a vector."""

    def __init__(self, n_features):
        super().__init__()
        self.layer = nn.Linear(n_features, 1)

    def forward(self, X):
        return self.layer(X)[:, 0]


class Column(Flat):
    """Returns a column."""

    def forward(self, X):
        return self.layer(X)


@pytest.mark.parametrize("module", [Flat, Column])
@pytest.mark.parametrize("shape", [(120,), (120, 1)], ids=["vector", "column"])
@pytest.mark.parametrize("weight", [None, np.linspace(1, 2, 120)], ids=["equal", "weighted"])
def test_targets_meet_their_own_rows(module, shape, weight):
    """A vector against a column would be broadcast to a square, whose best answer is the mean."""
    net = make_net(NeuralNetRegressor, module=module, lr=0.2, max_epochs=40)
    target = TARGET.reshape(shape)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        net.fit(X, target, sample_weight=weight)

    assert net.predict(X).shape == shape
    assert net.score(X, target) > 0.99


@pytest.mark.parametrize("shape", [(120,), (120, 1), (120, 3)])
@pytest.mark.parametrize(
    "make", [np.asarray, np.ndarray.tolist, torch.from_numpy], ids=["array", "list", "tensor"]
)
def test_predictions_are_shaped_like_the_targets(shape, make):
    target = np.random.RandomState(0).randn(*shape)
    net = make_net(NeuralNetRegressor, max_epochs=1).fit(X, make(target))

    assert net.predict(X).shape == shape
    assert net.n_outputs_ == int(np.prod(shape[1:]))


def test_frame_of_targets():
    target = pd.DataFrame({"u": TARGET, "v": -TARGET})
    net = make_net(NeuralNetRegressor, max_epochs=40).fit(X, target)

    assert net.score(X, target) == r2_score(target, net.predict(X)) > 0.9


@pytest.mark.parametrize("dtype", ["i4", "u1", "?", "f2", "f4", ">f8", ">f4", "object"])
def test_dtypes_of_targets(dtype):
    target = (y == 1).astype(dtype)
    net = make_net(NeuralNetRegressor, max_epochs=2).fit(X, target)
    expected = make_net(NeuralNetRegressor, max_epochs=2).fit(X, target.astype(float))

    assert np.array_equal(net.predict(X), expected.predict(X))


def test_targets_of_a_polars_series():
    assert (
        make_net(NeuralNetRegressor, max_epochs=40)
        .fit(X, pl.Series(TARGET))
        .score(X, pl.Series(TARGET))
        > 0.9
    )


@pytest.mark.parametrize("criterion", [nn.L1Loss, nn.SmoothL1Loss, nn.HuberLoss(delta=0.5)])
def test_criteria_of_regression(criterion):
    assert (
        make_net(NeuralNetRegressor, criterion=criterion, max_epochs=60)
        .fit(X, TARGET)
        .score(X, TARGET)
        > 0.9
    )


def test_regressor_has_no_probabilities():
    assert not hasattr(NeuralNetRegressor(), "predict_proba")
    assert hasattr(NeuralNetClassifier(), "predict_proba")


class Squeezed(nn.Module):
    """Returns probabilities: a column per target, or a vector."""

    def __init__(self, n_features, n_outputs, flat=False):
        super().__init__()
        self.layer = nn.Linear(n_features, n_outputs)
        self.flat = flat

    def forward(self, X):
        out = torch.sigmoid(self.layer(X))
        return out[:, 0] if self.flat else out


class DerivedLoss(nn.BCEWithLogitsLoss):
    pass


FRACTIONS = {
    "logits": {"criterion": nn.BCEWithLogitsLoss},
    "instance": {"criterion": nn.BCEWithLogitsLoss()},
    "derived": {"criterion": DerivedLoss},
    "probabilities": {"criterion": nn.BCELoss, "module": Squeezed},
}


@pytest.mark.parametrize("params", FRACTIONS.values(), ids=FRACTIONS)
@pytest.mark.parametrize("shape", [(120,), (120, 1), (120, 3)])
def test_regressor_of_fractions_predicts_one_probability_per_target(params, shape):
    fractions = np.random.RandomState(0).uniform(size=shape)
    net = make_net(NeuralNetRegressor, max_epochs=2, **params).fit(X, fractions)
    outputs = net.forward(X).numpy()
    expected = outputs if params["criterion"] is nn.BCELoss else 1 / (1 + np.exp(-outputs))

    assert net.predict(X).shape == shape
    assert net.predict(X) == pytest.approx(expected.reshape(shape), abs=1e-6)
    assert np.array_equal(pickle.loads(pickle.dumps(net)).predict(X), net.predict(X))
    before = net.predict(X)
    net.trim_for_prediction()
    assert np.array_equal(net.predict(X), before)


def test_regressor_of_fractions_learns():
    fractions = 1 / (1 + np.exp(-2 * TARGET))
    flat = {"criterion": nn.BCELoss, "module": Squeezed, "module__flat": True}
    for params in ({"criterion": nn.BCEWithLogitsLoss}, flat):
        assert (
            make_net(NeuralNetRegressor, max_epochs=40, **params)
            .fit(X, fractions)
            .score(X, fractions)
            > 0.9
        )


@pytest.mark.parametrize("criterion", [nn.BCELoss, nn.BCEWithLogitsLoss()])
def test_targets_of_a_binary_criterion_are_fractions(criterion):
    with pytest.raises(
        ValueError,
        match=r"y must be between 0 and 1 under criterion=BCE\w+, got numbers from -1 to 2",
    ):
        make_net(NeuralNetRegressor, criterion=criterion).fit(X, np.where(y == 1, 2, -1))


class Wider(nn.Linear):
    """Has a number too many once it is fitted."""

    def __init__(self, n_features, n_outputs):
        super().__init__(n_features, n_outputs)

    def forward(self, X):
        out = super().forward(X)
        return out if self.training else torch.cat([out, out[:, :1]], dim=1)


def test_outputs_that_do_not_fit_the_targets_are_named():
    with pytest.raises(
        ValueError, match=r"one number for each of 120 rows and 2 targets, got .* shape \(120, 3\)"
    ):
        make_net(NeuralNetRegressor, module=Wider, max_epochs=1).fit(X, X[:, :2]).predict(X)

    class Own(nn.Module):
        def forward(self, y_pred, y_true):
            return nn.functional.cross_entropy(y_pred, y_true)

    message = r"one number for each of 120 rows and 3 classes, got .* shape \(120, 4\)"
    with pytest.raises(ValueError, match=message):
        make_net(module=Wider, max_epochs=1).fit(X, y).predict(X)
    net = make_net(module=Wider, criterion=Own, max_epochs=1).fit(X, y)
    for method in (net.predict, net.predict_proba):
        with pytest.raises(ValueError, match=message):
            method(X)
