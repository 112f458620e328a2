"""The picture of a search by halving: scores by rung, and what each rung gave to a fit."""

import numpy as np

from sktune.inspection.displays.colors import escape
from sktune.inspection.figures import begin_figure
from sktune.inspection.records import label_of, read_search
from sktune.inspection.records.parameters import format_value
from sktune.runtime.optional import import_pandas

# Of the brackets of Hyperband, from the first on.
_MARKERS = "osD^vP*X"


class HalvingDisplay:
    """Scores by rung of a search by halving, a line for each set of parameters.

    Use :meth:`from_search` to make one. Those that reach the last rung are blue, the best of the
    search is orange, all others are grey. Below each rung is its resource, such as the number of
    rows or epochs, where the search tells it. Several brackets, as in Hyperband, have markers of
    their own; they are drawn by the resource, as their rungs begin with different ones.

    Parameters
    ----------
    record : SearchRecord

    Attributes
    ----------
    ax_ : matplotlib Axes
    figure_ : matplotlib Figure
    lines_ : list of matplotlib Line2D
        A line for each set of parameters, in the order of their first use.

    Examples
    --------
    >>> from sktune.inspection import HalvingDisplay
    >>> params = [{"C": 1}, {"C": 2}, {"C": 2}]
    >>> results = {"params": params, "iter": [0, 0, 1], "mean_test_score": [0.5, 0.6, 0.7]}
    >>> len(HalvingDisplay.from_cv_results(results).lines_)
    2
    """

    def __init__(self, record):
        self.record = record

    @classmethod
    def from_search(cls, search, metric=None, *, ax=None, line_kw=None):
        """Draw a search by halving.

        Parameters
        ----------
        search, metric
            As in ``read_search`` of ``sktune.inspection.records``.
        ax, line_kw
            As in :meth:`plot`.

        Returns
        -------
        display : HalvingDisplay

        Raises
        ------
        ValueError
            If the search has no rungs, or no candidate has a score.
        """
        record = read_search(search, metric)
        if record.rungs is None:
            raise ValueError("search must be a search by halving, got one without rungs ('iter')")
        if not np.isfinite(record.mean_scores).any():
            raise ValueError("at least one candidate must have a score, got none")
        return cls(record).plot(ax=ax, line_kw=line_kw)

    @classmethod
    def from_cv_results(cls, results, metric=None, *, ax=None, line_kw=None):
        """Draw a ``cv_results_``, a dict or a DataFrame: see :meth:`from_search`."""
        return cls.from_search(results, metric, ax=ax, line_kw=line_kw)

    def plot(self, ax=None, *, line_kw=None):
        """Draw.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to draw; None makes a new figure.
        line_kw : dict, default=None
            Arguments of matplotlib's `plot` for all lines.

        Returns
        -------
        display : HalvingDisplay
            The display itself.

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        """
        ax = begin_figure(self, ax, (7, 4.5))
        self.lines_ = []
        from matplotlib.cbook import normalize_kwargs
        from matplotlib.lines import Line2D

        line_kw = normalize_kwargs(line_kw or {}, Line2D)
        labels = set()
        for rows in self._list_tracks():
            drawn = self._style_track(rows)
            if drawn["label"] in labels:
                # each colour is explained once
                drawn["label"] = "_"
            labels.add(drawn["label"])
            scores = self.record.mean_scores[rows]
            self.lines_ += ax.plot(self._find_places()[rows], scores, **{**drawn, **line_kw})
        self._set_rungs()
        ax.set_ylabel(escape(self.record.scoring))
        self._add_legend()
        return self

    def _list_tracks(self):
        """Return the rows of each track, in the order of the rungs: list of ndarray of int."""
        tracks = self.record.tracks
        found = []
        for track in range(tracks.max() + 1):
            rows = np.flatnonzero(tracks == track)
            found.append(rows[np.argsort(self.record.rungs[rows], kind="stable")])
        return found

    def _style_track(self, rows):
        """Return the arguments of a track's line; widths tell them apart without colours."""
        label, color, order, width = "left out", "0.7", 1, 1.0
        if self.record.is_final[rows[-1]]:
            label, color, order, width = "in the last rung", "tab:blue", 2, 1.5
        if self.record.best_index in rows:
            label, color, order, width = "best", "tab:orange", 3, 3.0
        drawn = {"label": label, "color": color, "zorder": order, "linewidth": width}
        return {**drawn, "marker": self._marker_of(rows[0]), "markersize": 4}

    def _marker_of(self, candidate):
        """Return the marker of a candidate's bracket."""
        if self.record.brackets is None:
            return _MARKERS[0]
        brackets = self._list_brackets()
        return _MARKERS[brackets.index(self.record.brackets[candidate]) % len(_MARKERS)]

    def _list_brackets(self):
        """Return the brackets in the order of their first candidates."""
        return list(dict.fromkeys(self.record.brackets.tolist()))

    def _find_places(self):
        """Return where each candidate stands: at its rung, or at its resource among all."""
        record = self.record
        if record.brackets is None or record.resources is None:
            return record.rungs
        return np.unique(record.resources, return_inverse=True)[1]

    def _set_rungs(self):
        """Name the rungs, with the resource of each."""
        record = self.record
        places, first = np.unique(self._find_places(), return_index=True)
        by_resource = record.brackets is not None and record.resources is not None
        label = "rung"
        texts = [str(place) for place in places]
        if record.resources is not None:
            resource = escape(label_of(record.resource) or "resource of a fit")
            amounts = [format_value(amount) for amount in record.resources[first]]
            pairs = zip(texts, amounts, strict=True)
            texts = amounts if by_resource else [f"{text}\n{amount}" for text, amount in pairs]
            label = resource if by_resource else f"rung, and its {resource}"
        self.ax_.set_xticks(places, texts)
        self.ax_.set_xlabel(label)

    def _add_legend(self):
        """Explain the colours, and the markers of several brackets."""
        from matplotlib.lines import Line2D

        handles, _ = self.ax_.get_legend_handles_labels()
        if self.record.brackets is not None:
            for bracket in self._list_brackets():
                first = int(np.argmax(self.record.brackets == bracket))
                marker = {"marker": self._marker_of(first), "linestyle": "", "color": "0.3"}
                handles.append(Line2D([], [], label=f"bracket {bracket}", **marker))
        place = {"loc": "lower left", "bbox_to_anchor": (0, 1), "frameon": False}
        self.ax_.legend(handles=handles, fontsize="small", ncols=4, **place)

    def to_frame(self):
        """Return a pandas frame with a row for each candidate.

        Returns
        -------
        frame : DataFrame
            ``track`` (the number of a set of parameters), the parameters, ``bracket`` where there
            are several, ``rung``, ``n_resources`` (nan if it is not known), ``score``,
            ``standard_error``, ``is_final`` (whether it is in the last rung) and ``is_best``.
        """
        pd = import_pandas("HalvingDisplay.to_frame")
        record = self.record
        columns = {"track": record.tracks}
        columns |= {name: parameter.values for name, parameter in record.parameters.items()}
        if record.brackets is not None:
            columns["bracket"] = record.brackets
        columns |= {"rung": record.rungs, "n_resources": record.resources}
        if record.resources is None:
            columns["n_resources"] = np.full(record.n_candidates, np.nan)
        columns |= {"score": record.mean_scores, "standard_error": record.standard_errors}
        columns["is_final"] = record.is_final
        columns["is_best"] = np.arange(record.n_candidates) == record.best_index
        return pd.DataFrame(columns)
