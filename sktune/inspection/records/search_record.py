"""What a search has tried and found, in one form."""

from dataclasses import dataclass, field, replace

import numpy as np

from sktune.inspection.records.curves import CurveTable
from sktune.inspection.records.rungs import find_comparable, find_final

# what is an array with an entry for each candidate
_BY_CANDIDATE = {
    "scores",
    "train_scores",
    "fit_seconds",
    "stages",
    "rungs",
    "resources",
    "brackets",
    "n_splits_run",
}


@dataclass(frozen=True)
class SearchRecord:
    """What a search has tried and found.

    Parameters
    ----------
    params : list of dict
        The parameters that each candidate sets, of length n_candidates.
    scores : ndarray of shape (n_candidates, n_splits)
        Test scores by split, greater is better; nan for a failed fit. A search that does not keep
        them by split has one column, the mean scores.
    metric : str
        The name of the metric in ``cv_results_``; ``"score"`` where there is one only.
    scoring : str
        How the metric is called in texts, such as ``"accuracy"``.
    scorer : str
        The name of scikit-learn's scorer, or ``""`` where the metric is another or unknown. It is
        not `scoring` where a search has its own names, as in ``scoring={"a": "accuracy"}``.
    train_scores : ndarray of shape (n_candidates, n_splits), or None
        With ``return_train_score=True`` only.
    fit_seconds : ndarray of shape (n_candidates,), or None
        The mean time of a candidate's fits.
    best_index : int or None
        The candidate that the search has chosen; else the one of the best mean score; None if no
        candidate has a score.
    stages : ndarray of str of shape (n_candidates,), or None
        The stages of a search in stages.
    rungs : ndarray of int of shape (n_candidates,), or None
        The iterations of a search by halving.
    resources : ndarray of shape (n_candidates,), or None
        How much each rung of a search by halving gave to a fit, such as rows or epochs.
    resource : str
        What these are, as the search calls it, such as ``"n_samples"``; ``""`` if unknown.
    brackets : ndarray of shape (n_candidates,), or None
        Which of several searches by halving, as in Hyperband, each candidate belongs to.
    curves : CurveTable or None
        None where no network was trained in a group.
    parameters : dict of Parameter
        What the candidates differ in, by name, with the most important known ones first.
    estimator : estimator object or None
        What was tuned, unfitted.
    search : estimator object or None
        The fitted search itself.
    n_splits_run : ndarray of int of shape (n_candidates,), or None
        On how many splits each candidate was fitted, where candidates have raced.
    """

    params: list
    scores: np.ndarray
    metric: str
    scoring: str
    scorer: str
    train_scores: np.ndarray | None
    fit_seconds: np.ndarray | None
    best_index: int | None
    stages: np.ndarray | None
    rungs: np.ndarray | None
    resources: np.ndarray | None
    resource: str
    brackets: np.ndarray | None
    curves: CurveTable | None
    parameters: dict = field(default_factory=dict)
    estimator: object = None
    search: object = None
    n_splits_run: np.ndarray | None = None

    @property
    def n_candidates(self):
        """How many candidates there are."""
        return len(self.params)

    @property
    def n_splits(self):
        """How many splits there are."""
        return self.scores.shape[1]

    @property
    def mean_scores(self):
        """The mean score of each candidate; nan if one of its fits failed, or was not run."""
        return self.scores.mean(axis=1)

    @property
    def is_spared(self):
        """Which fits were not run, since their candidate had left a race: of the shape of scores.

        Where the scores are means, it is a candidate that has left.
        """
        if self.n_splits_run is None:
            return np.zeros(self.scores.shape, dtype=bool)
        if self.n_splits == 1:
            return (self.n_splits_run < self.n_splits_run.max())[:, None]
        return np.arange(self.n_splits) >= self.n_splits_run[:, None]

    @property
    def has_failed(self):
        """Which candidates have a fit that was run and has no finite score."""
        return (~np.isfinite(self.scores) & ~self.is_spared).any(axis=1)

    @property
    def standard_errors(self):
        """The standard error of each mean score over the splits; nan with a single split.

        It is that of independent scores, ``std(ddof=1) / sqrt(n_splits)``. Splits of one data set
        share their rows, so that the true one is larger (Nadeau and Bengio 2003).
        """
        if self.n_splits < 2:
            return np.full(self.n_candidates, np.nan)
        return self.scores.std(axis=1, ddof=1) / np.sqrt(self.n_splits)

    @property
    def is_final(self):
        """Which candidates are in the last rung of their bracket; all, without rungs."""
        return find_final(self.rungs, self.brackets, self.n_candidates)

    @property
    def comparable(self):
        """The record of the candidates whose scores tell what a parameter does.

        All, without rungs. Of a search by halving they are those of the first rung: later ones have
        only the best of them, with more resources. Of several brackets it is the first rung of most
        candidates. `best_index` is where the best one stands there, or None; `scoring` tells the
        resources.
        """
        if self.rungs is None:
            return self
        is_in = find_comparable(self.rungs, self.brackets, self.resources, self.n_candidates)
        chosen = np.flatnonzero(is_in)
        parts = {name: getattr(self, name) for name in _BY_CANDIDATE}
        parameters = {name: p.select(chosen) for name, p in self.parameters.items()}
        rung = "the first rung"
        if self.resources is not None:
            rung = f"{self.resource or 'resources'} = {self.resources[chosen[0]]}"
        return replace(
            self,
            params=[self.params[candidate] for candidate in chosen],
            scoring=f"{self.scoring} ({rung})",
            curves=None if self.curves is None else self.curves.select(chosen),
            parameters={name: p for name, p in parameters.items() if p.is_varied},
            best_index=self._find_best_among(chosen),
            **{name: part if part is None else part[chosen] for name, part in parts.items()},
        )

    def _find_best_among(self, chosen):
        """Return where the best candidate stands among some candidates, of any rung; or None."""
        if self.best_index is None:
            return None
        tracks = self.tracks
        alike = np.flatnonzero(tracks[chosen] == tracks[self.best_index])
        return int(alike[0]) if len(alike) else None

    @property
    def common_scores(self):
        """The mean score of each candidate over the splits that all were fitted on.

        They are the `mean_scores`, unless candidates have raced: means over all splits are then
        those of the best alone.
        """
        if self.n_splits_run is None or self.n_splits == 1:
            return self.mean_scores
        return self.scores[:, : self.n_splits_run.min()].mean(axis=1)

    @property
    def tracks(self):
        """The number of each candidate's set of parameters: (n_candidates,).

        Equal ones share a number, as a candidate does that goes on to the next rung; but not
        those of two brackets.
        """
        brackets = [None] * self.n_candidates if self.brackets is None else self.brackets
        given_by_rungs = self._find_parameters_of_rungs()
        numbers = {}
        tracks = []
        for params, bracket in zip(self.params, brackets, strict=True):
            own = [item for item in params.items() if item[0] not in given_by_rungs]
            given = sorted(own, key=lambda item: item[0])
            key = repr((bracket, given))
            tracks.append(numbers.setdefault(key, len(numbers)))
        return np.array(tracks)

    def _find_parameters_of_rungs(self):
        """Return the parameters that are the resource itself: a set of str."""
        if self.resources is None:
            return set()
        pairs = list(zip(self.params, self.resources, strict=True))
        names = self.params[0]
        return {name for name in names if all(p.get(name) == amount for p, amount in pairs)}

    def find_parameter(self, name):
        """Return a Parameter by its name, or by the end of its name if there is one such only.

        Raises
        ------
        ValueError
            If the search has not varied it.
        """
        if name in self.parameters:
            return self.parameters[name]
        ends = [full for full in self.parameters if full.endswith(f"__{name}")]
        if len(ends) == 1:
            return self.parameters[ends[0]]
        raise ValueError(
            f"the parameter must be one that the search varies, {sorted(self.parameters)}, "
            f"got {name!r}"
        )
