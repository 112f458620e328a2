"""Parameters that no gradient of the loss reaches, in nets that a GPU trains by recorded steps."""

import pytest
import torch
from parity import X, assert_parity, assert_same_net, compiled_steps, search, y
from skorch.callbacks import GradientNormClipping
from test_alone_on_device import bring_home
from test_idle_parameters import LANES, PENALIZED, Gated, IdleBatchNorm, IdleLinear, InLargeBatches
from torch import nn

from sktune import NeuralNetClassifier

OPTIONS = {
    "adamw": {"optimizer": torch.optim.AdamW, "optimizer__weight_decay": 0.1},
    "momentum": {"optimizer": torch.optim.SGD, "optimizer__momentum": 0.9},
    "sgd": {"optimizer": torch.optim.SGD},
    "clip": {"callbacks": [GradientNormClipping(0.2)]},
    "penalties": {"l1": 0.01, "l2": 0.1, "clip_grad_norm": 0.3},
}
pytestmark = pytest.mark.usefixtures("recording_gpu")


def make(module=IdleLinear, **options):
    options = {"max_epochs": 4, "batch_size": 16, "random_state": 3, **options}
    return NeuralNetClassifier(module, **options)


class IdleAndFrozen(IdleLinear):
    def make(self):
        self.frozen = nn.Linear(3, 3, dtype=torch.float64).requires_grad_(False)


@pytest.mark.parametrize("module", [IdleLinear, IdleBatchNorm, Gated, IdleAndFrozen])
@pytest.mark.parametrize("name", OPTIONS)
def test_a_fit_alone_is_that_of_the_processor(gpu, module, name):
    nets = []
    for device in ("cpu", "cuda"):
        with compiled_steps(False):
            net = make(module, device=device, **OPTIONS[name]).fit(X, y)
            nets.append(net.partial_fit(X, y))

    assert gpu.counts().replays >= 2 * 4
    assert nets[1].module_.output.weight.grad is not None
    has_gradients = [p.grad is not None for p in nets[0].module_.parameters()]
    assert [p.grad is not None for p in nets[1].module_.parameters()] == has_gradients
    assert_same_net(nets[0], bring_home(nets[1]))


@pytest.mark.parametrize("module", [IdleLinear, IdleBatchNorm, Gated])
@pytest.mark.parametrize("candidates", [LANES, PENALIZED, [*LANES, *PENALIZED]])
def test_fits_together_are_those_of_torch(gpu, module, candidates):
    report = assert_parity(make(module, device="cuda"), candidates, X, y)

    assert {group["steps"] for group in report.groups} == {"recorded"}
    assert gpu.counts().replays > 0


def test_a_layer_that_is_idle_at_times_trains_alone():
    _, references, _ = search(make(InLargeBatches, device="cuda"), LANES, X, y, fused=False)
    _, nets, report = search(make(InLargeBatches, device="cuda"), LANES, X, y)

    assert report.groups == []
    with pytest.raises(AssertionError, match="gets a gradient in some batches only"):
        raise AssertionError(report.alone[0]["reason"])
    for reference, net in zip(references, nets, strict=True):
        assert_same_net(reference, net)
