"""The choice between one core with compiled steps and torch on several threads."""

import numpy as np
import pytest
import torch
from sklearn.datasets import make_classification

from sktune import GridSearchCV, NeuralNetClassifier
from sktune.engine.compiled import loading
from sktune.engine.compiled.speeds import choosing, measuring
from sktune.runtime.threads import limited_threads

DTYPE = np.dtype(np.float64)
X, y = make_classification(80, n_features=6, n_informative=4, n_classes=3, random_state=0)


@pytest.fixture
def measured(monkeypatch, tmp_path):
    """Return ratios that count as measured, in place of those of this machine."""
    ratios = {100: 0.5, 1000: 2.0}
    monkeypatch.setattr(choosing, "enabled", True)
    monkeypatch.setattr(choosing, "_find_folder", lambda: tmp_path / "sktune")
    monkeypatch.setattr(choosing, "measure_ratios", lambda kernels, dtype: dict(ratios))
    # a test may replace the function
    forget = choosing._read_ratios.cache_clear
    forget()
    yield ratios
    forget()


def test_the_nearest_width_decides(measured):
    kernels = loading.load_kernels(DTYPE)
    found = [choosing.is_one_core_faster(kernels, DTYPE, width) for width in (3, 300, 330, 5000)]
    assert found == [True, True, False, False]


def test_what_was_measured_once_holds(measured, tmp_path):
    kernels = loading.load_kernels(DTYPE)
    assert choosing.is_one_core_faster(kernels, DTYPE, 100)
    (path,) = (tmp_path / "sktune").iterdir()
    # as in another process, which would measure other numbers
    measured[100] = 3.0
    choosing._read_ratios.cache_clear()
    assert choosing.is_one_core_faster(kernels, DTYPE, 100)

    path.unlink()
    choosing._read_ratios.cache_clear()
    assert not choosing.is_one_core_faster(kernels, DTYPE, 100)


def test_each_number_of_threads_is_measured_by_itself(measured, tmp_path):
    kernels = loading.load_kernels(DTYPE)
    for n_threads in (2, 3):
        with limited_threads(n_threads):
            choosing.is_one_core_faster(kernels, DTYPE, 100)
    assert len(list((tmp_path / "sktune").iterdir())) == 2


def test_a_process_that_was_first_decides(measured, tmp_path, monkeypatch):
    """Another one keeps its numbers while this one measures."""
    kernels = loading.load_kernels(DTYPE)
    key = choosing._make_key(DTYPE, torch.get_num_threads())
    path = tmp_path / "sktune" / f"speeds-{key}.json"

    def measure(kernels, dtype):
        path.parent.mkdir()
        path.write_text('{"100": 7.0}')
        return {100: 0.5}

    monkeypatch.setattr(choosing, "measure_ratios", measure)
    assert not choosing.is_one_core_faster(kernels, DTYPE, 100)
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("fault", ["folder", "content", "off"])
def test_without_a_file_torch_takes_large_steps(fault, measured, tmp_path, monkeypatch):
    kernels = loading.load_kernels(DTYPE)
    if fault == "folder":
        # a file where the folder would be
        (tmp_path / "sktune").write_text("")
    elif fault == "content":
        choosing.is_one_core_faster(kernels, DTYPE, 100)
        (path,) = (tmp_path / "sktune").iterdir()
        path.write_text("{broken")
        choosing._read_ratios.cache_clear()
    else:
        monkeypatch.setattr(choosing, "enabled", False)
    assert not choosing.is_one_core_faster(kernels, DTYPE, 100)


def test_both_ways_are_measured(monkeypatch):
    monkeypatch.setattr(measuring, "WIDTHS", (5, 8))
    ratios = measuring.measure_ratios(loading.load_kernels(DTYPE), DTYPE)
    assert list(ratios) == [5, 8]
    assert all(ratio > 0 for ratio in ratios.values())


def test_a_fit_and_a_search_follow_what_was_measured(measured, monkeypatch):
    monkeypatch.setattr("sktune.runtime.threads._LEAST_TO_DIVIDE", 0)
    net = NeuralNetClassifier(module__hidden=(12,), max_epochs=2, random_state=0)
    search = GridSearchCV(net, {"lr": [0.01, 0.02]}, cv=2, n_jobs=1)
    found = {}
    with limited_threads(2):
        for is_faster, ratio in ((True, 0.5), (False, 2.0)):
            measured.update({100: ratio, 1000: ratio})
            monkeypatch.setattr(choosing, "_read_ratios", lambda *args, ratio=ratio: {100: ratio})
            search.fit(X, y)
            assert {group["compiled"] for group in search.fusion_.groups} == {is_faster}
            if not is_faster:
                blockers = search.fusion_.groups[0]["blockers"]
                assert "several threads" in blockers["compiled"]
            found[is_faster] = search.best_estimator_
    pairs = zip(found[True].module_.parameters(), found[False].module_.parameters(), strict=True)
    for one, other in pairs:
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-7)
