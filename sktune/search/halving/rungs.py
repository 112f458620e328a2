"""How many candidates get how much, rung by rung: numbers only."""

from dataclasses import dataclass
from math import ceil, floor


@dataclass(frozen=True)
class Rung:
    """Candidates of a bracket that get the same resources.

    Parameters
    ----------
    bracket : int
        The number of the bracket, from 0.
    iteration : int
        The number of the rung in its bracket, from 0.
    n_candidates : int
    n_resources : int
        What each candidate gets: epochs, rows, trees.
    """

    bracket: int
    iteration: int
    n_candidates: int
    n_resources: int


@dataclass(frozen=True)
class Plan:
    """What a search is going to do: ``print`` it for a table.

    Parameters
    ----------
    brackets : list of list of Rung
        Each bracket begins with candidates of its own.
    resource : str
        What the candidates get more and more of.
    n_splits : int
    goes_on : bool
        Whether candidates go on from where they stand, so that a rung costs what it adds.
    """

    brackets: list
    resource: str
    n_splits: int
    goes_on: bool

    @property
    def n_candidates(self):
        """How many different candidates there are."""
        return sum(rungs[0].n_candidates for rungs in self.brackets)

    @property
    def n_fits(self):
        """How many fits are scored, of all splits."""
        rungs = [rung for rungs in self.brackets for rung in rungs]
        return self.n_splits * sum(rung.n_candidates for rung in rungs)

    @property
    def n_resources(self):
        """What is spent on all candidates and splits: the epochs, where `resource` counts them."""
        return self.n_splits * sum(map(self._cost_of, self.brackets))

    def _cost_of(self, rungs):
        cost = 0
        before = 0
        for rung in rungs:
            cost += rung.n_candidates * (rung.n_resources - before)
            if self.goes_on:
                before = rung.n_resources
        return cost

    def __str__(self):
        lines = [f"{'bracket':>7}{'rung':>6}{'candidates':>12}{self.resource:>{self._width}}"]
        for rungs in self.brackets:
            for rung in rungs:
                lines.append(
                    f"{rung.bracket:>7}{rung.iteration:>6}{rung.n_candidates:>12}"
                    f"{rung.n_resources:>{self._width}}"
                )
        how = ", which go on from where they stand" if self.goes_on else ""
        lines.append(
            f"{self.n_candidates} candidates{how}: {self.n_resources} of {self.resource} "
            f"on {self.n_splits} splits"
        )
        return "\n".join(lines)

    @property
    def _width(self):
        return len(self.resource) + 2


def count_powers(factor, ratio):
    """Return the largest n for which ``factor ** n`` is not above a ratio, which is at least 1.

    A logarithm would be too small by one for some ratios, such as 243 to the base of 3.
    """
    n = 0
    while factor ** (n + 1) <= ratio * (1 + 1e-12):
        n += 1
    return n


def plan_halving(n_candidates, min_resources, max_resources, factor, is_aggressive, exhausts):
    """Return the rungs of successive halving, as scikit-learn's classes have them.

    Parameters
    ----------
    n_candidates, min_resources, max_resources : int
    factor : float
        From rung to rung the candidates are divided by it, and the resources are multiplied.
    is_aggressive : bool
        Whether more rungs are put before the others if resources do not suffice to leave fewer
        candidates than `factor`.
    exhausts : bool
        Whether the first rung gets so much that the last one gets `max_resources`.

    Returns
    -------
    rungs : list of Rung
    n_required, n_possible : int
        The rungs that would leave fewer candidates than `factor`, and those that the resources
        suffice for.
    """
    n_required = 1 + count_powers(factor, n_candidates)
    if exhausts:
        min_resources = max(min_resources, int(max_resources // factor ** (n_required - 1)))
    n_possible = 1 + count_powers(factor, max_resources // min_resources)
    n_rungs = n_required if is_aggressive else min(n_possible, n_required)
    rungs = []
    for iteration in range(n_rungs):
        power = max(0, iteration - n_required + n_possible) if is_aggressive else iteration
        n_resources = min(int(factor**power * min_resources), max_resources)
        rungs.append(Rung(0, iteration, n_candidates, n_resources))
        n_candidates = ceil(n_candidates / factor)
    return rungs, n_required, n_possible


def plan_hyperband(min_resources, max_resources, factor):
    """Return the rungs of each bracket of Hyperband (Li et al. 2018, algorithm 1).

    The first bracket has most candidates and the smallest rungs; the last one gives all resources
    to each of its few candidates.
    """
    most = count_powers(factor, max_resources / min_resources)
    brackets = []
    for s in range(most, -1, -1):
        n_first = ceil((most + 1) / (s + 1) * factor**s)
        rungs = []
        for iteration in range(s + 1):
            n_candidates = max(1, floor(n_first / factor**iteration + 1e-9))
            n_resources = max(1, round(max_resources / factor ** (s - iteration)))
            rungs.append(Rung(len(brackets), iteration, n_candidates, n_resources))
        brackets.append(rungs)
    return brackets
