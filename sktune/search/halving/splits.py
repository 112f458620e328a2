"""Splits of some of the rows, where rows are what candidates get more and more of."""

from sklearn.utils import resample

from sktune.search.rounds.seam import FixedSplits


class SampledSplits(FixedSplits):
    """Splits of which a fraction of the rows is taken, to train on and to score on.

    They are drawn as scikit-learn's halving searches draw them.

    Parameters
    ----------
    splits : FixedSplits
        Of all rows.
    fraction : float
    seed : int
    """

    def __init__(self, splits, fraction, seed):
        super().__init__(splits.cv)
        self.whole = splits
        self.fraction = fraction
        self.seed = seed

    def split(self, X, y=None, **params):
        """Return the splits, which are drawn when they are first asked for."""
        if self.splits is None:
            whole = self.whole.split(X, y, **params)
            self.splits = [tuple(map(self._draw, split)) for split in whole]
        return iter(self.splits)

    def _draw(self, rows):
        n_rows = int(self.fraction * len(rows))
        return resample(rows, replace=False, random_state=self.seed, n_samples=n_rows)
