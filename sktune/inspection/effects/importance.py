"""How much of the score's variance each parameter, and each pair of parameters, explains."""

from dataclasses import dataclass, field
from itertools import combinations

import numpy as np

from sktune.inspection.effects.surrogate import decompose, encode, fit_forest
from sktune.inspection.records import label_of, read_search
from sktune.runtime.optional import import_pandas

# With fewer candidates, nothing is said: in all, and for each parameter.
_MIN_CANDIDATES = 15
_MIN_PER_PARAMETER = 5
# With fewer, there is no forest.
_MIN_FOR_FOREST = 3
# The one-sided 5 % point of the normal distribution.
_Z = 1.645


@dataclass(frozen=True)
class ParameterImportance:
    """Shares of the variance of predicted scores by parameter and by pair.

    How much of the scores' own variance the predictions have is told by ``r2``.

    Parameters
    ----------
    shares : dict of tuple of str to float
        Of each parameter ``(name,)`` and each pair ``(name, other)``; of a pair, what it explains
        beyond its two parameters. nan where no forest could be fitted.
    deviations : dict of tuple of str to float
        The standard deviation of each share over the forest's trees.
    r2 : float
        R² of the forest's predictions for candidates that its trees have not seen.
    n_candidates : int
        How many candidates have a score.
    n_failed : int
        How many were left out because they have none.
    reason : str
        Why nothing can be told; ``""`` if the shares can be relied on.
    metric : str
        How the score is called.
    """

    shares: dict = field(repr=False)
    deviations: dict = field(repr=False)
    r2: float
    n_candidates: int
    n_failed: int
    reason: str
    metric: str

    @property
    def is_conclusive(self):
        """Whether the candidates are enough to tell."""
        return self.reason == ""

    @property
    def verdict(self):
        """One sentence: what matters most, or why the candidates are not enough to tell."""
        if not self.is_conclusive:
            return f"Not enough candidates to tell: {self.reason}."
        first = max(self.shares, key=self.shares.get)
        names = " with ".join(label_of(name) for name in first)
        share = self.shares[first]
        return f"Most is explained by {names}: {share:.0%} of the variance of predicted scores."

    def to_frame(self):
        """Return the shares, largest first.

        Returns
        -------
        frame : DataFrame
            Columns ``parameter``; ``other``, ``""`` unless the row is a pair; ``share``; ``std``.

        Raises
        ------
        ImportError
            If pandas is not installed.
        """
        pd = import_pandas("ParameterImportance.to_frame")
        rows = []
        for names in sorted(self.shares, key=self.shares.get, reverse=True):
            other = names[1] if len(names) == 2 else ""
            rows.append((names[0], other, self.shares[names], self.deviations[names]))
        return pd.DataFrame(rows, columns=["parameter", "other", "share", "std"])

    def __str__(self):
        counts = (
            f"{self.n_candidates} candidates, {self.n_failed} without a score, R² {self.r2:.2f}"
        )
        lines = [f"{self.verdict} ({counts})"]
        for names in sorted(self.shares, key=self.shares.get, reverse=True):
            share = f"{self.shares[names]:.3f} ± {self.deviations[names]:.3f}"
            lines.append(f"  {' × '.join(names)}: {share}")
        return "\n".join(lines)


