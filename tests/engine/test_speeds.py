"""The choice between one core with compiled steps and torch on several threads."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sklearn.datasets import make_classification
from torch import nn

from sktune import GridSearchCV, NeuralNetClassifier
from sktune.engine.compiled import loading
from sktune.engine.compiled.speeds import choosing, measuring
from sktune.runtime.threads import limited_threads

DTYPE = np.dtype(np.float64)
TABLES, IMAGES = (SimpleNamespace(widest=100, has_windows=found) for found in (False, True))
X, y = make_classification(80, n_features=6, n_informative=4, n_classes=3, random_state=0)


class Convolution(nn.Module):
    def __init__(self, n_outputs=3):
        super().__init__()
        self.layer = nn.Conv1d(1, 4, 3)
        self.output = nn.Linear(4, n_outputs)

    def forward(self, X):
        return self.output(torch.tanh(self.layer(X.unsqueeze(1))).mean(2))


@pytest.fixture
def measured(monkeypatch, tmp_path):
    """Return ratios that count as measured, in place of those of this machine, by kind."""
    ratios = {"tables": {100: 0.5, 1000: 2.0}, "images": {4096: 0.5, 25088: 2.0}}
    monkeypatch.setattr(choosing, "enabled", True)
    monkeypatch.setattr(choosing, "_find_folder", lambda: tmp_path / "sktune")
    monkeypatch.setattr(choosing, "measure_ratios", lambda kernels, dtype, kind: ratios[kind])
    # a test may replace the function
    forget = choosing._read_ratios.cache_clear
    forget()
    yield ratios
    forget()


@pytest.mark.parametrize(
    ("has_windows", "widths"), [(False, (3, 300, 330, 5000)), (True, (3, 9000, 11000, 10**6))]
)
def test_the_nearest_width_decides(has_windows, widths, measured):
    kernels = loading.load_kernels(DTYPE)
    graphs = [SimpleNamespace(widest=width, has_windows=has_windows) for width in widths]
    found = [choosing.is_one_core_faster(kernels, DTYPE, graph) for graph in graphs]
    assert found == [True, True, False, False]


def test_what_was_measured_once_holds(measured, tmp_path):
    kernels = loading.load_kernels(DTYPE)
    assert choosing.is_one_core_faster(kernels, DTYPE, TABLES)
    (path,) = (tmp_path / "sktune").iterdir()
    # as in another process, which would measure other numbers
    measured["tables"][100] = 3.0
    choosing._read_ratios.cache_clear()
    assert choosing.is_one_core_faster(kernels, DTYPE, TABLES)

    path.unlink()
    choosing._read_ratios.cache_clear()
    assert not choosing.is_one_core_faster(kernels, DTYPE, TABLES)


def test_each_number_of_threads_and_kind_is_measured_by_itself(measured, tmp_path):
    kernels = loading.load_kernels(DTYPE)
    for n_threads in (2, 3):
        with limited_threads(n_threads):
            choosing.is_one_core_faster(kernels, DTYPE, TABLES)
            choosing.is_one_core_faster(kernels, DTYPE, IMAGES)
    assert len(list((tmp_path / "sktune").iterdir())) == 4


def test_a_process_that_was_first_decides(measured, tmp_path, monkeypatch):
    """Another one keeps its numbers while this one measures."""
    kernels = loading.load_kernels(DTYPE)
    key = choosing._make_key(DTYPE, torch.get_num_threads(), "tables")
    path = tmp_path / "sktune" / f"speeds-{key}.json"

    def measure(kernels, dtype, kind):
        path.parent.mkdir()
        path.write_text('{"100": 7.0}')
        return {100: 0.5}

    monkeypatch.setattr(choosing, "measure_ratios", measure)
    assert not choosing.is_one_core_faster(kernels, DTYPE, TABLES)
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("fault", ["folder", "content", "off"])
def test_without_a_file_torch_takes_large_steps(fault, measured, tmp_path, monkeypatch):
    kernels = loading.load_kernels(DTYPE)
    if fault == "folder":
        # a file where the folder would be
        (tmp_path / "sktune").write_text("")
    elif fault == "content":
        choosing.is_one_core_faster(kernels, DTYPE, TABLES)
        (path,) = (tmp_path / "sktune").iterdir()
        path.write_text("{broken")
        choosing._read_ratios.cache_clear()
    else:
        monkeypatch.setattr(choosing, "enabled", False)
    assert not choosing.is_one_core_faster(kernels, DTYPE, TABLES)


@pytest.mark.parametrize(
    ("kind", "name", "sizes", "widths"),
    [("tables", "WIDTHS", (5, 8), [5, 8]), ("images", "SHAPES", ((4, 2), (5, 6)), [32, 150])],
)
def test_both_ways_are_measured(kind, name, sizes, widths, monkeypatch):
    monkeypatch.setattr(measuring, name, sizes)
    before = torch.get_rng_state()
    ratios = measuring.measure_ratios(loading.load_kernels(DTYPE), DTYPE, kind)
    assert list(ratios) == widths
    assert all(ratio > 0 for ratio in ratios.values())
    assert torch.equal(torch.get_rng_state(), before)


def test_slow_steps_are_measured_once(monkeypatch):
    monkeypatch.setattr(measuring, "_MOST_SECONDS", 0)
    calls = []
    with pytest.raises(ValueError, match="empty"):
        measuring._time(lambda: calls.append(1))
    monkeypatch.setattr(measuring, "_MOST_SECONDS", 1e-12)
    assert measuring._time(lambda: calls.append(1)) > 0
    assert len(calls) == 3


@pytest.mark.parametrize("settings", [{"module__hidden": (12,)}, {"module": Convolution}])
def test_a_fit_and_a_search_follow_what_was_measured(settings, measured, monkeypatch):
    monkeypatch.setattr("sktune.modules.work._LEAST_TO_DIVIDE", 0)
    net = NeuralNetClassifier(**settings, max_epochs=2, random_state=0)
    search = GridSearchCV(net, {"lr": [0.01, 0.02]}, cv=2, n_jobs=1)
    found = {}
    with limited_threads(2):
        for is_faster, ratio in ((True, 0.5), (False, 2.0)):
            monkeypatch.setattr(choosing, "_read_ratios", lambda *args, ratio=ratio: {100: ratio})
            search.fit(X.astype(np.float32), y)
            assert {group["compiled"] for group in search.fusion_.groups} == {is_faster}
            if not is_faster:
                blockers = search.fusion_.groups[0]["blockers"]
                assert "several threads" in blockers["compiled"]
            found[is_faster] = search.best_estimator_
    pairs = zip(found[True].module_.parameters(), found[False].module_.parameters(), strict=True)
    for one, other in pairs:
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-7)
