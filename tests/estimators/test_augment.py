"""The parameter `augment` of the nets."""

import pickle
from functools import partial

import numpy as np
import pytest
import torch
from scipy import sparse
from scipy.stats import uniform
from sklearn.base import clone
from sklearn.datasets import make_classification
from sklearn.model_selection import GridSearchCV as TheirGridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from skorch.dataset import Dataset
from torch import nn

from sktune import (
    BayesSearchCV,
    GridSearchCV,
    ImageAugmentation,
    NeuralNetClassifier,
    NeuralNetRegressor,
    RandomizedSearchCV,
    TableAugmentation,
    zero_or,
)

X, y = make_classification(120, n_features=16, n_informative=8, random_state=0)
X = X.astype(np.float32)
pictures = X.reshape(120, 1, 4, 4)
SETTINGS = {"max_epochs": 2, "batch_size": 40, "module__hidden": (8,), "random_state": 0}


def net_of(**options):
    return NeuralNetClassifier(**{**SETTINGS, **options})


def weights_of(net):
    return torch.cat([p.detach().flatten() for p in net.module_.parameters()])


class Convolutional(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(8, 2))

    def forward(self, X):
        return self.layers(X)


WAYS = [
    {"augment": "table", "augment__noise": 0.5},
    {"augment": TableAugmentation, "augment__noise": 0.5},
    {"augment": TableAugmentation(noise=0.5)},
    {"augment": TableAugmentation(noise=0.1, mask=0.0), "augment__noise": 0.5},
]


@pytest.mark.parametrize("way", WAYS[1:])
def test_ways_to_say_the_same(way):
    expected = net_of(**WAYS[0]).fit(X, y)

    found = clone(net_of(**way)).fit(X, y)

    assert torch.equal(weights_of(found), weights_of(expected))
    assert not torch.equal(weights_of(found), weights_of(net_of().fit(X, y)))
    again = pickle.loads(pickle.dumps(found))
    assert again.get_params()["augment__noise"] == 0.5


def test_parameters_are_those_of_scikit_learn():
    net = net_of(augment=ImageAugmentation(degrees=10.0))

    assert net.get_params()["augment__degrees"] == 10.0
    assert "augment__degrees" not in net.get_params(deep=False)
    copy = clone(net).set_params(augment__degrees=20.0, augment__shift=0.1)
    assert clone(copy).get_params()["augment__degrees"] == 20.0
    assert (net.augment.degrees, copy.augment.degrees) == (10.0, 10.0)
    assert "ImageAugmentation(degrees=10.0)" in repr(net)


def test_training_alone_is_augmented():
    net = net_of(augment="table", augment__noise=3.0, max_epochs=1, lr=1e-9, batch_size=120)
    before = X.copy()

    net.fit(X, y)
    plain = net_of(max_epochs=1, lr=1e-9, batch_size=120).fit(X, y)

    np.testing.assert_array_equal(X, before)
    np.testing.assert_allclose(net.predict_proba(X), plain.predict_proba(X), atol=1e-4)
    assert abs(net.history[-1, "train_loss"] - plain.history[-1, "train_loss"]) > 0.01


def test_rows_held_out_are_not_augmented():
    settings = {"early_stopping": True, "max_epochs": 1, "lr": 1e-9}

    net = net_of(augment="table", augment__noise=3.0, **settings).fit(X, y)
    plain = net_of(**settings).fit(X, y)

    np.testing.assert_allclose(
        net.history[-1, "valid_loss"], plain.history[-1, "valid_loss"], rtol=1e-4
    )


SEARCHES = {
    "grid": partial(GridSearchCV, param_grid={"augment__noise": [0.0, 0.1, 0.5]}),
    "random": partial(
        RandomizedSearchCV,
        param_distributions={"augment__noise": zero_or(uniform(0, 1)), "lr": [1e-3, 1e-2]},
        n_iter=3,
        random_state=0,
    ),
    "bayes": partial(
        BayesSearchCV,
        param_distributions={"augment__noise": uniform(0, 1), "augment__mask": uniform(0, 0.5)},
        n_iter=3,
        batch_size=3,
        random_state=0,
    ),
}


@pytest.mark.parametrize("name", SEARCHES)
def test_strengths_are_searched_in_one_group(name):
    search = SEARCHES[name](net_of(augment="table"), cv=2, scoring="neg_log_loss").fit(X, y)

    assert search.fusion_.alone == []
    assert [group["lanes"] for group in search.fusion_.groups] == [6]
    assert len(set(search.cv_results_["mean_test_score"])) > 1


def test_augmentation_itself_is_searched():
    grid = [
        {"augment": [None]},
        {"augment": ["table"], "augment__noise": [0.1, 0.5]},
        {"augment": [TableAugmentation(mixup=0.3), ImageAugmentation(0.5, image_shape=(4, 4))]},
    ]
    search = GridSearchCV(net_of(), grid, cv=2, refit=False).fit(X, y)

    assert search.fusion_.alone == []
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    # mixup gives rows two labels, which all lanes of a group are trained with
    assert [group["lanes"] for group in search.fusion_.groups] == [10]