def importance(search, metric=None, *, n_trees=64, n_samples=2048, random_state=0):
    """Return how much of the score's variance each parameter and each pair explains.

    A forest learns the score from the parameters, and a functional analysis of variance divides
    the variance of its predictions (Hutter et al. 2014, "An efficient approach for assessing
    hyperparameter importance"). Numbers are on their own scale, and an unset value is a value of
    its own. The shares are of the values that were tried: other ranges give other shares. Of a
    search by halving, they are those of the first rung, and of several brackets those of the first
    rung with most candidates. Where candidates have raced, their scores are the means over the
    splits that all were fitted on.

    Parameters
    ----------
    search : estimator object, dict or DataFrame
        A fitted search, or its ``cv_results_``.
    metric : str, default=None
        Which score, where there are several; None is the one that the search refits by.
    n_trees : int, default=64
        At least 32, so that each candidate is unseen by some tree.
    n_samples : int, default=2048
        How many quasi-random points the variance is measured at: a power of 2.
    random_state : int, default=0
        Same seed, same shares.

    Returns
    -------
    importance : ParameterImportance
        Its ``is_conclusive`` is False with fewer than 15 candidates, or 5 for each parameter, or
        where the forest does not predict unseen candidates better than their mean does (a
        one-sided test at 5 %).

    Raises
    ------
    ValueError
        If no candidate has a score, the search varies no parameter, or n_trees or n_samples is
        not allowed.

    Examples
    --------
    >>> from sktune.inspection import importance
    >>> params = [{"a": a, "b": b} for a in range(8) for b in range(8)]
    >>> scores = [candidate["a"] / 8 for candidate in params]
    >>> found = importance({"params": params, "mean_test_score": scores})
    >>> found.is_conclusive, found.shares["a",] > 0.9
    (True, True)
    """
    _check_counts(n_trees, n_samples)
    record = read_search(search, metric).comparable
    means = record.common_scores
    scored = np.isfinite(means)
    if not scored.any():
        raise ValueError(
            f"at least one candidate must have a score, got {record.n_candidates} without one"
        )
    names = list(record.parameters)
    if not names:
        raise ValueError(
            "the search must vary at least one parameter, "
            f"got {record.n_candidates} candidates with the same values"
        )
    scores = means[scored]
    columns = [encode(record.parameters[name])[scored] for name in names]
    r2, is_better, parts = _explain(columns, scores, n_trees, n_samples, random_state)
    named = {tuple(names[i] for i in subset): part for subset, part in parts.items()}
    return ParameterImportance(
        shares={key: float(share) for key, (share, _) in named.items()},
        deviations={key: float(deviation) for key, (_, deviation) in named.items()},
        r2=float(r2),
        n_candidates=len(scores),
        n_failed=int((~scored).sum()),
        reason=_find_reason(len(scores), len(names), np.ptp(scores), is_better),
        metric=record.scoring,
    )


def _check_counts(n_trees, n_samples):
    for name, value, least in (("n_trees", n_trees, 32), ("n_samples", n_samples, 2)):
        is_integer = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
        if not is_integer or value < least:
            raise ValueError(f"{name} must be an integer of at least {least}, got {name}={value!r}")
    if n_samples & (n_samples - 1):
        raise ValueError(f"n_samples must be a power of 2, got n_samples={n_samples!r}")


def _explain(columns, scores, n_trees, n_samples, random_state):
    """Return R², whether it is better than chance, and the parts of `decompose`.

    All are nan, and it is not better, where the scores do not differ or are too few for a forest.
    """
    subsets = [(i,) for i in range(len(columns))]
    subsets += list(combinations(range(len(columns)), 2))
    if len(scores) < _MIN_FOR_FOREST or np.ptp(scores) == 0:
        return np.nan, False, dict.fromkeys(subsets, (np.nan, np.nan))
    # trees stop at tiny variances, so that the scale of the scores would matter
    scores = (scores - scores.mean()) / scores.std()
    forest, unseen = fit_forest(columns, scores, n_trees, random_state)
    r2, is_better = _judge(scores, unseen)
    return r2, is_better, decompose(forest, columns, subsets, n_samples, random_state)


def _judge(scores, predictions):
    """Return R², and whether the forest predicts better than the mean of the other candidates."""
    n = len(scores)
    total = ((scores - scores.mean()) ** 2).sum()
    errors = (scores - predictions) ** 2
    r2 = 1.0 - errors.sum() / total
    # a candidate's distance from the mean of all others
    chance = ((scores - scores.mean()) * n / (n - 1)) ** 2
    gains = chance - errors
    return r2, gains.mean() > _Z * gains.std(ddof=1) / np.sqrt(n)


def _find_reason(n_candidates, n_parameters, spread, is_better):
    """Return why nothing can be told, or an empty text."""
    least = max(_MIN_CANDIDATES, _MIN_PER_PARAMETER * n_parameters)
    if n_candidates < least:
        return f"{n_candidates} have a score, and {least} must (parameters: {n_parameters})"
    if spread == 0:
        return "all have the same score"
    if not is_better:
        return "scores of unseen candidates are not predicted better than by their mean"
    return ""
