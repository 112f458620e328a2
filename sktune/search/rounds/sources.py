"""Where the candidates of rounds come from."""

from abc import ABC, abstractmethod


class Source(ABC):
    """Gives candidates in batches, and takes what came of them.

    Attributes
    ----------
    found : list of (Point or None, Outcome)
        The candidates so far; None is a candidate that is not in the space.
    known : list of (Point, Outcome)
        Candidates of earlier stages that are in the space, beside those that were found.
    """

    def __init__(self):
        self.found = []
        self.known = []

    @property
    @abstractmethod
    def n_left(self):
        """How many candidates all further rounds have at most."""

    @abstractmethod
    def choose(self, n):
        """Return the Points, each or None, and the parameters of n candidates, two lists."""

    def know(self, points, outcomes):
        """Take candidates of earlier stages that are in the space."""
        self.known = list(zip(points, outcomes, strict=True))

    def take(self, points, outcomes):
        """Take what came of the candidates that were chosen last."""
        self.found += zip(points, outcomes, strict=True)


class Listed(Source):
    """Candidates that are known beforehand.

    Parameters
    ----------
    candidates : list of dict
    space : Space or None
        Where a rule for stopping needs to know where they lie.
    """

    def __init__(self, candidates, space=None):
        super().__init__()
        self.candidates = candidates
        self.space = space

    @property
    def n_left(self):
        """How many candidates are not evaluated yet."""
        return len(self.candidates) - len(self.found)

    def choose(self, n):
        """Return the next n candidates."""
        start = len(self.found)
        batch = self.candidates[start : start + n]
        points = [None if self.space is None else self.space.find_point(params) for params in batch]
        return points, batch
