"""The site of the documentation: every public name has a page, and the tools of the build work."""

import ast
import re
from importlib import import_module
from pathlib import Path

import pytest
from sklearn.utils import estimator_html_repr

import sktune
from sktune import inspection
from sktune.checks.synonyms import SYNONYMS
from sktune.inspection.advice.rules import RULES
from sktune.runtime.diagrams import documentation

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
pytestmark = pytest.mark.skipif(not DOCS.exists(), reason="the pages are not installed")


@pytest.fixture
def load(monkeypatch):
    """Return a function that imports a tool of the build."""
    monkeypatch.syspath_prepend(DOCS)
    monkeypatch.syspath_prepend(DOCS / "_ext")
    return import_module


def names_listed():
    """Return the full names in the lists of the reference."""
    module = ""
    directive = ""
    listed = set()
    for line in (DOCS / "api" / "index.rst").read_text(encoding="utf-8").splitlines():
        if line.startswith(".. currentmodule::"):
            module = line.split()[-1]
        elif line.startswith(".. "):
            directive = line
        elif directive == ".. autosummary::" and re.fullmatch(r"   \w+", line):
            listed.add(f"{module}.{line.strip()}")
    return listed


def test_every_public_name_has_a_page():
    # A name that both modules offer has its page in sktune.
    expected = {f"sktune.{name}" for name in sktune.__all__}
    others = set(inspection.__all__) - set(sktune.__all__)
    expected |= {f"sktune.inspection.{name}" for name in others}

    assert names_listed() == expected


@pytest.mark.parametrize("path", sorted((ROOT / "examples").glob("*.py")), ids=lambda p: p.name)
def test_an_example_begins_with_what_it_shows(path):
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))

    assert text, f"{path.name} must have a docstring, which is the text of its page"


def test_every_finding_is_in_the_table_of_findings():
    text = (DOCS / "inspecting.rst").read_text(encoding="utf-8")
    named = re.findall(r"^   \* - ``([a-z-]+)``$", text, re.MULTILINE)

    assert sorted(named) == sorted(rule.code for rule in RULES)


def rows_of(text):
    """Yield the cells of each row of the tables of a page."""
    for row in re.split(r"^   \* - ", text, flags=re.MULTILINE)[1:]:
        yield re.split(r"\n     -[ \n]", row)


def test_tables_of_other_names_agree_with_the_errors():
    text = (DOCS / "coming_from.rst").read_text(encoding="utf-8")
    n_checked = 0
    for cells in rows_of(text):
        for literal in re.findall(r"``([^`]+)``", cells[0]):
            ours = SYNONYMS.get(re.split(r"[=(]", literal)[0])
            # Names that mean the same in both are in no list of synonyms.
            if ours is None or cells[1].strip() == "the same":
                continue
            n_checked += 1
            assert any(name in cells[1] for name in ours), f"{literal}: {cells[1]}, not {ours}"

    assert n_checked > 20


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("## A `b`\n", "A ``b``\n-------\n"),
        ("a `b`s [c](https://d.org)\n", "a ``b``\\ s `c <https://d.org>`__\n"),
        ("a |b| `|c|`\n", "a \\|b\\| ``|c|``\n"),
        ("**a `b`** and **c**\n", "a ``b`` and **c**\n"),
        ("```\na\n\n  b\n```\n", ".. code-block:: text\n\n   a\n\n     b\n"),
        ("```python\n# a\n```\n", ".. code-block:: python\n\n   # a\n"),
        (
            "| a | b |\n| --- | --- |\n| `c` | |\n",
            ".. list-table::\n   :header-rows: 1\n\n   * - a\n     - b\n   * - ``c``\n     -\n",
        ),
    ],
)
def test_markdown_becomes_restructured_text(text, expected, load):
    assert load("markdown_files").convert(text) == expected


