"""The picture of a learning-rate range test."""

import numpy as np

from sktune.inspection.figures import begin_figure
from sktune.inspection.lr_range import lr_range_test

# Losses are shown up to this share of the largest fall above the loss without training.
_SHOWN_ABOVE = 0.3
_MARGIN = 0.1


class LRRangeDisplay:
    """Losses over learning rates, with the good region, the divergent edge and the suggestion.

    Use :meth:`from_estimator` or :meth:`from_result` to make one.

    Parameters
    ----------
    result : LRRangeResult

    Attributes
    ----------
    ax_ : matplotlib Axes
    figure_ : matplotlib Figure
    lines_ : list of matplotlib Line2D
        The mean training loss and, unless it is of a sweep, the mean loss of the rows held out.
    fills_ : list of matplotlib artists
        One standard deviation over the splits around each line; empty for a sweep.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sktune import LRRangeDisplay, NeuralNetClassifier
    >>> X, y = load_iris(return_X_y=True)
    >>> net = NeuralNetClassifier(random_state=0)
    >>> options = {"num": 24, "n_epochs": 10}
    >>> display = LRRangeDisplay.from_estimator(net, X - X.mean(axis=0), y, **options)
    >>> display.ax_.get_xlabel()
    'learning rate'
    """

    def __init__(self, result):
        self.result = result

    @classmethod
    def from_estimator(cls, estimator, X, y=None, *, ax=None, line_kw=None, **options):
        """Run a range test and draw it.

        Parameters
        ----------
        estimator, X, y
            As in :func:`sktune.lr_range_test`.
        ax, line_kw
            As in :meth:`plot`.
        **options
            The other arguments of :func:`sktune.lr_range_test`.

        Returns
        -------
        display : LRRangeDisplay
        """
        result = lr_range_test(estimator, X, y, **options)
        return cls.from_result(result, ax=ax, line_kw=line_kw)

    @classmethod
    def from_result(cls, result, *, ax=None, line_kw=None):
        """Draw the result of a range test.

        Parameters
        ----------
        result : LRRangeResult
        ax, line_kw
            As in :meth:`plot`.

        Returns
        -------
        display : LRRangeDisplay
        """
        return cls(result).plot(ax=ax, line_kw=line_kw)

    def plot(self, ax=None, *, line_kw=None):
        """Draw.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to draw; None makes a new figure.
        line_kw : dict, default=None
            Arguments of matplotlib's `plot` for the lines of losses.

        Returns
        -------
        display : LRRangeDisplay
            The display itself.
        """
        ax = begin_figure(self, ax)
        self.lines_ = []
        self.fills_ = []
        self._draw_losses(line_kw or {})
        self._draw_regions()
        self._limit_losses()
        ax.set(xscale="log", xlabel="learning rate", ylabel="loss")
        ax.legend()
        return self

    def to_frame(self):
        """Return the losses by learning rate.

        See :meth:`~sktune.inspection.LRRangeResult.to_frame`.
        """
        return self.result.to_frame()

    def _draw_losses(self, line_kw):
        result = self.result
        if result.method == "sweep":
            self._draw_line(result.smoothed_losses, "training (smoothed)", line_kw)
            raw = {"s": 4, "color": self.lines_[0].get_color(), "alpha": 0.4}
            self.ax_.scatter(result.rates, result.train_losses[:, 0], **raw)
            return
        for losses, label in ((result.train_losses, "training"), (result.valid_losses, "held out")):
            line = self._draw_line(losses.mean(axis=1), label, line_kw)
            means = losses.mean(axis=1)
            spread = losses.std(axis=1)
            fill = {"color": line.get_color(), "alpha": 0.2, "linewidth": 0}
            band = self.ax_.fill_between(result.rates, means - spread, means + spread, **fill)
            self.fills_.append(band)

    def _draw_line(self, losses, label, line_kw):
        # what is not finite is a gap in the line
        shown = np.where(np.isfinite(losses), losses, np.nan)
        (line,) = self.ax_.plot(self.result.rates, shown, **{"label": label, **line_kw})
        self.lines_.append(line)
        return line

    def _draw_regions(self):
        result = self.result
        low, high = result.good_region
        good = {"color": "tab:green", "alpha": 0.12, "linewidth": 0}
        self.ax_.axvspan(low, high, label="good region", **good)
        suggested = f"suggestion: {result.suggestion:.2g}"
        self.ax_.axvline(result.suggestion, color="tab:green", linestyle="--", label=suggested)
        diverges = f"diverges from {result.divergent_edge:.2g}"
        self.ax_.axvline(result.divergent_edge, color="tab:red", linestyle=":", label=diverges)

    def _limit_losses(self):
        """Leave out the losses of fits that diverge, beside which no others could be told apart."""
        result = self.result
        lowest = np.nanmin(result.train_losses)
        fall = result.untrained_loss - result.smoothed_losses.min()
        highest = result.untrained_loss + _SHOWN_ABOVE * fall
        self.ax_.set_ylim(lowest - _MARGIN * fall, highest)