def test_pipeline_in_a_search():
    pipeline = make_pipeline(StandardScaler(), net_of(augment="table"))
    grid = {"neuralnetclassifier__augment__noise": [0.0, 0.3]}

    search = GridSearchCV(pipeline, grid, cv=2).fit(X, y)
    theirs = TheirGridSearchCV(pipeline, grid, cv=2).fit(X, y)

    assert [group["lanes"] for group in search.fusion_.groups] == [4]
    np.testing.assert_allclose(
        search.cv_results_["mean_test_score"], theirs.cv_results_["mean_test_score"], atol=1e-6
    )


class Own(TableAugmentation):
    def __init__(self):
        super().__init__(noise=0.1)


WRONG = [
    ({"augment": "tables"}, "augment must be 'images', 'table', an ImageAugmentation"),
    ({"augment": 3}, "function of a batch, got augment=3"),
    ({"augment": Own()}, r"function of a batch, got augment=Own\(\)"),
    ({"augment": nn.Dropout}, "function of a batch, got augment=<class"),
    ({"augment__noise": 0.1}, "augment__noise must come with augment='images' or augment='table'"),
    ({"augment": np.abs, "augment__noise": 0.1}, "got augment=a function"),
    ({"augment": "table", "augment__degrees": 3}, "has no parameter 'augment__degrees'"),
    ({"augment": "table", "augment__nois": 3}, "did you mean 'augment__noise'"),
    ({"augment": "table", "augment__noise": -1}, "must be a non-negative finite number, got .*=-1"),
    ({"augment": "table", "augment__noise": np.nan}, "augment__noise must be a non-negative"),
    ({"augment": "table", "augment__noise": True}, "got augment__noise=True"),
    ({"augment": "table", "augment__noise": "1"}, "got augment__noise='1'"),
    ({"augment": TableAugmentation(mask=1.0)}, "augment__mask must be .* less than 1, got .*=1.0"),
    ({"augment": "table", "augment__mixup": np.inf}, "got augment__mixup=inf"),
    ({"augment": "table", "augment__columns": ["a"]}, "augment__columns must be a list of numbers"),
    ({"augment": "table", "augment__columns": 1}, "augment__columns must be a list of numbers"),
    ({"augment": "table", "augment__columns": [3, 16]}, r"from 0 to 15, got \[16\]"),
    ({"augment": "images"}, r"got rows of shape \(16,\): pass augment__image_shape="),
    ({"augment": "images", "augment__image_shape": (4, 5)}, "as many numbers as a row, 16, got"),
    ({"augment": "images", "augment__image_shape": 16}, r"must be \(height, width\) or"),
    ({"augment": "images", "augment__degrees": -5}, "between 0 and 180, got augment__degrees=-5"),
    ({"augment": "images", "augment__p_flip": 1.2}, "between 0 and 1, got augment__p_flip=1.2"),
    ({"augment": "images", "augment__scale": 1}, "less than 1, got augment__scale=1"),
    ({"augment": "images", "augment__fill": None}, "a finite number, got augment__fill=None"),
]


@pytest.mark.parametrize(("options", "message"), WRONG)
def test_wrong_augmentation(options, message):
    with pytest.raises(ValueError, match=message):
        net_of(**options).fit(X, y)
    # the same by the engine
    with pytest.raises(ValueError, match=message):
        GridSearchCV(net_of(**options), {"lr": [0.1, 0.2]}, cv=2, error_score="raise").fit(X, y)


def test_wrong_value_in_a_search_fails_alone():
    grid = {"augment__mask": [0.1, 1.0, 0.2], "augment__mixup": [0.0]}
    search = GridSearchCV(net_of(augment="table"), grid, cv=2, error_score=-1.0)

    with pytest.warns(match="augment__mask must be a number of at least 0 and less than 1"):
        search.fit(X, y)

    assert (search.cv_results_["mean_test_score"] == -1).tolist() == [False, True, False]
    assert [group["lanes"] for group in search.fusion_.groups] == [4]


class Unreducible(nn.Module):
    def forward(self, y_pred, y_true):
        return nn.functional.cross_entropy(y_pred, y_true)


def test_mixup_needs_a_loss_for_each_row():
    net = net_of(augment="table", criterion=Unreducible)

    net.fit(X, y)
    with pytest.raises(ValueError, match="augment__mixup must come with a criterion that gives"):
        net.set_params(augment__mixup=0.2).fit(X, y)


def test_integers_that_are_embedded_cannot_be_changed():
    module = nn.Sequential(nn.Embedding(5, 3), nn.Flatten(), nn.Linear(6, 2))
    categories = np.tile([[0, 1], [3, 4]], (60, 1))
    net = NeuralNetClassifier(module, augment="table", augment__noise=0.1)

    with pytest.raises(ValueError, match="must come with rows of floating numbers, got integers"):
        net.fit(categories, y)


