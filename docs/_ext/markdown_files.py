"""Let pages include the project's Markdown files, such as its changelog.

The files use little of Markdown: headings, lists, tables, fenced code, links and code spans.
"""

import re
from pathlib import PurePath

UNDERLINES = {1: "=", 2: "-", 3: "~"}
HEADING = re.compile(r"(#{1,3}) (.+)")
FENCE = re.compile(r"```(\w*)")
LINK = re.compile(r"\[([^\]]+)\]\(([^)\s]+)\)")
BOLD = re.compile(r"\*\*((?:[^*`]|`[^`]*`)+)\*\*")
SPAN = re.compile(r"(`[^`]+`)")


def convert_inline(text):
    """Return the words of a paragraph in reStructuredText."""
    # Bold text cannot hold a literal there.
    text = BOLD.sub(lambda match: match[1] if "`" in match[1] else match[0], text)
    pieces = []
    after_literal = False
    for piece in SPAN.split(text):
        if SPAN.fullmatch(piece):
            pieces.append(f"`{piece}`")
            after_literal = True
            continue
        # A literal must not touch a letter; an escaped blank is not shown.
        gap = "\\ " if after_literal and piece[:1].isalnum() else ""
        # What is a plain character here would begin a substitution there.
        pieces.append(gap + piece.replace("|", "\\|"))

    def write_link(match):
        label = match[1].replace("``", "")
        return f"`{label} <{match[2]}>`__"

    return LINK.sub(write_link, "".join(pieces))


def convert_table(rows):
    """Return the lines of a ``list-table`` for the lines of a table."""
    lines = ["", ".. list-table::", "   :header-rows: 1", ""]
    for row in rows:
        cells = [cell.strip() for cell in row.strip().strip("|").split("|")]
        if all(set(cell) <= set("-: ") and cell for cell in cells):
            # the line between header and body
            continue
        for index, cell in enumerate(cells):
            mark = "  -" if index else "* -"
            lines.append(f"   {mark} {convert_inline(cell)}".rstrip())
    return [*lines, ""]


def convert_block(lines):
    """Return the lines in reStructuredText of lines that hold no fenced code."""
    if lines and lines[0].startswith("|"):
        return convert_table(lines)
    heading = HEADING.fullmatch(lines[0]) if len(lines) == 1 else None
    if heading:
        title = convert_inline(heading[2])
        return [title, UNDERLINES[len(heading[1])] * len(title)]
    return convert_inline("\n".join(lines)).split("\n")


def convert(text):
    """Return a Markdown text as reStructuredText.

    Parameters
    ----------
    text : str

    Returns
    -------
    converted : str
    """
    done = []
    block = []
    in_code = False
    for line in text.split("\n"):
        fence = FENCE.fullmatch(line)
        if fence:
            done += convert_block(block) if block else []
            block = []
            in_code = not in_code
            done += ["", f".. code-block:: {fence[1] or 'text'}", ""] if in_code else [""]
        elif in_code:
            done.append(f"   {line}".rstrip())
        elif line.strip():
            block.append(line)
        else:
            done += convert_block(block) if block else []
            block = []
            done.append("")
    done += convert_block(block) if block else []
    return "\n".join(done).strip("\n") + "\n"


def convert_included(app, path, parent, content):
    """Convert what a page includes, if it is a Markdown file."""
    if PurePath(path).suffix == ".md":
        content[0] = convert(content[0])


def setup(app):
    """Tell Sphinx to call `convert_included`."""
    app.connect("include-read", convert_included)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
