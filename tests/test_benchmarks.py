"""The benchmarks run and record figures, whose values are not tested."""

import json
import subprocess
import sys
import time
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import torch

from sktune import DivergenceError, NeuralNetClassifier
from sktune.checks import hyperparameters
from sktune.estimators.fit_loop import Training

FOLDER = Path(__file__).parent.parent / "benchmarks"
pytestmark = pytest.mark.skipif(not FOLDER.exists(), reason="benchmarks are not installed")


@pytest.fixture(autouse=True)
def _in_folder(monkeypatch):
    monkeypatch.syspath_prepend(FOLDER)
    # One of the scripts sets it.
    monkeypatch.setenv("PYTHONWARNINGS", "")


def run(name, tmp_path, *arguments):
    """Run a benchmark in this process; return the figures that it saves."""
    path = tmp_path / "found" / "out.json"
    import_module(name).main([*arguments, "--json", str(path)])
    return json.loads(path.read_text())


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_a_gpu_that_is_missing_is_told_in_one_sentence():
    with pytest.raises(SystemExit, match="^this needs a CUDA device, and torch finds none: .*one$"):
        import_module("gpu").main([])


def test_checks_of_a_gpu_go_on_after_one_that_fails(monkeypatch):
    gpu = import_module("gpu")
    asked = []
    answers = [
        ([{"check": "one", "is_right": True}, {"check": "two", "is_right": False}], ""),
        ([], "its process ended with status -11"),
        ([{"check": "four", "is_right": True}], ""),
    ]

    def answer(options, limit):
        asked.append(options[options.index("--checks") + 1 :])
        return answers.pop(0)

    monkeypatch.setattr(gpu, "run_fresh_part", answer)
    rows = gpu.run_all_checks(["one", "two", "three", "four"], [], time.monotonic() + 60)

    assert asked == [["one", "two", "three", "four"], ["three", "four"], ["four"]]
    assert [row["is_right"] for row in rows] == [True, False, False, True]
    assert rows[2]["found"] == "its process ended with status -11"


def test_checks_for_which_there_is_no_time_are_not_right():
    rows = import_module("gpu").run_all_checks(["one", "two"], [], time.monotonic())

    assert [(row["check"], row["is_right"]) for row in rows] == [("one", False), ("two", False)]


def test_a_part_that_hangs_is_ended_with_what_it_has_told(monkeypatch, tmp_path):
    gpu = import_module("gpu")
    script = tmp_path / "part.py"
    script.write_text("import time; print('{\"lanes\": 1}', flush=True); time.sleep(60)")
    monkeypatch.setattr(gpu, "__file__", str(script))
    told, failure = gpu.run_fresh_part([], limit=3)

    assert told == [{"lanes": 1}]
    assert failure == "it took more than 3 s"


def test_a_check_that_is_unknown_is_told():
    with pytest.raises(SystemExit, match=r"^--checks must be .*got \['x'\]"):
        import_module("gpu").choose_checks(["x"])


def run_peer(name, capsys, *arguments):
    """Run a peer in this process; return the figures that it prints."""
    import_module(name).main(list(arguments))
    return json.loads(capsys.readouterr().out.splitlines()[-1])


def test_memory_counts_processes_that_were_started():
    harness = import_module("harness")
    program = "x = bytearray(50_000_000); print('ready', flush=True); input()"
    before, most_before = harness.held_bytes(), harness.peak_bytes()
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        child.stdout.readline()
        held, most = harness.held_bytes(), harness.peak_bytes()
        child.communicate("\n")

    assert held > before + 30e6
    assert most > most_before + 30e6


def test_spending(tmp_path):
    found = run("spending", tmp_path, "--quick")

    epochs = {row["peer"]: row["epochs"] for row in found["rows"]}
    assert epochs == {
        "sktune": 4 * 2 * 4,
        "apart": 4 * 2 * 7,
        "resumed": 0,
        "skorch": 4 * 2 * 7,
    }
    halved = {row["peer"]: row for row in found["halving"]["rows"]}
    assert halved["grid"]["epochs"] == 27 * 2 * 3
    assert halved["racing"]["epochs"] < halved["grid"]["epochs"]
    assert halved["racing"]["best_score"] <= halved["grid"]["best_score"]


