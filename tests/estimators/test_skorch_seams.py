"""The private names of skorch that sktune uses: a test that fails says which one has moved."""

import inspect

import pytest
import skorch
import torch
from skorch import net as skorch_net
from skorch.callbacks import scoring

import sktune
from sktune.estimators.fit_loop import Training

PRIVATE = {
    "_modules": "the names of the modules",
    "_criteria": "the names of the criteria",
    "_optimizers": "the names of the optimizers",
}
HOOKS = {
    "_initialize_module": ["self", "reason"],
    "_initialize_criterion": ["self", "reason"],
    "_initialize_optimizer": ["self", "reason"],
    "_initialize_callbacks": ["self"],
    "_initialize_history": ["self"],
    "_initialize_virtual_params": ["self"],
    "_validate_params": ["self"],
    "_get_param_names": ["self"],
    "_get_predict_nonlinearity": ["self"],
    "_merge_x_and_fit_params": ["self", "x", "fit_params"],
    "_set_training": ["self", "training"],
    "initialize": ["self"],
    "initialize_module": ["self"],
    "initialize_optimizer": ["self", "triggered_directly"],
    "run_single_epoch": ["self", "iterator", "training", "prefix", "step_fn", "fit_params"],
}


class Plain(torch.nn.Linear):
    def __init__(self):
        super().__init__(2, 2)


@pytest.fixture
def net():
    return skorch.NeuralNet(Plain, criterion=torch.nn.MSELoss).initialize()


@pytest.mark.parametrize("name", PRIVATE)
def test_component_lists(net, name):
    ours = sktune.NeuralNetClassifier(Plain).initialize()
    assert getattr(net, name, None) == getattr(ours, name), (
        f"skorch.NeuralNet.{name} ({PRIVATE[name]}) must be registered for a net of sktune's, too"
    )


@pytest.mark.parametrize("name", HOOKS)
def test_hooks(name):
    hook = getattr(skorch.NeuralNet, name, None)
    assert hook is not None, (
        f"skorch.NeuralNet.{name} is gone; a class of sktune.estimators overrides or calls it"
    )

    found = list(inspect.signature(inspect.unwrap(hook)).parameters)

    assert found == HOOKS[name], (
        f"skorch.NeuralNet.{name} takes {found}, sktune was written for {HOOKS[name]}"
    )


def test_initialize_calls_the_hooks():
    source = inspect.getsource(skorch.NeuralNet.initialize)
    calls = [
        f"_initialize_{part}()"
        for part in ("callbacks", "module", "criterion", "optimizer", "history")
    ]

    places = [source.find(call) for call in calls]

    assert -1 not in places, (
        f"skorch.NeuralNet.initialize no longer calls {calls[places.index(-1)]}"
    )
    assert places == sorted(places), (
        "skorch.NeuralNet.initialize builds its components in another order"
    )


def test_prefixes(net):
    initialized = sktune.NeuralNetClassifier(Plain).initialize()
    ours = set(initialized.prefixes_) - {"lr_schedule", "augment"}
    assert set(net.prefixes_) == ours, f"skorch knows other prefixes: {set(net.prefixes_) ^ ours}"
    missing = set(net.cuda_dependent_attributes_) - set(initialized.cuda_dependent_attributes_)
    assert not missing, f"skorch pickles {missing} apart, too"


def test_attributes_of_a_new_net():
    ours = {
        name
        for kind in Training.__mro__
        for name in vars(kind)
        if not callable(getattr(Training, name)) and not name.startswith("__")
    }
    plain = skorch.NeuralNet(Plain, criterion=torch.nn.MSELoss)
    told = set(plain.get_params(deep=False)) | {"_params_to_validate"}

    unknown = set(vars(plain)) - told - ours

    assert unknown <= {"init_context_", "_kwargs"}, (
        f"skorch's constructor sets {unknown}, which sktune's does not"
    )


def test_parameters_that_are_validated(net):
    assert net._params_to_validate is not None, "skorch.NeuralNet._params_to_validate is gone"
    assert "_params_to_validate" in inspect.getsource(skorch_net), (
        "skorch.net no longer reads _params_to_validate"
    )


def test_scoring_hands_the_device_over():
    source = inspect.getsource(scoring._cache_net_forward_iter)
    assert "device=net.device" in source, (
        "skorch's cached forward_iter has changed: see NetworkEstimator._outputs"
    )
