"""A folder from which searches go on, and what happens when the folder is at fault."""

import errno
import json
import os
import shutil
import warnings
from pathlib import Path

import joblib
import numpy as np
import pytest
import skorch
import torch
from parity import RAGGED, Keep, X, X_reg, assert_same_net, assert_same_scores, grid, y, y_reg
from safetensors.torch import load_file, save
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, cross_validate
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn

import sktune
from sktune import NeuralNetClassifier, NeuralNetRegressor
from sktune.engine import executor
from sktune.engine.report import FusionReport
from sktune.engine.store import FolderStore, files, folder, recording

SETTINGS = {"module__hidden": (8,), "module__dropout": 0.2, "batch_size": 16, "random_state": 0}
CANDIDATES = [{"lr": 0.01, "max_epochs": 3}, {"lr": 0.1, "max_epochs": 5}]


def ours(**options):
    return NeuralNetClassifier(**{**SETTINGS, **options})


def run(path, net=None, candidates=CANDIDATES, X=X, y=y, **options):
    """Return a finished search, the nets that it fitted, and the report of their fusion."""
    keep = Keep()
    report = FusionReport()
    net = ours() if net is None else net
    with joblib.parallel_config("sktune", cache=path, report=report, n_jobs=1, **options):
        found = GridSearchCV(net, grid(*candidates), cv=RAGGED, scoring=keep, refit=False).fit(X, y)
    return found, keep.nets, report.sharing


@pytest.fixture(autouse=True)
def one_file_for_each_group(monkeypatch):
    """Write a file when a group is done, however slow the machine is."""
    monkeypatch.setattr(recording, "_LONGEST_WAIT", 3600.0)


def list_names(path):
    return sorted(entry.name for entry in Path(path).iterdir())


def assert_same(one, other):
    assert_same_scores(one[0], other[0], tolerance=0)
    for first, second in zip(one[1], other[1], strict=True):
        assert_same_net(first, second, rtol=0)


STOPS = {"early_stopping": True, "n_iter_no_change": 2, "lr": 0.1}
CASES = {
    "plain": (ours(), X, y),
    "early stopping": (ours(**STOPS, max_epochs=30), X, y),
    "sgd": (ours(optimizer=torch.optim.SGD), X, y),
    "momentum": (ours(optimizer=torch.optim.SGD, optimizer__momentum=0.9), X, y),
    "rmsprop": (ours(optimizer=torch.optim.RMSprop, optimizer__momentum=0.5), X, y),
    "nadam": (ours(optimizer=torch.optim.NAdam), X, y),
    "batch norm": (ours(module__batch_norm=True), X, y),
    "double": (ours(module__dtype=torch.float64), X, y),
    "regression": (NeuralNetRegressor(**SETTINGS), X_reg, y_reg),
}


@pytest.mark.parametrize("name", CASES)
def test_a_later_search_is_answered_from_the_folder(name, tmp_path):
    net, *data = CASES[name]
    first = run(tmp_path, net, CANDIDATES, *data)
    second = run(tmp_path, net, CANDIDATES, *data)

    assert_same(first, second)
    assert first[2].n_trained_epochs > 0
    assert second[2].n_trained_epochs == 0
    assert second[2].n_known_fits == 4


def test_skorchs_own_nets_are_known_where_the_seed_is(tmp_path):
    module = nn.Sequential(nn.Linear(6, 8), nn.Dropout(0.3), nn.Linear(8, 3)).double()
    net = skorch.NeuralNetClassifier(
        module, criterion=nn.CrossEntropyLoss, verbose=0, iterator_train__shuffle=True
    )
    found = []
    for _ in range(2):
        torch.manual_seed(0)
        found.append((*run(tmp_path, clone(net)), torch.rand(1).item()))

    assert_same(*found)
    assert found[1][2].n_trained_epochs == 0
    assert found[0][3] == found[1][3]


def test_a_longer_fit_goes_on_from_the_folder(tmp_path):
    run(tmp_path, candidates=[{"max_epochs": 4}])
    longer = run(tmp_path, candidates=[{"max_epochs": 10}])

    assert_same(run(None, candidates=[{"max_epochs": 10}]), longer)
    assert longer[2].n_trained_epochs == 2 * 6