@pytest.mark.parametrize(
    ("options", "n_workloads", "n_predictions"), [([], 4, 1), (["--images"], 3, 0)]
)
def test_single_fit(options, n_workloads, n_predictions, tmp_path, capsys):
    found = run("single_fit", tmp_path, "--quick", *options)

    assert {row["peer"] for row in found["rows"]} == {"loop", "sktune", "skorch"}
    assert sum(row["what"].startswith("epoch") for row in found["rows"]) == 3 * n_workloads
    assert sum(row["what"].startswith("fit") for row in found["rows"]) == 3 * n_workloads
    assert sum(row["what"].startswith("predict") for row in found["rows"]) == 3 * n_predictions
    assert found["machine"]["torch_threads"] >= 1
    printed = capsys.readouterr().out
    assert len(printed.splitlines()) == 1 + len(found["rows"])
    assert all(row["what"] in printed for row in found["rows"])


@pytest.mark.parametrize("peer", ["sktune", "skorch", "MLPClassifier", "loop"])
@pytest.mark.parametrize("yardstick", ["digits", "wide"])
def test_search_speed_peers(yardstick, peer, capsys):
    tiny = ["--candidates", "2", "--epochs", "1", "--n-jobs", "1"]

    found = run_peer("search_speed", capsys, "--peer", peer, "--yardstick", yardstick, *tiny)

    assert found["seconds"] > 0
    assert 0 < found["best"] <= 1
    assert found["peak_mib"] > 0


def test_search_speed(tmp_path, capsys, monkeypatch):
    """Test the table, the record and the expected ratios, without running the peers."""
    script = import_module("search_speed")
    seconds = {"sktune": 1.0, "skorch": 2.5, "loop": 2.0, "MLPClassifier": 1.5}

    def run_alone(args, peer, n_jobs, threads):
        return {
            "seconds": seconds[peer] + int(n_jobs),
            "training": 0.5,
            "first_seconds": 9.0,
            "peak_mib": 100,
            "best": 0.5,
        }

    monkeypatch.setattr(script, "run_alone", run_alone)
    with pytest.raises(SystemExit, match="not as much faster as wanted than skorch$"):
        run("search_speed", tmp_path, "--yardstick", "wide")

    found = json.loads((tmp_path / "found" / "out.json").read_text())
    assert found["wanted"]["skorch"] == {"wanted": 3.0, "found": 2.5}
    assert found["peers"].keys() == set(script.YARDSTICKS["wide"].peers)
    assert found["settings"]["candidates"] == 12
    assert "MLPClassifier, n_jobs=2" in capsys.readouterr().out
    # No ratio is expected for the digits.
    assert run("search_speed", tmp_path)["settings"]["candidates"] == 60


def test_result_paths_differ():
    script = import_module("search_speed")
    parse = script.make_parser().parse_args
    kinds = [
        parse(["--yardstick", name, *more])
        for name in script.YARDSTICKS
        for more in ([], ["--profile"])
    ]

    assert len({script.result_path(args) for args in kinds}) == len(kinds)


def test_profile(tmp_path, capsys, monkeypatch):
    script, timers = import_module("search_speed"), import_module("timers")

    def run_here(args, peer, n_jobs, threads):
        tiny = [
            "--peer",
            peer,
            "--n-jobs",
            str(n_jobs),
            "--profile",
            "--candidates",
            "2",
            "--epochs",
            "1",
        ]
        return run_peer("search_speed", capsys, *tiny)

    monkeypatch.setattr(script, "run_alone", run_here)
    found = run("search_speed", tmp_path, "--profile", "--candidates", "2", "--epochs", "1")[
        "profile"
    ]

    names = {timer.part for timer in timers.search_timers()} - {timers.STEPS} | set(timers.STAGES)
    assert found["parts"].keys() == names | {timers.REST}
    assert all(seconds > 0 for seconds in found["parts"].values())
    printed = capsys.readouterr().out
    assert all(f"\n{name}" in printed for name in [*names, "rest", "all", "products alone at peak"])


