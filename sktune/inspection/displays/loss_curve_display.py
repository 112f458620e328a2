"""The picture of losses by epoch."""

from dataclasses import replace

import numpy as np
from sklearn.pipeline import Pipeline

from sktune.inspection.displays.colors import color_candidates
from sktune.inspection.displays.loss_legend import add_loss_legend
from sktune.inspection.figures import begin_figure
from sktune.inspection.records import (
    CurveTable,
    SearchRecord,
    find_main_metric,
    known_parameter,
    list_metrics,
    name_regimes,
    read_search,
)
from sktune.runtime.optional import import_pandas

# Bands and names of candidates are drawn up to this many; beyond it, one collection of lines.
_MANY = 20
_MOST_BANDS = 5
# More lines than this are paler, so that dense places stand out.
_CROWD = 200
_LOSSES = {"train_loss": ("training", "-"), "valid_loss": ("validation", "--")}
# Losses are shown up to this many times the median first loss above it.
_SHOWN_ABOVE = 1.0
# A logarithmic axis begins at this share of its upper end, at the lowest.
_LOWEST_SHOWN = 1e-6


class LossCurveDisplay:
    """Training and validation losses by epoch, a line for each candidate of a search.

    Use :meth:`from_search` to make one. A line is the mean over the splits, and a band (where few
    are drawn) one standard deviation. Training losses are solid, validation losses dashed. The
    best candidate is thick. What is not finite is a gap.

    Parameters
    ----------
    record : SearchRecord

    Attributes
    ----------
    ax_ : matplotlib Axes
    figure_ : matplotlib Figure
    lines_ : list of matplotlib Line2D or LineCollection
        With more than 20 candidates, a collection for each kind of loss and the best's lines.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sktune import GridSearchCV, NeuralNetClassifier
    >>> from sktune.inspection import LossCurveDisplay
    >>> X, y = load_iris(return_X_y=True)
    >>> net = NeuralNetClassifier(max_epochs=3, random_state=0)
    >>> search = GridSearchCV(net, {"lr": [1e-3, 1e-2]}, cv=2).fit(X, y)
    >>> display = LossCurveDisplay.from_search(search)
    >>> display.ax_.get_xlabel(), display.ax_.get_yscale()
    ('epoch', 'log')
    """

    def __init__(self, record):
        self.record = record

    @classmethod
    def from_search(
        cls, search, metric=None, *, ax=None, color_by=None, candidates=None, line_kw=None
    ):
        """Draw the losses of a search.

        Parameters
        ----------
        search, metric
            As in ``read_search`` of ``sktune.inspection.records``. The search must be fitted, and
            some of its networks trained in a group; results alone have no curves. Where there are
            several metrics, none need be given: the best candidate is then that of the refit, if
            there is one.
        ax, color_by, candidates, line_kw
            As in :meth:`plot`.

        Returns
        -------
        display : LossCurveDisplay

        Raises
        ------
        ValueError
            If there are no curves.
        """
        record = _read_record(search, metric)
        if record.curves is None:
            raise ValueError(
                "search must have trained networks in a group, got a search without loss curves"
            )
        display = cls(record)
        return display.plot(ax=ax, color_by=color_by, candidates=candidates, line_kw=line_kw)

    @classmethod
    def from_estimator(cls, estimator, *, ax=None, line_kw=None):
        """Draw the losses of a single fit.

        Parameters
        ----------
        estimator : net or Pipeline
            A fitted net with a ``history`` as skorch's, or a Pipeline that ends in one.
        ax, line_kw
            As in :meth:`plot`.

        Returns
        -------
        display : LossCurveDisplay

        Raises
        ------
        ValueError
            If there is no history of any epoch.
        """
        net = estimator[-1] if isinstance(estimator, Pipeline) else estimator
        history = getattr(net, "history", None)
        if not history:
            raise ValueError(
                "estimator must be a fitted net with a history of at least one epoch, "
                f"got {type(net).__name__} without one"
            )
        return cls(_read_history(history)).plot(ax=ax, line_kw=line_kw)

    def plot(self, ax=None, *, color_by=None, candidates=None, line_kw=None):
        """Draw.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to draw; None makes a new figure.
        color_by : str, default=None
            The parameter to colour by; None is the learning rate if it varies, and otherwise the
            first parameter that does.
        candidates : sequence of int, default=None
            Which candidates to draw; None draws all that have curves.
        line_kw : dict, default=None
            Arguments of matplotlib's `plot` for the lines that are drawn one by one; those of a
            collection keep their own style.

        Returns
        -------
        display : LossCurveDisplay
            The display itself.

        Raises
        ------
        ValueError
            If `color_by` is no parameter of the search, a candidate has no curve, or none of
            those to draw has a finite loss.
        ImportError
            If matplotlib is not installed.
        """
        shown = self._choose_candidates(candidates)
        parameter = self._choose_parameter(color_by)
        ax = begin_figure(self, ax, (7.5, 4.5))
        self.lines_ = []
        n_candidates = self.record.n_candidates
        colors = np.tile([0.27, 0.35, 0.55, 1.0], (n_candidates, 1))
        if parameter is not None:
            colors = color_candidates(parameter)
        for name, (_, style) in self._list_losses().items():
            self._draw_losses(name, style, shown, colors, line_kw or {})
        ax.set(xlabel="epoch", ylabel="loss")
        self._limit_losses(shown)
        add_loss_legend(ax, self.record, self._list_losses(), parameter, shown)
        return self

    def to_frame(self):
        """Return a pandas frame with a row for each candidate and epoch.

        Returns
        -------
        frame : DataFrame
            ``candidate``, ``epoch``, ``train_loss``, ``train_loss_std``, maybe ``valid_loss`` and
            ``valid_loss_std`` (mean and standard deviation over the splits), and ``regime``, see
            ``name_regimes`` of ``sktune.inspection.records``.
        """
        pd = import_pandas("LossCurveDisplay.to_frame")
        curves = self.record.curves
        n_epochs = curves.n_epochs.max(axis=1)
        is_there = np.arange(curves.train_loss.shape[2]) < n_epochs[:, np.newaxis]
        candidate, epoch = np.nonzero(is_there)
        columns = {"candidate": candidate, "epoch": epoch + 1}
        for name in self._list_losses():
            mean, std = curves.mean_over_splits(name)
            columns[name] = mean[is_there]
            columns[f"{name}_std"] = std[is_there]
        columns["regime"] = name_regimes(curves)[candidate]
        return pd.DataFrame(columns)

    def _list_losses(self):
        """Return the losses that there are: label and style of line by name."""
        if self.record.curves.has_validation:
            return _LOSSES
        return {"train_loss": _LOSSES["train_loss"]}

    def _choose_candidates(self, candidates):
        """Return the candidates to draw, all of which have a curve, and some a finite loss."""
        recorded = np.flatnonzero(self.record.curves.is_recorded)
        shown = recorded if candidates is None else np.asarray(candidates)
        missing = sorted(set(shown.tolist()) - set(recorded.tolist()))
        if missing or len(shown) == 0:
            raise ValueError(
                f"candidates must be numbers of candidates with loss curves, got {candidates!r}"
            )
        means = [self.record.curves.mean_over_splits(name)[0] for name in self._list_losses()]
        if not any(np.isfinite(mean[shown]).any() for mean in means):
            raise ValueError("at least one candidate must have a finite loss, got none")
        return shown

    def _choose_parameter(self, color_by):
        """Return the Parameter to colour by; None if nothing varies."""
        parameters = self.record.parameters
        if color_by is not None:
            return self.record.find_parameter(color_by)
        rates = [name for name in parameters if known_parameter(name) == "lr"]
        names = rates or list(parameters)
        return parameters[names[0]] if names else None

    def _draw_losses(self, name, style, shown, colors, line_kw):
        """Draw one kind of loss."""
        from matplotlib.cbook import normalize_kwargs
        from matplotlib.collections import LineCollection
        from matplotlib.lines import Line2D

        # such as lw, which would be given twice beside linewidth
        line_kw = normalize_kwargs(line_kw, Line2D)
        mean, std = self.record.curves.mean_over_splits(name)
        mean = np.where(np.isfinite(mean), mean, np.nan)
        epochs = np.arange(1, mean.shape[1] + 1)
        best = self.record.best_index
        singles = shown
        if len(shown) > _MANY:
            singles = shown[shown == best]
            thin = {"colors": colors[shown], "linestyles": style, "linewidths": 0.6}
            thin["alpha"] = 0.6 if len(shown) <= _CROWD else 0.25
            lines = [np.column_stack([epochs, mean[candidate]]) for candidate in shown]
            collection = LineCollection(lines, **thin)
            self.ax_.add_collection(collection)
            self.lines_.append(collection)
            self.ax_.autoscale_view()
        # a line of a single epoch is a point
        marker = "o" if len(epochs) == 1 else None
        for candidate in singles:
            width = 3.0 if candidate == best else 1.2
            drawn = {"color": colors[candidate], "linestyle": style, "marker": marker}
            drawn["zorder"] = 3 if candidate == best else 2
            drawn = {"linewidth": width, **drawn, **line_kw}
            self.lines_ += self.ax_.plot(epochs, mean[candidate], **drawn)
            if len(shown) <= _MOST_BANDS:
                low = mean[candidate] - std[candidate]
                band = {"color": colors[candidate], "alpha": 0.2, "linewidth": 0}
                self.ax_.fill_between(epochs, low, mean[candidate] + std[candidate], **band)

    def _limit_losses(self, shown):
        """Leave out the losses of fits that diverge; a loss that may be negative is linear."""
        means = [
            self.record.curves.mean_over_splits(name)[0][shown] for name in self._list_losses()
        ]
        finite = np.concatenate([mean[np.isfinite(mean)] for mean in means])
        positive = finite[finite > 0]
        firsts = np.concatenate([mean[:, 0] for mean in means])
        firsts = firsts[np.isfinite(firsts)]
        typical = np.median(firsts) if len(firsts) else finite.max()
        highest = min(finite.max(), typical + _SHOWN_ABOVE * abs(typical))
        if finite.min() >= 0 and len(positive):
            # a loss of zero, of a fit that is sure of all its rows, is at the lower edge
            lowest = max(positive.min(), _LOWEST_SHOWN * highest)
            self.ax_.set_yscale("log", nonpositive="clip")
            self.ax_.set_ylim(lowest / 1.3, max(highest, lowest) * 1.3)
            return
        lowest = finite.min()
        margin = 0.05 * max(highest - lowest, 1e-12)
        self.ax_.set_ylim(lowest - margin, max(highest, lowest) + margin)


def _read_record(search, metric):
    """Return the record of a search; without a metric, one whose choice needs no metric."""
    if metric is not None:
        return read_search(search, metric)
    record = read_search(search, find_main_metric(search))
    if len(list_metrics(search)) > 1 and not hasattr(record.search, "best_index_"):
        record = replace(record, best_index=None)
    return record


def _read_history(history):
    """Return the record of a single fit, as a search with one candidate and no score."""
    arrays = {}
    for name in ("train_loss", "valid_loss", "lr"):
        column = [epoch.get(name, np.nan) for epoch in history]
        arrays[name] = np.array(column, dtype=float).reshape(1, 1, -1)
    curves = CurveTable(n_epochs=np.array([[len(history)]]), **arrays)
    missing = ("train_scores", "fit_seconds", "best_index", "stages", "rungs")
    empty = dict.fromkeys((*missing, "resources", "brackets"))
    scores = np.full((1, 1), np.nan)
    known = {"params": [{}], "scores": scores, "metric": "score", "scoring": "score"}
    known |= {"scorer": "", "resource": ""}
    return SearchRecord(curves=curves, **known, **empty)
