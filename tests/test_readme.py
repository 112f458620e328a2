"""The Python blocks of the README and of the pages in docs/ run.

Each block of the README runs alone; the blocks of a page run one after the other, as one script.
"""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
PAGES = sorted((ROOT / "docs").glob("*.md"))
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def read_blocks(text):
    """Yield the number of lines above each block, and its code."""
    for match in BLOCK.finditer(text):
        yield text.count("\n", 0, match.start(1)), match.group(1)


BLOCKS = list(read_blocks(README.read_text(encoding="utf-8")))


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


@pytest.mark.parametrize(("line", "code"), BLOCKS, ids=[f"line {line}" for line, _ in BLOCKS])
def test_block_runs(line, code, run):
    run(README, line, code, {"__name__": "readme"})


@pytest.mark.parametrize("path", PAGES, ids=[path.name for path in PAGES])
def test_page_runs(path, run):
    namespace = {"__name__": "page"}
    for line, code in read_blocks(path.read_text(encoding="utf-8")):
        run(path, line, code, namespace)


@pytest.mark.parametrize("path", [README, *PAGES], ids=[path.name for path in [README, *PAGES]])
def test_links_lead_somewhere(path):
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", path.read_text(encoding="utf-8")):
        assert (path.parent / target).exists(), f"{path.name} links to {target}"
