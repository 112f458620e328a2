"""The Python blocks of the README and of the pages in docs/ run.

Each block of the README runs alone; the blocks of a page run one after the other, as one script.
"""

import doctest
import re
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
OPTIONS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
# What a build of the pages makes.
MADE = {"_build", "auto_examples", "examples", "generated"}
PAGES = [
    path
    for path in sorted((ROOT / "docs").rglob("*.rst"))
    if MADE.isdisjoint(path.relative_to(ROOT / "docs").parts)
]
PAGES_OF_SESSIONS = [path for path in PAGES if ">>> " in path.read_text(encoding="utf-8")]
MARKDOWN_BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
# The indented lines below the directive, after its options.
RST_BLOCK = re.compile(
    r"^( *)\.\. code-block:: python\n(?:\1 +:.*\n)*\n((?:\1 +.*\n|[ ]*\n)*)", re.MULTILINE
)


def read_blocks(text):
    """Yield the number of lines above each block of Markdown, and its code."""
    for match in MARKDOWN_BLOCK.finditer(text):
        yield text.count("\n", 0, match.start(1)), match.group(1)


def read_rst_blocks(text):
    """Yield the number of lines above each block of reStructuredText, and its code."""
    for match in RST_BLOCK.finditer(text):
        code = textwrap.dedent(match.group(2)).rstrip("\n") + "\n"
        yield text.count("\n", 0, match.start(2)), code


BLOCKS = list(read_blocks(README.read_text(encoding="utf-8")))


def name_of(path):
    """Return the path of a page below docs/."""
    return path.relative_to(ROOT / "docs").as_posix()


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Return a function that executes a block of a file in a namespace."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "Agg")

    def execute(path, line, code, namespace):
        # With the empty lines, a traceback shows the line numbers of the file.
        exec(compile("\n" * line + code, path, "exec"), namespace)

    return execute


def test_readme_has_blocks():
    assert BLOCKS, f"{README.name} must show at least one ```python block"


def test_read_blocks_takes_python_alone():
    text = "a\n```python\nx = 1\n```\n```\nmake\n```\n```python\ny = 2\n```\n"

    assert list(read_blocks(text)) == [(2, "x = 1\n"), (8, "y = 2\n")]


def test_read_rst_blocks_takes_python_alone():
    text = (
        "a\n\n.. code-block:: python\n\n   x = 1\n\n   if x:\n       y = 2\n\nb\n\n"
        ".. code-block:: text\n\n   make\n\n"
        "- c\n\n  .. code-block:: python\n     :caption: d\n\n     z = 3\n\n  e\n"
    )

    assert list(read_rst_blocks(text)) == [(4, "x = 1\n\nif x:\n    y = 2\n"), (20, "z = 3\n")]


def test_pages_are_found():
    assert {"guide.rst", "differences.rst", "howto/resume.rst"} <= set(map(name_of, PAGES))


@pytest.mark.parametrize(("line", "code"), BLOCKS, ids=[f"line {line}" for line, _ in BLOCKS])
def test_block_runs(line, code, run):
    run(README, line, code, {"__name__": "readme"})


@pytest.mark.parametrize("path", PAGES, ids=name_of)
def test_page_runs(path, run):
    text = path.read_text(encoding="utf-8")
    blocks = list(read_rst_blocks(text))
    assert len(blocks) == text.count(".. code-block:: python")
    if name_of(path).startswith("howto/") and path.stem != "index":
        assert blocks
    namespace = {"__name__": "page"}
    for line, code in blocks:
        run(path, line, code, namespace)


@pytest.mark.parametrize("path", PAGES_OF_SESSIONS, ids=name_of)
def test_sessions_of_a_page_print_what_they_show(path):
    failed, _ = doctest.testfile(str(path), module_relative=False, optionflags=OPTIONS)

    assert failed == 0


def test_links_lead_somewhere():
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", README.read_text(encoding="utf-8")):
        assert (README.parent / target).exists(), f"{README.name} links to {target}"
