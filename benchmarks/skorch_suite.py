"""Run skorch's own test suite against sktune's nets.

``python benchmarks/skorch_suite.py PATH_TO_SKORCH`` runs the suite of a checkout of skorch twice:
as it is, and with sktune's nets in place of skorch's classifier and regressor. Thin subclasses give
them skorch's defaults. The script prints the tests that pass with skorch and fail with sktune.
`docs/differences.rst` gives the reasons.

This file is also the pytest plugin of the two runs.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import types
from pathlib import Path

# The environment variables by which a run of the suite gets its settings.
_RECORD = "SKORCH_SUITE_RECORD"
_NETS = "SKORCH_SUITE_NETS"
_LENIENT = "SKORCH_SUITE_LENIENT"
_HERE = Path(__file__).resolve().parent


def make_nets():
    """Return sktune's classifier and regressor with the defaults of skorch's."""
    import torch
    from skorch.dataset import ValidSplit

    import sktune

    stratified = ValidSplit(5, stratified=True)
    plain = ValidSplit(5)
    defaults = {
        "optimizer": torch.optim.SGD,
        "lr": 0.01,
        "max_epochs": 10,
        "batch_size": 128,
        "shuffle": False,
        "device": "cpu",
        "verbose": 1,
    }

    class NeuralNetClassifier(sktune.NeuralNetClassifier):
        def __init__(
            self, module, *args, criterion=torch.nn.NLLLoss, train_split=stratified, **kwargs
        ):
            given = dict(zip(("optimizer",), args, strict=False))
            own = {"criterion": criterion, "train_split": train_split}
            super().__init__(module, **{**defaults, **own, **given, **kwargs})

    class NeuralNetRegressor(sktune.NeuralNetRegressor):
        def __init__(self, module, *args, criterion=torch.nn.MSELoss, train_split=plain, **kwargs):
            given = dict(zip(("optimizer",), args, strict=False))
            own = {"criterion": criterion, "train_split": train_split}
            super().__init__(module, **{**defaults, **own, **given, **kwargs})

    return NeuralNetClassifier, NeuralNetRegressor


def replace_nets():
    """Replace skorch's nets by sktune's, under every name by which the suite imports them."""
    import skorch
    import skorch.classifier
    import skorch.regressor

    classifier, regressor = make_nets()
    for net in (classifier, regressor):
        # pickle finds a class by its name.
        net.__qualname__ = net.__name__
        net.__module__ = __name__
        globals()[net.__name__] = net
    skorch.NeuralNetClassifier = skorch.classifier.NeuralNetClassifier = classifier
    skorch.NeuralNetRegressor = skorch.regressor.NeuralNetRegressor = regressor


def take_anything():
    """Switch off sktune's checks of ranges (such as ``max_epochs=0``) and of diverged losses.

    Many tests of the suite fail by these checks, although they test something else.
    """
    from sktune.checks import hyperparameters
    from sktune.estimators.fit_loop import Training

    hyperparameters._ALLOWED.clear()
    Training._check_loss = lambda net, loss, training: None
    Training._check_weights = lambda net: None


class Recorder:
    """A pytest plugin that writes the outcome of each test to a file."""

    def __init__(self, path):
        self.path = path
        self.outcomes = {}

    def pytest_runtest_logreport(self, report):
        """Keep the outcome of a test, and the first line of its error."""
        if report.when == "call" or report.outcome != "passed":
            crash = getattr(report.longrepr, "reprcrash", None)
            line = str(crash.message).strip() if crash else ""
            self.outcomes[report.nodeid] = [report.outcome, line.split("\n")[0]]

    def pytest_sessionfinish(self):
        """Write all outcomes to the file."""
        Path(self.path).write_text(json.dumps(self.outcomes))


def pytest_configure(config):
    """Prepare a run of the suite."""
    if "flaky" not in sys.modules:
        try:
            import flaky  # noqa: F401
        except ImportError:
            # The suite uses it to repeat one test.
            module = types.ModuleType("flaky")
            module.flaky = lambda **options: lambda test: test
            sys.modules["flaky"] = module
    if os.environ.get(_NETS) == "sktune":
        replace_nets()
        if os.environ.get(_LENIENT):
            take_anything()
    path = os.environ.get(_RECORD)
    if path:
        config.pluginmanager.register(Recorder(path))


def run_suite(checkout, nets, tests, *, lenient=False):
    """Run the suite with the nets of ``"skorch"`` or ``"sktune"``; return the outcomes by test."""
    with tempfile.TemporaryDirectory() as folder:
        record = Path(folder) / "outcomes.json"
        paths = [str(checkout), str(_HERE), str(_HERE.parent), os.environ.get("PYTHONPATH", "")]
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(paths),
            _RECORD: str(record),
            _NETS: nets,
        }
        environment[_LENIENT] = "1" if lenient else ""
        command = [sys.executable, "-m", "pytest", "-q", "--tb=line", "--no-header"]
        command += ["-p", "skorch_suite", "-p", "no:cacheprovider"]
        command += ["-o", "addopts=", "--continue-on-collection-errors", *tests]
        done = subprocess.run(
            command, cwd=checkout, env=environment, capture_output=True, text=True
        )
        if not record.exists():
            raise RuntimeError(
                f"the suite must run with {nets}'s nets, "
                f"but pytest said: {done.stdout}{done.stderr}"
            )
        return json.loads(record.read_text())


def compare(plain, ours):
    """Return the tests that pass with skorch, and the messages of those that fail with sktune.

    Parameters
    ----------
    plain, ours : dict of str -> [outcome, message]
        Outcomes with the nets of skorch and with those of sktune.
    """
    passing = [name for name, (outcome, _) in plain.items() if outcome == "passed"]
    missing = ["missing", "the test was not collected"]
    failing = {}
    for name in passing:
        outcome, message = ours.get(name, missing)
        if outcome != "passed":
            failing[name] = message
    return passing, failing


def main(arguments=None):
    """Run the suite with both nets, and print where they differ.

    The exit status is 1 if a test passes with skorch and fails with sktune.
    """
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "checkout", type=Path, help="a checkout of skorch, at the version that is installed"
    )
    parser.add_argument(
        "--tests", nargs="*", default=["skorch/tests"], help="files of the suite, or single tests"
    )
    parser.add_argument(
        "--plain", type=Path, help="file to keep skorch's own outcomes in, and to read them from"
    )
    parser.add_argument(
        "--lenient", action="store_true", help="without sktune's checks of ranges and of divergence"
    )
    chosen = parser.parse_args(arguments)
    checkout = chosen.checkout.resolve()
    if chosen.plain and chosen.plain.exists():
        plain = json.loads(chosen.plain.read_text())
    else:
        plain = run_suite(checkout, "skorch", chosen.tests)
        if chosen.plain:
            chosen.plain.write_text(json.dumps(plain))
    ours = run_suite(checkout, "sktune", chosen.tests, lenient=chosen.lenient)
    if chosen.tests != ["skorch/tests"]:
        plain = {name: outcome for name, outcome in plain.items() if name in ours}
    passing, failing = compare(plain, ours)
    if not passing:
        raise RuntimeError(f"tests must be found that pass with skorch, got none in {checkout}")
    for name, message in failing.items():
        print(f"{name}\n    {message}")
    n_passed = len(passing) - len(failing)
    print(f"{n_passed} of {len(passing)} tests that pass with skorch pass with sktune")
    return bool(failing)


if __name__ == "__main__":
    sys.exit(main())
