"""The picture of scores: by one parameter, by two, or in the order of the candidates."""

import numpy as np

from sktune.inspection.displays.axes import place_values, set_axis
from sktune.inspection.displays.colors import escape
from sktune.inspection.displays.maps import draw_map
from sktune.inspection.displays.parallel import draw_parallel
from sktune.inspection.figures import begin_figure
from sktune.inspection.records import read_search
from sktune.runtime.optional import import_pandas

_KINDS = ("auto", "progress", "parallel")
# Bars of standard errors are drawn up to this many candidates.
_MOST_BARS = 60


class SearchDisplay:
    """Scores of a search by one parameter, by two parameters, or in the candidates' order.

    Use :meth:`from_search` to make one. A cross marks the best candidate. Candidates without a
    score are left out. Two parameters of a grid, one candidate for each pair, are a heat map. Of a
    search by halving, scores by parameters are those of the first rung, where all candidates have
    got the same; of several brackets, of the first rung with most candidates.

    Parameters
    ----------
    record : SearchRecord
    parameters : list of Parameter
        None, one or two.

    Attributes
    ----------
    ax_ : matplotlib Axes
    figure_ : matplotlib Figure
    lines_ : list of matplotlib artists
        The candidates and the marks.

    Examples
    --------
    >>> from sktune.inspection import SearchDisplay
    >>> results = {"params": [{"C": c} for c in (0.01, 1.0)], "mean_test_score": [0.5, 0.9]}
    >>> display = SearchDisplay.from_cv_results(results, "C")
    >>> display.ax_.get_xlabel(), display.ax_.get_xscale()
    ('C', 'log')
    """

    def __init__(self, record, parameters):
        self.record = record
        self.parameters = parameters

    @classmethod
    def from_search(
        cls, search, parameters=(), metric=None, *, kind="auto", background=True, ax=None
    ):
        """Draw the scores of a search.

        Parameters
        ----------
        search, metric
            As in ``read_search`` of ``sktune.inspection.records``.
        parameters : str or sequence of str, default=()
            One parameter for a plot against the score, two for a map coloured by the score,
            any number for ``kind="parallel"``.
        kind, background, ax
            As in :meth:`plot`.

        Returns
        -------
        display : SearchDisplay

        Raises
        ------
        ValueError
            If a parameter is not varied, there are more than two, or no candidate has a score.
        """
        record = read_search(search, metric)
        if parameters or kind == "parallel":
            record = record.comparable
        names = [parameters] if isinstance(parameters, str) else list(parameters)
        if len(names) > 2 and kind != "parallel":
            raise ValueError(f"parameters must be one or two, got {len(names)}")
        found = [record.find_parameter(name) for name in names]
        return cls(record, found).plot(ax=ax, kind=kind, background=background)

    @classmethod
    def from_cv_results(
        cls, results, parameters=(), metric=None, *, kind="auto", background=True, ax=None
    ):
        """Draw the scores of a ``cv_results_``, a dict or a DataFrame: see :meth:`from_search`."""
        options = {"kind": kind, "background": background, "ax": ax}
        return cls.from_search(results, parameters, metric, **options)

    def plot(self, ax=None, *, kind="auto", background=True):
        """Draw.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to draw; None makes a new figure.
        kind : {"auto", "progress", "parallel"}, default="auto"
            ``"progress"`` is the score by candidate with the best so far; ``"auto"`` is that where
            no parameter is given. ``"parallel"`` has an axis for each parameter and a line for
            each candidate.
        background : bool, default=True
            Whether a map of points has predicted scores behind it, where they can be predicted.

        Returns
        -------
        display : SearchDisplay
            The display itself.

        Raises
        ------
        ValueError
            If the kind is unknown, ``"parallel"`` has fewer than two parameters, or no candidate
            has a score that is a finite number.
        ImportError
            If matplotlib is not installed.
        """
        if kind not in _KINDS:
            raise ValueError(f"kind must be one of {list(_KINDS)}, got {kind!r}")
        shown = self.parameters or list(self.record.parameters.values())
        if kind == "parallel" and len(shown) < 2:
            raise ValueError(f"kind='parallel' must have at least two parameters, got {len(shown)}")
        if not np.isfinite(self.record.mean_scores).any():
            raise ValueError("at least one candidate must have a score, got none")
        ax = begin_figure(self, ax, (7, 4.5))
        self.lines_ = []
        if kind == "parallel":
            self.lines_.append(draw_parallel(ax, self.record, shown))
            return self
        if kind == "progress" or not self.parameters:
            self._draw_progress()
        elif len(self.parameters) == 1:
            self._draw_one()
        else:
            drawn, places = draw_map(ax, self.record, self.parameters, background)
            self.lines_.append(drawn)
            self._mark(*places)
        # above the axes, where it hides no candidate
        ax.legend(fontsize="small", loc="lower left", bbox_to_anchor=(0, 1), ncols=5, frameon=False)
        return self

    def to_frame(self):
        """Return a pandas frame with a row for each candidate.

        Returns
        -------
        frame : DataFrame
            The parameters (those drawn, or all where none is given), ``score``,
            ``standard_error``, ``best_so_far`` and ``is_best``.
        """
        pd = import_pandas("SearchDisplay.to_frame")
        shown = self.parameters or self.record.parameters.values()
        frame = pd.DataFrame({parameter.name: parameter.values for parameter in shown})
        frame["score"] = self.record.mean_scores
        frame["standard_error"] = self.record.standard_errors
        frame["best_so_far"] = self._find_best_so_far()
        frame["is_best"] = np.arange(self.record.n_candidates) == self.record.best_index
        return frame

    def _find_best_so_far(self):
        """Return the best score up to each candidate; nan before the first score."""
        return np.fmax.accumulate(self.record.mean_scores)

    def _draw_points(self, places):
        """Draw scores with standard errors at the places of the candidates."""
        record = self.record
        errors = record.standard_errors
        is_shown = np.isfinite(record.mean_scores) & np.isfinite(places)
        if is_shown.sum() <= _MOST_BARS and np.isfinite(errors[is_shown]).all():
            bars = {"fmt": "none", "ecolor": "0.6", "elinewidth": 1, "capsize": 2, "zorder": 1}
            label = "one standard error"
            drawn = (places[is_shown], record.mean_scores[is_shown], errors[is_shown])
            self.lines_.append(self.ax_.errorbar(*drawn, label=label, **bars))
        size = 28 if is_shown.sum() <= _MOST_BARS else 10
        points = {"s": size, "color": "tab:blue", "alpha": 0.8, "zorder": 2, "label": "candidate"}
        drawn = (places[is_shown], record.mean_scores[is_shown])
        self.lines_.append(self.ax_.scatter(*drawn, **points))
        self.ax_.set_ylabel(escape(record.scoring))

    def _mark(self, x, y):
        """Mark the best candidate, and the baseline of a search in stages."""
        marks = {"best": (self.record.best_index, "X", "tab:orange")}
        stages = self.record.stages
        if stages is not None and "baseline" in stages:
            marks["baseline"] = (int(np.argmax(stages == "baseline")), "s", "black")
        for label, (candidate, marker, color) in marks.items():
            if candidate is None or not np.isfinite([x[candidate], y[candidate]]).all():
                continue
            drawn = {"marker": marker, "facecolor": color, "edgecolor": "white", "s": 110}
            at = (x[candidate], y[candidate])
            self.lines_.append(self.ax_.scatter(*at, label=label, zorder=4, **drawn))

    def _draw_one(self):
        """Draw the score against one parameter."""
        (parameter,) = self.parameters
        places = place_values(parameter)
        self._draw_points(places)
        self._mark(places, self.record.mean_scores)
        set_axis(self.ax_.xaxis, parameter)

    def _draw_progress(self):
        """Draw the score by candidate, the best so far, and where stages or rungs begin."""
        places = np.arange(self.record.n_candidates, dtype=float)
        self._draw_points(places)
        step = {"where": "post", "color": "tab:green", "label": "best so far", "zorder": 3}
        self.lines_ += self.ax_.step(places, self._find_best_so_far(), **step)
        self._mark(places, self.record.mean_scores)
        for groups in (self.record.stages, self.record.rungs, self.record.brackets):
            if groups is None:
                continue
            for start in np.flatnonzero(groups[1:] != groups[:-1]) + 0.5:
                self.ax_.axvline(start, color="0.8", linewidth=1, zorder=0)
        self.ax_.set_xlabel("candidate")
