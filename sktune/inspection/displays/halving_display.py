"""The picture of a search by halving: scores by rung."""

import numpy as np

from sktune.inspection.displays.colors import escape
from sktune.inspection.records import read_search
from sktune.runtime.optional import import_pandas, import_pyplot


class HalvingDisplay:
    """Scores by rung of a search by halving, a line for each set of parameters.

    Use :meth:`from_search` to make one. Those that reach the last rung are blue, the best of the
    search is orange, all others are grey.

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
        plt = import_pyplot("HalvingDisplay")
        from matplotlib.cbook import normalize_kwargs
        from matplotlib.lines import Line2D

        line_kw = normalize_kwargs(line_kw or {}, Line2D)
        if ax is None:
            _, ax = plt.subplots(figsize=(7, 4.5), layout="constrained")
        self.ax_ = ax
        self.figure_ = ax.figure
        self.lines_ = []
        tracks = self._find_tracks()
        rungs = self.record.rungs
        best = self.record.best_index
        labels = set()
        for track in range(tracks.max() + 1):
            rows = np.flatnonzero(tracks == track)
            rows = rows[np.argsort(rungs[rows], kind="stable")]
            label, color, order, width = "left out", "0.7", 1, 1.0
            if rungs[rows[-1]] == rungs.max():
                label, color, order, width = "in the last rung", "tab:blue", 2, 1.5
            if best in rows:
                label, color, order, width = "best", "tab:orange", 3, 3.0
            # each colour is explained once
            drawn = {"label": "_" if label in labels else label, "color": color, "zorder": order}
            labels.add(label)
            # widths tell them apart without colours
            drawn = {"linewidth": width, "marker": "o", "markersize": 4, **drawn, **line_kw}
            scores = self.record.mean_scores[rows]
            self.lines_ += ax.plot(rungs[rows], scores, **drawn)
        ax.set_xticks(np.unique(rungs))
        ax.set(xlabel="rung", ylabel=escape(self.record.scoring))
        ax.legend(fontsize="small", loc="lower left", bbox_to_anchor=(0, 1), ncols=3, frameon=False)
        return self

    def to_frame(self):
        """Return a pandas frame with a row for each candidate.

        Returns
        -------
        frame : DataFrame
            ``track`` (the number of a set of parameters), the parameters, ``rung``, ``score`` and
            ``is_best``.
        """
        pd = import_pandas("HalvingDisplay.to_frame")
        record = self.record
        columns = {"track": self._find_tracks()}
        columns |= {name: parameter.values for name, parameter in record.parameters.items()}
        columns |= {"rung": record.rungs, "score": record.mean_scores}
        columns["is_best"] = np.arange(record.n_candidates) == record.best_index
        return pd.DataFrame(columns)

    def _find_tracks(self):
        """Return the number of each candidate's set of parameters: equal ones share a number."""
        numbers = {}
        tracks = []
        for params in self.record.params:
            key = repr(sorted(params.items(), key=lambda item: item[0]))
            tracks.append(numbers.setdefault(key, len(numbers)))
        return np.array(tracks)