def test_scaling(tmp_path, capsys):
    pytest.importorskip("matplotlib")
    script = import_module("scaling")
    rows = run("scaling", tmp_path, "--quick")["rows"]

    assert {row["sweep"] for row in rows} == script.SWEEPS.keys()
    assert len(rows) == sum(len(cases) for _, cases in script.SWEEPS.values())
    assert all(row["fused_ms"] > 0 < row["plain_ms"] for row in rows)
    assert {row["how"] for row in rows} <= {"fused", "alone", "mixed"}
    assert (tmp_path / "found" / "out.png").stat().st_size > 0
    printed = capsys.readouterr().out
    assert all(f"\n{row['label']} " in printed for row in rows)


def test_scaling_names_what_is_slower(tmp_path, monkeypatch):
    pytest.importorskip("matplotlib")
    script = import_module("scaling")
    own = {
        "fused_ms": 1.0,
        "plain_ms": 1.0,
        "plain_fits": 8,
        "how": "alone",
        "reasons": ["it is one"],
    }

    def measure(case, repeats):
        return {"case": script.asdict(case), "ratio": 0.5 if case.depth == 4 else 0.96, **own}

    monkeypatch.setattr(script, "measure", measure)
    with pytest.raises(SystemExit, match=r"slower than one at a time: depth 4 \(0\.50\)$"):
        run("scaling", tmp_path, "--sweeps", "depth")
    run("scaling", tmp_path, "--sweeps", "width")


@pytest.mark.parametrize(
    ("n_fused", "n_alone", "how"), [(2, 0, "fused"), (0, 2, "alone"), (1, 1, "mixed")]
)
def test_scaling_tells_how(n_fused, n_alone, how):
    script = import_module("scaling")
    report = script.FusionReport(
        groups=[{"lanes": n_fused}] * (n_fused > 0), alone=[{"reason": "no"}] * n_alone
    )

    assert script.tell_how(report) == {
        "how": how,
        "groups": int(n_fused > 0),
        "reasons": ["no"] * (n_alone > 0),
    }


