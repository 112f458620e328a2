"""Comparisons of plain fits with fits by the fused engine."""

from contextlib import contextmanager

import joblib
import numpy as np
import pytest
import sklearn
import torch
from packaging.version import parse as parse_version
from sklearn.datasets import make_classification, make_regression
from sklearn.model_selection import GridSearchCV, KFold

from sktune.engine.compiled import program as compiled
from sktune.engine.report import FusionReport

# Fewer than 100 rows are trained on in float64. The two splits have 73 and 74 training rows, so the
# last batch of 16 has 9 or 10 rows.
X, y = make_classification(110, n_features=6, n_informative=4, n_classes=3, random_state=0)
X_reg, y_reg = make_regression(110, n_features=6, n_targets=2, random_state=0)
y_reg = y_reg / y_reg.std(axis=0)
RAGGED = [list(KFold(3).split(X))[fold] for fold in (0, 2)]

takes_tensors = pytest.mark.skipif(
    parse_version(sklearn.__version__) < parse_version("1.8"),
    reason="before scikit-learn 1.8 a search takes no tensors of torch's, fused or not",
)
_SQUARES = ("exp_avg_sq", "square_avg", "sum")


class Keep:
    """A scorer that keeps the estimators that it scores."""

    def __init__(self, score=None):
        self.nets = []
        self.score = score or (lambda net, X, y: net.score(X, y))

    def __call__(self, net, X, y, sample_weight=None):
        self.nets.append(net)
        return self.score(net, X, y)


def grid(*candidates):
    """Return the ``param_grid`` of these candidates only."""
    return [{name: [value] for name, value in candidate.items()} for candidate in candidates] or {}


@contextmanager
def compiled_steps(are_taken):
    """Let nets train by compiled steps where they can, or not."""
    before = compiled.enabled
    compiled.enabled = are_taken
    try:
        yield
    finally:
        compiled.enabled = before


def search(
    net,
    candidates,
    X,
    y,
    *,
    cv=RAGGED,
    fused=True,
    fit_params=None,
    n_jobs=None,
    max_lanes=32,
    **options,
):
    """Return a finished search, the estimators that it fitted, and the report of their fusion.

    Where it is not `fused`, torch takes each step.
    """
    keep = Keep()
    report = FusionReport()
    settings = {"report": report, "max_lanes": max_lanes} if fused else {}
    steps = compiled_steps(compiled.enabled and fused)
    with steps, joblib.parallel_config("sktune" if fused else "sequential", **settings):
        found = GridSearchCV(
            net, grid(*candidates), cv=cv, scoring=keep, refit=False, n_jobs=n_jobs, **options
        )
        found.fit(X, y, **(fit_params or {}))
    return found, keep.nets, report


def assert_parity(net, candidates, X, y, **options):
    """Assert that candidates fitted one at a time and fused give the same nets and scores.

    They are fused once by torch's steps and once by compiled ones. Return the report of the last.
    """
    plain, references, _ = search(net, candidates, X, y, fused=False, **options)
    for are_compiled in sorted({False, compiled.enabled}):
        with compiled_steps(are_compiled):
            fused, nets, report = search(net, candidates, X, y, **options)
        assert report.alone == [], report
        n_fused = sum(group["lanes"] for group in report.groups) + report.sharing.n_shared_fits
        assert len(nets) == len(references) == n_fused > 0
        for reference, other in zip(references, nets, strict=True):
            assert_same_net(reference, other)
        assert_same_scores(plain, fused, tolerance=1e-9)
    return report


def assert_same_net(plain, fused, rtol=1e-8):
    """Assert that weights, optimizer, learning rate and the losses of each epoch are equal."""
    assert_close(plain.module_.state_dict(), fused.module_.state_dict(), rtol)
    ours = fused.optimizer_.state_dict()
    theirs = plain.optimizer_.state_dict()
    assert ours["state"].keys() == theirs["state"].keys()
    for parameter, state in theirs["state"].items():
        assert_close(state, ours["state"][parameter], rtol)
    assert_same_groups(theirs["param_groups"], ours["param_groups"])
    columns = plain.history[-1].keys() - {"batches", "dur"}
    assert len(plain.history) == len(fused.history)
    for column in columns:
        np.testing.assert_allclose(
            fused.history[:, column], plain.history[:, column], rtol=rtol, err_msg=column
        )
    assert fused.history[-1].keys() == plain.history[-1].keys()
    for (name, one), (_, other) in zip(plain.callbacks_, fused.callbacks_, strict=True):
        np.testing.assert_allclose(
            *(getattr(c, "best_score_", 0) for c in (other, one)), rtol=rtol, err_msg=name
        )
    # The step that the masks of dropout follow from.
    assert getattr(plain, "dropout_", None) == getattr(fused, "dropout_", None)


def assert_same_groups(theirs, ours):
    assert [group.keys() for group in ours] == [group.keys() for group in theirs]
    for one, other in zip(theirs, ours, strict=True):
        np.testing.assert_allclose(other["lr"], one["lr"], rtol=1e-12)
        assert {k: v for k, v in one.items() if k != "lr"} == {
            k: v for k, v in other.items() if k != "lr"
        }


def assert_close(expected, found, rtol):
    """Assert that tensors by name agree, relative to the largest number in each."""
    assert expected.keys() == found.keys()
    for name, one in expected.items():
        other = found[name]
        if not isinstance(one, torch.Tensor):
            assert str(one) == str(other), name
            continue
        assert (other.shape, other.dtype) == (one.shape, one.dtype), name
        one, other = one.double(), other.double()
        if name in _SQUARES:
            one, other = one.sqrt(), other.sqrt()
        bound = rtol * one.abs().max().item() + 1e-13
        assert (one - other).abs().max().item() <= bound, (name, one, other)


def assert_same_scores(one, other, tolerance):
    """Assert that two searches, or the dicts of two cross-validations, have equal results."""
    one, other = (getattr(found, "cv_results_", found) for found in (one, other))
    assert one.keys() == other.keys()
    for name in one:
        if name.endswith("_time") or name == "estimator":
            continue
        if "score" in name or name.startswith("split"):
            np.testing.assert_allclose(other[name], one[name], rtol=0, atol=tolerance, err_msg=name)
        elif name.startswith("rank") and tolerance:
            continue
        else:
            assert str(other[name]) == str(one[name]), name
