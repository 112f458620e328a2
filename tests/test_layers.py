"""Imports run downwards only, and packages have few modules."""

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "sktune"

# From top to bottom. A package imports from itself and from those below it.
LAYERS = [
    "sktune",
    "sktune.evaluation",
    "sktune.inspection",
    "sktune.search",
    "sktune.bridge",
    "sktune.estimators",
    "sktune.engine",
    "sktune.checks",
    "sktune.training",
    "sktune.modules",
    "sktune.runtime",
]
DEPTH = {name: depth for depth, name in enumerate(LAYERS)}


def depth_of(package):
    """Return the depth of a package. A subpackage has the depth of its outer package."""
    return DEPTH[".".join(package.split(".")[:2])]


MOST_FILES = 10


def module_name(path):
    """Return the dotted name of a file; ``__init__.py`` has the name of its package."""
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def package_of(name):
    """Return the package that contains a module; for a package, the package itself."""
    return name if FILES[name].stem == "__init__" else name.rpartition(".")[0]


def list_imports(source, package, known):
    """Return the dotted names of the modules of sktune that `source` imports anywhere.

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


def imports_of(name):
    """Return the modules of sktune that one of its modules imports."""
    return list_imports(FILES[name].read_text(encoding="utf-8"), package_of(name), FILES)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("import sktune.search", {"sktune.search"}),
        ("import numpy\nfrom scipy import stats", set()),
        ("from sktune.search import GridSearchCV", {"sktune.search"}),
        ("from sktune import search, MLP", {"sktune.search", "sktune"}),
        ("from . import planner", {"sktune.engine.planner"}),
        ("from .planner import group", {"sktune.engine.planner"}),
        ("from .. import search", {"sktune.search"}),
        ("from ..search import GridSearchCV", {"sktune.search"}),
        ("def f():\n    from sktune.search import GridSearchCV", {"sktune.search"}),
    ],
)
def test_list_imports(source, expected):
    known = {"sktune", "sktune.search", "sktune.engine.planner"}

    assert list_imports(source, "sktune.engine", known) == expected


@pytest.mark.parametrize("name", FILES)
def test_package_has_a_layer(name):
    package = package_of(name)

    outer = ".".join(package.split(".")[:2])
    assert outer in DEPTH, f"{package} must stand in LAYERS of {Path(__file__).name}"


@pytest.mark.parametrize("name", FILES)
def test_imports_run_downwards(name):
    own = package_of(name)

    upwards = {other for other in imports_of(name) if depth_of(package_of(other)) < depth_of(own)}

    assert not upwards, f"{name} must import from lower layers only, got {sorted(upwards)}"


def test_modules_import_each_other_in_no_circle():
    # Importing a package imports all modules that its ``__init__.py`` imports.
    sorter = TopologicalSorter({name: imports_of(name) - {name} for name in FILES})

    try:
        sorter.prepare()
    except CycleError as error:
        pytest.fail(f"modules must not import each other in a circle, got {error.args[1]}")


@pytest.mark.parametrize("package", sorted({package_of(name) for name in FILES}))
def test_package_is_small(package):
    names = [name for name in FILES if package_of(name) == package and name != package]

    assert len(names) <= MOST_FILES, f"{package} must have at most {MOST_FILES} modules"
