"""Where a display draws."""

from sktune.runtime.optional import import_pyplot


def begin_figure(display, ax=None, size=None):
    """Set ``ax_`` and ``figure_`` of a display; return the axes.

    Parameters
    ----------
    display : object
        Its class is named where matplotlib is missing.
    ax : matplotlib Axes, default=None
        Where to draw; None makes a new figure.
    size : (float, float), default=None
        Width and height of a new figure in inches; None are matplotlib's own.

    Raises
    ------
    ImportError
        If matplotlib is not installed.
    """
    plt = import_pyplot(type(display).__name__)
    if ax is None:
        _, ax = plt.subplots(figsize=size, layout="constrained")
    display.ax_ = ax
    display.figure_ = ax.figure
    return ax
