"""A drawing with two axes."""

from sktune.inspection.report.drawing.svg import Drawing

LEFT, RIGHT, TOP, BOTTOM = 52, 10, 10, 42


class Axes:
    """A frame with numbers on two sides.

    Parameters
    ----------
    label : str
        What the picture shows, for those who do not see it.
    x, y : Scale
        `y` grows upwards.
    x_name, y_name : str
        What the axes show.
    width, height : int, default=360 and 240
    has_y_ticks : bool, default=True
        Rows with texts of their own have none.
    x_ticks : list of (float, str), default=None
        None is what the scale chooses.
    """

    def __init__(
        self, label, x, y, x_name, y_name, *, width=360, height=240, has_y_ticks=True, x_ticks=None
    ):
        self.x = x
        self.y = y
        self.drawing = Drawing(width, height, label)
        self.left = LEFT if has_y_ticks else RIGHT
        self.right = width - RIGHT
        self.top = TOP
        self.bottom = height - BOTTOM
        self._draw_x_axis(x_name, self.x.ticks() if x_ticks is None else x_ticks)
        if has_y_ticks:
            self._draw_y_axis(y_name)

    def to_x(self, numbers):
        """Return the horizontal coordinates of numbers."""
        return self.left + (self.right - self.left) * self.x.place(numbers)

    def to_y(self, numbers):
        """Return the vertical coordinates of numbers."""
        return self.bottom - (self.bottom - self.top) * self.y.place(numbers)

    def _draw_x_axis(self, name, ticks):
        for number, text in ticks:
            x = float(self.to_x(number))
            self.drawing.add_line(x, self.top, x, self.bottom, "grid")
            self.drawing.add_text(x, self.bottom + 15, text, "tick middle")
        self.drawing.add_line(self.left, self.bottom, self.right, self.bottom, "axis")
        middle = (self.left + self.right) / 2
        # a long name is cut rather than written over the edge
        name = shorten(name, 48)
        self.drawing.add_text(middle, self.drawing.height - 6, name, "name middle")

    def _draw_y_axis(self, name):
        for number, text in self.y.ticks():
            y = float(self.to_y(number))
            self.drawing.add_line(self.left, y, self.right, y, "grid")
            self.drawing.add_text(self.left - 6, y + 4, text, "tick end")
        middle = (self.top + self.bottom) / 2
        self.drawing.add(
            "text",
            "name middle",
            shorten(name, 30),
            x=11,
            y=middle,
            transform=f"rotate(-90 11 {middle:.0f})",
        )


def shorten(text, most):
    """Return a text of at most `most` characters.

    Examples
    --------
    >>> from sktune.inspection.report.drawing.axes import shorten
    >>> shorten("abcdef", 4), shorten("abc", 4)
    ('abc…', 'abc')
    """
    return text if len(text) <= most else text[: most - 1] + "…"