def make_searches(cache):
    net = ours(max_epochs=2)
    space = {"lr": [0.01, 0.02, 0.05, 0.1], "l2": [0.0, 0.1]}
    options = {"cv": RAGGED, "refit": False, "cache": cache}
    drawn = {**options, "random_state": 0}
    pipeline = make_pipeline(StandardScaler(), net)
    stages = [("lr", {"lr": [0.01, 0.1]}), ("all", None)]
    return {
        "grid": sktune.GridSearchCV(net, space, **options),
        "random": sktune.RandomizedSearchCV(net, space, n_iter=4, **drawn),
        "rounds": sktune.RandomizedSearchCV(net, space, n_iter=4, timeout=1000, **drawn),
        "tpe": sktune.BayesSearchCV(net, space, n_iter=5, batch_size=2, **drawn),
        "gp": sktune.BayesSearchCV(net, space, n_iter=5, batch_size=2, sampler="gp", **drawn),
        "staged": sktune.StagedSearch(net, stages, n_iter=3, **drawn),
        "pipeline": sktune.GridSearchCV(
            pipeline, {"neuralnetclassifier__lr": [0.01, 0.1]}, **options
        ),
        "ensemble": sktune.GridSearchCV(net, space, **{**options, "refit": True}, ensemble="folds"),
    }


@pytest.mark.parametrize("kind", make_searches(None))
def test_every_search_resumes(kind, tmp_path):
    path = tmp_path / "not" / "there yet"
    first = make_searches(path)[kind].fit(X, y)
    second = make_searches(str(path))[kind].fit(X, y)

    assert first.fusion_.sharing.n_trained_epochs > 0
    assert second.fusion_.sharing.n_trained_epochs == 0
    assert_same_scores(first, second, tolerance=0)
    assert clone(second).get_params()["cache"] == str(path)
    if kind == "ensemble":
        np.testing.assert_array_equal(first.oof_predictions_, second.oof_predictions_)


def test_a_sealed_search_resumes_with_its_baseline(tmp_path, monkeypatch):
    search = make_searches(tmp_path)["grid"].set_params(refit=True)
    tuned = sktune.HoldoutSearch(search.set_params(cv=2), random_state=0)
    first = tuned.fit(X, y).baseline_score_, tuned.test_score_

    def refuse(*args, **options):
        raise AssertionError("everything is known")

    monkeypatch.setattr(executor, "train_group", refuse)
    assert (tuned.fit(X, y).baseline_score_, tuned.test_score_) == first


def test_a_larger_grid_trains_what_is_new(tmp_path):
    small = sktune.GridSearchCV(ours(max_epochs=3), {"lr": [0.01, 0.1]}, cv=RAGGED, cache=tmp_path)
    small.fit(X, y)
    large = clone(small).set_params(param_grid={"lr": [0.1, 0.2, 0.01]}).fit(X, y)
    assert large.fusion_.sharing.n_trained_epochs == 2 * 3
    assert large.fusion_.sharing.n_known_fits == 4

    # other rows, weights or classes are other fits
    for changed in (
        small.fit(X + 1, y),
        small.fit(X, (y + 1) % 3),
        small.fit(X, y, sample_weight=np.linspace(1, 2, len(y))),
        small.set_params(estimator__class_weight="balanced").fit(X, y),
    ):
        assert changed.fusion_.sharing.n_known_fits == 0


def test_scikit_learns_own_tools_resume_in_the_context(tmp_path):
    found = []
    for _ in range(2):
        report = FusionReport()
        with joblib.parallel_config("sktune", cache=tmp_path, report=report):
            found.append(cross_validate(ours(max_epochs=2), X, y, cv=3)["test_score"])
    assert report.sharing.n_trained_epochs == 0
    np.testing.assert_array_equal(*found)


def test_a_search_of_ours_takes_over_the_cache_of_the_context(tmp_path):
    search = sktune.StagedSearch(ours(max_epochs=2), [("lr", {"lr": [0.01, 0.1]})], cv=RAGGED)
    with joblib.parallel_config("sktune", cache=tmp_path):
        search.fit(X, y)
        assert search.fit(X, y).fusion_.sharing.n_trained_epochs == 0
    assert list_names(tmp_path)
    own = search.set_params(cache=tmp_path / "own")
    with joblib.parallel_config("sktune", cache=tmp_path):
        assert own.fit(X, y).fusion_.sharing.n_trained_epochs > 0


class Interrupt:
    """Ends a search by an error in some epoch."""

    def __init__(self, epoch):
        self.epoch = epoch

    def on_epoch(self, event):
        if event.epoch == self.epoch:
            raise KeyboardInterrupt("the power is cut")


