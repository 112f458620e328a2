"""Real faults: processes that are killed, a disk that is full, a long life."""

import json
import os
import random
import subprocess
import sys
import textwrap
from pathlib import Path

import joblib
import numpy as np
import pytest
from parity import RAGGED, X, assert_same_scores, grid, y
from sklearn.model_selection import GridSearchCV

from sktune import NeuralNetClassifier
from sktune.engine.report import FusionReport

pytestmark = pytest.mark.slow

SEARCH = """
import json, sys, time
import joblib
import numpy as np
import torch
from sklearn.datasets import make_classification
from sklearn.model_selection import GridSearchCV
from sktune import BayesSearchCV, NeuralNetClassifier
from sktune.engine.group import Group

torch.set_num_threads(1)
kind, cache, log = sys.argv[1:]
X, y = make_classification(110, n_features=6, n_informative=4, n_classes=3, random_state=0)
net = NeuralNetClassifier(
    module__hidden=(8,), module__dropout=0.2, batch_size=16, max_epochs=40, random_state=0
)

close_epoch = Group._close_epoch

def close_slowly(group, *args):
    time.sleep(0.01)
    with open(log, "a") as file:
        file.write(f"{len(group.alive)}\\n")
    return close_epoch(group, *args)

Group._close_epoch = close_slowly

options = {"cv": 3, "refit": False, "n_jobs": 1}
if kind == "grid":
    search = GridSearchCV(net, {"lr": [0.001, 0.01, 0.1], "l2": [0.0, 0.1]}, **options)
else:
    space = {"lr": [0.001, 0.003, 0.01, 0.03, 0.1], "l2": [0.0, 0.01, 0.1]}
    search = BayesSearchCV(net, space, n_iter=6, batch_size=2, random_state=0, **options)
cache = None if cache == "none" else cache
with joblib.parallel_config("sktune", cache=cache, checkpoint_interval=0.1):
    search.fit(X, y)
results = search.cv_results_
found = {name: results[name].tolist() for name in results if name.startswith("split")}
print(json.dumps({"params": [str(p) for p in results["params"]], **found}))
"""


def begin(kind, cache, log):
    command = [sys.executable, "-c", SEARCH, kind, str(cache), str(log)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    )


def read_result(process):
    out, err = process.communicate()
    assert process.returncode == 0, err
    return json.loads(out.splitlines()[-1])


def count_epochs(log):
    return sum(map(int, log.read_text().split()))


@pytest.mark.parametrize(("kind", "n_kills"), [("grid", 20), ("bayes", 6)])
def test_a_search_that_is_killed_resumes_with_equal_results(kind, n_kills, tmp_path):
    expected = read_result(begin(kind, "none", tmp_path / "whole"))
    cache, log = tmp_path / "cache", tmp_path / "log"
    log.touch()
    rng = random.Random(0)
    n_killed = 0
    while n_killed < n_kills:
        process = begin(kind, cache, log)
        n_begun = count_epochs(log)
        # it is killed at a moment after its first epoch
        while count_epochs(log) == n_begun and process.poll() is None:
            pass
        try:
            process.wait(rng.uniform(0.0, 0.4))
        except subprocess.TimeoutExpired:
            process.kill()
        process.communicate()
        n_killed += 1
        if process.returncode == 0:
            break
    found = read_result(begin(kind, cache, log))

    assert found == expected
    # an epoch takes 10 ms at least: so many are between two records, of up to 18 fits
    most_wasted = n_killed * 18 * (0.1 + 1.0) / 0.01
    whole = count_epochs(tmp_path / "whole")
    assert count_epochs(log) <= whole + most_wasted
    # most of what was trained was recorded
    assert n_killed < 3 or count_epochs(log) < n_killed * whole


def test_two_processes_share_a_folder_while_they_train(tmp_path):
    both = [begin("grid", tmp_path / "cache", tmp_path / f"log {n}") for n in range(2)]
    first, second = map(read_result, both)
    assert first == second
    log = tmp_path / "third"
    log.touch()
    assert read_result(begin("grid", tmp_path / "cache", log)) == first
    assert count_epochs(log) == 0


@pytest.fixture
def tiny_disk(tmp_path):
    """A disk of 64 kB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)]
    mounted = subprocess.run(command, capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip("mounting takes rights that this process has not")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_disk_that_is_full(tiny_disk):
    net = NeuralNetClassifier(module__hidden=(64,), max_epochs=2, random_state=0)
    candidates = grid(*({"lr": 0.01 * n} for n in range(1, 20)))

    def run(cache):
        report = FusionReport()
        with joblib.parallel_config("sktune", cache=cache, report=report, max_lanes=2, n_jobs=1):
            search = GridSearchCV(net, candidates, cv=RAGGED, refit=False).fit(X, y)
        return search, report.sharing

    with pytest.warns(UserWarning, match="No space left on device"):
        found, _ = run(tiny_disk)
    assert_same_scores(run(None)[0], found, tolerance=0)
    with pytest.warns(UserWarning, match="No space left on device") as caught:
        again, sharing = run(tiny_disk)
    assert len(caught) == 1
    assert_same_scores(found, again, tolerance=0)
    assert 0 < sharing.n_known_fits < 38


LONG_LIFE = textwrap.dedent("""
    import gc, os, sys, threading
    import joblib
    import numpy as np
    import torch
    from sklearn.datasets import make_classification
    from sktune import GridSearchCV, NeuralNetClassifier, RandomizedSearchCV

    torch.set_num_threads(1)
    X, y = make_classification(200, n_features=6, n_informative=4, random_state=0)
    net = NeuralNetClassifier(module__hidden=(32,), max_epochs=2, random_state=0)

    def measure():
        gc.collect()
        with open("/proc/self/statm") as file:
            pages = int(file.read().split()[1])
        children = open(f"/proc/self/task/{os.getpid()}/children").read().split()
        return pages, len(os.listdir("/proc/self/fd")), threading.active_count(), len(children)

    found = []
    for n in range(240):
        options = {"cv": 3, "cache": sys.argv[1], "cache_limit": 0.5, "n_jobs": 1 + n % 2}
        rates = {"lr": list(np.geomspace(1e-4, 1e-2, 4) * (1 + n / 1000))}
        if n % 2:
            GridSearchCV(net, rates, **options).fit(X, y).predict(X)
        else:
            RandomizedSearchCV(
                net, rates, n_iter=4, timeout=1000, random_state=0, **options
            ).fit(X, y).predict(X)
        if n in (39, 239):
            found.append(measure())
    print(found)
""")


def test_200_searches_leave_nothing_behind(tmp_path):
    command = [sys.executable, "-c", LONG_LIFE, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (pages, *others), (pages_later, *others_later) = json.loads(
        done.stdout.splitlines()[-1].replace("(", "[").replace(")", "]")
    )

    assert pages_later < 1.05 * pages
    assert others_later == others
    sizes = [path.stat().st_size for path in Path(tmp_path).iterdir()]
    assert 0 < np.sum(sizes) <= 2**19
    assert not list(tmp_path.glob(".*"))
