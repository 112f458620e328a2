"""Elements of an SVG picture."""

import re
from xml.etree import ElementTree

import numpy as np

# Characters that no XML text may have, in an HTML file either.
_CONTROLS = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")


class Drawing:
    """A picture that grows element by element; texts and attributes are escaped.

    Colors come from classes: the page has light and dark ones.

    Parameters
    ----------
    width, height : int
        In units of the picture's own; a page stretches it to the room that it has.
    label : str
        What the picture shows, for those who do not see it.

    Examples
    --------
    >>> from sktune.inspection.report.drawing.svg import Drawing
    >>> drawing = Drawing(10, 10, "a < b")
    >>> drawing.add_text(1, 2, "<b>", "tick")
    >>> drawing.to_svg()
    '<svg class="picture" viewBox="0 0 10 10" role="img" aria-label="a &lt; b"><text class="tick"
    x="1" y="2">&lt;b&gt;</text></svg>'
    """

    def __init__(self, width, height, label):
        self.width = width
        self.height = height
        self._root = ElementTree.Element("svg")
        self._root.set("class", "picture")
        self._root.set("viewBox", f"0 0 {width} {height}")
        self._root.set("role", "img")
        self._root.set("aria-label", _clean(label))

    def add(self, tag, css_class, text=None, **attributes):
        """Append an element; numbers are rounded to a tenth."""
        element = ElementTree.SubElement(self._root, tag)
        element.set("class", css_class)
        for name, value in attributes.items():
            value = _clean(value) if isinstance(value, str) else format_coordinate(value)
            element.set(name.replace("_", "-"), value)
        if text is not None:
            element.text = _clean(text)

    def add_text(self, x, y, text, css_class):
        """Write a text whose baseline is at `y`."""
        self.add("text", css_class, text, x=x, y=y)

    def add_line(self, x1, y1, x2, y2, css_class):
        """Draw a straight line."""
        self.add("line", css_class, x1=x1, y1=y1, x2=x2, y2=y2)

    def add_lines(self, lines, css_class):
        """Draw lines through points, all in one element.

        Parameters
        ----------
        lines : iterable of (x, y)
            Each a pair of arrays of shape (n_points,); a line is interrupted where one is nan.
        css_class : str
        """
        path = "".join(_trace(x, y) for x, y in lines)
        if path:
            self.add("path", css_class, d=path)

    def add_points(self, x, y, css_class):
        """Draw round points, all in one element: lines without length that have round ends."""
        is_there = np.isfinite(x) & np.isfinite(y)
        points = zip(x[is_there], y[is_there], strict=True)
        path = "".join(f"M{format_coordinate(a)} {format_coordinate(b)}h0" for a, b in points)
        if path:
            self.add("path", css_class, d=path)

    def to_svg(self):
        """Return the picture as a str, to stand in an HTML page."""
        return ElementTree.tostring(self._root, encoding="unicode")


def format_coordinate(value):
    """Return a coordinate with at most one digit after the point.

    Examples
    --------
    >>> from sktune.inspection.report.drawing.svg import format_coordinate
    >>> format_coordinate(3.0), format_coordinate(0.16), format_coordinate(-0.01)
    ('3', '0.2', '0')
    """
    text = f"{value:.1f}".removesuffix(".0")
    return "0" if text == "-0" else text


def _trace(x, y):
    """Return the path through points, with a new start after each gap."""
    parts = []
    is_down = False
    for a, b in zip(x, y, strict=True):
        if not (np.isfinite(a) and np.isfinite(b)):
            is_down = False
            continue
        command = "L" if is_down else "M"
        parts.append(f"{command}{format_coordinate(a)} {format_coordinate(b)}")
        is_down = True
    return "".join(parts)


def _clean(text):
    """Return a text without the characters that a page cannot hold."""
    return _CONTROLS.sub("\N{REPLACEMENT CHARACTER}", text)
