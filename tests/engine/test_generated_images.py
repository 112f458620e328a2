"""Laws of fused training over generated nets on images and sequences."""

import importlib.util
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from generated_images import GeneratedImages, ImagePlan, image_plans
from generated_nets import LABELS, OPTIMIZERS, SCHEDULES, WEIGHTS, Case, criteria, lanes
from hypothesis import given
from hypothesis import strategies as st
from parity import RAGGED
from test_generated_nets import (
    assert_equal_weights,
    assert_near,
    assert_told,
    check_independence,
    laws,
)

from sktune import NeuralNetClassifier, NeuralNetRegressor

pytestmark = [
    pytest.mark.skipif(importlib.util.find_spec("numba") is None, reason="no Numba"),
    # torch tells that such padding is slow
    pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel"),
]
_DRAWN = np.random.default_rng(1).normal(size=(len(LABELS), 4 * 9 * 9))
_NUMBERS = np.c_[np.sin(_DRAWN[:, 0]), _DRAWN[:, 1]]
# The last batch has several rows.
_SIZES = [16, 24, 36, 100]


@dataclass(frozen=True)
class ImageCase(Case):
    """A net on images, its candidates, and what it is fitted on."""

    plan: ImagePlan

    @property
    def X(self):
        """Return the images that the module of the case takes, or a table of them."""
        n = int(np.prod(self.plan.shape))
        X = _DRAWN[:, :n].astype(np.float64 if self.plan.is_wide else np.float32)
        is_table = self.plan.source.endswith("of a table")
        return X if is_table else X.reshape(len(X), *self.plan.shape)


@st.composite
def image_cases(draw):
    """Draw a case."""
    plan = draw(image_plans())
    is_numbers = draw(st.sampled_from([False, False, True]))
    if is_numbers:
        plan = replace(plan, ending="none")
    kind = draw(st.sampled_from(list(OPTIMIZERS)))
    dtype = np.float64 if plan.is_wide else np.float32
    options = {
        "module__n_outputs": 2 if is_numbers else 3,
        "module__dropout": draw(st.sampled_from([0.0, 0.3])),
        "optimizer": kind,
        "max_epochs": draw(st.integers(1, 3)),
        "batch_size": draw(st.sampled_from(_SIZES)),
        "shuffle": draw(st.booleans()),
        "random_state": draw(st.integers(0, 3)),
        **draw(st.sampled_from(SCHEDULES)),
        **draw(criteria("numbers" if is_numbers else "classes", plan)),
    }
    options = {
        name: value.float() if torch.is_tensor(value) and not plan.is_wide else value
        for name, value in options.items()
    }
    make = NeuralNetRegressor if is_numbers else NeuralNetClassifier
    net = make(GeneratedImages, module__plan=plan, **options)
    fit_params = draw(st.sampled_from([{}, {}, {"sample_weight": WEIGHTS}]))
    candidates = tuple(draw(st.lists(lanes(OPTIMIZERS[kind]), min_size=2, max_size=3)))
    y = _NUMBERS.astype(dtype) if is_numbers else LABELS
    return ImageCase(plan, net, candidates, y, fit_params)


def check_images(case):
    """Fused fits end as by torch's steps in float64, and as alone to the last bit."""
    _, nets, report = case.search()
    assert_told(report, len(nets))
    if case.plan.is_wide:
        _, references, _ = case.search(fused=False)
        atol = 1e-5 if case.plan.is_normalized else 1e-9
        for reference, net in zip(references, nets, strict=True):
            assert_near(reference, net, 1e-6, atol)
    alone = [case.fit(c, train) for c in case.candidates for train, _ in RAGGED]
    for one, net in zip(alone, nets, strict=True):
        assert_equal_weights(one, net)
    return report


@laws(10)
@given(case=image_cases())
def test_fused_fits_on_images_are_fits_alone(case):
    report = check_images(case)
    assert {group["steps"] for group in report.groups} == {"compiled"}, report.groups


@laws(4)
@given(case=image_cases())
def test_lanes_of_images_do_not_depend_on_each_other(case):
    check_independence(case)


@pytest.mark.slow
@laws(300)
@given(case=image_cases())
def test_laws_hold_for_many_nets_on_images(case):
    check_images(case)
    check_independence(case)