@pytest.mark.parametrize(
    "options", [{}, {**STOPS, "tol": 0.0, "n_iter_no_change": 30}], ids=["plain", "early stopping"]
)
@pytest.mark.parametrize("are_compiled", [True, False])
def test_fits_in_progress_go_on_from_their_checkpoint(options, are_compiled, tmp_path, monkeypatch):
    monkeypatch.setattr(sktune.engine.compiled.program, "enabled", are_compiled)
    net = ours(**options)
    candidates = [{"max_epochs": 12}, {"max_epochs": 20, "l2": 0.1}]
    with pytest.raises(KeyboardInterrupt, match="the power is cut"):
        run(tmp_path, net, candidates, listeners=[Interrupt(9)], checkpoint_interval=1e-9)
    # later checkpoints take the place of earlier ones
    assert len(list_names(tmp_path)) <= 2
    resumed = run(tmp_path, net, candidates)

    assert_same(run(None, net, candidates), resumed)
    assert resumed[2].n_known_epochs > 0
    # those that are complete leave no checkpoints
    assert all(
        'checkpoint":"True' not in (tmp_path / n).read_text("latin1") for n in list_names(tmp_path)
    )
    assert run(tmp_path, net, candidates)[2].n_trained_epochs == 0


def test_complete_fits_outlive_the_others_of_their_group(tmp_path, monkeypatch):
    monkeypatch.setattr(recording, "_LONGEST_WAIT", 0.0)
    candidates = [{"max_epochs": 2}, {"max_epochs": 20, "l2": 0.1}]
    with pytest.raises(KeyboardInterrupt, match="the power is cut"):
        run(tmp_path, candidates=candidates, listeners=[Interrupt(9)])
    resumed = run(tmp_path, candidates=candidates)

    assert resumed[2].n_known_fits == 2
    assert resumed[2].n_trained_epochs == 2 * 20


def test_a_failed_fit_is_recorded(tmp_path):
    candidates = [{"lr": 1e30, "max_epochs": 2}, {"max_epochs": 2}]
    for _ in range(2):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found, _, sharing = run(tmp_path, candidates=candidates)
        assert np.isnan(found.cv_results_["mean_test_score"]).tolist() == [True, False]
    assert sharing.n_trained_epochs == 0


def flip(path):
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(data)


def truncate(path):
    path.write_bytes(path.read_bytes()[:-200])


def empty(path):
    path.write_bytes(b"")


def replace_foreign(path):
    path.write_bytes(b"\x80\x04cposix\nsystem\n(S'touch /tmp/sktune-was-here'\ntR." * 9)


def replace_older(path):
    tensors = load_file(path)
    data = save(tensors, {"format": "sktune trainings 0", "index": "[]"})
    path.write_bytes(data)


FAULTS = {
    "flip": (flip, "does not have|do not have the checksum"),
    "truncate": (truncate, "do not have the checksum"),
    "empty": (empty, "no readable header"),
    "foreign": (replace_foreign, "header"),
    "older": (replace_older, "'sktune trainings 0'"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_damaged_file_is_not_used(fault, tmp_path):
    damage, message = FAULTS[fault]
    first = run(tmp_path)
    (name,) = list_names(tmp_path)
    damage(tmp_path / name)
    with pytest.warns(UserWarning, match=message) as caught:
        second = run(tmp_path)

    assert len(caught) == 1
    assert_same(first, second)
    assert second[2].n_trained_epochs > 0


def forge(path, change):
    """Write a file that has the right name for contents that are wrong."""
    (name,) = list_names(path)
    tensors = load_file(path / name)
    with open(path / name, "rb") as file:
        size = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(size))["__metadata__"]
    (path / name).unlink()
    change(tensors, header)
    files.write_durably(path, save(tensors, header))


def drop_weights(tensors, header):
    for name in [name for name in tensors if "/weights/" in name]:
        del tensors[name]


def widen_weights(tensors, header):
    for name in [name for name in tensors if "/weights/" in name]:
        tensors[name] = torch.zeros(1000)


def shorten_curves(tensors, header):
    for name in [name for name in tensors if "/curve/lr" in name]:
        tensors[name] = tensors[name][:1]


def claim_more(tensors, header):
    index = json.loads(header["index"])
    header["index"] = json.dumps([[key, epoch] for key, epoch in index[::-1]] + index)


def nest(tensors, header):
    text = b"[" * 100_000
    for name in [name for name in tensors if name.endswith("/rest")]:
        tensors[name] = torch.frombuffer(bytearray(text), dtype=torch.uint8)


@pytest.mark.parametrize("change", [drop_weights, widen_weights, shorten_curves, claim_more, nest])
def test_a_folder_of_somebody_elses_costs_time_only(change, tmp_path):
    first = run(tmp_path)
    forge(tmp_path, change)
    with pytest.warns(UserWarning, match="is trained again|what it should hold is trained again"):
        second = run(tmp_path)

    assert_same(first, second)


def test_what_is_no_file_is_not_opened(tmp_path):
    # whoever opens a pipe waits for somebody who writes
    os.mkfifo(tmp_path / ("0" * 64 + ".safetensors"))
    (tmp_path / ("1" * 64 + ".safetensors")).symlink_to("/dev/zero")
    (tmp_path / ("2" * 64 + ".safetensors")).mkdir()

    assert run(tmp_path)[2].n_trained_epochs == 16


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO])
@pytest.mark.parametrize("where", ["fsync", "replace", "open"])
def test_a_disk_that_cannot_be_written_does_not_end_the_search(code, where, tmp_path, monkeypatch):
    def fail(*args, **options):
        raise OSError(code, os.strerror(code))

    expected = run(None)
    with monkeypatch.context() as patch:
        target = files if where == "open" else files.os
        patch.setattr(target, where, fail, raising=False)
        with pytest.warns(UserWarning, match="goes on without recording") as caught:
            found = run(tmp_path, max_lanes=1)
    assert len(caught) == 1
    assert_same(expected, found)
    assert list_names(tmp_path) == []
    assert_same(expected, run(tmp_path))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_may_only_be_read_is_read(tmp_path):
    first = run(tmp_path)
    tmp_path.chmod(0o500)
    try:
        assert run(tmp_path)[2].n_trained_epochs == 0
        with pytest.warns(UserWarning, match="goes on without recording"):
            run(tmp_path, candidates=[*CANDIDATES, {"l2": 0.1}])
    finally:
        tmp_path.chmod(0o700)
    assert first[2].n_trained_epochs > 0


