"""Give the page of an example a title, where the script's docstring has a plain first line."""

import re

FOLDER = "auto_examples/"
# The label that sphinx-gallery writes above the docstring, and the docstring's first two lines.
START = re.compile(r"(\.\. _sphx_glr_auto_examples_\w+\.py:\n\s*\n)(\S.*)\n(.*)")
UNDERLINE = re.compile(r"([=\-~#*^\"'])\1{2,}")


def underline_title(app, docname, source):
    """Underline the first line of an example's text."""
    if not docname.startswith(FOLDER):
        return
    found = START.search(source[0])
    if found is None or UNDERLINE.fullmatch(found[2]) or UNDERLINE.fullmatch(found[3]):
        return
    if found[3].strip():
        # The first sentence takes more than a line: the name of the script is the title.
        name = docname.removeprefix(FOLDER).replace("_", " ").capitalize()
        titled = f"{found[1]}{name}\n{'=' * len(name)}\n\n{found[2]}\n{found[3]}"
    else:
        title = found[2].rstrip(".")
        titled = f"{found[1]}{title}\n{'=' * len(title)}\n{found[3]}"
    source[0] = source[0].replace(found[0], titled, 1)


def setup(app):
    """Tell Sphinx to call `underline_title`."""
    app.connect("source-read", underline_title)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
