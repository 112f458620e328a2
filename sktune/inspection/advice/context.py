"""What the rules look at: a search or a network, and maybe the data."""

from dataclasses import dataclass

import numpy as np
from scipy import stats
from sklearn.exceptions import NotFittedError
from sklearn.utils import _safe_indexing

from sktune.inspection.nets import find_net
from sktune.inspection.records import CurveTable, SearchRecord, read_search


@dataclass(frozen=True)
class Context:
    """What the rules look at.

    Parameters
    ----------
    record : SearchRecord or None
        None for a network.
    curves : CurveTable or None
        Those of the search, or the history of the network as a single fit.
    best : int or None
        The chosen candidate; None if it has no score.
    estimator : estimator object or None
        What was tuned, or the fitted network or Pipeline.
    net : skorch net or None
        The network that the estimator is or ends in.
    outer : object
        What was given: the search, or what contains it.
    X, y : array-like or None
    compare : bool
        Whether rules may train other models.
    """

    record: SearchRecord | None
    curves: CurveTable | None
    best: int | None
    estimator: object
    net: object
    outer: object
    X: object = None
    y: object = None
    compare: bool = False

    @property
    def best_params(self):
        """The parameters that the chosen candidate sets; empty for a network."""
        if self.record is None or self.best is None:
            return {}
        return self.record.params[self.best]

    def value_of(self, name, default=None):
        """Return a parameter of the network in the chosen candidate."""
        for full, value in self.best_params.items():
            if ends_in(full, name):
                return value
        if self.net is None:
            return default
        return self.net.get_params(deep=False).get(name, default)

    def find_tuned(self, name):
        """Return the Parameter of this short name that the search varies; None if there is none."""
        parameters = {} if self.record is None else self.record.parameters
        found = [parameter for full, parameter in parameters.items() if ends_in(full, name)]
        return found[0] if found else None

    def curves_of_best(self, name):
        """Return the losses of the chosen candidate; see :meth:`curves_of`."""
        return self.curves_of(self.best, name)

    def curves_of(self, candidate, name):
        """Return the losses of a candidate: a list of arrays, one for each fit.

        Fits without a finite loss at each epoch are left out.
        """
        if self.curves is None or candidate is None:
            return []
        return self.curves.list_fits(candidate, name)


def ends_in(full, name):
    """Tell whether a parameter's full name is a name, maybe after prefixes."""
    return f"__{full}".endswith(f"__{name}")


def make_context(search_or_net, X=None, y=None, *, metric=None, compare=False):
    """Read a search or a network; see :func:`diagnose` for what is given."""
    X, y = (_leave_out_sealed(rows, search_or_net) for rows in (X, y))
    given = {"outer": search_or_net, "X": X, "y": y, "compare": compare}
    net = _find_net(search_or_net)
    if net is not None:
        if not getattr(net, "history_", None):
            raise NotFittedError("the network must be fitted, got one that is not fitted")
        curves = _read_history(net)
        return Context(None, curves, 0, search_or_net, net, **given)
    record = read_search(search_or_net, metric)
    estimator = record.estimator
    net = _find_net(estimator)
    return Context(record, record.curves, _find_best(record), estimator, net, **given)


def _leave_out_sealed(rows, search):
    """Return the rows that a HoldoutSearch has searched on; of other searches, all rows."""
    searched = getattr(search, "dev_indices_", None)
    if rows is None or searched is None:
        return rows
    return _safe_indexing(rows, searched)


def _find_net(estimator):
    """Return the network that an estimator is or ends in; None if there is none."""
    try:
        return find_net(estimator)[0]
    except TypeError:
        return None


def _find_best(record):
    """Return the chosen candidate if it has a score, else the best that has one."""
    means = record.mean_scores
    if record.best_index is not None and np.isfinite(means[record.best_index]):
        return record.best_index
    is_finite = np.isfinite(means)
    return int(np.argmax(np.where(is_finite, means, -np.inf))) if is_finite.any() else None


def _read_history(net):
    """Return the curve of a fitted network; None without epochs."""
    rows = list(net.history_)
    if not rows or "train_loss" not in rows[0]:
        return None
    columns = {"candidate": [0] * len(rows), "split": [0] * len(rows)}
    columns["epoch"] = range(1, len(rows) + 1)
    columns["train_loss"] = [row.get("train_loss", np.nan) for row in rows]
    columns["valid_loss"] = [row.get("valid_loss", np.nan) for row in rows]
    columns = {name: np.array(values) for name, values in columns.items()}
    return CurveTable.from_columns(columns, 1, 1)


# One-sided level of the tests that compare candidates.
LEVEL = 0.05


def least_significant(scores, best, others):
    """Return by how much the chosen candidate must beat each of the others to be better.

    It is the corrected resampled t-test of Nadeau and Bengio (2003), for k folds, one-sided at 5 %.
    A difference whose own spread is below the median spread gets the median: few folds that
    agree by chance are no evidence.

    Parameters
    ----------
    scores : ndarray of float of shape (n_candidates, n_splits)
    best : int
    others : ndarray of int of shape (n_others,)

    Returns
    -------
    least : ndarray of float of shape (n_others,)
        nan where there is a single split, or no score.
    """
    k = scores.shape[1]
    if k < 2:
        return np.full(len(others), np.nan)
    scores = np.where(np.isfinite(scores), scores, np.nan)
    spreads = (scores[best] - scores).std(axis=1, ddof=1)
    spreads[best] = np.nan
    if np.isnan(spreads).all():
        return np.full(len(others), np.nan)
    spread = np.maximum(spreads[others], np.nanmedian(spreads))
    # Nadeau and Bengio 2003: 1/k + n_test/n_train, where k folds have n_test/n_train = 1/(k-1)
    factor = np.sqrt(1 / k + 1 / (k - 1))
    return stats.t.ppf(1 - LEVEL, k - 1) * factor * spread
