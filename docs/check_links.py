"""Check the links of built HTML pages, without the network: ``check_links.py docs/_build/html``.

A link within the pages must lead to a file, and its anchor to an id in it. Of a link to elsewhere
only the form of the address is checked.
"""

import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

LINKS = {"a": "href", "link": "href", "img": "src", "script": "src", "source": "src"}
# What browsers do with an address is left to them.
OTHER_SCHEMES = {"data", "mailto"}
# Some themes link to these anchors on every page.
TOP = {"", "top"}


class Page(HTMLParser):
    """The links and the anchors of a page."""

    def __init__(self, text):
        super().__init__()
        self.links = []
        self.anchors = set()
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        """Note the link and the anchors of an element."""
        attributes = dict(attrs)
        for name in ("id", "name"):
            if attributes.get(name):
                self.anchors.add(attributes[name])
        link = attributes.get(LINKS.get(tag))
        if link is not None:
            self.links.append(link)


def is_address(link):
    """Tell whether a link to elsewhere has the form of an address of the web."""
    parts = urlsplit(link)
    has_blank = any(character.isspace() for character in link)
    return parts.scheme in {"http", "https"} and "." in (parts.hostname or "") and not has_blank


def list_pages(folder):
    """Return the paths of the pages in a folder, without the templates that a theme brings."""
    paths = sorted(folder.rglob("*.html"))
    return [path for path in paths if "_static" not in path.relative_to(folder).parts]


def find_broken_links(folder):
    """Return what is wrong with the links of the pages in a folder.

    Parameters
    ----------
    folder : Path

    Returns
    -------
    broken : list of str
        A line for each link, with its page.
    """
    folder = Path(folder).resolve()
    paths = list_pages(folder)
    pages = {path: Page(path.read_text(encoding="utf-8")) for path in paths}
    broken = []
    for path, page in pages.items():
        for link in sorted(set(page.links)):
            problem = _problem_of(link, path, folder, pages)
            if problem:
                broken.append(f"{path.relative_to(folder)}: {link} {problem}")
    return broken


def _problem_of(link, path, folder, pages):
    """Return what is wrong with a link of a page, or an empty string."""
    try:
        parts = urlsplit(link)
    except ValueError:
        return "is no address"
    if parts.scheme in OTHER_SCHEMES:
        return ""
    if parts.scheme or parts.netloc:
        return "" if is_address(link) else "is no address"
    target = path
    if parts.path:
        target = (path.parent / unquote(parts.path)).resolve()
        if target.is_dir():
            target = target / "index.html"
    if not target.is_relative_to(folder):
        return "leads out of the pages"
    if not target.is_file():
        return "leads to no file"
    anchor = unquote(parts.fragment)
    # A text fragment is searched for by the browser.
    if anchor in TOP or anchor.startswith(":~:"):
        return ""
    if target in pages and anchor not in pages[target].anchors:
        return "leads to no anchor"
    return ""


def main(arguments):
    """Print what is broken; return the exit status."""
    (folder,) = arguments
    n_pages = len(list_pages(Path(folder)))
    if not n_pages:
        print(f"{folder} must hold HTML pages, got none")
        return 1
    broken = find_broken_links(folder)
    for line in broken:
        print(line)
    print(f"{n_pages} pages, {len(broken)} broken links")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
