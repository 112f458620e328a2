"""The settings of the documentation: ``make docs`` builds it without the network."""

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE / "_ext"))
sys.path.insert(0, str(HERE.parent))

import sktune  # noqa: E402
from sktune.runtime.diagrams import documentation  # noqa: E402

project = "sktune"
author = "The sktune developers"
copyright = author  # noqa: A001
version = sktune.__version__
release = sktune.__version__
# Displays of estimators in the gallery link to the pages of this build.
documentation.BASE_URL = ".."

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
    "numpydoc",
    "matplotlib.sphinxext.plot_directive",
    "sphinx_gallery.gen_gallery",
    "example_titles",
    "markdown_files",
    "other_libraries",
    "own_signatures",
]
exclude_patterns = ["_build", "_templates", "_ext", "pictures"]
templates_path = ["_templates"]
nitpicky = True

# The reference
autosummary_generate = True
autodoc_inherit_docstrings = False
# Defaults as they are written: `nn.CrossEntropyLoss`, not the class that it is.
autodoc_preserve_defaults = True
autodoc_typehints = "none"
# The template of classes lists the methods.
numpydoc_show_class_members = False

# The pictures of the pages
plot_basedir = str(HERE)
plot_formats = [("png", 110)]
plot_html_show_formats = False
plot_html_show_source_link = False
plot_include_source = False
plot_rcparams = {"figure.constrained_layout.use": True, "figure.figsize": (7, 3.4)}
plot_apply_rcparams = True

# The gallery: all scripts of examples/ run.
sphinx_gallery_conf = {
    "examples_dirs": "../examples",
    "gallery_dirs": "auto_examples",
    "filename_pattern": r"\.py$",
    "within_subsection_order": "FileNameSortKey",
    "abort_on_example_error": True,
    "backreferences_dir": "api/examples",
    "doc_module": ("sktune",),
    "download_all_examples": False,
    "matplotlib_animations": False,
    "min_reported_time": 10_000,
    "show_memory": False,
    "show_signature": False,
    "write_computation_times": False,
}

# The look
html_theme = "pydata_sphinx_theme"
html_title = f"sktune {release}"
html_static_path = ["_static"]
html_css_files = ["sktune.css"]
html_show_sourcelink = False
html_copy_source = False
html_theme_options = {
    "logo": {"text": "sktune"},
    "show_prev_next": True,
    "navigation_with_keys": False,
    "show_toc_level": 2,
    "header_links_before_dropdown": 7,
    "footer_start": ["copyright"],
    "footer_end": ["sphinx-version"],
}
# Pages without pages below them need no list of those.
html_sidebars = {
    name: []
    for name in (
        "changelog",
        "coming_from",
        "contributing",
        "differences",
        "guide",
        "index",
        "inspecting",
        "installation",
        "promises",
        "quickstart",
        "tuning",
    )
}
