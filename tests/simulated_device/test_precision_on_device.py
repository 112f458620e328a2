"""Products of lower precision are those of training steps alone, and are summed in float32."""

import joblib
import numpy as np
import pytest
import torch
from parity import RAGGED, X, search, y
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from torch import nn

from sktune import NeuralNetClassifier
from sktune.engine.steps import recorded
from sktune.engine.steps.chain import Chain
from sktune.engine.steps.network import StackedNet

MATMUL = torch.backends.cuda.matmul
NAME = "fp32_precision" if hasattr(MATMUL, "fp32_precision") else "allow_tf32"
NET = NeuralNetClassifier(module__hidden=(8,), max_epochs=4, batch_size=16, random_state=0)


@pytest.fixture(autouse=True)
def _device(gpu, monkeypatch):
    monkeypatch.setattr(recorded, "FEWEST_STEPS", 1)


@pytest.mark.parametrize("early_stopping", [False, True])
def test_tf32_holds_for_training_steps_only(monkeypatch, early_stopping):
    found = {True: set(), False: set()}
    forward = StackedNet.forward

    def note(self, X, training, *step):
        found[training].add(getattr(MATMUL, NAME))
        return forward(self, X, training, *step)

    monkeypatch.setattr(StackedNet, "forward", note)
    before = getattr(MATMUL, NAME)
    net = clone(NET).set_params(early_stopping=early_stopping)
    with joblib.parallel_config("sktune", precision="tf32", n_jobs=3):
        GridSearchCV(net, {"batch_size": [8, 16, 32]}, cv=RAGGED, refit=False).fit(X, y)

    # a trial before the training has the setting of the process
    assert found[True] - {before} in ({"tf32"}, {True})
    assert found[False] == {before}
    assert getattr(MATMUL, NAME) == before


@pytest.mark.skipif(NAME == "allow_tf32", reason="this torch has no newer setting")
@pytest.mark.parametrize("precision", [None, "tf32", "bf16"])
def test_the_newer_setting_of_the_user_stays(precision):
    before = MATMUL.fp32_precision
    try:
        # from now on torch refuses to tell it by its older name
        MATMUL.fp32_precision = "ieee"
        with joblib.parallel_config("sktune", precision=precision):
            found = GridSearchCV(NET, {"lr": [0.01, 0.03]}, cv=RAGGED, refit=False).fit(X, y)
        assert MATMUL.fp32_precision == "ieee"
    finally:
        MATMUL.fp32_precision = before
    assert np.isfinite(found.cv_results_["mean_test_score"]).all()


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_gradients_of_rounded_factors_are_summed_in_float32(device):
    n_rows = 1001
    shapes = {"0.weight": (1, 1, 1), "0.bias": (1, 1)}
    parameters = {name: torch.zeros(shape, device=device) for name, shape in shapes.items()}
    gradients = {name: torch.zeros(shape, device=device) for name, shape in shapes.items()}
    layers = {"0": nn.Linear(1, 1)}
    chain = Chain(layers, parameters, gradients, [], product_dtype=torch.bfloat16)
    rows = torch.ones(1, n_rows, 1, device=device)
    chain.forward(rows, (0, 0))
    chain.backward(rows.clone())

    # bfloat16 would make 1000 of it
    assert gradients["0.weight"].item() == n_rows
    assert gradients["0.bias"].item() == n_rows


def test_rounded_products_are_recorded():
    exact, _, _ = search(NET, [{"lr": 0.01}, {"lr": 0.03}], X, y)
    with joblib.parallel_config("sktune", precision="bf16"):
        rounded = GridSearchCV(NET, {"lr": [0.01, 0.03]}, cv=RAGGED, refit=False).fit(X, y)

    np.testing.assert_allclose(
        rounded.cv_results_["mean_test_score"], exact.cv_results_["mean_test_score"], atol=0.1
    )
