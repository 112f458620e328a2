"""A race over the splits: candidates that cannot win any more are not fitted on further ones."""

import warnings
from contextlib import contextmanager

import numpy as np

from sktune.bridge.seam import is_lost, make_lost_result
from sktune.search.simplicity import OneStandardError

_NON_FINITE = r"One or more of the (test|train) scores are non-finite"


class Race:
    """Tells which candidates of a search go on to further splits.

    The rule is that of "forgiving" early stopping of cross-validation: a candidate leaves if its
    mean score over the splits so far is below the worst score on any split of the best candidate
    that is complete (Bergman, Purucker and Hutter 2024, "Don't waste your time: early stopping
    cross-validation", equation 2). One that is exactly there goes on.

    Parameters
    ----------
    metric : str or None, default=None
        The name of the score, if a search has several.

    Attributes
    ----------
    incumbent : ndarray of shape (n_splits,) or None
        The scores of the best candidate that is complete.
    sample : dict or None
        What stands for the result of a fit that is not run.

    Examples
    --------
    >>> from sktune.search.racing import Race
    >>> race = Race()
    >>> race.take([{"test_scores": score, "fit_error": None} for score in (0.7, 0.9, 0.8)])
    >>> race.line
    0.7
    >>> race.is_behind([{"test_scores": 0.75}]), race.is_behind([{"test_scores": 0.65}])
    (False, True)
    """

    def __init__(self, metric=None):
        self.metric = metric
        self.incumbent = None
        self.sample = None

    @property
    def line(self):
        """The mean score below which a candidate leaves; None if no candidate is complete."""
        return None if self.incumbent is None else float(self.incumbent.min())

    def take(self, rows):
        """Take the results of a candidate on all splits; it may be the best so far."""
        if any(map(is_lost, rows)) or any(row["fit_error"] is not None for row in rows):
            return
        scores = self._read(rows)
        if not np.isfinite(scores).all():
            return
        if self.incumbent is None or scores.mean() > self.incumbent.mean():
            self.incumbent = scores
            self.sample = make_lost_result(rows[0])

    def is_behind(self, rows):
        """Tell whether a candidate leaves, by its results so far; one that has failed does."""
        return not self.mean(rows) >= self.line

    def mean(self, rows):
        """Return the mean score of results."""
        scores = self._read(rows)
        # the mean of equal numbers may be rounded to less than these
        return float(np.clip(scores.mean(), scores.min(), scores.max()))

    def order(self, rows):
        """Return candidates, the best first, of a dict of their results on one split."""
        scores = {candidate: self._read([row])[0] for candidate, row in rows.items()}
        finite = [candidate for candidate in rows if np.isfinite(scores[candidate])]
        return sorted(finite, key=lambda candidate: -scores[candidate])

    def _read(self, rows):
        """Return the scores of results."""
        found = []
        for row in rows:
            scores = row["test_scores"]
            if isinstance(scores, dict):
                if self.metric not in scores:
                    raise ValueError(
                        "refit must name the score by which candidates race, one of "
                        f"{sorted(scores)}, got {self.metric!r}"
                    )
                scores = scores[self.metric]
            found.append(scores)
        return np.array(found, dtype=float)


def make_race(search):
    """Return the race of one ``fit`` of a search; None if its candidates do not race.

    Raises
    ------
    ValueError
        If `racing` is no bool, or `refit` does not tell by which score candidates race.
    """
    if not isinstance(search.racing, bool | np.bool_):
        raise ValueError(f"racing must be True or False, got racing={search.racing!r}")
    if not search.racing:
        return None
    refit = search.refit
    if callable(refit) and not isinstance(refit, OneStandardError):
        raise ValueError(
            "refit must be a bool, a name or a rule of sktune's with racing=True, since a function "
            f"would choose among candidates without a mean score, got refit={refit!r}"
        )
    metric = getattr(refit, "metric", refit)
    scoring = search.scoring
    has_several = scoring is not None and not isinstance(scoring, str) and not callable(scoring)
    if has_several and (not isinstance(metric, str) or metric not in scoring):
        raise ValueError(
            "refit must name the score by which candidates race, one of "
            f"{sorted(scoring)}, got refit={refit!r}"
        )
    return Race(metric if isinstance(metric, str) else None)


def find_lost(rows, n_splits):
    """Return how many splits each candidate was fitted on, an int array, from all results."""
    are_run = [not is_lost(row) for row in rows]
    return np.array(are_run, dtype=int).reshape(-1, n_splits).sum(axis=1)


@contextmanager
def expecting_lost():
    """Let scikit-learn not warn of scores that are missing since candidates have left a race."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", _NON_FINITE, UserWarning)
        yield


def complete_results(results, rows, n_splits):
    """Complete ``cv_results_`` of a race: add ``n_splits_run``, and times of what was run.

    Warns of scores that are not finite for another reason than that their candidate has left.

    Parameters
    ----------
    results : dict
        It is changed.
    rows : list of dict
        What the tasks have returned.
    n_splits : int
    """
    n_run = find_lost(rows, n_splits)
    results["n_splits_run"] = n_run
    for name in ("fit_time", "score_time"):
        seconds = np.array([row[name] for row in rows], dtype=float).reshape(-1, n_splits)
        results[f"mean_{name}"] = np.nanmean(seconds, axis=1)
        results[f"std_{name}"] = np.nanstd(seconds, axis=1)
    for name, means in results.items():
        if not name.startswith(("mean_test_", "mean_train_")):
            continue
        if not np.isfinite(means[n_run == n_splits]).all():
            part = name.split("_")[1]
            warnings.warn(
                f"One or more of the {part} scores are non-finite: {means}",
                UserWarning,
                stacklevel=2,
            )