def test_sparse_table():
    net = net_of(augment="table", augment__noise=0.5, augment__mixup=0.2)

    dense = clone(net).fit(X, y)
    of_sparse = clone(net).fit(sparse.csr_matrix(X), y)

    torch.testing.assert_close(weights_of(of_sparse), weights_of(dense), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("mixup", [0.0, 0.5])
def test_batches_of_a_dataset_are_augmented_as_those_of_a_table(mixup):
    # without shuffling a DataLoader makes the same batches
    net = net_of(augment="table", augment__noise=0.5, augment__mixup=mixup, shuffle=False)

    of_table = clone(net).fit(X, y)
    dataset = Dataset(X, y)
    of_dataset = clone(net).set_params(module__n_features=16, module__n_outputs=2)
    of_dataset.fit(dataset, None)

    torch.testing.assert_close(weights_of(of_dataset), weights_of(of_table), rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(dataset.X, X)


def test_dict_of_arrays_takes_functions_only():
    class OfParts(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(16, 2)

        def forward(self, table):
            return self.layer(table)

    net = NeuralNetClassifier(OfParts, augment="table", augment__noise=0.1, **CALLED)

    with pytest.raises(ValueError, match="rows are a tensor, got dict"):
        net.fit({"table": X}, y)
    net.set_params(augment=lambda X: {"table": 0 * X["table"]})
    del net.augment__noise
    net.fit({"table": X}, y)
    assert net.module_.layer.weight.grad.abs().max() == 0


CALLED = {"max_epochs": 2, "batch_size": 40, "random_state": 0}


@pytest.mark.parametrize("regressor", [False, True])
def test_function_of_the_users(regressor):
    kind = NeuralNetRegressor if regressor else NeuralNetClassifier
    calls = []

    def shake(X, y, generator):
        calls.append((tuple(X.shape), y.dtype))
        return X + torch.randn(X.shape, generator=generator), y

    net = kind(augment=shake, **SETTINGS).fit(X, y)
    again = kind(augment=shake, **SETTINGS).fit(X, y)

    assert torch.equal(weights_of(net), weights_of(again))
    assert not torch.equal(weights_of(net), weights_of(kind(**SETTINGS).fit(X, y)))
    dtype = torch.float32 if regressor else torch.int64
    assert calls == [((40, 16), dtype)] * 12


def test_images_of_any_net():
    net = NeuralNetClassifier(
        Convolutional, augment="images", augment__degrees=30.0, augment__p_flip=0.5, **CALLED
    )
    search = GridSearchCV(net, {"augment__shift": [0.0, 0.2]}, cv=2).fit(pictures, y)

    assert [group["lanes"] for group in search.fusion_.groups] == [4]
    assert search.predict(pictures).shape == (120,)


def test_set_params_takes_effect_with_the_next_training():
    net = net_of(augment="table").fit(X, y)
    before = weights_of(net)

    net.set_params(augment__noise=0.5)
    assert torch.equal(weights_of(net), before)
    net.partial_fit(X, y)

    expected = net_of().fit(X, y).set_params(augment="table", augment__noise=0.5)
    assert torch.equal(weights_of(net), weights_of(expected.partial_fit(X, y)))


def test_noise_helps_where_labels_are_wrong():
    table, labels = make_classification(
        1500, 20, n_informative=10, n_redundant=0, flip_y=0, class_sep=1.2, random_state=0
    )
    given = labels[:300].copy()
    is_wrong = np.random.default_rng(0).random(300) < 0.25
    given[is_wrong] = 1 - given[is_wrong]
    net = net_of(module__hidden=(64,), lr=0.01, max_epochs=60, batch_size=32, augment="table")

    scores = []
    for noise in (0.0, 1.0):
        net.set_params(augment__noise=noise).fit(table[:300], given)
        scores.append(net.score(table[300:], labels[300:]))

    # by heart without noise
    assert scores[0] + 0.04 < scores[1]


def test_shifts_help_where_images_are_shifted():
    lines = np.zeros((64, 1, 8, 8), np.float32)
    lines[::2, 0, 4, 2:6] = 1
    lines[1::2, 0, 2:6, 4] = 1
    directions = np.arange(64) % 2
    elsewhere = np.stack(
        [np.roll(X, shift, (1, 2)) for X, shift in zip(lines, SHIFTS, strict=True)]
    )
    net = net_of(augment=ImageAugmentation(), lr=0.01, max_epochs=30, batch_size=16)

    scores = []
    for shift in (0.0, 0.25):
        net.set_params(augment__shift=shift, augment__image_shape=(8, 8))
        net.fit(lines.reshape(64, 64), directions)
        scores.append(net.score(elsewhere.reshape(64, 64), directions))

    assert scores[0] < 0.8 < 0.95 < scores[1]


SHIFTS = np.random.default_rng(0).integers(-2, 3, (64, 2)).tolist()