def test_a_folder_that_cannot_be_made_is_warned_of(tmp_path, monkeypatch):
    def refuse(*args, **options):
        raise PermissionError(errno.EACCES, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "mkdir", refuse)
        with pytest.warns(UserWarning, match="cannot be written.*PermissionError"):
            found = run(tmp_path / "new")
    assert_same(run(None), found)


def test_the_folder_is_bounded_oldest_out_first(tmp_path):
    for seed in range(4):
        net = ours(random_state=seed)
        run(tmp_path, net, max_lanes=32)
        for name in list_names(tmp_path):
            time = (tmp_path / name).stat().st_mtime
            os.utime(tmp_path / name, (time - 10, time - 10))
    sizes = [(tmp_path / name).stat().st_size for name in list_names(tmp_path)]
    assert len(sizes) == 4
    limit = (sum(sizes) - max(sizes) // 2) / 2**20
    run(tmp_path, ours(random_state=4), cache_limit=limit)

    assert len(list_names(tmp_path)) == 3
    assert run(tmp_path, ours(random_state=4))[2].n_trained_epochs == 0
    assert run(tmp_path, ours(random_state=3))[2].n_trained_epochs == 0
    assert run(tmp_path, ours(random_state=0))[2].n_trained_epochs > 0


def test_two_stores_share_a_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(folder, "_SECONDS_BETWEEN_LOOKS", 0.0)
    one, other = FolderStore(tmp_path), FolderStore(tmp_path)
    for store, n_trained in ((one, 16), (other, 0)):
        report = FusionReport()
        with joblib.parallel_config("sktune", store=store, report=report):
            GridSearchCV(ours(), grid(*CANDIDATES), cv=RAGGED, refit=False).fit(X, y)
        assert report.sharing.n_trained_epochs == n_trained
    # what another process removes is trained again, without a warning
    shutil.rmtree(tmp_path)
    tmp_path.mkdir()
    report = FusionReport()
    with joblib.parallel_config("sktune", store=other, report=report):
        GridSearchCV(ours(), grid(*CANDIDATES), cv=RAGGED, refit=False).fit(X, y)
    assert report.sharing.n_trained_epochs == 16


def test_what_was_killed_while_it_wrote_is_removed(tmp_path):
    old, new = tmp_path / ".0-1-2.tmp", tmp_path / ".0-1-3.tmp"
    for path in (old, new):
        path.write_bytes(b"half")
    os.utime(old, (0, 0))
    FolderStore(tmp_path)

    assert list_names(tmp_path) == [new.name]
    assert run(tmp_path)[2].n_trained_epochs > 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cache": 3}, r"cache must be the path of a folder or None, got cache=3"),
        ({"cache": ""}, r"cache must be the path of a folder or None, got cache=''"),
        ({"cache_limit": 0}, r"cache_limit must be a number of MB above 0 or None, got"),
        ({"checkpoint_interval": -1}, r"checkpoint_interval must be a number of seconds above 0"),
    ],
)
def test_options_are_checked_before_anything_is_done(options, message):
    search = sktune.GridSearchCV(ours(), {"lr": [0.1]}, **options)
    with pytest.raises(ValueError, match=message):
        search.fit(None, None)
    with (
        pytest.raises(ValueError, match=message),
        joblib.parallel_config("sktune", **options),
    ):
        pass


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="cache must be a folder, got a file"):
        run(tmp_path / "file")
    with (
        pytest.raises(ValueError, match="store must be None beside a cache"),
        joblib.parallel_config("sktune", store=FolderStore(tmp_path), cache=tmp_path),
    ):
        pass
