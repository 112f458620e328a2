"""The library's shape: imports run downwards only."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "sktune"

# From top to bottom. A module imports from the rows below its own, never from its own.
LAYERS = [
    ["sktune"],
    ["sktune.search", "sktune.bayes", "sktune.holdout"],
    ["sktune.lr_range", "sktune.diagnosis", "sktune.display"],
    ["sktune.fused"],
    ["sktune.fused.backend"],
    ["sktune.fused.collect", "sktune.fused.run"],
    ["sktune.fused.plan", "sktune.fused.replay"],
    ["sktune.fused.caught", "sktune.fused.plain", "sktune.fused.train"],
    [f"sktune.fused.{name}" for name in ("capture", "curves", "draws", "lanes", "network", "optim", "seam", "tables")],
    ["sktune.estimators", "sktune.fused.chain"],
    ["sktune.training"],
    ["sktune.advice", "sktune.compiled", "sktune.evaluation", "sktune.progress", "sktune.splits"],
    ["sktune.data", "sktune.resampling", "sktune.sealing", "sktune.spaces", "sktune.validation"],
    ["sktune.kernels", "sktune.modules", "sktune.schedules"],
    [f"sktune.{name}" for name in ("components", "labels", "listeners", "names", "randomness", "records", "vectors")],
]
DEPTH = {name: depth for depth, row in enumerate(LAYERS) for name in row}


def module_name(path):
    """Return the dotted name of a file; a package is named by its folder."""
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def list_imports(source, package, known):
    """Return the modules of sktune that `source` imports, wherever in it, as dotted names.

    `package` is where relative imports start. Of ``from a import b``, b counts if it is among the
    `known` modules, and otherwise a.
    """
    imported = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            start = package.split(".")[: len(package.split(".")) + 1 - node.level]
            base = ".".join([*start, node.module or ""] if node.level else [node.module]).strip(".")
            names = [f"{base}.{alias.name}" for alias in node.names]
            imported |= {name if name in known else base for name in names}
    return {name for name in imported if name.split(".")[0] == "sktune"}


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("import sktune.search", {"sktune.search"}),
        ("import numpy\nfrom scipy import stats", set()),
        ("from sktune.search import GridSearchCV", {"sktune.search"}),
        ("from sktune import search, MLP", {"sktune.search", "sktune"}),
        ("from . import plan", {"sktune.fused.plan"}),
        ("from .plan import group", {"sktune.fused.plan"}),
        ("from .. import search", {"sktune.search"}),
        ("from ..search import GridSearchCV", {"sktune.search"}),
        ("def f():\n    from sktune.search import GridSearchCV", {"sktune.search"}),
    ],
)
def test_list_imports(source, expected):
    known = {"sktune", "sktune.search", "sktune.fused.plan"}

    assert list_imports(source, "sktune.fused", known) == expected


@pytest.mark.parametrize("name", FILES)
def test_module_has_a_layer(name):
    assert name in DEPTH, f"{name} must stand in LAYERS of {Path(__file__).name}"


@pytest.mark.parametrize("name", FILES)
def test_imports_run_downwards(name):
    path = FILES[name]
    package = name if path.stem == "__init__" else name.rpartition(".")[0]
    imports = list_imports(path.read_text(encoding="utf-8"), package, FILES)

    upwards = {other for other in imports if DEPTH.get(other, -1) <= DEPTH.get(name, -1)}

    assert not upwards, f"{name} must import from lower layers only, got {sorted(upwards)}"
