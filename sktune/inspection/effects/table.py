"""A table of what a parameter's values have done."""

import numpy as np

from sktune.inspection.effects.rows import make_rows
from sktune.inspection.effects.training import epochs_to_converge, find_gaps
from sktune.inspection.records import read_search
from sktune.runtime.optional import import_pandas


def effect_table(search, parameter, metric=None, *, n_bins=8, binning="quantile"):
    """Return scores, speed and overfitting by the values of one parameter.

    Other parameters differ within a row too: the table describes what was tried. Of a search by
    halving, it is that of the first rung: later ones have only the best of its candidates, with
    more resources. Of several brackets, it is that of the first rung with most candidates.

    Parameters
    ----------
    search : estimator object, dict or DataFrame
        A fitted search, or its ``cv_results_``.
    parameter : str
        Its name, or the end of its name after ``__``.
    metric : str, default=None
        Which score, where there are several; None is the one that the search refits by.
    n_bins : int, default=8
        Numbers of more different values than this are put into so many bins. On a logarithmic
        scale, zero has a row of its own.
    binning : {"quantile", "width"}, default="quantile"
        Bins of equal numbers of candidates, or of equal width on the parameter's scale.

    Returns
    -------
    table : DataFrame
        A row for each value or bin, and one for candidates that do not set it. Columns: ``low``
        and ``high``; ``n_candidates``; ``n_failed``, those with a fit without a finite score;
        ``n_left``, those that have left a race, and have no mean score; ``mean_score`` and
        ``mean_score_se``, over the other candidates; ``best_score`` and
        ``best_score_se``, over the splits; ``epochs_to_converge``, the median over candidates
        of the first epoch whose loss has done 99 % of its fall; ``fit_seconds``, the mean;
        ``gap``, the mean of how much better training rows are than test rows, and ``gap_from``,
        ``"scores"``, ``"losses"`` or ``"none"``. What is not known is nan.

    Raises
    ------
    ValueError
        If the search has not varied the parameter, or n_bins or binning is not allowed.
    ImportError
        If pandas is not installed.

    Examples
    --------
    >>> from sktune.inspection import effect_table
    >>> results = {"params": [{"C": 0.1}, {"C": 1.0}], "mean_test_score": [0.7, 0.9]}
    >>> effect_table(results, "C")["mean_score"].to_dict()
    {'0.1': 0.7, '1': 0.9}
    """
    if isinstance(n_bins, bool) or not isinstance(n_bins, (int, np.integer)) or n_bins < 1:
        raise ValueError(f"n_bins must be an integer of at least 1, got n_bins={n_bins!r}")
    if binning not in ("quantile", "width"):
        raise ValueError(f"binning must be 'quantile' or 'width', got binning={binning!r}")
    pd = import_pandas("effect_table")
    record = read_search(search, metric).comparable
    found = record.find_parameter(parameter)
    rows = make_rows(found, n_bins, binning)
    epochs = epochs_to_converge(record.curves, record.n_candidates)
    gaps, gap_from = find_gaps(record)
    lines = []
    for row in rows:
        line = {"low": row.low, "high": row.high, **_describe_scores(record, row.members)}
        line["epochs_to_converge"] = _finite(np.median, epochs[row.members])
        line["fit_seconds"] = np.nan
        if record.fit_seconds is not None:
            line["fit_seconds"] = _finite(np.mean, record.fit_seconds[row.members])
        line["gap"] = _finite(np.mean, gaps[row.members])
        line["gap_from"] = gap_from
        lines.append(line)
    index = pd.Index([row.text for row in rows], name=found.name)
    return pd.DataFrame(lines, index=index)


def _describe_scores(record, members):
    """Return the columns on scores of one row: a dict."""
    means = np.where(members, record.mean_scores, np.nan)
    scored = np.flatnonzero(np.isfinite(means))
    n_failed = int((members & record.has_failed).sum())
    columns = {
        "n_candidates": int(members.sum()),
        "n_failed": n_failed,
        "n_left": int(members.sum()) - len(scored) - n_failed,
        "mean_score": _finite(np.mean, means),
        "mean_score_se": np.nan,
        "best_score": np.nan,
        "best_score_se": np.nan,
    }
    if len(scored) > 1:
        columns["mean_score_se"] = means[scored].std(ddof=1) / np.sqrt(len(scored))
    if len(scored) > 0:
        best = scored[np.argmax(means[scored])]
        columns["best_score"] = means[best]
        columns["best_score_se"] = record.standard_errors[best]
    return columns


def _finite(function, values):
    """Return a statistic of the finite values; nan if there are none."""
    values = values[np.isfinite(values)]
    return float(function(values)) if len(values) > 0 else np.nan