def test_overheads(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(import_module("overheads"), "IMPORT", "print(0.5)  # import {}")
    found = run("overheads", tmp_path, "--quick")

    assert found["import"] == {"sktune_ms": 500, "skorch_ms": 500, "ratio": 1}
    assert found["least_search"]["sktune_ms"] > 0 < found["least_search"]["skorch_ms"]
    assert found["around_training"].keys() == {
        timer.part for timer in import_module("overheads").TIMERS
    }
    assert all(ms > 0 for ms in found["around_training"].values())
    assert "large" not in found
    assert "1 candidate x 2 folds" in capsys.readouterr().out


@pytest.mark.parametrize("peer", ["sktune", "loop"])
def test_overheads_large(peer, capsys):
    found = run_peer("overheads", capsys, "--peer", peer, "--rows", "4000")

    assert found["seconds"] > 0
    # It may be 0, since earlier tests in this process may have held more.
    assert found["memory"] >= 0
    assert found["data_mib"] == pytest.approx(4000 * (50 * 4 + 8) / 2**20)
    assert found.get("fused", 12) == 12


def test_overheads_large_table(tmp_path, capsys, monkeypatch):
    script = import_module("overheads")
    row = {"seconds": 2.0, "memory": 1.5, "data_mib": 200.0, "fused": 12}
    for name in ("measure_imports", "measure_least_search"):
        monkeypatch.setattr(
            script, name, lambda repeats: {"sktune_ms": 1.0, "skorch_ms": 2.0, "ratio": 0.5}
        )
    monkeypatch.setattr(
        script, "measure_around_training", lambda n_candidates, repeats: {"planning": 1.0}
    )
    monkeypatch.setattr(script, "run_fresh", lambda command, threads, what: row)

    assert run("overheads", tmp_path, "--large")["large"] == dict.fromkeys(script.LARGE_PEERS, row)
    assert "1.50\n" in capsys.readouterr().out


@pytest.fixture
def clock(monkeypatch):
    """Replace the clock of the timers by one that the test advances."""
    times = [0.0]
    monkeypatch.setattr(import_module("timers"), "perf_counter", lambda: sum(times))
    return times


def outer(clock):
    clock.append(1)
    inner(clock)
    clock.append(2)


def inner(clock):
    clock.append(10)


def unused():
    """Do nothing. No test calls this function."""


def timer(name, how="self"):
    return import_module("timers").Timer(name, f"{__name__}:{name}", how)


def test_timers_count_for_the_innermost(clock):
    with import_module("timers").running([timer("outer"), timer("inner")]) as watch:
        outer(clock)
        clock.append(1000)

    assert watch.calls == {"outer": 1, "inner": 1}
    assert watch.seconds == {"outer": 3, "inner": 10, "rest": 1000}
    assert not hasattr(outer, "__wrapped__")


def test_timers_of_the_whole_and_of_the_outermost(clock):
    with import_module("timers").running([timer("outer", "whole"), timer("inner")]) as watch:
        outer(clock)
        inner(clock)
    assert watch.seconds == {"outer": 13, "inner": 10, "rest": 0}

    with import_module("timers").running([timer("outer"), timer("inner", "outermost")]) as watch:
        outer(clock)
        inner(clock)
    assert watch.calls == {"outer": 1, "inner": 1}
    assert watch.seconds == {"outer": 13, "inner": 10, "rest": 0}


@pytest.mark.parametrize(
    "path",
    [
        "sktune.nowhere:f",
        "sktune.engine.group:Group.nothing",
        "sktune.training.rows:Nothing.at_all",
    ],
)
def test_timers_miss_what_has_moved(path):
    timers = import_module("timers")
    with (
        pytest.raises(LookupError, match="has moved"),
        timers.running([timers.Timer("part", path)]),
    ):
        pass


def test_timers_miss_what_is_no_longer_called():
    timers = import_module("timers")
    with (
        pytest.raises(LookupError, match=r"nothing was counted for \['unused'\]"),
        timers.running([timer("unused")]),
    ):
        pass


def test_lenient_run_of_skorch_s_suite_takes_what_sktune_refuses(monkeypatch):
    """The script switches the checks off by private names, which may move."""
    script = import_module("skorch_suite")
    X, y = np.eye(8, dtype=np.float32) * 1e30, np.arange(8) % 2
    net = NeuralNetClassifier(optimizer=torch.optim.SGD, lr=1e20, max_epochs=3, random_state=0)
    with pytest.raises(DivergenceError, match="training must stay finite"):
        net.fit(X, y)
    monkeypatch.setattr(hyperparameters, "_ALLOWED", dict(hyperparameters._ALLOWED))
    for name in ("_check_loss", "_check_weights"):
        monkeypatch.setattr(Training, name, getattr(Training, name))
    script.take_anything()

    assert len(net.fit(X, y).history) == 3
    assert len(net.set_params(max_epochs=0).fit(X, y).history) == 0


def test_skorch_s_suite_must_have_tests(monkeypatch, tmp_path):
    script = import_module("skorch_suite")
    monkeypatch.setattr(script, "run_suite", lambda *args, **options: {})

    with pytest.raises(RuntimeError, match="tests must be found that pass with skorch"):
        script.main([str(tmp_path)])


@pytest.mark.slow
def test_time_to_score(tmp_path, capsys):
    peers = ["sktune-random", "sktune-gp", "sktune-racing", "sktune-halving", "sktune-hyperband"]
    options = ["--data", "breast cancer", "--peers", *peers]
    options += ["--seeds", "1", "--candidates", "3", "--epochs", "4"]
    found = run("time_to_score", tmp_path, *options)

    rows = found["table"]["breast cancer"]
    assert rows["skorch-random"]["ratio"] == 1
    assert rows.keys() == {"skorch-random", *peers}
    (run_of_peers,) = found["runs"]
    told = {
        peer: [row["n_candidates"], row["n_fits"] / 5, row["n_epochs"] / 5]
        for peer, row in run_of_peers["peers"].items()
    }
    n_complete, n_fits, n_epochs = told.pop("sktune-racing")
    # all candidates have been on the first of five splits
    assert 1 <= n_complete <= 24
    assert 24 / 5 < n_fits <= 24
    assert n_epochs == 4 * n_fits
    assert told == {
        "skorch-random": [3, 3, 12],
        "sktune-random": [24, 24, 96],
        "sktune-gp": [24, 24, 96],
        # 12 candidates of 1 epoch, 6 of 2, 3 of 4
        "sktune-halving": [3, 21, 24],
        # 3 candidates of 1 epoch, 1 of 4 and 2 of 4; three times
        "sktune-hyperband": [9, 18, 42],
    }
    assert "sktune-gp" in capsys.readouterr().out


def test_time_to_a_score_counts_only_candidates_with_all_epochs():
    script = import_module("time_to_score")
    fits = [(float(n), "ab"[n % 2], 2, 0.9) for n in range(10)]
    fits += [(10.0 + n, "a", 4, 0.5) for n in range(5)]

    assert script.list_finished(fits, 4) == [(14.0, 0.5)]
    assert script.count_epochs(fits) == 5 * (4 + 2)


def test_time_to_a_score_is_that_of_the_first_candidate_to_reach_it():
    script = import_module("time_to_score")
    finished = [(3.0, 0.9), (1.0, 0.5), (2.0, 0.9)]

    assert script.seconds_to(0.9, finished) == 2.0
    assert script.seconds_to(0.95, finished) is None


def test_convolutions(tmp_path, capsys):
    (row,) = run("convolutions", tmp_path, "--nets", "8 x 8, 8 and 16 channels", "--rounds", "1")[
        "nets"
    ]

    assert row["steps"] == "compiled"
    assert row["numbers"] == 8 * 64 * 64
    assert min(row["compiled"], row["stacked"], row["loop"]) > 0
    assert row["net"] in capsys.readouterr().out


def test_ensembles(tmp_path, capsys):
    script = import_module("ensembles")
    rows = run("ensembles", tmp_path, "--quick")["rows"]

    assert [row["data"] for row in rows] == list(script.DATA_SETS)
    for row in rows:
        assert all(row[f"{way}_log_loss"] > 0 for way in script.WAYS)
        assert all(0 <= row[f"{way}_error"] <= 1 for way in script.WAYS)
    printed = capsys.readouterr().out
    assert all(f"\n{row['data']} " in printed for row in rows)


def test_regret(tmp_path, capsys):
    pytest.importorskip("optuna")
    few = ["--quick", "--seeds", "1", "--stop-seeds", "1"]
    found = run("regret", tmp_path, *few, "--train", "--data", str(tmp_path / "data.json"))

    regrets = {row["way"]: row["mean"] for row in found["ways"]}
    assert regrets.keys() == {"random", "tpe", "gp", "optuna tpe"}
    assert all(regret >= 0 for regret in regrets.values())
    assert [row["tol"] for row in found["stops"]] == 3 * [0.1, 0.25, 0.5, 1.0]
    assert all(row["candidates"] <= 30 for row in found["stops"])
    data = json.loads((tmp_path / "data.json").read_text())
    assert {len(row) for row in data["rows"]} == {len(data["names"]) + 5}
    assert "| optuna tpe | 1 |" in capsys.readouterr().out