@pytest.mark.parametrize(
    ("text", "title"),
    [
        ("A title\n=======\n\nA text.\n", "A title\n=======\n"),
        ("=======\nA title\n=======\n", "A title\n=======\n"),
        ("One line.\n\nA text.\n", "One line\n========\n"),
        ("A sentence that\ntakes two lines.\n", "Some script\n===========\n\nA sentence that\n"),
    ],
)
def test_an_example_without_a_title_gets_one(text, title, load):
    start = ".. _sphx_glr_auto_examples_some_script.py:\n\n\n"
    source = [start + text]

    load("example_titles").underline_title(None, "auto_examples/some_script", source)

    assert source[0].startswith(start)
    assert source[0].removeprefix(start).removeprefix("=======\n").startswith(title)


def test_other_pages_keep_their_text(load):
    source = [".. _sphx_glr_auto_examples_some_script.py:\n\nOne line.\n"]

    load("example_titles").underline_title(None, "guide", source)

    assert source == [".. _sphx_glr_auto_examples_some_script.py:\n\nOne line.\n"]


@pytest.mark.parametrize(
    ("name", "address"),
    [
        (
            "sklearn.model_selection.GridSearchCV",
            "https://scikit-learn.org/stable/modules/generated/"
            "sklearn.model_selection.GridSearchCV.html",
        ),
        ("torch.optim", "https://docs.pytorch.org/docs/stable/optim.html"),
        ("sktune.NoSuchName", None),
    ],
)
def test_names_of_other_libraries_have_addresses(name, address, load):
    assert load("other_libraries").find_address(name) == address


def test_broken_links_are_found(tmp_path, load):
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "index.html").write_text('<h1 id="there">B</h1><a href="../a.html">a</a>')
    (tmp_path / "_static").mkdir()
    (tmp_path / "_static" / "template.html").write_text('<a href="{{ page }}">x</a>')
    links = [
        "b/index.html#there",
        "b/",
        "#here",
        "#",
        "https://scikit-learn.org/stable",
        "mailto:a@b.org",
        "b/index.html#nowhere",
        "c.html",
        "../out.html",
        "http:/one.slash",
        "https://two words.org",
    ]
    text = "".join(f'<a href="{link}">x</a>' for link in links)
    (tmp_path / "a.html").write_text(f'<p id="here"></p>{text}<img src="d.png">')

    broken = load("check_links").find_broken_links(tmp_path)

    assert broken == [
        "a.html: ../out.html leads out of the pages",
        "a.html: b/index.html#nowhere leads to no anchor",
        "a.html: c.html leads to no file",
        "a.html: d.png leads to no file",
        "a.html: http:/one.slash is no address",
        "a.html: https://two words.org is no address",
    ]


def test_a_folder_without_pages_is_a_failure(tmp_path, load, capsys):
    assert load("check_links").main([str(tmp_path)]) == 1
    assert "must hold HTML pages, got none" in capsys.readouterr().out


ESTIMATORS = [
    sktune.NeuralNetClassifier(),
    sktune.NeuralNetRegressor(),
    sktune.GridSearchCV(sktune.NeuralNetClassifier(), {}),
    sktune.RandomizedSearchCV(sktune.NeuralNetClassifier(), {}),
    sktune.BayesSearchCV(sktune.NeuralNetClassifier(), {}),
    sktune.StagedSearch(sktune.NeuralNetClassifier(), []),
    sktune.HoldoutSearch(sktune.GridSearchCV(sktune.NeuralNetClassifier(), {})),
]


@pytest.mark.parametrize("estimator", ESTIMATORS, ids=lambda estimator: type(estimator).__name__)
def test_displays_link_to_the_reference(estimator, monkeypatch):
    name = f"sktune.{type(estimator).__name__}"
    assert name in names_listed()

    assert "api/generated" not in estimator_html_repr(estimator)
    monkeypatch.setattr(documentation, "BASE_URL", "https://pages.invalid")

    assert f'href="https://pages.invalid/api/generated/{name}.html' in estimator_html_repr(
        estimator
    )


def test_a_class_of_the_user_has_no_link(monkeypatch):
    class Own(sktune.NeuralNetClassifier):
        pass

    monkeypatch.setattr(documentation, "BASE_URL", "https://pages.invalid")

    assert "pages.invalid" not in estimator_html_repr(Own())
