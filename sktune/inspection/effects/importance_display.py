"""The picture of what matters to the score."""

import textwrap

import numpy as np

from sktune.inspection.effects.importance import importance
from sktune.inspection.figures import begin_figure
from sktune.inspection.records import label_of


class ImportanceDisplay:
    """Bars with the share of the score's variance by parameter and by pair.

    Use :meth:`from_search` to make one. Bars of pairs are hatched; lines show one standard
    deviation over trees.

    Parameters
    ----------
    importance : ParameterImportance

    Attributes
    ----------
    ax_ : matplotlib Axes
    figure_ : matplotlib Figure
    bars_ : list of matplotlib Rectangle
        From the largest share to the smallest.

    Examples
    --------
    >>> from sktune.inspection import ImportanceDisplay
    >>> params = [{"a": a, "b": b} for a in range(8) for b in range(8)]
    >>> scores = [candidate["a"] / 8 for candidate in params]
    >>> results = {"params": params, "mean_test_score": scores}
    >>> display = ImportanceDisplay.from_search(results)
    >>> [label.get_text() for label in display.ax_.get_yticklabels()]
    ['a', 'a × b', 'b']
    """

    def __init__(self, importance):
        self.importance = importance

    @classmethod
    def from_search(cls, search, metric=None, *, ax=None, max_bars=12, **options):
        """Measure the shares and draw them.

        Parameters
        ----------
        search, metric
            As in :func:`importance`.
        ax, max_bars
            As in :meth:`plot`.
        **options
            The other arguments of :func:`importance`.

        Returns
        -------
        display : ImportanceDisplay
        """
        return cls(importance(search, metric, **options)).plot(ax=ax, max_bars=max_bars)

    def plot(self, ax=None, *, max_bars=12):
        """Draw.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to draw; None makes a new figure.
        max_bars : int, default=12
            How many of the largest shares to draw.

        Returns
        -------
        display : ImportanceDisplay
            The display itself.

        Raises
        ------
        ValueError
            If max_bars is less than 1.
        ImportError
            If matplotlib is not installed.
        """
        if max_bars < 1:
            raise ValueError(f"max_bars must be at least 1, got max_bars={max_bars!r}")
        found = self.importance
        keys = sorted(found.shares, key=found.shares.get, reverse=True)[:max_bars]
        ax = begin_figure(self, ax, (7, 1.6 + 0.35 * len(keys)))
        shares = np.array([found.shares[key] for key in keys])
        deviations = np.array([found.deviations[key] for key in keys])
        # a share is between 0 and 1, and so is its line
        reach = [np.minimum(deviations, shares), np.minimum(deviations, 1.0 - shares)]
        bars = ax.barh(range(len(keys)), shares, xerr=reach, capsize=2, ecolor="0.35")
        self.bars_ = list(bars)
        for bar, key in zip(self.bars_, keys, strict=True):
            is_pair = len(key) == 2
            bar.set(facecolor="C1" if is_pair else "C0", edgecolor="white")
            bar.set_hatch("///" if is_pair else "")
            # shares that cannot be relied on are pale
            bar.set_alpha(1.0 if found.is_conclusive else 0.35)
        # a dollar sign in a name is no formula
        labels = [" × ".join(label_of(name) for name in key).replace("$", r"\$") for key in keys]
        ax.set_yticks(range(len(keys)), labels)
        ax.invert_yaxis()
        ax.set_xlim(left=0)
        ax.set_xlabel(f"share of the variance of predicted {found.metric}".replace("$", r"\$"))
        verdict = textwrap.fill(found.verdict, 60).replace("$", r"\$")
        ax.set_title(verdict, fontsize="medium")
        return self

    def to_frame(self):
        """Return all shares: see :meth:`ParameterImportance.to_frame`."""
        return self.importance.to_frame()
