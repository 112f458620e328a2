"""Every ```python block of the README runs on its own, as a reader would paste it."""

import re
from pathlib import Path

import pytest

README = Path(__file__).parents[1] / "README.md"
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def read_blocks(text):
    """Yield the line above each block and its code."""
    for match in BLOCK.finditer(text):
        yield text.count("\n", 0, match.start(1)), match.group(1)


BLOCKS = list(read_blocks(README.read_text(encoding="utf-8"))) if README.exists() else []


def test_readme_has_blocks():
    assert BLOCKS, f"{README.name} must show at least one ```python block"


def test_read_blocks_takes_python_alone():
    text = "a\n```python\nx = 1\n```\n```\nmake\n```\n```python\ny = 2\n```\n"

    assert list(read_blocks(text)) == [(2, "x = 1\n"), (8, "y = 2\n")]


@pytest.mark.parametrize(("line", "code"), BLOCKS, ids=[f"line {line}" for line, _ in BLOCKS])
def test_block_runs(line, code, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "Agg")

    # the empty lines make a traceback show the README's own line numbers
    exec(compile("\n" * line + code, README, "exec"), {"__name__": "readme"})
